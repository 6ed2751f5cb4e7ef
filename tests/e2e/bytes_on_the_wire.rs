//! Scenarios 9 and 10, byte by byte, against a script that shares nothing with the program (wire.py).
//!
//! All offloads of the fabric's links are off, so that what is captured is what a wire would carry.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vhost_ila_tests::capture::{Capture, Running};
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::process::output;
use vhost_ila_tests::site::{Checksum, Plan, Site, VM1, VM2};
use vhost_ila_tests::tools::Set;
use vhost_ila_tests::traffic;

/// What the fabric carries for tenants: echo, TCP, UDP; not its own neighbour discovery.
const TENANTS: &str = "tcp || udp || icmpv6.type == 128 || icmpv6.type == 129";

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn neutral_mode_sends_the_drafts_bytes_and_every_checksum_is_good() {
    let (site, capture) = talk_and_compare("e2e/wire-neutral", Checksum::Neutral);
    drop(site);
    let (good, bad) = capture.checksums(TENANTS).unwrap();
    assert!(good > 40, "{good} packets");
    assert_eq!(bad, 0);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn unmodified_mode_sends_the_drafts_bytes_and_checksums_are_good_for_the_endpoints_addresses() {
    let (site, capture) = talk_and_compare("e2e/wire-unmodified", Checksum::Unmodified);
    let (_, bad) = capture.checksums(TENANTS).unwrap();
    assert!(bad > 40, "checksums are not for the wire's addresses, so they are bad there: {bad}");
    let restored = site.evidence.join("restored.pcap");
    let plan = site.evidence.join("plan.json");
    wire_py(&["restore".as_ref(), &plan, &capture.file, &restored]);
    let (good, bad) = Capture { file: restored }.checksums(TENANTS).unwrap();
    assert!(good > 40, "{good} packets");
    assert_eq!(bad, 0);
}

/// Two guests talk while the sender and the fabric are recorded; every packet sent is on the wire as wire.py expects it.
fn talk_and_compare(evidence: &str, checksum: Checksum) -> (Site, Capture) {
    let site = Site::start(evidence, Plan { checksum, ..Plan::of(&[VM1, VM2]) }).unwrap();
    site.fabric.offloads("off").unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    let wire = site.evidence.join("wire.pcapng");
    let running = Running::start(&site.fabric.router, &["hv1"], &wire).unwrap();
    traffic::record(vm1, "icmp or icmp6 or tcp or udp").unwrap();
    for target in [VM2.ipv4, VM2.ipv6] {
        talk(vm1, vm2, target);
    }
    let sent = traffic::recorded(vm1).unwrap();
    let capture = running.finish().unwrap();

    let (plan, pcap) = (site.write_plan().unwrap(), site.evidence.join("sent.pcap"));
    fs::write(&pcap, sent).unwrap();
    let report = wire_py(&["expect".as_ref(), &plan, &pcap, &wire]);
    for kind in [
        "scenario 9 icmp",
        "scenario 9 tcp",
        "scenario 9 udp",
        "scenario 10 icmp",
        "scenario 10 tcp",
        "scenario 10 udp",
    ] {
        assert!(report["compared"][kind].as_u64().is_some_and(|count| count > 0), "no {kind}: {report}");
    }
    (site, capture)
}

/// Echo of several sizes, odd ones too; a UDP question; a short TCP connection.
fn talk(vm1: &mut Guest, vm2: &mut Guest, target: &str) {
    for size in [0, 1, 56, 999, 1400] {
        vm1.run(&format!("ping -c 2 -i 0.1 -s {size} {target}")).unwrap();
    }
    // Nobody serves port 53 there; that the question crosses is what counts.
    vm1.run(&format!("timeout 3 nslookup a.example {target} || true")).unwrap();
    let sums = traffic::transfer_bytes(vm1, vm2, target, 777).unwrap();
    assert_eq!(sums.sent, sums.received);
}

fn wire_py(arguments: &[&Path]) -> Value {
    let python = Set::open("net").unwrap().tool("python3").unwrap();
    let mut command: Command = python.command();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/wire.py")).args(arguments);
    let said = output(command).unwrap_or_else(|error| panic!("{error:#}"));
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}
