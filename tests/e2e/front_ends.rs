//! The QEMUs and the directions of connection that an operator may have.

use vhost_ila_tests::guest::Qemu;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2};
use vhost_ila_tests::traffic;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn qemu_of_debian_12_works_without_msi_x() {
    talk("e2e/qemu72", Plan { qemu: Qemu::V7_2, ..Plan::of(&[VM1, VM2]) });
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_daemon_connects_to_sockets_that_qemu_listens_on() {
    talk("e2e/client-mode", Plan { daemons_connect: true, ..Plan::of(&[VM1, VM2]) });
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_guest_without_offloads_and_mergeable_buffers_talks_to_one_with_them() {
    let properties = ",mrg_rxbuf=off,csum=off,guest_csum=off,gso=off,guest_tso4=off,guest_tso6=off,host_tso4=off,host_tso6=off";
    talk(
        "e2e/plain-card",
        Plan { nic_properties: vec![(VM2.name, properties.into())], ..Plan::of(&[VM1, VM2]) },
    );
}

fn talk(evidence: &str, plan: Plan) {
    let mut site = Site::start(evidence, plan).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    for (target, back) in [(VM2.ipv4, VM1.ipv4), (VM2.ipv6, VM1.ipv6)] {
        traffic::ping(vm1, target, 5).unwrap();
        let there = traffic::transfer(vm1, vm2, target, 5).unwrap();
        assert_eq!(there.sent, there.received, "to {target}");
        let back_again = traffic::transfer(vm2, vm1, back, 5).unwrap();
        assert_eq!(back_again.sent, back_again.received, "to {back}");
    }
    site.daemons_must_run().unwrap();
}
