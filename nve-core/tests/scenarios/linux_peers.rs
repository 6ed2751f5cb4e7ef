//! A host of the fabric is a Linux kernel, in its own two checksum modes: what we send there, and what we take from there.
//!
//! The kernel is four lines of its own arithmetic here (net/ipv6/ila/ila_common.c, in sums modulo 0xffff); the real one is in
//! `tests/e2e/the_kernels_own_ila.rs`.

use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use nve_core::DropReason;
use nve_core::addr::PeerChecksum;
use nve_core::packet::Offload;
use nve_core::testkit::checksum::{self, Verdict};
use nve_core::testkit::dissect::{Dissected, protocol};
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Plan, World};

use crate::{address, endpoint};

const OURS: &str = "2001:db8:51:0:2000::11";
/// The kernel's tasks: an ordinary one, and one that `neutral-map-auto` can reach though the draft's mapping cannot.
const THEIRS: [&str; 2] = ["2001:db8:51:0:2000::33", "2001:db8:51:0:2000::3:ffff"];

/// `linux` is a place for packets to be caught and put on the fabric; nothing that its NVE says is asked for.
fn world(checksum: PeerChecksum, routers: usize) -> World {
    Plan::new(10)
        .routers(routers)
        .host("hv1")
        .host("linux")
        .peer("linux", checksum)
        .guest(GuestPlan::task("web", "hv1", &[OURS]))
        .guest(GuestPlan::task("db", "linux", &THEIRS))
        .start()
}

fn word(sum: u64) -> u16 {
    match sum % 0xffff {
        0 => 0xffff,
        word => word as u16,
    }
}

/// Of the upper 64 bits, modulo 0xffff.
fn upper(address: Ipv6Addr) -> u64 {
    address.segments()[..4].iter().map(|word| u64::from(*word)).sum::<u64>() % 0xffff
}

/// What the kernel does to a packet to `from:I` that becomes one to `to:I`.
fn kernel(checksum: PeerChecksum, packet: &[u8], to: Ipv6Addr) -> Vec<u8> {
    let mut out = packet.to_vec();
    let from = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap());
    out[24..32].copy_from_slice(&to.octets()[..8]);
    let diff = upper(from) + 0xffff - upper(to);
    match checksum {
        PeerChecksum::NeutralAuto => {
            let low = word(diff + u64::from(from.segments()[7]));
            out[38..40].copy_from_slice(&low.to_be_bytes());
        }
        _ => {
            let view = Dissected::of_ip(packet).unwrap();
            let at = view.transport_at + checksum::field_of(view.protocol).unwrap();
            let made = u16::from_be_bytes([packet[at], packet[at + 1]]);
            out[at..at + 2].copy_from_slice(&(!word(diff + u64::from(!made))).to_be_bytes());
        }
    }
    out
}

/// Echo, UDP and TCP.
fn packets(from: &str, to: &str) -> [Vec<u8>; 3] {
    let ends = (endpoint(from, 1000), endpoint(to, 2000));
    [
        frames::echo_request(Header::default(), address(from), address(to), 1, b"ping"),
        frames::udp(Header::default(), ends.0, ends.1, b"some bytes"),
        frames::tcp(Header::default(), ends.0, ends.1, frames::flags::ACK, b"some bytes"),
    ]
}

fn v6(text: &str) -> Ipv6Addr {
    match address(text) {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => panic!("IPv6"),
    }
}

#[test]
fn what_we_send_a_kernel_in_its_own_modes_it_puts_back_and_what_it_sends_we_do() {
    for mode in [PeerChecksum::NeutralAuto, PeerChecksum::AdjTransport] {
        let mut world = world(mode, 1);
        world.expect_bad_checksums();
        let (here, there) = (world.locator_of("hv1"), world.locator_of("linux"));
        for theirs in THEIRS {
            for sent in packets(OURS, theirs) {
                let mark = world.mark();
                world.send("web", &sent, Offload::NONE);
                world.run_for(Duration::from_millis(10));
                let caught = world.received_on_link("linux", mark);
                let [caught] = &caught[..] else { panic!("{mode:?}, {theirs}: {} packets", caught.len()) };
                let told =
                    world.nve("hv1").mappings().into_iter().find(|line| line.address == address(theirs));
                let destination = Dissected::of_ip(&caught.bytes).unwrap().destination;
                assert_eq!(
                    told.map(|line| line.wire.into()),
                    Some(destination),
                    "`show mappings` says where"
                );
                let arrived = kernel(mode, &caught.bytes, v6(OURS));
                assert_eq!(
                    arrived[8..],
                    sent[8..],
                    "{mode:?}, {theirs}: the kernel's task gets what ours sent"
                );
                let on_wire = Dissected::of_ip(&caught.bytes).unwrap();
                let verdict = checksum::verify(&on_wire, on_wire.source, on_wire.destination);
                assert_eq!(verdict == Verdict::Good, mode == PeerChecksum::NeutralAuto, "{mode:?}, {theirs}");
            }
            for sent in packets(theirs, OURS) {
                let mark = world.mark();
                world.send_to_host("hv1", kernel(mode, &sent, here));
                world.run_for(Duration::from_millis(10));
                let got = world.received("web", mark);
                let [got] = &got[..] else { panic!("{mode:?}, {theirs}: {} frames", got.len()) };
                assert_eq!(
                    got.bytes[14 + 8..],
                    sent[8..],
                    "{mode:?}, {theirs}: ours gets what the kernel's sent"
                );
            }
        }
        assert_ne!(there, here);
    }
}

#[test]
fn what_was_left_to_others_is_finished_before_it_goes_there() {
    for mode in [PeerChecksum::NeutralAuto, PeerChecksum::AdjTransport] {
        let mut world = world(mode, 1);
        world.expect_bad_checksums();
        let payload: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
        for protocol in [protocol::UDP, protocol::TCP] {
            let ends = (endpoint(OURS, 1000), endpoint(THEIRS[0], 2000));
            let mut packet = match protocol {
                protocol::UDP => frames::udp(Header::default(), ends.0, ends.1, &payload),
                _ => frames::tcp(Header::default(), ends.0, ends.1, frames::flags::ACK, &payload),
            };
            let offload = frames::leave_segmentation(&mut packet, 1000);
            let mark = world.mark();
            world.send("web", &packet, offload);
            world.run_for(Duration::from_millis(10));
            let caught = world.received_on_link("linux", mark);
            let arrived = caught.iter().map(|record| kernel(mode, &record.bytes, v6(OURS)));
            let arrived = arrived.flat_map(|packet| {
                let view = Dissected::of_ip(&packet).unwrap();
                assert_eq!(checksum::verify(&view, view.source, view.destination), Verdict::Good, "{mode:?}");
                view.payload().to_vec()
            });
            assert!(arrived.collect::<Vec<_>>() == payload, "{mode:?}, {protocol}");
        }
    }
}

#[test]
fn fragments_pass_where_only_the_address_changes_and_are_dropped_by_name_where_the_checksum_does() {
    for (mode, pass) in [(PeerChecksum::NeutralAuto, true), (PeerChecksum::AdjTransport, false)] {
        let mut world = world(mode, 1);
        world.expect_bad_checksums();
        let here = world.locator_of("hv1");
        let ends = (endpoint(OURS, 1000), endpoint(THEIRS[0], 2000));
        let out = frames::fragments(&frames::udp(Header::default(), ends.0, ends.1, &[7; 2000]), 1000);
        let back = frames::fragments(&frames::udp(Header::default(), ends.1, ends.0, &[7; 2000]), 1000);
        let mark = world.mark();
        out.iter().for_each(|piece| world.send("web", piece, Offload::NONE));
        for piece in &back {
            // Of fragments the kernel changes the address only.
            world.send_to_host("hv1", kernel(PeerChecksum::NeutralAuto, piece, here));
        }
        world.run_for(Duration::from_millis(10));
        let expected = if pass { out.len() } else { 0 };
        assert_eq!(world.received_on_link("linux", mark).len(), expected, "{mode:?}");
        let named = world.counters("web").dropped(DropReason::PeerChecksum);
        assert_eq!(named, if pass { 0 } else { out.len() as u64 }, "{mode:?}");
        if pass {
            assert_eq!(world.received("web", mark).len(), back.len(), "{mode:?}");
        }
    }
    // From there, as it comes under adj-transport: an address as it is.
    let mut world = world(PeerChecksum::AdjTransport, 1);
    world.expect_bad_checksums();
    let ends = (endpoint(THEIRS[0], 2000), endpoint(OURS, 1000));
    for mut piece in frames::fragments(&frames::udp(Header::default(), ends.0, ends.1, &[7; 2000]), 1000) {
        let here = world.locator_of("hv1").octets();
        piece[24..32].copy_from_slice(&here[..8]);
        world.send_to_host("hv1", piece);
    }
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.nve("hv1").counters().uplink.dropped(DropReason::PeerChecksum), 3);
    assert_eq!(world.received("web", 0).len(), 0);
}

#[test]
fn routers_on_the_way_to_a_kernel_are_heard_of_in_its_own_modes() {
    for mode in [PeerChecksum::NeutralAuto, PeerChecksum::AdjTransport] {
        let mut world = world(mode, 3);
        world.expect_bad_checksums();
        for theirs in THEIRS {
            for hop_limit in 1..=3 {
                let header = Header { hop_limit, ..Header::default() };
                let sent =
                    frames::udp(header, endpoint(OURS, 1000), endpoint(theirs, 2000), b"where are you");
                let mark = world.mark();
                world.send("web", &sent, Offload::NONE);
                world.run_for(Duration::from_millis(10));
                let told = world.received("web", mark);
                let [told] = &told[..] else { panic!("{mode:?}, {theirs}, {hop_limit}: {}", told.len()) };
                let told = told.ip().unwrap();
                assert_eq!((told.icmp(), told.destination), (Some((3, 0)), address(OURS)));
                assert_eq!(checksum::verify(&told, told.source, told.destination), Verdict::Good);
                let quote = Dissected::of_ip(told.icmp_error().unwrap().quote).unwrap();
                assert_eq!((quote.source, quote.destination), (address(OURS), address(theirs)), "{mode:?}");
                assert_eq!(quote.ports(), Some((1000, 2000)), "{mode:?}");
            }
        }
    }
}
