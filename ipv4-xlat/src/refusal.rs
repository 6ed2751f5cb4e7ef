//! Why a packet was not translated, and what its sender is owed.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A packet was not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Drop it; the sender is told nothing.
    Silent(Reason),
    /// Drop it, and send this error (see [`crate::generated`]), subject to the caller's rate limit.
    Icmp(Reason, IcmpError),
    /// Call again with `head` holding the whole packet and [`crate::SCRATCH_LEN`] bytes of scratch. Never returned
    /// when both were so already.
    NeedWhole,
    /// Only for super-packets: finish segmentation and checksums in software, then translate each segment.
    /// Never returned without [`crate::Offload::gso`].
    NeedSegments,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal::Silent(reason)
    }
}

/// Why a packet was not translated. The names are stable: they become drop names and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The packet ends before a header does, or before the length its header states (RFC 791, RFC 8200).
    Truncated,
    /// The version nibble is not the one of this direction.
    WrongVersion,
    /// IPv4 header length under 20 bytes, or total length shorter than the header.
    HeaderLength,
    /// The IPv4 header checksum is wrong (RFC 1812 5.2.2).
    HeaderChecksum,
    /// Payload Length 0 with hop-by-hop options: a jumbogram (RFC 2675).
    Jumbogram,
    /// An extension header chain that is too long or has two Fragment Headers.
    ExtensionChain,
    /// Extension headers behind a Fragment Header (RFC 7915 5.1.1).
    ExtensionBehindFragment,
    /// A protocol number that must not cross: it would become an extension header, or belongs to the other family.
    ForbiddenProtocol,
    /// The transport header is cut short (RFC 7112 for first fragments).
    ShortTransport,
    /// A fragment that is not a multiple of 8 bytes although more follow.
    FragmentAlignment,
    /// A fragment that reaches past the largest datagram.
    FragmentBeyondEnd,
    /// Source address that may not be on a wire: loopback, unspecified, multicast and the like.
    IllegalSource,
    /// The destination is not mapped: not for this translator, route it as it is.
    NotForUs,
    /// The source is not mapped.
    UnmappedSource,
    /// An address of the packet quoted in an ICMP error is not mapped.
    UnmappedQuote,
    /// TTL or Hop Limit is spent.
    HopLimit,
    /// An unexpired IPv4 source route.
    SourceRoute,
    /// A Routing header with segments left.
    SegmentsLeft,
    /// Larger than the next hop's MTU, and may not be fragmented here.
    PacketTooBig,
    /// The result would exceed IPv4's 65535 bytes.
    ResultTooLong,
    /// A fragment of an ICMP message (RFC 7915 1.2).
    FragmentedIcmp,
    /// An ICMP type or code without counterpart.
    UntranslatableIcmp,
    /// The checksum of an ICMP error is wrong; translating would launder it.
    IcmpChecksum,
    /// An ICMP error whose quoted packet is no packet or ends within its IP header.
    BadQuote,
    /// An ICMP error about an ICMP error.
    QuotedError,
    /// The RFC 4884 length attribute exceeds the message.
    MultipartLength,
    /// A UDP checksum of 0 that the policy does not let pass.
    ZeroUdpChecksum,
    /// As [`Reason::ZeroUdpChecksum`], on a first fragment, where it cannot be computed either.
    ZeroUdpChecksumFragment,
    /// Offload metadata that does not fit the packet.
    BadOffload,
}

impl Reason {
    /// Every reason, in declaration order.
    pub const ALL: [Reason; 29] = [
        Reason::Truncated,
        Reason::WrongVersion,
        Reason::HeaderLength,
        Reason::HeaderChecksum,
        Reason::Jumbogram,
        Reason::ExtensionChain,
        Reason::ExtensionBehindFragment,
        Reason::ForbiddenProtocol,
        Reason::ShortTransport,
        Reason::FragmentAlignment,
        Reason::FragmentBeyondEnd,
        Reason::IllegalSource,
        Reason::NotForUs,
        Reason::UnmappedSource,
        Reason::UnmappedQuote,
        Reason::HopLimit,
        Reason::SourceRoute,
        Reason::SegmentsLeft,
        Reason::PacketTooBig,
        Reason::ResultTooLong,
        Reason::FragmentedIcmp,
        Reason::UntranslatableIcmp,
        Reason::IcmpChecksum,
        Reason::BadQuote,
        Reason::QuotedError,
        Reason::MultipartLength,
        Reason::ZeroUdpChecksum,
        Reason::ZeroUdpChecksumFragment,
        Reason::BadOffload,
    ];

    /// One sentence for an operator.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::Truncated => "packet ends before its headers or stated length do",
            Reason::WrongVersion => "IP version is not the expected one",
            Reason::HeaderLength => "IPv4 header length or total length is impossible",
            Reason::HeaderChecksum => "IPv4 header checksum is wrong",
            Reason::Jumbogram => "IPv6 jumbogram",
            Reason::ExtensionChain => "IPv6 extension header chain is too long or has two Fragment Headers",
            Reason::ExtensionBehindFragment => "extension header behind a Fragment Header",
            Reason::ForbiddenProtocol => "protocol number does not exist in the other family",
            Reason::ShortTransport => "transport header is cut short",
            Reason::FragmentAlignment => "fragment is not a multiple of 8 bytes but more follow",
            Reason::FragmentBeyondEnd => "fragment reaches past 65535 bytes",
            Reason::IllegalSource => "source address may not be on a wire",
            Reason::NotForUs => "destination is not mapped",
            Reason::UnmappedSource => "source is not mapped",
            Reason::UnmappedQuote => "an address quoted in an ICMP error is not mapped",
            Reason::HopLimit => "TTL or hop limit is spent",
            Reason::SourceRoute => "unexpired IPv4 source route",
            Reason::SegmentsLeft => "routing header with segments left",
            Reason::PacketTooBig => "larger than the next hop's MTU",
            Reason::ResultTooLong => "result would exceed 65535 bytes",
            Reason::FragmentedIcmp => "fragmented ICMP",
            Reason::UntranslatableIcmp => "ICMP type or code has no counterpart",
            Reason::IcmpChecksum => "ICMP error with a wrong checksum",
            Reason::BadQuote => "ICMP error that quotes no packet",
            Reason::QuotedError => "ICMP error about an ICMP error",
            Reason::MultipartLength => "ICMP length attribute exceeds the message",
            Reason::ZeroUdpChecksum => "UDP checksum is zero",
            Reason::ZeroUdpChecksumFragment => "UDP checksum is zero in a first fragment",
            Reason::BadOffload => "offload metadata does not fit the packet",
        }
    }
}

/// The ICMP error owed to a sender, in the family it spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// To a sender of IPv4.
    V4(Icmpv4Error),
    /// To a sender of IPv6.
    V6(Icmpv6Error),
}

/// An ICMPv4 error to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmpv4Error {
    /// The refused packet's source.
    pub to: Ipv4Addr,
    /// ICMPv4 type.
    pub icmp_type: u8,
    /// ICMPv4 code.
    pub code: u8,
    /// The message's second 32-bit word in host order: unused (0), or the next-hop MTU in its low 16 bits.
    pub word: u32,
}

impl Icmpv4Error {
    /// Type 3 code 1, host unreachable.
    pub const fn host_unreachable(to: Ipv4Addr) -> Self {
        Icmpv4Error { to, icmp_type: 3, code: 1, word: 0 }
    }
    /// Type 3 code 4, fragmentation needed and DF set, with the largest packet that would pass.
    pub const fn fragmentation_needed(to: Ipv4Addr, mtu: u16) -> Self {
        Icmpv4Error { to, icmp_type: 3, code: 4, word: mtu as u32 }
    }
    /// Type 3 code 5, source route failed.
    pub const fn source_route_failed(to: Ipv4Addr) -> Self {
        Icmpv4Error { to, icmp_type: 3, code: 5, word: 0 }
    }
    /// Type 3 code 13, communication administratively prohibited (RFC 7915 4.4).
    pub const fn prohibited(to: Ipv4Addr) -> Self {
        Icmpv4Error { to, icmp_type: 3, code: 13, word: 0 }
    }
    /// Type 11 code 0, TTL exceeded in transit.
    pub const fn ttl_exceeded(to: Ipv4Addr) -> Self {
        Icmpv4Error { to, icmp_type: 11, code: 0, word: 0 }
    }
}

/// An ICMPv6 error to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmpv6Error {
    /// The refused packet's source.
    pub to: Ipv6Addr,
    /// ICMPv6 type.
    pub icmp_type: u8,
    /// ICMPv6 code.
    pub code: u8,
    /// The message's second 32-bit word in host order: unused (0), an MTU, or a pointer.
    pub word: u32,
}

impl Icmpv6Error {
    /// Type 1 code 1, communication administratively prohibited (RFC 7915 5.4).
    pub const fn prohibited(to: Ipv6Addr) -> Self {
        Icmpv6Error { to, icmp_type: 1, code: 1, word: 0 }
    }
    /// Type 1 code 3, address unreachable.
    pub const fn address_unreachable(to: Ipv6Addr) -> Self {
        Icmpv6Error { to, icmp_type: 1, code: 3, word: 0 }
    }
    /// Type 2, packet too big, with the largest packet that would pass.
    pub const fn packet_too_big(to: Ipv6Addr, mtu: u32) -> Self {
        Icmpv6Error { to, icmp_type: 2, code: 0, word: mtu }
    }
    /// Type 3 code 0, hop limit exceeded in transit.
    pub const fn hop_limit_exceeded(to: Ipv6Addr) -> Self {
        Icmpv6Error { to, icmp_type: 3, code: 0, word: 0 }
    }
    /// Type 4 code 0, erroneous header field at byte `pointer` of the packet.
    pub const fn erroneous_header(to: Ipv6Addr, pointer: u32) -> Self {
        Icmpv6Error { to, icmp_type: 4, code: 0, word: pointer }
    }
}
