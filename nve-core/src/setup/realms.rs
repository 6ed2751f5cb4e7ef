//! Tasks, what may pass between realms, and how IPv4 tenants call endpoints elsewhere, as the operator writes it (docs/decisions/0014).
//!
//! What must stay true: a rule is between two realms; inside a network, and between the tasks of a domain, everything is allowed
//! and nothing of this is asked.

use core::net::Ipv6Addr;
use core::ops::RangeInclusive;
use std::borrow::Cow;

use smoltcp::wire::{IpCidr, Ipv4Cidr};

use crate::addr::Locator;

mod check;

pub(crate) use check::task_identifier;
pub(super) use check::{check, task_name};

/// Who an endpoint belongs to, by name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Realm {
    /// A virtual network.
    Network(String),
    /// The tasks of the domain of this name, or of the host's own: endpoints `SIR:T` of type 1.
    Tasks(Option<String>),
    /// Whatever is in no SIR, VN or locator prefix.
    Outside,
}

impl Realm {
    /// What messages call the tasks of the host's own domain; no network has this name. Those of another: `tasks@NAME`.
    pub const TASKS: &'static str = "tasks";
    /// What messages call the outside; no network has this name.
    pub const OUTSIDE: &'static str = "outside";

    /// As the configuration writes it.
    pub fn of(name: &str) -> Self {
        match name {
            Self::TASKS => Self::Tasks(None),
            Self::OUTSIDE => Self::Outside,
            name => match name.strip_prefix(Self::TASKS).and_then(|rest| rest.strip_prefix('@')) {
                Some(domain) => Self::Tasks(Some(domain.to_owned())),
                None => Self::Network(name.to_owned()),
            },
        }
    }
    /// As the configuration writes it.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Network(name) => name.into(),
            Self::Tasks(None) => Self::TASKS.into(),
            Self::Tasks(Some(domain)) => format!("{}@{domain}", Self::TASKS).into(),
            Self::Outside => Self::OUTSIDE.into(),
        }
    }
}

/// A task of this host: an endpoint of the domain itself (draft, section 3.5), behind a TUN device.
#[derive(Clone, Debug)]
pub struct Task {
    /// Name of its attachment in config, counters and captures; unique on the host, attachments of tenants included.
    pub name: String,
    /// `SIR:T`, each of type 1, all of one domain.
    pub addresses: Vec<Ipv6Addr>,
}

/// Where a task of another host lives.
#[derive(Clone, Debug)]
pub struct TaskMapping {
    /// `SIR:T`, of type 1.
    pub address: Ipv6Addr,
    /// The host that has it.
    pub locator: Locator,
}

/// What IPv4 tenants of one network call an endpoint that is elsewhere.
#[derive(Clone, Debug)]
pub struct Alias {
    /// Name of the network whose tenants use it.
    pub network: String,
    /// One address, or a prefix, that nobody of the network has.
    pub address: Ipv4Cidr,
    /// Who it is.
    pub of: Aliased,
}

impl Alias {
    /// What messages call it.
    pub fn name(&self) -> String {
        let one = self.address.prefix_len() == 32;
        let address = if one { self.address.address().to_string() } else { self.address.to_string() };
        format!("alias {address} in {}", self.network)
    }
}

/// Who is behind an [`Alias`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Aliased {
    /// A task (`SIR:T`), or a tenant of another network by its IPv6 address; of one address only.
    Ipv6(Ipv6Addr),
    /// Tenants of another network by their IPv4 addresses: as many as the alias has, in the same order.
    Ipv4 {
        /// Name of their network.
        network: String,
        /// Their addresses there.
        prefix: Ipv4Cidr,
    },
}

/// Which protocol a [`Crossing`] is about. ICMP and ICMPv6 are one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Protocol {
    /// Every protocol.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Echo: requests one way, replies the other.
    Icmp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them, by the name that the configuration uses.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("any", Self::Any),
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
        ("icmp", Self::Icmp),
        ("sctp", Self::Sctp),
    ];

    /// Whether rules can tell its packets by port.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }
}

/// A rule: what may pass from one realm to another, and which answers come back. Nothing is remembered from packet to packet.
#[derive(Clone, Debug)]
pub struct Crossing {
    /// What messages call it.
    pub name: String,
    /// Who begins.
    pub from: Realm,
    /// Who answers.
    pub to: Realm,
    /// What may pass.
    pub protocol: Protocol,
    /// Destination ports of what passes, source ports of what comes back; empty: all.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Whether anything but TCP (which says itself whether it answers) and echo replies comes back.
    pub replies: bool,
    /// Whose packets pass, in the address space of `from`; empty: everybody's.
    pub from_addresses: Vec<IpCidr>,
    /// To whom, in the address space of `to`; empty: everybody.
    pub to_addresses: Vec<IpCidr>,
}

impl Crossing {
    /// Everything from one realm to another, and no answers but those of TCP and echo.
    pub fn between(from: Realm, to: Realm) -> Self {
        Self {
            name: format!("crossing from {} to {}", from.name(), to.name()),
            from,
            to,
            protocol: Protocol::Any,
            ports: Vec::new(),
            replies: false,
            from_addresses: Vec::new(),
            to_addresses: Vec::new(),
        }
    }
}
