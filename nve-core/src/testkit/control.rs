//! A host's control address: the socket of redirects, as the daemon has one.
//!
//! What must stay true: what is told crosses the fabric like any packet; what is heard was addressed to the control address.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use super::dissect::{Dissected, protocol};
use super::frames::{self, Header};
use crate::pipeline::{Nve, Triangle};
use crate::redirect::{At, Datagram, Herald, Listener, Outcome, PORT, Policy, Tally, Teller};

/// What every clock of the world says when it begins, since 1970.
const BEGINNING: Duration = Duration::from_secs(1_800_000_000);

pub(super) struct Control {
    /// `locator::1`.
    pub(super) address: Ipv6Addr,
    pub(super) policy: Policy,
    pub(super) tally: Tally,
    listener: Listener,
    teller: Teller,
    herald: Herald,
}

impl Control {
    /// Nothing is told or heard until there is a policy.
    pub(super) fn new(address: Ipv6Addr, nve: &Arc<Nve>) -> Self {
        Self {
            address,
            policy: Policy::default(),
            tally: Tally::default(),
            listener: Listener::new(Arc::clone(nve), BEGINNING),
            teller: Teller::new(Arc::clone(nve), BEGINNING),
            herald: Herald::new(Arc::clone(nve)),
        }
    }

    pub(super) fn at(now: Duration) -> At {
        At { now, unix: BEGINNING + now }
    }

    /// The packet that tells of `triangle`, if any.
    pub(super) fn tell(&mut self, now: Duration, triangle: Triangle) -> Option<Vec<u8>> {
        let told = self.teller.tell(&self.policy, Self::at(now), triangle);
        self.tally.count(told.as_ref().err().copied().unwrap_or(Outcome::Sent));
        Some(self.packet(&told.ok()?))
    }

    fn packet(&self, datagram: &Datagram) -> Vec<u8> {
        let (from, to) =
            (SocketAddr::new(self.address.into(), PORT), SocketAddr::new(datagram.to.into(), PORT));
        frames::udp(Header::default(), from, to, &datagram.bytes)
    }

    /// What is due to hosts whose guests have come here; nothing without a key, as then a test asks who has.
    pub(super) fn herald(&mut self, now: Duration) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        if self.policy.keys.first().is_none() {
            return packets;
        }
        self.herald.arrivals(Self::at(now));
        while let Some(told) = self.herald.next(&mut self.teller, &self.policy, Self::at(now)) {
            self.tally.count(told.as_ref().err().copied().unwrap_or(Outcome::Sent));
            packets.extend(told.ok().map(|datagram| self.packet(&datagram)));
        }
        packets
    }

    /// When there is something again.
    pub(super) fn herald_due(&self) -> Option<Duration> {
        self.herald.due()
    }

    /// Hears a packet, if it is for the socket; whether it was.
    pub(super) fn hears(&mut self, now: Duration, packet: &[u8]) -> bool {
        let Some(view) = Dissected::of_ip(packet).filter(|view| view.destination == IpAddr::V6(self.address))
        else {
            return false;
        };
        let (IpAddr::V6(from), protocol::UDP) = (view.source, view.protocol) else { return false };
        if view.transport.get(2..4) != Some(&PORT.to_be_bytes()) {
            return false;
        }
        let datagram = view.transport.get(8..).unwrap_or_default();
        let outcome = self.listener.hear(&self.policy, Self::at(now), from, datagram);
        self.tally.count(outcome);
        true
    }
}
