//! A guest's control queue: one command at a time, its bytes copied out, one byte of answer written back (virtio 1.2, 5.1.6.5).
//!
//! What must stay true: a command that was taken is answered before the next one is; a chain without a byte to answer in is a
//! [`RingFault::NoAnswer`], and nothing was done for it.

use super::chain::{Chain, Direction, Walk};
use super::{Either, MAX_PIECES, PackedRing, Ring, RingFault, RingSpec, SplitRing, either};
use crate::device::memory::{Cursor, Segment, copy_out};

/// Bytes of a command that are looked at: class, command, and more data than any command that is served has.
const LOOKED_AT: usize = 64;

/// A command as the guest wrote it, copied once.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    bytes: [u8; LOOKED_AT],
    len: usize,
}

impl Command {
    /// Class, command, and its data; cut off after 64 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A guest's control queue.
#[derive(Debug)]
pub struct ControlRing(Either<Control<SplitRing>, Control<PackedRing>>);

/// One over a ring of this kind.
#[derive(Debug)]
struct Control<R> {
    ring: R,
    walk: Walk,
    /// The command that was taken and not answered: one chain at most.
    chain: Vec<Chain>,
    segments: Vec<Segment>,
    /// Where, in `segments`, its answer goes.
    answer: usize,
}

impl<R: Ring> Control<R> {
    fn new(spec: &RingSpec) -> Result<Self, RingFault> {
        let ring = R::new(spec, Direction::Writable)?;
        ring.must_be_whole()?;
        Ok(Self {
            ring,
            walk: Walk::new(Direction::Readable, spec.indirect),
            chain: Vec::with_capacity(1),
            segments: Vec::with_capacity(MAX_PIECES),
            answer: 0,
        })
    }

    fn take(&mut self) -> Result<Option<Command>, RingFault> {
        self.chain.clear();
        self.segments.clear();
        let mut found = R::Found::default();
        if self.ring.look(1, &mut found)? == 0 {
            return Ok(None);
        }
        self.walk.expect_a_command();
        let to = (&mut self.segments, &mut self.chain);
        if self.ring.chain(&found, 0, &mut self.walk, to)?.is_none() {
            return Ok(None);
        }
        self.answer = self.walk.answer()?;
        let mut command = Command { bytes: [0; LOOKED_AT], len: 0 };
        let read = self.segments.get(..self.answer).unwrap_or_default();
        command.len = copy_out(read, 0, &mut command.bytes);
        Ok(Some(command))
    }

    fn answer(&mut self, ack: u8) -> Result<(), RingFault> {
        let Some(chain) = self.chain.pop() else { return Ok(()) };
        let to = self.segments.get(self.answer..).unwrap_or_default();
        Cursor::new(to).put(&[ack]);
        if let Some((log, memory)) = self.ring.log() {
            log.wrote(memory, to, 1)?;
        }
        self.ring.finish(&chain, 1);
        Ok(())
    }
}

impl ControlRing {
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Address`], [`RingFault::Base`], [`RingFault::Log`] or [`RingFault::Memory`].
    pub fn new(spec: &RingSpec) -> Result<Self, RingFault> {
        Ok(Self(match spec.packed {
            false => Either::Split(Control::new(spec)?),
            true => Either::Packed(Control::new(spec)?),
        }))
    }

    /// The next command, if there is one; [`Self::answer`] it.
    ///
    /// # Errors
    /// The chain's fault, or [`RingFault::NoAnswer`].
    pub fn take(&mut self) -> Result<Option<Command>, RingFault> {
        either!(&mut self.0, control => control.take())
    }

    /// Gives the command that was taken last back with `ack`; the driver sees it after [`Self::publish`].
    ///
    /// # Errors
    /// [`RingFault::Log`]: the page cannot be marked; it was not given back then.
    pub fn answer(&mut self, ack: u8) -> Result<(), RingFault> {
        either!(&mut self.0, control => control.answer(ack))
    }

    /// Shows the driver what was answered; true if it wants an interrupt.
    pub fn publish(&mut self) -> bool {
        either!(&mut self.0, control => control.ring.publish())
    }

    /// Asks for kicks before sleeping; true if there is work already.
    ///
    /// # Errors
    /// [`RingFault::AvailableIndex`].
    pub fn want_kicks(&mut self) -> Result<bool, RingFault> {
        either!(&mut self.0, control => control.ring.want_kicks())
    }

    /// Whether the memory under it, or the dirty log, was cut off.
    #[must_use]
    pub fn memory_is_poisoned(&self) -> bool {
        either!(&self.0, control => control.ring.is_poisoned())
    }

    /// Where another owner of this ring goes on: what GET_VRING_BASE answers.
    #[must_use]
    pub fn base(&self) -> u32 {
        either!(&self.0, control => control.ring.base())
    }
}
