//! What may pass from one realm to another: nothing, unless a rule admits it (docs/decisions/0014).
//!
//! ```text
//!   from A to B tcp 443:   A ──── to port 443 ───────────────────> B
//!                          A <─── from port 443, ACK or RST set ── B       UDP and others: only with replies = true
//!   icmp:                  A ──── echo request ──> B, A <── echo reply ── B     errors: as the packet they quote
//! ```
//!
//! What must stay true: the default is to deny; a decision depends on one packet and nothing before it, and is made at both edges. What
//! a decision would need and a later fragment does not have refuses that fragment.

use core::net::Ipv6Addr;
use std::collections::HashMap;

use smoltcp::wire::{IpCidr, Ipv6Cidr};

use super::{Endpoint, Network, NetworkId, Realm};
use crate::packet::protocol::{ICMPV6, SCTP, TCP, UDP};
use crate::setup::{self, Protocol};

/// Proof that source and destination may talk; only [`Admission::inside`] and [`Rules::judge`] make one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admission(());

impl Admission {
    /// Admits traffic inside one network.
    #[inline]
    pub fn inside(source: NetworkId, destination: NetworkId) -> Option<Self> {
        (source == destination).then_some(Self(()))
    }
}

/// What a rule looks at in a packet. ICMP counts as ICMPv6, in protocol and types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Traffic {
    /// The protocol behind all extension headers.
    pub(crate) protocol: u8,
    pub(crate) shown: Shown,
}

/// What the packet shows of its transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// TCP, UDP and SCTP. `answers`: TCP's ACK or RST is set.
    Ports { source: u16, destination: u16, answers: bool },
    /// The type of an ICMPv6 message.
    Icmp(u8),
    /// A protocol whose header rules do not read.
    Other,
    /// Nothing: a fragment that is not the first.
    Nothing,
}

/// Why no rule admits a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unruled {
    /// No rule is about it.
    NoRule,
    /// A rule would decide by what a later fragment does not show.
    Fragment,
    /// The network's `outside_deny` is about it.
    Denied,
    /// Its ends are of two domains, whatever rules say.
    Domain,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// By who begins and who answers.
    rules: HashMap<(Realm, Realm), Box<[Rule]>>,
    /// What a network never sees of the outside.
    denied: HashMap<NetworkId, Box<[Ipv6Cidr]>>,
}

#[derive(Clone, Debug)]
struct Rule {
    protocol: Protocol,
    /// First and last; none: all.
    ports: Box<[(u16, u16)]>,
    replies: bool,
    from: Box<[Ipv6Cidr]>,
    to: Box<[Ipv6Cidr]>,
}

/// What a rule says of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Yes,
    No,
    /// It would take the transport header.
    NeedsMore,
}

impl Says {
    fn when(condition: bool) -> Self {
        if condition { Self::Yes } else { Self::No }
    }
}

impl Rules {
    /// Those of `setup`; `networks` by number.
    pub(crate) fn build(setup: &setup::Setup, networks: &[Network]) -> Self {
        let number = |name: &str| networks.iter().position(|n| n.name == name).map(|at| NetworkId(at as u16));
        let realm = |realm: &setup::Realm| match realm {
            setup::Realm::Network(name) => number(name).map(Realm::Network),
            setup::Realm::Tasks(domain) => {
                setup.numbered_domain(domain.as_deref()).map(|domain| Realm::Tasks(domain.id()))
            }
            setup::Realm::Outside => Some(Realm::Outside),
        };
        let mut rules: HashMap<_, Vec<Rule>> = HashMap::new();
        for crossing in &setup.crossings {
            let (Some(from), Some(to)) = (realm(&crossing.from), realm(&crossing.to)) else { continue };
            let called = |realm, addresses: &[IpCidr]| {
                let called = |address: &IpCidr| as_others_call(realm, networks, address);
                addresses.iter().filter_map(called).collect()
            };
            let rule = Rule {
                protocol: crossing.protocol,
                ports: crossing.ports.iter().map(|ports| (*ports.start(), *ports.end())).collect(),
                replies: crossing.replies,
                from: called(from, &crossing.from_addresses),
                to: called(to, &crossing.to_addresses),
            };
            rules.entry((from, to)).or_default().push(rule);
        }
        let denying = setup.networks.iter().filter(|network| !network.outside_deny.is_empty());
        let denied = denying.filter_map(|n| Some((number(&n.name)?, n.outside_deny.clone().into())));
        Self {
            rules: rules.into_iter().map(|(pair, rules)| (pair, rules.into())).collect(),
            denied: denied.collect(),
        }
    }

    /// Whether `traffic` may pass.
    ///
    /// # Errors
    /// Why no rule admits it.
    pub(crate) fn judge(
        &self,
        source: &Endpoint,
        destination: &Endpoint,
        traffic: Traffic,
    ) -> Result<Admission, Unruled> {
        if source.is_of_another_domain(destination) {
            return Err(Unruled::Domain);
        }
        if source.realm == destination.realm && source.realm != Realm::Outside {
            return Ok(Admission(()));
        }
        if self.denies(source.realm, destination) || self.denies(destination.realm, source) {
            return Err(Unruled::Denied);
        }
        let of = |pair| self.rules.get(&pair).into_iter().flatten();
        let there = of((source.realm, destination.realm));
        let there = there.filter(|rule| rule.is_between(source, destination)).map(|rule| rule.says(traffic));
        let back = of((destination.realm, source.realm));
        let back =
            back.filter(|rule| rule.is_between(destination, source)).map(|rule| rule.says_back(traffic));
        let mut unruled = Unruled::NoRule;
        for says in there.chain(back) {
            match says {
                Says::Yes => return Ok(Admission(())),
                Says::NeedsMore => unruled = Unruled::Fragment,
                Says::No => {}
            }
        }
        Err(unruled)
    }

    fn denies(&self, realm: Realm, other: &Endpoint) -> bool {
        let Realm::Network(network) = realm else { return false };
        let denied = self.denied.get(&network).filter(|_| other.realm == Realm::Outside);
        denied.is_some_and(|denied| contains(denied, other.address))
    }
}

impl Rule {
    fn is_between(&self, beginner: &Endpoint, answerer: &Endpoint) -> bool {
        let names = |addresses: &[Ipv6Cidr], address| addresses.is_empty() || contains(addresses, address);
        names(&self.from, beginner.address) && names(&self.to, answerer.address)
    }

    /// Of what whoever begins sends.
    fn says(&self, traffic: Traffic) -> Says {
        if !self.is_about(traffic.protocol) {
            return Says::No;
        }
        match (self.protocol, traffic.shown) {
            (Protocol::Any, _) => Says::Yes,
            (Protocol::Icmp, Shown::Icmp(kind)) => Says::when(kind == ECHO_REQUEST),
            (Protocol::Icmp, _) => Says::NeedsMore,
            _ if self.ports.is_empty() => Says::Yes,
            (_, Shown::Ports { destination, .. }) => Says::when(self.has(destination)),
            _ => Says::NeedsMore,
        }
    }

    /// Of what comes back.
    fn says_back(&self, traffic: Traffic) -> Says {
        if !self.is_about(traffic.protocol) {
            return Says::No;
        }
        match (traffic.protocol, traffic.shown) {
            (TCP, Shown::Ports { source, answers, .. }) => Says::when(answers && self.has(source)),
            (ICMPV6, Shown::Icmp(kind)) => Says::when(kind == ECHO_REPLY),
            (TCP | ICMPV6, _) => Says::NeedsMore,
            _ if !self.replies => Says::No,
            _ if self.ports.is_empty() => Says::Yes,
            (_, Shown::Ports { source, .. }) => Says::when(self.has(source)),
            _ => Says::NeedsMore,
        }
    }

    fn is_about(&self, protocol: u8) -> bool {
        match self.protocol {
            Protocol::Any => true,
            Protocol::Tcp => protocol == TCP,
            Protocol::Udp => protocol == UDP,
            Protocol::Icmp => protocol == ICMPV6,
            Protocol::Sctp => protocol == SCTP,
        }
    }

    fn has(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}

/// RFC 4443, sections 4.1 and 4.2.
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

fn contains(prefixes: &[Ipv6Cidr], address: Ipv6Addr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains_addr(&address))
}

/// Addresses of `realm`, as other realms call them.
fn as_others_call(realm: Realm, networks: &[Network], addresses: &IpCidr) -> Option<Ipv6Cidr> {
    match (addresses, realm) {
        (IpCidr::Ipv6(prefix), _) => Some(*prefix),
        (IpCidr::Ipv4(prefix), Realm::Network(id)) => {
            let network = networks.get(usize::from(id.0))?;
            let first = network.sir_address(prefix.network().address());
            Some(Ipv6Cidr::new(first, 96 + prefix.prefix_len()))
        }
        (IpCidr::Ipv4(_), _) => None,
    }
}

#[cfg(test)]
mod tests;
