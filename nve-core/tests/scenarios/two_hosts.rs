//! The main job: two guests on two hosts, each with its own stack, talk through the fabric.

use core::time::Duration;
use std::collections::HashSet;

use nve_core::addr::ChecksumMode::{self, Neutral, Unmodified};
use nve_core::packet::Offload;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Plan, Verified};

use crate::{VM1, VM2, endpoint, two_hosts, two_hosts_by_hand, two_hosts_in};

const MEGABYTE: usize = 1_000_000;

#[test]
fn guests_ping_each_other_over_both_families_without_loss() {
    let mut world = two_hosts().start();
    for len in [0, 1, 56, 1400] {
        for (from, addresses) in [("vm1", VM2), ("vm2", VM1)] {
            for address in addresses {
                assert_eq!(world.pings(from, address, 5, len), 5, "{from} to {address}, {len} bytes");
            }
        }
    }
}

/// Each family alone: an IPv6 network may use the fabric's whole MTU, an IPv4 one all but 20 bytes of it.
#[test]
fn a_network_of_one_family_works_alone_up_to_its_mtu() {
    for (ipv4, ipv6, family, largest) in [("", "2001:db8:b1:e::/96", 1, 1452), ("10.1.0.0/16", "", 0, 1452)] {
        let mut world = Plan::new(1)
            .network("blue", 1001, ipv4, ipv6)
            .host("hv1")
            .host("hv2")
            .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1[family..=family]))
            .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2[family..=family]))
            .start();
        assert_eq!(world.pings("vm1", VM2[family], 3, largest), 3, "family {family}");
        let sizes: Vec<_> = world.sent_on_link("hv1", 0).iter().map(|record| record.bytes.len()).collect();
        assert!(sizes.iter().all(|size| *size == 1500), "{sizes:?}");
    }
}

/// Inside a VN fragmented ICMP passes (design, section 5); smoltcp fragments IPv4 only.
#[test]
fn a_ping_larger_than_the_mtu_is_fragmented_and_put_together_by_the_guests() {
    let mut world = two_hosts().start();
    assert_eq!(world.pings("vm1", VM2[0], 3, 3000), 3);
    let fragments = world.sent_on_link("hv1", 0);
    assert!(fragments.iter().all(|record| record.ip().is_some_and(|ip| ip.is_fragment())));
}

#[test]
fn ipv4_packets_that_may_be_fragmented_have_identifications_of_their_own() {
    let mut world = two_hosts_by_hand().start();
    for _ in 0..20 {
        let header = Header { dont_fragment: false, ..Header::default() };
        let packet = frames::udp(header, endpoint(VM1[0], 1), endpoint(VM2[0], 2), b"small");
        world.send("vm1", &packet, Offload::NONE);
    }
    world.run_for(Duration::from_secs(1));
    let arrived = world.received("vm2", 0);
    let numbers: HashSet<_> = arrived.iter().filter_map(|record| record.ip()?.identification).collect();
    assert_eq!((arrived.len(), numbers.len()), (20, 20));
}

/// Moves a megabyte each way over each family and says what verified on the fabric.
fn transfers(first: ChecksumMode, second: ChecksumMode) -> Verified {
    let mut world = two_hosts_in(first, second)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1))
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2))
        .start();
    for (from, to, addresses) in [("vm1", "vm2", VM2), ("vm2", "vm1", VM1)] {
        for address in addresses {
            let took = world.transfer(from, to, address, MEGABYTE);
            assert!(took.is_ok_and(|took| took < Duration::from_secs(2)), "{from} to {address}: {took:?}");
        }
    }
    assert_eq!(world.counters("vm1").all_drops() + world.counters("vm2").all_drops(), 0);
    world.verified()
}

#[test]
fn tcp_arrives_with_equal_bytes_between_neutral_hosts() {
    let verified = transfers(Neutral, Neutral);
    assert!(verified.neutral > 2000 && verified.unmodified == 0, "{verified:?}");
}

#[test]
fn tcp_arrives_with_equal_bytes_between_unmodified_hosts() {
    let verified = transfers(Unmodified, Unmodified);
    assert!(verified.unmodified > 2000 && verified.neutral == 0, "{verified:?}");
}

#[test]
fn tcp_arrives_with_equal_bytes_where_one_host_is_neutral_and_one_is_not() {
    let verified = transfers(Neutral, Unmodified);
    assert!(verified.neutral > 1000 && verified.unmodified > 1000, "{verified:?}");
}

/// One's complement has two zeros: with C = 1 these two would be one (reading notes, section 2, "Trap").
#[test]
fn guests_whose_addresses_end_in_0000_and_ffff_are_not_confused() {
    let zeros = ["10.1.0.0", "2001:db8:b1:e::1:0"];
    let ones = ["10.1.255.255", "2001:db8:b1:e::1:ffff"];
    let mut world = Plan::new(1)
        .network("blue", 1001, "10.0.0.0/8", "2001:db8:b1:e::/96")
        .host("hv1")
        .host("hv2")
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1))
        .guest(GuestPlan::new("zeros", "hv2", "blue", &zeros))
        .guest(GuestPlan::new("ones", "hv2", "blue", &ones))
        .start();
    for (name, other, addresses) in [("zeros", "ones", zeros), ("ones", "zeros", ones)] {
        for address in addresses {
            let mark = world.mark();
            assert_eq!(world.pings("vm1", address, 3, 56), 3, "{address}");
            assert_eq!(world.received(other, mark).len(), 0, "{other} got what was for {name}");
        }
    }
    let verified = world.verified();
    assert!(verified.unmodified > 0 && verified.neutral > 0, "0xffff goes with C = 0: {verified:?}");
}
