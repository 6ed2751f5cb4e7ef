//! What the operator wants, checked: the only way configuration enters the core.
//!
//! What must stay true: a [`Setup`] that [`Setup::check`] accepted has unique names, VNIDs, prefixes, MACs and addresses (but for those
//! that are meant to be shared); every address lies in its network; nothing overlaps (see the errors). [`crate::pipeline::Nve::apply`] takes only a [`CheckedSetup`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipv4_xlat::address::rfc6052;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};

use crate::addr::{ChecksumMode, Identifier, Locator, SirPrefix, Vnet, Vnid};
use crate::gateway::Lease4;

mod bulk;
mod check;
mod domains;
mod further;
mod moves;
mod peer;
mod realms;
mod residence;
mod several;

pub use bulk::{Bulk, BulkHost, BulkReader, Twice};
pub use check::{CheckedSetup, SetupError, default_gateway4, default_gateway6};
pub use domains::{Domain, FurtherDomain};
pub(crate) use further::NOBODYS;
pub use moves::{GRACE, Moves, Stragglers};
pub use peer::Peer;
pub(crate) use realms::task_identifier;
pub use realms::{Alias, Aliased, Crossing, Protocol, Realm, Task, TaskMapping};
pub use residence::Said;
pub use several::Several;

/// This host's place in the fabric.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name in logs and in the authority.
    pub name: String,
    /// The /64 routed to this host's uplink, of the domain that needs no name.
    pub locator: Locator,
    /// That domain.
    pub sir: SirPrefix,
    /// What we send; a receiver accepts both.
    pub checksum: ChecksumMode,
    /// Uplink MTU in bytes, 1280..=65535.
    pub uplink_mtu: u16,
    /// What becomes of packets to an address of their network that has no mapping here.
    pub unknown: Unknown,
}

/// What becomes of packets from tenants to an address of their network without a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unknown {
    /// Their sender is told that nobody has it: the mappings here are all there are. What comes from the fabric without a mapping is
    /// nobody's.
    #[default]
    Unreachable,
    /// They go to an ILA router, to which the fabric routes SIR prefix and /96s (draft, section 4.6), as their receiver calls itself:
    /// the mappings here are some of many. A source without one is believed to be another host's.
    Router,
}

/// One virtual network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Name in config, counters and captures.
    pub name: String,
    /// Name of its [`Domain`]; `None`: the host's own.
    pub sir_domain: Option<String>,
    /// Its number on the wire, unique in its domain.
    pub vnid: Vnid,
    /// The tenant's IPv4 prefix; VNs may overlap here.
    pub ipv4: Option<Ipv4Cidr>,
    /// The tenant's /96; VNs never overlap here.
    pub ipv6: Option<Vnet>,
    /// The virtual gateway's IPv4 address. Default: the last usable address of `ipv4`.
    pub gateway4: Option<Ipv4Addr>,
    /// The virtual gateway's global IPv6 address. Default: `VNET:ffff:fffe`. (Its link-local address is always fe80::1.)
    pub gateway6: Option<Ipv6Addr>,
    /// Resolvers told by DHCPv4 (IPv4 ones) and RA (IPv6 ones). Where there are none, the gateway, if it forwards.
    pub dns: Vec<IpAddr>,
    /// Servers on the host side that the gateway's port 53 forwards to, in this order; where there are none it serves no DNS.
    pub dns_forward: Vec<SocketAddr>,
    /// The tenants' own domain in DNS, told by DHCPv4; also the search list where `search` is empty.
    pub domain: Option<String>,
    /// Domains to search, told by DHCP and RA; at most 255 bytes as DNS writes them.
    pub search: Vec<String>,
    /// Time servers told by DHCPv4 (IPv4 ones) and DHCPv6 (IPv6 ones).
    pub ntp: Vec<IpAddr>,
    /// How DHCPv4 tells addresses.
    pub lease4: Lease4,
    /// Who is sent what is sent to a group.
    pub multicast: Multicast,
    /// Whether the gateway serves each attachment's metadata at its well-known addresses.
    pub metadata: bool,
    /// Prefixes of the outside that its tenants never reach, nor are reached from, whatever crossings say.
    pub outside_deny: Vec<Ipv6Cidr>,
    /// What IPv4 addresses of the outside are called in IPv6 (RFC 6052): the prefix of a NAT64 in the fabric.
    pub nat64: Option<rfc6052::Prefix>,
}

impl Network {
    /// A network of this name and number with everything else as a configuration that does not say it; it still needs a prefix.
    pub fn named(name: impl Into<String>, vnid: Vnid) -> Self {
        Self {
            name: name.into(),
            sir_domain: None,
            vnid,
            ipv4: None,
            ipv6: None,
            gateway4: None,
            gateway6: None,
            dns: Vec::new(),
            dns_forward: Vec::new(),
            domain: None,
            search: Vec::new(),
            ntp: Vec::new(),
            lease4: Lease4::Subnet,
            multicast: Multicast::default(),
            metadata: true,
            outside_deny: Vec::new(),
            nat64: None,
        }
    }
}

impl Network {
    /// The identifier of a unicast address of it.
    pub(crate) fn identifier(&self, address: IpAddr) -> Option<Identifier> {
        match address {
            IpAddr::V4(v4) => Some(Identifier::ipv4(self.vnid, v4)),
            IpAddr::V6(v6) => Identifier::ipv6_address(self.vnid, self.ipv6?, v6).ok(),
        }
    }
}

/// Who is sent what is sent to a group of a network. Broadcasts, 224.0.0.0/24 and ff02::1 go to everybody in any case (RFC 4541,
/// sections 2.1.2 and 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Multicast {
    /// Whoever said so by IGMP or MLD, and the hosts of [`Setup::listeners`].
    #[default]
    Snoop,
    /// Everybody of the network, here and on every host that a mapping names.
    Flood,
}

/// One NIC of a tenant system.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Name in config, counters and captures; unique on the host.
    pub name: String,
    /// Name of its [`Network`].
    pub network: String,
    /// Its own MAC: the only one it may use but for `macs`.
    pub mac: EthernetAddress,
    /// Virtual MACs it may also use, such as those of VRRP; others may list them too.
    pub macs: Vec<EthernetAddress>,
    /// Its own addresses; the first of each family is the one told by DHCP.
    pub addresses: Vec<IpAddr>,
    /// Prefixes behind it: it may send from their addresses, and is sent what is for them. IPv4: any, but for part of what is nobody's
    /// and of the gateway; IPv6: /97 to /127 of the network's /96.
    pub prefixes: Vec<IpCidr>,
    /// Addresses it may hold in turn with the other attachments of this host that list them.
    pub shared: Vec<IpAddr>,
    /// Host name told by DHCPv4.
    pub hostname: Option<String>,
    /// What the metadata service tells it besides.
    pub instance: Instance,
}

/// What the metadata service tells a machine of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Instance {
    /// Its name for cloud-init, which configures a machine anew when that changes. Default: the attachment's name.
    pub id: Option<String>,
    /// Public keys, each a line as in `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// Whatever the machine's owner wants it to read at boot.
    pub user_data: Option<Arc<[u8]>>,
}

/// Where one tenant address lives.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Name of its [`Network`].
    pub network: String,
    /// The tenant's address.
    pub address: IpAddr,
    /// The host that has it.
    pub locator: Locator,
}

/// A host that has listeners to a group.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Name of its [`Network`].
    pub network: String,
    /// 224.0.0.0 to 239.255.255.255, or ff02::0 to ff0f::fff:ffff.
    pub group: IpAddr,
    /// The host that has them.
    pub locator: Locator,
}

/// Behind which host one prefix is; as [`Attachment::prefixes`].
#[derive(Clone, Debug)]
pub struct Route {
    /// Name of its [`Network`].
    pub network: String,
    /// The tenants' prefix.
    pub prefix: IpCidr,
    /// The host whose attachment it is behind.
    pub locator: Locator,
}

/// Everything, unchecked across objects (each field is checked by its type).
#[derive(Clone, Debug)]
pub struct Setup {
    /// This host.
    pub host: Host,
    /// Domains beside the host's own.
    pub further_domains: Vec<FurtherDomain>,
    /// Networks it serves or reaches.
    pub networks: Vec<Network>,
    /// NICs it serves.
    pub attachments: Vec<Attachment>,
    /// Addresses on other hosts.
    pub mappings: Vec<Mapping>,
    /// More of them, by the million.
    pub bulk: Bulk,
    /// Listeners on other hosts.
    pub listeners: Vec<Listener>,
    /// Prefixes behind other hosts.
    pub routes: Vec<Route>,
    /// Guests that come and go.
    pub moves: Moves,
    /// Tasks it serves.
    pub tasks: Vec<Task>,
    /// Tasks on other hosts.
    pub task_mappings: Vec<TaskMapping>,
    /// Addresses that several hosts have at once.
    pub several: Vec<Several>,
    /// How IPv4 tenants call endpoints elsewhere.
    pub aliases: Vec<Alias>,
    /// What may pass between realms.
    pub crossings: Vec<Crossing>,
    /// Hosts whose ILA is not ours.
    pub peers: Vec<Peer>,
    /// What is the fabric's: aggregates of locators, of networks' /96s and of hosts' own addresses, and SIR prefixes of domains that this
    /// host does not serve, known here or not. Nothing in it is outside.
    pub fabric: Vec<Ipv6Cidr>,
    /// Hops that this host's own kernel spends between us and the fabric, each way: 1 with a TUN, which is the default; 0 where the uplink
    /// is the link itself.
    pub uplink_hops: u8,
}

impl Setup {
    /// A host that serves nothing.
    pub const fn of(host: Host) -> Self {
        Self {
            host,
            further_domains: Vec::new(),
            networks: Vec::new(),
            attachments: Vec::new(),
            mappings: Vec::new(),
            bulk: Bulk::NONE,
            listeners: Vec::new(),
            routes: Vec::new(),
            moves: Moves::NONE,
            tasks: Vec::new(),
            task_mappings: Vec::new(),
            several: Vec::new(),
            aliases: Vec::new(),
            crossings: Vec::new(),
            peers: Vec::new(),
            fabric: Vec::new(),
            uplink_hops: 1,
        }
    }

    /// The hosts that mappings, routes and listeners name.
    pub(crate) fn locators(&self) -> impl Iterator<Item = Locator> {
        self.named_locators().map(|(locator, _)| locator)
    }
}

#[cfg(test)]
mod tests;
