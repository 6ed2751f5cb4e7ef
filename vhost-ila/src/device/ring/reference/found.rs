//! What the crate finds in a ring, and what each chain must come to: its buffers, or a fault by name.
//!
//! The crate has no names for faults, and stops in silence where a chain is broken. So a plain walk, which shares no code with
//! `chain.rs`, says what is wrong, and must agree with the crate: a chain that it calls good has the crate's buffers, and one
//! that it calls bad is one that the crate cuts short, or whose buffers go the wrong way or lie outside. Ours is stricter only in
//! [`RingFault::Indirect`] (a table with NEXT, or larger than its ring; a direct chain that ends in a table), a table cut by a region's
//! end, and [`RingFault::NoAnswer`].

use std::ops::Range;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::pair::{Kind, RING};
use crate::device::ring::RingFault;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A buffer: its guest address, and its bytes.
pub(super) type Buffer = (u64, u32);

/// A chain as it must be taken.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) head: u16,
    /// Its buffers' places in [`Found::buffers`].
    range: Range<usize>,
    /// How many of these are read, not written.
    read: usize,
    pub(super) bytes: usize,
    pub(super) fault: Option<RingFault>,
}

/// Chains up to the first bad one.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) chains: Vec<Chain>,
    buffers: Vec<Buffer>,
    theirs: Vec<Descriptor>,
}

impl Found {
    /// Looks at what `queue` has, until there are `most` chains, `bytes` in all of them, or a bad one. False where its index jumped.
    pub(super) fn look(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        kind: Kind,
        (most, bytes): (usize, usize),
    ) -> bool {
        self.chains.clear();
        self.buffers.clear();
        let (before, size) = (queue.next_avail(), queue.size());
        let Ok(chains) = queue.iter(memory) else { return false };
        let mut have = 0;
        for chain in chains.take(most) {
            let head = chain.head_index();
            self.theirs.clear();
            self.theirs.extend(chain);
            let judged = self.judge(memory, (head, size), kind);
            have += judged.bytes;
            let stop = judged.fault.is_some() || have >= bytes;
            self.chains.push(judged);
            if stop {
                break;
            }
        }
        queue.set_next_avail(before);
        true
    }

    /// How many chains are good.
    pub(super) fn good(&self) -> usize {
        self.chains.len() - usize::from(self.fault().is_some())
    }

    /// What is wrong with the first bad chain.
    pub(super) fn fault(&self) -> Option<RingFault> {
        self.chains.last().and_then(|chain| chain.fault)
    }

    /// The buffers of chain `index` that the device reads, and those that it writes.
    pub(super) fn buffers(&self, index: usize) -> (&[Buffer], &[Buffer]) {
        let chain = &self.chains[index];
        self.buffers[chain.range.clone()].split_at(chain.read)
    }

    /// The chain at `head`, of which the crate made `self.theirs`.
    fn judge(&mut self, memory: &GuestMemoryMmap, (head, size): (u16, u16), kind: Kind) -> Chain {
        let first = self.buffers.len();
        let mut turned = None;
        let fault = self.walk(memory, (head, size), kind, &mut turned).err();
        let range = first..self.buffers.len();
        let mine = &self.buffers[range.clone()];
        let bytes = mine.iter().map(|buffer| buffer.1 as usize).sum();
        let read = turned.unwrap_or(if kind == Kind::Receive { 0 } else { mine.len() });
        let writes = |index: usize| index >= read;
        let ends = self.theirs.last().is_some_and(|last| !last.has_next());
        match fault {
            None => {
                let theirs = self.theirs.iter().map(|d| (d.addr().0, d.len(), d.is_write_only()));
                let mine = mine.iter().enumerate().map(|(i, (gpa, len))| (*gpa, *len, writes(i)));
                assert!(ends && mine.eq(theirs), "head {head}: the crate has {:x?}", self.theirs);
            }
            Some(fault) => {
                let outside = |d: &Descriptor| d.len() == 0 || !in_memory(memory, d.addr().0, d.len());
                let bad = !ends || self.theirs.iter().any(outside) || !self.goes_one_way(kind);
                let stricter = matches!(fault, RingFault::Indirect | RingFault::NoAnswer);
                let cut = fault == RingFault::Address && is_table(memory, head);
                assert!(bad || stricter || cut, "head {head}: {fault}, but the crate has {:x?}", self.theirs);
            }
        }
        Chain { head, range, read, bytes, fault }
    }

    /// Whether the crate's buffers go the way that this kind of ring asks for.
    fn goes_one_way(&self, kind: Kind) -> bool {
        let ways = self.theirs.iter().map(Descriptor::is_write_only);
        match kind {
            Kind::Transmit => ways.clone().all(|writes| !writes),
            Kind::Receive => ways.clone().all(|writes| writes),
            Kind::Control => ways.is_sorted(),
        }
    }

    /// The plain walk: one descriptor after the other, everything about it asked in the order of the text (virtio 1.2, 2.7.5).
    fn walk(
        &mut self,
        memory: &GuestMemoryMmap,
        (head, size): (u16, u16),
        kind: Kind,
        turned: &mut Option<usize>,
    ) -> Result<(), RingFault> {
        let first = self.buffers.len();
        let (mut table, mut entries, mut index) = (RING, u32::from(size), u32::from(head));
        if index >= entries {
            return Err(RingFault::Index);
        }
        let (gpa, len, flags, _) = descriptor(memory, table + 16 * u64::from(index))?;
        let indirect = flags & INDIRECT != 0;
        if indirect {
            if flags & NEXT != 0 || len == 0 || len % 16 != 0 || len / 16 > u32::from(size) {
                return Err(RingFault::Indirect);
            }
            (table, entries, index) = (gpa, len / 16, 0);
        }
        for seen in 0..entries {
            let at = table.checked_add(16 * u64::from(index)).ok_or(RingFault::Indirect)?;
            let (gpa, len, flags, next) = descriptor(memory, at)?;
            if flags & INDIRECT != 0 && (indirect || seen > 0) {
                return Err(RingFault::Indirect);
            }
            let writes = flags & WRITE != 0;
            let turns = kind == Kind::Control && writes && turned.is_none();
            if turns {
                *turned = Some(self.buffers.len() - first);
            }
            if writes != (kind == Kind::Receive || turned.is_some()) {
                return Err(RingFault::Direction);
            }
            if len == 0 {
                return Err(RingFault::Empty);
            }
            if !in_memory(memory, gpa, len) {
                return Err(RingFault::Address);
            }
            self.buffers.push((gpa, len));
            if flags & NEXT == 0 {
                let answered = kind != Kind::Control || turned.is_some();
                return if answered { Ok(()) } else { Err(RingFault::NoAnswer) };
            }
            index = u32::from(next);
            if index >= entries {
                return Err(RingFault::Index);
            }
            // The one behind the last is not walked, but that it is a table is seen.
            if seen + 1 == entries && !indirect && is_table(memory, next) {
                return Err(RingFault::Indirect);
            }
        }
        Err(RingFault::Endless)
    }
}

/// Address, length, flags and next of the descriptor at `gpa`, whole within one region.
fn descriptor(memory: &GuestMemoryMmap, gpa: u64) -> Result<(u64, u32, u16, u16), RingFault> {
    let last = gpa.checked_add(15).ok_or(RingFault::Address)?;
    let region = memory.find_region(GuestAddress(gpa)).ok_or(RingFault::Address)?;
    region.to_region_addr(GuestAddress(last)).ok_or(RingFault::Address)?;
    let [low, high]: [u64; 2] = memory.read_obj(GuestAddress(gpa)).map_err(|_| RingFault::Address)?;
    Ok((low, high as u32, (high >> 32) as u16, (high >> 48) as u16))
}

/// Whether the head at `index` of the ring's table is a table.
fn is_table(memory: &GuestMemoryMmap, index: u16) -> bool {
    descriptor(memory, RING + 16 * u64::from(index)).is_ok_and(|d| d.2 & INDIRECT != 0)
}

fn in_memory(memory: &GuestMemoryMmap, gpa: u64, len: u32) -> bool {
    gpa.checked_add(u64::from(len)).is_some() && memory.check_range(GuestAddress(gpa), len as usize)
}
