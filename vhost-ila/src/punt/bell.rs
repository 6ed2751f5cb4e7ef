//! Wakes one sleeper, at one system call for all that happens between two looks.
//!
//! What must stay true: what was sent before a ring is seen by whoever looks after the [`Bell::hush`] that follows it; a ring after a hush
//! wakes the sleeper. A ring whose write comes late may wake it once in vain, so a sleeper watches edge-triggered or hushes after
//! every wake.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

#[derive(Debug)]
pub(crate) struct Bell {
    event: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { event, rung: AtomicBool::new(false) })
    }

    /// Never blocks.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A counter too full to be written wakes as well.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Whether it rang since the last [`Self::hush`]; one relaxed load.
    #[inline]
    pub(crate) fn rang(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Before looking at what it rang for.
    pub(crate) fn hush(&self) {
        // Ours and non-blocking; an empty counter is no news.
        let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
