//! Virtqueues, split and packed, walked by ourselves in batches (virtio 1.2, sections 2.7 and 2.8).
//!
//! What must stay true:
//!
//! * A ring has one owner at a time: the control thread while it stands still, the worker while it runs. It moves between them
//!   by value, so nothing here needs a lock.
//! * The guest may write any byte of a ring at any time. Whatever it writes, we touch only memory inside its own regions, do
//!   bounded work, and end in a [`RingFault`] at worst: the ring is then broken, once, until the front-end sets it up again.
//! * A split ring starts at the index the guest's used ring shows, so a restart of either side neither repeats nor skips a buffer that
//!   was completed; a packed ring starts where the front-end says.
//! * Used elements are written as buffers are finished and published together, once per batch, in the order the driver made
//!   the buffers available, on every ring: IN_ORDER is offered because of this line.
//!
//! ```text
//!   transmit.rs   what is available, once > [prefetch] > descriptors > [prefetch] > Chains (pieces of guest memory)
//!   receive.rs    the same ahead of need, then one copy into as many buffers as the frame takes
//!   control.rs    one command at a time: bytes read, one byte answered
//!      │ each over either kind of [`Ring`], chosen once a call
//!   split.rs, packed/   where chains are found, how they are given back, who is told of it
//!   chain.rs   from descriptors to pieces, checked       layout.rs   the bytes a split ring shares
//! ```

mod chain;
mod control;
mod layout;
mod packed;
mod receive;
#[cfg(any(test, fuzzing))]
pub mod reference;
mod split;
#[cfg(test)]
mod tests;
mod transmit;

use std::ops::Range;
use std::sync::Arc;

use chain::{Chain, Direction, Walk};
pub use control::{Command, ControlRing};
pub use layout::RingAddresses;
use packed::PackedRing;
pub use receive::{NoRoom, ReceiveRing};
use split::SplitRing;
pub use transmit::{Chains, TransmitRing};

use super::dirty_log::{LogSpec, RingLog};
use super::memory::{GuestMemory, Segment};

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
    /// Zero or above 32768; of a split ring, not a power of two.
    #[error("ring size is zero, above {MAX_SIZE}, or no power of two where it must be")]
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
    /// The front-end has a packed ring begin behind its end.
    #[error("the ring's base is beyond its end")]
    Base,
}

impl RingFault {
    /// All of them; `fault as u8` is its place here plus one.
    pub const ALL: [Self; 13] = [
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
        Self::Base,
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
    /// VIRTIO_F_RING_PACKED was negotiated.
    pub packed: bool,
    /// What SET_VRING_BASE said. Only a packed ring begins there.
    pub base: Option<u32>,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// VIRTIO_F_IN_ORDER was negotiated.
    pub in_order: bool,
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    pub indirect: bool,
    /// Where written pages are marked, while they are (VHOST_F_LOG_ALL).
    pub log: Option<LogSpec>,
}

/// What split and packed rings do each in its own way; what is above is written once over it, and compiled for each.
trait Ring: Sized {
    /// What [`Ring::look`] has found, for [`Ring::chain`].
    type Found: Default;

    /// `direction`: which way its buffers go.
    fn new(spec: &RingSpec, direction: Direction) -> Result<Self, RingFault>;

    /// What its buffers lie in.
    fn memory(&self) -> &Arc<GuestMemory>;

    /// Where buffers that are written are marked, while that is wanted.
    fn log(&mut self) -> Option<(&mut RingLog, &GuestMemory)>;

    /// Brings the lines in that say which chains there are: [`Ring::look`] follows.
    fn expect(&self);

    /// Asks for the line that publishing writes, where that is one of its own.
    #[inline]
    fn expect_to_publish(&self) {}

    /// How many chains there are at most, of [`BATCH`] and `want`, that were not taken; their descriptors are asked for.
    fn look(&self, want: usize, found: &mut Self::Found) -> Result<usize, RingFault>;

    /// Where the chain that is number `index` of those found begins, for a fetch, whose descriptor must have come; `None` where that is not
    /// told before it is taken.
    #[inline]
    fn first_byte(&self, _found: &Self::Found, _index: usize) -> Option<usize> {
        None
    }

    /// Takes the chain that is number `index` of those found: appends it and its pieces; its bytes, saturating. None if it is not there.
    /// The arena has room for [`MAX_PIECES`] more.
    fn chain(
        &mut self,
        found: &Self::Found,
        index: usize,
        walk: &mut Walk,
        to: (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> Result<Option<u32>, RingFault>;

    /// Takes chains, four at a time, from the first of `which` of those found on, as long as four are there and each is one short buffer: appends
    /// them and their pieces; how many, and their bytes. [`Ring::chain`] says what the next one is.
    fn fours(
        &mut self,
        found: &Self::Found,
        which: Range<usize>,
        walk: &Walk,
        to: (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> (usize, usize);

    /// Leaves the chains that were taken last, to be taken anew.
    fn leave(&mut self, chains: &[Chain]);

    /// Gives the oldest chain taken back, `len` bytes written; the driver sees it after [`Ring::publish`].
    fn finish(&mut self, chain: &Chain, len: u32);

    /// Gives the oldest chains taken back, nothing written into any.
    fn finish_unwritten(&mut self, chains: &[Chain]);

    /// Shows the driver what was finished; true if it wants to be told.
    fn publish(&mut self) -> bool;

    /// Asks for kicks; true if something became available meanwhile, so that there will be no kick for it.
    fn want_kicks(&mut self) -> Result<bool, RingFault>;

    /// Asks for none, while we poll.
    fn refuse_kicks(&mut self);

    /// Whether the memory under it, or the dirty log, was cut off.
    fn is_poisoned(&self) -> bool;

    /// Where another owner of the ring goes on, behind what is finished: what GET_VRING_BASE answers.
    fn base(&self) -> u32;

    /// To be asked when a ring is made: what is found cut off then, no worker will look at again.
    fn must_be_whole(&self) -> Result<(), RingFault> {
        if self.is_poisoned() { Err(RingFault::Memory) } else { Ok(()) }
    }
}

/// Something over either kind of ring.
#[derive(Debug)]
enum Either<S, P> {
    Split(S),
    Packed(P),
}

/// The same call, whichever kind of ring it is.
macro_rules! either {
    ($either:expr, $of_each:ident => $call:expr) => {
        match $either {
            crate::device::ring::Either::Split($of_each) => $call,
            crate::device::ring::Either::Packed($of_each) => $call,
        }
    };
}
use either;
