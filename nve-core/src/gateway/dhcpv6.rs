//! DHCPv6 (RFC 8415): the attachment's configured address as one IA_NA, resolvers, search list, time servers.
//!
//! What must stay true:
//!
//! * The **attachment** is the client: a DUID is echoed and decides nothing. There is no lease store, so nothing can run out.
//! * The first IA_NA of a message holds the attachment's first IPv6 address and no other; what else a client believes to hold is
//!   given back with lifetime zero, so that a changed configuration reaches the guest at its next renewal.
//! * Only messages to ff02::1:2 come here; unicast is not offered (no Server Unicast option), and relays are refused by name.
//! * Whoever has no IPv6 address here is told so (NoAddrsAvail), so that a client need not go on asking.
//! * A reply is at most the IPv6 minimum MTU: identity associations and stale addresses are answered up to a fixed count.

use core::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv6Packet, UdpPacket};

use super::emit::{Emit, HOP_LIMIT};
use super::names::SearchList;
use super::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, GatewayContext, whole};
use crate::DropReason;
use crate::pipeline::Rewritten;

/// All_DHCP_Relay_Agents_and_Servers.
pub(super) const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
pub(super) const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;

/// Seconds; as DHCPv4's.
const LIFETIME: u32 = 3600;
const T1: u32 = LIFETIME / 2;
const T2: u32 = LIFETIME / 8 * 7;

/// A DUID is at most 128 bytes after its type (RFC 8415, 11.1).
const MAX_DUID: usize = 130;
/// Identity associations answered in one reply.
const MAX_ASSOCIATIONS: usize = 4;
/// Addresses an association is told to give up.
const MAX_STALE: usize = 4;
const MAX_RESOLVERS: usize = 8;
const MAX_CLOCKS: usize = 4;
/// Suboption of a server's address (RFC 5908, 4.1).
const NTP_SERVER_ADDRESS: u16 = 1;

/// Message types (RFC 8415, 7.3).
mod message {
    pub(super) const SOLICIT: u8 = 1;
    pub(super) const ADVERTISE: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const CONFIRM: u8 = 4;
    pub(super) const RENEW: u8 = 5;
    pub(super) const REBIND: u8 = 6;
    pub(super) const REPLY: u8 = 7;
    pub(super) const RELEASE: u8 = 8;
    pub(super) const DECLINE: u8 = 9;
    pub(super) const INFORMATION_REQUEST: u8 = 11;
    pub(super) const RELAY_FORWARD: u8 = 12;
}

/// Option codes (RFC 8415, 24; 23 and 24: RFC 3646; 56: RFC 5908).
mod option {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_TA: u16 = 4;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const WANTED: u16 = 6;
    pub(super) const PREFERENCE: u16 = 7;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const RESOLVERS: u16 = 23;
    pub(super) const SEARCH_LIST: u16 = 24;
    pub(super) const IA_PD: u16 = 25;
    pub(super) const REFRESH_TIME: u16 = 32;
    pub(super) const NTP: u16 = 56;
}

/// Status codes (RFC 8415, 21.13).
#[derive(Clone, Copy)]
enum Status {
    Success = 0,
    NoAddresses = 2,
    NotOnLink = 4,
    NoPrefix = 6,
}

/// What the server says: which message, and which parts of it.
#[derive(Clone, Copy)]
enum Verdict {
    Advertise,
    /// A binding; `rapid` where it answers a solicitation at once.
    Bind {
        rapid: bool,
    },
    /// Nothing but a status.
    Status(Status),
    /// Configuration without an address.
    Information,
}

/// What a client said, as far as it decides anything.
struct Message<'a> {
    kind: u8,
    transaction: [u8; 3],
    options: &'a [u8],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    wanted: Option<&'a [u8]>,
    rapid_commit: bool,
}

pub(super) fn answer(
    ctx: &GatewayContext<'_>,
    packet: &[u8],
    checksum_pending: bool,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let ip = Ipv6Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    let (source, to) = (ip.src_addr(), ip.dst_addr());
    let udp = UdpPacket::new_checked(ip.payload()).map_err(|_| DropReason::Malformed)?;
    let verified = udp.checksum() != 0 && udp.verify_checksum(&source.into(), &to.into());
    if !checksum_pending && !verified {
        return Err(DropReason::BadChecksum);
    }
    ctx.may_speak6(source)?;
    let message = parse(udp.payload())?;
    let verdict = decide(ctx, &message)?;
    reply(ctx, source, &message, verdict, out)
}

fn parse(payload: &[u8]) -> Result<Message<'_>, DropReason> {
    let (&[kind, a, b, c], options) = payload.split_first_chunk::<4>().ok_or(DropReason::Malformed)?;
    if kind == message::RELAY_FORWARD {
        return Err(DropReason::DhcpRelay);
    }
    let mut message = Message {
        kind,
        transaction: [a, b, c],
        options,
        client: None,
        server: None,
        wanted: None,
        rapid_commit: false,
    };
    let mut read = 0;
    for (code, data) in Options(options) {
        read += 4 + data.len();
        match code {
            option::CLIENT => message.client = Some(data),
            option::SERVER => message.server = Some(data),
            option::WANTED => message.wanted = Some(data),
            option::RAPID_COMMIT => message.rapid_commit = true,
            _ => {}
        }
    }
    let duid_fits = message.client.is_none_or(|duid| (3..=MAX_DUID).contains(&duid.len()));
    if read == options.len() && duid_fits { Ok(message) } else { Err(DropReason::Malformed) }
}

/// The options of a message or of an option (RFC 8415, 21.1), up to the first that is not whole.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[a, b, c, d], rest) = self.0.split_first_chunk::<4>()?;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([c, d])))?;
        self.0 = rest;
        Some((u16::from_be_bytes([a, b]), data))
    }
}

/// RFC 8415, 16 (which identifiers each message must and must not carry) and 18.3.
fn decide(ctx: &GatewayContext<'_>, asked: &Message<'_>) -> Result<Verdict, DropReason> {
    let names_client = asked.client.is_some();
    let names_us = match asked.server {
        Some(server) if server == server_duid() => true,
        Some(_) => return Err(DropReason::DhcpUnanswered),
        None => false,
    };
    let must_name_us = match asked.kind {
        message::SOLICIT | message::CONFIRM | message::REBIND => false,
        message::REQUEST | message::RENEW | message::DECLINE | message::RELEASE => true,
        message::INFORMATION_REQUEST => return Ok(Verdict::Information),
        _ => return Err(DropReason::Malformed),
    };
    if !names_client || names_us != must_name_us {
        return Err(DropReason::Malformed);
    }
    match asked.kind {
        message::SOLICIT if asked.rapid_commit => Ok(Verdict::Bind { rapid: true }),
        message::SOLICIT => Ok(Verdict::Advertise),
        message::CONFIRM => confirm(ctx, asked).map(Verdict::Status),
        message::DECLINE | message::RELEASE => Ok(Verdict::Status(Status::Success)),
        _ => Ok(Verdict::Bind { rapid: false }),
    }
}

/// RFC 8415, 18.3.3: whether all the client's addresses are still right for this link; silence if it names none.
fn confirm(ctx: &GatewayContext<'_>, asked: &Message<'_>) -> Result<Status, DropReason> {
    let held =
        || Options(asked.options).filter(|(code, _)| *code == option::IA_NA).flat_map(|(_, ia)| held(ia));
    if held().next().is_none() {
        return Err(DropReason::DhcpUnanswered);
    }
    Ok(if held().all(|address| Some(address) == ctx.first6()) { Status::Success } else { Status::NotOnLink })
}

/// The addresses in an IA_NA's data.
fn held(association: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    Options(association.get(12..).unwrap_or_default())
        .filter(|(code, _)| *code == option::ADDRESS)
        .filter_map(|(_, data)| data.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets)))
}

/// DUID-LL (RFC 8415, 11.4) of the gateway's MAC: the same on every host, so that a guest that moves keeps its server.
fn server_duid() -> [u8; 10] {
    let [a, b, c, d, e, f] = GATEWAY_MAC.0;
    [0, 3, 0, 1, a, b, c, d, e, f]
}

fn reply(
    ctx: &GatewayContext<'_>,
    to: Ipv6Addr,
    asked: &Message<'_>,
    verdict: Verdict,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let mut emit = Emit::ethernet(out, ctx.mac, EthernetProtocol::Ipv6);
    let ip_at = emit.len();
    emit.ipv6(GATEWAY_LINK_LOCAL, to, IpProtocol::Udp, HOP_LIMIT, 0);
    let udp_at = emit.len();
    emit.put(&SERVER_PORT.to_be_bytes());
    emit.put(&CLIENT_PORT.to_be_bytes());
    emit.zeros(4);
    let kind = if matches!(verdict, Verdict::Advertise) { message::ADVERTISE } else { message::REPLY };
    emit.put(&[kind]);
    emit.put(&asked.transaction);
    if let Some(client) = asked.client {
        put_option(&mut emit, option::CLIENT, |emit| emit.put(client));
    }
    put_option(&mut emit, option::SERVER, |emit| emit.put(&server_duid()));
    match verdict {
        Verdict::Advertise => put_option(&mut emit, option::PREFERENCE, |emit| emit.put(&[255])),
        Verdict::Bind { rapid: true } => put_option(&mut emit, option::RAPID_COMMIT, |_| {}),
        Verdict::Bind { rapid: false } => {}
        Verdict::Status(status) => put_status(&mut emit, status),
        Verdict::Information => {
            put_option(&mut emit, option::REFRESH_TIME, |emit| emit.put(&LIFETIME.to_be_bytes()));
        }
    }
    if matches!(verdict, Verdict::Advertise | Verdict::Bind { .. }) {
        put_associations(ctx, asked, &mut emit);
    }
    if !matches!(verdict, Verdict::Status(_)) {
        put_configuration(ctx, asked, &mut emit);
    }
    let udp_len = u16::try_from(emit.len() - udp_at).unwrap_or(0);
    emit.patch(udp_at + 4, udp_len);
    emit.close_ipv6(ip_at, IpProtocol::Udp, 6);
    whole(emit.finish())
}

/// Each association the client named, in its order: the first IA_NA with the address, others with why not.
fn put_associations(ctx: &GatewayContext<'_>, asked: &Message<'_>, emit: &mut Emit<'_>) {
    let mut address = ctx.first6();
    let is_association = |code: &u16| matches!(*code, option::IA_NA | option::IA_TA | option::IA_PD);
    let named = Options(asked.options).filter(|(code, _)| is_association(code)).take(MAX_ASSOCIATIONS);
    for (code, data) in named {
        let Some((identifier, _)) = data.split_first_chunk::<4>() else { continue };
        put_option(emit, code, |emit| {
            emit.put(identifier);
            match (code, address) {
                (option::IA_NA, Some(ours)) => {
                    emit.put(&T1.to_be_bytes());
                    emit.put(&T2.to_be_bytes());
                    put_address(emit, ours, LIFETIME);
                    held(data).filter(|a| *a != ours).take(MAX_STALE).for_each(|a| put_address(emit, a, 0));
                }
                (option::IA_NA, None) => {
                    emit.zeros(8);
                    put_status(emit, Status::NoAddresses);
                }
                (option::IA_PD, _) => {
                    emit.zeros(8);
                    put_status(emit, Status::NoPrefix);
                }
                _ => put_status(emit, Status::NoAddresses),
            }
        });
        if code == option::IA_NA {
            address = None;
        }
    }
}

fn put_address(emit: &mut Emit<'_>, address: Ipv6Addr, lifetime: u32) {
    put_option(emit, option::ADDRESS, |emit| {
        emit.put(&address.octets());
        emit.put(&lifetime.to_be_bytes());
        emit.put(&lifetime.to_be_bytes());
    });
}

/// Resolvers, search list and time servers, as far as the client asked for them, or for nothing in particular.
fn put_configuration(ctx: &GatewayContext<'_>, asked: &Message<'_>, emit: &mut Emit<'_>) {
    let wants = |code: u16| {
        asked.wanted.is_none_or(|list| list.as_chunks::<2>().0.iter().any(|c| u16::from_be_bytes(*c) == code))
    };
    let resolvers = || addresses6(ctx.dns).take(MAX_RESOLVERS);
    if wants(option::RESOLVERS) && resolvers().next().is_some() {
        put_option(emit, option::RESOLVERS, |emit| resolvers().for_each(|a| emit.put(&a.octets())));
    }
    let search = SearchList::of(ctx.search);
    if wants(option::SEARCH_LIST) && !search.bytes().is_empty() {
        put_option(emit, option::SEARCH_LIST, |emit| emit.put(search.bytes()));
    }
    let clocks = || addresses6(ctx.ntp).take(MAX_CLOCKS);
    if wants(option::NTP) && clocks().next().is_some() {
        put_option(emit, option::NTP, |emit| {
            clocks().for_each(|a| put_option(emit, NTP_SERVER_ADDRESS, |emit| emit.put(&a.octets())));
        });
    }
}

fn addresses6(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv6Addr> {
    addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None })
}

fn put_status(emit: &mut Emit<'_>, status: Status) {
    put_option(emit, option::STATUS, |emit| emit.put(&(status as u16).to_be_bytes()));
}

fn put_option(emit: &mut Emit<'_>, code: u16, data: impl FnOnce(&mut Emit<'_>)) {
    emit.put(&code.to_be_bytes());
    let len_at = emit.len();
    emit.put(&[0, 0]);
    data(emit);
    let len = emit.len().saturating_sub(len_at + 2);
    emit.patch(len_at, u16::try_from(len).unwrap_or(0));
}
