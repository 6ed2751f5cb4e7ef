//! Both worlds: the same guest twice, its driver's doings in both, and what is compared between them.
//!
//! What must stay true: whatever the script says is written to both; the two memories are made once a thread, for mapping them
//! costs more than a run, and are as new when a run begins.

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

    /// Does what a driver, good or bad, does; or says what the device is to do.
    pub(super) fn step(&mut self, script: &mut Script<'_>) -> Step {
        let op = script.byte() % 16;
        match op {
            0..5 if self.steady.is_some_and(|after| script.left() < after) => self.push(script),
            0 => self.spoil(script),
            1 => self.table_as_head(script),
            2 | 3 => self.lay(script, false),
            4 => self.lay(script, true),
            5..9 => self.push(script),
            9 => self.wish(script),
            10 => return Step::Rest,
            11 if script.byte() >= if self.steady.is_some() { 250 } else { 128 } => return Step::Restart,
            15 => return Step::Flow,
            _ => return Step::Serve,
        }
        if op < 5 { Step::Written } else { Step::Driven }
    }

    /// Any descriptor, in the ring's table or among the indirect ones.
    fn spoil(&self, script: &mut Script<'_>) {
        let place = script.byte();
        let (table, entries) = if place & 1 == 0 { (RING, self.driver.size) } else { (TABLES, MOST) };
        let index = u16::from(script.byte()) % entries;
        let (gpa, len) = (address(script), len(script));
        let flags = match script.byte() {
            b @ 0..6 => u16::from(b),
            b => self.kind.good() | u16::from(b & 1),
        };
        let gpa = if flags & 4 != 0 && self.kind == Kind::Receive {
            self.table(index as u8, len / 16)
        } else {
            gpa
        };
        let next = script.byte();
        let next = if next >= 250 { next.into() } else { u16::from(next) % entries };
        self.write(table + 16 * u64::from(index), &descriptor_bytes(gpa, len, flags, next));
    }

    /// A head that is an indirect table, mostly a good one.
    fn table_as_head(&self, script: &mut Script<'_>) {
        let index = u64::from(u16::from(script.byte()) % self.driver.size);
        let place = script.byte();
        let entries = match script.byte() {
            b @ 240.. => 16 * u32::from(b),
            b => 1 + u32::from(b) % u32::from(self.driver.size),
        };
        let table = self.table(place, entries);
        let len = 16 * entries + u32::from(script.byte() == 0);
        let flags = if script.byte() == 0 { 5 } else { 4 };
        self.write(RING + 16 * index, &descriptor_bytes(table, len, flags, 0));
    }

    /// Where a table of so many entries lies. That of a receive ring lies apart from all buffers: ours looks ahead, and need not see
    /// what it has itself written into one.
    fn table(&self, place: u8, entries: u32) -> u64 {
        let first = u32::from(place % 128);
        match self.kind {
            Kind::Receive => TABLES + 16 * u64::from(first.min(u32::from(MOST).saturating_sub(entries))),
            // Across the seam of two regions, where a descriptor may be cut.
            _ if place == 255 => 0x6000 - 24,
            _ => TABLES + 16 * u64::from(first),
        }
    }

    /// A good chain, in the ring's table or in one of its own.
    fn lay(&self, script: &mut Script<'_>, indirect: bool) {
        let (shape, place, stride) = (script.byte(), script.byte(), script.byte());
        let size = self.driver.size;
        let count = match shape {
            255 => size,
            b @ 224.. => 2 * u16::from(b - 223),
            b => 1 + u16::from(b % 12),
        };
        let count = count.min(size);
        // An odd stride visits every entry of a table whose size is a power of two.
        let entries = if indirect { count.next_power_of_two() } else { size };
        let (first, stride) = (if indirect { 0 } else { u16::from(place) }, u16::from(stride) | 1);
        let index = |i: u16| first.wrapping_add(i.wrapping_mul(stride)) % entries;
        let table = if indirect { self.table(place, entries.into()) } else { RING };
        let answer = 1 + u16::from(shape / 12) % count;
        let command = (self.kind == Kind::Control).then(|| self.command(script));
        let mut left = command.map_or(0, |(_, len)| len);
        for i in 0..count {
            let (gpa, len, flags) = match command {
                Some((gpa, len)) if i < answer.min(count - 1) => {
                    // A byte each, the rest in the last.
                    let run = if i + 1 == answer.min(count - 1) { left.max(1) } else { 1 };
                    let at = gpa + u64::from(len - left);
                    left = left.saturating_sub(run);
                    (at, run, 0)
                }
                Some(_) => (DATA + 64 * u64::from(script.byte()), 1 + u32::from(script.byte() % 4), 2),
                None => (good_address(script), good_len(script), self.kind.good()),
            };
            let flags = flags | u16::from(i + 1 < count);
            let at = table + 16 * u64::from(index(i));
            self.write(at, &descriptor_bytes(gpa, len, flags, index(i + 1)));
        }
        if indirect {
            let head = u64::from(u16::from(stride as u8 >> 1) % size);
            self.write(RING + 16 * head, &descriptor_bytes(table, 16 * u32::from(entries), 4, index(1)));
        }
    }

    /// Writes a command, mostly one that is known; where, and how long.
    fn command(&self, script: &mut Script<'_>) -> (u64, u32) {
        let mut bytes = [0; 80];
        let class = match script.byte() {
            b @ 0..160 => 4 - u8::from(b & 7 == 0),
            b => b,
        };
        let (command, low, high) = (script.byte(), script.byte(), script.byte());
        let sparse = |b: u8| if b < 200 { 0 } else { b };
        bytes[..4].copy_from_slice(&[class, sparse(command), low % 8, sparse(high)]);
        let len = match script.byte() {
            b @ 0..128 => {
                if class == 3 {
                    2
                } else {
                    4 - u32::from(b == 0)
                }
            }
            b => u32::from(b % 81),
        };
        let gpa = DATA + 64 * u64::from(script.byte());
        self.write(gpa, &bytes);
        (gpa, len)
    }

    /// Makes heads available: any, in steps; sometimes more than a ring has.
    fn push(&mut self, script: &mut Script<'_>) {
        self.make_available((script.byte(), script.byte(), script.byte()));
    }

    /// As many as there is room for, beginning at `first`.
    pub(super) fn refill(&mut self, first: u8) {
        self.make_available((u8::MAX, first, 1));
    }

    fn make_available(&mut self, (count, first, stride): (u8, u8, u8)) {
        let (size, memories) = (self.driver.size, self.memories.as_deref().expect("there until the end"));
        let room = size.saturating_sub(self.driver.available().wrapping_sub(self.queue.next_avail()));
        // One more than it has, or many.
        let far = first == 255 && stride >= 192;
        let most = if far { room + 1 + 40 * u16::from(count % 4) } else { room.min(1 + u16::from(count)) };
        for i in 0..most {
            let head = u16::from(first).wrapping_add(i.wrapping_mul(stride.into()));
            let head = if first == 254 && i == 3 { head } else { head % size };
            self.driver.push(&memories.ours, head);
            self.twin.push(&memories.theirs, head);
        }
        self.driver.expose(&memories.ours);
        self.twin.expose(&memories.theirs);
    }

    /// What the driver wants to be told of.
    fn wish(&mut self, script: &mut Script<'_>) {
        let memories = self.memories.as_deref().expect("there until the end");
        let byte = script.byte();
        let event = self.driver.available().wrapping_add(u16::from(byte % 8)).wrapping_sub(4);
        self.driver.set_used_event(&memories.ours, event);
        self.twin.set_used_event(&memories.theirs, event);
        self.quiet = byte & 0x80 != 0;
        self.driver.set_flags(&memories.ours, self.quiet.into());
        self.twin.set_flags(&memories.theirs, self.quiet.into());
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

/// Mostly good addresses, and every edge.
fn address(script: &mut Script<'_>) -> u64 {
    const EDGES: [u64; 8] = [0x5ff8, 0x9ff0, 0x9fff, 0xa000, 0xffff, 0x1_0000, 0x1_3fff, u64::MAX];
    match script.byte() {
        b @ 0..40 => EDGES[usize::from(b % 8)],
        // Across the seam of the adjacent regions.
        b @ 40..60 => 0x6000 - u64::from(b),
        b => DATA + 64 * u64::from(b),
    }
}

fn len(script: &mut Script<'_>) -> u32 {
    match script.byte() {
        0 => 0,
        1 => u32::MAX,
        2 => 0x4000,
        3 => 0x1_0000,
        b => b.into(),
    }
}

/// An address with room for any of [`good_len`].
fn good_address(script: &mut Script<'_>) -> u64 {
    match script.byte() {
        b @ 224.. => 0x1_0000 + 64 * u64::from(b - 224),
        b => DATA + 64 * u64::from(b),
    }
}

fn good_len(script: &mut Script<'_>) -> u32 {
    match script.byte() {
        b @ 248.. => 0x1000 - u32::from(b),
        b => 1 + u32::from(b),
    }
}
