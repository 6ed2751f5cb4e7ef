//! DHCPv4 (RFC 2131, RFC 2132, RFC 3442): the attachment's configured address, and no other.
//!
//! What must stay true:
//!
//! * The **attachment** is the client: chaddr must be its MAC, client identifiers decide nothing. There is no lease store, so
//!   nothing can run out; a lease says how soon a changed configuration reaches the guest.
//! * A request for any other address gets a NAK, so that a guest whose address was changed asks anew.
//! * A reply is never longer than the client's maximum message size (option 57, or 576 bytes): what does not fit is left out,
//!   the least important first.

use core::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOpCode, DhcpPacket, EthernetAddress,
    EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket,
};

use super::emit::Emit;
use super::names::SearchList;
use super::{GatewayContext, Lease4, whole};
use crate::DropReason;
use crate::pipeline::Rewritten;

/// Seconds: changes of the configuration reach guests within half of it.
const LEASE: u32 = 3600;
const RENEW: u32 = LEASE / 2;
const REBIND: u32 = LEASE / 8 * 7;

/// The fixed part of a message, cookie included.
const FIXED: usize = 240;
/// BOOTP's message length, which some clients still expect at least (RFC 1542, 2.1).
const SHORTEST: usize = 300;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Option numbers (RFC 2132; 119: RFC 3397; 121: RFC 3442).
mod option {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RESOLVERS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const DOMAIN_NAME: u8 = 15;
    pub(super) const INTERFACE_MTU: u8 = 26;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const TIME_SERVERS: u8 = 42;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const MAX_SIZE: u8 = 57;
    pub(super) const RENEW_TIME: u8 = 58;
    pub(super) const REBIND_TIME: u8 = 59;
    pub(super) const SEARCH_LIST: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// What a client said, as far as it decides anything.
struct Message<'a> {
    kind: DhcpMessageType,
    packet: DhcpPacket<&'a [u8]>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    parameters: Option<&'a [u8]>,
    max_size: usize,
}

/// What the server says to it.
enum Verdict {
    Offer,
    Ack,
    /// Configuration for an address the client has from elsewhere.
    Inform,
    Nak,
}

pub(super) fn answer(
    ctx: &GatewayContext<'_>,
    packet: &[u8],
    checksum_pending: bool,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let ip = Ipv4Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    if !ip.verify_checksum() {
        return Err(DropReason::BadChecksum);
    }
    if ip.more_frags() || ip.frag_offset() != 0 {
        return Err(DropReason::DhcpUnanswered);
    }
    let udp = UdpPacket::new_checked(ip.payload()).map_err(|_| DropReason::Malformed)?;
    if !checksum_pending && !udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()) {
        return Err(DropReason::BadChecksum);
    }
    let message = parse(udp.payload())?;
    if !message.packet.relay_agent_ip().is_unspecified() || message.packet.hops() != 0 {
        return Err(DropReason::DhcpRelay);
    }
    if message.packet.client_hardware_address() != ctx.mac {
        return Err(DropReason::SpoofedMac);
    }
    let (Some(own), Some(gateway)) = (ctx.first4(), ctx.gateway4) else {
        return Err(DropReason::DhcpUnanswered);
    };
    let verdict = decide(own, gateway, ip.src_addr(), &message)?;
    reply(ctx, own, gateway, &message, &verdict, out)
}

fn parse(payload: &[u8]) -> Result<Message<'_>, DropReason> {
    let packet = DhcpPacket::new_checked(payload).map_err(|_| DropReason::Malformed)?;
    let ethernet = u16::from(packet.hardware_type()) == 1 && packet.hardware_len() == 6;
    if packet.opcode() != DhcpOpCode::Request || !ethernet || packet.magic_number().to_be_bytes() != COOKIE {
        return Err(DropReason::Malformed);
    }
    let mut message = Message {
        kind: DhcpMessageType::Unknown(0),
        packet,
        requested: None,
        server: None,
        parameters: None,
        max_size: 576,
    };
    for (kind, data) in options(payload) {
        match (kind, data) {
            (option::MESSAGE_TYPE, [kind]) => message.kind = DhcpMessageType::from(*kind),
            (option::REQUESTED_ADDRESS, &[a, b, c, d]) => message.requested = Some(Ipv4Addr::new(a, b, c, d)),
            (option::SERVER, &[a, b, c, d]) => message.server = Some(Ipv4Addr::new(a, b, c, d)),
            (option::PARAMETERS, list) => message.parameters = Some(list),
            (option::MAX_SIZE, &[a, b]) => {
                message.max_size = usize::from(u16::from_be_bytes([a, b])).max(576)
            }
            _ => {}
        }
    }
    Ok(message)
}

/// The options of a message (RFC 2132, 2), up to the end mark or the first that is not whole.
fn options(message: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = message.get(FIXED..).unwrap_or_default();
    core::iter::from_fn(move || {
        while let [0, after @ ..] = rest {
            rest = after;
        }
        let (&[kind, len], after) = rest.split_first_chunk::<2>()?;
        if kind == option::END {
            return None;
        }
        let (data, after) = after.split_at_checked(usize::from(len))?;
        rest = after;
        Some((kind, data))
    })
}

/// RFC 2131, 4.3. The client's state is read from the fields it set (table 4).
fn decide(
    own: Ipv4Addr,
    gateway: Ipv4Addr,
    source: Ipv4Addr,
    message: &Message<'_>,
) -> Result<Verdict, DropReason> {
    let client = message.packet.client_ip();
    if message.server.is_some_and(|server| server != gateway) {
        return Err(DropReason::DhcpUnanswered);
    }
    match message.kind {
        DhcpMessageType::Discover => Ok(Verdict::Offer),
        // Selecting and rebooting clients ask by option 50, renewing and rebinding ones by ciaddr.
        DhcpMessageType::Request => {
            let wanted = message.requested.filter(|_| client.is_unspecified()).unwrap_or(client);
            Ok(if wanted == own { Verdict::Ack } else { Verdict::Nak })
        }
        DhcpMessageType::Inform if client == own && source == own => Ok(Verdict::Inform),
        DhcpMessageType::Inform => Err(DropReason::SpoofedAddress),
        DhcpMessageType::Decline => Err(DropReason::DhcpDecline),
        DhcpMessageType::Release => Err(DropReason::DhcpUnanswered),
        _ => Err(DropReason::Malformed),
    }
}

fn reply(
    ctx: &GatewayContext<'_>,
    own: Ipv4Addr,
    gateway: Ipv4Addr,
    message: &Message<'_>,
    verdict: &Verdict,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let (to, mac) = destination(ctx, own, message, verdict);
    let mut emit = Emit::ethernet(out, mac, EthernetProtocol::Ipv4);
    let ip_at = emit.len();
    emit.zeros(HEADERS); // written last, when the length is known
    let message_at = emit.len();
    put_fixed(&mut emit, own, message, verdict);
    let limit = message.max_size.min(usize::from(ctx.mtu)).saturating_sub(HEADERS + 1);
    let mut options = Options { emit, end: message_at + limit, asked_for: message.parameters };
    put_options(ctx, gateway, verdict, &mut options);
    let mut emit = options.emit;
    emit.put(&[option::END]);
    let written = emit.len() - message_at;
    emit.zeros(SHORTEST.saturating_sub(written));
    close(&mut emit, ip_at, gateway, to);
    whole(emit.finish())
}

/// RFC 2131, 4.1: where a reply goes. The gateway knows the client's MAC, so only those who ask for it are sent broadcasts.
fn destination(
    ctx: &GatewayContext<'_>,
    own: Ipv4Addr,
    message: &Message<'_>,
    verdict: &Verdict,
) -> (Ipv4Addr, EthernetAddress) {
    let broadcast = message.packet.flags().bits() & 0x8000 != 0;
    let has_address = !message.packet.client_ip().is_unspecified();
    match verdict {
        Verdict::Nak => (Ipv4Addr::BROADCAST, EthernetAddress::BROADCAST),
        _ if broadcast && !has_address => (Ipv4Addr::BROADCAST, EthernetAddress::BROADCAST),
        _ => (own, ctx.mac),
    }
}

fn put_fixed(emit: &mut Emit<'_>, own: Ipv4Addr, message: &Message<'_>, verdict: &Verdict) {
    let asked = &message.packet;
    let yours = match verdict {
        Verdict::Offer | Verdict::Ack => own,
        Verdict::Inform | Verdict::Nak => Ipv4Addr::UNSPECIFIED,
    };
    let client = match verdict {
        Verdict::Ack | Verdict::Inform => asked.client_ip(),
        Verdict::Offer | Verdict::Nak => Ipv4Addr::UNSPECIFIED,
    };
    emit.put(&[2, 1, 6, 0]); // reply, Ethernet, six bytes, no hops
    emit.put(&asked.transaction_id().to_be_bytes());
    emit.put(&[0, 0]);
    emit.put(&asked.flags().bits().to_be_bytes());
    emit.put(&client.octets());
    emit.put(&yours.octets());
    emit.zeros(8); // next server, relay agent: none
    emit.put(asked.client_hardware_address().as_bytes());
    emit.zeros(10 + 64 + 128); // chaddr's padding, server name, boot file
    emit.put(&COOKIE);
}

/// Options being written, none past `end`.
struct Options<'o, 'm> {
    emit: Emit<'o>,
    end: usize,
    asked_for: Option<&'m [u8]>,
}

impl Options<'_, '_> {
    /// Appends an option if it fits.
    fn put(&mut self, kind: u8, data: &[u8]) {
        let Ok(len) = u8::try_from(data.len()) else { return };
        if self.emit.len() + 2 + data.len() <= self.end {
            self.emit.put(&[kind, len]);
            self.emit.put(data);
        }
    }

    /// Appends an option if it fits and the client asked for it, or for nothing in particular.
    fn put_if_wanted(&mut self, kind: u8, data: &[u8]) {
        if !data.is_empty() && self.asked_for.is_none_or(|list| list.contains(&kind)) {
            self.put(kind, data);
        }
    }
}

/// In the order of importance. Mask, router and MTU are told unasked: the guest's link does not work without them.
fn put_options(
    ctx: &GatewayContext<'_>,
    gateway: Ipv4Addr,
    verdict: &Verdict,
    options: &mut Options<'_, '_>,
) {
    let kind = match verdict {
        Verdict::Offer => DhcpMessageType::Offer,
        Verdict::Ack | Verdict::Inform => DhcpMessageType::Ack,
        Verdict::Nak => DhcpMessageType::Nak,
    };
    options.put(option::MESSAGE_TYPE, &[kind.into()]);
    options.put(option::SERVER, &gateway.octets());
    if matches!(verdict, Verdict::Nak) {
        return;
    }
    if matches!(verdict, Verdict::Offer | Verdict::Ack) {
        options.put(option::LEASE_TIME, &LEASE.to_be_bytes());
        options.put(option::RENEW_TIME, &RENEW.to_be_bytes());
        options.put(option::REBIND_TIME, &REBIND.to_be_bytes());
    }
    put_link(ctx, gateway, options);
    options.put(option::INTERFACE_MTU, &ctx.mtu.to_be_bytes());
    put_addresses(option::RESOLVERS, ctx.dns, options);
    options.put_if_wanted(option::HOST_NAME, ctx.hostname.unwrap_or_default().as_bytes());
    let domain = ctx.domain.unwrap_or_default();
    options.put_if_wanted(option::DOMAIN_NAME, domain.as_bytes());
    options.put_if_wanted(option::SEARCH_LIST, SearchList::of(ctx.search).bytes());
    put_addresses(option::TIME_SERVERS, ctx.ntp, options);
}

fn put_link(ctx: &GatewayContext<'_>, gateway: Ipv4Addr, options: &mut Options<'_, '_>) {
    let gateway = gateway.octets();
    match (ctx.lease4, ctx.prefix4) {
        (Lease4::Subnet, Some(prefix)) => {
            options.put(option::SUBNET_MASK, &prefix.netmask().octets());
            options.put(option::ROUTER, &gateway);
            if let Some(broadcast) = prefix.broadcast() {
                options.put_if_wanted(option::BROADCAST, &broadcast.octets());
            }
        }
        (Lease4::HostRoute, _) | (_, None) => {
            options.put(option::SUBNET_MASK, &[255; 4]);
            let [a, b, c, d] = gateway;
            // The gateway is on the link; everything else is behind it.
            options.put(option::ROUTES, &[32, a, b, c, d, 0, 0, 0, 0, 0, a, b, c, d]);
            options.put(option::ROUTER, &gateway);
        }
    }
}

/// Up to three, as many as common clients keep.
fn put_addresses(kind: u8, addresses: &[IpAddr], options: &mut Options<'_, '_>) {
    let mut list = [0; 12];
    let mut len = 0;
    let v4 = addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(a.octets()) } else { None });
    for (room, address) in list.chunks_exact_mut(4).zip(v4) {
        room.copy_from_slice(&address);
        len += 4;
    }
    options.put_if_wanted(kind, list.get(..len).unwrap_or_default());
}

/// Writes the IPv4 and UDP headers in front of the message, with their checksums.
fn close(emit: &mut Emit<'_>, ip_at: usize, from: Ipv4Addr, to: Ipv4Addr) {
    let len = emit.len() - ip_at;
    let Ok(total) = u16::try_from(len) else { return };
    let mut header = [0; 20];
    let mut ip_header = Emit::at(&mut header);
    ip_header.ipv4(from, to, IpProtocol::Udp, 0, total);
    let Some((ip, datagram)) = emit.from(ip_at).split_first_chunk_mut::<20>() else { return };
    *ip = header;
    let Ok(udp_len) = u16::try_from(datagram.len()) else { return };
    if datagram.len() < 8 {
        return;
    }
    let mut udp = UdpPacket::new_unchecked(datagram);
    udp.set_src_port(DHCP_SERVER_PORT);
    udp.set_dst_port(DHCP_CLIENT_PORT);
    udp.set_len(udp_len);
    udp.fill_checksum(&from.into(), &to.into());
}
