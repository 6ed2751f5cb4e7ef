//! Routers of the fabric know nothing of tenants; what they complain about still reaches the tenant who caused it.

use std::time::Duration;

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2};
use vhost_ila_tests::traffic;

/// What the fabric's links carry, and what that leaves for IPv4, which grows by 20 bytes on the wire.
const NARROW: u16 = 1400;
/// What a transfer of [`MEGABYTES`] that does not stall may take under emulation.
const IN_TIME: Duration = Duration::from_secs(20);
const MEGABYTES: u32 = 3;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_narrow_link_in_the_fabric_is_found_out_told_and_remembered_and_nothing_stalls() {
    let site = Site::start("e2e/narrow", Plan::of(&[VM1, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    assert_eq!(path(&site, 0), (1500, false));
    site.fabric.narrow(1, NARROW).unwrap();

    // Nobody has learned anything when this ping finds out; the second error is the guest's own host's.
    traffic::listen(vm1, "icmp[0] == 3 or icmp6").unwrap();
    unanswered(vm1, &format!("ping -c 1 -W 1 -s 1420 {}", VM2.ipv4));
    assert_eq!(path(&site, 0), (NARROW, true));
    unanswered(vm1, &format!("ping -c 1 -W 1 -s 1400 {}", VM2.ipv6));
    let heard = traffic::heard(vm1).unwrap();
    assert!(heard.contains("need to frag (mtu 1380)"), "{heard}");
    assert!(heard.contains("packet too big, mtu 1400"), "{heard}");

    // Guests that have forgotten all of it, or a sender would be told by its peer's MSS.
    for (target, back) in [(VM2.ipv4, VM1.ipv6), (VM2.ipv6, VM1.ipv4)] {
        [&mut *vm1, &mut *vm2].into_iter().for_each(forget);
        let capture = site.capture().unwrap();
        stalls_not(vm1, vm2, target);
        let large = format!("frame.interface_name == \"hv2\" && tcp.len > {NARROW}");
        assert!(
            capture.finish().unwrap().count(&large).unwrap() > 0,
            "super-packets pass whose segments fit"
        );
        [&mut *vm1, &mut *vm2].into_iter().for_each(forget);
        // The other way it is hv2's own kernel that finds out.
        stalls_not(vm2, vm1, back);
    }
    assert_eq!(path(&site, 1), (NARROW, true));

    // UDP with DF: told, and what fits arrives at a closed port.
    let probe = |vm1: &mut Guest, bytes: u16| {
        vm1.run(&format!("traceroute -F -n -f 9 -m 9 -q 1 -w 3 {} {bytes}", VM2.ipv4)).unwrap()
    };
    assert!(probe(vm1, 1381).contains("!F-1380"), "told the MTU that fits");
    assert!(probe(vm1, 1380).contains(&format!(" 9  {} ", VM2.ipv4)), "reached");

    // IPv4 without DF: cut to fit on its way, put together by the receiver.
    [&mut *vm1, &mut *vm2].into_iter().for_each(forget);
    vm1.run("echo 1 >/proc/sys/net/ipv4/ip_no_pmtu_disc").unwrap();
    let capture = site.capture().unwrap();
    stalls_not(vm1, vm2, VM2.ipv4);
    let capture = capture.finish().unwrap();
    assert!(capture.count("ipv6.fraghdr && frame.interface_name == \"hv2\"").unwrap() > 500, "fragments");
    assert_eq!(capture.count("icmpv6.type == 2").unwrap(), 0, "nothing is too big any more");
}

/// What `show paths` says of the way to the other host: its MTU, and whether that was learned.
fn path(site: &Site, host: usize) -> (u16, bool) {
    let paths = site.daemons[host].show("paths").unwrap();
    assert_eq!(paths.as_array().map(Vec::len), Some(1), "{paths}");
    let mtu = paths[0]["mtu"].as_u64().and_then(|mtu| u16::try_from(mtu).ok());
    (mtu.expect("an MTU"), paths[0]["learned_seconds_ago"].is_u64())
}

/// What the guest has learned of paths.
fn forget(guest: &mut Guest) {
    guest.run("echo 1 >/proc/sys/net/ipv4/route/flush; echo 1 >/proc/sys/net/ipv6/route/flush").unwrap();
}

fn stalls_not(sender: &mut Guest, receiver: &mut Guest, target: &str) {
    let transfer = traffic::transfer(sender, receiver, target, MEGABYTES).unwrap();
    assert_eq!(transfer.sent, transfer.received, "to {target}");
    assert!(transfer.took < IN_TIME, "to {target}: {:?}", transfer.took);
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
    let finished = guest.try_run(command, Duration::from_secs(30)).unwrap();
    assert_ne!(finished.status, 0, "{command}\n{}", finished.output);
}
