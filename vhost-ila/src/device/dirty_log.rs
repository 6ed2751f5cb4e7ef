//! Dirty pages: what we wrote into guest memory, told to the front-end while it migrates the guest (vhost-user, "Migration").
//!
//! What must stay true:
//!
//! * A page is marked after it was written and before the driver is told of what was written; `used.idx` itself after its store. Marks
//!   are atomic ors, as the front-end takes them away at any time; so a mark is never left out because it was made before.
//! * Marks wait only in [`RingLog`], one byte of the log at a time, and are out when a ring is published, stopped or dropped.
//! * A page that the log has no bit for is [`RingFault::Log`]: the ring stops, the page is not forgotten in silence.
//! * While nothing is logged a ring has no [`RingLog`]: a branch per frame and per publication is all it costs.
//!
//! ```text
//!   receive.rs: deliver ── pieces written ──┐   host address > guest address > page
//!   mod.rs: publish ── used elements ───────┼─> RingLog (8 pages of one byte wait) ── fetch_or ──> DirtyLog: the front-end's file
//!           then used.idx, avail_event ─────┘
//! ```

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::memory::{GuestMemory, Mapping, MemoryError, Segment};
use super::ring::RingFault;

/// Bytes of a page of the log, whatever the guest's are (vhost-user: `VHOST_LOG_PAGE`).
pub const LOG_PAGE: u64 = 4096;
/// Largest log in bytes: 32 TiB of guest addresses.
pub const MAX_LOG: u64 = 1 << 30;
/// What any attachment may have for its log: 32 GiB of guest addresses.
const LEAST_MAX: u64 = 1 << 20;

/// Largest log in bytes for an attachment that may map `memory_max` bytes: a thousandth of it, which is 32 times what memory without holes
/// needs.
#[must_use]
pub fn max_log(memory_max: u64) -> u64 {
    (memory_max / 1024).clamp(LEAST_MAX, MAX_LOG)
}

/// Why a SET_LOG_BASE was refused.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be mapped as described.
    #[error("dirty log: {0}")]
    Memory(#[from] MemoryError),
    /// Above [`max_log`].
    #[error("dirty log: {have} bytes, more than the {max} that go with the attachment's `memory_max`")]
    TooLarge {
        /// Its size.
        have: u64,
        /// What it may have.
        max: u64,
    },
    /// Some of the present memory has no bit in it.
    #[error("dirty log: {have} bytes, where the memory needs {need}")]
    TooSmall {
        /// Its size.
        have: u64,
        /// What the highest guest address needs.
        need: u64,
    },
}

/// How many pages were marked that were not, over all logs of an attachment.
#[derive(Clone, Default, Debug)]
pub struct PagesMarked(Arc<AtomicU64>);

impl PagesMarked {
    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A front-end's log: one bit for each page of guest addresses, the first page's the lowest bit of the first byte.
#[derive(Debug)]
pub struct DirtyLog {
    mapping: Mapping,
    bits: *mut u8,
    len: u64,
    marked: PagesMarked,
}

// SAFETY: `bits` points into `mapping`, which lives as long and is the same in every thread; bytes there are only touched atomically.
unsafe impl Send for DirtyLog {}
// SAFETY: as above.
unsafe impl Sync for DirtyLog {}

impl DirtyLog {
    /// Maps bytes `offset .. offset + len` of `file`, which must have a bit for each page of `memory`.
    ///
    /// # Errors
    /// Any [`LogError`]; nothing is mapped then.
    pub fn new(
        file: &File,
        len: u64,
        offset: u64,
        memory: &GuestMemory,
        marked: PagesMarked,
    ) -> Result<Self, LogError> {
        if len == 0 {
            return Err(MemoryError::Empty.into());
        }
        let max = max_log(memory.max_bytes());
        if len > max {
            return Err(LogError::TooLarge { have: len, max });
        }
        let need = memory.end().div_ceil(8 * LOG_PAGE);
        if len < need {
            return Err(LogError::TooSmall { have: len, need });
        }
        let (mapping, bits) = Mapping::new(file, offset, len)?;
        Ok(Self { mapping, bits, len, marked })
    }

    /// Whether the front-end cut off its file.
    pub(super) fn is_poisoned(&self) -> bool {
        self.mapping.is_poisoned()
    }

    /// Sets `bits` in byte `at`; what was written to memory before is visible to whoever finds them set.
    fn set(&self, at: u64, bits: u8) -> Result<(), RingFault> {
        if at >= self.len {
            return Err(RingFault::Log);
        }
        let at = usize::try_from(at).map_err(|_| RingFault::Log)?;
        // SAFETY: at < len, all of which `Mapping::new` mapped from `bits` on; the front-end changes the same byte, which an
        // atomic is for.
        let before = unsafe { AtomicU8::from_ptr(self.bits.add(at)) }.fetch_or(bits, Ordering::Release);
        let new = (bits & !before).count_ones();
        if new > 0 {
            self.marked.0.fetch_add(u64::from(new), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What a ring that logs is told.
#[derive(Clone, Debug)]
pub struct LogSpec {
    /// Where it marks.
    pub log: Arc<DirtyLog>,
    /// The guest address that its used ring is logged at (SET_VRING_ADDR with VHOST_VRING_F_LOG); its own where None.
    pub used: Option<u64>,
}

/// One ring's way to the log.
#[derive(Debug)]
pub(super) struct RingLog {
    log: Arc<DirtyLog>,
    /// Guest address of the used ring, as far as the log is concerned.
    used: u64,
    /// The byte of the log that marks wait for, and the marks.
    waiting: (u64, u8),
    /// The region that answered last.
    last: usize,
}

impl RingLog {
    /// For a used ring of `len` bytes that lies at `used` here.
    ///
    /// # Errors
    /// [`RingFault::Log`] if its last byte has no bit.
    pub(super) fn new(
        spec: &LogSpec,
        memory: &GuestMemory,
        used: *const u8,
        len: u64,
    ) -> Result<Self, RingFault> {
        let mut last = 0;
        let used = match spec.used {
            Some(address) => address,
            None => memory.guest_address(used, &mut last).ok_or(RingFault::Log)?,
        };
        let end = used.checked_add(len).ok_or(RingFault::Log)?;
        if end.div_ceil(8 * LOG_PAGE) > spec.log.len {
            return Err(RingFault::Log);
        }
        Ok(Self { log: Arc::clone(&spec.log), used, waiting: (0, 0), last })
    }

    /// Marks the first `len` bytes of what `pieces` hold.
    #[cold]
    pub(super) fn wrote(
        &mut self,
        memory: &GuestMemory,
        pieces: &[Segment],
        mut len: usize,
    ) -> Result<(), RingFault> {
        for piece in pieces {
            if len == 0 {
                break;
            }
            let run = piece.len().min(len);
            let at = memory.guest_address(piece.address(), &mut self.last).ok_or(RingFault::Log)?;
            self.mark(at, run as u64)?;
            len -= run;
        }
        Ok(())
    }

    /// Marks bytes `offset .. offset + len` of the used ring and lets nothing wait any longer.
    #[cold]
    pub(super) fn wrote_used(&mut self, offset: u64, len: u64) {
        // Cannot fail: `new` found a bit for the ring's last byte.
        let _ = self.mark(self.used.saturating_add(offset), len);
        self.flush();
    }

    /// Whether the log's file was cut off.
    pub(super) fn is_poisoned(&self) -> bool {
        self.log.is_poisoned()
    }

    /// Marks the pages of `len` bytes from guest address `at` on; bounded by what a frame or a ring holds.
    fn mark(&mut self, at: u64, len: u64) -> Result<(), RingFault> {
        let Some(more) = len.checked_sub(1) else { return Ok(()) };
        let last = at.checked_add(more).ok_or(RingFault::Log)? / LOG_PAGE;
        if last / 8 >= self.log.len {
            return Err(RingFault::Log);
        }
        for page in at / LOG_PAGE..=last {
            if self.waiting.0 != page / 8 {
                self.flush();
                self.waiting.0 = page / 8;
            }
            self.waiting.1 |= 1 << (page % 8);
        }
        Ok(())
    }

    fn flush(&mut self) {
        let (byte, bits) = self.waiting;
        if bits != 0 {
            // Cannot fail: `mark` has compared it with the log's length.
            let _ = self.log.set(byte, bits);
            self.waiting.1 = 0;
        }
    }
}

impl Drop for RingLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
