//! What becomes of each redirect, by name, and how often.
//!
//! What must stay true: names and documentation are made of this list and of nothing else, as those of [`crate::DropReason`] are.

use crate::counters::Cell;
use crate::pipeline::{Lesson, NotLearned};

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What became of a redirect.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Outcome { $($(#[doc = $doc])+ $variant,)+ }

        impl Outcome {
            /// All of them, in declaration order; an outcome's index here is `outcome as usize`.
            pub const ALL: &'static [Outcome] = &[$(Outcome::$variant,)+];
            /// The stable name: lower case, words joined by hyphens.
            pub const fn name(self) -> &'static str {
                match self { $(Outcome::$variant => $name,)+ }
            }
            /// One sentence for the documentation and for `show redirects`.
            pub const fn doc(self) -> &'static str {
                match self { $(Outcome::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

outcomes! {
    /// Heard: a mapping that was not known.
    Learned = "learned",
    /// Heard: a mapping of a later epoch than the known one.
    Moved = "moved",
    /// Heard: what was known, to last longer.
    Renewed = "renewed",
    /// Refused: redirects are not listened to here.
    Off = "off",
    /// Refused: not 112 bytes that begin as a redirect does, or under a good MAC what no router writes.
    Malformed = "malformed",
    /// Refused: another version or kind of message.
    OtherVersion = "other-version",
    /// Refused: more datagrams, or more of one router, than are looked at, or more hosts that were not known.
    RateLimited = "rate-limited",
    /// Refused: a key that is not configured here.
    UnknownKey = "unknown-key",
    /// Refused: the MAC is not that of the key it names.
    BadMac = "bad-mac",
    /// Refused: it is for another host.
    NotForUs = "not-for-us",
    /// Refused: not sent from its sender's control address, or none of the configured routers'.
    NotARouter = "not-a-router",
    /// Refused: its time is more than 30 seconds off, or before this daemon started.
    Stale = "stale",
    /// Refused: heard before, or older than the last 64 of its sender.
    Replayed = "replayed",
    /// Refused: of another domain.
    ForeignDomain = "foreign-domain",
    /// Refused: the identifier is no address of a network that is served here.
    UnknownIdentifier = "unknown-identifier",
    /// Refused: an attachment of this host has the identifier, or the configuration names several locators of it.
    Here = "here",
    /// Refused: the locator is no unicast /64, is this host's or of another domain, a SIR prefix, a tenants' or a NAT64's, or outside of the
    /// configured prefixes.
    BadLocator = "bad-locator",
    /// Refused: a later epoch is known, or another locator of the same.
    OldEpoch = "old-epoch",
    /// Refused: its epoch is more than a day ahead of this host's clock, so that nothing later could be said of the identifier.
    FutureEpoch = "future-epoch",
    /// Refused: as many mappings, routers or hosts are known as there is room for.
    Full = "full",
    /// Told: a redirect was sent.
    Sent = "sent",
    /// Not told: that host was told a moment ago, or too many were.
    HeldBack = "held-back",
    /// Not told: we have no mapping of the source any more, or it is here.
    UnknownSource = "unknown-source",
    /// Not told: we have no mapping of the destination any more, or it is here.
    UnknownDestination = "unknown-destination",
    /// Not told: the socket would not take it.
    NotSent = "not-sent",
}

impl From<Lesson> for Outcome {
    fn from(lesson: Lesson) -> Self {
        match lesson {
            Lesson::New => Self::Learned,
            Lesson::Moved => Self::Moved,
            Lesson::Renewed => Self::Renewed,
        }
    }
}

impl From<NotLearned> for Outcome {
    fn from(refused: NotLearned) -> Self {
        match refused {
            NotLearned::NoEndpoint => Self::UnknownIdentifier,
            // As of what is here: the configuration has said all of it.
            NotLearned::Here | NotLearned::Several => Self::Here,
            NotLearned::Locator => Self::BadLocator,
            NotLearned::OldEpoch(_) => Self::OldEpoch,
            NotLearned::Full => Self::Full,
        }
    }
}

/// How often each came about; one thread writes.
#[derive(Debug)]
pub struct Tally([Cell; Outcome::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self(core::array::from_fn(|_| Cell::default()))
    }
}

impl Tally {
    /// Counts one.
    pub fn count(&self, outcome: Outcome) {
        if let Some(cell) = self.0.get(outcome as usize) {
            cell.add(1);
        }
    }
    /// How often `outcome` came about.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).map_or(0, Cell::get)
    }
}
