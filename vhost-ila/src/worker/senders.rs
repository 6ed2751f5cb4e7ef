//! Which transmit rings are looked at in every turn, and which rest until they are kicked: rings without frames would cost those that have
//! some a look each, and the lines that a look brings in.
//!
//! What must stay true:
//!
//! * A ring that rests has been asked for kicks and looked at once more after that, so no frame waits for a kick that never comes.
//! * Kicks are heard every [`PAUSE`] turns at the latest, and by whoever sleeps. A ring at rest costs a turn nothing.
//! * The last [`FEW`] rings do not rest: they cost less than their kicks.
//!
//! ```text
//!   looked at ──no frames in QUIET turns──> asks for kicks, has still none ──> at rest ──kick──> looked at
//! ```

use nve_core::pipeline::PortId;

use super::delivery::Outlets;
use super::sender::{Kicked, Sender};

/// Turns in a row without frames after which a ring rests: longer than a guest that is sending takes to fill its ring again.
const QUIET: u16 = 256;
/// Rings that are looked at however quiet they are.
const FEW: usize = 4;
/// Turns from one look at kicks to the next, while rings rest: a system call, so not every turn.
const PAUSE: u32 = 8;

/// The running transmit rings of all ports.
#[derive(Default, Debug)]
pub(super) struct Senders {
    looked_at: Vec<Sender>,
    resting: Vec<Sender>,
    /// Turns until kicks are heard.
    kicks_in: u32,
}

/// What epoll calls the kick of a transmit ring; no other descriptor is called so.
pub(super) fn token(port: PortId, pair: u8) -> u64 {
    1 << 32 | u64::from(port.0) << 8 | u64::from(pair)
}

impl Senders {
    /// Makes room for one more, so that nothing grows in a turn, and looks at it.
    pub(super) fn add(&mut self, sender: Sender) {
        let all = self.looked_at.len() + self.resting.len() + 1;
        self.looked_at.reserve(all - self.looked_at.len());
        self.resting.reserve(all - self.resting.len());
        self.looked_at.push(sender);
    }

    /// Takes the ring of `port` and `pair` out, wherever it is.
    pub(super) fn remove(&mut self, port: PortId, pair: u8) -> Option<Sender> {
        let is_it = |sender: &Sender| sender.port == port.0 && sender.queue.pair == pair;
        if let Some(at) = self.looked_at.iter().position(is_it) {
            return Some(self.looked_at.remove(at));
        }
        self.resting.iter().position(is_it).map(|at| self.resting.swap_remove(at))
    }

    /// Those to be looked at.
    #[inline]
    pub(super) fn looked_at(&mut self) -> &mut [Sender] {
        &mut self.looked_at
    }

    /// All of them.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Sender> {
        self.looked_at.iter_mut().chain(&mut self.resting)
    }

    /// How many rest.
    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Whether it is time to hear kicks; to be asked once a turn.
    #[inline]
    pub(super) fn must_hear(&mut self) -> bool {
        if self.resting.is_empty() {
            return false;
        }
        self.kicks_in = self.kicks_in.checked_sub(1).unwrap_or(PAUSE - 1);
        self.kicks_in == 0
    }

    /// `kicked` is the token of a ring that was kicked: it is looked at again.
    pub(super) fn wake(&mut self, kicked: u64) {
        let Some(at) = self.resting.iter().position(|sender| sender.token == kicked) else { return };
        let mut sender = self.resting.swap_remove(at);
        sender.quiet = 0;
        sender.queue.ring.refuse_kicks();
        self.looked_at.push(sender);
    }

    /// Whether some of them have been quiet for so long, `quiet` turns, that they may rest.
    #[inline]
    pub(super) fn may_rest(&self, quiet: u16) -> bool {
        quiet >= QUIET && self.looked_at.len() > FEW
    }

    /// Those that have been quiet for long rest, if they have still nothing once they were asked for kicks.
    #[cold]
    pub(super) fn rest(&mut self, out: &mut Outlets) {
        let mut at = 0;
        while let Some(sender) = self.looked_at.get_mut(at) {
            if sender.quiet < QUIET || sender.queue.events.kick.is_none() {
                at += 1;
                continue;
            }
            sender.quiet = 0;
            if sender.want_kicks(out) {
                sender.queue.ring.refuse_kicks();
                at += 1;
                continue;
            }
            let sender = self.looked_at.swap_remove(at);
            self.resting.push(sender);
            if self.looked_at.len() <= FEW {
                return;
            }
        }
    }
}
