//! With offloads on, what a guest sends as one piece stays one piece.

use vhost_ila_tests::site::{Plan, Site, VM1, VM2};
use vhost_ila_tests::traffic;

/// More than any segment that fits into a 1500-byte link.
const SUPER: &str = "tcp.len > 4000 && tcp.dstport == 5001";

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_super_packet_crosses_the_fabric_in_one_piece_and_sums_are_equal() {
    let site = Site::start("e2e/offloads", Plan::of(&[VM1, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    for target in [VM2.ipv4, VM2.ipv6] {
        let capture = site.capture().unwrap();
        let sums = traffic::transfer(vm1, vm2, target, 20).unwrap();
        assert_eq!(sums.sent, sums.received, "to {target}");
        let capture = capture.finish().unwrap();
        let whole = capture.count(&format!("{SUPER} && frame.interface_name == \"hv2\"")).unwrap();
        assert!(whole > 20, "to {target}: {whole} super-packets");
    }
}
