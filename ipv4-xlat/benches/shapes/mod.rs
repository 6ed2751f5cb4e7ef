//! The packets that are measured, and how: what a data path does, head only, payload not even mapped.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipv4_xlat::{
    AddressMap, ChecksumState, Config, Gso, GsoKind, Offload, Packet, Role, SCRATCH_LEN, Settings, v4_to_v6,
    v6_to_v4,
};

const PREFIX: u128 = 0x2001_0db8_0051_0000_2000_03e9_0000_0000;

/// The cheapest map that is one: a prefix or'ed to the address, as ILA's is for one virtual network.
pub(crate) struct Prefix96;

impl AddressMap for Prefix96 {
    fn v4_to_v6(&self, address: Ipv4Addr, _: Role) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from_bits(PREFIX | u128::from(address.to_bits())))
    }
    fn v6_to_v4(&self, address: Ipv6Addr, _: Role) -> Option<Ipv4Addr> {
        (address.to_bits() >> 32 == PREFIX >> 32).then(|| Ipv4Addr::from_bits(address.to_bits() as u32))
    }
}

/// One packet to be translated.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    head: Vec<u8>,
    len: usize,
    offload: Offload,
}

impl Shape {
    /// Translates the packet once; true when it became one.
    #[inline(never)]
    pub(crate) fn translate(&self, config: &Config, out: &mut [u8; SCRATCH_LEN]) -> bool {
        let packet = Packet { head: black_box(&self.head), len: self.len, offload: self.offload };
        let translated = match self.head.first() {
            Some(0x40..0x50) => v4_to_v6::translate(&packet, &Prefix96, config, out),
            _ => v6_to_v4::translate(&packet, &Prefix96, config, 7, out),
        };
        black_box(translated).is_ok()
    }
}

pub(crate) fn config() -> Config {
    Config::new(Settings { mtu6: 1520, mtu4: 1500, ..Settings::default() }).expect("legal")
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// An IPv4 header for `len` bytes behind it.
fn four(protocol: u8, flags: u16, len: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + len as u16).to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(flags.to_be_bytes());
    header.extend([64, protocol, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2]);
    let checksum = !sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// An IPv6 header for `len` bytes behind it.
fn six(next_header: u8, len: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((len as u16).to_be_bytes());
    header.extend([next_header, 64]);
    header.extend((PREFIX | 0x0a01_0001).to_be_bytes());
    header.extend((PREFIX | 0x0a01_0002).to_be_bytes());
    header
}

fn transport(protocol: u8) -> Vec<u8> {
    match protocol {
        6 => vec![0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0x12, 0x34, 0, 0],
        17 => vec![0x13, 0x88, 0, 53, 0, 26, 0x12, 0x34],
        1 => vec![8, 0, 0x12, 0x34, 0, 1, 0, 1],
        _ => vec![128, 0, 0x12, 0x34, 0, 1, 0, 1],
    }
}

/// The first 128 bytes of a packet of `len` bytes.
fn head(header: Vec<u8>, protocol: u8, len: usize) -> Vec<u8> {
    let mut head = [header, transport(protocol)].concat();
    head.resize(len.min(128), 0x5a);
    head
}

fn plain(name: &'static str, family: u8, protocol: u8, len: usize) -> Shape {
    let header = if family == 4 { four(protocol, 0x4000, len - 20) } else { six(protocol, len - 40) };
    Shape { name, head: head(header, protocol, len), len, offload: Offload::NONE }
}

fn super_packet(name: &'static str, family: u8) -> Shape {
    let ip = if family == 4 { 20 } else { 40 };
    let kind = if family == 4 { GsoKind::TcpV4 { ecn: false } } else { GsoKind::TcpV6 { ecn: false } };
    let checksum = ChecksumState::Partial { start: ip, offset: 16 };
    Shape {
        offload: Offload { checksum, gso: Some(Gso { kind, size: 1400 }) },
        ..plain(name, family, 6, 60_000)
    }
}

/// Time exceeded about a 1500-byte datagram, all of it copied, checksum right.
fn error(name: &'static str, family: u8) -> Shape {
    let (mut message, pseudo, protocol) = if family == 4 {
        let quote = [four(17, 0x4000, 1480), transport(17), vec![0x5a; 500]].concat();
        ([vec![11, 0, 0, 0, 0, 0, 0, 0], quote].concat(), Vec::new(), 1)
    } else {
        let quote = [six(17, 1460), transport(17), vec![0x5a; 1100]].concat();
        let message = [vec![3, 0, 0, 0, 0, 0, 0, 0], quote].concat();
        let len = (message.len() as u32).to_be_bytes();
        let pseudo = [&six(58, 0)[8..40], &len, &[0, 0, 0, 58]].concat();
        (message, pseudo, 58)
    };
    let checksum = !sum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = if family == 4 { four(protocol, 0, message.len()) } else { six(protocol, message.len()) };
    let head = [header, message].concat();
    Shape { name, len: head.len(), head, offload: Offload::NONE }
}

/// The common shapes, and the rare ones that cost most.
pub(crate) fn all() -> Vec<Shape> {
    let fragment = {
        let header = four(17, 0x2000, 1480);
        Shape { name: "4to6 first fragment", head: head(header, 17, 1500), len: 1500, offload: Offload::NONE }
    };
    let cut = Shape {
        name: "4to6 to be cut",
        head: head(four(17, 0, 1480), 17, 1500),
        len: 1500,
        offload: Offload::NONE,
    };
    vec![
        plain("4to6 udp 64", 4, 17, 64),
        plain("4to6 udp 1500", 4, 17, 1500),
        plain("4to6 tcp 64", 4, 6, 64),
        plain("4to6 tcp 1500", 4, 6, 1500),
        super_packet("4to6 tcp 60000 gso", 4),
        plain("4to6 echo 84", 4, 1, 84),
        fragment,
        cut,
        error("4to6 error 548", 4),
        plain("6to4 udp 84", 6, 17, 84),
        plain("6to4 udp 1520", 6, 17, 1520),
        plain("6to4 tcp 84", 6, 6, 84),
        plain("6to4 tcp 1520", 6, 6, 1520),
        super_packet("6to4 tcp 60000 gso", 6),
        plain("6to4 echo 104", 6, 58, 104),
        error("6to4 error 1196", 6),
    ]
}
