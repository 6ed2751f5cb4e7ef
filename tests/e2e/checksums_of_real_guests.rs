//! What Linux guests send, judged by tshark on the fabric, where all offloads are off as on a wire.

use vhost_ila_tests::capture::{Capture, Running};
use vhost_ila_tests::oracle::Oracle;
use vhost_ila_tests::site::{Checksum, Plan, Site, VM1, VM2};
use vhost_ila_tests::traffic;

/// What the fabric carries for tenants; its own neighbour discovery is left out.
const TENANTS: &str = "tcp || udp || icmpv6.type == 128 || icmpv6.type == 129";

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_neutral_mode_every_checksum_on_the_wire_is_good() {
    let (_site, capture) = talk("e2e/real-neutral", Checksum::Neutral);
    let (good, bad) = capture.checksums(TENANTS).unwrap();
    assert!(good > 200 && bad == 0, "{good} good, {bad} bad");
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_unmodified_mode_they_are_good_for_the_endpoints_addresses() {
    let (site, capture) = talk("e2e/real-unmodified", Checksum::Unmodified);
    let (_, bad) = capture.checksums(TENANTS).unwrap();
    assert!(bad > 200, "{bad} are bad for the wire's addresses");
    let restored = Oracle::of(&site).unwrap().restore(&capture).unwrap();
    let (good, still_bad) = restored.checksums(TENANTS).unwrap();
    assert!(good >= bad && still_bad == 0, "{good} good, {still_bad} bad");
}

/// Echo of several sizes, odd ones too; a question by UDP; half a megabyte by TCP, in both families.
fn talk(evidence: &str, checksum: Checksum) -> (Site, Capture) {
    let site = Site::start(evidence, Plan { checksum, ..Plan::of(&[VM1, VM2]) }).unwrap();
    site.fabric.offloads("off").unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    let running =
        Running::start(&site.fabric.router, &["hv1"], &site.evidence.join("fabric.pcapng")).unwrap();
    for target in [VM2.ipv4, VM2.ipv6] {
        for size in [0, 1, 56, 999, 1400] {
            vm1.run(&format!("ping -c 2 -i 0.1 -s {size} {target}")).unwrap();
        }
        // Nobody serves port 53 there; that the question crosses is what counts.
        vm1.run(&format!("timeout 3 nslookup a.example {target} || true")).unwrap();
        let sums = traffic::transfer_bytes(vm1, vm2, target, 500_000).unwrap();
        assert_eq!(sums.sent, sums.received, "to {target}");
    }
    let capture = running.finish().unwrap();
    assert!(capture.count("udp.dstport == 53").unwrap() >= 2);
    (site, capture)
}
