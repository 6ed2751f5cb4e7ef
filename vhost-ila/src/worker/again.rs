//! Frames the core wants to see differently first: whole, with the checksum complete, or in segments.
//!
//! What must stay true: each of the three happens at most once per frame, so the work per frame is bounded; a segment that asks
//! again is dropped.

use nve_core::DropReason;
use nve_core::packet::{Frame, MAX_FRAME};
use nve_core::pipeline::{Again, Fate, Origin, Scratch};

use super::batch::pieces;
use super::delivery::{Outlets, Source};

/// Turns one frame can take: whole, then summed or segmented.
const TURNS: usize = 3;

/// A worker's buffers for frames that lie in one piece.
pub(super) struct Linear {
    whole: Vec<u8>,
}

impl Linear {
    pub(super) fn new() -> Self {
        Self { whole: vec![0; MAX_FRAME + 64] }
    }

    /// Does what the core asked of `frame`, asks again, and carries out the answer.
    pub(super) fn again(
        &mut self,
        out: &mut Outlets,
        origin: Origin,
        frame: &Frame<'_>,
        mut again: Again,
        scratch: &mut Scratch,
        source: Source<'_>,
    ) {
        let len = source.linearise(&mut self.whole);
        if len != frame.len {
            return out.walker.dropped(origin, DropReason::Malformed);
        }
        let offload = frame.offload;
        for _ in 0..TURNS {
            match again {
                Again::Whole => {}
                Again::Checksum | Again::Segments => {
                    return out.walker.dropped(origin, DropReason::BadOffload);
                }
            }
            let whole = &self.whole[..len];
            let frame = Frame { head: whole, len, offload };
            match out.walker.walk(origin, &frame, scratch) {
                Fate::Again(next) => again = next,
                fate => return pieces(out, origin, &frame, &fate, scratch, Source::Own(whole)),
            }
        }
        out.walker.dropped(origin, DropReason::BadOffload);
    }
}
