//! The virtual gateway: answers ARP, NDP, RS, DHCP and echo for one attachment, one short file per protocol.
//!
//! What must stay true:
//!
//! * **Only the asker is answered**, at the MAC it asked with, and only about what its configuration says. Nothing an attachment sends here
//!   changes what any other attachment is told, but a claim of an address that both list: the gateway keeps no state but token
//!   buckets, one set per attachment.
//! * **Never more, never larger.** One frame brings at most one reply, and nothing is said unasked but router advertisements ([`advertise`]) and, every two minutes, queries ([`group`]); a reply is never longer than the MTU told to the guest
//!   (an echo reply is no longer than its request), and never more frequent than its protocol's bucket ([`Limits`]).
//! * **Total over any bytes**: no frame panics, loops or allocates.
//!
//! The rules, by name:
//!
//! | rule | file | says |
//! |---|---|---|
//! | neighbour | `arp.rs`, `nd.rs` | every address of the VN resolves to the gateway's MAC, except the asker's own, network and broadcast |
//! | probe | `arp.rs`, `nd.rs` | an address probe is answered only if another attachment, another host or the gateway holds the target |
//! | silence | `arp.rs`, `nd.rs` | announcements and advertisements are never answered |
//! | claim | `claim.rs` | an announcement of a shared address, from an attachment that lists it, moves it there |
//! | own source | all | a MAC or an address that is not the attachment's is dropped by name |
//! | router | `ra.rs` | RS, a change, and half an hour bring M=1, the MTU, the default router, resolvers; no prefix, because a /96 cannot SLAAC |
//! | lease | `dhcpv4.rs`, `dhcpv6.rs` | the attachment's configured address and no other; the attachment is the client's identity |
//! | options | `dhcpv4.rs`, `dhcpv6.rs` | resolvers, time servers, search list, host name, MTU: those that the client asks for |
//! | relay | `dhcpv4.rs`, `dhcpv6.rs` | relayed messages are refused by name |
//! | echo | `echo.rs` | every gateway address answers ping |
//! | service | `service/` | what needs a TCP/IP stack is punted: the slow path has one for each attachment |
//! | listener | `group/` | IGMP and MLD reports are checked and punted: the slow path keeps who listens to what; queries are the gateway's alone |
//! | resolver | `dns/` | questions of DNS are passed on to the host's resolvers, and the answers back |
//! | refusal | `no_service.rs` | a port of the gateway that serves nothing is unreachable |
//!
//! ```text
//!   frame ──> addressed to us? ──> whole? ──> its bucket ───> its file ──> Reply: head in `out`, tail of the frame; or Punt
//!                  │ no              │ no        │ empty           │ not due
//!                  LetGo             Again       Drop(GatewayRate)  Drop(reason)
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use ipv4_xlat::IcmpError;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Cidr, Ipv4Packet, Ipv6Packet,
};

use crate::DropReason;
use crate::addr::Vnet;
use crate::packet::{ChecksumState, Frame};
use crate::pipeline::{Again, Desk, Rewritten};
use crate::policy::{Attachment, Network};

mod arp;
mod ask;
mod claim;
mod dhcpv4;
mod dhcpv6;
pub mod dns;
mod echo;
mod emit;
pub mod group;
mod limits;
pub(crate) mod names;
mod nd;
mod no_service;
mod ra;
pub(crate) mod service;
#[cfg(test)]
mod tests;

pub use ask::Asker;
pub use claim::Claim;
pub use limits::{Limits, Protocol};
pub use service::{METADATA4, METADATA6};

/// The virtual gateway's MAC, the same on every host and in every VN, so that a guest that moves needs to learn nothing.
/// (Locally administered; the middle bytes spell "ILA".)
pub const GATEWAY_MAC: EthernetAddress = EthernetAddress([0x02, 0x49, 0x4c, 0x41, 0x00, 0x01]);

/// The virtual gateway's link-local address in every VN, and the router that RAs announce.
pub const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// How DHCPv4 tells an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lease4 {
    /// The VN's own prefix as the subnet mask, the gateway as the router: what a guest expects on an ordinary network.
    #[default]
    Subnet,
    /// A /32, with the routes in option 121 (RFC 3442), the default route included.
    HostRoute,
}

/// What the gateway knows of the asker: borrowed from the configuration in force, made anew for each question.
#[derive(Clone, Copy)]
pub struct GatewayContext<'a> {
    /// The attachment's MAC: the one that it asks with, if it has several.
    pub mac: EthernetAddress,
    /// The attachment's addresses; the first of each family is the one leased.
    pub addresses: &'a [IpAddr],
    /// Addresses that it may hold in turn with others.
    pub shared: &'a [IpAddr],
    /// Whether it waits for some of its addresses, which are elsewhere until its guest says that it has them.
    pub waits: bool,
    /// What it may use beside its own addresses; `None`: nothing.
    pub further: Option<&'a dyn FurtherAddresses>,
    /// Host name told by DHCPv4.
    pub hostname: Option<&'a str>,
    /// The VN's IPv4 prefix.
    pub prefix4: Option<Ipv4Cidr>,
    /// The gateway's address in it.
    pub gateway4: Option<Ipv4Addr>,
    /// The VN's /96.
    pub vnet: Option<Vnet>,
    /// The gateway's address in it.
    pub gateway6: Option<Ipv6Addr>,
    /// Resolvers, both families.
    pub dns: &'a [IpAddr],
    /// Whether the gateway's port 53 forwards questions.
    pub forwards_dns: bool,
    /// The tenants' own domain.
    pub domain: Option<&'a str>,
    /// Domains to search.
    pub search: &'a [String],
    /// Time servers, both families.
    pub ntp: &'a [IpAddr],
    /// The largest IP packet the guest may send, bytes.
    pub mtu: u16,
    /// How DHCPv4 tells the address.
    pub lease4: Lease4,
    /// Whether the VN has the metadata service.
    pub metadata: bool,
    /// Whether an attachment other than the asker, here or on another host, holds this address of the VN.
    pub held_by_another: &'a dyn Fn(IpAddr) -> bool,
}

/// What an attachment may use beside its own addresses: shared ones and prefixes behind it (docs/decisions/0013).
pub trait FurtherAddresses {
    /// Whether it may send from `address`, which is none of its own. A shared one that nobody holds is its from then on.
    ///
    /// # Errors
    /// The drop's name.
    fn may_speak(&self, address: IpAddr) -> Result<(), DropReason>;
    /// Whether what is for `address` goes to it now.
    fn is_behind(&self, address: IpAddr) -> bool;
}

impl<'a> GatewayContext<'a> {
    /// What the configuration in force says of `attachment` in `network`; `held_by_another` as in the field.
    pub fn new(
        attachment: &'a Attachment,
        network: &'a Network,
        held_by_another: &'a dyn Fn(IpAddr) -> bool,
    ) -> Self {
        Self {
            mac: attachment.mac,
            addresses: &attachment.addresses,
            shared: &attachment.shared,
            waits: attachment.awaited().next().is_some(),
            further: None,
            hostname: attachment.hostname.as_deref(),
            prefix4: network.ipv4,
            gateway4: network.gateway4,
            vnet: network.ipv6,
            gateway6: network.gateway6,
            dns: &network.dns,
            forwards_dns: !network.dns_forward.is_empty(),
            domain: network.domain.as_deref(),
            search: &network.search,
            ntp: &network.ntp,
            mtu: network.mtu,
            lease4: network.lease4,
            metadata: network.metadata,
            held_by_another,
        }
    }

    /// The same, of an attachment that asks with `mac` and may use `further`.
    pub fn with_further(self, mac: EthernetAddress, further: &'a dyn FurtherAddresses) -> Self {
        Self { mac, further: Some(further), ..self }
    }

    /// Whether `address` is the asker's: its own, one that it holds, or behind it.
    fn is_askers(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.addresses.contains(&address) || self.further.is_some_and(|further| further.is_behind(address))
    }

    /// Whether it may send from `address`.
    fn may_speak(&self, address: impl Into<IpAddr>) -> Result<(), DropReason> {
        let address = address.into();
        match self.further {
            _ if self.addresses.contains(&address) => Ok(()),
            Some(further) => further.may_speak(address),
            None => Err(DropReason::SpoofedAddress),
        }
    }

    fn first4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None })
    }

    fn first6(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None })
    }

    fn is_gateway6(&self, address: Ipv6Addr) -> bool {
        address == GATEWAY_LINK_LOCAL || Some(address) == self.gateway6
    }

    /// Whether it may send from `source` on its own link: as elsewhere, or from any link-local address but ours.
    fn may_speak6(&self, source: Ipv6Addr) -> Result<(), DropReason> {
        match source.is_unicast_link_local() && source != GATEWAY_LINK_LOCAL {
            true => Ok(()),
            false => self.may_speak(source),
        }
    }
}

/// What [`answer`] says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Send this back: a head in `out`, and for echo, the tail of the asking frame.
    Reply(Rewritten),
    /// It was for the gateway and gets no answer.
    Drop(DropReason),
    /// As [`Answer::Drop`], and its sender, whose address is its own, is owed an ICMP error.
    Owed(DropReason, IcmpError),
    /// The attachment says that it has an address: a shared one, or one of its own that it waits for.
    Claim(Claim),
    /// Nothing is decided until the shell has done this. Never asked of a frame that is whole and finished.
    Again(Again),
    /// The slow path answers, of its own time: the frame is whole, finished and from one of the attachment's addresses.
    Punt(Desk),
    /// Not for the gateway: the walk goes on.
    LetGo,
}

/// Which of the gateway's protocols a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Arp,
    Nd,
    /// Router solicitation: neighbour discovery too, with a bucket of its own.
    Rs,
    Dhcp4,
    Dhcp6,
    Echo4,
    Echo6,
    /// What the gateway's own TCP/IP stack serves.
    Service,
    /// IGMP or MLD: who listens to what.
    Report,
    /// A question to be passed on to resolvers.
    Dns,
    /// Addressed to the gateway, and nothing it serves.
    NoService,
}

impl Kind {
    fn bucket(self) -> Option<Protocol> {
        match self {
            Kind::Arp => Some(Protocol::Arp),
            Kind::Nd => Some(Protocol::Nd),
            Kind::Rs => Some(Protocol::Ra),
            Kind::Dhcp4 | Kind::Dhcp6 => Some(Protocol::Dhcp),
            Kind::Echo4 | Kind::Echo6 => Some(Protocol::Icmp),
            Kind::Service => Some(Protocol::Service),
            Kind::Report => Some(Protocol::Report),
            Kind::Dns => Some(Protocol::Dns),
            Kind::NoService => None,
        }
    }

    fn reads_everything(self) -> bool {
        !matches!(self, Kind::Echo4 | Kind::Echo6 | Kind::NoService)
    }

    fn is_udp(self) -> bool {
        matches!(self, Kind::Dhcp4 | Kind::Dhcp6 | Kind::NoService)
    }
}

/// Answers one Ethernet frame of the attachment `ctx` describes, at time `now` (since any fixed epoch).
///
/// `out` receives the reply's head, from the Ethernet header on; with less than 1514 bytes of room a long reply is not sent.
/// Every frame is legal input, and so is every head of one that [`Frame`] allows: echo is answered from the head alone.
pub fn answer(
    ctx: &GatewayContext<'_>,
    limits: &mut Limits,
    now: Duration,
    frame: &Frame<'_>,
    out: &mut [u8],
) -> Answer {
    let Some(kind) = classify(ctx, frame.head) else { return Answer::LetGo };
    if !frame.is_whole() && kind.reads_everything() {
        return Answer::Again(Again::Whole);
    }
    try_answer(ctx, limits, now, kind, frame, out).unwrap_or_else(Answer::Drop)
}

/// What the attachment `ctx` describes is told unasked: a router advertisement to all nodes of its link, which is it alone. `None` where
/// its network has no IPv6.
pub fn advertise(ctx: &GatewayContext<'_>, out: &mut [u8]) -> Option<Rewritten> {
    ra::advertise(ctx, nd::ALL_NODES, out).ok()
}

/// A reply of `head` bytes that is whole in the buffer; what did not fit becomes a named drop.
fn whole(head: Option<usize>) -> Result<Rewritten, DropReason> {
    head.map(|head| Rewritten::whole(0..head)).ok_or(DropReason::GatewayNoRoom)
}

fn try_answer(
    ctx: &GatewayContext<'_>,
    limits: &mut Limits,
    now: Duration,
    kind: Kind,
    asked: &Frame<'_>,
    out: &mut [u8],
) -> Result<Answer, DropReason> {
    let frame = EthernetFrame::new_checked(asked.head).map_err(|_| DropReason::Malformed)?;
    if frame.src_addr() != ctx.mac {
        return Err(DropReason::SpoofedMac);
    }
    if kind == Kind::Service {
        return service::admit(ctx, limits, now, asked);
    }
    if kind == Kind::Dns {
        return dns::admit(ctx, limits, now, asked);
    }
    if asked.offload.gso.is_some() || (is_pending(asked) && !kind.is_udp()) {
        return Err(DropReason::BadOffload);
    }
    if let Some(protocol) = kind.bucket() {
        limits.take(protocol, now)?;
    }
    if let Some(claim) = claim::read(ctx, kind, frame.payload())? {
        return Ok(Answer::Claim(claim));
    }
    if kind == Kind::Report {
        return group::check(ctx, asked.head).map(|()| Answer::Punt(Desk::Group));
    }
    let reply = match kind {
        Kind::Arp => arp::answer(ctx, frame.payload(), out),
        Kind::Nd | Kind::Rs => nd::answer(ctx, frame.payload(), out),
        Kind::Dhcp4 => dhcpv4::answer(ctx, frame.payload(), is_pending(asked), out),
        Kind::Dhcp6 => dhcpv6::answer(ctx, frame.payload(), is_pending(asked), out),
        Kind::Echo4 => echo::answer_v4(ctx, frame.payload(), asked.len, out),
        Kind::Echo6 => echo::answer_v6(ctx, frame.payload(), asked.len, out),
        Kind::Service | Kind::Report | Kind::Dns | Kind::NoService => {
            let error = no_service::owed(ctx, frame.payload())?.ok_or(DropReason::GatewayNoService)?;
            return Ok(Answer::Owed(DropReason::GatewayNoService, error));
        }
    };
    reply.map(Answer::Reply)
}

/// The guest left the transport checksum to its device: the field holds a seed, and there is nothing to verify, because the
/// bytes never crossed a wire.
fn is_pending(frame: &Frame<'_>) -> bool {
    matches!(frame.offload.checksum, ChecksumState::Partial { .. })
}

/// Which protocol's file a frame belongs to, from its headers alone; `None` if it is not for the gateway.
fn classify(ctx: &GatewayContext<'_>, head: &[u8]) -> Option<Kind> {
    let frame = EthernetFrame::new_checked(head).ok()?;
    match frame.ethertype() {
        EthernetProtocol::Arp => Some(Kind::Arp),
        EthernetProtocol::Ipv4 => classify_v4(ctx, frame.payload()),
        EthernetProtocol::Ipv6 => classify_v6(ctx, frame.payload()),
        _ => None,
    }
}

fn classify_v4(ctx: &GatewayContext<'_>, packet: &[u8]) -> Option<Kind> {
    let ip = headers_v4(packet)?;
    let first_fragment = ip.frag_offset() == 0;
    let transport = packet.get(usize::from(ip.header_len())..)?;
    if service::is_offered(ctx, ip.dst_addr()) {
        let whole = first_fragment && !ip.more_frags();
        return Some(service::kind(ip.next_header(), transport).filter(|_| whole).unwrap_or(Kind::NoService));
    }
    let to_gateway = Some(ip.dst_addr()) == ctx.gateway4;
    match ip.next_header() {
        IpProtocol::Igmp if first_fragment => Some(Kind::Report),
        // What a tenant asks another by unicast is theirs (its answer is refused, `rogue-server`); what is broadcast is ours.
        IpProtocol::Udp if first_fragment && (to_gateway || ip.dst_addr().is_broadcast()) => {
            match transport.get(2..4)? {
                [0, 67] => Some(Kind::Dhcp4),
                [0, 53] if to_gateway && ctx.forwards_dns => Some(Kind::Dns),
                _ => to_gateway.then_some(Kind::NoService),
            }
        }
        IpProtocol::Icmp if to_gateway => match transport.first() {
            Some(8) if first_fragment && !ip.more_frags() => Some(Kind::Echo4),
            _ => Some(Kind::NoService),
        },
        _ => to_gateway.then_some(Kind::NoService),
    }
}

fn classify_v6(ctx: &GatewayContext<'_>, packet: &[u8]) -> Option<Kind> {
    let ip = headers_v6(packet)?;
    let transport = packet.get(40..)?;
    if service::is_offered(ctx, ip.dst_addr()) {
        return service::kind(ip.next_header(), transport).or(Some(Kind::NoService));
    }
    let to_gateway = ctx.is_gateway6(ip.dst_addr());
    if ip.next_header() == IpProtocol::Udp && ip.dst_addr() == dhcpv6::SERVERS {
        return (transport.get(2..4)? == dhcpv6::SERVER_PORT.to_be_bytes()).then_some(Kind::Dhcp6);
    }
    if group::is_mld(packet) {
        return Some(Kind::Report);
    }
    match (ip.next_header(), transport.first()) {
        (IpProtocol::Icmpv6, Some(133)) => Some(Kind::Rs),
        (IpProtocol::Icmpv6, Some(134..=137)) => Some(Kind::Nd),
        (IpProtocol::Icmpv6, Some(128)) if to_gateway => Some(Kind::Echo6),
        (IpProtocol::Udp, _) if to_gateway && ctx.forwards_dns && transport.get(2..4)? == [0, 53] => {
            Some(Kind::Dns)
        }
        _ => to_gateway.then_some(Kind::NoService),
    }
}

/// The IPv4 header of a packet whose tail may be missing; `None` if the header itself is not whole.
fn headers_v4(packet: &[u8]) -> Option<Ipv4Packet<&[u8]>> {
    let ip = Ipv4Packet::new_unchecked(packet.get(..20).and(Some(packet))?);
    let header = usize::from(ip.header_len());
    (ip.version() == 4 && header >= 20 && header <= packet.len()).then_some(ip)
}

/// The IPv6 header of a packet whose tail may be missing; `None` if the header itself is not whole.
fn headers_v6(packet: &[u8]) -> Option<Ipv6Packet<&[u8]>> {
    let ip = Ipv6Packet::new_unchecked(packet.get(..40).and(Some(packet))?);
    (ip.version() == 6).then_some(ip)
}
