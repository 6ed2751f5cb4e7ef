//! From a descriptor chain to pieces of guest memory.
//!
//! What must stay true:
//!
//! * Each descriptor is read once into a local copy; nothing about it is believed that was not checked on that copy.
//! * Work per chain is bounded: at most [`super::MAX_CHAIN`] descriptors and never more than the ring has entries, indirect ones
//!   included. A loop runs into that bound.
//! * All or nothing: a chain that is truncated, nested, points outside, or has a descriptor of the wrong direction or of no bytes
//!   is a [`RingFault`], never a shorter chain.

use std::ops::Range;

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
    /// Length and id, as [`Single::what`] has them.
    what: u64,
    first: u32,
    count: u16,
    entries: u16,
}

impl Chain {
    /// `len`: bytes in all, saturating: far above any frame either way. Its pieces are number `first` and the `count - 1` behind it in the arena.
    pub(super) fn new(id: u16, entries: u16, (first, count): (usize, u16), len: u32) -> Self {
        Self { what: u64::from(id) << 32 | u64::from(len), first: first as u32, count, entries }
    }

    /// One entry, and one piece.
    #[inline(always)]
    fn single(what: u64, first: u32) -> Self {
        Self { what, first, count: 1, entries: 1 }
    }

    /// What the driver knows it by: its head in a split ring, the buffer id in a packed one. Given back as it came, and nothing else.
    #[inline(always)]
    pub(super) fn id(&self) -> u16 {
        (self.what >> 32) as u16
    }

    /// Entries of the ring that it takes: descriptors of a packed ring, one in the available ring of a split one.
    #[inline(always)]
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Its bytes.
    #[inline(always)]
    pub(super) fn len(&self) -> u32 {
        self.what as u32
    }

    /// Where its first piece is in the arena.
    #[inline(always)]
    pub(super) fn first(&self) -> usize {
        self.first as usize
    }

    /// Where its pieces are in the arena.
    #[inline(always)]
    pub(super) fn pieces(&self) -> Range<usize> {
        self.first()..self.first() + usize::from(self.count)
    }

    /// The arena lost so many pieces before it.
    pub(super) fn moves_by(&mut self, pieces: usize) {
        self.first -= pieces as u32;
    }
}

/// What a descriptor's flags say of it: whether it is a chain by itself, and which way its buffer goes.
pub(super) const KIND: u16 = F_NEXT | F_INDIRECT | F_WRITE;

/// A descriptor that is a chain by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Single {
    pub(super) address: u64,
    /// Length (bits 0 to 31) and id (32 to 47), as a packed ring's descriptor has them; what is above counts for nothing.
    pub(super) what: u64,
}

/// Where [`Walk::fours`] finds them. (Closures cannot be told to be part of their caller.)
pub(super) trait Singles {
    /// The next four, of this ring's kind, behind the `done` that were taken; `None` if there are not so many.
    fn four(&mut self, done: usize) -> Option<[Single; 4]>;
}

impl Single {
    #[inline(always)]
    fn range(self) -> (u64, u32) {
        (self.address, self.what as u32)
    }
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
            let place = (arena.len(), 1);
            arena.push(piece);
            chains.push(Chain::new(head, 1, place, descriptor.len));
            return Ok(descriptor.len);
        }
        self.chain_of_several(ring, head, descriptor, (arena, chains))
    }

    /// What of [`KIND`] a descriptor has that is a chain by itself.
    #[inline(always)]
    pub(super) fn kind(&self) -> u16 {
        if self.direction == Direction::Writable { F_WRITE } else { 0 }
    }

    /// The buffer of a descriptor that is a chain by itself, if it lies in one region.
    #[inline(always)]
    pub(super) fn alone(&mut self, memory: &GuestMemory, descriptor: &Descriptor) -> Option<Segment> {
        if descriptor.flags & KIND != self.kind() {
            return None;
        }
        let piece = memory.piece(descriptor.address, descriptor.len, &mut self.last)?;
        (piece.len() == descriptor.len as usize).then_some(piece)
    }

    /// Appends chains of one short buffer each, in the region that answered last, four at a time: what `next` finds, as long as it does, and at
    /// most `most`. How many, and their bytes; whatever comes behind them is for [`Walk::chain`].
    #[inline(always)]
    pub(super) fn fours(
        &self,
        memory: &GuestMemory,
        most: usize,
        (arena, chains): (&mut Vec<Segment>, &mut Vec<Chain>),
        mut next: impl Singles,
    ) -> (usize, usize) {
        let Some(window) = memory.window(self.last) else { return (0, 0) };
        let (mut count, mut bytes) = (0, 0);
        let mut first = arena.len() as u32;
        let (pieces, _) = arena.spare_capacity_mut().as_chunks_mut::<4>();
        let (taken, _) = chains.spare_capacity_mut().as_chunks_mut::<4>();
        for (pieces, taken) in pieces.iter_mut().zip(taken).take(most / 4) {
            let Some([a, b, c, d]) = next.four(count) else { break };
            let Some(found) = window.four([a.range(), b.range(), c.range(), d.range()]) else { break };
            for (to, piece) in pieces.iter_mut().zip(found) {
                to.write(piece);
            }
            for (ahead, (to, single)) in (0..).zip(taken.iter_mut().zip([a, b, c, d])) {
                to.write(Chain::single(single.what, first + ahead));
                bytes += single.range().1 as usize;
            }
            (count, first) = (count + 4, first + 4);
        }
        // SAFETY: so many were written behind what there was, in what both have room for.
        unsafe {
            arena.set_len(arena.len() + count);
            chains.set_len(chains.len() + count);
        }
        (count, bytes)
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
        chains.push(Chain::new(head, 1, (first, count), len));
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
