//! What does not fit, what is left to hardware, and what UDP leaves out, between realms: on four hosts and on one.

use super::scenarios::{Row, rows};
use super::*;
use crate::testkit::nic;

const SPREADS: [Spread; 2] = [Spread::FourHosts, Spread::OneHost];

/// Everything that arrives of one packet.
fn arrives(row: &Row, spread: Spread, packet: &[u8], offload: Offload, plain: bool) -> Vec<Out> {
    let lab = |name: &str| {
        let lab = host(spread.host_of(name), spread, &open());
        if plain {
            let receiver = Receiver { up: true, ..Receiver::default() };
            lab.nve.set_receiver(lab.port(row.receiver), receiver);
        }
        lab
    };
    let plain_sender = || host(spread.host_of(row.sender), spread, &open());
    match spread {
        Spread::OneHost => lab(row.receiver).send_with(row.sender, packet, offload),
        Spread::FourHosts => {
            let mut egress = lab(row.receiver);
            let wire = plain_sender().send_with(row.sender, packet, offload);
            let through = wire.into_iter().flat_map(|out| match out {
                Out::Uplink(packet, offload) => {
                    nic::check_seed(&Dissected::of_ip(&packet).unwrap(), offload)
                        .expect("a card would be wrong");
                    egress.walk(Origin::Uplink, &packet, offload)
                }
                other => vec![other],
            });
            through.collect()
        }
    }
}

fn check(out: &Out, row: &Row, what: &str) {
    let Out::Local(name, frame, offload) = out else { panic!("{what}: {out:?}") };
    assert_eq!(name, row.receiver, "{what}");
    let view = out.ip();
    assert_eq!((view.source, view.destination), row.seen, "{what}");
    assert_eq!(view.total_len + 14, frame.len(), "{what}");
    assert!(view.header_checksum_good, "{what}");
    nic::check_seed(&view, *offload).unwrap_or_else(|complaint| panic!("{what}: {complaint:?}"));
}

#[test]
fn a_datagram_that_may_be_fragmented_arrives_whole_in_pieces() {
    for row in rows().into_iter().filter(|row| !row.sent.0.contains(':')) {
        for spread in SPREADS {
            for size in [1452, 1460, 1480, 3000, 8000] {
                let what = format!("scenario {}, {spread:?}, {size}", row.name);
                let free = Header { dont_fragment: false, ..Header::default() };
                let sent = udp_with(free, row.sent.0, row.sent.1, size);
                let outs = arrives(&row, spread, &sent, Offload::NONE, false);
                let mut pieces: Vec<_> =
                    outs.iter().map(|out| (check(out, &row, &what), out.ip()).1).collect();
                pieces.sort_by_key(|piece| piece.fragment_offset);
                let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.transport.to_vec()).collect();
                assert_eq!(whole.len(), 8 + size, "{what}");
                assert_eq!(whole[8..], sent[28..], "{what}");
                assert_eq!(pieces.len() > 1, size > 1452, "{what}");
                assert!(
                    pieces.iter().all(|piece| piece.identification == pieces[0].identification),
                    "{what}"
                );
                // Once put together, it verifies.
                let together = frames::ip(Header::default(), row.seen.0, row.seen.1, 17, whole.clone());
                assert_eq!(Dissected::of_ip(&together).unwrap().transport, whole, "{what}: its checksum");
            }
        }
    }
}

#[test]
fn what_is_too_large_and_may_not_be_fragmented_is_answered() {
    for row in rows() {
        for spread in SPREADS {
            let sent = udp(row.sent.0, row.sent.1, 1460);
            let outs = arrives(&row, spread, &sent, Offload::NONE, false);
            assert_eq!(only(outs).reason(), Some(DropReason::TooBig), "scenario {}, {spread:?}", row.name);
            let fits = udp(row.sent.0, row.sent.1, 1452);
            check(&only(arrives(&row, spread, &fits, Offload::NONE, false)), &row, row.name);
        }
    }
}

#[test]
fn partial_checksums_and_super_packets_pass_or_are_finished_for_who_lacks_them() {
    for row in rows() {
        for spread in SPREADS {
            for plain in [false, true] {
                let what = format!("scenario {}, {spread:?}, plain {plain}", row.name);
                for mut packet in [tcp(row.sent.0, row.sent.1, 100), udp(row.sent.0, row.sent.1, 100)] {
                    let payload = Dissected::of_ip(&packet).unwrap().payload().to_vec();
                    let offload = frames::leave_checksum(&mut packet);
                    let out = only(arrives(&row, spread, &packet, offload, plain));
                    check(&out, &row, &what);
                    assert_eq!(out.offload() == Offload::NONE, plain, "{what}");
                    assert_eq!(out.ip().payload(), payload, "{what}");
                    if plain {
                        let view = out.ip();
                        assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{what}");
                    }
                }
                let mut packet = tcp(row.sent.0, row.sent.1, 5000);
                let payload = Dissected::of_ip(&packet).unwrap().payload().to_vec();
                let offload = frames::leave_segmentation(&mut packet, 1400);
                let outs = arrives(&row, spread, &packet, offload, plain);
                assert_eq!(outs.len(), if plain { 4 } else { 1 }, "{what}");
                outs.iter().for_each(|out| check(out, &row, &what));
                let all: Vec<u8> = outs.iter().flat_map(|out| out.ip().payload().to_vec()).collect();
                assert_eq!(all, payload, "{what}");
            }
        }
    }
}

#[test]
fn udp_without_a_checksum_gets_one_where_the_receiver_has_ipv6() {
    for row in rows().into_iter().filter(|row| !row.sent.0.contains(':')) {
        for spread in SPREADS {
            let mut sent = udp(row.sent.0, row.sent.1, 33);
            sent[26..28].fill(0);
            let out = only(arrives(&row, spread, &sent, Offload::NONE, false));
            let view = out.ip();
            let expected = if row.seen.0.is_ipv4() { Verdict::Absent } else { Verdict::Good };
            assert_eq!(verify(&view, view.source, view.destination), expected, "{} {spread:?}", row.name);
        }
    }
}

#[test]
fn fragments_of_tenants_pass_where_no_rule_asks_for_ports() {
    for row in rows() {
        let free = Header { dont_fragment: false, ..Header::default() };
        let whole = udp_with(free, row.sent.0, row.sent.1, 2000);
        let pieces = if row.sent.0.contains(':') {
            frames::fragments(&udp(row.sent.0, row.sent.1, 2000), 1200)
        } else {
            frames::fragments(&whole, 1200)
        };
        for spread in SPREADS {
            let mut seen: Vec<(usize, Vec<u8>)> = Vec::new();
            for piece in &pieces {
                for out in arrives(&row, spread, piece, Offload::NONE, false) {
                    check(&out, &row, row.name);
                    seen.push((out.ip().fragment_offset, out.ip().transport.to_vec()));
                }
            }
            seen.sort();
            let payload: Vec<u8> = seen.into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert_eq!(payload[8..], whole[whole.len() - 2000..], "scenario {}, {spread:?}", row.name);
        }
    }
}
