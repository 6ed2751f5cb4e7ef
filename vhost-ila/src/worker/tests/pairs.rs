//! Several queue pairs, and the control queue.

use super::*;
use crate::device::ring::RingFault;

/// Entries of a ring of the pairs behind the first.
const SMALL: u16 = 64;
/// VIRTIO_NET_CTRL_MQ, VQ_PAIRS_SET; VIRTIO_NET_CTRL_ANNOUNCE, ACK.
const PAIRS: [u8; 2] = [4, 0];
const ANNOUNCED: [u8; 2] = [3, 0];
const OK: u8 = 0;
const ERR: u8 = 1;
/// Where commands lie, and their answers.
const COMMAND: u64 = 0x3f_0000;
const ANSWER: u64 = 0x3f_8000;

/// One more ring of a guest.
pub(super) struct Ring {
    index: usize,
    pub(super) driver: Driver,
    kick: EventFd,
    call: EventFd,
}

impl Ring {
    fn new(index: usize) -> Self {
        let event = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let driver = driver(0x2_0000 + 0x4000 * index as u64, SMALL);
        Self { index, driver, kick: event(), call: event() }
    }

    fn start(&self, guest: &mut Guest) {
        let at = self.driver.front_end_addresses();
        let config = VringConfigData {
            queue_max_size: SMALL,
            queue_size: SMALL,
            flags: 0,
            desc_table_addr: at.descriptors,
            used_ring_addr: at.used,
            avail_ring_addr: at.available,
            log_addr: None,
        };
        guest.frontend.set_vring_num(self.index, SMALL).unwrap();
        guest.frontend.set_vring_addr(self.index, &config).unwrap();
        guest.frontend.set_vring_base(self.index, self.driver.first_base()).unwrap();
        guest.frontend.set_vring_call(self.index, &self.call).unwrap();
        guest.frontend.set_vring_kick(self.index, &self.kick).unwrap();
        guest.frontend.set_vring_enable(self.index, true).unwrap();
    }

    /// Offers a receive buffer in every entry.
    fn fill(&mut self, guest: &Guest) {
        for i in 0..SMALL {
            let gpa = 0x25_0000 + 0x2_0000 * (self.index as u64 / 2) + BUFFER * u64::from(i);
            self.driver.offer(&guest.ram, &[Buffer { gpa, len: BUFFER as u32, writable: true }]);
        }
        self.driver.expose(&guest.ram);
    }

    /// Payloads of the frames that came; each buffer is used once.
    pub(super) fn take(&mut self, guest: &Guest) -> Vec<Vec<u8>> {
        let base = 0x25_0000 + 0x2_0000 * (self.index as u64 / 2);
        let used = self.driver.take_used(&guest.ram);
        let frame = |(head, len): &(u32, u32)| {
            guest.ram.read(base + BUFFER * u64::from(*head) + 12, *len as usize - 12)
        };
        used.iter().map(|used| payload_of(&frame(used)).to_vec()).collect()
    }

    /// Sends a chain of a command and room for its answer; the answer.
    fn command(&mut self, guest: &Guest, bytes: &[u8]) -> u8 {
        guest.ram.write(COMMAND, bytes);
        guest.ram.write(ANSWER, &[0xff]);
        let read = |at, len: usize| Buffer { gpa: COMMAND + at, len: len as u32, writable: false };
        let answer = Buffer { gpa: ANSWER, len: 1, writable: true };
        // As Linux does it: the header, the data, the answer.
        let (header, data) = (bytes.len().min(2), bytes.len().saturating_sub(2));
        let mut chain = vec![read(0, header)];
        chain.extend((data > 0).then(|| read(2, data)));
        chain.push(answer);
        self.driver.offer(&guest.ram, &chain);
        self.kick(guest);
        let mut used = Vec::new();
        until("the command is answered", || {
            used = self.driver.take_used(&guest.ram);
            !used.is_empty()
        });
        assert_eq!(used.len(), 1);
        assert_eq!(used[0].1, 1, "one byte written");
        guest.ram.read(ANSWER, 1)[0]
    }

    fn kick(&mut self, guest: &Guest) {
        self.driver.expose(&guest.ram);
        self.kick.write(1).unwrap();
    }
}

/// A guest whose second pair receives too; ring 2 and its buffers.
pub(super) fn with_two_pairs(lab: &Lab, n: u8, features: u64) -> (Guest, Ring) {
    let mut guest = Guest::with_features(&lab.socket(n), features);
    let mut second = Ring::new(2);
    second.fill(&guest);
    second.start(&mut guest);
    (guest, second)
}

/// A datagram of flow `flow`, its place in the flow as payload.
fn of_flow(flow: u8, place: u8) -> Vec<u8> {
    let mut frame = datagram(1, 2, &[flow, place]);
    // Its source port; the checksum is zero.
    frame[35] = flow;
    frame
}

/// Sends `flows` x `each` datagrams, the flows in turn.
pub(super) fn send_flows(guest: &mut Guest, flows: u8, each: u8) {
    for place in 0..each {
        (0..flows).for_each(|flow| guest.queue(&of_flow(flow, place)));
    }
    guest.kick();
}

#[test]
fn flows_spread_over_the_enabled_pairs_and_each_keeps_its_order() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let (mut b, mut second) = with_two_pairs(&lab, 2, accepted());
        send_flows(&mut a, 20, 3);
        let (mut first_got, mut second_got) = (Vec::new(), Vec::new());
        until("all arrive", || {
            first_got.extend(b.take().iter().map(|frame| payload_of(frame).to_vec()));
            second_got.extend(second.take(&b));
            first_got.len() + second_got.len() == 60
        });
        assert!(first_got.len() > 6 && second_got.len() > 6, "{} and {}", first_got.len(), second_got.len());
        for flow in 0..20 {
            let of = |got: &[Vec<u8>]| got.iter().filter(|p| p[0] == flow).map(|p| p[1]).collect::<Vec<_>>();
            let (first, second) = (of(&first_got), of(&second_got));
            assert!(first.is_empty() || second.is_empty(), "flow {flow} is on one ring");
            assert_eq!([first, second].concat(), [0, 1, 2], "flow {flow} in order");
        }
        let frames = |pair| lab.ring(2, Role::Receive(pair)).frames;
        assert_eq!((frames(0), frames(1)), (first_got.len() as u64, second_got.len() as u64));
        assert!(second.call.read().is_ok(), "its driver was told");
    });
}

#[test]
fn the_flows_of_a_pair_that_is_disabled_or_broken_move_to_the_others() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let (mut b, mut second) = with_two_pairs(&lab, 2, accepted());
    b.frontend.set_vring_enable(2, false).unwrap();
    send_flows(&mut a, 20, 1);
    let mut got = 0;
    until("all arrive at the first", || {
        got += b.take().len();
        got == 20
    });
    assert!(second.take(&b).is_empty());
    b.frontend.set_vring_enable(2, true).unwrap();
    b.frontend.set_vring_enable(0, false).unwrap();
    send_flows(&mut a, 20, 1);
    got = 0;
    until("all arrive at the second", || {
        got += second.take(&b).len();
        got == 20
    });
    b.frontend.set_vring_enable(0, true).unwrap();
    second.driver.expose_index(&b.ram, 0x4000);
    // What finds it out is lost, no more.
    until("the break is found", || {
        send_flows(&mut a, 20, 1);
        std::thread::sleep(Duration::from_millis(5));
        b.take();
        lab.ring(2, Role::Receive(1)).fault.is_some()
    });
    until("what is on its way has come", || b.take().is_empty());
    send_flows(&mut a, 20, 1);
    got = 0;
    until("all arrive at the first", || {
        got += b.take().len();
        got >= 20
    });
}

#[test]
fn every_transmit_ring_is_served() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        let mut more: Vec<_> = (1..8).map(|pair| Ring::new(2 * pair + 1)).collect();
        more.iter().for_each(|ring| ring.start(&mut a));
        for (i, ring) in more.iter_mut().enumerate() {
            let frame = datagram(1, 2, &[i as u8; 10]);
            let gpa = TX_DATA + BUFFER * i as u64;
            a.ram.write(gpa, &[0; 12]);
            a.ram.write(gpa + 12, &frame);
            ring.driver.offer(&a.ram, &[Buffer { gpa, len: 12 + frame.len() as u32, writable: false }]);
            ring.kick(&a);
            assert_eq!(payload_of(&b.receive()), [i as u8; 10]);
            assert_eq!(lab.ring(1, Role::Transmit(i as u8 + 1)).frames, 1);
        }
        assert_eq!(a.frontend.get_queue_num().unwrap(), 8);
    });
}

/// A guest with two pairs whose control queue is ours.
fn commanding(lab: &Lab, n: u8) -> (Guest, Ring, Ring) {
    let (mut guest, second) = with_two_pairs(lab, n, accepted() | CTRL_VQ);
    let control = Ring::new(16);
    control.start(&mut guest);
    (guest, second, control)
}

#[test]
fn the_control_queue_sets_pairs_and_refuses_what_it_does_not_know() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let (mut b, mut second, mut control) = commanding(&lab, 2);
        let mut spread = |b: &mut Guest, second: &mut Ring| {
            send_flows(&mut a, 16, 1);
            let mut got = (0, 0);
            until("all arrive", || {
                got.0 += b.take().len();
                got.1 += second.take(b).len();
                got.0 + got.1 == 16
            });
            got.1
        };
        assert_eq!(spread(&mut b, &mut second), 0, "one pair until more are asked for");
        for (pairs, answer) in [(0u16, ERR), (9, ERR), (256, ERR), (u16::MAX, ERR), (2, OK)] {
            let command = [PAIRS, pairs.to_le_bytes()].concat();
            assert_eq!(control.command(&b, &command), answer, "{pairs} pairs");
        }
        assert!(spread(&mut b, &mut second) > 0);
        // A change of memory or of a descriptor forgets nothing of it.
        b.share_memory();
        b.frontend.set_vring_call(16, &control.call).unwrap();
        assert!(spread(&mut b, &mut second) > 0);
        assert_eq!(control.command(&b, &[PAIRS, [1, 0]].concat()), OK);
        assert_eq!(spread(&mut b, &mut second), 0);

        assert_eq!(control.command(&b, &ANNOUNCED), OK);
        for unknown in [&[0, 0, 1][..], &[4, 0], &[4, 0, 1], &[4, 0, 1, 0, 0], &[4, 1, 1, 0], &[200, 1], &[1]]
        {
            assert_eq!(control.command(&b, unknown), ERR, "{unknown:?}");
        }
        let uses = lab.report(2).uses;
        assert_eq!((uses["control_commands"], uses["control_commands_refused"]), (14, 11));
        assert_eq!(uses["announcements_acknowledged"], 1);
    });
}

#[test]
fn pairs_are_forgotten_with_the_driver_that_asked_for_them() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let (mut b, mut second, mut control) = commanding(&lab, 2);
        assert_eq!(control.command(&b, &[PAIRS, [2, 0]].concat()), OK);
        // The guest reboots: its rings are stopped, and started again with a ring where the used index stands.
        for index in [0, 1, 2, 16] {
            b.frontend.get_vring_base(index).unwrap();
        }
        b.start(0);
        b.start(1);
        second.start(&mut b);
        control.start(&mut b);
        send_flows(&mut a, 16, 1);
        let mut got = 0;
        until("all arrive at the first", || {
            got += b.take().len();
            got == 16
        });
        assert!(second.take(&b).is_empty());
    });
}

#[test]
fn a_bad_command_breaks_the_control_queue_by_name_and_nothing_else() {
    let readable = |len| Buffer { gpa: COMMAND, len, writable: false };
    let answer = Buffer { gpa: ANSWER, len: 1, writable: true };
    let nowhere = Buffer { gpa: 0x1000_0000, len: 1, writable: true };
    let chains: [(&[Buffer], RingFault); 5] = [
        (&[readable(2), answer, readable(2)], RingFault::Direction),
        (&[readable(2)], RingFault::NoAnswer),
        (&[readable(2), readable(2)], RingFault::NoAnswer),
        (&[readable(2), nowhere], RingFault::Address),
        (&[readable(0), answer], RingFault::Empty),
    ];
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let check = |a: &mut Guest, offer: &dyn Fn(&mut Ring, &Guest), fault: RingFault| {
        let (mut b, _, mut control) = commanding(&lab, 2);
        assert_eq!(control.command(&b, &ANNOUNCED), OK);
        offer(&mut control, &b);
        control.kick.write(1).unwrap();
        until("named", || lab.ring(2, Role::Control).fault.is_some());
        assert_eq!(lab.ring(2, Role::Control).fault, Some(fault.to_string()));
        a.send(&datagram(1, 2, b"still here"));
        assert_eq!(payload_of(&b.receive()), b"still here");
        drop(b);
        until("gone", || !lab.report(2).connected);
    };
    for (chain, fault) in chains {
        check(
            &mut a,
            &|control, b| {
                control.driver.offer(&b.ram, chain);
                control.driver.expose(&b.ram);
            },
            fault,
        );
    }
    // A chain that bites its tail, and one that ends in a table.
    check(
        &mut a,
        &|control, b| {
            control.driver.descriptor(&b.ram, 5, COMMAND, 2, 1, 5);
            control.driver.push(&b.ram, 5);
            control.driver.expose(&b.ram);
        },
        RingFault::Endless,
    );
    check(
        &mut a,
        &|control, b| {
            control.driver.descriptor(&b.ram, 5, COMMAND, 2, 1, 6);
            control.driver.descriptor(&b.ram, 6, COMMAND, 16, 4, 0);
            control.driver.push(&b.ram, 5);
            control.driver.expose(&b.ram);
        },
        RingFault::Indirect,
    );
    check(&mut a, &|control, b| control.driver.expose_index(&b.ram, 0x4000), RingFault::AvailableIndex);
}

#[test]
fn a_flood_of_commands_is_answered_and_holds_nobody_up() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let (mut b, _, mut control) = commanding(&lab, 2);
        b.ram.write(COMMAND, &[PAIRS, [1, 0]].concat());
        let chain = [
            Buffer { gpa: COMMAND, len: 4, writable: false },
            Buffer { gpa: ANSWER, len: 1, writable: true },
        ];
        let mut answered = 0;
        for round in 0..50u8 {
            for _ in 0..30 {
                control.driver.offer(&b.ram, &chain);
            }
            control.kick(&b);
            a.send(&datagram(1, 2, &[round; 10]));
            assert_eq!(payload_of(&b.receive()), [round; 10]);
            until("answered", || {
                answered += control.driver.take_used(&b.ram).len();
                answered == 30 * (usize::from(round) + 1)
            });
        }
    });
}

#[test]
fn buffers_come_back_in_the_order_they_were_made_available() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let (mut b, _, mut control) = commanding(&lab, 2);
        // Frames that go somewhere, nowhere, and to software first; to buffers offered back to front.
        for i in 0..SIZE / 2 {
            match i % 4 {
                0 => a.queue(&datagram(1, 2, &[i as u8; 100])),
                1 => a.queue(&datagram(1, 9, &[i as u8; 100])),
                2 => a.queue(&[0; 20]),
                _ => a.queue(&datagram(1, 2, &[i as u8; 1400])),
            }
        }
        a.kick();
        let mut heads = Vec::new();
        until("all are taken", || {
            heads.extend(a.tx.take_used(&a.ram).into_iter().map(|(head, _)| head));
            heads.len() == usize::from(SIZE / 2)
        });
        assert!(heads.is_sorted(), "{heads:?}");
        let mut received = Vec::new();
        until("half of them arrive", || {
            received.extend(b.rx.take_used(&b.ram).into_iter().map(|(head, _)| head));
            received.len() == usize::from(SIZE / 4)
        });
        assert_eq!(received, (0..u32::from(SIZE / 4)).collect::<Vec<_>>());
        assert_eq!(control.command(&b, &ANNOUNCED), OK);
    });
}
