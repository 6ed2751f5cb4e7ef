//! One mapping of a front-end's file, alive for as long as anything points into it.
//!
//! What must stay true:
//!
//! * Only memory is mapped (tmpfs, memfd, hugetlbfs), so that a page fault waits for nobody.
//! * Nothing is mapped beyond the file's end as it was when mapped (`fstat`), and what a front-end cuts off later is caught by
//!   [`super::sigbus`], so that no page fault of ours ends the process.
//! * The mapping is removed when the last [`Mapping`] handle goes, never before.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use super::MemoryError;
use super::sigbus;

/// `RAMFS_MAGIC` of linux/magic.h, which `libc` lacks.
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// A shared read-write mapping of part of a file; unmapped on drop.
#[derive(Debug)]
pub(in crate::device) struct Mapping {
    base: *mut u8,
    len: usize,
    watch: Option<sigbus::Watch>,
}

// SAFETY: a mapping is an address range of the process, the same in every thread; access to its bytes is by raw pointer and
// each such access states its own reason.
unsafe impl Send for Mapping {}
// SAFETY: as above; the handle itself is immutable.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps bytes `offset .. offset + len` of `file` and returns the mapping and where byte `offset` lies in it.
    pub(in crate::device) fn new(file: &File, offset: u64, len: u64) -> Result<(Self, *mut u8), MemoryError> {
        let end = offset.checked_add(len).ok_or(MemoryError::Overflow)?;
        let metadata = file.metadata().map_err(MemoryError::Io)?;
        if !metadata.is_file() {
            return Err(MemoryError::NotAFile);
        }
        // A page of a disk or of a user's own file system comes when that pleases, and the worker, who touches it, would wait.
        let kind = rustix::fs::fstatfs(file).map_err(io::Error::from).map_err(MemoryError::Io)?.f_type;
        if ![libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC, RAMFS_MAGIC].contains(&kind) {
            return Err(MemoryError::NotMemory);
        }
        if metadata.len() < end {
            return Err(MemoryError::ShortFile { file: metadata.len(), end });
        }
        let page = page_size(file)?;
        let start = offset - offset % page;
        let map_end = end.checked_next_multiple_of(page).ok_or(MemoryError::Overflow)?;
        let map_len = usize::try_from(map_end - start).map_err(|_| MemoryError::Overflow)?;
        let file_offset = libc::off_t::try_from(start).map_err(|_| MemoryError::Overflow)?;
        // SAFETY: a fresh mapping at an address the kernel chooses touches no memory of ours; the result is checked.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                file_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(MemoryError::Io(io::Error::last_os_error()));
        }
        let base = base.cast::<u8>();
        let mut mapping = Self { base, len: map_len, watch: None };
        mapping.watch = Some(sigbus::Watch::new(base as usize, map_len));
        let inside = usize::try_from(offset - start).map_err(|_| MemoryError::Overflow)?;
        // SAFETY: inside < page <= map_len, so the result stays within the mapping just made.
        let host = unsafe { base.add(inside) };
        Ok((mapping, host))
    }

    /// Whether the file was cut off under us: its bytes are zeros of our own now and nobody else sees what is written.
    pub(in crate::device) fn is_poisoned(&self) -> bool {
        self.watch.as_ref().is_some_and(sigbus::Watch::is_poisoned)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.watch = None;
        // SAFETY: base and len are those of a successful mmap, unmapped only here; whoever holds pointers into it also holds an
        // Arc of this mapping (see `GuestMemory`), so nobody does any more. (A
        // `DirtyLog` owns its mapping outright.)
        unsafe {
            libc::munmap(self.base.cast(), self.len);
        }
    }
}

/// The page size a mapping of `file` is made of: the huge page size on hugetlbfs.
fn page_size(file: &File) -> Result<u64, MemoryError> {
    // SAFETY: zeroed is a valid statfs (plain integers), and fstatfs fills it or fails.
    let (rc, fs) = unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &raw mut fs), fs)
    };
    if rc != 0 {
        return Err(MemoryError::Io(io::Error::last_os_error()));
    }
    // SAFETY: sysconf reads a constant of the system.
    let base = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(4096);
    if fs.f_type == libc::HUGETLBFS_MAGIC {
        let huge = u64::try_from(fs.f_bsize).unwrap_or(base);
        return Ok(if huge.is_power_of_two() { huge.max(base) } else { base });
    }
    Ok(base)
}
