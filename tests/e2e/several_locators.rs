//! One address on three hosts at once (draft, section 4.5; decision 0019), from captures.
//!
//! ```text
//!   hv1: client, sixteen addresses      hv2, hv3, hv4: s2, s3, s4, each with the server's address
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;
use vhost_ila_tests::capture::{Capture, Running};
use vhost_ila_tests::oracle::script_in;
use vhost_ila_tests::sandbox;
use vhost_ila_tests::site::Site;
use vhost_ila_tests::task::Task;

use crate::three_servers::{SERVER, locator, plan, plugged, sources};

/// The server's mapping, with these hosts.
fn mapping(hosts: &[u8]) -> String {
    let locators: Vec<_> = hosts.iter().map(|host| locator(*host)).collect();
    format!("[[mapping]]\naddress = \"{SERVER}\"\nlocators = {locators:?}\n")
}

/// Sends every flow; which locator the script says it goes to, and which the client's link shows, by "SOURCE PROTOCOL".
fn flows(site: &Site, client: &Task, hosts: &[u8], name: &str) -> (BTreeMap<String, String>, Capture) {
    let capture = Running::start(&site.fabric.router, &["hv1"], &site.evidence.join(name)).unwrap();
    // Whoever is on the way knows the next one then, and the capture runs.
    client.ping(SERVER, 3).unwrap();
    let locators: Vec<_> = hosts.iter().map(|host| format!("2001:db8:0:{host}::")).collect();
    let input = json!({ "server": SERVER, "locators": locators, "sources": sources() });
    let mut script = script_in(&client.namespace, "rendezvous.py").unwrap();
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}");
    // The last one of each flow has been answered, with what the captures need of time.
    client.ping(SERVER, 2).unwrap();
    (serde_json::from_slice(&said.stdout).unwrap(), capture.finish().unwrap())
}

/// Each flow of the capture: the locators it went to, and how many packets, and how many of them without ports.
fn seen(capture: &Capture) -> BTreeMap<String, (BTreeSet<String>, usize, usize)> {
    let fields = ["ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.fraghdr.nxt", "ipv6.fraghdr.offset"];
    let filter = "ipv6.src == 2001:db8:51::/64 && !(ipv6.dst == 2001:db8:0:1::/64) && !icmpv6";
    let mut seen: BTreeMap<String, (BTreeSet<String>, usize, usize)> = BTreeMap::new();
    for packet in capture.fields(filter, &fields).unwrap() {
        let [source, destination, next, behind, offset] = &packet[..] else { panic!("{packet:?}") };
        let protocol = if behind.is_empty() { next } else { behind };
        let stem: Vec<_> = destination.split(':').take(4).collect();
        let flow = seen.entry(format!("{source} {protocol}")).or_default();
        flow.0.insert(format!("{}::", stem.join(":")));
        flow.1 += 1;
        flow.2 += usize::from(!offset.is_empty() && offset != "0");
    }
    seen
}

fn only(flow: &str, locators: &BTreeSet<String>) -> String {
    assert_eq!(locators.len(), 1, "all of {flow} goes to one: {locators:?}");
    locators.first().unwrap().clone()
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn flows_are_split_over_hosts_fragments_stay_together_and_a_host_that_goes_moves_only_its_own() {
    sandbox::entered().unwrap();
    let mut site = Site::start("e2e/several-locators", plan(&mapping(&[2, 3, 4]))).unwrap();
    let tasks = plugged(&site);

    let (said, capture) = flows(&site, &tasks[0], &[2, 3, 4], "three.pcapng");
    let before = seen(&capture);
    assert_eq!(before.len(), 2 * sources().len(), "each source is seen as itself: {before:?}");
    let mut used = BTreeSet::new();
    for (flow, (locators, packets, without_ports)) in &before {
        assert_eq!(only(flow, locators), said[flow], "{flow}");
        used.extend(locators.clone());
        if flow.ends_with(" 17") {
            // Of each port: a small one, and three fragments, two of them without ports.
            assert_eq!((*packets, *without_ports), (8, 4), "{flow}");
        }
    }
    assert_eq!(used.len(), 3, "all three have a share");
    for (host, name) in [(1, "s2"), (2, "s3"), (3, "s4")] {
        let counters = site.daemons[host].show("counters").unwrap();
        assert!(counters["attachments"][name]["out_packets"].as_u64() > Some(10), "{counters}");
    }

    // hv3 goes.
    let fewer = plan(&mapping(&[4, 2]));
    site.reconfigure(0, &fewer).unwrap();
    let (said, capture) = flows(&site, &tasks[0], &[2, 4], "two.pcapng");
    let mut moved = 0;
    for (flow, (locators, ..)) in &seen(&capture) {
        let now = only(flow, locators);
        assert_eq!(now, said[flow], "{flow}");
        match before[flow].0.first().unwrap() {
            gone if gone == "2001:db8:0:3::" => moved += 1,
            stays => assert_eq!(&now, stays, "{flow}"),
        }
    }
    assert!(moved > 0, "something was at hv3");
    site.daemons_must_run().unwrap();
}
