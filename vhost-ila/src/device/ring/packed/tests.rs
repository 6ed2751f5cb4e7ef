//! Packed rings against a driver that is good, and descriptors that are not; what split rings' tests say of both is not repeated.

use super::*;
use crate::device::guest::{Buffer, Driver, Ram, UVA, descriptor_bytes};
use crate::device::memory::Payload;
use crate::device::net_header::WireHeader;
use crate::device::ring::{Chains, NoRoom, ReceiveRing, TransmitRing, reference};

const REGIONS: [(u64, u64); 3] = [(0, 0x8000), (0x8000, 0x8000), (0x2_0000, 0x1_0000)];
const DATA: u64 = 0x2_0000;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

struct Setup {
    ram: Ram,
    driver: Driver,
    spec: RingSpec,
}

fn setup(size: u16) -> Setup {
    let (ram, driver) = (Ram::new(&REGIONS), Driver::packed(0, size));
    let spec = RingSpec {
        memory: ram.device_view(),
        addresses: driver.front_end_addresses(),
        size,
        packed: true,
        base: Some(0x8000),
        event_idx: false,
        in_order: false,
        indirect: true,
        log: None,
    };
    Setup { ram, driver, spec }
}

impl Setup {
    /// Writes any descriptor.
    fn put(&self, index: u16, gpa: u64, len: u32, flags: u16) {
        self.ram
            .write(self.driver.at.descriptors + 16 * u64::from(index), &descriptor_bytes(gpa, len, 7, flags));
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            self.driver.offer(&self.ram, &[readable(DATA, 60)]);
        }
        self.driver.expose(&self.ram);
    }

    /// The driver's, or the device's, event suppression structure.
    fn area(&self, at: u64) -> (u16, u16) {
        let bytes = self.ram.read(at, 4);
        (u16::from_le_bytes([bytes[0], bytes[1]]), u16::from_le_bytes([bytes[2], bytes[3]]))
    }

    fn wish(&self, word: u16, flags: u16) {
        self.ram.write(self.driver.at.available, &[word.to_le_bytes(), flags.to_le_bytes()].concat());
    }

    fn fault(&self) -> Option<RingFault> {
        let mut ring = TransmitRing::new(&self.spec).unwrap();
        let mut chains = Chains::default();
        let fault = ring.take(&mut chains).err();
        assert!(fault.is_none() || chains.is_empty(), "nothing of a bad chain is served");
        fault
    }
}

fn readable(gpa: u64, len: u32) -> Buffer {
    Buffer { gpa, len, writable: false }
}

fn writable(gpa: u64, len: u32) -> Buffer {
    Buffer { gpa, len, writable: true }
}

/// Serves all there is, publishing each batch; how many chains.
fn serve(ring: &mut TransmitRing) -> usize {
    let mut chains = Chains::default();
    let mut count = 0;
    loop {
        ring.take(&mut chains).unwrap();
        if chains.is_empty() {
            return count;
        }
        count += chains.len();
        ring.finish(&chains);
        ring.publish();
    }
}

#[test]
fn chains_come_back_by_their_ids_in_order_over_many_laps_of_rings_of_any_size() {
    for (size, in_order) in [(5, false), (8, false), (7, true), (64, true), (100, false)] {
        let mut s = setup(size);
        s.spec.in_order = in_order;
        let mut ring = TransmitRing::new(&s.spec).unwrap();
        let mut chains = Chains::default();
        for round in 0..400u32 {
            let mut given = Vec::new();
            let mut room = size;
            for i in 0.. {
                let count = 1 + (round + i) as u16 % 4;
                if count > room {
                    break;
                }
                room -= count;
                let buffers: Vec<_> = (0..count).map(|n| readable(DATA + u64::from(64 * n), 20)).collect();
                given.push(u32::from(match i % 3 {
                    0 => {
                        room += count - 1;
                        s.driver.offer_indirect(&s.ram, DATA + 0x8000 + 256 * u64::from(i), &buffers)
                    }
                    _ => s.driver.offer(&s.ram, &buffers),
                }));
            }
            ring.take(&mut chains).unwrap();
            assert!(chains.is_empty(), "nothing before it is exposed");
            s.driver.expose(&s.ram);
            let mut back = Vec::new();
            while back.len() < given.len() {
                ring.take(&mut chains).unwrap();
                assert!(!chains.is_empty());
                ring.finish(&chains);
                assert_eq!(s.driver.take_used(&s.ram), [], "not before it is published");
                assert!(ring.publish());
                back.extend(s.driver.take_used(&s.ram).iter().map(|used| used.0));
            }
            assert_eq!(back, given, "size {size}, round {round}");
        }
    }
}

#[test]
fn with_in_order_one_used_descriptor_gives_a_batch_back() {
    let mut s = setup(8);
    s.spec.in_order = true;
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    s.send(5);
    assert_eq!(serve(&mut ring), 5);
    let used =
        |index: u64| u16::from_le_bytes(s.ram.read(16 * index + 14, 2).try_into().unwrap()) & USED != 0;
    assert_eq!((0..8).map(used).collect::<Vec<_>>(), [true, false, false, false, false, false, false, false]);
    assert_eq!(s.driver.take_used(&s.ram).len(), 5);
    assert_eq!(ring.base(), 0x8005_8005);
}

#[test]
fn a_frame_fills_mergeable_buffers_and_what_is_left_of_a_batch_is_taken_again() {
    let mut s = setup(7);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    for lap in 0..20 {
        // Two buffers in a chain, one, and two more.
        let ids = [
            s.driver.offer(&s.ram, &[writable(DATA, 60), writable(DATA + 60, 40)]),
            s.driver.offer(&s.ram, &[writable(DATA + 0x100, 100)]),
            s.driver.offer(&s.ram, &[writable(DATA + 0x200, 50), writable(DATA + 0x232, 50)]),
        ];
        s.driver.expose(&s.ram);
        let tail: Vec<u8> = (0..150).map(|i| i + lap).collect();
        assert_eq!(ring.deliver(WireHeader::PLAIN, &[7; 60], Payload::own(&tail)), Ok(3));
        assert!(ring.publish());
        let [a, b, c] = ids.map(u32::from);
        assert_eq!(s.driver.take_used(&s.ram), [(a, 100), (b, 100), (c, 22)]);
        assert_eq!(s.ram.read(DATA, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0], "num_buffers");
        let got =
            [s.ram.read(DATA + 72, 28), s.ram.read(DATA + 0x100, 100), s.ram.read(DATA + 0x200, 22)].concat();
        assert_eq!(got, tail);
        assert_eq!(ring.deliver(WireHeader::PLAIN, &[7; 60], Payload::own(&tail)), Err(NoRoom::Full));
    }
    let mut s = setup(16);
    s.send(6);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    for (there, keep) in [(6, 2), (4, 1), (3, 3)] {
        ring.take(&mut chains).unwrap();
        assert_eq!(chains.len(), there);
        ring.leave(&mut chains, keep);
        ring.finish(&chains);
        ring.publish();
        assert_eq!(s.driver.take_used(&s.ram).len(), keep);
    }
}

#[test]
fn signals_are_sent_as_the_driver_wishes() {
    let mut s = setup(8);
    let send = |s: &mut Setup, ring: &mut TransmitRing| {
        s.send(1);
        let mut chains = Chains::default();
        ring.take(&mut chains).unwrap();
        ring.finish(&chains);
        let wanted = ring.publish();
        assert_eq!(s.driver.take_used(&s.ram).len(), 1);
        wanted
    };
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    assert!(send(&mut s, &mut ring), "ENABLE");
    s.wish(0, 1);
    assert!(!send(&mut s, &mut ring), "DISABLE");
    s.wish(0x8000 | 100, 2);
    assert!(send(&mut s, &mut ring), "DESC was not negotiated");

    let mut s = setup(8);
    s.spec.event_idx = true;
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    s.wish(0x8000 | 7, 2);
    let signals: Vec<bool> = (0..10).map(|_| send(&mut s, &mut ring)).collect();
    // The first is unconditional.
    let expected = [true, false, false, false, false, false, false, true, false, false];
    assert_eq!(signals, expected, "descriptor 7 of the first lap");
    s.wish(3, 2);
    let signals: Vec<bool> = (0..3).map(|_| send(&mut s, &mut ring)).collect();
    assert_eq!(signals, [false, true, false], "descriptor 3 of the second lap");
    s.wish(0x7fff, 2);
    assert!(send(&mut s, &mut ring), "an offset that is none asks for every signal");
}

#[test]
fn kicks_are_asked_for_where_the_next_buffer_will_be() {
    for (event_idx, flags) in [(false, 0), (true, 2)] {
        let mut s = setup(8);
        s.spec.event_idx = event_idx;
        let mut ring = TransmitRing::new(&s.spec).unwrap();
        ring.refuse_kicks();
        assert_eq!(s.area(s.driver.at.used), (0x8000, 1));
        s.send(3);
        assert_eq!(serve(&mut ring), 3);
        assert_eq!(s.area(s.driver.at.used), (0x8003, 1), "where it goes on is always there");
        assert_eq!(ring.want_kicks(), Ok(false));
        assert_eq!(s.area(s.driver.at.used), (0x8003, flags));
        s.send(1);
        assert_eq!(ring.want_kicks(), Ok(true), "no kick comes for what was there before");
    }
}

#[test]
fn bad_descriptors_break_the_ring_by_name() {
    use RingFault::{Address, Direction, Empty, Endless, Indirect};
    // The descriptors from the first on (address, length, flags), and what they come to.
    type Corpus<'a> = &'a [(&'a [(u64, u32, u16)], Option<RingFault>)];
    let corpus: Corpus<'_> = &[
        (&[(DATA, 60, AVAIL)], None),
        (&[(DATA, 60, AVAIL | 1), (DATA, 60, AVAIL)], None),
        (&[(DATA, 60, AVAIL | 1); 8], Some(Endless)),
        (&[(DATA, 60, AVAIL | 2)], Some(Direction)),
        (&[(DATA, 0, AVAIL)], Some(Empty)),
        (&[(0x1_0000, 60, AVAIL)], Some(Address)),
        (&[(0xffff, 2, AVAIL)], Some(Address)),
        (&[(u64::MAX - 10, 0x1000, AVAIL)], Some(Address)),
        (&[(DATA, u32::MAX, AVAIL)], Some(Address)),
        (&[(DATA, 60, AVAIL | 1), (DATA, 16, AVAIL | 4)], Some(Indirect)),
        (&[(DATA, 0, AVAIL | 4)], Some(Indirect)),
        (&[(DATA, 15, AVAIL | 4)], Some(Indirect)),
        (&[(DATA, 9 * 16, AVAIL | 4)], Some(Indirect)),
        (&[(DATA, 16, AVAIL | 5)], Some(Indirect)),
        (&[(0x1_0000, 16, AVAIL | 4)], Some(Address)),
        // Of a zeroed table; of one whose entry is a table; of a good one, whose id, NEXT and wrap bits count for nothing.
        (&[(DATA + 0x100, 16, AVAIL | 4)], Some(Empty)),
        (&[(DATA + 0x200, 16, AVAIL | 4)], Some(Indirect)),
        (&[(DATA + 0x300, 16, AVAIL | 4)], None),
        // Not available in this lap.
        (&[(DATA, 0, USED)], None),
        (&[(DATA, 0, USED | AVAIL)], None),
    ];
    for (descriptors, fault) in corpus {
        let s = setup(8);
        s.ram.write(DATA + 0x200, &descriptor_bytes(DATA, 60, 0, 4));
        s.ram.write(DATA + 0x300, &descriptor_bytes(DATA, 60, 99, 1 | AVAIL | USED));
        for (index, (gpa, len, flags)) in descriptors.iter().enumerate() {
            s.put(index as u16, *gpa, *len, *flags);
        }
        assert_eq!(s.fault(), *fault, "{descriptors:x?}");
    }
    let mut s = setup(8);
    s.put(0, DATA + 0x300, 16, AVAIL | 4);
    s.spec.indirect = false;
    assert_eq!(s.fault(), Some(Indirect), "not negotiated");
}

#[test]
fn a_chain_never_reaches_into_those_that_are_being_served() {
    let s = setup(8);
    // Five single ones, and then one that goes on over the end into them.
    for index in 0..5 {
        s.put(index, DATA, 60, AVAIL);
    }
    for index in 5..8 {
        s.put(index, DATA, 60, AVAIL | 1);
    }
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    assert_eq!(ring.take(&mut chains), Err(RingFault::Endless));
    assert_eq!(chains.len(), 5, "those before it are served");
}

#[test]
fn work_per_chain_is_bounded_whatever_its_descriptors_say() {
    const LARGE: u16 = 4096;
    let ram = Ram::new(&[(0, 0x2_0000), (0x2_0000, 0x10_0000)]);
    let driver = Driver::packed(0, LARGE);
    let spec = RingSpec {
        memory: ram.device_view(),
        addresses: driver.front_end_addresses(),
        size: LARGE,
        ..setup(8).spec
    };
    for (len, flags) in [(60, 1), (16 * u32::from(LARGE), 4), (16 * 65_535, 4)] {
        for index in 0..LARGE {
            ram.write(DATA + 16 * u64::from(index), &descriptor_bytes(0x100, 1, 0, 1));
            ram.write(16 * u64::from(index), &descriptor_bytes(DATA, len, 0, AVAIL | flags));
        }
        let before = reference::descriptor_reads();
        assert!(TransmitRing::new(&spec).unwrap().take(&mut Chains::default()).is_err());
        let read = reference::descriptor_reads() - before;
        // Those of a line are looked at together first.
        assert!(read <= 4 + 1 + u64::from(MAX_CHAIN), "{read} descriptors read for one chain");
    }
}

#[test]
fn rings_that_do_not_lie_in_memory_or_begin_beyond_their_end_are_not_made() {
    let s = setup(8);
    let make = |change: &dyn Fn(&mut RingSpec)| {
        let mut spec = s.spec.clone();
        change(&mut spec);
        TransmitRing::new(&spec).err()
    };
    assert_eq!(make(&|_| {}), None);
    assert_eq!(make(&|s| s.size = 12), None, "no power of two, as it may be");
    assert_eq!(make(&|s| s.size = 0), Some(RingFault::Size));
    assert_eq!(make(&|s| s.size = 32769), Some(RingFault::Size));
    for bad in [UVA - 16, UVA + 0x7ff0, UVA + 0x1_0000, u64::MAX - 15, 0, UVA + 8] {
        assert_eq!(make(&|s| s.addresses.descriptors = bad), Some(RingFault::Address), "{bad:#x}");
    }
    for bad in [UVA - 4, UVA + 0x1_0000, UVA + 0x2_fffe, UVA + 2] {
        assert_eq!(make(&|s| s.addresses.available = bad), Some(RingFault::Address), "{bad:#x}");
        assert_eq!(make(&|s| s.addresses.used = bad), Some(RingFault::Address), "{bad:#x}");
    }
    for bad in [8, 0x8008, 0xffff, 0x7fff_ffff] {
        assert_eq!(make(&|s| s.base = Some(bad)), Some(RingFault::Base), "{bad:#x}");
    }
}

/// Whatever was done before: the next daemon gives back what was not, and nothing twice.
#[test]
fn a_ring_goes_on_behind_what_was_given_back_though_the_front_end_repeats_where_it_began() {
    for (size, in_order) in [(8, false), (5, false), (64, true)] {
        for (laps, fill) in [(0, 1), (0, 4), (1, 0), (1, 3), (2, 2), (3, 1), (7, 4), (8, 5), (16, 0), (23, 5)]
        {
            let mut s = setup(size);
            s.spec.in_order = in_order;
            let mut ring = TransmitRing::new(&s.spec).unwrap();
            let chain = |s: &mut Setup, number: u64| {
                // Chains of one and of two.
                let buffers = [readable(DATA, 20), readable(DATA + 64, 20)];
                s.driver.offer(&s.ram, &buffers[..1 + (number % 2) as usize]);
                s.driver.expose(&s.ram);
            };
            for number in 0..3 * laps {
                chain(&mut s, number);
                assert_eq!(serve(&mut ring), 1);
                assert_eq!(s.driver.take_used(&s.ram).len(), 1);
            }
            // Killed, and the guest goes on meanwhile.
            let base = ring.base();
            drop(ring);
            let waiting = fill.min(u64::from(size) / 2);
            (0..waiting).for_each(|number| chain(&mut s, number));
            for said in [0x8000, base] {
                let mut again = TransmitRing::new(&RingSpec { base: Some(said), ..s.spec.clone() }).unwrap();
                assert_eq!(again.base(), base, "size {size}, {laps} laps, {fill} waiting, {said:#x} said");
                if said == base {
                    assert_eq!(serve(&mut again), waiting as usize);
                    assert_eq!(s.driver.take_used(&s.ram).len(), waiting as usize);
                }
            }
        }
    }
}

#[test]
fn a_daemon_killed_before_it_noted_a_batch_is_followed_by_one_that_finds_its_end() {
    for served in [1, 3, 8] {
        let mut s = setup(16);
        let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
        // The driver keeps the ring full, as receivers do.
        let offer = |s: &mut Setup, count: usize| {
            for _ in 0..count {
                s.driver.offer(&s.ram, &[writable(DATA, 200)]);
            }
            s.driver.expose(&s.ram);
        };
        offer(&mut s, 16);
        for _ in 0..5 {
            ring.deliver(WireHeader::PLAIN, &[7; 60], Payload::own(&[])).unwrap();
        }
        ring.publish();
        let noted = s.ram.read(s.driver.at.used, 4);
        assert_eq!(s.driver.take_used(&s.ram).len(), 5);
        offer(&mut s, 5);
        for _ in 0..served {
            ring.deliver(WireHeader::PLAIN, &[7; 60], Payload::own(&[])).unwrap();
        }
        ring.publish();
        let base = ring.base();
        s.ram.write(s.driver.at.used, &noted);
        for refilled in 0..=served {
            let again = ReceiveRing::new(&s.spec, true).unwrap();
            assert_eq!(again.base(), base, "{served} served, {refilled} of them refilled");
            drop(again);
            s.ram.write(s.driver.at.used, &noted);
            if refilled == 0 {
                assert_eq!(s.driver.take_used(&s.ram).len(), served);
            }
            if refilled < served {
                offer(&mut s, 1);
            }
        }
    }
}

#[test]
fn a_ring_that_its_driver_has_zeroed_begins_where_the_front_end_says() {
    let mut s = setup(8);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    s.send(5);
    serve(&mut ring);
    drop(ring);
    // The guest was reset, and its driver has zeroed what it uses.
    s.ram.write(0, &[0; 0x2000]);
    s.driver = Driver::packed(0, 8);
    for given in [0, 3, 8] {
        s.send(if given == 8 { 5 } else { given });
        assert_eq!(TransmitRing::new(&s.spec).unwrap().base(), 0x8000_8000, "{given} available");
        s.ram.write(s.driver.at.used, &[0; 4]);
    }
    // From another backend, which leaves anything in the device area.
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    assert_eq!(serve(&mut ring), 8);
    for word in [0u16, 0x8000, 0x7777, 3, 0x8003] {
        s.ram.write(s.driver.at.used, &word.to_le_bytes());
        let spec = RingSpec { base: Some(0), ..s.spec.clone() };
        assert_eq!(TransmitRing::new(&spec).unwrap().base(), 0, "{word:#x} noted");
    }
}
