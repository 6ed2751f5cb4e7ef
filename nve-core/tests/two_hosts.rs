//! The main job: two guests on two hosts, each with its own stack, talk through the fabric.

use core::time::Duration;

use nve_core::addr::ChecksumMode::{self, Neutral, Unmodified};
use nve_core::testkit::{GuestPlan, Plan, World};

const MEGABYTE: usize = 1_000_000;
const VM1: [&str; 2] = ["10.1.0.1", "2001:db8:b1:e::1"];
const VM2: [&str; 2] = ["10.1.0.2", "2001:db8:b1:e::2"];

fn two_hosts(first: ChecksumMode, second: ChecksumMode) -> World {
    Plan::new(1)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .host_in("hv1", first)
        .host_in("hv2", second)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1))
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2))
        .start()
}

#[test]
fn guests_ping_each_other_over_both_families_without_loss() {
    let mut world = two_hosts(Neutral, Neutral);
    for len in [0, 1, 56, 1400] {
        assert_eq!(world.pings("vm1", VM2[0], 5, len), 5, "IPv4, {len} bytes");
        assert_eq!(world.pings("vm1", VM2[1], 5, len), 5, "IPv6, {len} bytes");
        assert_eq!(world.pings("vm2", VM1[0], 5, len), 5, "IPv4 back, {len} bytes");
        assert_eq!(world.pings("vm2", VM1[1], 5, len), 5, "IPv6 back, {len} bytes");
    }
}

/// Moves a megabyte each way over each family and says what verified on the fabric.
fn transfers(first: ChecksumMode, second: ChecksumMode) -> nve_core::testkit::Verified {
    let mut world = two_hosts(first, second);
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
