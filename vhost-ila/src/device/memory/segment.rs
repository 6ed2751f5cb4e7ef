//! Pieces of guest memory, and the copies that go in and out of them.
//!
//! What must stay true: guest memory changes under us at any time, so it is only ever copied, never looked at in place, and what
//! was copied is never fetched again. A [`Segment`] is made only by [`super::GuestMemory::piece`], and whoever stores one stores
//! the memory table's `Arc` beside it (`ring::Chains`, `ring::ReceiveRing`).
//!
//! Most frames are short, and so are their heads: what fits some registers is copied by [`copy_bytes`] without a call, which would
//! cost as much as all of the bytes.

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

    /// Copies its first bytes into `to`; returns how many there were.
    #[inline(always)]
    pub(crate) fn copy_head<const N: usize>(&self, to: &mut [u8; N]) -> usize {
        let len = self.len().min(N);
        // SAFETY: len bytes are inside a live mapping (module invariant), and in `to`.
        unsafe { copy_bytes(self.pointer, to.as_mut_ptr(), len) };
        len
    }

    /// Writes a virtio-net header, `head`, and `tail`, where all of it fits; else nothing, and false.
    #[inline(always)]
    pub(crate) fn write_frame(&self, header: WireHeader, head: &[u8], tail: Payload<'_>) -> bool {
        let (at_head, at_tail) = (net_header::LEN, net_header::LEN + head.len());
        if at_tail + tail.len() > self.len() {
            return false;
        }
        let (first, last) = header.to_words();
        let mut at = at_tail;
        // SAFETY: header, head and tail end at most at segment.len, inside a live mapping (module invariant); neither store asks for
        // alignment; what a payload lends is readable.
        unsafe {
            self.pointer.cast::<u64>().write_unaligned(first);
            self.pointer.add(8).cast::<u32>().write_unaligned(last);
            copy_bytes(head.as_ptr(), self.pointer.add(at_head), head.len());
        }
        tail.runs(|from, len| {
            // SAFETY: as above: the runs come to tail.len() bytes at most.
            unsafe { copy_bytes(from, self.pointer.add(at), len) };
            at += len;
        });
        true
    }

    /// Writes the first `len` bytes of `frame`, where there are so many and all of it fits; else nothing, and false.
    #[inline(always)]
    pub(crate) fn write_short<const N: usize>(&self, frame: &[u8; N], len: usize) -> bool {
        if len > N || len > self.len() {
            return false;
        }
        // SAFETY: len <= segment.len, inside a live mapping (module invariant), and len <= N.
        unsafe { copy_bytes(frame.as_ptr(), self.pointer, len) };
        true
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
    /// What was copied already, then bytes `skip .. skip + len` of what the segments hold.
    Guest {
        copied: &'a [u8],
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

    /// Bytes that were copied, then bytes `skip .. skip + len` of what `segments` hold; whoever lends them keeps their memory mapped.
    #[inline]
    pub(crate) fn guest(copied: &'a [u8], segments: &'a [Segment], skip: usize, len: usize) -> Self {
        Self(Place::Guest { copied, segments, skip, len })
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self.0 {
            Place::Guest { copied, len, .. } => copied.len() + len,
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
            Place::Guest { copied, segments, mut skip, len: mut left } => {
                if !copied.is_empty() {
                    f(copied.as_ptr(), copied.len());
                }
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
        unsafe { copy_bytes(segment.pointer.add(skip), to.as_mut_ptr().add(done), run) };
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
            // readable bytes (this function's contract).
            unsafe {
                copy_bytes(from, segment.pointer.add(self.inside), run);
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

/// Bytes that a processor moves at once.
const WORD: usize = 16;

/// The longest run that is copied word by word; longer ones are worth the call.
const SHORT: usize = 160;

/// Copies `len` bytes. Should both overlap, as when a guest sends to itself, the target holds bytes of the source, in an order that is nobody
/// else's concern.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes.
#[inline(always)]
unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    if !(WORD..=SHORT).contains(&len) {
        // SAFETY: the caller's.
        return unsafe { copy_call(from, to, len) };
    }
    // From both ends to the middle, where they overlap, so that there is neither a rest nor a loop.
    // SAFETY: len is at least as many words as are copied from either end, and at most twice as many.
    unsafe {
        if len <= 2 * WORD {
            copy_ends::<1>(from, to, len);
        } else if len <= 4 * WORD {
            copy_ends::<2>(from, to, len);
        } else if len <= 6 * WORD {
            copy_ends::<3>(from, to, len);
        } else {
            copy_ends::<{ SHORT / WORD / 2 }>(from, to, len);
        }
    }
}

/// # Safety
/// As for [`copy_bytes`], and `len` is at least `WORDS` words; all of it is copied if it is at most twice as much.
#[inline(always)]
unsafe fn copy_ends<const WORDS: usize>(from: *const u8, to: *mut u8, len: usize) {
    let behind = len - WORDS * WORD;
    for at in (0..WORDS).map(|word| word * WORD) {
        // SAFETY: at + WORD <= WORDS * WORD <= len, and behind is what is left of it.
        unsafe {
            copy_word(from.add(at), to.add(at));
            copy_word(from.add(behind + at), to.add(behind + at));
        }
    }
}

/// # Safety
/// `from` is readable and `to` writable for [`WORD`] bytes.
#[inline(always)]
unsafe fn copy_word(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's; an array of bytes needs no alignment. Loaded whole before it is stored, so they may overlap.
    unsafe { to.cast::<[u8; WORD]>().write(from.cast::<[u8; WORD]>().read()) };
}

/// # Safety
/// As for [`copy_bytes`].
#[inline(never)]
unsafe fn copy_call(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's; `copy` minds overlaps.
    unsafe { ptr::copy(from, to, len) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole_and_nothing_behind_it() {
        let from: Vec<u8> = (0..400).map(|n| n as u8 | 1).collect();
        for len in 0..400 {
            let mut to = vec![0; 402];
            // SAFETY: both are as long.
            unsafe { copy_bytes(from.as_ptr(), to.as_mut_ptr().add(1), len) };
            assert_eq!(to[0], 0);
            assert_eq!(to[1..=len], from[..len]);
            assert!(to[len + 1..].iter().all(|byte| *byte == 0), "{len}");
        }
    }
}
