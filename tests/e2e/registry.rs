//! A registry says where a task is that three hosts could have (draft, section 4.7; decision 0018), from captures.
//!
//! ```text
//!   hv1: client, sixteen addresses      hv2, hv3, hv4: s2, s3, s4, each with the server's address
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use vhost_ila_tests::capture::Running;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::sandbox;
use vhost_ila_tests::site::Site;

use crate::three_servers::{SERVER, locator, plan, plugged, sources};

/// Until the first answer.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_registry_says_where_packets_go_denies_duplicates_and_survives_a_kill() {
    sandbox::entered().unwrap();
    let state = site_state();
    let authority = format!("[authority]\nkind = \"embedded\"\nstate = \"{state}\"\n");
    let mut site = Site::start("e2e/registry", plan(&authority)).unwrap();
    let tasks = plugged(&site);
    let ask = |arguments: &[&str]| {
        let said = tasks[0].command(&[&["mapping"], arguments].concat()).unwrap().output().unwrap();
        (said.status.success(), String::from_utf8([said.stdout, said.stderr].concat()).unwrap())
    };
    let reached = |site: &Site, name: &str| -> Vec<String> {
        let capture = Running::start(&site.fabric.router, &["hv1"], &site.evidence.join(name)).unwrap();
        // Whoever is on the way may not know the next one yet.
        wait_for("an answer", LIMIT, || Ok(tasks[0].ping(SERVER, 3).ok().map(drop))).unwrap();
        let sent = capture.finish().unwrap().fields("icmpv6.type == 128", &["ipv6.dst"]).unwrap();
        sent.into_iter()
            .map(|packet| packet[0].split(':').take(4).collect::<Vec<_>>().join(":"))
            .collect::<BTreeSet<String>>()
            .into_iter()
            .collect()
    };
    let (hv2, hv3) = (locator(2), locator(3));
    assert!(tasks[0].ping(SERVER, 1).is_err(), "nobody knows where it is");

    assert!(ask(&["register", SERVER, "--locator", &hv2]).0);
    assert_eq!(reached(&site, "registered.pcapng"), ["2001:db8:0:2"]);
    let (done, said) = ask(&["register", SERVER, "--locator", &hv3]);
    assert!(!done && said.contains(&format!("{hv2} holds it")), "{said}");
    let (done, said) = ask(&["register", &sources()[3], "--locator", &hv3]);
    assert!(!done && said.contains(&locator(1)), "the client's own: {said}");

    let (done, said) = ask(&["move", SERVER, "--from", &hv3, "--to", &hv2]);
    assert!(!done && said.contains(&format!("{hv2} holds it")), "{said}");
    assert!(ask(&["move", SERVER, "--from", &hv2, "--to", &hv3]).0);
    assert_eq!(reached(&site, "moved.pcapng"), ["2001:db8:0:3"]);

    site.daemons[0].kill().unwrap();
    site.daemons[0].restart().unwrap();
    tasks[0].plug().unwrap();
    for address in sources() {
        let _ = tasks[0].namespace.ip(&format!("-6 addr add {address}/128 dev eth0 nodad"));
    }
    assert_eq!(reached(&site, "after-the-kill.pcapng"), ["2001:db8:0:3"]);
    let listed: Value = serde_json::from_str(&ask(&["list", "--json"]).1).unwrap();
    let listed = listed.as_array().unwrap().iter().find(|line| line["address"] == SERVER).unwrap();
    assert_eq!((&listed["locator"], &listed["by"]), (&json!(hv3), &json!("request")));
    assert!(ask(&["unregister", SERVER, "--locator", &hv3]).0);
    assert!(tasks[0].ping(SERVER, 1).is_err());
    site.daemons_must_run().unwrap();
}

/// A directory that outlives a daemon, empty.
fn site_state() -> String {
    let state = std::path::Path::new(sandbox::RUNTIME).join("registry");
    let _ = fs::remove_dir_all(&state);
    state.display().to_string()
}
