//! Pieces of guest memory, and the copies that go in and out of them.
//!
//! What must stay true: guest memory changes under us at any time, so it is only ever copied, never looked at in place, and what
//! was copied is never fetched again. A [`Segment`] is made only by [`super::GuestMemory::piece`], and whoever stores one stores
//! the memory table's `Arc` beside it (`ring::Chains`, `ring::ReceiveRing`).

use std::ptr;

use crate::device::net_header::{self, WireHeader};

/// A run of bytes in one region of guest memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pointer: *mut u8,
    len: u32,
}

// SAFETY: a segment is an address in a mapping kept alive by the `Arc` stored beside it; it is the same address in every thread.
unsafe impl Send for Segment {}

impl Segment {
    pub(super) fn new(pointer: *mut u8, len: u32) -> Self {
        Self { pointer, len }
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Its address here, to prefetch or to hand to a system call.
    #[inline]
    #[must_use]
    pub(crate) fn address(&self) -> *mut u8 {
        self.pointer
    }
}

/// The untouched part of a packet, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a>(Place<'a>);

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    /// Bytes `skip .. skip + len` of what the segments hold.
    Guest {
        segments: &'a [Segment],
        skip: usize,
        len: usize,
    },
    Own(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Bytes of our own.
    #[inline]
    #[must_use]
    pub fn own(bytes: &'a [u8]) -> Self {
        Self(Place::Own(bytes))
    }

    /// Bytes `skip .. skip + len` of what `segments` hold; whoever lends them keeps their memory mapped.
    #[inline]
    pub(crate) fn guest(segments: &'a [Segment], skip: usize, len: usize) -> Self {
        Self(Place::Guest { segments, skip, len })
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self.0 {
            Place::Guest { len, .. } => len,
            Place::Own(bytes) => bytes.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f` with each run of bytes, in order: address and length, all readable until the payload's lifetime ends.
    #[inline]
    pub(crate) fn runs(&self, mut f: impl FnMut(*const u8, usize)) {
        match self.0 {
            Place::Own(bytes) => f(bytes.as_ptr(), bytes.len()),
            Place::Guest { segments, mut skip, len: mut left } => {
                for segment in segments {
                    if left == 0 {
                        return;
                    }
                    if skip >= segment.len() {
                        skip -= segment.len();
                        continue;
                    }
                    let run = (segment.len() - skip).min(left);
                    // SAFETY: skip < segment.len, so the address stays inside the segment.
                    f(unsafe { segment.pointer.add(skip) }, run);
                    left -= run;
                    skip = 0;
                }
            }
        }
    }
}

/// Copies bytes `skip ..` of the segments into `to`; returns how many there were (less than `to` holds if the segments end).
#[inline]
pub(crate) fn copy_out(segments: &[Segment], mut skip: usize, to: &mut [u8]) -> usize {
    let mut done = 0;
    for segment in segments {
        if done == to.len() {
            break;
        }
        if skip >= segment.len() {
            skip -= segment.len();
            continue;
        }
        let run = (segment.len() - skip).min(to.len() - done);
        // SAFETY: source: skip + run <= segment.len, inside a live mapping (module invariant). Target: done + run <= to.len().
        // They cannot overlap: `to` is our own memory, which is in no guest's mapping.
        unsafe { ptr::copy_nonoverlapping(segment.pointer.add(skip), to.as_mut_ptr().add(done), run) };
        done += run;
        skip = 0;
    }
    done
}

/// Where the next byte is written in a receiver's buffers.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    segments: &'a [Segment],
    inside: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(segments: &'a [Segment]) -> Self {
        Self { segments, inside: 0 }
    }

    /// Writes a virtio-net header, mostly at the start of a buffer: then in two stores.
    #[inline]
    pub(crate) fn put_header(&mut self, header: WireHeader) {
        if let Some(segment) = self.segments.first()
            && self.inside == 0
            && segment.len() > net_header::LEN
        {
            let (first, last) = header.to_words();
            // SAFETY: 12 < segment.len, inside a live mapping (module invariant); neither store asks for alignment.
            unsafe {
                segment.pointer.cast::<u64>().write_unaligned(first);
                segment.pointer.add(8).cast::<u32>().write_unaligned(last);
            }
            self.inside = net_header::LEN;
        } else {
            self.put(&header.to_bytes());
        }
    }

    /// Writes `bytes`; what does not fit is not written (the ring has counted the room before).
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.copy(bytes.as_ptr(), bytes.len());
    }

    /// Writes the payload, guest memory to guest memory in one copy.
    #[inline]
    pub(crate) fn put_payload(&mut self, payload: Payload<'_>) {
        payload.runs(|from, len| self.copy(from, len));
    }

    /// `from` must be readable for `len` bytes: private, and both callers hold the memory by a borrow.
    #[inline]
    fn copy(&mut self, mut from: *const u8, mut len: usize) {
        while len > 0 {
            let Some((segment, rest)) = self.segments.split_first() else { return };
            let run = (segment.len() - self.inside).min(len);
            // SAFETY: target: inside + run <= segment.len, inside a live mapping (module invariant). Source: at least `len`
            // readable bytes (this function's contract). They may overlap when a guest sends to itself, hence `copy`.
            unsafe {
                ptr::copy(from, segment.pointer.add(self.inside), run);
                from = from.add(run);
            }
            len -= run;
            self.inside += run;
            if self.inside == segment.len() {
                self.segments = rest;
                self.inside = 0;
            }
        }
    }
}
