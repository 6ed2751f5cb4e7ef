//! What one attachment does, read from a fuzzer's bytes: frames of every protocol that the gateway answers, more or less spoilt.
//!
//! A step is `[kind, shape, length]`, then `length` bytes of what its kind makes of them, then the edits:
//!
//! | bits | of | say |
//! |---|---|---|
//! | 0-4 | kind | which frame (`Kind`) |
//! | 5-7 | kind | how many bytes of the frame are edited: pairs of offset and value |
//! | 0-2 | shape | how long ago the last step was |
//! | 3-5 | shape | how often it is sent |
//! | 6 | shape | lengths and checksums are made right after the edits |
//! | 7 | shape | its checksum is left to the device |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nve_core::gateway::{GATEWAY_LINK_LOCAL, GATEWAY_MAC};
use nve_core::packet::{ChecksumState, Offload};
use nve_core::testkit::checksum;
use nve_core::testkit::dissect::{Dissected, protocol};
use nve_core::testkit::frames::{self, Header};

use super::{ASKER, GATEWAY4, GATEWAY6, LINK_LOCAL};

/// How long ago the last step was.
const DELAYS: [u64; 8] = [0, 0, 1, 50, 200, 1200, 5000, 3_600_000];
/// How often a frame is sent.
const REPEATS: [usize; 8] = [1, 1, 1, 1, 2, 8, 70, 300];

/// One thing that happens.
pub(super) struct Step {
    /// Since the last.
    pub(super) delay: Duration,
    /// How often.
    pub(super) repeat: usize,
    /// What.
    pub(super) event: Event,
}

pub(super) enum Event {
    /// The attachment sends this.
    Frame(Vec<u8>, Offload),
    /// Something comes to the socket of a question that is outstanding.
    Datagram(Datagram),
}

/// What comes from the host's side to one of the questions.
pub(super) struct Datagram {
    /// Which question's socket, in the order of asking.
    pub(super) which: u8,
    /// Whether it is forged: another identification, another server, another question, not an answer. Zero: it is not.
    pub(super) forged: u8,
    /// The answer's code.
    pub(super) rcode: u8,
    /// Nobody listens there.
    pub(super) unreachable: bool,
    /// Bytes behind the question, in tens.
    pub(super) tens: u8,
}

/// What TCP needs to know of the last segment from the gateway.
#[derive(Default)]
pub(super) struct Tcp {
    /// The sequence number after it.
    pub(super) next: u32,
    /// What it acknowledged.
    pub(super) acknowledged: u32,
}

/// Bytes that are read one after the other; zeros behind their end.
pub(super) struct Bytes<'i>(pub(super) &'i [u8]);

impl<'i> Bytes<'i> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.next(), self.next()])
    }

    fn take(&mut self, len: usize) -> &'i [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One of several.
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.next()) % choices.len()]
    }
}

/// The next step; `None` at the end.
pub(super) fn step(input: &mut Bytes<'_>, tcp: &Tcp) -> Option<Step> {
    if input.0.is_empty() {
        return None;
    }
    let (kind, shape, len) = (input.next(), input.next(), input.next());
    let mut body = Bytes(input.take(usize::from(len)));
    let delay = Duration::from_millis(DELAYS[usize::from(shape & 7)]);
    let repeat = REPEATS[usize::from(shape >> 3 & 7)];
    if kind & 31 == 18 {
        let datagram = Datagram {
            which: body.next(),
            forged: body.next() % 5,
            rcode: body.next() & 15,
            unreachable: body.next() & 3 == 3,
            tens: body.next(),
        };
        return Some(Step { delay, repeat: repeat.min(40), event: Event::Datagram(datagram) });
    }
    let mut frame = frame(kind & 31, &mut body, tcp);
    for _ in 0..kind >> 5 {
        let (at, value) = (input.next(), input.next());
        if let Some(byte) = frame.get_mut(usize::from(at)) {
            *byte = value;
        }
    }
    if shape & 64 != 0 {
        mend(&mut frame);
    }
    let offload = if shape & 128 != 0 { leave_checksum(&mut frame) } else { Offload::NONE };
    Some(Step { delay, repeat, event: Event::Frame(frame, offload) })
}

fn frame(kind: u8, body: &mut Bytes<'_>, tcp: &Tcp) -> Vec<u8> {
    match kind {
        0 => arp(body),
        1 => neighbour_solicitation(body),
        2 => icmpv6(body, 255, [133, 0], &[0, 0, 0, 0]),
        3 => {
            let kind = body.of(&[134, 136, 137, 133, 135, 128, 129, 1, 3]);
            icmpv6(body, 255, [kind, 0], &[])
        }
        4 => dhcpv4(body),
        5 => dhcpv6(body),
        6 | 7 => echo(kind == 7, body),
        8 | 9 => {
            let port = body.word();
            udp(kind == 9, body, port)
        }
        10 | 11 => dns(kind == 11, body),
        12 | 13 => segment(kind == 13, body, tcp),
        14 => igmp(body),
        15 => listener_report(body),
        16 => {
            let ethertype = body.of(&[[8, 6], [8, 0], [0x86, 0xdd], [0x81, 0]]);
            [GATEWAY_MAC.as_bytes(), &ASKER.mac[..], &ethertype, body.0].concat()
        }
        17 => body.0.to_vec(),
        _ => {
            let protocol = body.next();
            let (from, to) = (from4(body), to4(body));
            ethernet(&frames::ip(Header::default(), from, to, protocol, body.0.to_vec()))
        }
    }
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    frames::ethernet(smoltcp::wire::EthernetAddress(ASKER.mac), GATEWAY_MAC, packet)
}

fn from4(body: &mut Bytes<'_>) -> IpAddr {
    let other = Ipv4Addr::new(10, 1, 0, 77);
    body.of(&[ASKER.ipv4, ASKER.ipv4, ASKER.ipv4, Ipv4Addr::UNSPECIFIED, other, GATEWAY4]).into()
}

fn to4(body: &mut Bytes<'_>) -> IpAddr {
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let (peer, subnet) = (Ipv4Addr::new(10, 1, 0, 3), Ipv4Addr::new(10, 1, 255, 255));
    body.of(&[GATEWAY4, GATEWAY4, metadata, Ipv4Addr::BROADCAST, peer, subnet, Ipv4Addr::new(224, 0, 0, 1)])
        .into()
}

fn from6(body: &mut Bytes<'_>) -> IpAddr {
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 0x77);
    body.of(&[ASKER.ipv6, ASKER.ipv6, LINK_LOCAL, Ipv6Addr::UNSPECIFIED, other, GATEWAY_LINK_LOCAL]).into()
}

fn to6(body: &mut Bytes<'_>) -> IpAddr {
    let metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let peer = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 3);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    body.of(&[GATEWAY6, GATEWAY_LINK_LOCAL, GATEWAY6, metadata, all_nodes, peer]).into()
}

fn arp(body: &mut Bytes<'_>) -> Vec<u8> {
    let operation = body.of(&[1, 1, 1, 2, 3]);
    let (sender, target) = (from4(body), to4(body));
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else { return Vec::new() };
    let head = [&[0xff; 6], &ASKER.mac[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    [&head, &ASKER.mac[..], &sender.octets(), &[0; 6], &target.octets(), body.0].concat()
}

fn neighbour_solicitation(body: &mut Bytes<'_>) -> Vec<u8> {
    let (source, target) = (from6(body), to6(body));
    let IpAddr::V6(target) = target else { return Vec::new() };
    let to = match source {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | (target.to_bits() & 0xff_ffff))
        }
        _ => target,
    };
    let options = if body.next() & 1 == 0 { [&[1, 1], &ASKER.mac[..]].concat() } else { body.0.to_vec() };
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], &options].concat();
    let header = Header { hop_limit: 255, ..Header::default() };
    ethernet(&frames::ip(header, source, to.into(), protocol::ICMPV6, message))
}

fn icmpv6(body: &mut Bytes<'_>, hop_limit: u8, [kind, code]: [u8; 2], fixed: &[u8]) -> Vec<u8> {
    let (source, to) = (from6(body), to6(body));
    let message = [&[kind, code, 0, 0], fixed, body.0].concat();
    ethernet(&frames::ip(Header { hop_limit, ..Header::default() }, source, to, protocol::ICMPV6, message))
}

fn dhcpv4(body: &mut Bytes<'_>) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[10] = body.of(&[0, 0x80]);
    if body.next() & 3 == 0 {
        message[12..16].copy_from_slice(&ASKER.ipv4.octets());
    }
    message[28..34].copy_from_slice(&ASKER.mac);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    let kind = body.next() % 10;
    message.extend([53, 1, kind]);
    if body.next() & 1 == 0 {
        message.extend([50, 4]);
        message.extend(ASKER.ipv4.octets());
    }
    message.extend(body.0);
    message.push(255);
    let (from, to): (IpAddr, IpAddr) = match message[12] {
        0 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        _ => (ASKER.ipv4.into(), GATEWAY4.into()),
    };
    ethernet(&frames::udp(Header::default(), (from, 68).into(), (to, 67).into(), &message))
}

fn dhcpv6(body: &mut Bytes<'_>) -> Vec<u8> {
    let kind = body.next() % 14;
    let source = from6(body);
    let mut message = vec![kind, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1];
    message.extend(ASKER.mac);
    let (associations, server) = (body.next() % 6, body.next() & 1);
    if server == 1 {
        message.extend([0, 2, 0, 10, 0, 3, 0, 1]);
        message.extend(GATEWAY_MAC.as_bytes());
    }
    for number in 0..associations {
        let code = body.of(&[3, 3, 4, 25]);
        message.extend([0, code, 0, 12, 0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    message.extend(body.0);
    let servers: IpAddr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into();
    ethernet(&frames::udp(Header::default(), (source, 546).into(), (servers, 547).into(), &message))
}

fn addresses(v6: bool, body: &mut Bytes<'_>) -> (IpAddr, IpAddr) {
    if v6 { (from6(body), to6(body)) } else { (from4(body), to4(body)) }
}

fn echo(v6: bool, body: &mut Bytes<'_>) -> Vec<u8> {
    let (from, to) = addresses(v6, body);
    ethernet(&frames::echo_request(Header::default(), from, to, 1, body.0))
}

fn udp(v6: bool, body: &mut Bytes<'_>, port: u16) -> Vec<u8> {
    let (from, to) = addresses(v6, body);
    ethernet(&frames::udp(Header::default(), (from, 40_000).into(), (to, port).into(), body.0))
}

fn dns(v6: bool, body: &mut Bytes<'_>) -> Vec<u8> {
    let (from, to) = addresses(v6, body);
    let (id, flags, shape) = (body.word(), body.next(), body.next());
    let mut message = [&id.to_be_bytes()[..], &[flags & 0x81, 0, 0, 1, 0, 0, 0, 0, 0, shape & 1]].concat();
    let name = body.0.len().min(usize::from(shape >> 4));
    message.push(name as u8);
    message.extend(body.take(name));
    message.extend([0, 0, 1, 0, 1]);
    if shape & 1 == 1 {
        message.extend([0, 0, 41, shape, 0, 0, 0, 0x80, 0, 0, 0]);
    }
    message.extend(body.0);
    let port = 40_000 + u16::from(shape & 3);
    ethernet(&frames::udp(Header::default(), (from, port).into(), (to, 53).into(), &message))
}

/// A segment to the metadata service that goes on, more or less, where the last one from there left off.
fn segment(v6: bool, body: &mut Bytes<'_>, tcp: &Tcp) -> Vec<u8> {
    const WORDS: [&[u8]; 8] = [
        b"",
        b"",
        b"GET /",
        b"GET /latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
        b"GET /openstack/latest/user_data HTTP/1.0\r\n\r\n",
        b"PUT /latest/api/token HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        b" HTTP/1.1\r\n",
        b"\r\n\r\n",
    ];
    let (from, to): (IpAddr, IpAddr) = if v6 {
        (ASKER.ipv6.into(), Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254).into())
    } else {
        (ASKER.ipv4.into(), Ipv4Addr::new(169, 254, 169, 254).into())
    };
    let (control, off) = (body.next(), body.next());
    let sequence = if control & 2 != 0 { 1000 } else { tcp.acknowledged };
    let sequence = sequence.wrapping_add(u32::from(off >> 4));
    let acknowledged = tcp.next.wrapping_sub(u32::from(off & 15));
    let (port, word) = (40_000 + u16::from(body.next() & 3), body.of(&WORDS));
    let window = body.word();
    let mut segment = [port.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, control]);
    segment.extend(window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(word);
    segment.extend(body.0);
    ethernet(&frames::ip(Header::default(), from, to, protocol::TCP, segment))
}

fn igmp(body: &mut Bytes<'_>) -> Vec<u8> {
    let to: IpAddr = body
        .of(&[Ipv4Addr::new(224, 0, 0, 22), Ipv4Addr::new(224, 0, 0, 2), Ipv4Addr::new(239, 1, 1, 1)])
        .into();
    let from = from4(body);
    let kind = body.of(&[0x22, 0x16, 0x17, 0x12, 0x11]);
    let mut message = [&[kind, 0, 0, 0], body.0].concat();
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = Header { hop_limit: 1, ..Header::default() };
    let mut packet = frames::ip(header, from, to, 2, message);
    // Router alert (RFC 2113).
    packet.splice(20..20, [0x94, 4, 0, 0]);
    packet[0] = 0x46;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    frames::seal_ipv4(&mut packet);
    ethernet(&packet)
}

fn listener_report(body: &mut Bytes<'_>) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from6(body), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).into());
    let kind = body.of(&[143, 131, 132, 130]);
    let message = [&[kind, 0, 0, 0], body.0].concat();
    let header = Header { hop_limit: 1, ..Header::default() };
    let mut packet = frames::ip(header, from, to, protocol::ICMPV6, message);
    packet.splice(40..40, [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    packet[6] = 0;
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    ethernet(&packet)
}

/// Makes lengths and checksums right, so that edits reach what is behind those checks.
fn mend(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(14..) else { return };
    crate::input::mend(packet);
    let Some(fields) = Dissected::of_ip(packet) else { return };
    let (at, len, kind) = (fields.transport_at, fields.transport.len(), fields.protocol);
    let (source, destination) = (fields.source, fields.destination);
    let Some(transport) = packet.get_mut(at..at + len) else { return };
    if kind == protocol::UDP
        && let Some(field) = transport.get_mut(4..6)
    {
        field.copy_from_slice(&(len as u16).to_be_bytes());
    }
    let field = checksum::field_of(kind).unwrap_or(usize::MAX);
    if let Some(room) = transport.get_mut(field..).and_then(|rest| rest.get_mut(..2)) {
        room.fill(0);
        let value = checksum::compute(source, destination, kind, transport);
        transport[field..field + 2].copy_from_slice(&value.to_be_bytes());
    }
}

/// Leaves the checksum to the device where a driver would: of a whole TCP segment or UDP datagram.
fn leave_checksum(frame: &mut [u8]) -> Offload {
    let Some(packet) = frame.get_mut(14..) else { return Offload::NONE };
    let left = Dissected::of_ip(packet).filter(|fields| {
        let room =
            checksum::field_of(fields.protocol).is_some_and(|field| fields.transport.len() >= field + 2);
        let summed = matches!(fields.protocol, protocol::UDP | protocol::TCP);
        summed && room && !fields.is_fragment() && fields.total_len <= packet.len()
    });
    match left {
        Some(_) => frames::leave_checksum(packet),
        None => Offload { checksum: ChecksumState::InPacket, gso: None },
    }
}
