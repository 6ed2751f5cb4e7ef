//! cloud-hypervisor's front-end, replayed, and the program itself where it is installed and KVM works.

use std::time::Duration;

use vhost_ila_tests::cloud_hypervisor::load::{GOAL, Load};
use vhost_ila_tests::cloud_hypervisor::{CloudHypervisor, LINUX, Spec};
use vhost_ila_tests::ringpeer::beside::HONEST;
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{Plan, Site, VM1};

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn both_directions_flow_within_a_second_after_each_kill_where_the_daemon_listens() {
    kills("e2e/ch-server", false);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn both_directions_flow_within_a_second_after_each_kill_where_the_daemon_connects() {
    kills("e2e/ch-client", true);
}

/// Two NICs of one host, one of today's release and one from before it, send to each other while their daemon is killed and started
/// again. Neither has IN_ORDER to say where to go on.
fn kills(evidence: &str, daemons_connect: bool) {
    let mut check = Check::begin(22, "kills");
    let plan = Plan { daemons_connect, ..Plan::of(&[VM1, HONEST]) };
    let mut site = Site::start(evidence, plan).unwrap();
    let ends = [(VM1, true), (HONEST, false)].map(|(vm, newest)| {
        let spec = Spec { listens: daemons_connect, pairs: 1, in_order: false, newest };
        let mut nic = CloudHypervisor::plug(&site.socket(&vm), spec).unwrap();
        nic.activate(LINUX).unwrap();
        (nic, vm)
    });
    let load = Load::begin(ends);
    load.must_cross(2000).unwrap();
    let mut recoveries = Vec::new();
    for round in 1..=check.scale(4, 100) {
        site.daemons[0].kill().unwrap();
        site.daemons[0].restart().unwrap();
        recoveries = load.must_have_recovered(round).unwrap();
        load.must_cross(500).unwrap();
        check.count(1);
    }
    let crossed = load.end().unwrap();
    recoveries.sort();
    println!(
        "{} kills, {crossed} frames crossed; after the reconnect both directions flowed within {:?} (median), {:?} (worst); the goal is {GOAL:?}",
        recoveries.len(),
        recoveries[recoveries.len() / 2],
        recoveries[recoveries.len() - 1]
    );
    std::thread::sleep(Duration::from_millis(100));
    site.daemons_must_run().unwrap();
}
