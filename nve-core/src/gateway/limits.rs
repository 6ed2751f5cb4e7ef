//! Token buckets: how often one attachment is answered, protocol by protocol.
//!
//! What must stay true: over any span of time `t`, at most `burst + rate * t` frames of a protocol get past [`Limits::take`];
//! a clock that stands still or goes back never grants more.

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

/// One attachment's buckets. New ones are full.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Per protocol, when the bucket will be full again (the "theoretical arrival time" of GCRA).
    full_at: [Duration; Protocol::COUNT],
}

impl Limits {
    /// Whether [`Limits::take`] would grant a token at `now`.
    pub fn would_grant(&self, protocol: Protocol, now: Duration) -> bool {
        self.clone().take(protocol, now).is_ok()
    }

    /// Takes one token at `now`.
    ///
    /// # Errors
    /// [`DropReason::GatewayRate`] if the bucket is empty; nothing is taken then.
    pub fn take(&mut self, protocol: Protocol, now: Duration) -> Result<(), DropReason> {
        let (rate, burst) = protocol.allowance();
        let interval = Duration::from_secs(1) / rate;
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
        let (rate, _) = protocol.allowance();
        if let Some(full_at) = self.full_at.get_mut(protocol as usize) {
            *full_at = (*full_at).max(now).saturating_add(Duration::from_secs(1) / rate * count);
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
