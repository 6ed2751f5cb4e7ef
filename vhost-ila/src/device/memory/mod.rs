//! Guest memory as one front-end shares it: a small table of regions, each a mapping of a file the front-end passed.
//!
//! What must stay true:
//!
//! * A translated range lies wholly inside one region's mapping; a guest range that crosses regions is handed out in pieces, and
//!   one that touches a hole not at all. Every length is checked with its address, zero lengths included.
//! * Regions never overlap, neither as the guest counts (`gpa`) nor as the front-end does (`uva`), and no sum of theirs overflows.
//! * A table is immutable. Control changes build a new one; a mapping lives until the last table and ring that use it are gone.
//! * Counts and bytes are capped per attachment ([`MAX_REGIONS`], [`GuestMemory::of_at_most`]): maps are a resource of the whole
//!   process, and pages that we touch first may be charged to us.

mod mapping;
pub mod pages;
mod segment;
mod sigbus;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::sync::Arc;

pub(in crate::device) use mapping::Mapping;
pub use segment::Payload;
pub(crate) use segment::{Cursor, Segment, copy_out};
pub(crate) use sigbus::poisoned_mappings;

/// Regions one attachment may map: what we answer to GET_MAX_MEM_SLOTS.
pub const MAX_REGIONS: usize = 64;
/// Bytes one attachment may map, where its configuration does not say less.
pub const MAX_BYTES: u64 = 4 << 40;

/// The most bytes of a buffer that is short: a [`Window`] finds no others.
pub(crate) const SHORT: u32 = 4096;

/// Why a region was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Address, offset and size do not fit in 64 bits.
    #[error("address, offset or size overflows")]
    Overflow,
    /// A region of no bytes.
    #[error("region of size zero")]
    Empty,
    /// The descriptor is a directory, pipe, socket or device.
    #[error("memory descriptor is not a regular file")]
    NotAFile,
    /// The file's pages are brought by somebody else than the kernel's memory: a disk, or a user's daemon.
    #[error("memory descriptor is not of memory: use memfd, tmpfs or hugetlbfs")]
    NotMemory,
    /// The file ends before the region does: touching it would raise SIGBUS.
    #[error("file of {file} bytes is shorter than the region's end at {end}")]
    ShortFile {
        /// Size of the file in bytes.
        file: u64,
        /// Where the region ends in it.
        end: u64,
    },
    /// Shares guest or front-end addresses with another region.
    #[error("region overlaps another")]
    Overlap,
    /// More than [`MAX_REGIONS`].
    #[error("more than {MAX_REGIONS} regions")]
    TooManyRegions,
    /// More than the attachment may map, in bytes.
    #[error("more than {0} bytes in all: the attachment's `memory_max`")]
    TooManyBytes(u64),
    /// No such region to remove.
    #[error("no such region")]
    Unknown,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A region as a front-end describes it (vhost-user, "Memory region description"): all in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionSpec {
    /// Guest physical address.
    pub gpa: u64,
    /// Address in the front-end's process; ring addresses are given in these.
    pub uva: u64,
    /// Size.
    pub len: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

#[derive(Clone, Debug)]
struct Region {
    spec: RegionSpec,
    host: *mut u8,
    mapping: Arc<Mapping>,
}

// SAFETY: `host` points into `mapping`, which the region keeps alive and which is the same in every thread.
unsafe impl Send for Region {}
// SAFETY: as above; a region is immutable.
unsafe impl Sync for Region {}

/// One region, without its end, where a short buffer may go on beyond it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    begin: u64,
    /// The region's bytes but [`SHORT`].
    reach: u64,
    host: *mut u8,
}

impl Window {
    /// The pieces that four guest ranges (address, bytes) are, if each has from one byte to [`SHORT`] and begins in the window.
    #[inline(always)]
    pub(crate) fn four(&self, [a, b, c, d]: [(u64, u32); 4]) -> Option<[Segment; 4]> {
        // A length of zero becomes the greatest of all.
        let longest =
            (a.1.wrapping_sub(1)) | (b.1.wrapping_sub(1)) | (c.1.wrapping_sub(1)) | (d.1.wrapping_sub(1));
        let inside = |(gpa, _): (u64, u32)| gpa.wrapping_sub(self.begin);
        let starts = [inside(a), inside(b), inside(c), inside(d)];
        if longest >= SHORT || starts.iter().any(|start| *start > self.reach) {
            return None;
        }
        // SAFETY: start <= reach and 1 <= len <= SHORT, so start + len is at most the region's bytes, mapped from `host` on.
        let piece = |start: u64, len| Segment::new(unsafe { self.host.add(start as usize) }, len);
        Some([piece(starts[0], a.1), piece(starts[1], b.1), piece(starts[2], c.1), piece(starts[3], d.1)])
    }
}

const _: () = assert!(
    SHORT.is_power_of_two(),
    "so that the greatest of four lengths less one can be taken by their bits"
);

/// The regions of one attachment, sorted by guest address.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    regions: Vec<Region>,
    max: u64,
}

impl Default for GuestMemory {
    fn default() -> Self {
        Self::of_at_most(MAX_BYTES)
    }
}

impl GuestMemory {
    /// A table without regions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A table without regions, to which at most `max` bytes can be added in all; never more than [`MAX_BYTES`].
    #[must_use]
    pub fn of_at_most(max: u64) -> Self {
        Self { regions: Vec::new(), max: max.min(MAX_BYTES) }
    }

    /// This table and one region more.
    ///
    /// # Errors
    /// Any [`MemoryError`]; the file is closed either way (a mapping does not need it).
    pub fn with(&self, spec: RegionSpec, file: &File) -> Result<Self, MemoryError> {
        if spec.len == 0 {
            return Err(MemoryError::Empty);
        }
        let ends = (spec.gpa.checked_add(spec.len), spec.uva.checked_add(spec.len));
        let (Some(gpa_end), Some(uva_end)) = ends else { return Err(MemoryError::Overflow) };
        if self.regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooManyRegions);
        }
        let mapped: u64 = self.regions.iter().map(|r| r.spec.len).sum();
        if spec.len > self.max || mapped > self.max - spec.len {
            return Err(MemoryError::TooManyBytes(self.max));
        }
        let overlaps = |r: &Region| {
            (spec.gpa < r.spec.gpa + r.spec.len && r.spec.gpa < gpa_end)
                || (spec.uva < r.spec.uva + r.spec.len && r.spec.uva < uva_end)
        };
        if self.regions.iter().any(overlaps) {
            return Err(MemoryError::Overlap);
        }
        let (mapping, host) = Mapping::new(file, spec.offset, spec.len)?;
        let mut regions = self.regions.clone();
        let at = regions.partition_point(|r| r.spec.gpa < spec.gpa);
        regions.insert(at, Region { spec, host, mapping: Arc::new(mapping) });
        Ok(Self { regions, max: self.max })
    }

    /// This table without the region that has `spec`'s addresses and size (its offset is not compared: front-ends differ).
    ///
    /// # Errors
    /// [`MemoryError::Unknown`].
    pub fn without(&self, spec: &RegionSpec) -> Result<Self, MemoryError> {
        let same = |r: &Region| (r.spec.gpa, r.spec.uva, r.spec.len) == (spec.gpa, spec.uva, spec.len);
        let at = self.regions.iter().position(same).ok_or(MemoryError::Unknown)?;
        let mut regions = self.regions.clone();
        regions.remove(at);
        Ok(Self { regions, max: self.max })
    }

    /// How many regions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// How many bytes may be added in all.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Whether a front-end cut off a file under any region.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.regions.iter().any(|r| r.mapping.is_poisoned())
    }

    /// The first piece of guest range `gpa .. gpa + len`: at most `len` bytes, at least one, all in one region.
    ///
    /// `last` is the caller's memory of which region answered last time. None for a hole, and for `len` zero.
    #[inline]
    pub(crate) fn piece(&self, gpa: u64, len: u32, last: &mut usize) -> Option<Segment> {
        if len == 0 {
            return None;
        }
        let region = match self.regions.get(*last) {
            Some(r) if gpa.wrapping_sub(r.spec.gpa) < r.spec.len => r,
            _ => {
                *last = self.regions.iter().position(|r| gpa.wrapping_sub(r.spec.gpa) < r.spec.len)?;
                self.regions.get(*last)?
            }
        };
        let inside = gpa - region.spec.gpa;
        let left = region.spec.len - inside;
        let len = u32::try_from(left).map_or(len, |left| len.min(left));
        // SAFETY: inside < spec.len, and the mapping holds spec.len bytes from `host` on (checked by `Mapping::new`).
        let pointer = unsafe { region.host.add(usize::try_from(inside).ok()?) };
        Some(Segment::new(pointer, len))
    }

    /// The region that `last` names, to find several short buffers in; None if it is not longer than those.
    #[inline]
    pub(crate) fn window(&self, last: usize) -> Option<Window> {
        let region = self.regions.get(last)?;
        let reach = region.spec.len.checked_sub(SHORT.into())?;
        Some(Window { begin: region.spec.gpa, reach, host: region.host })
    }

    /// The guest address of a byte of this memory, from its address here; `last` as for [`Self::piece`].
    pub(in crate::device) fn guest_address(&self, host: *const u8, last: &mut usize) -> Option<u64> {
        let inside = |r: &Region| {
            let inside = (host as u64).wrapping_sub(r.host as u64);
            (inside < r.spec.len).then(|| r.spec.gpa + inside)
        };
        if let Some(address) = self.regions.get(*last).and_then(inside) {
            return Some(address);
        }
        let (at, address) = self.regions.iter().enumerate().find_map(|(at, r)| Some((at, inside(r)?)))?;
        *last = at;
        Some(address)
    }

    /// The guest address behind the last byte.
    pub(in crate::device) fn end(&self) -> u64 {
        self.regions.last().map_or(0, |r| r.spec.gpa + r.spec.len)
    }

    /// Where the front-end's range `uva .. uva + len` lies here, if it is wholly in one region.
    pub(crate) fn ring_part(&self, uva: u64, len: u64) -> Option<*mut u8> {
        let region = self.regions.iter().find(|r| uva.wrapping_sub(r.spec.uva) < r.spec.len)?;
        let inside = uva - region.spec.uva;
        if len > region.spec.len - inside {
            return None;
        }
        // SAFETY: inside + len <= spec.len, all of it mapped from `host` on.
        Some(unsafe { region.host.add(usize::try_from(inside).ok()?) })
    }
}
