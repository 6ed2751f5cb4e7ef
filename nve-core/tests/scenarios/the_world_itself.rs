//! The instrument: does it notice, does it repeat, does it leave a capture?

use std::panic::{AssertUnwindSafe, catch_unwind};

use nve_core::testkit::{Verdict, World};

use crate::{VM2, two_hosts};

fn bytes_of(world: &World) -> Vec<Vec<u8>> {
    world.sent_on_link("hv1", 0).iter().map(|record| record.bytes.clone()).collect()
}

#[test]
fn the_same_seed_makes_the_same_packets() {
    let run = || {
        let mut world = two_hosts().start();
        world.link("hv2").loss_per_mille = 100;
        world.transfer("vm1", "vm2", VM2[1], 50_000).expect("TCP gets through");
        (world.now(), bytes_of(&world))
    };
    let (first, second) = (run(), run());
    assert!(first == second);
}

#[test]
fn a_failing_world_leaves_a_capture_with_an_interface_per_guest_and_link() {
    let mut path = None;
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let mut world = two_hosts().start();
        assert_eq!(world.pings("vm1", VM2[1], 1, 56), 1);
        path = world.save_capture().ok();
        std::fs::remove_file(path.as_ref().expect("a path")).expect("it was written");
        panic!("on purpose");
    }));
    assert!(failed.is_err());
    let bytes = std::fs::read(path.expect("a path")).expect("the failing world wrote it again");
    for name in ["hv1", "hv2", "vm1", "vm2"] {
        assert!(bytes.windows(3).any(|window| window == name.as_bytes()), "no interface {name}");
    }
    assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a], "a pcapng section header");
}

#[test]
fn a_filter_loses_what_it_wants_to_and_nothing_else() {
    let mut world = two_hosts().start();
    world.filter(Box::new(|_, ip| if ip.icmp() == Some((129, 0)) { Verdict::Lose } else { Verdict::Pass }));
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 0, "answers over IPv6 are lost");
    assert!(!world.received("vm2", 0).is_empty(), "requests are not");
}
