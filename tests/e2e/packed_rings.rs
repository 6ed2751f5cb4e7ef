//! Packed rings of Linux's driver: what crosses, offloads and all, and what becomes of it when the daemon is killed. DPDK's are in dpdk.rs.

use vhost_ila_tests::site::{Plan, Site, VM1, VM2};
use vhost_ila_tests::traffic;

use crate::restarts;

/// VIRTIO_F_RING_PACKED.
const PACKED: u32 = 34;

fn plan() -> Plan {
    let of_both = |what: &str| vec![(VM1.name, what.to_owned()), (VM2.name, what.to_owned())];
    Plan {
        attachment_keys: of_both("packed = true"),
        nic_properties: of_both(",packed=on"),
        ..Plan::of(&[VM1, VM2])
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn packed_rings_carry_what_split_rings_carry() {
    // One of them has buffers for whole super-packets instead of mergeable ones: chains of many descriptors.
    let mut plan = plan();
    plan.nic_properties.push((VM2.name, ",mrg_rxbuf=off".into()));
    let mut site = Site::start("e2e/packed", plan).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    for (host, vm) in [(0, VM1), (1, VM2)] {
        let device = site.daemons[host].show("attachments").unwrap()[0]["device"].clone();
        let features = u64::from_str_radix(device["features"].as_str().unwrap(), 16).unwrap();
        assert_eq!(features >> PACKED & 1, 1, "{}: {device}", vm.name);
        assert!(device["accepted"].as_array().unwrap().iter().any(|name| name == "ring_packed"), "{device}");
    }
    for (target, back) in [(VM2.ipv4, VM1.ipv4), (VM2.ipv6, VM1.ipv6)] {
        traffic::ping(vm1, target, 5).unwrap();
        let there = traffic::transfer(vm1, vm2, target, 20).unwrap();
        assert_eq!(there.sent, there.received, "to {target}");
        let back_again = traffic::transfer(vm2, vm1, back, 20).unwrap();
        assert_eq!(back_again.sent, back_again.received, "to {back}");
    }
    let device = site.daemons[0].show("attachments").unwrap()[0]["device"].clone();
    for used in ["tso4_taken", "tso6_taken", "indirect_chains", "merged_frames"] {
        assert!(device["uses"][used].as_u64().unwrap() > 0, "{used}: {device}");
    }
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_tcp_connection_over_packed_rings_survives_a_killed_daemon() {
    restarts::survives("e2e/packed-killed", plan());
}
