//! `virtio-queue` as the reference: the same operations on two copies of the same memory, one walked by us and one by the crate,
//! must give the same buffers, used rings, indices and signals. One harness for tests and for fuzzing.
//!
//! Where ours is stricter it is said in [`acceptable`]; everywhere else a difference is a bug of one of the two.

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::layout::reads;
use super::{BATCH_BYTES, Chains, NoRoom, ReceiveRing, RingSpec, TransmitRing};
use crate::device::dirty_log::{DirtyLog, LogSpec, PagesMarked};
use crate::device::guest::{Driver, Ram, descriptor_bytes};
use crate::device::memory::Payload;
use crate::device::net_header::{LEN, WireHeader};

/// Two adjacent regions, a hole, and one more.
const REGIONS: [(u64, u64); 3] = [(0, 0x4000), (0x4000, 0x4000), (0x1_0000, 0x4000)];
/// Where rings lie: table and available ring in the first page, used ring in the second.
const RING: u64 = 0;
/// Where indirect tables are written.
const TABLES: u64 = 0x2000;
/// Bytes of a page, and of the dirty log.
const PAGE: u64 = 0x1000;
/// Where good buffers lie.
const DATA: u64 = 0x3000;

/// The bytes that drive a run; zeros when they end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Mostly good addresses, and every edge.
    fn address(&mut self) -> u64 {
        const EDGES: [u64; 8] = [0x3ff8, 0x7ff0, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x1_3fff, u64::MAX];
        match self.byte() {
            b @ 0..10 => EDGES[usize::from(b % 8)],
            // Across the seam of the adjacent regions.
            b @ 10..40 => 0x4000 - u64::from(b),
            b => DATA + 64 * u64::from(b),
        }
    }

    fn len(&mut self) -> u32 {
        match self.byte() {
            0 => 0,
            1 => u32::MAX,
            2 => 0x4000,
            3 => 0x1_0000,
            b => u32::from(b),
        }
    }

    fn flags(&mut self, good: u16) -> u16 {
        match self.byte() {
            b @ 0..4 => u16::from(b),
            4 => 4,
            b => good | u16::from(b & 1),
        }
    }
}

/// A head and its buffers, guest address and length; None for a chain that is not acceptable.
type Found = (u16, Option<Vec<(u64, u32)>>);

/// How many descriptors were read, by this thread.
#[must_use]
pub fn descriptor_reads() -> u64 {
    reads::so_far()
}

/// A dirty log of our side, and what its memory was when that was last looked at.
struct Logged {
    bits: Ram,
    log: Arc<DirtyLog>,
    image: Vec<u8>,
}

/// Both worlds.
struct Pair {
    ours: Ram,
    theirs: Ram,
    driver: Driver,
    twin: Driver,
    queue: Queue,
    size: u16,
    /// The flag of a buffer in this direction.
    good: u16,
    event_idx: bool,
    /// Whether a signal was decided before: the first one of ours is unconditional.
    considered: bool,
    /// Dirty pages are logged.
    logged: Option<Logged>,
}

impl Pair {
    fn new(script: &mut Script<'_>, writable: bool) -> Self {
        let size = 1 << (1 + script.byte() % 6);
        let kind = script.byte();
        let event_idx = kind & 1 != 0;
        let (ours, theirs) = (Ram::new(&REGIONS), Ram::new(&REGIONS));
        let driver = Driver::new(RING, size);
        let mut queue = Queue::new(size).expect("a good size");
        queue.try_set_desc_table_address(GuestAddress(driver.at.descriptors)).expect("aligned");
        queue.try_set_avail_ring_address(GuestAddress(driver.at.available)).expect("aligned");
        queue.try_set_used_ring_address(GuestAddress(driver.at.used)).expect("aligned");
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        let pattern: Vec<u8> = (0..0x1000u32).map(|i| (i * 7 % 251) as u8).collect();
        let good = if writable { 2 } else { 0 };
        let logged = (kind & 6 == 6).then(|| {
            let bits = Ram::new(&[(0, PAGE)]);
            let log = DirtyLog::new(&bits.file, PAGE, 0, &ours.device_view(), PagesMarked::default());
            Logged { bits, log: Arc::new(log.expect("a good log")), image: vec![] }
        });
        let pair = Self {
            logged,
            ours,
            theirs,
            driver,
            twin: Driver::new(RING, size),
            queue,
            size,
            good,
            event_idx,
            considered: false,
        };
        pair.write(DATA, &pattern);
        // A table of good buffers, and of good tables, for the script to spoil.
        for i in 0..64 {
            let buffer = descriptor_bytes(DATA + 64 * i, 50 + 20 * i as u32, good, 0);
            if i < u64::from(size) {
                pair.write(RING + 16 * i, &buffer);
            }
            pair.write(TABLES + 16 * i, &buffer);
        }
        pair
    }

    fn spec(&self) -> RingSpec {
        RingSpec {
            memory: self.ours.device_view(),
            addresses: self.driver.front_end_addresses(),
            size: self.size,
            event_idx: self.event_idx,
            indirect: true,
            log: self.logged.as_ref().map(|logged| LogSpec { log: Arc::clone(&logged.log), used: None }),
        }
    }

    fn write(&self, gpa: u64, bytes: &[u8]) {
        self.ours.write(gpa, bytes);
        self.theirs.write(gpa, bytes);
    }

    /// What a driver, good or bad, does.
    fn drive(&mut self, op: u8, script: &mut Script<'_>) {
        match op {
            0 => {
                let index = u64::from(u16::from(script.byte()) % self.size);
                let bytes = self.descriptor(script, script_next(self.size));
                self.write(RING + 16 * index, &bytes);
            }
            1 => {
                let index = u64::from(script.byte() % 32);
                let bytes = self.descriptor(script, |s| u16::from(s.byte() % 17));
                self.write(TABLES + 16 * index, &bytes);
            }
            2 => {
                // A head that is an indirect table, mostly good.
                let index = u64::from(u16::from(script.byte()) % self.size);
                let table = TABLES + 16 * u64::from(script.byte() % 16);
                let entries = match script.byte() {
                    b @ 240.. => u32::from(b),
                    b => 1 + u32::from(b) % u32::from(self.size),
                };
                let len = 16 * entries + u32::from(script.byte() == 0);
                let flags = if script.byte() == 0 { 5 } else { 4 };
                self.write(RING + 16 * index, &descriptor_bytes(table, len, flags, 0));
            }
            3 => {
                let far = script.byte();
                for _ in 0..=far % 8 {
                    let waiting = self.driver.available().wrapping_sub(self.queue.next_avail());
                    if waiting >= self.size && far < 250 {
                        break;
                    }
                    let head = script_next(self.size)(script);
                    self.driver.push(&self.ours, head);
                    self.twin.push(&self.theirs, head);
                }
                self.driver.expose(&self.ours);
                self.twin.expose(&self.theirs);
            }
            _ => {
                let event =
                    self.driver.available().wrapping_add(u16::from(script.byte() % 8)).wrapping_sub(4);
                self.driver.set_used_event(&self.ours, event);
                self.twin.set_used_event(&self.theirs, event);
            }
        }
    }

    fn descriptor(&self, script: &mut Script<'_>, next: impl Fn(&mut Script<'_>) -> u16) -> [u8; 16] {
        let (gpa, len) = (script.address(), script.len());
        let flags = script.flags(self.good);
        descriptor_bytes(gpa, len, flags, next(script))
    }

    /// Our side's memory, pages of all regions one after the other.
    fn image(&self) -> Vec<u8> {
        REGIONS.iter().flat_map(|(gpa, len)| self.ours.read(*gpa, *len as usize)).collect()
    }

    /// Before our side does something: what it changes from here on must be logged.
    fn watch(&mut self) {
        let image = if self.logged.is_some() { self.image() } else { vec![] };
        if let Some(logged) = &mut self.logged {
            logged.image = image;
            logged.bits.write(0, &[0; PAGE as usize]);
        }
    }

    /// After it: each page that has changed has its bit.
    fn must_be_logged(&self) {
        let Some(logged) = &self.logged else { return };
        let now = self.image();
        let addresses = REGIONS.iter().flat_map(|(gpa, len)| (*gpa..gpa + len).step_by(PAGE as usize));
        let pages = now.chunks(PAGE as usize).zip(logged.image.chunks(PAGE as usize));
        for (gpa, _) in addresses.zip(pages).filter(|(_, (now, before))| now != before) {
            let page = gpa / PAGE;
            let bits = logged.bits.read(page / 8, 1);
            assert!(bits[0] >> (page % 8) & 1 == 1, "the page at {gpa:#x} was written and not logged");
        }
    }

    /// What the crate finds available; None where its index jumped.
    fn available(&mut self) -> Option<Vec<Found>> {
        let memory = &self.theirs.memory;
        let before = self.queue.next_avail();
        let mut found = Vec::new();
        let mut iter = self.queue.iter(memory).ok()?;
        for chain in &mut iter {
            let head = chain.head_index();
            let buffers: Vec<_> = chain.collect();
            found.push((head, buffers));
        }
        self.queue.set_next_avail(before);
        let (size, good) = (self.size, self.good);
        let judged = found.into_iter().map(|(head, buffers)| {
            let last_is_last = buffers.last().is_some_and(|b| !b.has_next());
            let list: Vec<_> = buffers.iter().map(|b| (b.addr().0, b.len())).collect();
            let right_way = buffers.iter().all(|b| b.is_write_only() == (good == 2));
            let inside = list.iter().all(|(gpa, len)| *len > 0 && in_memory(memory, *gpa, *len));
            let ok = last_is_last && right_way && inside && acceptable(memory, head, size);
            (head, ok.then_some(list))
        });
        Some(judged.collect())
    }

    fn add_used(&mut self, head: u16, len: u32) {
        self.queue.set_next_avail(self.queue.next_avail().wrapping_add(1));
        self.queue.add_used(&self.theirs.memory, head, len).expect("the used ring is in memory");
    }

    fn compare_signal(&mut self, published: usize, wanted: bool) {
        if published == 0 {
            assert!(!wanted, "nothing was published");
            return;
        }
        let theirs = self.queue.needs_notification(&self.theirs.memory).expect("in memory");
        if self.event_idx && self.considered {
            assert_eq!(wanted, theirs, "signal");
        } else {
            assert!(wanted, "unconditional");
        }
        self.considered = true;
    }

    fn compare_memory(&self) {
        for (gpa, len) in REGIONS {
            assert!(
                self.ours.read(gpa, len as usize) == self.theirs.read(gpa, len as usize),
                "memory at {gpa:#x}"
            );
        }
    }
}

/// How many of the chains ours takes at once.
fn batch_end(found: &[Found]) -> usize {
    let mut bytes = 0;
    let chains = found.iter().take_while(|(_, buffers)| {
        let before = bytes;
        bytes += buffers.iter().flatten().map(|b| b.1 as usize).sum::<usize>();
        before < BATCH_BYTES
    });
    chains.count()
}

fn script_next(size: u16) -> impl Fn(&mut Script<'_>) -> u16 {
    // Sometimes too far.
    move |script| match script.byte() {
        b @ 250.. => u16::from(b),
        b => u16::from(b) % size,
    }
}

fn in_memory(memory: &GuestMemoryMmap, gpa: u64, len: u32) -> bool {
    gpa.checked_add(u64::from(len)).is_some() && memory.check_range(GuestAddress(gpa), len as usize)
}

/// Where ours is stricter than the crate: a table with NEXT, of no or too many entries or not whole ones, and a direct chain that
/// ends in a table.
fn acceptable(memory: &GuestMemoryMmap, head: u16, size: u16) -> bool {
    let raw = |index: u16| -> Option<(u32, u16, u16)> {
        let mut bytes = [0; 16];
        let at = RING + 16 * u64::from(index);
        memory.read_slice(&mut bytes, GuestAddress(at)).ok().filter(|()| index < size)?;
        let len = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let half = |i: usize| u16::from_le_bytes([bytes[i], bytes[i + 1]]);
        Some((len, half(12), half(14)))
    };
    let Some((len, flags, mut next)) = raw(head) else { return false };
    if flags & 4 != 0 {
        return flags & 1 == 0 && len > 0 && len.is_multiple_of(16) && len / 16 <= u32::from(size);
    }
    let mut more = flags & 1 != 0;
    for _ in 0..size {
        if !more {
            return true;
        }
        let Some((_, flags, following)) = raw(next) else { return false };
        if flags & 4 != 0 {
            return false;
        }
        more = flags & 1 != 0;
        next = following;
    }
    true
}

/// Runs a guest's transmit ring. Panics where the two differ.
///
/// # Panics
/// That is its purpose.
pub fn transmit(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut pair = Pair::new(&mut script, false);
    let mut ring = TransmitRing::new(&pair.spec()).expect("a good ring");
    let mut chains = Chains::default();
    while !script.0.is_empty() {
        let op = script.byte() % 8;
        if op < 5 {
            pair.drive(op, &mut script);
            continue;
        }
        if op == 7 && script.byte() >= 128 {
            // A daemon that was killed goes on at the used index.
            ring = TransmitRing::new(&pair.spec()).expect("a good ring");
            pair.considered = false;
            continue;
        }
        pair.watch();
        if op == 5 {
            let theirs = pair.queue.enable_notification(&pair.theirs.memory).expect("in memory");
            match ring.want_kicks() {
                Ok(ours) => assert_eq!(ours, theirs, "work before sleep"),
                // The crate compares for inequality only.
                Err(_) => return,
            }
            pair.must_be_logged();
            continue;
        }
        let ours = ring.take(&mut chains);
        let Some(found) = pair.available() else {
            assert!(ours.is_err(), "the available index jumped");
            return;
        };
        // Ours stops where the batch is large enough.
        let found = &found[..batch_end(&found)];
        let good = found.iter().take_while(|(_, buffers)| buffers.is_some()).count();
        assert_eq!(chains.len(), good, "chains before the first bad one");
        assert_eq!(ours.is_err(), good < found.len(), "{ours:?}");
        for (i, (head, buffers)) in found.iter().take(good).enumerate() {
            let expected: Vec<u8> = buffers
                .iter()
                .flatten()
                .flat_map(|(gpa, len)| pair.theirs.read(*gpa, *len as usize))
                .collect();
            let mut bytes = vec![0; chains.bytes(i)];
            assert_eq!(chains.copy(i, 0, &mut bytes), expected.len());
            assert!(bytes == expected, "bytes of head {head}");
        }
        ring.finish(&chains);
        found.iter().take(good).for_each(|(head, _)| pair.add_used(*head, 0));
        let wanted = ring.publish();
        pair.must_be_logged();
        pair.compare_signal(good, wanted);
        assert_eq!(ring.base(), pair.queue.next_avail());
        pair.compare_memory();
        if ours.is_err() {
            return;
        }
    }
}

/// Runs a guest's receive ring. Panics where the two differ.
///
/// # Panics
/// That is its purpose.
pub fn receive(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mergeable = script.byte() & 1 != 0;
    let mut pair = Pair::new(&mut script, true);
    let mut ring = ReceiveRing::new(&pair.spec(), mergeable).expect("a good ring");
    // Ours says so at once; the crate when asked.
    pair.queue.disable_notification(&pair.theirs.memory).expect("in memory");
    while !script.0.is_empty() {
        let op = script.byte() % 8;
        if op < 5 {
            pair.drive(op, &mut script);
            if op < 3 {
                // Ours has looked ahead and need not see what a driver changes in a buffer it has given away; a restart does.
                ring = ReceiveRing::new(&pair.spec(), mergeable).expect("a good ring");
                pair.considered = false;
            }
            continue;
        }
        if op == 5 {
            if ring.prepare(usize::from(script.byte())).is_err() {
                return;
            }
            continue;
        }
        let frame: Vec<u8> = (0..script.word() % 2000).map(|i| i as u8).collect();
        let (head, tail) = frame.split_at(frame.len().min(60));
        let header = WireHeader::PLAIN;
        pair.watch();
        let ours = ring.deliver(header, head, Payload::own(tail));
        let wanted = ring.publish();
        pair.must_be_logged();
        let Some(found) = pair.available() else { return };
        match expected(&found, LEN + frame.len(), mergeable) {
            Expected::Broken => {
                assert!(matches!(ours, Err(NoRoom::Broken(_))), "{ours:?}");
                return;
            }
            // Ours looks ahead, and may have seen a bad chain behind the good ones.
            _ if matches!(ours, Err(NoRoom::Broken(_))) => return,
            Expected::Full => assert_eq!(ours, Err(NoRoom::Full)),
            Expected::Written(count) => {
                assert_eq!(ours, Ok(count as u16));
                let mut bytes = vec![0; LEN];
                bytes[10..].copy_from_slice(&(count as u16).to_le_bytes());
                bytes.extend(&frame);
                write(&mut pair, &found[..count], &bytes);
                pair.compare_signal(count, wanted);
            }
        }
        assert_eq!(ring.base(), pair.queue.next_avail());
    }
    pair.compare_memory();
}

/// What a delivery should come to.
enum Expected {
    Broken,
    Full,
    Written(usize),
}

fn expected(found: &[Found], need: usize, mergeable: bool) -> Expected {
    let mut room = 0;
    for (i, (_, buffers)) in found.iter().enumerate() {
        let Some(buffers) = buffers else { return Expected::Broken };
        room += buffers.iter().map(|b| b.1 as usize).sum::<usize>();
        if room >= need {
            return Expected::Written(i + 1);
        }
        if !mergeable {
            return Expected::Full;
        }
    }
    Expected::Full
}

fn write(pair: &mut Pair, chains: &[Found], mut bytes: &[u8]) {
    for (head, buffers) in chains {
        let mut written = 0;
        for (gpa, len) in buffers.iter().flatten() {
            let (now, later) = bytes.split_at(bytes.len().min(*len as usize));
            pair.theirs.write(*gpa, now);
            written += now.len() as u32;
            bytes = later;
        }
        pair.add_used(*head, written);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_transmit_ring_does_what_the_reference_does(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::transmit(&bytes);
        }

        #[test]
        fn a_receive_ring_does_what_the_reference_does(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::receive(&bytes);
        }
    }
}
