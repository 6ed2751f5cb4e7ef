//! Frames in a row that go the way of the last one, and what comes between them.

use nve_core::DropReason;

use super::pairs::with_two_pairs;
use super::*;

/// Two frames show the way.
fn show_the_way(a: &mut Guest, b: &mut Guest) {
    for _ in 0..3 {
        a.send(&datagram(1, 2, b"the way"));
        assert_eq!(payload_of(&b.receive()), b"the way");
    }
}

/// Everything that `guest` gets until there are so many frames.
fn payloads(guest: &mut Guest, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    until("all arrive", || {
        got.extend(guest.take().iter().map(|frame| payload_of(frame).to_vec()));
        got.len() >= count
    });
    got
}

#[test]
fn a_train_ends_where_something_else_begins_and_the_order_stays() {
    over_both_kinds(|| {
        let lab = Lab::new(3);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        let mut c = Guest::connect(&lab.socket(3));
        show_the_way(&mut a, &mut b);
        let (mut to_b, mut to_c) = (Vec::new(), Vec::new());
        for (special, place) in (0..9).map(|n| (n, 7 * n)) {
            // At the beginning, somewhere in a chunk, and at its end.
            for i in 0..60usize {
                let len = if i % 11 == 3 { 86 + i } else { i + 1 };
                let payload = vec![i as u8; len];
                let mut frame = datagram(1, 2, &payload);
                match special {
                    _ if i != place => to_b.push(payload),
                    0 => {
                        frame = datagram(1, 3, &payload);
                        to_c.push(payload);
                    }
                    // Somebody else's address; somebody else's MAC; no time to live; a header that is wrong; none at all.
                    1 => {
                        frame = datagram(3, 2, &payload);
                        frame[6..12].copy_from_slice(&mac(1));
                    }
                    2 => frame[11] ^= 1,
                    3 => frame[22] = 0,
                    4 => frame[24] ^= 1,
                    5 => frame.truncate(13),
                    6 => {
                        // What is longer than its packet arrives without the rest.
                        to_b.push(payload);
                        frame.extend([0xee; 40]);
                    }
                    7 => {
                        // Longer than what is copied of it.
                        to_b.push(vec![7; 1400]);
                        frame = datagram(1, 2, &[7; 1400]);
                    }
                    _ => {
                        // Longer than its bytes are.
                        frame.truncate(14 + 20 + 8);
                    }
                }
                a.queue(&frame);
            }
            a.kick();
            let got = payloads(&mut b, to_b.len());
            assert_eq!(got, to_b, "{special}");
            to_b.clear();
        }
        assert_eq!(payloads(&mut c, 1), to_c);
        // Each for its own reason, and no other frame.
        let reasons = || lab.nve.counters().ports[0].1.drops.clone();
        until("all are counted", || reasons().iter().map(|(_, count)| count).sum::<u64>() >= 6);
        let expected = [
            (DropReason::Malformed, 2),
            (DropReason::SpoofedMac, 1),
            (DropReason::SpoofedAddress, 1),
            (DropReason::BadChecksum, 2),
        ];
        assert_eq!(reasons(), expected);
    });
}

#[test]
fn a_full_receiver_takes_what_it_has_room_for_in_order_and_the_rest_is_counted() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        show_the_way(&mut a, &mut b);
        let sent = || lab.ring(1, Role::Transmit(0)).frames;
        let room = usize::from(SIZE);
        for burst in 0..4u8 {
            let before = sent();
            (0..100).for_each(|i| a.queue(&datagram(1, 2, &[burst, i])));
            a.kick();
            until("all are taken", || sent() == before + 100);
        }
        let expected: Vec<_> = (0..room).map(|n| vec![(n / 100) as u8, (n % 100) as u8]).collect();
        assert_eq!(payloads(&mut b, room), expected);
        assert_eq!(lab.drops(1, DropReason::ReceiverFull), 400 - room as u64);
        // And it has room again.
        show_the_way(&mut a, &mut b);
    });
}

#[test]
fn trains_of_several_flows_go_to_several_rings_each_flow_to_one() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let (mut b, mut second) = with_two_pairs(&lab, 2, accepted());
        let (mut first_got, mut second_got) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            a.send(&datagram(1, 2, b"the way"));
            until("it arrives", || b.take().len() + second.take(&b).len() == 1);
        }
        // In a batch a train, and the beginning of another; the next time another flow comes first.
        let turns =
            [(0, [0, 1, 2]), (0, [3, 4, 5]), (0, [6, 7, 8]), (2, [8, 0, 3]), (2, [5, 7, 1]), (2, [2, 4, 6])];
        for (from, flows) in turns {
            let count = first_got.len() + second_got.len() + 6;
            for (flow, place) in flows.iter().flat_map(|flow| [(*flow, from), (*flow, from + 1)]) {
                let mut frame = datagram(1, 2, &[flow, place]);
                frame[35] = flow;
                a.queue(&frame);
            }
            a.kick();
            until("all arrive", || {
                first_got.extend(b.take().iter().map(|frame| payload_of(frame).to_vec()));
                second_got.extend(second.take(&b));
                first_got.len() + second_got.len() == count
            });
        }
        assert!(first_got.len() > 4 && second_got.len() > 4, "{} and {}", first_got.len(), second_got.len());
        for flow in 0..9 {
            let of = |got: &[Vec<u8>]| got.iter().filter(|p| p[0] == flow).map(|p| p[1]).collect::<Vec<_>>();
            let (first, second) = (of(&first_got), of(&second_got));
            assert!(first.is_empty() || second.is_empty(), "flow {flow} is on one ring");
            assert_eq!([first, second].concat(), [0, 1, 2, 3], "flow {flow} in order");
        }
    });
}
