//! Who tells: a packet took the triangle, and its source's host is told the straight line, if not too often.
//!
//! What must stay true: the recipient is the host of the source by our mappings; a host is told of one mapping ever more seldom while it
//! does not listen; the memory of whom was told is capped.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use super::message::{LEN, Message};
use super::outcome::Outcome;
use super::rate::{Bucket, Rate};
use super::{At, Policy};
use crate::addr::{Key, Locator};
use crate::pipeline::{Nve, Triangle};

/// To all hosts together.
const TOLD: Rate = Rate { each_second: 10_000, burst: 1_000 };
/// To one host.
const EACH: Rate = Rate { each_second: 500, burst: 500 };
/// Before it is told of the same mapping again: at first, and at most; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);
/// Hosts and mappings remembered.
const MOST_PAUSES: usize = 16_384;
const MOST_HOSTS: usize = 4096;

/// A datagram for a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// This host's control address in the domain.
    pub from: Ipv6Addr,
    /// Its control address.
    pub to: Ipv6Addr,
    /// What it says.
    pub bytes: [u8; LEN],
}

/// When a host may be told of a mapping again.
#[derive(Clone, Copy, Debug)]
struct Pause {
    /// Of what it was told.
    epoch: u64,
    length: Duration,
    ends: Duration,
}

impl Pause {
    /// Afterwards the next is as short as the first.
    fn forgotten(&self, now: Duration) -> bool {
        now >= self.ends.saturating_add(self.length)
    }
}

/// One host's mouth.
#[derive(Debug)]
pub struct Teller {
    nve: Arc<Nve>,
    /// Of the last message.
    sequence: u64,
    allowance: Bucket,
    hosts: HashMap<Locator, Bucket>,
    pauses: HashMap<(Locator, Key), Pause>,
    /// When room was made last.
    swept: Duration,
}

impl Teller {
    /// A teller for `nve` that starts at `unix`, since 1970. Its sequence goes on from there one by one, so that whoever starts later
    /// is ahead of it: nobody tells a million a second.
    pub fn new(nve: Arc<Nve>, unix: Duration) -> Self {
        Self {
            nve,
            sequence: u64::try_from(unix.as_micros()).unwrap_or(0),
            allowance: Bucket::default(),
            hosts: HashMap::new(),
            pauses: HashMap::new(),
            swept: Duration::ZERO,
        }
    }

    /// What to tell whom about a packet that was passed on.
    ///
    /// # Errors
    /// Why nobody is told.
    pub fn tell(&mut self, policy: &Policy, at: At, triangle: Triangle) -> Result<Datagram, Outcome> {
        if !policy.send {
            return Err(Outcome::Off);
        }
        let away = |key| self.nve.residence(key).filter(|residence| !residence.here);
        let source = away(triangle.source).ok_or(Outcome::UnknownSource)?;
        let there = away(triangle.destination).ok_or(Outcome::UnknownDestination)?;
        // Nobody is told in one domain what is of another.
        if triangle.source.domain() != triangle.destination.domain() {
            return Err(Outcome::ForeignDomain);
        }
        // Its host has it: it went through us to itself, and learns nothing.
        if there.locator == source.locator {
            return Err(Outcome::UnknownDestination);
        }
        self.may_tell(source.locator, (triangle.destination, there.epoch), at.now)?;
        self.compose(policy, at, source.locator, (triangle.destination, there.locator, there.epoch))
    }

    /// The datagram that tells `recipient` where an identifier lives, in which epoch; no limits.
    ///
    /// # Errors
    /// [`Outcome::UnknownKey`] without a secret; [`Outcome::ForeignDomain`] of a domain that is not served here.
    pub fn compose(
        &mut self,
        policy: &Policy,
        at: At,
        recipient: Locator,
        (key, locator, epoch): (Key, Locator, u64),
    ) -> Result<Datagram, Outcome> {
        let secret = policy.keys.first().ok_or(Outcome::UnknownKey)?;
        let world = self.nve.world();
        let domain = world.domain(key.domain()).ok_or(Outcome::ForeignDomain)?;
        self.sequence = self.sequence.saturating_add(1);
        let message = Message {
            sender: domain.locator(),
            recipient,
            sir: domain.sir(),
            identifier: key.identifier(),
            locator,
            epoch,
            sequence: self.sequence,
            time: at.unix,
            lifetime: policy.lifetime.max(Duration::from_secs(1)),
        };
        Ok(Datagram {
            from: domain.locator().control_address(),
            to: recipient.control_address(),
            bytes: message.seal(secret),
        })
    }

    fn may_tell(
        &mut self,
        recipient: Locator,
        (told, epoch): (Key, u64),
        now: Duration,
    ) -> Result<(), Outcome> {
        self.make_room(now);
        let key = (recipient, told);
        let before = self.pauses.get(&key).filter(|pause| pause.epoch == epoch && !pause.forgotten(now));
        let length = match before {
            Some(pause) if now < pause.ends => return Err(Outcome::HeldBack),
            Some(pause) => (pause.length * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let full = self.pauses.len() >= MOST_PAUSES && !self.pauses.contains_key(&key)
            || self.hosts.len() >= MOST_HOSTS && !self.hosts.contains_key(&recipient);
        if full
            || !self.hosts.entry(recipient).or_default().take(EACH, now)
            || !self.allowance.take(TOLD, now)
        {
            return Err(Outcome::HeldBack);
        }
        self.pauses.insert(key, Pause { epoch, length, ends: now.saturating_add(length) });
        Ok(())
    }

    /// Makes room when there is none; once a second, as a look at everything costs something.
    fn make_room(&mut self, now: Duration) {
        let full = self.pauses.len() >= MOST_PAUSES || self.hosts.len() >= MOST_HOSTS;
        if full && now >= self.swept.saturating_add(Duration::from_secs(1)) {
            self.swept = now;
            self.pauses.retain(|_, pause| !pause.forgotten(now));
            self.hosts.retain(|_, allowance| !allowance.is_full(now));
        }
    }
}
