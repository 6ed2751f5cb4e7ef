//! Token buckets: how often one attachment is answered, protocol by protocol.
//!
//! What must stay true: over any span of time `t`, at most `burst + rate * t` frames of a protocol get past [`Limits::take`];
//! a clock that stands still or goes back never grants more. Of several workers each grants its share of both, so that an attachment whose
//! frames come by all of them gets no more than one whose come by one ([`Limits::shared_by`]).

use core::time::Duration;

use crate::DropReason;

/// What is counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// ARP requests.
    Arp,
    /// Neighbour discovery but router solicitations.
    Nd,
    /// Router solicitations.
    Ra,
    /// DHCPv4 and DHCPv6.
    Dhcp,
    /// Echo to the gateway.
    Icmp,
    /// What the gateway's own TCP/IP stack is asked.
    Service,
    /// Questions to be passed on to resolvers.
    Dns,
    /// ICMP errors that the virtual edge makes for this attachment, or that come from the fabric (RFC 4443, 2.4 (f); RFC 1812, 4.3.2.8).
    IcmpError,
    /// ICMP errors from its peers, which must not use up the others.
    PeerError,
    /// Copies of what an attachment sends to groups and broadcasts.
    Group,
    /// Copies of such that an attachment is sent from the fabric.
    GroupHeard,
    /// IGMP and MLD reports.
    Report,
    /// Claims that move a shared address here.
    Claim,
    /// Packets passed on as a router whose source's host may be told the straight line.
    Redirect,
}

impl Protocol {
    const COUNT: usize = 14;
    #[cfg(test)]
    const ALL: [Protocol; Self::COUNT] = {
        use Protocol::*;
        [
            Arp, Nd, Ra, Dhcp, Icmp, Service, Dns, IcmpError, PeerError, Group, GroupHeard, Report, Claim,
            Redirect,
        ]
    };

    /// Frames per second in the long run, and at once.
    const fn allowance(self) -> (u32, u32) {
        match self {
            // A guest that scans its own /24 is not punished; one that scans a /16 is.
            Protocol::Arp | Protocol::Nd => (100, 256),
            // RFC 4861, 6.3.7: a host sends three, four seconds apart.
            Protocol::Ra => (1, 6),
            Protocol::Dhcp => (5, 20),
            Protocol::Icmp => (1000, 1000),
            // A whole tree of metadata is some hundred segments at once, and then nothing until the next boot.
            Protocol::Service => (500, 1000),
            // A busy mail server or crawler asks some hundred names a second.
            Protocol::Dns => (500, 500),
            Protocol::IcmpError | Protocol::PeerError => (100, 50),
            // A stream of 10 Mbit/s to ten listeners.
            Protocol::Group | Protocol::GroupHeard => (10_000, 1000),
            // All that an attachment may listen to, by IGMPv2 (one report each, twice), at once.
            Protocol::Report => (50, 200),
            // A takeover moves every address of a VRRP instance at once; then it is quiet.
            Protocol::Claim => (2, 64),
            Protocol::Redirect => (5000, 256),
        }
    }
}

/// One attachment's buckets at one worker. New ones are full.
#[derive(Clone, Debug)]
#[repr(align(128))]
pub struct Limits {
    /// How many workers have such buckets of the attachment; at least one.
    shared_by: u32,
    /// Per protocol, when the bucket will be full again (the "theoretical arrival time" of GCRA).
    full_at: [Duration; Protocol::COUNT],
}

impl Default for Limits {
    fn default() -> Self {
        Self::shared_by(1)
    }
}

impl Limits {
    /// One of so many workers' buckets: each has that part of rate and burst, rounded up.
    pub fn shared_by(workers: u32) -> Self {
        Self { shared_by: workers.max(1), full_at: [Duration::ZERO; Protocol::COUNT] }
    }

    /// The time that one token takes to come back, and how many there are at once.
    fn part(&self, protocol: Protocol) -> (Duration, u32) {
        let (rate, burst) = protocol.allowance();
        (Duration::from_secs(1) / rate * self.shared_by, burst.div_ceil(self.shared_by))
    }

    /// Whether [`Limits::take`] would grant a token at `now`.
    pub fn would_grant(&self, protocol: Protocol, now: Duration) -> bool {
        self.clone().take(protocol, now).is_ok()
    }

    /// Takes one token at `now`.
    ///
    /// # Errors
    /// [`DropReason::GatewayRate`] if the bucket is empty; nothing is taken then.
    pub fn take(&mut self, protocol: Protocol, now: Duration) -> Result<(), DropReason> {
        let (interval, burst) = self.part(protocol);
        let Some(full_at) = self.full_at.get_mut(protocol as usize) else {
            return Err(DropReason::GatewayRate);
        };
        let then = (*full_at).max(now).saturating_add(interval);
        if then > now.saturating_add(interval * burst) {
            return Err(DropReason::GatewayRate);
        }
        *full_at = then;
        Ok(())
    }
}

impl Limits {
    /// Takes `count` tokens at `now`, also those that are not there: what [`Limits::would_grant`] allowed turned out to cost so much.
    pub fn owe(&mut self, protocol: Protocol, now: Duration, count: u32) {
        let (interval, _) = self.part(protocol);
        if let Some(full_at) = self.full_at.get_mut(protocol as usize) {
            *full_at = (*full_at).max(now).saturating_add(interval * count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(limits: &mut Limits, now: Duration, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(limits.take(Protocol::Dhcp, now).is_ok())).sum()
    }

    #[test]
    fn a_full_bucket_grants_its_burst_and_then_its_rate() {
        let mut limits = Limits::default();
        let start = Duration::from_secs(1000);
        assert_eq!(granted(&mut limits, start, 100), 20);
        assert_eq!(granted(&mut limits, start + Duration::from_secs(1), 100), 5);
        assert_eq!(granted(&mut limits, start + Duration::from_secs(3600), 100), 20);
    }

    #[test]
    fn a_clock_that_goes_back_grants_nothing() {
        let mut limits = Limits::default();
        assert_eq!(granted(&mut limits, Duration::from_secs(1000), 100), 20);
        assert_eq!(granted(&mut limits, Duration::from_secs(10), 100), 0);
    }

    #[test]
    fn workers_share_what_one_would_grant_and_each_grants_something() {
        let start = Duration::from_secs(1000);
        for workers in [2, 3, 16, 1000] {
            let mut limits = vec![Limits::shared_by(workers); workers as usize];
            let mut granted = |now| limits.iter_mut().map(|each| granted(each, now, 100)).collect::<Vec<_>>();
            let (first, later) = (granted(start), granted(start + Duration::from_secs(10)));
            assert!(first.iter().all(|each| *each >= 1), "{workers}");
            // Rounded up at each.
            assert!(first.iter().sum::<u32>() < 20 + workers, "{workers}: {first:?}");
            assert!(later.iter().sum::<u32>() < 50 + workers, "{workers}: {later:?}");
        }
    }

    #[test]
    fn one_protocol_does_not_spend_anothers_tokens() {
        for flooded in Protocol::ALL {
            let mut limits = Limits::default();
            let granted = (0..10_000).filter(|_| limits.take(flooded, Duration::ZERO).is_ok()).count();
            assert!((6..=1000).contains(&granted), "{flooded:?}: {granted}");
            for other in Protocol::ALL.into_iter().filter(|other| *other != flooded) {
                assert!(limits.take(other, Duration::ZERO).is_ok(), "{flooded:?} spends {other:?}'s");
            }
        }
    }
}
