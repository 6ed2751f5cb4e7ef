//! Who listens: one datagram after the other, refused by name or learned.
//!
//! What must stay true: what costs most comes last, and no state is made before the MAC was verified; a sender is forgotten only when the
//! age of its messages refuses them anyway.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use super::message::{Message, Sealed};
use super::outcome::Outcome;
use super::rate::{Bucket, Rate};
use super::window::Window;
use super::{At, EPOCH_AHEAD, Policy, SKEW};
use crate::addr::{Key, Locator};
use crate::pipeline::{Learned, Nve, Source};

/// Datagrams looked at, whoever sends them: a hash each.
const LOOKED_AT: Rate = Rate { each_second: 20_000, burst: 2_000 };
/// Of each router, believed.
const EACH: Rate = Rate { each_second: 1_000, burst: 1_000 };
/// Of each router, hosts that were not known: each has a number from then on, and is a host of the fabric while a mapping names it.
const NEW_HOSTS: Rate = Rate { each_second: 10, burst: 100 };
/// Routers known at once.
const MOST_SENDERS: usize = 1024;

/// What is kept of a router.
#[derive(Clone, Copy, Default, Debug)]
struct Sender {
    window: Window,
    /// The latest time of its messages.
    latest: Duration,
    allowance: Bucket,
    new_hosts: Bucket,
}

/// One host's ears.
#[derive(Debug)]
pub struct Listener {
    nve: Arc<Nve>,
    /// Since 1970: nothing older can be told from what was heard before.
    started: Duration,
    senders: HashMap<Locator, Sender>,
    allowance: Bucket,
}

impl Listener {
    /// A listener for `nve` that starts at `unix`, since 1970.
    pub fn new(nve: Arc<Nve>, unix: Duration) -> Self {
        Self { nve, started: unix, senders: HashMap::new(), allowance: Bucket::default() }
    }

    /// Hears a datagram that came from the address `from`.
    pub fn hear(&mut self, policy: &Policy, at: At, from: Ipv6Addr, datagram: &[u8]) -> Outcome {
        self.judge(policy, at, from, datagram).unwrap_or_else(|refused| refused)
    }

    fn judge(
        &mut self,
        policy: &Policy,
        at: At,
        from: Ipv6Addr,
        datagram: &[u8],
    ) -> Result<Outcome, Outcome> {
        if !policy.accept {
            return Err(Outcome::Off);
        }
        let sealed = Sealed::read(datagram)?;
        // Before the allowance that all share: nobody else may spend what is the routers'.
        if !policy.may_be_heard(from) {
            return Err(Outcome::NotARouter);
        }
        if !self.allowance.take(LOOKED_AT, at.now) {
            return Err(Outcome::RateLimited);
        }
        let message = sealed.open(&policy.keys)?.message()?;
        let world = self.nve.world();
        // The locator it is for says the domain that it may speak of.
        let domain = *world.domain_here(message.recipient.upper()).ok_or(Outcome::NotForUs)?;
        drop(world);
        if from != message.sender.control_address() || !policy.is_router(message.sender) {
            return Err(Outcome::NotARouter);
        }
        self.note(&message, at)?;
        if message.sir != domain.sir() {
            return Err(Outcome::ForeignDomain);
        }
        let key = domain.key(message.identifier).ok_or(Outcome::UnknownIdentifier)?;
        if !policy.is_locator(message.locator) {
            return Err(Outcome::BadLocator);
        }
        if Duration::from_millis(message.epoch) > at.unix.saturating_add(EPOCH_AHEAD) {
            return Err(Outcome::FutureEpoch);
        }
        if !self.may_name(&message, at.now) {
            return Err(Outcome::RateLimited);
        }
        let lasts = message.lifetime.min(policy.lifetime);
        let learned = Learned {
            source: Source::Redirect,
            epoch: message.epoch,
            since: at.now,
            until: Some(at.now.saturating_add(lasts)),
        };
        if message.sender == message.locator && self.is_here(key) {
            // Its guest has moved there. What the setup says of it is wrong until the operator mends it, however long that takes.
            let learned = Learned { until: None, ..learned };
            return Ok(self.nve.moved(key, message.locator, learned)?.into());
        }
        Ok(self.nve.learn(key, message.locator, learned)?.into())
    }

    /// Whether the host that it names is known, or its sender may name another.
    fn may_name(&mut self, message: &Message, now: Duration) -> bool {
        self.nve.world().known_locator(message.locator.upper()).is_some()
            || self
                .senders
                .get_mut(&message.sender)
                .is_some_and(|sender| sender.new_hosts.take(NEW_HOSTS, now))
    }

    fn is_here(&self, key: Key) -> bool {
        self.nve.residence(key).is_some_and(|residence| residence.here)
    }

    /// Whether it is fresh and new, and its sender within its allowance.
    fn note(&mut self, message: &Message, at: At) -> Result<(), Outcome> {
        let earliest = at.unix.saturating_sub(SKEW).max(self.started);
        if !(earliest..=at.unix.saturating_add(SKEW)).contains(&message.time) {
            return Err(Outcome::Stale);
        }
        if self.senders.len() >= MOST_SENDERS && !self.senders.contains_key(&message.sender) {
            self.senders.retain(|_, sender| sender.latest >= earliest);
            if self.senders.len() >= MOST_SENDERS {
                return Err(Outcome::Full);
            }
        }
        let sender = self.senders.entry(message.sender).or_default();
        if sender.latest < earliest {
            // All that was heard of it is refused as stale by now; its clock, and so its sequence, may have been set back.
            sender.window = Window::default();
        }
        if !sender.window.take(message.sequence) {
            return Err(Outcome::Replayed);
        }
        sender.latest = sender.latest.max(message.time);
        if sender.allowance.take(EACH, at.now) { Ok(()) } else { Err(Outcome::RateLimited) }
    }
}
