//! Routers of the fabric know nothing of tenants; what they complain about still reaches the tenant who caused it.

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2};
use vhost_ila_tests::traffic;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_narrow_link_in_the_fabric_tells_the_guest_its_mtu_and_tcp_adapts() {
    let site = Site::start("e2e/narrow", Plan::of(&[VM1, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    site.fabric.narrow(1, 1400).unwrap();

    traffic::listen(vm1, "icmp[0] == 3 or icmp6").unwrap();
    unanswered(vm1, &format!("ping -c 3 -i 0.2 -W 1 -s 1420 {}", VM2.ipv4));
    unanswered(vm1, &format!("ping -c 3 -i 0.2 -W 1 -s 1400 {}", VM2.ipv6));
    let heard = traffic::heard(vm1).unwrap();
    // An IPv4 packet grows by 20 bytes on the wire.
    assert!(heard.contains("need to frag (mtu 1380)"), "{heard}");
    assert!(heard.contains("packet too big, mtu 1400"), "{heard}");

    for target in [VM2.ipv4, VM2.ipv6] {
        let sums = traffic::transfer(vm1, vm2, target, 5).unwrap();
        assert_eq!(sums.sent, sums.received, "to {target}");
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn an_unreachable_host_in_the_fabric_is_told_to_the_guest_behind_either_host() {
    let site = Site::start("e2e/unreachable", Plan::of(&[VM1, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    traffic::ping(vm1, VM2.ipv4, 2).unwrap();
    // The SIR prefix and the VNETs lead to hv1, whose daemon forwards what is for hv2's guest: the router role.
    for (guest, peer, other) in [(vm1, VM2, 1), (vm2, VM1, 0)] {
        let (locator, router) = (site.fabric.hosts[other].locator(), &site.fabric.router);
        router.ip(&format!("-6 route replace unreachable {locator}")).unwrap();
        traffic::listen(guest, "icmp[0] == 3 or icmp6[0] == 1").unwrap();
        unanswered(guest, &format!("ping -c 3 -i 0.2 -W 1 {}", peer.ipv4));
        unanswered(guest, &format!("ping -c 3 -i 0.2 -W 1 {}", peer.ipv6));
        let heard = traffic::heard(guest).unwrap();
        assert!(heard.contains(&format!("{} unreachable", peer.ipv4)), "{heard}");
        assert!(heard.contains("unreachable") && heard.contains(peer.ipv6), "{heard}");
        router.ip(&format!("-6 route del unreachable {locator}")).unwrap();
        router.ip(&format!("-6 route add {locator} via {}", site.fabric.hosts[other].underlay())).unwrap();
    }
}

fn unanswered(guest: &mut Guest, command: &str) {
    let finished = guest.try_run(command, std::time::Duration::from_secs(30)).unwrap();
    assert_ne!(finished.status, 0, "{command}\n{}", finished.output);
}
