//! Which pages are marked: exactly those that were written, whatever the buffers look like.

use std::collections::BTreeSet;

use super::*;
use crate::device::guest::{Buffer, Driver, Ram, UVA};
use crate::device::memory::{MAX_BYTES, Payload, RegionSpec};
use crate::device::net_header::WireHeader;
use crate::device::ring::{Chains, NoRoom, ReceiveRing, RingSpec, TransmitRing};

/// The rings' region, two adjacent ones for buffers, and behind a hole one that begins and ends within a page.
const REGIONS: [(u64, u64); 4] = [(0, 0x8000), (0x1_0000, 0x8000), (0x1_8000, 0x8000), (0x3_0800, 0x4c00)];
const DATA: u64 = 0x1_0000;
const ODD: u64 = 0x3_0800;
/// Bits for 512 pages; the highest region's last page is 53.
const LOG: u64 = 64;

struct Setup {
    ram: Ram,
    log: Ram,
    driver: Driver,
    spec: RingSpec,
    marked: PagesMarked,
}

/// A ring of `size`, its used ring in page 1 or behind, with a log in the middle of a file.
fn setup(size: u16, event_idx: bool) -> Setup {
    let (ram, log) = (Ram::new(&REGIONS), Ram::new(&[(0, 0x1000)]));
    let driver = Driver::new(0, size);
    let memory = ram.device_view();
    let marked = PagesMarked::default();
    let dirty = DirtyLog::new(&log.file, LOG, 100, &memory, marked.clone()).unwrap();
    let spec = RingSpec {
        memory,
        addresses: driver.front_end_addresses(),
        size,
        event_idx,
        packed: false,
        base: None,
        in_order: false,
        indirect: true,
        log: Some(LogSpec { log: Arc::new(dirty), used: None }),
    };
    Setup { ram, log, driver, spec, marked }
}

impl Setup {
    /// The marked pages, taken away as a front-end does; nothing beside the log was touched.
    fn take_marks(&self) -> Vec<u64> {
        let bytes = self.log.read(0, 0x1000);
        self.log.write(0, &[0; 0x1000]);
        let (before, rest) = bytes.split_at(100);
        let (log, after) = rest.split_at(LOG as usize);
        assert!(before.iter().chain(after).all(|byte| *byte == 0), "bytes beside the log were written");
        (0..8 * LOG).filter(|page| log[(page / 8) as usize] & 1 << (page % 8) != 0).collect()
    }

    fn snapshot(&self) -> Vec<(u64, Vec<u8>)> {
        REGIONS.iter().map(|(gpa, len)| (*gpa, self.ram.read(*gpa, *len as usize))).collect()
    }

    /// Pages that differ from `before`.
    fn changed(&self, before: &[(u64, Vec<u8>)]) -> Vec<u64> {
        let after = self.snapshot();
        let pairs = before.iter().zip(&after);
        let pages: BTreeSet<u64> = pairs
            .flat_map(|((gpa, old), (_, new))| {
                let bytes = old.iter().zip(new).enumerate();
                bytes.filter(|(_, (old, new))| old != new).map(|(at, _)| (*gpa + at as u64) / LOG_PAGE)
            })
            .collect();
        pages.into_iter().collect()
    }
}

fn writable(gpa: u64, len: u32) -> Buffer {
    Buffer { gpa, len, writable: true }
}

fn deliver(ring: &mut ReceiveRing, tail: usize) -> Result<(), NoRoom> {
    ring.deliver(WireHeader::PLAIN, &[7; 60], Payload::own(&vec![9; tail])).map(drop)
}

#[test]
fn a_frame_over_pages_and_regions_marks_each_of_them_and_the_used_ring() {
    let mut s = setup(8, true);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    assert!(s.take_marks().is_empty(), "with EVENT_IDX nothing is written before the first frame");
    // Over the border of two regions that lie apart here: pages 0x17 and 0x18.
    s.driver.offer(&s.ram, &[writable(0x1_7800, 0x1000)]);
    s.driver.offer(&s.ram, &[writable(DATA, 0x3000)]);
    s.driver.expose(&s.ram);
    deliver(&mut ring, 0x900 - 72).unwrap();
    ring.publish();
    assert_eq!(s.take_marks(), [1, 0x17, 0x18]);
    // Exactly a page: not the one behind it, though the buffer goes on.
    deliver(&mut ring, 0x1000 - 72).unwrap();
    ring.publish();
    assert_eq!(s.take_marks(), [1, 0x10]);
    assert_eq!(s.marked.get(), 5);
}

#[test]
fn the_last_page_of_a_region_that_is_no_multiple_of_a_page_is_marked() {
    let mut s = setup(8, true);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    let (start, end) = (ODD, ODD + 0x4c00);
    s.driver.offer(&s.ram, &[writable(end - 100, 100)]);
    s.driver.offer(&s.ram, &[writable(start, 100)]);
    s.driver.expose(&s.ram);
    deliver(&mut ring, 28).unwrap();
    ring.publish();
    assert_eq!(s.take_marks(), [1, (end - 1) / LOG_PAGE]);
    deliver(&mut ring, 28).unwrap();
    ring.publish();
    assert_eq!(s.take_marks(), [1, start / LOG_PAGE]);
}

#[test]
fn nothing_waits_for_more_than_a_publication() {
    let mut s = setup(8, true);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    for at in [DATA, DATA + 0x1000] {
        s.driver.offer(&s.ram, &[writable(at, 0x100)]);
    }
    s.driver.expose(&s.ram);
    deliver(&mut ring, 0).unwrap();
    ring.publish();
    assert_eq!(s.take_marks(), [1, 0x10]);
    // Written, and the ring given up before it was published: marked all the same.
    deliver(&mut ring, 0).unwrap();
    drop(ring);
    assert_eq!(s.take_marks(), [0x11]);
}

#[test]
fn what_a_driver_is_told_of_kicks_is_marked() {
    let s = setup(8, false);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    ring.refuse_kicks();
    assert_eq!(s.take_marks(), [1], "used.flags");
    ring.want_kicks().unwrap();
    assert_eq!(s.take_marks(), [1], "used.flags");
    // A ring of 1024: used.flags in page 5, avail_event two pages behind.
    let s = setup(1024, true);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    ring.want_kicks().unwrap();
    assert_eq!(s.take_marks(), [(s.driver.at.used + 4 + 8 * 1024) / LOG_PAGE]);
}

#[test]
fn used_elements_are_marked_over_the_rings_end() {
    let mut s = setup(1024, true);
    let mut ring = TransmitRing::new(&s.spec).unwrap();
    let mut chains = Chains::default();
    let first = s.driver.at.used / LOG_PAGE;
    let mut send = |s: &mut Setup, count: usize| {
        for _ in 0..count {
            s.driver.offer(&s.ram, &[Buffer { gpa: DATA, len: 60, writable: false }]);
        }
        s.driver.expose(&s.ram);
        let mut done = 0;
        while done < count {
            ring.take(&mut chains).unwrap();
            done += chains.len();
            ring.finish(&chains);
            ring.publish();
        }
    };
    send(&mut s, 20);
    assert_eq!(s.take_marks(), [first]);
    send(&mut s, 510);
    assert_eq!(
        s.take_marks(),
        [first, first + 1],
        "element 511 begins in the first page and ends in the second"
    );
    send(&mut s, 484);
    s.take_marks();
    // Elements 1014 to 1023, which end in the third page, and 0 to 9.
    send(&mut s, 20);
    assert_eq!(s.take_marks(), [first, first + 1, first + 2]);
}

#[test]
fn random_frames_mark_exactly_the_pages_that_change() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: u64| {
        // Marsaglia's xorshift: the same in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for (event_idx, mergeable) in [(false, true), (true, true), (true, false)] {
        let mut s = setup(64, event_idx);
        let mut ring = ReceiveRing::new(&s.spec, mergeable).unwrap();
        s.take_marks();
        let longest = if mergeable { 0x2000 } else { 0x400 };
        let mut delivered = 0;
        for round in 0..300u64 {
            // Buffers that do not overlap, in all regions; some in tables, most cut into pieces.
            let mut at = DATA + next(0x3000);
            while at < 0x1_f000 && next(8) > 0 {
                let lens: Vec<u64> = (0..1 + next(4)).map(|_| 1 + next(0x900)).collect();
                let mut buffers = Vec::new();
                for len in lens {
                    if at + len < 0x2_0000 {
                        buffers.push(writable(at, len as u32));
                        at += len + next(50);
                    }
                }
                if buffers.is_empty() {
                    break;
                }
                s.driver.offer(&s.ram, &buffers);
            }
            s.driver.offer(&s.ram, &[writable(ODD + next(0x1000), 0x3c00)]);
            s.driver.expose(&s.ram);
            // Every byte that is written is then a change.
            s.ram.write(DATA, &vec![0xee; 0x1_0000]);
            s.ram.write(ODD, &vec![0xee; 0x4c00]);
            let before = s.snapshot();
            for _ in 0..1 + next(3) {
                match deliver(&mut ring, next(longest) as usize) {
                    Ok(()) => delivered += 1,
                    Err(NoRoom::Full) => {}
                    Err(NoRoom::Broken(fault)) => panic!("{fault}"),
                }
            }
            ring.publish();
            assert_eq!(s.take_marks(), s.changed(&before), "round {round}");
            // The rest is used up, so that offers never lap the ring.
            while deliver(&mut ring, 0).is_ok() {}
            ring.publish();
            s.driver.take_used(&s.ram);
            s.take_marks();
        }
        assert!(delivered > 50, "{delivered} frames");
    }
}

#[test]
fn a_page_without_a_bit_breaks_the_ring_by_name() {
    let mut s = setup(8, true);
    let memory = s.ram.device_view();
    // A log for what there was before memory was added.
    let small = GuestMemory::new().with(s.ram.regions[0], &s.ram.file).unwrap();
    let log = DirtyLog::new(&s.log.file, 1, 100, &small, PagesMarked::default()).unwrap();
    s.spec.log = Some(LogSpec { log: Arc::new(log), used: None });
    s.spec.memory = memory;
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    s.driver.offer(&s.ram, &[writable(0x7000, 0x100)]);
    s.driver.offer(&s.ram, &[writable(DATA, 0x100)]);
    s.driver.expose(&s.ram);
    assert_eq!(deliver(&mut ring, 0), Ok(()));
    assert_eq!(deliver(&mut ring, 0), Err(NoRoom::Broken(RingFault::Log)));
    ring.publish();
    assert_eq!(s.take_marks(), [1, 7]);
    assert_eq!(s.driver.take_used(&s.ram).len(), 1, "the second was not given to the driver");
}

#[test]
fn a_used_ring_is_logged_where_the_front_end_says_and_must_have_bits_there() {
    let mut s = setup(8, true);
    let make = |s: &mut Setup, used: u64| {
        if let Some(log) = &mut s.spec.log {
            log.used = Some(used);
        }
        TransmitRing::new(&s.spec)
    };
    // Outside the memory is allowed, outside the log is not (vhost-user, "Migration").
    let last = 8 * LOG * LOG_PAGE - (6 + 8 * 8);
    assert!(make(&mut s, last).is_ok());
    for used in [last + 1, 8 * LOG * LOG_PAGE, 1 << 63, u64::MAX - 0x1000, u64::MAX] {
        assert_eq!(make(&mut s, used).err(), Some(RingFault::Log), "{used:#x}");
    }
    let mut ring = make(&mut s, 0x2_5ffe).unwrap();
    ring.want_kicks().unwrap();
    assert_eq!(
        s.take_marks(),
        [0x26],
        "avail_event is two bytes at 68 of a ring that begins two before the page"
    );
}

#[test]
fn logs_that_overflow_or_lie_beyond_their_file_or_are_too_small_are_refused() {
    let s = setup(8, true);
    let memory = s.ram.device_view();
    let refusal = |len: u64, offset: u64| {
        DirtyLog::new(&s.log.file, len, offset, &memory, PagesMarked::default()).err().map(|e| e.to_string())
    };
    assert_eq!(refusal(7, 0xff9), None, "54 pages are seven bytes");
    let edges = [0, 1, 1 << 63, u64::MAX];
    for len in edges {
        for offset in edges {
            let why = refusal(len, offset).unwrap();
            let expected = match len {
                0 => "dirty log: region of size zero",
                1 => "dirty log: 1 bytes, where the memory needs 7",
                _ => "more than the 1073741824 that go with the attachment's `memory_max`",
            };
            assert!(why.ends_with(expected), "{why}");
        }
    }
    for (len, offset) in
        [(8, 0xff9), (0x1001, 0), (7, 0x1000), (7, 1 << 63), (7, u64::MAX), (7, u64::MAX - 7)]
    {
        let why = refusal(len, offset).unwrap();
        assert!(why.contains("shorter than") || why.contains("overflows"), "{len} at {offset}: {why}");
    }
    assert!(refusal(MAX_LOG, 0).unwrap().contains("shorter than"), "it may be that large, were the file");
    let disk = File::open("/proc/version").unwrap();
    assert!(DirtyLog::new(&disk, 7, 0, &memory, PagesMarked::default()).is_err());
}

#[test]
fn a_log_may_be_as_large_as_a_thousandth_of_the_memory_that_is_allowed() {
    assert_eq!(max_log(16 << 20), 1 << 20, "a small guest's addresses have holes as well");
    assert_eq!(max_log(64 << 30), 64 << 20);
    assert_eq!(max_log(MAX_BYTES), MAX_LOG);
    let ram = Ram::new(&[(0, 0x9000)]);
    let memory = GuestMemory::of_at_most(16 << 20).with(ram.regions[0], &ram.file).unwrap();
    let log = Ram::new(&[(0, 2 << 20)]);
    let refusal =
        |len| DirtyLog::new(&log.file, len, 0, &memory, PagesMarked::default()).err().map(|e| e.to_string());
    assert_eq!(refusal(1 << 20), None);
    assert!(refusal((1 << 20) + 1).unwrap().contains("more than the 1048576"));
}

#[test]
fn a_log_that_is_cut_off_poisons_the_ring_and_nothing_else() {
    let mut s = setup(8, true);
    let mut ring = ReceiveRing::new(&s.spec, true).unwrap();
    s.driver.offer(&s.ram, &[writable(DATA, 0x100)]);
    s.driver.expose(&s.ram);
    s.log.file.set_len(0).unwrap();
    assert!(!ring.memory_is_poisoned(), "not touched yet");
    deliver(&mut ring, 0).unwrap();
    ring.publish();
    assert!(ring.memory_is_poisoned());
    assert!(!s.spec.memory.is_poisoned());
    // One that starts on it is refused at once: nobody would look again.
    assert_eq!(TransmitRing::new(&s.spec).err(), Some(RingFault::Memory));
}

#[test]
fn addresses_here_lead_back_to_the_guests() {
    let file = Ram::new(&[(0, 0x9000)]).file;
    let spec = |gpa, len, offset| RegionSpec { gpa, uva: UVA + gpa, len, offset };
    let memory = GuestMemory::new().with(spec(0x5000, 0x1800, 0), &file).unwrap();
    let memory = memory.with(spec(0x1_0000, 0x1000, 0x2345), &file).unwrap();
    for gpa in [0x5000, 0x5fff, 0x67ff, 0x1_0000, 0x1_0fff] {
        let piece = memory.piece(gpa, 1, &mut 0).unwrap();
        for mut last in [0, 1, 2, usize::MAX] {
            assert_eq!(memory.guest_address(piece.address(), &mut last), Some(gpa));
        }
    }
    assert_eq!(memory.guest_address(std::ptr::null(), &mut 0), None);
    assert_eq!(memory.end(), 0x1_1000);
}
