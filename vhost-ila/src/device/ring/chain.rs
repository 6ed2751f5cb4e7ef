//! From a descriptor chain to pieces of guest memory.
//!
//! What must stay true:
//!
//! * Each descriptor is read once into a local copy; nothing about it is believed that was not checked on that copy.
//! * Work per chain is bounded: at most [`super::MAX_CHAIN`] descriptors and never more than the ring has entries, indirect ones
//!   included. A loop runs into that bound.
//! * All or nothing: a chain that is truncated, nested, points outside, or has a descriptor of the wrong direction or of no bytes
//!   is a [`RingFault`], never a shorter chain.

use super::layout::{Descriptor, F_INDIRECT, F_NEXT, F_WRITE, Layout};
use super::{MAX_CHAIN, RingFault};
use crate::device::memory::{GuestMemory, Segment};

/// Which way a ring's buffers go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    /// The guest wrote them, we read: its transmit ring.
    Readable,
    /// We write: its receive ring.
    Writable,
}

/// A chain taken from a ring: which one, and where its pieces are in the arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    /// What the driver knows it by: its head in a split ring, the buffer id in a packed one. Given back as it came, and nothing else.
    pub(super) id: u16,
    /// Entries of the ring that it takes: descriptors of a packed ring, one in the available ring of a split one.
    pub(super) entries: u16,
    pub(super) first: u16,
    pub(super) count: u16,
    /// Bytes in all, saturating: far above any frame either way.
    pub(super) len: u32,
}

/// Turns chains of one ring into segments.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) direction: Direction,
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    pub(super) indirect: bool,
    /// Chains that came by an indirect table.
    pub(super) tables: u64,
    /// The region that answered last.
    last: usize,
    turn: Turn,
}

/// A control queue's chains turn once, from what we read to what we write.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Another ring's: never.
    Never,
    /// Not yet.
    Ahead,
    /// Before the piece at this place of the arena.
    At(usize),
}

impl Walk {
    pub(super) fn new(direction: Direction, indirect: bool) -> Self {
        Self { direction, indirect, tables: 0, last: 0, turn: Turn::Never }
    }

    /// The next chain is a control queue's: readable descriptors, then writable ones.
    pub(super) fn expect_a_command(&mut self) {
        (self.direction, self.turn) = (Direction::Readable, Turn::Ahead);
    }

    /// Where, in the arena, the writable pieces of the command that was walked last begin.
    pub(super) fn answer(&self) -> Result<usize, RingFault> {
        match self.turn {
            Turn::At(place) => Ok(place),
            Turn::Ahead | Turn::Never => Err(RingFault::NoAnswer),
        }
    }

    /// Appends the chain to `chains` and its pieces to `arena`, which has room for [`super::MAX_PIECES`] more; its bytes, saturating.
    #[inline(always)]
    pub(super) fn chain(
        &mut self,
        ring: &Layout,
        head: u16,
        arena: &mut Vec<Segment>,
        chains: &mut Vec<Chain>,
    ) -> Result<u32, RingFault> {
        let descriptor = ring.descriptor(head).ok_or(RingFault::Index)?;
        // Nearly every chain is one buffer in one region.
        if let Some(piece) = self.alone(&ring.memory, &descriptor) {
            let (first, len) = (arena.len() as u16, descriptor.len);
            arena.push(piece);
            chains.push(Chain { id: head, entries: 1, first, count: 1, len });
            return Ok(len);
        }
        self.chain_of_several(ring, head, descriptor, (arena, chains))
    }

    /// The buffer of a descriptor that is a chain by itself, if it lies in one region.
    #[inline(always)]
    pub(super) fn alone(&mut self, memory: &GuestMemory, descriptor: &Descriptor) -> Option<Segment> {
        let direction = if self.direction == Direction::Writable { F_WRITE } else { 0 };
        if descriptor.flags & (F_NEXT | F_INDIRECT | F_WRITE) != direction {
            return None;
        }
        let piece = memory.piece(descriptor.address, descriptor.len, &mut self.last)?;
        (piece.len() == descriptor.len as usize).then_some(piece)
    }

    /// Appends the chains that four descriptors are by themselves, and their pieces; their bytes. `None`, and none of them, if any is not one
    /// buffer, of 16 KiB at most, in the region that answered last.
    #[inline(always)]
    pub(super) fn four(
        &self,
        memory: &GuestMemory,
        ids: [u16; 4],
        descriptors: [Descriptor; 4],
        (arena, chains): (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> Option<u32> {
        let direction = if self.direction == Direction::Writable { F_WRITE } else { 0 };
        let [a, b, c, d] = descriptors;
        let [in_a, in_b, in_c, in_d] = [a.flags, b.flags, c.flags, d.flags].map(|flags| flags ^ direction);
        let ranges = [(a.address, a.len), (b.address, b.len), (c.address, c.len), (d.address, d.len)];
        let first = arena.len() as u16;
        if (in_a | in_b | in_c | in_d) & (F_NEXT | F_INDIRECT | F_WRITE) != 0
            || !memory.four(ranges, self.last, arena)
        {
            return None;
        }
        let chain = |ahead, id, len| Chain { id, entries: 1, first: first + ahead, count: 1, len };
        let [id_a, id_b, id_c, id_d] = ids;
        chains.extend_from_slice(&[
            chain(0, id_a, a.len),
            chain(1, id_b, b.len),
            chain(2, id_c, c.len),
            chain(3, id_d, d.len),
        ]);
        Some(a.len + b.len + c.len + d.len)
    }

    fn chain_of_several(
        &mut self,
        ring: &Layout,
        head: u16,
        descriptor: Descriptor,
        (arena, chains): (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> Result<u32, RingFault> {
        let first = arena.len();
        let len = if descriptor.flags & F_INDIRECT == 0 {
            self.direct(ring, descriptor, arena)?
        } else {
            self.indirect(ring, descriptor, arena)?
        };
        // Pushed here: a chain that travels in a result is put together in memory and stalls the copy out of it.
        let count = (arena.len() - first) as u16;
        chains.push(Chain { id: head, entries: 1, first: first as u16, count, len });
        Ok(len)
    }

    #[inline]
    fn direct(
        &mut self,
        ring: &Layout,
        mut descriptor: Descriptor,
        arena: &mut Vec<Segment>,
    ) -> Result<u32, RingFault> {
        let mut len = 0;
        for _ in 0..ring.size.min(MAX_CHAIN) {
            len = self.buffer(&ring.memory, descriptor, len, arena)?;
            if descriptor.flags & F_NEXT == 0 {
                return Ok(len);
            }
            descriptor = ring.descriptor(descriptor.next).ok_or(RingFault::Index)?;
            if descriptor.flags & F_INDIRECT != 0 {
                // 2.7.5.3.1 lets a chain end in a table; no driver does that, and refusing it keeps the walk flat.
                return Err(RingFault::Indirect);
            }
        }
        Err(RingFault::Endless)
    }

    fn indirect(
        &mut self,
        ring: &Layout,
        table: Descriptor,
        arena: &mut Vec<Segment>,
    ) -> Result<u32, RingFault> {
        let entries = self.table(table, ring.size)?;
        let mut len = 0;
        let mut index = 0;
        for _ in 0..entries.min(u32::from(MAX_CHAIN)) {
            let descriptor = self.table_entry(&ring.memory, table, index)?;
            if descriptor.flags & F_INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            len = self.buffer(&ring.memory, descriptor, len, arena)?;
            if descriptor.flags & F_NEXT == 0 {
                return Ok(len);
            }
            index = u32::from(descriptor.next);
            if index >= entries {
                return Err(RingFault::Index);
            }
        }
        Err(RingFault::Endless)
    }

    /// How many entries an indirect table has, in a ring of `size`. 2.7.5.3.1, 2.8.7: never with NEXT; a table is whole descriptors, at
    /// least one, no more than the ring has.
    pub(super) fn table(&mut self, table: Descriptor, size: u16) -> Result<u32, RingFault> {
        self.tables += 1;
        let entries = table.len / Descriptor::SIZE;
        if !self.indirect
            || table.flags & F_NEXT != 0
            || table.len == 0
            || !table.len.is_multiple_of(Descriptor::SIZE)
            || entries > u32::from(size)
        {
            return Err(RingFault::Indirect);
        }
        Ok(entries)
    }

    /// Entry `index` of a table, as a split ring's driver writes it.
    pub(super) fn table_entry(
        &mut self,
        memory: &GuestMemory,
        table: Descriptor,
        index: u32,
    ) -> Result<Descriptor, RingFault> {
        let at = table.address.checked_add(u64::from(index * Descriptor::SIZE)).ok_or(RingFault::Indirect)?;
        let piece = memory.piece(at, Descriptor::SIZE, &mut self.last).ok_or(RingFault::Address)?;
        if piece.len() != Descriptor::SIZE as usize {
            // A descriptor cut by a region's end.
            return Err(RingFault::Address);
        }
        // SAFETY: `piece` is 16 bytes of memory that `memory` keeps mapped.
        Ok(unsafe { Descriptor::read(piece.address()) })
    }

    /// Appends one buffer's pieces; `len` is what the chain had before, the result what it has now.
    #[inline]
    pub(super) fn buffer(
        &mut self,
        memory: &GuestMemory,
        descriptor: Descriptor,
        len: u32,
        arena: &mut Vec<Segment>,
    ) -> Result<u32, RingFault> {
        let writable = descriptor.flags & F_WRITE != 0;
        if writable != (self.direction == Direction::Writable) {
            self.turns(arena.len())?;
        }
        if descriptor.len == 0 {
            return Err(RingFault::Empty);
        }
        let (mut address, mut left) = (descriptor.address, descriptor.len);
        // One piece per region at most, so this ends.
        loop {
            let piece = memory.piece(address, left, &mut self.last).ok_or(RingFault::Address)?;
            if arena.len() == arena.capacity() {
                return Err(RingFault::Endless);
            }
            arena.push(piece);
            left -= piece.len() as u32;
            if left == 0 {
                return Ok(len.saturating_add(descriptor.len));
            }
            address = address.checked_add(piece.len() as u64).ok_or(RingFault::Address)?;
        }
    }

    /// A descriptor goes the other way than those before it: a fault, but for the turn of a command.
    #[cold]
    fn turns(&mut self, at: usize) -> Result<(), RingFault> {
        let Turn::Ahead = self.turn else { return Err(RingFault::Direction) };
        (self.direction, self.turn) = (Direction::Writable, Turn::At(at));
        Ok(())
    }
}
