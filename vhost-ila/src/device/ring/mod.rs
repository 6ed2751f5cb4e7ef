//! Split virtqueues, walked by ourselves in batches (virtio 1.2, section 2.7).
//!
//! What must stay true:
//!
//! * A ring has one owner at a time: the control thread while it stands still, the worker while it runs. It moves between them
//!   by value, so nothing here needs a lock.
//! * The guest may write any byte of a ring at any time. Whatever it writes, we touch only memory inside its own regions, do
//!   bounded work, and end in a [`RingFault`] at worst: the ring is then broken, once, until the front-end sets it up again.
//! * A ring starts at the index the guest's used ring shows, so a restart of either side neither repeats nor skips a buffer that
//!   was completed.
//! * Used elements are written as buffers are finished and published together, once per batch, in the order the driver made
//!   the buffers available, on every ring: IN_ORDER is offered because of this line.
//!
//! ```text
//!   transmit.rs   avail.idx once > heads > [prefetch] > descriptors > [prefetch] > Chains (pieces of guest memory)
//!   receive.rs    the same ahead of need, then one copy into as many buffers as the frame takes
//!   control.rs    one command at a time: bytes read, one byte answered
//!   chain.rs      one chain, checked        layout.rs   the shared bytes        this file   indices and notifications
//! ```

mod chain;
mod control;
mod layout;
mod receive;
#[cfg(any(test, fuzzing))]
pub mod reference;
#[cfg(test)]
mod tests;
mod transmit;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

pub use control::{Command, ControlRing};
use layout::Layout;
pub use layout::RingAddresses;
pub use receive::{NoRoom, ReceiveRing};
pub use transmit::{Chains, TransmitRing};

use super::dirty_log::{LogSpec, RingLog};
use super::memory::GuestMemory;

/// Largest ring (virtio 1.2, 2.7).
pub const MAX_SIZE: u16 = 32768;
/// Most descriptors in one chain: QEMU's and Linux's own limit, and as many as one `writev` takes.
pub const MAX_CHAIN: u16 = 1024;
/// Most chains taken at once.
pub const BATCH: usize = 64;
/// No further chain is taken once a batch has this many bytes: what one ring may keep the others waiting for, super-packets that must be
/// segmented in software included.
pub const BATCH_BYTES: usize = 256 << 10;
/// Most pieces one chain can come to: a descriptor that crosses regions is several.
const MAX_PIECES: usize = MAX_CHAIN as usize + super::memory::MAX_REGIONS;

/// What a guest or front-end did that a ring does not survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub enum RingFault {
    /// Not a power of two, or above 32768.
    #[error("ring size is not a power of two up to {MAX_SIZE}")]
    Size = 1,
    /// Something lies outside the shared memory, across its parts, or unaligned.
    #[error("an address is outside the shared memory or unaligned")]
    Address,
    /// The available index is further ahead than the ring is long.
    #[error("the available index jumped by more than the ring's size")]
    AvailableIndex,
    /// A head or next index beyond its table.
    #[error("a descriptor index is beyond its table")]
    Index,
    /// More descriptors than the ring has: a loop, or a chain without end.
    #[error("a descriptor chain has no end")]
    Endless,
    /// Readable where writable is meant, or the other way round.
    #[error("a descriptor has the wrong direction")]
    Direction,
    /// A descriptor of no bytes.
    #[error("a descriptor has no bytes")]
    Empty,
    /// A bad indirect table: nested, chained, oddly sized, larger than the ring, or not negotiated.
    #[error("a bad indirect descriptor table")]
    Indirect,
    /// The front-end cut off the memory file, or the dirty log's.
    #[error("the shared memory was cut off")]
    Memory,
    /// A page was written, or will be, that the dirty log has no bit for.
    #[error("a page lies beyond the dirty log")]
    Log,
    /// Dirty pages are to be logged, and there is no SET_LOG_BASE yet.
    #[error("dirty pages are to be logged, but the front-end has given no log")]
    NoLog,
    /// A control command without a byte for its answer.
    #[error("a command leaves no room for its answer")]
    NoAnswer,
}

impl RingFault {
    /// All of them; `fault as u8` is its place here plus one.
    pub const ALL: [Self; 12] = [
        Self::Size,
        Self::Address,
        Self::AvailableIndex,
        Self::Index,
        Self::Endless,
        Self::Direction,
        Self::Empty,
        Self::Indirect,
        Self::Memory,
        Self::Log,
        Self::NoLog,
        Self::NoAnswer,
    ];
}

/// What a ring is made from.
#[derive(Clone, Debug)]
pub struct RingSpec {
    /// The memory its addresses are in.
    pub memory: Arc<GuestMemory>,
    /// Its three parts.
    pub addresses: RingAddresses,
    /// Entries.
    pub size: u16,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    pub indirect: bool,
    /// Where written pages are marked, while they are (VHOST_F_LOG_ALL).
    pub log: Option<LogSpec>,
}

/// Indices and notifications of one ring, both directions.
#[derive(Debug)]
struct SplitRing {
    layout: Layout,
    event_idx: bool,
    /// The next available entry to use.
    next_available: u16,
    /// The next used entry to write.
    next_used: u16,
    /// `used.idx` as last published.
    published: u16,
    /// `used.idx` when the driver was last considered for a signal; None until then, which asks for one unconditionally: what a
    /// previous life of this ring signalled is unknown.
    considered: Option<u16>,
    /// Where what we write is marked, while that is wanted.
    log: Option<Box<RingLog>>,
}

impl SplitRing {
    fn new(spec: &RingSpec) -> Result<Self, RingFault> {
        let layout = Layout::new(Arc::clone(&spec.memory), spec.addresses, spec.size)?;
        let index = layout.used_index();
        let (used, len) = layout.used_range();
        let log = spec.log.as_ref().map(|log| RingLog::new(log, &layout.memory, used, len).map(Box::new));
        Ok(Self {
            log: log.transpose()?,
            layout,
            event_idx: spec.event_idx,
            next_available: index,
            next_used: index,
            published: index,
            considered: None,
        })
    }

    /// How many entries after `from` the driver has made available.
    #[inline]
    fn available_after(&self, from: u16) -> Result<u16, RingFault> {
        let count = self.layout.available_index().wrapping_sub(from);
        if count > self.layout.size { Err(RingFault::AvailableIndex) } else { Ok(count) }
    }

    /// Gives a buffer back; the driver sees it after [`Self::publish`].
    #[inline]
    fn finish(&mut self, head: u16, len: u32) {
        self.layout.write_used(self.next_used, head, len);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows the driver what was finished; true if it wants to be told.
    #[inline]
    fn publish(&mut self) -> bool {
        if self.next_used == self.published {
            return false;
        }
        if self.log.is_some() {
            self.mark_elements();
        }
        self.layout.publish_used(self.next_used);
        self.published = self.next_used;
        if let Some(log) = &mut self.log {
            log.wrote_used(2, 2);
        }
        // Our index must be out before the driver's wish is read, or both sides wait (2.7.7.2, 2.7.10).
        fence(Ordering::SeqCst);
        if !self.event_idx {
            return !self.layout.interrupts_unwanted();
        }
        let before = self.considered.replace(self.published);
        before.is_none_or(|before| passed(self.layout.used_event(), self.published, before))
    }

    /// Asks for kicks; true if something became available meanwhile, so that there will be no kick for it.
    fn want_kicks(&mut self) -> Result<bool, RingFault> {
        if self.event_idx {
            self.layout.set_available_event(self.next_available);
        } else {
            self.layout.set_kicks_unwanted(false);
        }
        self.mark_wish();
        fence(Ordering::SeqCst);
        Ok(self.available_after(self.next_available)? > 0)
    }

    /// Asks for none, while we poll. With EVENT_IDX there is nothing to say: the driver kicks once, as it passes the old index.
    fn refuse_kicks(&mut self) {
        if !self.event_idx {
            self.layout.set_kicks_unwanted(true);
            self.mark_wish();
        }
    }

    /// Marks the used elements that are about to be published, and what frames left waiting.
    #[cold]
    fn mark_elements(&mut self) {
        let Some(log) = &mut self.log else { return };
        let size = self.layout.size;
        let first = self.published & (size - 1);
        let count = self.next_used.wrapping_sub(self.published).min(size);
        // Up to the ring's end, and from its beginning again.
        let straight = count.min(size - first);
        log.wrote_used(4 + 8 * u64::from(first), 8 * u64::from(straight));
        if count > straight {
            log.wrote_used(4, 8 * u64::from(count - straight));
        }
    }

    /// Marks `avail_event` or `used.flags`, whichever says whether kicks are wanted.
    fn mark_wish(&mut self) {
        if let Some(log) = &mut self.log {
            let offset = if self.event_idx { 4 + 8 * u64::from(self.layout.size) } else { 0 };
            log.wrote_used(offset, 2);
        }
    }

    /// To be asked when a ring is made: what is found cut off then, no worker will look at again.
    fn must_be_whole(&self) -> Result<(), RingFault> {
        if self.is_poisoned() { Err(RingFault::Memory) } else { Ok(()) }
    }

    /// Whether the memory under it, or the dirty log, was cut off.
    fn is_poisoned(&self) -> bool {
        self.layout.memory.is_poisoned() || self.log.as_ref().is_some_and(|log| log.is_poisoned())
    }
}

/// Whether going from `old` to `new` passes `event` (virtio 1.2, 2.7.10: `vring_need_event`).
#[inline]
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
