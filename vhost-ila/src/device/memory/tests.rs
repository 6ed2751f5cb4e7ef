//! What a front-end may map, and what of it can be reached.

use super::*;
use crate::device::guest::Ram;

fn file(len: u64) -> File {
    Ram::new(&[(0, len)]).file
}

fn spec(gpa: u64, len: u64) -> RegionSpec {
    RegionSpec { gpa, uva: 0x7000_0000_0000 + gpa, len, offset: 0 }
}

fn piece(memory: &GuestMemory, gpa: u64, len: u32) -> Option<usize> {
    memory.piece(gpa, len, &mut 0).map(|s| s.len())
}

fn refusal(result: Result<GuestMemory, MemoryError>) -> String {
    format!("{:?}", result.map(|m| m.len()).unwrap_err())
}

#[test]
fn a_range_is_cut_at_the_end_of_its_region_and_a_hole_has_none() {
    let memory = GuestMemory::new().with(spec(0x1000, 0x1000), &file(0x1000)).unwrap();
    let memory = memory.with(spec(0x2000, 0x1000), &file(0x1000)).unwrap();
    let memory = memory.with(spec(0x8000, 0x1000), &file(0x1000)).unwrap();
    assert_eq!(piece(&memory, 0x1000, 0x10), Some(0x10));
    assert_eq!(piece(&memory, 0x1ff0, 0x20), Some(0x10), "the rest is another mapping");
    assert_eq!(piece(&memory, 0x2fff, u32::MAX), Some(1));
    for gpa in [0, 0xfff, 0x3000, 0x7fff, 0x9000, u64::MAX] {
        assert_eq!(piece(&memory, gpa, 1), None, "{gpa:#x}");
    }
    assert_eq!(piece(&memory, 0x1000, 0), None, "no bytes, no piece");
}

#[test]
fn the_region_that_answered_last_is_only_a_hint() {
    let memory = GuestMemory::new().with(spec(0x1000, 0x1000), &file(0x1000)).unwrap();
    let memory = memory.with(spec(0x8000, 0x1000), &file(0x1000)).unwrap();
    for mut last in [0, 1, 2, usize::MAX] {
        assert_eq!(memory.piece(0x8010, 4, &mut last).unwrap().len(), 4);
        assert_eq!(last, 1);
        assert!(memory.piece(0x2000, 4, &mut last).is_none());
    }
}

#[test]
fn a_region_begins_at_its_offset_aligned_or_not() {
    let ram = Ram::new(&[(0, 0x5000)]);
    ram.write(0x3000, b"here");
    let backing = ram.file;
    for (offset, skip) in [(0x3000, 0), (0x2ffe, 2), (0x1011, 0x1fef)] {
        let region = RegionSpec { offset, ..spec(0, 0x2000) };
        let memory = GuestMemory::new().with(region, &backing).unwrap();
        let mut bytes = [0; 4];
        copy_out(&[memory.piece(0, 0x2000, &mut 0).unwrap()], skip, &mut bytes);
        assert_eq!(&bytes, b"here", "offset {offset:#x}");
    }
}

#[test]
fn a_region_longer_than_its_file_is_refused() {
    for (len, offset) in [(0x1001, 0), (0x1000, 1), (1, 0x1000), (0x1000, u64::MAX - 0xfff)] {
        let region = RegionSpec { offset, ..spec(0, len) };
        let text = refusal(GuestMemory::new().with(region, &file(0x1000)));
        assert!(text.starts_with("ShortFile") || text == "Overflow", "{len:#x} at {offset:#x}: {text}");
    }
}

#[test]
fn regions_that_overlap_overflow_or_are_empty_are_refused() {
    let memory = GuestMemory::new().with(spec(0x1000, 0x1000), &file(0x1000)).unwrap();
    let elsewhere = RegionSpec { uva: 0x5000_0000, ..spec(0x9000, 0x1000) };
    let cases = [
        (RegionSpec { uva: elsewhere.uva, ..spec(0x1fff, 0x1000) }, "Overlap"),
        (RegionSpec { uva: elsewhere.uva, ..spec(0x800, 0x801) }, "Overlap"),
        (RegionSpec { uva: 0x7000_0000_1800, ..elsewhere }, "Overlap"),
        (RegionSpec { gpa: u64::MAX - 0xffe, ..elsewhere }, "Overflow"),
        (RegionSpec { uva: u64::MAX - 0xffe, ..elsewhere }, "Overflow"),
        (RegionSpec { len: 0, ..elsewhere }, "Empty"),
        (RegionSpec { len: MAX_BYTES, ..elsewhere }, "TooManyBytes(4398046511104)"),
        (RegionSpec { len: u64::MAX >> 1, ..elsewhere }, "TooManyBytes(4398046511104)"),
    ];
    for (region, expected) in cases {
        assert_eq!(refusal(memory.with(region, &file(0x1000))), expected, "{region:?}");
    }
    assert!(memory.with(elsewhere, &file(0x1000)).is_ok());
}

#[test]
fn only_regular_files_are_memory() {
    for path in ["/dev/zero", "/dev/null", "/tmp"] {
        let text = refusal(GuestMemory::new().with(spec(0, 0x1000), &File::open(path).unwrap()));
        assert_eq!(text, "NotAFile", "{path}");
    }
}

#[test]
fn the_number_of_regions_is_capped() {
    let backing = file(0x1000);
    let mut memory = GuestMemory::new();
    for i in 0..MAX_REGIONS as u64 {
        memory = memory.with(spec(0x2000 * i, 0x1000), &backing).unwrap();
    }
    assert_eq!(refusal(memory.with(spec(0x2000_0000, 0x1000), &backing)), "TooManyRegions");
    let memory = memory.without(&spec(0, 0x1000)).unwrap();
    assert_eq!(refusal(memory.without(&spec(0, 0x1000))), "Unknown");
    assert!(memory.with(spec(0x2000_0000, 0x1000), &backing).is_ok());
}

#[test]
fn ring_parts_lie_wholly_in_one_region() {
    let memory = GuestMemory::new().with(spec(0x1000, 0x1000), &file(0x1000)).unwrap();
    let uva = 0x7000_0000_1000;
    assert!(memory.ring_part(uva, 0x1000).is_some());
    for (at, len) in [(uva, 0x1001), (uva - 1, 1), (uva + 0x1000, 1), (uva + 0xfff, 2), (u64::MAX, 1)] {
        assert!(memory.ring_part(at, len).is_none(), "{at:#x}+{len:#x}");
    }
}

#[test]
fn touching_memory_that_was_cut_off_poisons_it_and_nothing_else() {
    let (cut, whole) = (file(0x4000), file(0x4000));
    let memory = GuestMemory::new().with(spec(0, 0x4000), &cut).unwrap();
    let memory = memory.with(spec(0x10000, 0x4000), &whole).unwrap();
    let neighbour = GuestMemory::new().with(spec(0, 0x4000), &whole).unwrap();
    cut.set_len(0x1000).unwrap();
    assert!(!memory.is_poisoned(), "not touched yet");
    let mut bytes = [1; 16];
    copy_out(&[memory.piece(0x2000, 16, &mut 0).unwrap()], 0, &mut bytes);
    assert_eq!(bytes, [0; 16]);
    assert!(memory.is_poisoned());
    assert!(!neighbour.is_poisoned());
}

#[test]
fn memory_whose_pages_somebody_else_brings_is_refused() {
    // What a user's own file system (FUSE) serves comes when its daemon pleases, and the worker would wait for it, as it would
    // for a disk. procfs stands for all that is not memory.
    let file = File::open("/proc/version").unwrap();
    assert_eq!(refusal(GuestMemory::new().with(spec(0, 0x1000), &file)), "NotMemory");
}

#[test]
fn bytes_are_capped_in_all_and_what_is_removed_is_free_again() {
    let backing = file(0x3000);
    let memory = GuestMemory::of_at_most(0x2fff).with(spec(0, 0x2000), &backing).unwrap();
    assert_eq!(refusal(memory.with(spec(0x10000, 0x1000), &backing)), "TooManyBytes(12287)");
    assert!(memory.with(spec(0x10000, 0xfff), &backing).is_ok());
    let memory = memory.without(&spec(0, 0x2000)).unwrap();
    assert!(memory.with(spec(0, 0x2fff), &backing).is_ok());
    assert_eq!(refusal(memory.with(spec(0, 0x3000), &backing)), "TooManyBytes(12287)", "the cap is kept");
}

#[test]
fn mappings_without_number_leave_the_next_one_protected() {
    // More than any table of a fixed size would hold, at addresses where nothing is and nothing faults.
    let watches: Vec<_> = (1..=10_000).map(|page| sigbus::Watch::new(page, 1)).collect();
    let cut = file(0x4000);
    let memory = GuestMemory::new().with(spec(0, 0x4000), &cut).unwrap();
    cut.set_len(0).unwrap();
    let mut bytes = [1; 16];
    copy_out(&[memory.piece(0x2000, 16, &mut 0).unwrap()], 0, &mut bytes);
    assert_eq!(bytes, [0; 16]);
    assert!(memory.is_poisoned());
    assert!(!watches.iter().any(sigbus::Watch::is_poisoned));
}
