//! Builds packets, runs them through the translator the way a data path does, and checks the results with
//! arithmetic of its own: nothing here uses the crate's checksum code.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipv4_xlat::{
    AddressMap, ChecksumState, Config, IcmpError, Offload, Packet, Reason, Refusal, Role, SCRATCH_LEN,
    Settings, Translated, v4_to_v6, v6_to_v4,
};

pub(crate) const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
pub(crate) const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Without an IPv6 counterpart.
pub(crate) const UNMAPPED4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// Without an IPv4 counterpart.
pub(crate) const UNMAPPED6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1);

pub(crate) const PREFIX: u128 = 0x2001_0db8_0064_1234_5678_9abc_0000_0000;

/// The lab's counterpart of an IPv4 address: a /96.
pub(crate) fn six(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(PREFIX | u128::from(address.to_bits()))
}

pub(crate) fn a6() -> Ipv6Addr {
    six(A4)
}

pub(crate) fn b6() -> Ipv6Addr {
    six(B4)
}

/// Maps IPv4 into [`PREFIX`], multicast and [`UNMAPPED4`] excepted.
pub(crate) struct LabMap;

impl AddressMap for LabMap {
    fn v4_to_v6(&self, address: Ipv4Addr, _: Role) -> Option<Ipv6Addr> {
        (address != UNMAPPED4 && !address.is_multicast()).then(|| six(address))
    }
    fn v6_to_v4(&self, address: Ipv6Addr, _: Role) -> Option<Ipv4Addr> {
        let v4 = Ipv4Addr::from_bits(address.to_bits() as u32);
        (address.to_bits() >> 32 == PREFIX >> 32 && v4 != UNMAPPED4).then_some(v4)
    }
}

pub(crate) fn config(change: impl FnOnce(&mut Settings)) -> Config {
    let mut settings = Settings::default();
    change(&mut settings);
    Config::new(settings).expect("the test's settings are legal")
}

pub(crate) fn defaults() -> Config {
    config(|_| ())
}

// ---- checksums, the slow way -------------------------------------------------------------------------------------

pub(crate) fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

fn field_at(protocol: u8) -> Option<usize> {
    match protocol {
        1 | 58 => Some(2),
        6 => Some(16),
        17 | 33 | 136 => Some(6),
        _ => None,
    }
}

pub(crate) fn pseudo4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> Vec<u8> {
    if protocol == 1 {
        return Vec::new();
    }
    let mut bytes = [src.octets(), dst.octets()].concat();
    bytes.extend([0, protocol]);
    bytes.extend((len as u16).to_be_bytes());
    bytes
}

pub(crate) fn pseudo6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = [src.octets(), dst.octets()].concat();
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

fn seal(mut pseudo: Vec<u8>, protocol: u8, mut l4: Vec<u8>) -> Vec<u8> {
    if let Some(at) = field_at(protocol) {
        l4[at..at + 2].fill(0);
        pseudo.extend(&l4);
        let mut checksum = !ones_complement(&pseudo);
        if checksum == 0 && protocol == 17 {
            checksum = 0xffff;
        }
        l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    l4
}

/// The transport bytes with the right checksum for IPv4.
pub(crate) fn seal4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, l4: Vec<u8>) -> Vec<u8> {
    seal(pseudo4(src, dst, protocol, l4.len()), protocol, l4)
}

/// The transport bytes with the right checksum for IPv6.
pub(crate) fn seal6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, l4: Vec<u8>) -> Vec<u8> {
    seal(pseudo6(src, dst, protocol, l4.len()), protocol, l4)
}

// ---- transport headers, checksum still 0 -------------------------------------------------------------------------

pub(crate) fn udp(data: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0x13, 0x88, 0x00, 0x35];
    l4.extend((8 + data.len() as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(data);
    l4
}

pub(crate) fn tcp(data: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0x30, 0x39, 0x00, 0x50, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0x20, 0x00, 0, 0, 0, 0];
    l4.extend(data);
    l4
}

pub(crate) fn icmp(icmp_type: u8, code: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut l4 = vec![icmp_type, code, 0, 0];
    l4.extend(word);
    l4.extend(body);
    l4
}

pub(crate) fn echo(icmp_type: u8, data: &[u8]) -> Vec<u8> {
    icmp(icmp_type, 0, [0x12, 0x34, 0, 7], data)
}

pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

// ---- packets -----------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
pub(crate) struct V4 {
    pub(crate) tos: u8,
    pub(crate) id: u16,
    pub(crate) df: bool,
    pub(crate) mf: bool,
    /// Bytes.
    pub(crate) offset: usize,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// From [`A4`] to [`B4`], checksum right, TTL 64, DF = 1.
pub(crate) fn v4(protocol: u8, l4: Vec<u8>) -> V4 {
    v4_between(A4, B4, protocol, l4)
}

pub(crate) fn v4_between(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, l4: Vec<u8>) -> V4 {
    let payload = if field_at(protocol).is_some_and(|at| l4.len() >= at + 2) {
        seal4(src, dst, protocol, l4)
    } else {
        l4
    };
    V4 {
        tos: 0,
        id: 0x1234,
        df: true,
        mf: false,
        offset: 0,
        ttl: 64,
        protocol,
        src,
        dst,
        options: vec![],
        payload,
    }
}

impl V4 {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut V4)) -> V4 {
        change(&mut self);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4));
        let header_len = 20 + self.options.len();
        let mut bytes = vec![0x40 | (header_len / 4) as u8, self.tos];
        bytes.extend(((header_len + self.payload.len()) as u16).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        let flags = u16::from(self.df) << 14 | u16::from(self.mf) << 13 | (self.offset / 8) as u16;
        bytes.extend(flags.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(&self.options);
        fix_header(&mut bytes);
        bytes.extend(&self.payload);
        bytes
    }
}

/// Makes the IPv4 header checksum right.
pub(crate) fn fix_header(bytes: &mut [u8]) {
    let len = (usize::from(bytes[0] & 15) * 4).clamp(20, bytes.len());
    bytes[10..12].fill(0);
    let checksum = !ones_complement(&bytes[..len]);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[derive(Clone, Debug)]
pub(crate) struct V6 {
    pub(crate) tc: u8,
    pub(crate) flow: u32,
    pub(crate) hops: u8,
    pub(crate) src: Ipv6Addr,
    pub(crate) dst: Ipv6Addr,
    /// Extension headers: number and bytes; the Next Header in their first byte is filled in.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

/// From [`a6`] to [`b6`], checksum right, hop limit 64.
pub(crate) fn v6(protocol: u8, l4: Vec<u8>) -> V6 {
    v6_between(a6(), b6(), protocol, l4)
}

pub(crate) fn v6_between(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, l4: Vec<u8>) -> V6 {
    let payload = if field_at(protocol).is_some_and(|at| l4.len() >= at + 2) {
        seal6(src, dst, protocol, l4)
    } else {
        l4
    };
    V6 { tc: 0, flow: 0, hops: 64, src, dst, extensions: vec![], protocol, payload }
}

/// A Fragment Header for [`V6::extensions`].
pub(crate) fn fragment_header(offset: usize, more: bool, id: u32) -> (u8, Vec<u8>) {
    let mut bytes = vec![0, 0];
    bytes.extend((offset as u16 | u16::from(more)).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    (44, bytes)
}

/// Hop-by-hop or destination options of `len` bytes, all padding.
pub(crate) fn options_header(number: u8, len: usize) -> (u8, Vec<u8>) {
    assert!(len.is_multiple_of(8) && len >= 8);
    let mut bytes = vec![0; len];
    bytes[1] = (len / 8 - 1) as u8;
    (number, bytes)
}

/// A Routing header of 8 bytes.
pub(crate) fn routing_header(segments_left: u8) -> (u8, Vec<u8>) {
    (43, vec![0, 0, 253, segments_left, 0, 0, 0, 0])
}

impl V6 {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut V6)) -> V6 {
        change(&mut self);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut chain = Vec::new();
        for (i, (_, header)) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(i + 1).map_or(self.protocol, |(number, _)| *number);
            chain.push(next);
            chain.extend(&header[1..]);
        }
        let first = self.extensions.first().map_or(self.protocol, |(number, _)| *number);
        let mut bytes = (6 << 28 | u32::from(self.tc) << 20 | self.flow).to_be_bytes().to_vec();
        bytes.extend(((chain.len() + self.payload.len()) as u16).to_be_bytes());
        bytes.extend([first, self.hops]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(chain);
        bytes.extend(&self.payload);
        bytes
    }
}

// ---- running -----------------------------------------------------------------------------------------------------

pub(crate) type Outcome = Result<Vec<Vec<u8>>, Refusal>;

/// Collects what a caller would send.
pub(crate) fn send(translated: &Translated, scratch: &mut [u8], original: &[u8]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let mut pieces = translated.pieces();
    while let Some(piece) = pieces.next(scratch) {
        sent.push([&scratch[..piece.head_len], &original[piece.tail]].concat());
    }
    sent
}

/// Runs `translate` with the first 128 bytes, then, if it asks, with all; checks that both agree.
fn run(
    bytes: &[u8],
    offload: Offload,
    translate: impl Fn(&Packet<'_>, &mut [u8]) -> Result<Translated, Refusal>,
) -> (Outcome, Offload) {
    let mut scratch = [0xaa; SCRATCH_LEN];
    let whole = translate(&Packet { head: bytes, len: bytes.len(), offload }, &mut scratch);
    assert_ne!(whole, Err(Refusal::NeedWhole), "everything was there");
    let sent =
        whole.as_ref().map(|translated| send(translated, &mut scratch, bytes)).map_err(|refusal| *refusal);
    let moved = whole.as_ref().map_or(Offload::NONE, |translated| translated.offload);

    let mut scratch = [0x55; 128];
    let head = &bytes[..bytes.len().min(128)];
    match translate(&Packet { head, len: bytes.len(), offload }, &mut scratch) {
        Err(Refusal::NeedWhole) => {}
        part => {
            assert_eq!(part, whole, "the first 128 bytes decide as all do");
            if let Ok(translated) = part {
                assert_eq!(send(&translated, &mut scratch, bytes), *sent.as_ref().expect("as above"));
            }
        }
    }
    (sent, moved)
}

pub(crate) fn run46_offload(bytes: &[u8], config: &Config, offload: Offload) -> (Outcome, Offload) {
    run(bytes, offload, |packet, out| v4_to_v6::translate(packet, &LabMap, config, out))
}

pub(crate) fn run64_offload(bytes: &[u8], config: &Config, offload: Offload) -> (Outcome, Offload) {
    run(bytes, offload, |packet, out| v6_to_v4::translate(packet, &LabMap, config, ID, out))
}

/// The identification every IPv6 to IPv4 run is given.
pub(crate) const ID: u16 = 0xbeef;

pub(crate) fn run46(bytes: &[u8], config: &Config) -> Outcome {
    run46_offload(bytes, config, Offload::NONE).0
}

pub(crate) fn run64(bytes: &[u8], config: &Config) -> Outcome {
    run64_offload(bytes, config, Offload::NONE).0
}

/// One packet came out; its lengths and checksums hold.
pub(crate) fn to_v6(packet: &V4, config: &Config) -> Vec<u8> {
    to_v6_bytes(&packet.bytes(), config)
}

pub(crate) fn to_v6_bytes(bytes: &[u8], config: &Config) -> Vec<u8> {
    let mut sent = run46(bytes, config).expect("translates");
    assert_eq!(sent.len(), 1, "one packet");
    let packet = sent.remove(0);
    assert_sound(&packet);
    packet
}

pub(crate) fn to_v4(packet: &V6, config: &Config) -> Vec<u8> {
    to_v4_bytes(&packet.bytes(), config)
}

pub(crate) fn to_v4_bytes(bytes: &[u8], config: &Config) -> Vec<u8> {
    let mut sent = run64(bytes, config).expect("translates");
    assert_eq!(sent.len(), 1, "one packet");
    let packet = sent.remove(0);
    assert_sound(&packet);
    packet
}

/// Dropped without an answer.
pub(crate) fn silent(outcome: Outcome) -> Reason {
    match outcome {
        Err(Refusal::Silent(reason)) => reason,
        other => panic!("expected a silent drop, got {other:02x?}"),
    }
}

/// Dropped, and this is the answer: type, code, second word.
pub(crate) fn answered(outcome: Outcome) -> (u8, u8, u32) {
    match outcome {
        Err(Refusal::Icmp(_, IcmpError::V4(error))) => (error.icmp_type, error.code, error.word),
        Err(Refusal::Icmp(_, IcmpError::V6(error))) => (error.icmp_type, error.code, error.word),
        other => panic!("expected an ICMP error, got {other:02x?}"),
    }
}

// ---- looking at results ------------------------------------------------------------------------------------------

/// Offset and number of the transport header, and whether the packet is a fragment.
pub(crate) fn transport(packet: &[u8]) -> (usize, u8, bool) {
    if packet[0] >> 4 == 4 {
        let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
        return (usize::from(packet[0] & 15) * 4, packet[9], fragment);
    }
    let (mut at, mut next, mut fragment) = (40, packet[6], false);
    while let 0 | 43 | 44 | 60 = next {
        let len = if next == 44 { 8 } else { usize::from(packet[at + 1]) * 8 + 8 };
        if next == 44 {
            fragment = u16::from_be_bytes([packet[at + 2], packet[at + 3]]) & 0xfff9 != 0;
        }
        next = packet[at];
        at += len;
    }
    (at, next, fragment)
}

/// The transport bytes.
pub(crate) fn l4(packet: &[u8]) -> &[u8] {
    &packet[transport(packet).0..]
}

/// The packet quoted in an ICMP error.
pub(crate) fn quoted(packet: &[u8]) -> &[u8] {
    &l4(packet)[8..]
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What the transport checksum sums to; 0xffff is right.
pub(crate) fn transport_sum(packet: &[u8]) -> u16 {
    let (at, protocol, _) = transport(packet);
    let mut covered = if packet[0] >> 4 == 4 {
        let address = |at: usize| Ipv4Addr::from_bits(u32_at(packet, at));
        pseudo4(address(12), address(16), protocol, packet.len() - at)
    } else {
        let address =
            |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes"));
        pseudo6(address(8), address(24), protocol, packet.len() - at)
    };
    covered.extend(&packet[at..]);
    ones_complement(&covered)
}

/// Lengths are the packet's own; the IPv4 header checksum and an unfragmented packet's transport checksum are right;
/// smoltcp parses it.
pub(crate) fn assert_sound(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        assert_eq!(usize::from(u16_at(packet, 2)), packet.len(), "total length");
        assert_eq!(ones_complement(&packet[..20]), 0xffff, "header checksum");
        smoltcp::wire::Ipv4Packet::new_checked(packet).expect("smoltcp takes it");
    } else {
        assert_eq!(usize::from(u16_at(packet, 4)) + 40, packet.len(), "payload length");
        smoltcp::wire::Ipv6Packet::new_checked(packet).expect("smoltcp takes it");
    }
    let (_, protocol, fragment) = transport(packet);
    let none = protocol == 17 && l4(packet).get(6..8) == Some(&[0, 0]);
    if field_at(protocol).is_some() && !fragment && !none {
        assert_eq!(transport_sum(packet), 0xffff, "transport checksum of {packet:02x?}");
    }
}

/// Partial checksum metadata for a transport header at `start`.
pub(crate) fn partial(start: usize, offset: u16) -> Offload {
    Offload { checksum: ChecksumState::Partial { start: start as u16, offset }, gso: None }
}
