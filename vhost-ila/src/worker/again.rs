//! Frames the core wants to see differently first: whole, with the checksum complete, or in segments.
//!
//! What must stay true: each of the three happens at most once per frame and a frame comes to at most [`MAX_SEGMENTS`] segments, so
//! the work per frame is bounded; a segment that asks again is dropped.

use nve_core::DropReason;
use nve_core::packet::finish::{Segments, complete_checksum};
use nve_core::packet::{Frame, MAX_FRAME};
use nve_core::pipeline::{Again, Fate, Origin, Scratch};

use super::batch::pieces;
use super::delivery::{Outlets, Source};

/// Most segments of one super-packet: 64 KiB in segments of 128 bytes. Linux never cuts smaller ones (its least MSS with options
/// is 48 only where a peer asks for it), and a guest that says `gso_size = 1` must not keep the worker from its neighbours.
const MAX_SEGMENTS: usize = 512;

/// A worker's buffers for frames that lie in one piece.
pub(super) struct Linear {
    whole: Vec<u8>,
    segment: Vec<u8>,
}

impl Linear {
    pub(super) fn new() -> Self {
        Self { whole: vec![0; MAX_FRAME], segment: vec![0; MAX_FRAME] }
    }

    /// Does what the core asked of `frame`, asks again, and carries out the answer.
    pub(super) fn again(
        &mut self,
        out: &mut Outlets,
        origin: Origin,
        frame: &Frame<'_>,
        again: Again,
        scratch: &mut Scratch,
        source: Source<'_>,
    ) {
        let Some(whole) = self.whole.get_mut(..frame.len) else {
            return out.walker.dropped(origin, DropReason::Malformed);
        };
        if source.linearise(whole) != frame.len {
            return out.walker.dropped(origin, DropReason::Malformed);
        }
        let again = match again {
            Again::Whole => {
                let frame = Frame { head: whole, ..*frame };
                match out.walker.walk(origin, &frame, scratch) {
                    Fate::Again(again) => again,
                    fate => return pieces(out, origin, &frame, &fate, scratch, Source::Own(whole)),
                }
            }
            other => other,
        };
        let finished = match again {
            Again::Checksum => checksum(out, origin, frame, whole, scratch),
            Again::Segments => segments(out, origin, frame, whole, &mut self.segment, scratch),
            // It was whole already.
            Again::Whole => Err(DropReason::BadOffload),
        };
        if let Err(reason) = finished {
            out.walker.dropped(origin, reason);
        }
    }
}

/// Completes the checksum in place and brings the frame once more.
fn checksum(
    out: &mut Outlets,
    origin: Origin,
    frame: &Frame<'_>,
    whole: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), DropReason> {
    let offload = complete_checksum(whole, origin.ip_offset(), frame.offload)?;
    let finished = Frame { head: whole, len: whole.len(), offload };
    once_more(out, origin, &finished, scratch)
}

/// Brings each segment; the super-packet itself is not counted again by anything here.
fn segments(
    out: &mut Outlets,
    origin: Origin,
    frame: &Frame<'_>,
    whole: &[u8],
    buffer: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), DropReason> {
    let size = frame.offload.gso.map_or(0, |gso| usize::from(gso.size));
    if whole.len() > size.saturating_mul(MAX_SEGMENTS) {
        return Err(DropReason::BadOffload);
    }
    let mut segments = Segments::new(whole, origin.ip_offset(), frame.offload)?;
    while let Some(len) = segments.next_into(buffer) {
        let bytes = buffer.get(..len).unwrap_or_default();
        if let Err(reason) = once_more(out, origin, &Frame::whole(bytes), scratch) {
            out.walker.dropped(origin, reason);
        }
    }
    Ok(())
}

/// Walks a frame that is whole and finished, and carries out what becomes of it.
fn once_more(
    out: &mut Outlets,
    origin: Origin,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<(), DropReason> {
    match out.walker.walk(origin, frame, scratch) {
        Fate::Again(_) => Err(DropReason::BadOffload),
        fate => {
            pieces(out, origin, frame, &fate, scratch, Source::Own(frame.head));
            Ok(())
        }
    }
}
