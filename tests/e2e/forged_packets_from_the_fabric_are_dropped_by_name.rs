//! Whoever can put packets on the fabric can lie about everything in them. Each lie has a name.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use vhost_ila_tests::oracle::{Oracle, script_in};
use vhost_ila_tests::process::{output, wait_for};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::site::{Plan, RED, Site, VM1, VM2, Vm};

const RED1: Vm =
    Vm { name: "red1", network: RED, mac: "52:54:00:00:01:01", ipv6: "2001:db8:b1:e:0:1:0:1", ..VM1 };
const RED2: Vm =
    Vm { name: "red2", network: RED, mac: "52:54:00:00:01:02", ipv6: "2001:db8:b1:e:0:1:0:2", ..VM2 };

/// How long the first frame may take, and how long nothing must come after it before all is said to have come.
const FIRST: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(500);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn each_under_its_own_and_true_ones_are_delivered() {
    let mut site = Site::start("e2e/forged", Plan::of(&[VM1, VM2, RED1, RED2])).unwrap();
    let oracle = Oracle::of(&site).unwrap();
    let mut peers = [VM2, RED2].map(|vm| Peer::connect(&site.socket(&vm), Options::default()).unwrap());
    peers.iter_mut().for_each(|peer| drop(peer.receive_all(QUIET).unwrap()));
    let before = site.daemons[1].show("counters").unwrap();

    let mut sent = forge(&site, oracle.plan());
    let control = sent.remove("delivered").unwrap();
    assert!(sent.len() >= 10, "{sent:?}");

    let [vm2, red2] = &mut peers;
    let (vm2, red2) = (vm2.receive_burst(FIRST, QUIET).unwrap(), red2.receive_all(QUIET).unwrap());
    assert_eq!(vm2.len() as u64, control, "delivered to vm2: those that are true, and no other");
    assert!(vm2.iter().all(|frame| frame.bytes.ends_with(b"forged or not")));
    assert_eq!(red2, [], "red2 heard of it");
    let counted = wait_for("the counters", Duration::from_secs(5), || {
        let after = site.daemons[1].show("counters")?;
        let grown = |reason: &String| drops(&after, reason) - drops(&before, reason);
        let counted: BTreeMap<String, u64> =
            sent.keys().map(|reason| (reason.clone(), grown(reason))).collect();
        Ok((counted.values().sum::<u64>() >= sent.values().sum()).then_some(counted))
    });
    let after = site.daemons[1].show("counters").unwrap();
    assert_eq!(counted.unwrap_or_else(|error| panic!("{error}: {sent:?}\n{after:#}")), sent);
    site.daemons_must_run().unwrap();
}

/// Sends the forgeries from the router; how many there are for each reason.
fn forge(site: &Site, plan: &Path) -> BTreeMap<String, u64> {
    let mut command = script_in(&site.fabric.router, "forge.py").unwrap();
    command.arg(plan);
    let said = output(command).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn drops(counters: &Value, reason: &str) -> u64 {
    let attachments = counters["attachments"].as_object().unwrap().values();
    attachments.chain([&counters["uplink"]]).filter_map(|side| side["drops"][reason].as_u64()).sum()
}
