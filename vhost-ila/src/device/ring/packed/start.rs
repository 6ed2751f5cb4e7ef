//! Where a packed ring goes on.
//!
//! What must stay true: a ring that a daemon has served and stopped, or that was killed under it, goes on behind the last buffer that was
//! given back: none is repeated, none skipped. Whatever a guest has written, the work is bounded, and what it gets wrong is its own.
//!
//! Two places are known. SET_VRING_BASE's is right unless the last backend died: front-ends then repeat what that one began with. The
//! device area's is right if the last backend was one of this program; others leave anything there. So each is asked whether the ring
//! looks as it must behind all that was given back:
//!
//! ```text
//!     given back          available, none of them used      not reached in this lap
//!   ──────────────┤place├──────────────────────────────┤├──────────────────────────────
//!                                          the last of this lap    the first of the one before
//! ```
//!
//! A daemon that was killed between showing a batch and noting it (two stores) has noted a place a batch too early: then the next one that
//! looks right is taken. Only where chains of several descriptors, of a batch in that very moment, can that be the middle of one.

use super::layout::{Layout, State};
use super::place::Place;

/// How far a batch can reach that was shown and not noted; a longer one is not looked for.
const BATCH_REACH: u16 = 256;

/// Where to begin, when the front-end has `said` so.
pub(super) fn place(layout: &Layout, said: Place) -> Place {
    // Zeros name the beginning of an even lap, or are a driver's who has just made the ring: then nothing was given back in the odd one.
    let noted = layout.noted().filter(|noted| noted.word(layout.size) != 0 || layout.is_used());
    let later = noted.into_iter().flat_map(|noted| {
        (1..BATCH_REACH.min(layout.size)).map(move |count| noted.after(count, layout.size))
    });
    noted.into_iter().chain([said]).chain(later).find(|place| looks_right(layout, *place)).unwrap_or(said)
}

/// Whether the ring can be as it is if everything before `place` was given back, and nothing behind it.
fn looks_right(layout: &Layout, place: Place) -> bool {
    let size = layout.size;
    let mut end = place;
    for _ in 0..size {
        match layout.state(end) {
            State::Available => end = end.after(1, size),
            State::Used => return false,
            State::Before => return layout.state(end.before(1, size)) != State::Before,
        }
    }
    true
}
