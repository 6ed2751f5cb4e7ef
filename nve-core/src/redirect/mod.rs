//! ILA redirects (draft, section 4.6; docs/redirect.md has the message byte by byte, docs/decisions/0015-redirects.md the reasons).
//!
//! What must stay true:
//!
//! * **Nothing is believed before its MAC was verified**: only [`Opened`] gives a [`Message`], and only [`Sealed::open`] makes one.
//! * **A redirect is told to the host that has the packet's source by our own mappings**, never to where the packet came from.
//! * **What a redirect can do is bounded**: it changes one mapping of an identifier that is not here, to a host's /64, for a time, in a
//!   later epoch ([`crate::pipeline::Nve::learn`]); and it is refused by name otherwise ([`Outcome`]). What is here leaves only by the
//!   word of the host that says it has it itself ([`Herald`], [`crate::pipeline::Nve::moved`]).
//! * State is made by whoever has a key only, and is capped all the same. No I/O, no clock: both times are an argument ([`At`]).
//!
//! ```text
//!   walk, router role: passed on ──Triangle──> Teller::tell ──> limits ──> sealed ──> datagram to L::1 of the source's host
//!   a guest has come: Herald ──> the same, to the host that had it
//!   datagram from R::1 ──> Listener::hear ──> Sealed ──key, MAC──> Opened ──> recipient? router? fresh? new? ──> Nve::learn ──> Outcome
//! ```

use core::net::Ipv6Addr;
use core::time::Duration;

use crate::addr::Locator;

mod herald;
mod key;
mod listener;
mod message;
mod outcome;
mod rate;
mod teller;
mod window;

pub use herald::Herald;
pub use key::{Key, KeyId, KeyTooShort, Keys};
pub use listener::Listener;
pub use message::{LEN, Message, Opened, Sealed};
pub use outcome::{Outcome, Tally};
pub use teller::{Datagram, Teller};

/// The UDP port of both ends, unless configured: of the private range (RFC 6335, section 6), above what Linux gives to clients.
pub const PORT: u16 = 61_451;

/// How far a sender's clock may be off, either way.
pub const SKEW: Duration = Duration::from_secs(30);

/// How far an epoch, which of a guest that has moved is milliseconds since 1970 or a little more, may be ahead of our clock. Without a
/// limit one message could say the last word about an identifier that there ever is.
pub const EPOCH_AHEAD: Duration = Duration::from_secs(86_400);

/// A moment, by both of its clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// Since the epoch of [`crate::pipeline::Walker::begin`].
    pub now: Duration,
    /// Since 1970, UTC: what hosts agree on.
    pub unix: Duration,
}

/// What the operator wants.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What is signed with, and what is believed.
    pub keys: Keys,
    /// Whether redirects are listened to.
    pub accept: bool,
    /// Whether redirects are told, where this host passes packets on.
    pub send: bool,
    /// Hosts whose redirects count; empty: every host that has a key.
    pub routers: Vec<Locator>,
    /// Prefixes that locators lie in: address and length, 1 to 64; empty: every unicast /64, which
    /// the daemon's configuration does not allow.
    pub locators: Vec<(Ipv6Addr, u8)>,
    /// How long a redirect counts at most; also what ours say.
    pub lifetime: Duration,
}

impl Policy {
    /// Whether somebody at `from` may be heard at all, whatever he says: where routers are named, one of them.
    fn may_be_heard(&self, from: Ipv6Addr) -> bool {
        self.routers.is_empty() || self.routers.iter().any(|router| router.control_address() == from)
    }

    fn is_router(&self, sender: Locator) -> bool {
        self.routers.is_empty() || self.routers.contains(&sender)
    }

    fn is_locator(&self, locator: Locator) -> bool {
        let inside = |(prefix, length): &(Ipv6Addr, u8)| {
            let behind = 128_u32.saturating_sub(u32::from(*length));
            let differs = prefix.to_bits() ^ locator.prefix().to_bits();
            differs.checked_shr(behind).unwrap_or(0) == 0
        };
        self.locators.is_empty() || self.locators.iter().any(inside)
    }
}

#[cfg(all(test, feature = "testkit"))]
mod tests;
