//! A packet taken apart for a test to look at, by code that shares nothing with the data path.
//!
//! What must stay true: no view of `ipv4-xlat` or of `crate::packet` is used here, so that a mistake there cannot hide itself.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use super::checksum;

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// An IP packet, by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dissected<'a> {
    /// 4 or 6.
    pub version: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TOS or traffic class, all eight bits.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv6 only.
    pub flow_label: u32,
    /// IPv4's, or that of the Fragment header where there is one.
    pub identification: Option<u32>,
    /// IPv4's DF.
    pub dont_fragment: bool,
    /// MF, or M of the Fragment header.
    pub more_fragments: bool,
    /// Bytes.
    pub fragment_offset: usize,
    /// The transport protocol, behind all extension headers.
    pub protocol: u8,
    /// From the transport header to the end that the length field gives.
    pub transport: &'a [u8],
    /// The packet's length as its header says; a quoted packet may be cut shorter.
    pub total_len: usize,
    /// Where `transport` starts in the packet.
    pub transport_at: usize,
    /// Header checksum right (IPv4), or true.
    pub header_checksum_good: bool,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl<'a> Dissected<'a> {
    /// Takes apart an IP packet. Bytes behind its length are ignored; a packet cut short (a quote) is taken as far as it goes.
    pub fn of_ip(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_ipv4(packet),
            6 => Self::of_ipv6(packet),
            _ => None,
        }
    }
    /// Takes apart an Ethernet frame with an IP packet in it.
    pub fn of_frame(frame: &'a [u8]) -> Option<Self> {
        match u16_at(frame, 12)? {
            0x0800 | 0x86dd => Self::of_ip(frame.get(14..)?),
            _ => None,
        }
    }

    fn of_ipv4(packet: &'a [u8]) -> Option<Self> {
        let header = packet.get(..usize::from(packet.first()? & 0xf) * 4)?;
        let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?)));
        let total_len = usize::from(u16_at(header, 2)?);
        let flags = u16_at(header, 6)?;
        Some(Self {
            version: 4,
            source: address(12)?,
            destination: address(16)?,
            traffic_class: *header.get(1)?,
            hop_limit: *header.get(8)?,
            flow_label: 0,
            identification: Some(u32::from(u16_at(header, 4)?)),
            dont_fragment: flags & 0x4000 != 0,
            more_fragments: flags & 0x2000 != 0,
            fragment_offset: usize::from(flags & 0x1fff) * 8,
            protocol: *header.get(9)?,
            transport: packet.get(header.len()..total_len.min(packet.len()))?,
            total_len,
            transport_at: header.len(),
            header_checksum_good: checksum::sum(header) == 0xffff,
        })
    }

    fn of_ipv6(packet: &'a [u8]) -> Option<Self> {
        let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
        let first = u32::from_be_bytes(*packet.first_chunk()?);
        let total_len = 40 + usize::from(u16_at(packet, 4)?);
        let mut fields = Self {
            version: 6,
            source: address(8)?,
            destination: address(24)?,
            traffic_class: (first >> 20) as u8,
            hop_limit: *packet.get(7)?,
            flow_label: first & 0xf_ffff,
            identification: None,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            protocol: *packet.get(6)?,
            transport: &[],
            total_len,
            transport_at: 40,
            header_checksum_good: true,
        };
        let packet = packet.get(..total_len.min(packet.len()))?;
        // Translated from IPv4, where these numbers are protocols with a payload of any shape: what does not go on as headers do is that.
        let mut payload_of_any_shape = None;
        while let (0 | 43 | 44 | 60 | 135 | 139 | 140, 0) = (fields.protocol, fields.fragment_offset) {
            if fields.protocol >= 135 && payload_of_any_shape.is_none() {
                payload_of_any_shape = Some(fields);
            }
            if fields.skip_header(packet).is_none() {
                fields = payload_of_any_shape?;
                break;
            }
        }
        fields.transport = packet.get(fields.transport_at..)?;
        Some(fields)
    }

    /// Goes behind the extension header that begins at `transport_at`, which must be whole.
    fn skip_header(&mut self, packet: &[u8]) -> Option<()> {
        let header = packet.get(self.transport_at..)?;
        let len = if self.protocol == 44 { 8 } else { usize::from(*header.get(1)?) * 8 + 8 };
        if self.protocol == 44 {
            let word = u16_at(header, 2)?;
            self.fragment_offset = usize::from(word & 0xfff8);
            self.more_fragments = word & 1 != 0;
            self.identification = Some(u32::from_be_bytes(*header.get(4..)?.first_chunk()?));
        }
        header.get(len..)?;
        self.protocol = *header.first()?;
        self.transport_at += len;
        Some(())
    }

    /// Whether it is a piece of a larger packet.
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// Source and destination port of TCP and UDP.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.protocol {
            protocol::TCP | protocol::UDP => Some((u16_at(self.transport, 0)?, u16_at(self.transport, 2)?)),
            _ => None,
        }
    }

    /// Bytes behind the transport header.
    pub fn payload(&self) -> &'a [u8] {
        let header = match self.protocol {
            protocol::TCP => self.transport.get(12).map_or(20, |offset| usize::from(offset >> 4) * 4),
            _ => 8,
        };
        self.transport.get(header..).unwrap_or_default()
    }

    /// Type and code, where it is ICMP of its own family.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        match (self.version, self.protocol) {
            (4, protocol::ICMP) | (6, protocol::ICMPV6) => {
                Some((*self.transport.first()?, *self.transport.get(1)?))
            }
            _ => None,
        }
    }

    /// What an ICMP error says.
    pub fn icmp_error(&self) -> Option<IcmpError<'a>> {
        let (kind, code) = self.icmp()?;
        let is_error = match self.version {
            4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
            _ => kind < 128,
        };
        let word = u32::from_be_bytes(*self.transport.get(4..)?.first_chunk()?);
        let quote = self.transport.get(8..)?;
        is_error.then_some(IcmpError { kind, code, word, quote })
    }

    /// Every field by name, for a comparison that says what differs. The transport is there as bytes, which covers every field
    /// of it; checksums are there as "good" or not, so that fields they cover show up by their own names only.
    pub fn fields(&self) -> BTreeMap<&'static str, String> {
        let mut transport = self.transport.to_vec();
        let at = match self.protocol {
            protocol::TCP => Some(16),
            protocol::UDP => Some(6),
            protocol::ICMP | protocol::ICMPV6 => Some(2),
            _ => None,
        };
        // A UDP checksum of zero means "none": that is a field of its own, and not blanked.
        let none = self.protocol == protocol::UDP && u16_at(&transport, 6) == Some(0);
        if let Some(field) = at.and_then(|at| transport.get_mut(at..at + 2)).filter(|_| !none) {
            field.fill(0);
        }
        BTreeMap::from([
            ("ip.version", self.version.to_string()),
            ("ip.source", self.source.to_string()),
            ("ip.destination", self.destination.to_string()),
            ("ip.traffic-class", format!("{:#04x}", self.traffic_class)),
            ("ip.hop-limit", self.hop_limit.to_string()),
            ("ip.flow-label", format!("{:#x}", self.flow_label)),
            ("ip.identification", format!("{:?}", self.identification)),
            ("ip.dont-fragment", self.dont_fragment.to_string()),
            ("ip.more-fragments", self.more_fragments.to_string()),
            ("ip.fragment-offset", self.fragment_offset.to_string()),
            ("ip.protocol", self.protocol.to_string()),
            ("ip.total-length", self.total_len.to_string()),
            ("ip.header-length", self.transport_at.to_string()),
            ("ip.header-checksum", self.header_checksum_good.to_string()),
            ("transport.checksum", format!("{:?}", checksum::verify(self, self.source, self.destination))),
            ("transport.bytes", hex(&transport)),
        ])
    }
}

/// An ICMP error, by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum, host byte order: MTU, pointer or unused.
    pub word: u32,
    /// The packet it is about, as much of it as there is.
    pub quote: &'a [u8],
}

fn hex(bytes: &[u8]) -> String {
    use core::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
