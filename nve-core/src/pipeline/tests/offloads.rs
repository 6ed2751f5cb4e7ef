//! Offloads pass through where both sides have them; what a receiver lacks is finished before.

use super::*;
use crate::testkit::checksum::{Verdict, verify};
use crate::testkit::nic;

const A6: &str = "2001:db8:b1:e::1";
const PAIRS: [(&str, &str, &str); 2] =
    [(A6, "2001:db8:b1:e::2", "2001:db8:b1:e::3"), ("10.1.0.1", "10.1.0.2", "10.1.0.3")];

#[test]
fn a_partial_checksum_crosses_with_a_seed_that_stays_right() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    for (a, b, _) in PAIRS {
        for mut packet in [tcp(a, b, 100), udp(a, b, 100)] {
            let offload = frames::leave_checksum(&mut packet);
            let wire = only(hv1.send_with("vm1", &packet, offload));
            nic::check_seed(&wire.ip(), wire.offload()).expect("the fabric's card would be wrong");
            let got = only(hv2.walk(Origin::Uplink, wire.packet(), wire.offload()));
            nic::check_seed(&got.ip(), got.offload()).expect("the guest would be wrong");
            assert_eq!(got.ip().transport, Dissected::of_ip(&packet).unwrap().transport);
        }
    }
}

#[test]
fn a_super_packet_crosses_in_one_piece() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    for (a, b, _) in PAIRS {
        let mut packet = tcp(a, b, 60_000);
        let offload = frames::leave_segmentation(&mut packet, 1400);
        let wire = only(hv1.send_with("vm1", &packet, offload));
        assert_eq!(wire.ip().total_len, 60_060);
        let got = only(hv2.walk(Origin::Uplink, wire.packet(), wire.offload()));
        assert_eq!(got.offload(), offload);
        assert_eq!(got.ip().transport, Dissected::of_ip(&packet).unwrap().transport);
    }
}

#[test]
fn what_the_fabric_lacks_is_finished_in_software() {
    let mut hv1 = Lab::new(1);
    let with = |csum, tso6| Receiver { up: true, csum, tso6, tso4: !tso6, ..Receiver::default() };
    for (a, b, _) in PAIRS {
        let mut partial = udp(a, b, 100);
        let left = frames::leave_checksum(&mut partial);
        let mut large = tcp(a, b, 5000);
        let segments = frames::leave_segmentation(&mut large, 1400);
        for (csum, tso6) in [(false, false), (true, false), (true, true)] {
            hv1.nve.set_receiver(PortId::FABRIC, with(csum, tso6));
            for (packet, offload, count, whole) in [(&partial, left, 1, csum), (&large, segments, 4, tso6)] {
                let outs = hv1.send_with("vm1", packet, offload);
                assert_eq!(outs.len(), if whole { 1 } else { count }, "{a} {csum} {tso6}");
                for out in outs.iter().filter(|_| !whole) {
                    assert_eq!(out.offload(), Offload::NONE);
                    let view = out.ip();
                    // Neutral: good for the addresses of the wire, too.
                    assert_eq!(verify(&view, view.source, view.destination), Verdict::Good);
                }
            }
        }
    }
}

#[test]
fn a_super_packet_is_judged_by_its_segments() {
    let mut hv1 = Lab::new(1);
    for (a, b, _) in PAIRS {
        // 40 + 20 + 1440 in IPv6, whichever family the tenant speaks.
        for (size, fits) in [(1440, true), (1441, false)] {
            let mut packet = tcp(a, b, 60_000);
            let offload = frames::leave_segmentation(&mut packet, size);
            let out = only(hv1.send_with("vm1", &packet, offload));
            assert_eq!(out.reason().is_none(), fits, "{a} {size}: {:?}", out.reason());
        }
    }
}

#[test]
fn what_the_receiver_lacks_is_finished_in_software() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let plain = Receiver { up: true, ..Receiver::default() };
    hv1.nve.set_receiver(hv1.port("vm3"), plain);
    hv2.nve.set_receiver(hv2.port("vm2"), plain);
    for (a, b, c) in PAIRS {
        for to in [b, c] {
            let mut partial = udp(a, to, 100);
            let left = frames::leave_checksum(&mut partial);
            let mut large = tcp(a, to, 5000);
            let segments = frames::leave_segmentation(&mut large, 1400);
            for (packet, offload, count) in [(partial, left, 1), (large, segments, 4)] {
                let outs: Vec<Out> = if to == b {
                    let wire = only(hv1.send_with("vm1", &packet, offload));
                    hv2.walk(Origin::Uplink, wire.packet(), wire.offload())
                } else {
                    hv1.send_with("vm1", &packet, offload)
                };
                assert_eq!(outs.len(), count);
                for out in outs {
                    assert_eq!(out.offload(), Offload::NONE);
                    let view = out.ip();
                    assert_eq!(verify(&view, view.source, view.destination), Verdict::Good);
                }
            }
        }
    }
}

/// With C = 0 a network card would re-seed from the wire's addresses: everything is finished for the endpoints' before the uplink.
#[test]
fn unmodified_mode_finishes_before_the_uplink() {
    let mut hv1 = Lab::of(setup(1, ChecksumMode::Unmodified));
    for (a, b, _) in PAIRS {
        let (source, endpoint) = if a == A6 { (addr(a), addr(b)) } else { (sir_of(a), sir_of(b)) };
        let mut partial = udp(a, b, 100);
        let left = frames::leave_checksum(&mut partial);
        let mut large = tcp(a, b, 5000);
        let segments = frames::leave_segmentation(&mut large, 1400);
        for (packet, offload, count) in [(partial, left, 1), (large, segments, 4)] {
            let outs = hv1.send_with("vm1", &packet, offload);
            assert_eq!(outs.len(), count);
            for out in outs {
                assert_eq!(out.offload(), Offload::NONE);
                assert_eq!(verify(&out.ip(), source, endpoint), Verdict::Good);
            }
        }
    }
    let mut local = tcp(A6, "2001:db8:b1:e::3", 5000);
    let offload = frames::leave_segmentation(&mut local, 1400);
    assert_eq!(only(hv1.send_with("vm1", &local, offload)).offload(), offload, "no wire, nothing to finish");
}

#[test]
fn udp_super_packets_need_a_receiver_that_takes_them() {
    let mut hv1 = Lab::new(1);
    for (a, _, c) in PAIRS {
        let mut packet = udp(a, c, 5000);
        let offload = frames::leave_segmentation(&mut packet, 1000);
        assert_eq!(only(hv1.send_with("vm1", &packet, offload)).offload(), offload);
        hv1.nve.set_receiver(hv1.port("vm3"), Receiver { uso: false, ..ALL_FEATURES });
        assert_eq!(hv1.send_with("vm1", &packet, offload).len(), 5);
        hv1.nve.set_receiver(hv1.port("vm3"), ALL_FEATURES);
    }
}

#[test]
fn a_udp_super_packet_crosses_in_one_piece_and_is_cut_where_it_is_not_taken() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let with = |uso| Receiver { up: true, csum: true, uso, ..Receiver::default() };
    for (a, b, _) in PAIRS {
        let mut packet = udp(a, b, 6000);
        let offload = frames::leave_segmentation(&mut packet, 1400);
        for (fabric, guest, on_the_wire, delivered) in
            [(true, true, 1, 1), (true, false, 1, 5), (false, true, 5, 5)]
        {
            hv1.nve.set_receiver(PortId::FABRIC, with(fabric));
            hv2.nve.set_receiver(hv2.port("vm2"), with(guest));
            let wire = hv1.send_with("vm1", &packet, offload);
            assert_eq!(wire.len(), on_the_wire, "{a} {fabric} {guest}: {wire:?}");
            let receive = |out: &Out| hv2.walk(Origin::Uplink, out.packet(), out.offload());
            let got: Vec<Out> = wire.iter().flat_map(receive).collect();
            assert_eq!(got.len(), delivered, "{a} {fabric} {guest}");
            let whole = delivered == 1;
            for out in &got {
                assert_eq!(out.offload(), if whole { offload } else { Offload::NONE });
                let view = out.ip();
                assert!(whole || verify(&view, view.source, view.destination) == Verdict::Good);
            }
        }
    }
}
