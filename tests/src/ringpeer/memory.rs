//! A guest's memory: one memfd, two regions with a hole between them, as a PC has.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost_frontend::VhostUserMemoryRegionInfo;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Where rings live: bytes of the lower region, which begins at guest-physical address 0.
pub const LOW: u64 = 4 << 20;

/// Where buffers live: above the hole below 4 GiB.
pub const HIGH_START: u64 = 4 << 30;

/// Bytes of the upper region. The file is sparse: what is never touched costs nothing.
pub const HIGH: u64 = 256 << 20;

/// Guest memory, and a cursor that gives out parts of it.
#[derive(Clone)]
pub struct Memory {
    /// As the guest addresses it.
    pub map: Arc<GuestMemoryMmap>,
    /// What both regions are parts of: the lower one, then the upper.
    pub file: Arc<File>,
    next_low: u64,
    next_high: u64,
}

impl Memory {
    /// Makes a sealed memfd, as QEMU does, and maps it.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does.
    pub fn new() -> Result<Memory> {
        let memory = Memory::unsealed()?;
        fcntl_add_seals(&memory.file, SealFlags::GROW | SealFlags::SHRINK)?;
        Ok(memory)
    }

    /// Makes a memfd whose owner may still shorten it, as cloud-hypervisor does.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does.
    pub fn unsealed() -> Result<Memory> {
        let file = file(LOW + HIGH)?;
        let part = |start, bytes: u64, offset| -> Result<_> {
            Ok((
                GuestAddress(start),
                usize::try_from(bytes)?,
                Some(FileOffset::new(file.try_clone()?, offset)),
            ))
        };
        let map = GuestMemoryMmap::from_ranges_with_files([part(0, LOW, 0)?, part(HIGH_START, HIGH, LOW)?])?;
        // Address 0 is never given out: it is what a bug would read.
        Ok(Memory { map: Arc::new(map), file: Arc::new(file), next_low: 0x1000, next_high: HIGH_START })
    }

    /// `bytes` for a ring, aligned to a page.
    ///
    /// # Errors
    ///
    /// Fails when the lower region is used up.
    pub fn for_ring(&mut self, bytes: u64) -> Result<GuestAddress> {
        take(&mut self.next_low, bytes, LOW)
    }

    /// `bytes` for buffers, aligned to a page.
    ///
    /// # Errors
    ///
    /// Fails when the upper region is used up.
    pub fn for_buffers(&mut self, bytes: u64) -> Result<GuestAddress> {
        take(&mut self.next_high, bytes, HIGH_START + HIGH)
    }

    /// What `length` bytes from `start` on are at this moment.
    ///
    /// # Errors
    ///
    /// Fails when they are not in guest memory.
    pub fn bytes(&self, start: GuestAddress, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length)?];
        self.map.read_slice(&mut bytes, start)?;
        Ok(bytes)
    }

    /// The memory as a front-end tells it: for SET_MEM_TABLE.
    ///
    /// # Errors
    ///
    /// Fails when a region has no file; all have.
    pub fn regions(&self) -> Result<Vec<VhostUserMemoryRegionInfo>> {
        let told = |region: &vm_memory::GuestRegionMmap| -> Result<_> {
            let file = region.file_offset().context("memory without a file")?;
            Ok(VhostUserMemoryRegionInfo {
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: user(region.start_addr()),
                mmap_offset: file.start(),
                mmap_handle: file.file().as_raw_fd(),
            })
        };
        self.map.iter().map(told).collect()
    }
}

/// The address that the messages of a front-end call its own: any bijection will do, and one that is neither the guest's
/// address nor ours shows who mixes them up.
pub fn user(guest: GuestAddress) -> u64 {
    guest.0 + 0x7000_0000_0000
}

/// A memfd of `bytes`, sparse and unsealed.
///
/// # Errors
///
/// Fails when the kernel does.
pub fn file(bytes: u64) -> Result<File> {
    let file = File::from(memfd_create("ringpeer", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    ftruncate(&file, bytes)?;
    Ok(file)
}

fn take(next: &mut u64, bytes: u64, end: u64) -> Result<GuestAddress> {
    let start = *next;
    let after = (start + bytes).next_multiple_of(0x1000);
    anyhow::ensure!(after <= end, "guest memory is used up");
    *next = after;
    Ok(GuestAddress(start))
}
