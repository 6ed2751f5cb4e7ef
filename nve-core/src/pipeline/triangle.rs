//! Packets that took the triangle: the router role notes whom to tell the straight line (draft, section 4.6; `redirect/`).
//!
//! What must stay true: noted is only what was judged and passed on; one pair twice a second at most, all within the uplink's allowance;
//! nothing allocates, and what finds no room is told the next time.

use core::time::Duration;

use super::walk::Walk;
use crate::addr::Key;
use crate::gateway::Protocol;

/// Noted and not yet taken.
const WAITING: usize = 64;
/// Pairs remembered; another that falls on the same place takes it.
const REMEMBERED: usize = 256;
/// Before a pair is noted again.
const PAUSE: Duration = Duration::from_millis(500);

/// A packet from `source` to `destination`, which live on two other hosts, came through this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Triangle {
    /// Who sent it.
    pub source: Key,
    /// Who it is for.
    pub destination: Key,
}

/// One worker's notes; see [`super::Walker::next_triangle`].
#[derive(Debug)]
pub(super) struct Triangles {
    waiting: Vec<Triangle>,
    remembered: Box<[Option<(Triangle, Duration)>]>,
}

impl Default for Triangles {
    fn default() -> Self {
        Self { waiting: Vec::with_capacity(WAITING), remembered: vec![None; REMEMBERED].into() }
    }
}

impl Triangles {
    pub(super) fn take(&mut self) -> Option<Triangle> {
        self.waiting.pop()
    }

    /// Whether `triangle` is to be noted now.
    fn is_due(&mut self, triangle: Triangle, now: Duration) -> bool {
        let place = (triangle.source.bits() ^ triangle.destination.bits().rotate_left(3)) % 251;
        let Some(place) = self.remembered.get_mut(place as usize) else { return false };
        let due = place.is_none_or(|(known, noted)| {
            known != triangle || now < noted || now >= noted.saturating_add(PAUSE)
        });
        if due {
            *place = Some((triangle, now));
        }
        due && self.waiting.len() < WAITING
    }
}

/// Notes it, if somebody wants to know.
#[cold]
pub(super) fn note(walk: &mut Walk<'_>, triangle: Triangle) {
    if walk.nve.wants_triangles()
        && walk.triangles.is_due(triangle, walk.now)
        && walk.uplink_limits.take(Protocol::Redirect, walk.now).is_ok()
    {
        walk.triangles.waiting.push(triangle);
    }
}
