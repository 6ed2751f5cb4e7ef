//! Transport checksums summed afresh from every byte (RFC 1071), never updated from an old one.
//!
//! What must stay true: this shares no code with `ipv4-xlat`, whose arithmetic it judges.

use core::net::IpAddr;

use super::dissect::{Dissected, protocol};

/// What a checksum is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It verifies.
    Good,
    /// It does not.
    Bad,
    /// UDP that says it has none.
    Absent,
    /// A fragment, or a protocol without a checksum that we know: nothing to verify.
    Unverifiable,
}

/// The one's complement sum of big-endian 16-bit words, an odd last byte padded with zero; folded, not complemented.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, odd) = bytes.as_chunks::<2>();
    let total: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    fold(total + odd.first().map_or(0, |byte| u64::from(*byte) << 8))
}

fn fold(mut total: u64) -> u16 {
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The pseudo-header's sum (RFC 9293, 3.1; RFC 8200, 8.1): addresses, protocol and `len` bytes of transport.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    let len = len as u64;
    fold(
        u64::from(octets(source))
            + u64::from(octets(destination))
            + u64::from(protocol)
            + (len >> 16)
            + (len & 0xffff),
    )
}

/// Where a protocol keeps its checksum: bytes from the transport header.
pub const fn field_of(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        protocol::ICMP | protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Judges the packet's transport checksum as an endpoint that sees these two addresses would.
pub fn verify(packet: &Dissected<'_>, source: IpAddr, destination: IpAddr) -> Verdict {
    let Some(at) = field_of(packet.protocol) else { return Verdict::Unverifiable };
    if packet.is_fragment() || packet.transport.len() < at + 2 {
        return Verdict::Unverifiable;
    }
    if packet.protocol == protocol::UDP && packet.transport.get(6..8) == Some(&[0, 0]) {
        return Verdict::Absent;
    }
    let pseudo = match packet.protocol {
        protocol::ICMP => 0,
        other => pseudo_header(source, destination, other, packet.transport.len()),
    };
    let total = fold(u64::from(pseudo) + u64::from(sum(packet.transport)));
    if total == 0xffff { Verdict::Good } else { Verdict::Bad }
}

/// The checksum to write into a transport whose field is zero, for these addresses.
pub fn compute(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> u16 {
    let pseudo = match protocol {
        protocol::ICMP => 0,
        other => pseudo_header(source, destination, other, transport.len()),
    };
    let checksum = !fold(u64::from(pseudo) + u64::from(sum(transport)));
    // RFC 768: a UDP checksum that comes out as zero is sent as all ones.
    if checksum == 0 && protocol == protocol::UDP { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn an_odd_byte_is_padded_on_the_right() {
        assert_eq!(sum(&[0x12, 0x34, 0x56]), 0x1234 + 0x5600);
    }
}
