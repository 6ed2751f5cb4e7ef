//! Both worlds: the same guest twice, its driver's doings in both, and what is compared between them.
//!
//! What must stay true: whatever the script says is written to both; the two memories are made once a thread, for mapping them
//! costs more than a run, and are as new when a run begins.

mod drive;

use std::cell::Cell;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::found::{Buffer, Found};
use crate::device::dirty_log::{DirtyLog, LogSpec, PagesMarked};
use crate::device::guest::{Driver, Ram, Script, descriptor_bytes};
use crate::device::memory::GuestMemory;
use crate::device::ring::RingSpec;

/// Two adjacent regions, a hole, and one more.
const REGIONS: [(u64, u64); 3] = [(0, 0x6000), (0x6000, 0x4000), (0x1_0000, 0x4000)];
const BYTES: usize = 0xe000;
/// Where the descriptor table lies; available ring and used ring behind it, below [`TABLES`].
pub(super) const RING: u64 = 0;
/// Where indirect tables are written.
const TABLES: u64 = 0x3000;
/// Entries there, and those of the largest ring.
const MOST: u16 = 256;
/// Where good buffers lie, across the seam of the adjacent regions.
const DATA: u64 = 0x4000;
/// Bytes of a page.
const PAGE: u64 = 0x1000;
/// Bytes of the dirty log.
const LOG: u64 = 8;

/// Which ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Transmit,
    Receive,
    Control,
}

impl Kind {
    /// The flag of a good buffer, in a control queue of the first.
    fn good(self) -> u16 {
        if self == Self::Receive { 2 } else { 0 }
    }
}

/// What the harness of one kind of ring does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The driver made buffers available, or said what it wants to be told of.
    Driven,
    /// It wrote descriptors.
    Written,
    /// The device goes to sleep, wakes, or looks ahead.
    Rest,
    /// A daemon that was killed goes on at the used index.
    Restart,
    /// Buffers are served.
    Serve,
    /// For a while, the driver making available as many as it gets back.
    Flow,
}

/// What is mapped once.
struct Memories {
    ours: Ram,
    view: Arc<GuestMemory>,
    theirs: Ram,
    bits: Ram,
    log: Arc<DirtyLog>,
    /// All of a guest's memory as a run begins, by the kind of ring: readable or writable buffers.
    blank: [Vec<u8>; 2],
    scratch: [Vec<u8>; 2],
    /// Our side's memory as it was when that was last looked at.
    watched: Vec<u8>,
}

thread_local! {
    /// Those of this thread, between two runs.
    static IDLE: Cell<Option<Box<Memories>>> = const { Cell::new(None) };
}

impl Memories {
    fn new() -> Box<Self> {
        let (ours, theirs, bits) = (Ram::new(&REGIONS), Ram::new(&REGIONS), Ram::new(&[(0, PAGE)]));
        let view = ours.device_view();
        let log = DirtyLog::new(&bits.file, LOG, 0, &view, PagesMarked::default()).expect("a good log");
        let scratch = || vec![0; BYTES];
        Box::new(Self {
            blank: [blank(0), blank(2)],
            scratch: [scratch(), scratch()],
            watched: scratch(),
            log: Arc::new(log),
            ours,
            view,
            theirs,
            bits,
        })
    }
}

/// Memory with a pattern, a table of good buffers in the ring's place and another for indirect ones, for a script to spoil.
fn blank(good: u16) -> Vec<u8> {
    let mut image: Vec<u8> = (0..BYTES).map(|at| (at * 7 % 251) as u8).collect();
    image[..TABLES as usize].fill(0);
    for index in 0..MOST {
        let gpa = DATA + 64 * u64::from(index % 64);
        let buffer = descriptor_bytes(gpa, 50 + 20 * u32::from(index % 64), good, 0);
        for table in [RING, TABLES] {
            let at = table as usize + 16 * usize::from(index);
            image[at..at + 16].copy_from_slice(&buffer);
        }
    }
    image
}

/// Both worlds.
pub(super) struct Pair {
    memories: Option<Box<Memories>>,
    driver: Driver,
    twin: Driver,
    pub(super) queue: Queue,
    pub(super) kind: Kind,
    /// What the queue was last seen to hold.
    pub(super) found: Found,
    pub(super) event_idx: bool,
    /// The driver wants no interrupts.
    quiet: bool,
    /// Whether a signal was decided before: the first one of ours is unconditional.
    considered: bool,
    /// Dirty pages are logged.
    logged: bool,
    /// Descriptors are written in the beginning only, so that a ring lives long.
    steady: Option<usize>,
}

impl Pair {
    pub(super) fn new(script: &mut Script<'_>, kind: Kind) -> Self {
        let size = 1 << (1 + script.byte() % 8);
        let (flags, start) = (script.byte(), script.byte());
        // Near its end, where an index wraps, or from the beginning.
        let start = if start & 1 == 0 { 0 } else { 0u16.wrapping_sub(start.into()) };
        let event_idx = flags & 1 != 0;
        let memories = IDLE.take().unwrap_or_else(Memories::new);
        let (mut driver, mut twin) = (Driver::new(RING, size), Driver::new(RING, size));
        // Across the end of a page, so that a part of it that is not logged is seen.
        let used = TABLES - PAGE - 4 * u64::from(size);
        (driver.at.used, twin.at.used) = (used, used);
        let mut queue = Queue::new(MOST).expect("a good size");
        queue.set_size(size);
        queue.try_set_desc_table_address(GuestAddress(driver.at.descriptors)).expect("aligned");
        queue.try_set_avail_ring_address(GuestAddress(driver.at.available)).expect("aligned");
        queue.try_set_used_ring_address(GuestAddress(driver.at.used)).expect("aligned");
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        queue.set_next_avail(start);
        queue.set_next_used(start);
        let mut pair = Self {
            memories: Some(memories),
            driver,
            twin,
            queue,
            kind,
            found: Found::default(),
            event_idx,
            quiet: false,
            considered: false,
            logged: flags & 6 == 6,
            steady: (flags & 24 == 24).then_some(script.left() / 4 * 3),
        };
        pair.wipe(BYTES);
        let used = pair.driver.at.used;
        pair.write(used + 2, &start.to_le_bytes());
        pair.take_back();
        pair
    }

    fn memories(&self) -> &Memories {
        self.memories.as_deref().expect("there until the end")
    }

    pub(super) fn theirs(&self) -> &Ram {
        &self.memories().theirs
    }

    pub(super) fn spec(&self) -> RingSpec {
        let memories = self.memories();
        RingSpec {
            memory: Arc::clone(&memories.view),
            addresses: self.driver.front_end_addresses(),
            size: self.driver.size,
            event_idx: self.event_idx,
            packed: false,
            base: None,
            in_order: false,
            indirect: true,
            log: self.logged.then(|| LogSpec { log: Arc::clone(&memories.log), used: None }),
        }
    }

    /// Makes the first `len` bytes of both memories as new, regions one after the other.
    fn wipe(&self, len: usize) {
        let memories = self.memories();
        let image = &memories.blank[usize::from(self.kind == Kind::Receive)];
        let mut from = 0;
        for (gpa, region) in REGIONS {
            let end = (from + region as usize).min(len);
            if from < end {
                self.write(gpa, &image[from..end]);
            }
            from += region as usize;
        }
    }

    fn write(&self, gpa: u64, bytes: &[u8]) {
        self.memories().ours.write(gpa, bytes);
        self.memories().theirs.write(gpa, bytes);
    }

    /// The driver takes back what it has made available.
    fn take_back(&mut self) {
        let index = self.queue.next_used();
        let memories = self.memories.as_deref().expect("there until the end");
        self.driver.go_on_at(&memories.ours, index);
        self.twin.go_on_at(&memories.theirs, index);
    }

    /// The ring broke: its driver makes its tables anew and begins where the device has stopped.
    pub(super) fn set_up_again(&mut self) {
        self.considered = false;
        self.write(RING, &self.blank_at(RING, 16 * usize::from(self.driver.size)));
        self.write(TABLES, &self.blank_at(TABLES, 16 * usize::from(MOST)));
        self.take_back();
    }

    fn blank_at(&self, gpa: u64, len: usize) -> Vec<u8> {
        let image = &self.memories().blank[usize::from(self.kind == Kind::Receive)];
        image[gpa as usize..gpa as usize + len].to_vec()
    }

    /// The device starts anew on the same memory.
    pub(super) fn restarted(&mut self) {
        self.considered = false;
    }

    /// Whether the available index is further ahead than the ring is long.
    pub(super) fn has_jumped(&self) -> bool {
        self.driver.available().wrapping_sub(self.queue.next_avail()) > self.driver.size
    }

    /// As [`Found::look`]; what was found is in `self.found`.
    pub(super) fn look(&mut self, limits: (usize, usize)) -> bool {
        let memories = self.memories.as_deref().expect("there until the end");
        self.found.look(&mut self.queue, &memories.theirs.memory, self.kind, limits)
    }

    /// The crate asks for kicks; whether there is something already.
    pub(super) fn want_kicks(&mut self) -> bool {
        let memory = &self.memories.as_deref().expect("there until the end").theirs.memory;
        self.queue.enable_notification(memory).expect("in memory")
    }

    /// The crate asks for none.
    pub(super) fn refuse_kicks(&mut self) {
        let memory = &self.memories.as_deref().expect("there until the end").theirs.memory;
        self.queue.disable_notification(memory).expect("in memory");
    }

    /// The crate gives `head` back.
    pub(super) fn add_used(&mut self, head: u16, len: u32) {
        let memory = &self.memories.as_deref().expect("there until the end").theirs.memory;
        self.queue.set_next_avail(self.queue.next_avail().wrapping_add(1));
        self.queue.add_used(memory, head, len).expect("the used ring is in memory");
    }

    /// Before our side does something: what it changes from here on must be logged.
    pub(super) fn watch(&mut self) {
        let Some(memories) = self.memories.as_deref_mut().filter(|_| self.logged) else { return };
        read_all(&memories.ours, &mut memories.watched);
        memories.bits.write(0, &[0; LOG as usize]);
    }

    /// After it: each page that has changed has its bit.
    pub(super) fn must_be_logged(&mut self) {
        let Some(memories) = self.memories.as_deref_mut().filter(|_| self.logged) else { return };
        let [now, _] = &mut memories.scratch;
        read_all(&memories.ours, now);
        let mut bits = [0; LOG as usize];
        memories.bits.read_into(0, &mut bits);
        let bits = u64::from_le_bytes(bits);
        let pages = REGIONS.iter().flat_map(|(gpa, len)| (*gpa..gpa + len).step_by(PAGE as usize));
        let chunks = now.chunks(PAGE as usize).zip(memories.watched.chunks(PAGE as usize));
        for (gpa, (now, before)) in pages.zip(chunks) {
            let marked = bits >> (gpa / PAGE) & 1 == 1;
            assert!(marked || now == before, "the page at {gpa:#x} was written and not logged");
        }
    }

    /// Whether ours signals when the crate does, having published `count`.
    pub(super) fn compare_signal(&mut self, count: usize, wanted: bool) {
        if count == 0 {
            assert!(!wanted, "nothing was published");
            return;
        }
        let memory = &self.memories.as_deref().expect("there until the end").theirs.memory;
        let theirs = self.queue.needs_notification(memory).expect("in memory");
        let expected = match (self.event_idx, self.considered) {
            (true, true) => theirs,
            (true, false) => true,
            // The crate does not look at the flag.
            (false, _) => !self.quiet,
        };
        assert_eq!(wanted, expected, "signal");
        self.considered = true;
    }

    /// Every byte of both memories is the same.
    pub(super) fn compare_memory(&mut self) {
        let memories = self.memories.as_deref_mut().expect("there until the end");
        let [ours, theirs] = &mut memories.scratch;
        read_all(&memories.ours, ours);
        read_all(&memories.theirs, theirs);
        if ours != theirs {
            let at = ours.iter().zip(theirs.iter()).position(|(ours, theirs)| ours != theirs);
            panic!("byte {at:x?} of all memory differs");
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // After a panic nobody knows what they are like.
        if !std::thread::panicking() {
            IDLE.set(self.memories.take());
        }
    }
}

/// How many pieces a buffer in memory comes to: the seam of the adjacent regions cuts it.
pub(super) fn pieces((gpa, len): &Buffer) -> usize {
    let seam = REGIONS[1].0;
    1 + usize::from(*gpa < seam && gpa + u64::from(*len) > seam)
}

/// All of a guest's memory, regions one after the other.
fn read_all(ram: &Ram, image: &mut [u8]) {
    let mut rest = image;
    for (gpa, len) in REGIONS {
        let (region, after) = rest.split_at_mut(len as usize);
        ram.read_into(gpa, region);
        rest = after;
    }
}
