//! MTU arithmetic: what a path MTU of one family means in the other (RFC 7915 4.2, 5.2).
//!
//! All values are bytes of whole IP packets. Nothing wraps: an off-path attacker chooses the inputs.

/// Smallest MTU of an IPv4 link (RFC 791).
pub const IPV4_MINIMUM: u32 = 68;
/// Smallest MTU of an IPv6 link (RFC 8200 section 5).
pub const IPV6_MINIMUM: u32 = 1280;
/// What an IPv6 header is longer than an IPv4 header without options.
pub const HEADER_DIFFERENCE: u32 = 20;
/// The same with the Fragment Header that a fragment needs in IPv6.
pub const FRAGMENT_DIFFERENCE: u32 = 28;

/// RFC 1191's plateaus from 1280 up, largest first. Old routers send an MTU of 0; the sender's packet was larger
/// than the next plateau below it.
const PLATEAUS: [u32; 7] = [65535, 32000, 17914, 8166, 4352, 2002, 1492];

/// The MTU of an ICMPv6 packet-too-big made from an ICMPv4 one (RFC 7915 4.2):
/// `max(1280, min(mtu + 20, mtu6, mtu4 + 20))`, where an MTU of 0 is replaced by the largest plateau that is
/// under `quoted_len`, the quoted packet's Total Length.
pub fn packet_too_big_v6(mtu: u16, quoted_len: u16, mtu4: u32, mtu6: u32) -> u32 {
    let mtu = match mtu {
        0 => PLATEAUS.into_iter().find(|&plateau| plateau < u32::from(quoted_len)).unwrap_or(0),
        stated => u32::from(stated),
    };
    (mtu + HEADER_DIFFERENCE).min(mtu6).min(mtu4.saturating_add(HEADER_DIFFERENCE)).max(IPV6_MINIMUM)
}

/// The MTU of an ICMPv4 fragmentation-needed made from an ICMPv6 packet-too-big (RFC 7915 5.2):
/// `min(mtu - 20, mtu4, mtu6 - 20)`, with 28 for 20 when the quoted packet has a Fragment Header; within 68 and 65535.
pub fn fragmentation_needed_v4(mtu: u32, quoted_fragment: bool, mtu4: u32, mtu6: u32) -> u16 {
    let difference = if quoted_fragment { FRAGMENT_DIFFERENCE } else { HEADER_DIFFERENCE };
    let mtu = mtu.saturating_sub(difference).min(mtu4).min(mtu6.saturating_sub(difference)).max(IPV4_MINIMUM);
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

/// The MTU to tell an IPv4 sender whose packet exceeds the IPv6 next hop's `mtu6` (RFC 7915 4.1).
pub fn told_to_v4(mtu6: u32, fragment: bool) -> u16 {
    let difference = if fragment { FRAGMENT_DIFFERENCE } else { HEADER_DIFFERENCE };
    u16::try_from(mtu6.saturating_sub(difference).max(IPV4_MINIMUM)).unwrap_or(u16::MAX)
}

/// The MTU to tell an IPv6 sender whose packet exceeds the IPv4 next hop's `mtu4` (RFC 7915 5.1).
pub fn told_to_v6(mtu4: u32, fragment: bool) -> u32 {
    let difference = if fragment { FRAGMENT_DIFFERENCE } else { HEADER_DIFFERENCE };
    mtu4.saturating_add(difference).max(IPV6_MINIMUM)
}
