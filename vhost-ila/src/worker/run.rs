//! Which receive rings the frames of a batch go to, so that their buffers are there when they are written to.
//!
//! What must stay true: what is fetched is a matter of speed alone. A wrong guess, or none, costs a wait.
//!
//! ```text
//!   classify   of the attachment that the last batch went to, the ring, or those of the frames' flows: expect ──> look
//!   decide     chunk by chunk: prepare; of another attachment, those that frames are decided for: look ──> prepare
//! ```
//!
//! Rings that frames could go to, and do not, are left alone: buffers that are fetched too early have left the cache when they are needed.

use nve_core::pipeline::PortId;

use super::delivery::Outlets;

/// Rings that are told apart, by their place among an attachment's: what a guest may have.
pub(super) const RINGS: usize = 32;

/// An attachment, and rings of it as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Towards {
    pub(super) port: u16,
    pub(super) rings: u32,
}

impl Default for Towards {
    fn default() -> Self {
        Self { port: 0, rings: 1 }
    }
}

impl Towards {
    /// Frames went to these `rings` of `port`: it is as if they had to all that the last ones went to, up to `most`.
    #[inline]
    pub(super) fn add(&mut self, port: u16, rings: u32, most: u32) {
        let all = if self.port == port { self.rings | rings } else { rings };
        *self = Self { port, rings: if all.count_ones() <= most { all } else { rings } };
    }

    /// The places of its rings.
    #[inline]
    pub(super) fn places(self) -> impl Iterator<Item = usize> {
        let mut left = self.rings;
        core::iter::from_fn(move || {
            let place = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (place < RINGS).then_some(place)
        })
    }
}

/// Frames in a row that go to one attachment: its rings are prepared together.
pub(super) struct Run {
    port: u16,
    /// It has several rings, so flows are asked for.
    spread: bool,
    /// What `counts` has of it was guessed, for all of the batch.
    guessed: bool,
    /// Frames, where it has one ring.
    frames: u16,
    /// Rings that frames go to, or will by the guess.
    rings: u32,
    /// Those with frames that nothing was fetched for yet.
    pending: u32,
    /// Frames by ring.
    counts: [u16; RINGS],
}

impl Run {
    /// Begins with a guess: that the batch goes where the last one went.
    #[inline]
    pub(super) fn new(out: &mut Outlets, last: Towards) -> Self {
        let spread = out.spread(last.port);
        if !spread {
            out.expect(last.port, 0);
        }
        Self { port: last.port, spread, guessed: true, frames: 0, rings: 0, pending: 0, counts: [0; RINGS] }
    }

    /// Another frame was classified, of `flow`, which is asked only where it tells the ring; it is given back.
    #[inline]
    pub(super) fn guess(&mut self, out: &mut Outlets, flow: impl FnOnce() -> u32) -> Option<u32> {
        if !self.spread {
            self.frames += 1;
            return None;
        }
        let flow = flow();
        let place = out.place(self.port, flow);
        if self.rings & 1 << place == 0 {
            out.expect(self.port, place);
        }
        self.add(place);
        Some(flow)
    }

    #[inline]
    fn add(&mut self, place: usize) {
        let Some(count) = self.counts.get_mut(place) else { return };
        *count += 1;
        self.pending |= 1 << place;
        self.rings |= 1 << place;
    }

    /// All frames are classified: finds the buffers that they will need.
    #[inline]
    pub(super) fn look(&mut self, out: &mut Outlets) {
        let Self { port, spread, frames, rings, .. } = *self;
        if spread {
            self.pending = 0;
            for place in (Towards { port, rings }).places() {
                out.look(port, place, self.count(place));
            }
        } else {
            out.look(port, 0, frames.into());
        }
        self.frames = 0;
    }

    #[inline]
    fn count(&self, place: usize) -> usize {
        self.counts.get(place).copied().unwrap_or(0).into()
    }

    /// A frame was decided to go to `port`; `flow` is asked where that has several rings.
    #[inline]
    pub(super) fn note(&mut self, out: &mut Outlets, port: PortId, flow: impl FnOnce() -> u32) {
        if self.port != port.0 {
            self.end(out);
            self.forget(out, port.0);
        }
        self.frames += 1;
        if self.spread && !self.guessed {
            self.add(out.place(port.0, flow()));
        }
    }

    /// The guess was wrong; or right, and frames to others follow.
    fn forget(&mut self, out: &mut Outlets, port: u16) {
        (self.port, self.spread, self.guessed) = (port, out.spread(port), false);
        (self.rings, self.pending, self.counts) = (0, 0, [0; RINGS]);
    }

    /// A chunk of the batch begins, with so many frames that will have been decided at its end since the last delivery.
    #[inline]
    pub(super) fn chunk(&mut self, out: &mut Outlets, frames: u16) {
        if !self.spread {
            out.prepare(self.port, 0, frames.into());
        } else if self.guessed {
            for place in (Towards { port: self.port, rings: self.rings }).places() {
                out.prepare(self.port, place, self.count(place).min(frames.into()));
            }
        } else {
            self.prepare(out);
        }
    }

    /// Delivery begins.
    #[inline]
    pub(super) fn end(&mut self, out: &mut Outlets) {
        if self.spread && !self.guessed {
            self.prepare(out);
            self.counts = [0; RINGS];
        } else if self.frames > 0 && !self.spread {
            out.prepare(self.port, 0, self.frames.into());
        }
        self.frames = 0;
    }

    /// Fetches buffers of all rings that got frames since it was done last: first what says where they are.
    fn prepare(&mut self, out: &mut Outlets) {
        let pending = Towards { port: self.port, rings: std::mem::take(&mut self.pending) };
        for place in pending.places() {
            out.look(self.port, place, self.count(place));
        }
        for place in pending.places() {
            out.prepare(self.port, place, self.count(place));
        }
    }

    /// Where the next batch will go, by this one.
    #[inline]
    pub(super) fn towards(&self) -> Towards {
        Towards { port: self.port, rings: if self.spread { self.rings } else { 1 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_bits() {
        let places = |rings| Towards { port: 0, rings }.places().collect::<Vec<_>>();
        assert!(places(0).is_empty());
        assert_eq!(places(0b1001), [0, 3]);
        assert_eq!(places(u32::MAX), (0..32).collect::<Vec<_>>());
    }
}
