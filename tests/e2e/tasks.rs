//! Host tasks: network namespaces on two hosts, each with a NIC of the daemon's (draft, scenario 1), and what becomes of it.
//!
//! ```text
//!   namespace web (T1) ── TUN ── daemon of hv1 ── fabric ── daemon of hv2 ── TUN ── namespace app (T2)
//! ```

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vhost_ila_tests::fabric::SIR;
use vhost_ila_tests::oracle;
use vhost_ila_tests::process::{output, wait_for};
use vhost_ila_tests::site::{Plan, Site};
use vhost_ila_tests::task::{self, Held, Task, stream};

/// T1 and T2 of the reference network; their identifiers are of type 1.
const WEB: &str = "2001:db8:51:0:2000::11";
const APP: &str = "2001:db8:51:0:2000::12";
/// A second task of hv1.
const IDLE: &str = "2001:db8:51:0:2000::13";
/// On no host.
const NOBODY: &str = "2001:db8:51:0:2000::99";

/// Until something is seen in `show`.
const LIMIT: Duration = Duration::from_secs(10);

/// Two hosts with a task each; nothing is plugged in.
fn site(name: &str) -> (Site, Task, Task) {
    site_of(1, name)
}

/// The same, of so many workers each.
fn site_of(workers: u16, name: &str) -> (Site, Task, Task) {
    let mapping = |address: &str, host: u8| {
        format!("[[mapping]]\naddress = \"{address}\"\nlocator = \"2001:db8:0:{host}::/64\"\n")
    };
    let mut plan = Plan { workers, ..Plan::of(&[]) };
    plan.host_text = vec![
        (0, Task::toml("web", WEB) + &Task::toml("idle", IDLE) + &mapping(APP, 2)),
        (1, Task::toml("app", APP) + &mapping(WEB, 1) + &mapping(IDLE, 1)),
    ];
    let site = Site::start(name, plan).unwrap();
    let task = |name: &str, host: usize, address: &str| {
        Task::new(name, &site.fabric.hosts[host], address, config(&site, host)).unwrap()
    };
    let (web, app) = (task("web", 0, WEB), task("app", 1, APP));
    (site, web, app)
}

fn config(site: &Site, host: usize) -> PathBuf {
    site.evidence.join(format!("{}.toml", site.fabric.hosts[host].name))
}

/// What `show attachments` says of the TUN of `name`.
fn shown(site: &Site, host: usize, name: &str) -> Value {
    let attachments = site.daemons[host].show("attachments").unwrap();
    let found = attachments.as_array().unwrap().iter().find(|attachment| attachment["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {attachments}"))["task"].clone()
}

/// What `show counters` says that `name` sent and was dropped, by reason.
fn drops(site: &Site, host: usize, name: &str, reason: &str) -> u64 {
    site.daemons[host].show("counters").unwrap()["attachments"][name]["drops"][reason].as_u64().unwrap_or(0)
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn tasks_on_two_hosts_talk_and_the_wire_is_the_drafts() {
    let (site, web, app) = site("e2e/tasks");
    let said = web.plug().unwrap();
    assert!(said.contains(&format!("web: eth0 in /run/netns/web, {WEB}, MTU 1500")), "{said}");
    app.plug().unwrap();
    assert_eq!(shown(&site, 0, "web"), json!({ "interface": "eth0", "plugs": 1, "last_fault": null }));
    assert_eq!(shown(&site, 0, "idle")["interface"], Value::Null);

    // A veth would carry checksums that nobody has finished.
    site.fabric.offloads("off").unwrap();
    web.reach(APP).unwrap();
    let capture = site.capture().unwrap();
    web.ping(APP, 5).unwrap();
    app.ping(WEB, 5).unwrap();
    assert_eq!(stream(&web.namespace, &app.namespace, APP, 3 << 20).unwrap(), WEB);
    assert_eq!(stream(&app.namespace, &web.namespace, WEB, 3 << 20).unwrap(), APP);
    let capture = capture.finish().unwrap();

    let flow = |from: &str, to: &str, host: u8| {
        let locator = format!("2001:db8:0:{host}::/64");
        json!({ "from": from, "to": to, "locator": locator, "mode": "neutral-map", "by": "nve" })
    };
    let plan = site.evidence.join("flows.json");
    let flows = json!({ "sir": SIR, "flows": [flow(WEB, APP, 2), flow(APP, WEB, 1)] });
    fs::write(&plan, flows.to_string()).unwrap();
    let mut judge = oracle::script("linux_ila.py").unwrap();
    judge.arg(&plan).arg(&capture.file);
    let counts: Value = serde_json::from_str(output(judge).unwrap().lines().last().unwrap()).unwrap();
    for flow in 0..2 {
        // Each packet is seen on both links.
        assert!(counts[flow]["icmpv6"].as_u64() >= Some(20), "{counts}");
        assert!(counts[flow]["tcp"].as_u64() > Some(100), "{counts}");
    }
    // tshark is a second judge of checksums.
    let (good, bad) = capture.checksums("ipv6.src == 2001:db8:51::/64 && (tcp || icmpv6)").unwrap();
    assert!(good > 100 && bad == 0, "{good} good, {bad} bad");

    let counters = site.daemons[0].show("counters").unwrap();
    let web_counters = &counters["attachments"]["web"];
    assert!(web_counters["in_packets"].as_u64() > Some(100), "{web_counters}");
    assert!(web_counters["out_bytes"].as_u64() > Some(6 << 20), "{web_counters}");
}

/// Tasks are read by the first worker.
#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn tasks_of_daemons_with_two_workers_talk() {
    let (site, web, app) = site_of(2, "e2e/tasks-of-two-workers");
    let idle = Task::new("idle", &site.fabric.hosts[0], IDLE, config(&site, 0)).unwrap();
    [&web, &app, &idle].into_iter().for_each(|task| drop(task.plug().unwrap()));
    for (from, to) in [(&web, IDLE), (&idle, WEB), (&web, APP), (&app, IDLE)] {
        from.reach(to).unwrap();
        from.ping(to, 3).unwrap();
    }
    assert_eq!(stream(&web.namespace, &app.namespace, APP, 1 << 20).unwrap(), WEB);
    assert_eq!(stream(&idle.namespace, &web.namespace, WEB, 1 << 20).unwrap(), IDLE);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_hostile_task_is_dropped_by_name() {
    let (site, web, app) = site("e2e/hostile-task");
    web.plug().unwrap();
    app.plug().unwrap();
    web.reach(APP).unwrap();
    let lost = |target: &str, source: Option<&str>, reason: &str| {
        let before = drops(&site, 0, "web", reason);
        let mut echo = oracle::script_in(&web.namespace, "echo.py").unwrap();
        echo.args([target, "1"]).args(source);
        let said = output(echo).unwrap();
        assert!(said.contains("0 answered"), "{target} from {source:?}: {said}");
        let all = site.daemons[0].show("counters").unwrap();
        let after = drops(&site, 0, "web", reason);
        assert_eq!(after, before + 1, "{target} from {source:?} is dropped as {reason}: {all}");
    };
    // Others' addresses: a task's on this host, a task's on another, its own network's at large, its own locator form.
    for address in [IDLE, APP, NOBODY, "2001:db8:0:1:2000::11", "2001:db8:7::7"] {
        web.namespace.ip(&format!("-6 addr add {address}/128 dev eth0 nodad")).unwrap();
        // Its own peer, unless that is now at home here.
        let target = if address == APP { NOBODY } else { APP };
        lost(target, Some(address), "spoofed-address");
        web.namespace.ip(&format!("-6 addr del {address}/128 dev eth0")).unwrap();
    }
    // Where tasks have no business: locators, this host's and the other's, as whatever they are written.
    let ours = site.fabric.hosts[0].locator_stem();
    for target in [format!("{ours}1").as_str(), "2001:db8:0:1:2000::13", "2001:db8:0:2:2000::12"] {
        lost(target, None, "locator-destination");
    }
    // Nobody's, and outside, which no rule lets it reach.
    lost(NOBODY, None, "no-mapping");
    lost("2001:db8:7::7", None, "outside");
    // The positive control.
    web.ping(APP, 2).unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_task_whose_namespace_goes_away_is_closed_by_name_and_another_takes_its_place() {
    let (site, web, app) = site("e2e/task-goes");
    let before = site.daemons[0].footprint().unwrap();
    web.plug().unwrap();
    app.plug().unwrap();
    let idle = Task::new("idle", &site.fabric.hosts[0], IDLE, config(&site, 0)).unwrap();
    idle.plug().unwrap();
    web.reach(APP).unwrap();
    idle.ping(WEB, 2).unwrap();

    web.namespace.delete().unwrap();
    wait_for("the daemon to see that the namespace is gone", LIMIT, || {
        Ok((shown(&site, 0, "web")["interface"].is_null()).then_some(()))
    })
    .unwrap();
    let fault = shown(&site, 0, "web")["last_fault"].clone();
    assert!(fault.as_str().unwrap().contains("its TUN is gone"), "{fault}");
    // What is for it now is dropped by name; the others notice nothing.
    let dropped = site.daemons[0].drops("receiver-down").unwrap();
    assert!(task::pinged(&app.namespace, WEB, 2).unwrap().contains("0 answered"));
    assert!(site.daemons[0].drops("receiver-down").unwrap() > dropped);
    idle.ping(APP, 2).unwrap();

    let web = Task::new("web", &site.fabric.hosts[0], WEB, config(&site, 0)).unwrap();
    web.plug().unwrap();
    web.reach(APP).unwrap();
    assert_eq!(shown(&site, 0, "web")["plugs"], 2);

    for task in [&web, &idle] {
        output(task.command(&["unplug", task.name()]).unwrap()).unwrap();
        assert!(!task.namespace.has_interface("eth0"), "it went with the daemon's descriptor");
    }
    let again = output(web.command(&["unplug", "web"]).unwrap()).unwrap_err().to_string();
    assert!(again.contains("web is not plugged in"), "{again}");
    // The last question's own connection may still be open.
    wait_for("no descriptor to be left", LIMIT, || {
        Ok((site.daemons[0].footprint()?.files <= before.files).then_some(()))
    })
    .unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn what_is_no_tun_for_a_task_is_refused_by_name_and_the_namespace_left_alone() {
    let (site, web, app) = site("e2e/task-refused");
    let refused = |arguments: &[&str]| {
        let mut command: Command = web.command(arguments).unwrap();
        let done = command.stdin(Stdio::null()).output().unwrap();
        assert!(!done.status.success(), "{arguments:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    for (arguments, why) in [
        (&["plug", "nobody", "--netns", "web"][..], "no attachment \"nobody\""),
        (&["plug", "web", "--netns", "elsewhere"], "no network namespace at /run/netns/elsewhere"),
        (&["plug", "web", "--netns", "/etc/passwd"], "namespace /etc/passwd"),
        (&["plug", "web", "--netns", "web", "--interface", "lo"], "lo cannot be put there"),
        (
            &["plug", "web", "--netns", "web", "--interface", "much-too-long-a-name"],
            "namespace /run/netns/web",
        ),
        (&["plug", "web", "--netns", "web", "--route", "10.0.0.0/8"], "an IPv6 prefix"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    assert_eq!(web.namespace.ip("-o link").unwrap().lines().count(), 1, "lo is all there is");
    assert_eq!(
        site.fabric.hosts[0].namespace.ip("-o link").unwrap().matches("ila").count(),
        1,
        "and the uplink"
    );

    // TUNs of another kind, passed by a program of ours; and one that is right.
    let socket = vhost_ila_tests::daemon::runtime(&site.fabric.hosts[0]).join("plug.sock");
    for (kind, why) in [
        ("tap", "TUN flags"),
        ("no-vnet-hdr", "TUN flags"),
        ("multi-queue", "TUN flags"),
        ("unattached", "no interface"),
        ("right", "plugged"),
    ] {
        let mut pass = oracle::script_in(&site.fabric.hosts[0].namespace, "pass_tun.py").unwrap();
        pass.arg(&socket).args(["web", kind]);
        let said = output(pass).unwrap();
        assert!(said.contains(why), "{kind}: {said}");
    }
    web.plug().unwrap();
    app.plug().unwrap();
    web.reach(APP).unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_held_task_keeps_its_connection_over_a_restart_and_another_is_plugged_in_again() {
    let (mut site, web, app) = site("e2e/task-restart");
    let holder = web.plug_and_hold().unwrap();
    app.plug().unwrap();
    let held = Held::start(&web.namespace, &app.namespace, APP).unwrap();
    site.daemons[0].kill().unwrap();
    assert!(web.namespace.has_interface("eth0"), "the holder keeps it");
    site.daemons[0].restart().unwrap();
    wait_for("the holder to pass it again", LIMIT, || {
        Ok((shown(&site, 0, "web")["interface"] == "eth0").then_some(()))
    })
    .unwrap();
    web.ping(APP, 2).unwrap();
    assert!(held.end().unwrap() > 1, "the connection went on");

    // One that nobody holds is gone with its daemon; its addresses are configured anew.
    site.daemons[1].terminate().unwrap();
    assert!(!app.namespace.has_interface("eth0"));
    site.daemons[1].restart().unwrap();
    app.plug().unwrap();
    app.reach(WEB).unwrap();

    // What the daemon has does not depend on the holder, but for the next restart.
    task::let_go(holder).unwrap();
    web.ping(APP, 2).unwrap();
    let holder = app.plug_and_hold();
    assert!(holder.is_err(), "there is such an interface already");
    output(app.command(&["unplug", "app"]).unwrap()).unwrap();
    let mut holder = app.plug_and_hold().unwrap();
    output(app.command(&["unplug", "app"]).unwrap()).unwrap();
    wait_for("the holder of an unplugged task to end", LIMIT, || holder.ended()).unwrap();
    assert!(!app.namespace.has_interface("eth0"));
}
