//! `mapping`: a daemon with a registry, as an operator and a script meet it.

use serde_json::{Value, json};
use vhost_ila::control::client;

use crate::commands::run::Daemon;
use crate::{answer, refusal};

const AUTHORITY: &str = "[authority]\nkind = \"embedded\"\nstate = \"DIR/state\"\n";

const BLUE: &str = r#"[network.blue]
vni = 1001
ipv4 = "10.1.0.0/16"
ipv6 = "2001:db8:b1:e::/96"
"#;

const VM1: &str = r#"[attachment.vm1]
network = "blue"
mac = "52:54:00:00:00:01"
addresses = ["10.1.0.1", "2001:db8:b1:e::1"]
"#;

const OWN: &str = "2001:db8:0:1::/64";
const HV2: &str = "2001:db8:0:2::/64";
const HV3: &str = "2001:db8:0:3::/64";

fn start() -> Daemon {
    Daemon::start_with(AUTHORITY, &format!("{BLUE}{VM1}"))
}

fn register<'a>(address: &'a str, locator: &'a str) -> Vec<&'a str> {
    vec!["mapping", "register", address, "--network", "blue", "--locator", locator]
}

fn unregister<'a>(address: &'a str, locator: &'a str) -> Vec<&'a str> {
    vec!["mapping", "unregister", address, "--network", "blue", "--locator", locator]
}

fn move_to<'a>(address: &'a str, from: &'a str, to: &'a str) -> Vec<&'a str> {
    vec!["mapping", "move", address, "--network", "blue", "--from", from, "--to", to]
}

/// Where the registry and the configuration say it lives: locator, epoch, by whom.
fn holder(daemon: &Daemon, address: &str) -> Option<(String, u64, String)> {
    let all: Value =
        serde_json::from_str(&answer(&daemon.ask(&["mapping", "list", "--json"]))).expect("JSON");
    let line = all.as_array().expect("a list").iter().find(|line| line["address"] == address)?;
    let text = |key: &str| line[key].as_str().expect("text").to_owned();
    Some((text("locator"), line["epoch"].as_u64().expect("a number"), text("by")))
}

/// Where packets for it go.
fn way(daemon: &Daemon, address: &str) -> Option<String> {
    let mappings = daemon.show("mappings");
    let line = mappings.as_array().expect("a list").iter().find(|line| line["address"] == address)?;
    Some(line["locator"].as_str().expect("text").to_owned())
}

#[test]
fn a_duplicate_is_denied_and_the_answer_names_its_holder() {
    let daemon = start();
    let done = answer(&daemon.ask(&register("10.1.0.7", HV2)));
    assert!(done.starts_with("registered: 2001:db8:0:2::/64 holds 10.1.0.7, epoch "), "{done}");
    assert_eq!(way(&daemon, "10.1.0.7").as_deref(), Some(HV2), "packets follow");
    let denied = refusal(&daemon.ask(&register("10.1.0.7", HV3)));
    assert!(
        denied.contains("10.1.0.7 in blue: it is registered already: 2001:db8:0:2::/64 holds it"),
        "{denied}"
    );
    assert_eq!(way(&daemon, "10.1.0.7").as_deref(), Some(HV2));
    answer(&daemon.ask(&register("2001:db8:b1:e::7", HV3)));
    assert_eq!(way(&daemon, "2001:db8:b1:e::7").as_deref(), Some(HV3));
}

#[test]
fn only_the_holder_gives_up_and_then_another_may_register() {
    let daemon = start();
    answer(&daemon.ask(&register("10.1.0.7", HV2)));
    let denied = refusal(&daemon.ask(&unregister("10.1.0.7", HV3)));
    assert!(denied.contains("2001:db8:0:2::/64 holds it") && denied.contains("only the holder"), "{denied}");
    assert_eq!(answer(&daemon.ask(&unregister("10.1.0.7", HV2))), "unregistered: nobody holds 10.1.0.7\n");
    assert_eq!((way(&daemon, "10.1.0.7"), holder(&daemon, "10.1.0.7")), (None, None));
    assert!(refusal(&daemon.ask(&unregister("10.1.0.7", HV2))).contains("nobody has registered it"));
    answer(&daemon.ask(&register("10.1.0.7", HV3)));
}

#[test]
fn a_move_by_the_holders_word_is_no_duplicate_and_its_epoch_rises() {
    let mut daemon = start();
    answer(&daemon.ask(&register("10.1.0.7", HV2)));
    let (_, first, _) = holder(&daemon, "10.1.0.7").expect("registered");
    let denied = refusal(&daemon.ask(&move_to("10.1.0.7", HV3, HV2)));
    assert!(denied.contains("2001:db8:0:2::/64 holds it"), "{denied}");
    let done = answer(&daemon.ask(&move_to("10.1.0.7", HV2, HV3)));
    assert!(done.starts_with("moved: 2001:db8:0:3::/64 holds 10.1.0.7, epoch "), "{done}");
    let (at, second, _) = holder(&daemon, "10.1.0.7").expect("registered");
    assert!(at == HV3 && second > first);
    assert_eq!(way(&daemon, "10.1.0.7").as_deref(), Some(HV3));
    daemon.kill_and_start();
    assert_eq!(holder(&daemon, "10.1.0.7"), Some((HV3.into(), second, "request".into())), "it survives");
    assert_eq!(way(&daemon, "10.1.0.7").as_deref(), Some(HV3), "and packets follow again");
    assert!(refusal(&daemon.ask(&move_to("10.1.0.7", HV3, HV3))).contains("to where it is"));
    assert!(refusal(&daemon.ask(&move_to("10.1.0.8", HV2, HV3))).contains("nobody has registered it"));
}

#[test]
fn attachments_are_registered_by_the_configuration_and_given_up_with_it() {
    let daemon = start();
    let (at, epoch, by) = holder(&daemon, "10.1.0.1").expect("registered");
    assert!((at.as_str(), by.as_str()) == (OWN, "config") && epoch > 0);
    for command in [register("10.1.0.1", HV2), move_to("10.1.0.1", OWN, HV2), unregister("10.1.0.1", OWN)] {
        let denied = refusal(&daemon.ask(&command));
        assert!(
            denied.contains("the configuration of this host says that 2001:db8:0:1::/64 has it"),
            "{denied}"
        );
    }
    daemon.configure(BLUE);
    answer(&daemon.ask(&["reload"]));
    assert_eq!(holder(&daemon, "10.1.0.1"), None);
    answer(&daemon.ask(&register("10.1.0.1", HV2)));

    // Back to the attachment: somebody else has it by now.
    daemon.configure(&format!("{BLUE}{VM1}"));
    let refused = refusal(&daemon.ask(&["reload"]));
    for part in [
        "blue.toml:5: attachment.vm1: 10.1.0.1",
        "2001:db8:0:2::/64 holds it",
        "vhost-ila mapping move 10.1.0.1",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(daemon.show("attachments").as_array().map(Vec::len), Some(0), "what ran still runs");
    assert_eq!(way(&daemon, "10.1.0.1").as_deref(), Some(HV2));

    // The remedy works: moved here first, then configured.
    answer(&daemon.ask(&move_to("10.1.0.1", HV2, OWN)));
    let (_, moved, by) = holder(&daemon, "10.1.0.1").expect("registered");
    assert_eq!(by, "request");
    answer(&daemon.ask(&["reload"]));
    assert_eq!(holder(&daemon, "10.1.0.1"), Some((OWN.into(), moved, "config".into())));
    assert_eq!(daemon.show("attachments").as_array().map(Vec::len), Some(1));
}

#[test]
fn a_configuration_that_disagrees_with_the_registry_does_not_start() {
    let mut daemon = start();
    answer(&daemon.ask(&register("10.1.0.7", HV2)));
    let mapping =
        "[[mapping]]\nnetwork = \"blue\"\naddress = \"10.1.0.7\"\nlocator = \"2001:db8:0:3::/64\"\n";
    daemon.configure(&format!("{BLUE}{VM1}{mapping}"));
    assert!(refusal(&daemon.ask(&["reload"])).contains("mapping 10.1.0.7 in blue"));
    let said = daemon.kill_and_fail();
    assert!(
        said.contains("blue.toml:9: mapping 10.1.0.7 in blue") && said.contains("2001:db8:0:2::/64"),
        "{said}"
    );
    daemon.configure(&format!("{BLUE}{VM1}{}", mapping.replace("0:3::", "0:2::")));
    daemon.kill_and_start();
    assert_eq!(way(&daemon, "10.1.0.7").as_deref(), Some(HV2));
}

#[test]
fn tasks_are_registered_by_their_sir_address() {
    let daemon = start();
    let task = "2001:db8:51:0:2000::11";
    answer(&daemon.ask(&["mapping", "register", task, "--locator", HV2]));
    let denied = refusal(&daemon.ask(&["mapping", "register", task, "--locator", HV3]));
    assert!(denied.contains("2001:db8:51:0:2000::11: it is registered already"), "{denied}");
    let table = answer(&daemon.ask(&["mapping", "list"]));
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["network", "address", "holder", "epoch", "by"]);
    assert_eq!(rows[1][..3], ["-", task, HV2]);
    assert_eq!(rows[2][..3], ["blue", "10.1.0.1", OWN]);
}

#[test]
fn what_nobody_could_hold_is_refused_by_name() {
    let daemon = start();
    for (address, network, locator, why) in [
        ("10.1.0.7", "green", HV2, "not defined"),
        ("192.0.2.1", "blue", HV2, "no free address"),
        ("10.1.255.254", "blue", HV2, "no free address"),
        ("2001:db8:99::1", "blue", HV2, "no free address"),
        ("10.1.0.7", "blue", "2001:db8:51::/64", "the SIR prefix"),
        ("10.1.0.7", "blue", "2001:db8:b1:e::/64", "contains a network's /96"),
    ] {
        let refused = refusal(&daemon.ask(&[
            "mapping",
            "register",
            address,
            "--network",
            network,
            "--locator",
            locator,
        ]));
        assert!(refused.contains(why), "{refused}");
    }
    for (address, why) in [
        ("2001:db8:51:0:a000::11", "type 5 is reserved"),
        ("2001:db8:51:0:e000::11", "type 7 is reserved"),
        ("2001:db8:51:0:3000::11", "the C bit is set"),
        ("2001:db8:51::1", "type 0 is no task's"),
        ("2001:db8:99:0:2000::11", "not under 2001:db8:51::/64"),
        ("2001:db8:b1:e::7", "name network blue"),
    ] {
        let refused = refusal(&daemon.ask(&["mapping", "register", address, "--locator", HV2]));
        assert!(refused.contains(why), "{refused}");
    }
    answer(&daemon.ask(&register("10.1.0.7", HV2)));
}

/// As a script asks, without the command.
#[test]
fn the_api_tells_each_denial_by_its_status() {
    let daemon = start();
    let socket = daemon.path("run/control.sock");
    let post = |path: &str, body: Value| {
        let (status, body) = client::post(&socket, path, &body).expect("answered");
        (status.as_u16(), serde_json::from_slice::<Value>(&body).expect("JSON"))
    };
    let held = |locator: &str| json!({"network": "blue", "address": "10.1.0.7", "locator": locator});
    let (status, registered) = post("/v1/registrations", held(HV2));
    assert_eq!((status, &registered["identifier"]), (200, &json!("400003e90a010007")));
    let (status, denial) = post("/v1/registrations", held(HV3));
    assert_eq!((status, &denial["holder"]), (409, &json!(HV2)));
    let (status, denial) = post("/v1/registrations/unregister", held(HV3));
    assert_eq!((status, &denial["holder"]), (409, &json!(HV2)));
    let moved = json!({"network": "blue", "address": "10.1.0.8", "from": HV2, "to": HV3});
    assert_eq!(post("/v1/registrations/move", moved).0, 404);
    for wrong in [
        json!({"network": "blue", "address": "10.1.0.9"}),
        json!({"network": "blue", "address": "10.1.0.9", "locator": HV2, "force": true}),
        json!({"network": "blue", "address": "blue", "locator": HV2}),
        json!({"network": "blue", "address": "10.1.0.9", "locator": "2001:db8:0:2::1/64"}),
        json!([]),
    ] {
        let (status, denial) = post("/v1/registrations", wrong);
        assert!(status == 422 && denial["error"].is_string(), "{status} {denial}");
    }
    assert_eq!(post("/v1/registrations/unregister", held(HV2)).0, 200);
}

#[test]
fn without_a_registry_the_configuration_is_all_there_is() {
    let daemon = Daemon::start_with("", &format!("{BLUE}{VM1}"));
    assert_eq!(holder(&daemon, "10.1.0.1"), Some((OWN.into(), 0, "config".into())));
    let denied = refusal(&daemon.ask(&register("10.1.0.7", HV2)));
    assert!(denied.contains("keeps no registry") && denied.contains("[authority]"), "{denied}");
    assert!(refusal(&daemon.ask(&register("10.1.0.1", HV2))).contains("the configuration of this host"));
}
