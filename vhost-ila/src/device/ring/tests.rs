//! Rings against a driver of our own: what a good guest sees, and what becomes of a bad one.

use super::layout::reads;
use super::*;
use crate::device::guest::{Buffer, Driver, Ram, UVA, descriptor_bytes};
use crate::device::memory::Payload;
use crate::device::net_header::WireHeader;

/// Two adjacent regions, a hole, and one more; adjacent here, not so in the file's mappings.
const REGIONS: [(u64, u64); 3] = [(0, 0x8000), (0x8000, 0x8000), (0x2_0000, 0x1_0000)];
/// Where buffers go; the rings are below.
const DATA: u64 = 0x2_0000;

struct Setup {
    ram: Ram,
    driver: Driver,
    spec: RingSpec,
}

fn setup(size: u16, event_idx: bool) -> Setup {
    setup_with(Ram::new(&REGIONS), size, event_idx)
}

fn setup_in(regions: &[(u64, u64)], size: u16) -> Setup {
    setup_with(Ram::new(regions), size, false)
}

fn setup_with(ram: Ram, size: u16, event_idx: bool) -> Setup {
    let driver = Driver::new(0, size);
    let spec = RingSpec {
        memory: ram.device_view(),
        addresses: driver.front_end_addresses(),
        size,
        event_idx,
        packed: false,
        base: None,
        in_order: false,
        indirect: true,
        log: None,
    };
    Setup { ram, driver, spec }
}

fn readable(gpa: u64, len: u32) -> Buffer {
    Buffer { gpa, len, writable: false }
}

fn writable(gpa: u64, len: u32) -> Buffer {
    Buffer { gpa, len, writable: true }
}

/// What one chain holds.
fn bytes_of(chains: &Chains, index: usize) -> Vec<u8> {
    let mut bytes = vec![0; chains.bytes(index)];
    let n = chains.copy(index, 0, &mut bytes);
    assert_eq!(n, bytes.len());
    bytes
}

/// The checks ran on the copy: what the guest writes there afterwards must reach nobody.
#[test]
fn what_was_copied_of_a_chain_is_not_read_from_the_guest_again() {
    let (mut from, mut to) = (setup(8, false), setup(8, false));
    let (sent, buffers) = ([0x2_0000, 0x2_0800], [0x2_1000, 0x2_2000, 0x2_3000, 0x2_4000, 0x2_5000]);
    // In one piece, and in two.
    from.ram.write(sent[0], &[1; 300]);
    from.driver.offer(&from.ram, &[readable(sent[0], 300)]);
    from.ram.write(sent[1], &[1; 300]);
    from.driver.offer(&from.ram, &[readable(sent[1], 30), readable(sent[1] + 30, 270)]);
    from.driver.expose(&from.ram);
    let mut chains = Chains::default();
    TransmitRing::new(&from.spec).unwrap().take(&mut chains).unwrap();
    let mut copied = [[0; 140]; 2];
    chains.copy_heads(0, copied.iter_mut());
    sent.iter().for_each(|gpa| from.ram.write(*gpa, &[2; 300]));

    let mut receive = ReceiveRing::new(&to.spec, false).unwrap();
    for (start, gpa) in [0, 26, 139, 140, 200].into_iter().zip(buffers) {
        for (at, taken) in copied.iter().enumerate() {
            to.driver.offer(&to.ram, &[writable(gpa, 1000)]);
            to.driver.expose(&to.ram);
            let payload = chains.payload(at, taken, start..300);
            assert_eq!(payload.len(), 300 - start);
            receive.deliver(WireHeader::PLAIN, &[], payload).unwrap();
            let arrived = to.ram.read(gpa + 12, 300 - start);
            let old = 140_usize.saturating_sub(start);
            assert!(arrived[..old].iter().all(|byte| *byte == 1), "chain {at} from {start}");
            assert!(arrived[old..].iter().all(|byte| *byte == 2), "control: what was not copied is read now");
        }
    }
}

/// Offers nothing good: the fault of a ring that was given one head.
fn fault_of(s: &mut Setup, head: u16) -> Option<RingFault> {
    s.driver.push(&s.ram, head);
    s.driver.expose(&s.ram);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    let fault = ring.take(&mut chains).err();
    assert!(fault.is_none() || chains.is_empty(), "nothing of a bad chain is served");
    fault
}

#[test]
fn a_frame_arrives_whole_however_it_is_cut_and_across_regions() {
    let frame: Vec<u8> = (0..600u32).map(|i| i as u8).collect();
    // 0x7f00 .. 0x8158 crosses from the first region into the second.
    for cuts in [vec![600], vec![12, 588], vec![1, 1, 1, 597], vec![100, 156, 344]] {
        let mut s = setup(8, false);
        s.ram.write(0x7f00, &frame);
        let mut at = 0x7f00;
        let buffers: Vec<_> = cuts
            .iter()
            .map(|len| {
                at += len;
                readable(at - len, *len as u32)
            })
            .collect();
        s.driver.offer(&s.ram, &buffers);
        s.driver.offer_indirect(&s.ram, DATA, &buffers);
        s.driver.expose(&s.ram);
        let mut ring = TransmitRing::new(&s.spec).unwrap();
        let mut chains = Chains::default();
        ring.take(&mut chains).unwrap();
        assert_eq!(chains.len(), 2);
        assert_eq!(bytes_of(&chains, 0), frame, "{cuts:?}");
        assert_eq!(bytes_of(&chains, 1), frame, "{cuts:?} indirect");
    }
}

#[test]
fn a_payload_skips_to_the_right_byte_in_any_piece() {
    let mut s = setup(8, false);
    s.ram.write(DATA, &(0..100).collect::<Vec<u8>>());
    s.driver.offer(&s.ram, &[readable(DATA, 10), readable(DATA + 10, 30), readable(DATA + 40, 60)]);
    s.driver.expose(&s.ram);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    ring.take(&mut chains).unwrap();
    for start in [0, 9, 10, 11, 39, 40, 99, 100] {
        for end in [start, 100, 1000] {
            let payload = chains.payload(0, &[], start..end);
            let mut seen = 0;
            payload.runs(|_, len| seen += len);
            assert_eq!(seen, end.min(100) - start);
            assert_eq!(payload.len(), seen);
        }
    }
}

#[test]
fn what_is_finished_is_published_once_per_batch_in_order() {
    let mut s = setup(4, false);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    for round in 0..40 {
        let heads: Vec<_> = (0..3).map(|_| s.driver.offer(&s.ram, &[readable(DATA, 60)])).collect();
        s.driver.expose(&s.ram);
        ring.take(&mut chains).unwrap();
        assert_eq!(chains.len(), 3, "round {round}");
        ring.finish(&chains);
        assert_eq!(s.driver.take_used(&s.ram), [], "not before it is published");
        assert!(ring.publish(), "an interrupt is wanted unless refused");
        assert!(!ring.publish(), "nothing new");
        let expected: Vec<_> = heads.iter().map(|h| (u32::from(*h), 0)).collect();
        assert_eq!(s.driver.take_used(&s.ram), expected);
    }
    assert_eq!(ring.base(), 120);
}

#[test]
fn an_interrupt_the_guest_refused_is_not_sent() {
    let mut s = setup(4, false);
    s.driver.set_flags(&s.ram, 1);
    s.driver.offer(&s.ram, &[readable(DATA, 60)]);
    s.driver.expose(&s.ram);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    ring.take(&mut chains).unwrap();
    ring.finish(&chains);
    assert!(!ring.publish());
}

#[test]
fn with_event_idx_the_first_signal_is_unconditional_and_the_next_at_the_event() {
    let mut s = setup(8, true);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    let mut send = |s: &mut Setup| {
        s.driver.offer(&s.ram, &[readable(DATA, 60)]);
        s.driver.expose(&s.ram);
        ring.take(&mut chains).unwrap();
        ring.finish(&chains);
        ring.publish()
    };
    s.driver.set_used_event(&s.ram, 100);
    assert!(send(&mut s), "what a former life signalled is unknown");
    assert!(!send(&mut s));
    s.driver.set_used_event(&s.ram, 2);
    assert!(send(&mut s), "entry 2 was passed");
    assert!(!send(&mut s));
}

#[test]
fn kicks_are_asked_for_and_refused_as_negotiated() {
    let mut s = setup(8, false);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    ring.refuse_kicks();
    assert_eq!(s.driver.used_flags(&s.ram), 1);
    assert_eq!(ring.want_kicks(), Ok(false));
    assert_eq!(s.driver.used_flags(&s.ram), 0);
    s.driver.offer(&s.ram, &[readable(DATA, 60)]);
    s.driver.expose(&s.ram);
    assert_eq!(ring.want_kicks(), Ok(true), "no kick comes for what was there before");

    let mut s = setup(8, true);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    s.driver.offer(&s.ram, &[readable(DATA, 60)]);
    s.driver.expose(&s.ram);
    ring.take(&mut Chains::default()).unwrap();
    assert_eq!(ring.want_kicks(), Ok(false));
    assert_eq!(s.driver.available_event(&s.ram), 1);
}

#[test]
fn a_ring_starts_at_its_used_index() {
    let s = setup(8, false);
    s.ram.write(s.driver.at.used + 2, &0xfffeu16.to_le_bytes());
    s.driver.expose_index(&s.ram, 1);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    assert_eq!(ring.base(), 0xfffe);
    s.driver.descriptor(&s.ram, 0, DATA, 60, 0, 0);
    let mut chains = Chains::default();
    ring.take(&mut chains).unwrap();
    assert_eq!(chains.len(), 3, "0xfffe, 0xffff and 0");
}

#[test]
fn a_chain_that_loops_is_endless() {
    for length in [1, 2, 8] {
        let mut s = setup(8, false);
        for i in 0..length {
            s.driver.descriptor(&s.ram, i, DATA, 60, 1, (i + 1) % length);
        }
        assert_eq!(fault_of(&mut s, 0), Some(RingFault::Endless), "loop of {length}");
    }
}

#[test]
fn an_index_beyond_the_table_breaks_the_ring() {
    let mut s = setup(8, false);
    assert_eq!(fault_of(&mut s, 8), Some(RingFault::Index));
    let mut s = setup(8, false);
    s.driver.descriptor(&s.ram, 0, DATA, 60, 1, 0xffff);
    assert_eq!(fault_of(&mut s, 0), Some(RingFault::Index));
}

#[test]
fn buffers_outside_memory_break_the_ring() {
    let corpus: [(u64, u32); 7] = [
        (0x1_0000, 60),          // the hole
        (0xffff, 2),             // into the hole
        (0x1_ffff, 2),           // out of the hole
        (0x2_ffff, 2),           // past the end
        (u64::MAX, 1),           // far away
        (u64::MAX - 10, 0x1000), // around the end of the address space
        (DATA, u32::MAX),        // 4 GiB
    ];
    for (gpa, len) in corpus {
        let mut s = setup(8, false);
        s.driver.descriptor(&s.ram, 0, gpa, len, 0, 0);
        assert_eq!(fault_of(&mut s, 0), Some(RingFault::Address), "{gpa:#x}+{len:#x}");
    }
}

#[test]
fn a_buffer_of_no_bytes_breaks_the_ring_wherever_it_is() {
    for gpa in [DATA, 0x1_0000, u64::MAX] {
        let mut s = setup(8, false);
        s.driver.descriptor(&s.ram, 0, DATA, 60, 1, 1);
        s.driver.descriptor(&s.ram, 1, gpa, 0, 0, 0);
        assert_eq!(fault_of(&mut s, 0), Some(RingFault::Empty));
    }
}

#[test]
fn a_descriptor_of_the_wrong_direction_breaks_the_ring() {
    let mut s = setup(8, false);
    s.driver.descriptor(&s.ram, 0, DATA, 60, 1, 1);
    s.driver.descriptor(&s.ram, 1, DATA, 60, 2, 0);
    assert_eq!(fault_of(&mut s, 0), Some(RingFault::Direction));

    let mut s = setup(8, false);
    s.driver.offer(&s.ram, &[writable(DATA, 12), readable(DATA, 1500)]);
    s.driver.expose(&s.ram);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    let result = ring.deliver(WireHeader::PLAIN, &[1; 60], Payload::own(&[]));
    assert_eq!(result, Err(NoRoom::Broken(RingFault::Direction)));
    assert_eq!(s.ram.read(DATA, 60), [0; 60], "nothing was written");
}

#[test]
fn bad_indirect_tables_break_the_ring() {
    // flags, next and length of the head; flags of the table's first entry.
    let corpus = [
        (4, 0, 0),      // no entries
        (4, 0, 15),     // not whole descriptors
        (4, 0, 9 * 16), // more than the ring has
        (4, 0, 65535 * 16),
        (5, 1, 16), // chained
        (4, 0, 16 + 8),
    ];
    for (flags, next, len) in corpus {
        let mut s = setup(8, false);
        s.driver.descriptor(&s.ram, 0, DATA, len, flags, next);
        assert_eq!(fault_of(&mut s, 0), Some(RingFault::Indirect), "{flags} {next} {len}");
    }
    let nested = |s: &mut Setup, flags: u16| {
        let bytes = descriptor_bytes(DATA + 0x100, 16, flags, 0);
        s.ram.write(DATA, &bytes);
        s.driver.descriptor(&s.ram, 0, DATA, 16, 4, 0);
        fault_of(s, 0)
    };
    assert_eq!(nested(&mut setup(8, false), 4), Some(RingFault::Indirect));
    assert_eq!(nested(&mut setup(8, false), 1), Some(RingFault::Endless), "NEXT to itself");
    let mut not_negotiated = setup(8, false);
    not_negotiated.spec.indirect = false;
    assert_eq!(nested(&mut not_negotiated, 0), Some(RingFault::Indirect));
    assert_eq!(nested(&mut setup(8, false), 0), None, "the same table is good otherwise");
}

#[test]
fn work_per_head_is_bounded_whatever_its_descriptors_say() {
    const LARGE: u16 = 4096;
    let table = DATA;
    // A table that is valid all along and longer than any chain may be; one that points at itself; a ring that does.
    let heads: [(u32, u16, u16); 4] =
        [(16 * u32::from(LARGE), 4, 0), (16 * 65_535, 4, 0), (16, 4, 0), (64, 1, 0)];
    for (len, flags, next) in heads {
        let mut s = setup_in(&[(0, 0x2_0000), (0x2_0000, 0x10_0000)], LARGE);
        for index in 0..LARGE {
            let following = if len == 16 { 0 } else { index + 1 };
            s.ram.write(table + 16 * u64::from(index), &descriptor_bytes(0x100, 1, 1, following));
        }
        s.driver.descriptor(&s.ram, 0, table, len, flags, next);
        let before = reads::so_far();
        assert!(fault_of(&mut s, 0).is_some());
        let read = reads::so_far() - before;
        assert!(read <= 1 + u64::from(MAX_CHAIN), "{read} descriptors read for one head of {len} bytes");
    }
}

#[test]
fn an_available_index_that_jumps_breaks_the_ring() {
    for index in [9, 0x8000, 0xffff] {
        let s = setup(8, false);
        s.driver.expose_index(&s.ram, index);
        let mut ring = TransmitRing::new(&s.spec).unwrap();
        assert_eq!(ring.take(&mut Chains::default()), Err(RingFault::AvailableIndex));
        let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
        assert_eq!(ring.prepare(1), Err(RingFault::AvailableIndex));
    }
}

#[test]
fn rings_that_do_not_lie_in_memory_are_not_made() {
    let s = setup(8, false);
    let make = |change: &dyn Fn(&mut RingSpec)| {
        let mut spec = s.spec.clone();
        change(&mut spec);
        TransmitRing::new(&spec).err()
    };
    assert_eq!(make(&|_| {}), None);
    assert_eq!(make(&|s| s.size = 0), Some(RingFault::Size));
    assert_eq!(make(&|s| s.size = 12), Some(RingFault::Size));
    for bad in [UVA - 16, UVA + 0x7ff0, UVA + 0x1_0000, u64::MAX - 15, 0] {
        assert_eq!(make(&|s| s.addresses.descriptors = bad), Some(RingFault::Address), "{bad:#x}");
        assert_eq!(make(&|s| s.addresses.used = bad), Some(RingFault::Address), "{bad:#x}");
    }
    assert_eq!(make(&|s| s.addresses.descriptors = UVA + 8), Some(RingFault::Address));
    assert_eq!(make(&|s| s.addresses.available = UVA + 1), Some(RingFault::Address));
    assert_eq!(make(&|s| s.addresses.used = UVA + 2), Some(RingFault::Address));
}

#[test]
fn a_received_frame_fills_as_many_mergeable_buffers_as_it_needs() {
    let mut s = setup(8, false);
    let heads: Vec<_> =
        (0..4).map(|i| u32::from(s.driver.offer(&s.ram, &[writable(DATA + 0x100 * i, 100)]))).collect();
    s.driver.expose(&s.ram);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    let tail: Vec<u8> = (0..150).collect();
    ring.deliver(WireHeader::PLAIN, &[7; 60], Payload::own(&tail)).unwrap();
    assert!(ring.publish());
    assert_eq!(s.driver.take_used(&s.ram), [(heads[0], 100), (heads[1], 100), (heads[2], 22)]);
    assert_eq!(s.ram.read(DATA, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0], "num_buffers");
    assert_eq!(s.ram.read(DATA + 12, 60), [7; 60]);
    let mut got = s.ram.read(DATA + 72, 28);
    got.extend(s.ram.read(DATA + 0x100, 100));
    got.extend(s.ram.read(DATA + 0x200, 22));
    assert_eq!(got, tail);
    assert_eq!(s.ram.read(DATA + 0x200 + 22, 78), [0; 78], "not a byte more");
    assert_eq!(ring.base(), 3, "the fourth is still to be used");
}

#[test]
fn a_frame_without_room_leaves_the_ring_as_it_was() {
    let mut s = setup(8, false);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    let send = |ring: &mut ReceiveRing| ring.deliver(WireHeader::PLAIN, &[1; 60], Payload::own(&[2; 60]));
    assert_eq!(send(&mut ring), Err(NoRoom::Full));
    s.driver.offer(&s.ram, &[writable(DATA, 100)]);
    s.driver.expose(&s.ram);
    assert_eq!(send(&mut ring), Err(NoRoom::Full), "32 bytes short");
    s.driver.offer(&s.ram, &[writable(DATA + 0x100, 100)]);
    s.driver.expose(&s.ram);
    assert_eq!(send(&mut ring), Ok(2));

    // Without mergeable buffers the first must do.
    let mut s = setup(8, false);
    let mut ring = ReceiveRing::new(&s.spec, false).unwrap();
    s.driver.offer(&s.ram, &[writable(DATA, 100)]);
    s.driver.offer(&s.ram, &[writable(DATA + 0x100, 100)]);
    s.driver.expose(&s.ram);
    assert_eq!(send(&mut ring), Err(NoRoom::Full));
    assert_eq!(ring.deliver(WireHeader::PLAIN, &[1; 60], Payload::own(&[2; 28])), Ok(1));
}

#[test]
fn buffers_of_one_byte_cost_bounded_work_and_still_carry_a_frame() {
    let mut s = setup(128, false);
    for i in 0..128 {
        s.driver.offer(&s.ram, &[writable(DATA + i, 1)]);
    }
    s.driver.expose(&s.ram);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    assert_eq!(ring.deliver(WireHeader::PLAIN, &[1; 60], Payload::own(&[2; 60])), Err(NoRoom::Full));
    assert_eq!(ring.deliver(WireHeader::PLAIN, &[1; 60], Payload::own(&[2; 56])), Ok(128));
    ring.publish();
    assert_eq!(s.driver.take_used(&s.ram).len(), 128);
    assert_eq!(s.ram.read(DATA + 12, 60), [1; 60]);
    assert_eq!(s.ram.read(DATA + 72, 56), [2; 56]);
}

#[test]
fn a_receive_ring_survives_many_laps_with_odd_fetches() {
    let mut s = setup(256, false);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    let mut offered = 0u64;
    let mut sent = 0u32;
    for round in 0..2000u32 {
        while offered < 200 {
            s.driver.offer(&s.ram, &[writable(DATA + 0x80 * offered, 128)]);
            offered += 1;
        }
        s.driver.expose(&s.ram);
        ring.prepare((round % 67) as usize).unwrap();
        for _ in 0..round % 5 {
            let tail = sent.to_le_bytes();
            ring.deliver(WireHeader::PLAIN, &[1; 60], Payload::own(&tail)).unwrap();
            sent += 1;
        }
        ring.publish();
        for (_, len) in s.driver.take_used(&s.ram) {
            assert_eq!(len, 76);
            offered -= 1;
        }
    }
    assert_eq!(ring.base(), sent % 65536);
}

#[test]
fn what_is_left_of_a_batch_is_taken_again_in_its_order() {
    let mut s = setup(16, false);
    for i in 0..6 {
        s.ram.write(DATA + 0x100 * i, &[i as u8; 8]);
        s.driver.offer(&s.ram, &[readable(DATA + 0x100 * i, 8)]);
    }
    s.driver.expose(&s.ram);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    let mut seen = Vec::new();
    for (there, keep) in [(6, 2), (4, 1), (3, 3)] {
        ring.take(&mut chains).unwrap();
        assert_eq!(chains.len(), there);
        ring.leave(&mut chains, keep);
        seen.extend((0..chains.len()).map(|i| bytes_of(&chains, i)[0]));
        ring.finish(&chains);
        ring.publish();
        assert_eq!(s.driver.take_used(&s.ram).len(), keep);
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    assert_eq!(ring.base(), 6);
}
