//! The front-end's side of dirty logging: a file of bits, one for each page of 4096 bytes, that the daemon sets.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_frontend::{VhostBackend, VhostUserDirtyLogRegion};

use super::memory::{HIGH, HIGH_START};
use super::{LOG_ALL, PROTOCOL_FEATURES, Peer, RX, TX};

/// Bytes of a page of the log.
pub const PAGE: u64 = 4096;

/// A log that has bits for all of a peer's memory, and for as much above it as hot-added memory may take.
pub const WHOLE: u64 = 2 * (HIGH_START + HIGH) / PAGE / 8;

/// A log.
pub struct DirtyLog {
    /// What SET_LOG_BASE passes.
    pub file: File,
    bytes: u64,
}

impl DirtyLog {
    /// A log of so many bytes, nothing marked.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does.
    pub fn new(bytes: u64) -> Result<DirtyLog> {
        let file = File::from(memfd_create("dirty-log", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, bytes)?;
        Ok(DirtyLog { file, bytes })
    }

    /// A log in a file of the caller's.
    pub fn of(file: File, bytes: u64) -> DirtyLog {
        DirtyLog { file, bytes }
    }

    /// The pages that are marked.
    ///
    /// # Errors
    ///
    /// Fails when the file was cut off.
    pub fn marked(&self) -> Result<BTreeSet<u64>> {
        let mut bytes = vec![0; usize::try_from(self.bytes)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        let set = |(byte, bits): (u64, u8)| {
            (0..8).filter(move |bit| bits & 1 << bit != 0).map(move |bit| 8 * byte + bit)
        };
        Ok((0..).zip(bytes).filter(|(_, bits)| *bits != 0).flat_map(set).collect())
    }

    fn region(&self) -> VhostUserDirtyLogRegion {
        VhostUserDirtyLogRegion { mmap_size: self.bytes, mmap_offset: 0, mmap_handle: self.file.as_raw_fd() }
    }
}

impl Peer {
    /// Has the daemon mark what it writes in `log`, from now on or from [`Peer::attach`] on; a second log takes the place of the first.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses.
    pub fn log_into(&mut self, log: DirtyLog) -> Result<()> {
        let log = self.log.insert(log);
        if let Some(frontend) = &self.frontend {
            frontend.set_log_base(0, Some(log.region()))?;
            self.tell_logging()?;
        }
        Ok(())
    }

    /// Ends logging, as a migration that is done or given up does; returns the log.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses, or there is none.
    pub fn stop_logging(&mut self) -> Result<DirtyLog> {
        let log = self.log.take().context("nothing is logged")?;
        self.tell_logging()?;
        Ok(log)
    }

    /// The log, while there is one.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn log(&self) -> Result<&DirtyLog> {
        self.log.as_ref().context("nothing is logged")
    }

    /// SET_FEATURES and SET_VRING_ADDR, as QEMU sends them when logging begins or ends.
    fn tell_logging(&self) -> Result<()> {
        let Some(frontend) = &self.frontend else { return Ok(()) };
        let log_all = if self.log.is_some() { LOG_ALL } else { 0 };
        frontend.set_features(self.options.features | PROTOCOL_FEATURES | log_all)?;
        for (index, ring) in [(RX, &self.rx), (TX, &self.tx)] {
            let config = if self.log.is_some() { ring.logged_config() } else { ring.config() };
            frontend.set_vring_addr(index, &config)?;
        }
        Ok(())
    }

    /// The log, told last: QEMU's order when a device starts in the middle of a migration.
    pub(super) fn tell_log(&self) -> Result<()> {
        let (Some(frontend), Some(log)) = (&self.frontend, &self.log) else { return Ok(()) };
        Ok(frontend.set_log_base(0, Some(log.region()))?)
    }
}
