//! Super-packets and partial checksums arrive intact: on one host and through the wire, to guests that take them and to guests
//! that do not, in both checksum modes.

use core::time::Duration;

use nve_core::DropReason;
use nve_core::addr::ChecksumMode::{self, Neutral, Unmodified};
use nve_core::packet::{ChecksumState, Gso, GsoKind, Offload};
use nve_core::testkit::dissect::protocol;
use nve_core::testkit::frames::{self, Header, flags};
use nve_core::testkit::{Dice, GuestPlan, Record, Sends, World};

use crate::{VM1, VM2, endpoint, two_hosts_in};

/// Transport payload of each segment.
const SIZE: u16 = 1400;

/// Where the receiver is, and what lies between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    SameHost,
    /// Cards finish what was left.
    Wire,
    /// Cards leave it to the receiver's.
    OffloadingWire,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    way: Way,
    mode: ChecksumMode,
    takes_offloads: bool,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let modes = [Neutral, Unmodified];
        let ways = [Way::SameHost, Way::Wire, Way::OffloadingWire];
        ways.into_iter().flat_map(move |way| {
            modes.into_iter().flat_map(move |mode| {
                [false, true].into_iter().map(move |takes_offloads| Self { way, mode, takes_offloads })
            })
        })
    }

    /// Whether the packet gets through without anyone finishing it: with C = 0 nothing may be left to a card.
    fn stays_whole(self) -> bool {
        self.takes_offloads
            && match self.way {
                Way::SameHost => true,
                Way::Wire => false,
                Way::OffloadingWire => self.mode == Neutral,
            }
    }

    fn start(self, sends: Sends) -> World {
        let plan = two_hosts_in(self.mode, self.mode);
        let plan = if self.way == Way::OffloadingWire { plan.fabric_offloads() } else { plan };
        let host = if self.way == Way::SameHost { "hv1" } else { "hv2" };
        let vm1 = GuestPlan::new("vm1", "hv1", "blue", &VM1).sends(sends);
        let vm2 = GuestPlan::new("vm2", host, "blue", &VM2);
        let (vm1, vm2) = match (sends, self.takes_offloads) {
            (Sends::Plain, false) => (vm1.by_hand(), vm2.by_hand()),
            (Sends::Plain, true) => (vm1.by_hand(), vm2.by_hand().takes_offloads()),
            (_, false) => (vm1, vm2),
            (_, true) => (vm1.takes_offloads(), vm2.takes_offloads()),
        };
        plan.guest(vm1).guest(vm2).start()
    }
}

/// A super-packet of `vm1` for `vm2`; family 0 is IPv4.
fn packet(family: usize, transport: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (endpoint(VM1[family], 1000), endpoint(VM2[family], 2000));
    match transport {
        protocol::UDP => frames::udp(Header::default(), from, to, payload),
        _ => frames::tcp(Header::default(), from, to, flags::ACK | flags::PSH, payload),
    }
}

/// The payloads of what arrived, in order, each checked to be a packet of the flow.
fn payloads(case: Case, records: &[&Record]) -> Vec<Vec<u8>> {
    let mut expected_sequence = 1000_u32;
    let payload = |record: &&Record| {
        let ip = record.ip().expect("an IP packet");
        assert_eq!(ip.ports(), Some((1000, 2000)), "{case:?}");
        if ip.protocol == protocol::TCP {
            assert_eq!(ip.transport[4..8], expected_sequence.to_be_bytes(), "{case:?}");
            expected_sequence += ip.payload().len() as u32;
        } else {
            assert_eq!(
                usize::from(u16::from_be_bytes([ip.transport[4], ip.transport[5]])),
                ip.transport.len()
            );
        }
        ip.payload().to_vec()
    };
    records.iter().map(payload).collect()
}

#[test]
fn super_packets_arrive_with_every_byte_in_every_combination() {
    let mut dice = Dice::new(3);
    for case in Case::all() {
        for family in [0, 1] {
            for transport in [protocol::TCP, protocol::UDP] {
                let mut world = case.start(Sends::Plain);
                let payload = dice.bytes(10 * usize::from(SIZE) + 17);
                let mut sent = packet(family, transport, &payload);
                let offload = frames::leave_segmentation(&mut sent, SIZE);
                world.send("vm1", &sent, offload);
                world.run_for(Duration::from_secs(1));
                let records = world.received("vm2", 0);
                let arrived = payloads(case, &records);
                let what = format!("{case:?}, family {family}, protocol {transport}");
                assert!(arrived.concat() == payload, "{what}: other bytes");
                if case.stays_whole() {
                    assert_eq!(arrived.len(), 1, "{what}: in one piece");
                    assert_eq!(records[0].offload.gso.map(|gso| gso.size), Some(SIZE), "{what}");
                } else {
                    assert_eq!(arrived.len(), 11, "{what}: in segments");
                    assert!(arrived[..10].iter().all(|one| one.len() == usize::from(SIZE)), "{what}");
                }
            }
        }
    }
}

#[test]
fn partial_checksums_arrive_good_or_partial_but_never_wrong() {
    let mut dice = Dice::new(4);
    for case in Case::all() {
        for family in [0, 1] {
            for transport in [protocol::TCP, protocol::UDP] {
                let mut world = case.start(Sends::Plain);
                let payload = dice.bytes(777);
                let mut sent = packet(family, transport, &payload);
                let offload = frames::leave_checksum(&mut sent);
                world.send("vm1", &sent, offload);
                world.run_for(Duration::from_secs(1));
                let records = world.received("vm2", 0);
                assert!(payloads(case, &records).concat() == payload, "{case:?}, {family}, {transport}");
                // Whether it verifies, or its seed does, is judged on arrival.
                assert_eq!(
                    records[0].offload != Offload::NONE,
                    case.stays_whole(),
                    "{case:?}, {family}, {transport}"
                );
            }
        }
    }
}

#[test]
fn stacks_that_leave_their_work_to_others_get_every_byte_across() {
    for case in Case::all() {
        for sends in [Sends::PartialChecksums, Sends::LargeSends] {
            let mut world = case.start(sends);
            for to in VM2 {
                let took = world.transfer("vm1", "vm2", to, 100_000);
                assert!(took.is_ok(), "{case:?}, {sends:?}, {to}: {took:?}");
            }
            let large = world.received("vm2", 0).iter().filter(|record| record.offload.gso.is_some()).count();
            // Over IPv4: smoltcp does not leave segmentation over IPv6.
            let expected = case.stays_whole() && sends == Sends::LargeSends;
            assert_eq!(large > 0, expected, "{case:?}, {sends:?}: {large} super-packets");
        }
    }
}

/// What a hostile guest makes up about a good packet: whatever of it gets through is judged at the TUN, by the card and by the
/// receiver's driver, which insist that it is true.
#[test]
fn metadata_made_up_by_a_guest_reaches_nobody() {
    let mut dice = Dice::new(5);
    for case in Case::all() {
        let mut world = case.start(Sends::Plain);
        for _ in 0..300 {
            let family = dice.roll() as usize % 2;
            let transport = [protocol::TCP, protocol::UDP][dice.roll() as usize % 2];
            let len = 1 + dice.roll() as usize % 1400;
            let mut sent = packet(family, transport, &dice.bytes(len));
            let honest = frames::leave_checksum(&mut sent);
            world.send("vm1", &sent, made_up(&mut dice, honest));
        }
        world.run_for(Duration::from_secs(1));
        assert!(!world.received("vm2", 0).is_empty(), "{case:?}: some of it is true by chance");
        assert!(world.counters("vm1").dropped(DropReason::BadOffload) > 50, "{case:?}");
    }
}

/// Near the truth: most of it is wrong in one field only.
fn made_up(dice: &mut Dice, honest: Offload) -> Offload {
    let near = |dice: &mut Dice, value: u16| match dice.roll() % 6 {
        0 => dice.roll() as u16,
        1 => value.wrapping_add(dice.roll() as u16 % 5).wrapping_sub(2),
        2 => [0, 1, 0x7fff, 0xffff][dice.roll() as usize % 4],
        _ => value,
    };
    let ChecksumState::Partial { start, offset } = honest.checksum else { return honest };
    let checksum = match dice.roll() % 8 {
        // The packet holds a seed, not a checksum: to say nothing of it would only hurt the guest itself.
        0..=6 => ChecksumState::Partial { start: near(dice, start), offset: near(dice, offset) },
        _ => honest.checksum,
    };
    let ecn = dice.chance(500);
    let kind = [GsoKind::TcpV4 { ecn }, GsoKind::TcpV6 { ecn }, GsoKind::UdpL4][dice.roll() as usize % 3];
    let gso = dice.chance(500).then(|| Gso { kind, size: near(dice, SIZE) });
    Offload { checksum, gso }
}
