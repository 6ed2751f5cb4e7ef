//! What an operator decides about translation: raw [`Settings`] become a checked, copyable [`Config`].

use core::fmt;

/// What an operator may set. [`Config::new`] checks it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What translation takes from the TTL or Hop Limit.
    pub hop_change: HopChange,
    /// MTU of the IPv4 next hop, bytes; at least 68 (RFC 791).
    pub mtu4: u32,
    /// MTU of the IPv6 next hop, bytes; at least 1280 (RFC 8200 5).
    pub mtu6: u32,
    /// The largest packet sent into IPv6 when the sender allows fragmentation (RFC 7915 4); at least 1280.
    pub lowest_ipv6_mtu: u32,
    /// What happens to UDP datagrams without a checksum.
    pub zero_udp_checksum: ZeroUdpChecksum,
    /// What becomes of the TOS octet and the Traffic Class.
    pub traffic_class: TrafficClass,
    /// What happens to fragments of ICMP messages.
    pub fragmented_icmp: FragmentedIcmp,
}

impl Default for Settings {
    /// RFC 7915's defaults, with Ethernet's MTU on both sides.
    fn default() -> Self {
        Settings {
            hop_change: HopChange::SpendOne,
            mtu4: 1500,
            mtu6: 1500,
            lowest_ipv6_mtu: 1280,
            zero_udp_checksum: ZeroUdpChecksum::Drop,
            traffic_class: TrafficClass::Keep,
            fragmented_icmp: FragmentedIcmp::Drop,
        }
    }
}

/// What translation takes from the TTL or Hop Limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopChange {
    /// One, as any router; a packet that has none left is answered (RFC 7915 4.1, 5.1).
    SpendOne,
    /// Nothing, for a translator that is a link and not a hop (both ends inside one virtual network).
    Keep,
}

/// What happens to UDP datagrams without a checksum (RFC 7915 4.5, RFC 6936).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroUdpChecksum {
    /// Drop in both directions.
    Drop,
    /// IPv4 to IPv6: compute it, which needs the whole datagram, so first fragments are dropped. IPv6 to IPv4: drop.
    Compute,
    /// Zero travels as zero in both directions (RFC 6936), so nothing is lost between two ends that both use it.
    Forward,
}

/// What becomes of the TOS octet and the Traffic Class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficClass {
    /// All eight bits are carried over, DSCP and ECN.
    Keep,
    /// Both are overwritten by this octet (RFC 7915 allows 0 towards IPv6, any value towards IPv4).
    Set(u8),
}

/// What happens to fragments of ICMP messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentedIcmp {
    /// Drop (RFC 7915 1.2): ICMPv6's checksum covers a length no single fragment knows.
    Drop,
    /// Echo fragments pass. The first fragment's checksum is updated for type, addresses and next header, *not* for
    /// the length, so it is wrong on the IPv6 side; a translator with the same setting at the far end reverses it
    /// exactly. Only for links where both ends are such translators.
    Pass,
}

/// The largest packet sent into IPv6 when the sender allows fragmentation; never under 1280.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LowestIpv6Mtu(u32);

impl LowestIpv6Mtu {
    /// Checks the bound of RFC 8200 section 5.
    pub const fn new(mtu: u32) -> Result<Self, ConfigError> {
        if mtu < crate::mtu::IPV6_MINIMUM {
            return Err(ConfigError::LowestIpv6Mtu(mtu));
        }
        Ok(LowestIpv6Mtu(mtu))
    }

    /// Bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Checked settings. Cheap to copy, so that a caller may vary the MTU packet by packet.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub(crate) hop_change: HopChange,
    pub(crate) mtu4: u32,
    pub(crate) mtu6: u32,
    pub(crate) lowest_ipv6_mtu: LowestIpv6Mtu,
    pub(crate) zero_udp_checksum: ZeroUdpChecksum,
    pub(crate) traffic_class: TrafficClass,
    pub(crate) fragmented_icmp: FragmentedIcmp,
}

impl Config {
    /// Checks `settings`.
    pub const fn new(settings: Settings) -> Result<Self, ConfigError> {
        if settings.mtu4 < crate::mtu::IPV4_MINIMUM {
            return Err(ConfigError::Mtu4(settings.mtu4));
        }
        if settings.mtu6 < crate::mtu::IPV6_MINIMUM {
            return Err(ConfigError::Mtu6(settings.mtu6));
        }
        let lowest_ipv6_mtu = match LowestIpv6Mtu::new(settings.lowest_ipv6_mtu) {
            Ok(mtu) => mtu,
            Err(error) => return Err(error),
        };
        Ok(Config {
            hop_change: settings.hop_change,
            mtu4: settings.mtu4,
            mtu6: settings.mtu6,
            lowest_ipv6_mtu,
            zero_udp_checksum: settings.zero_udp_checksum,
            traffic_class: settings.traffic_class,
            fragmented_icmp: settings.fragmented_icmp,
        })
    }

    /// The same for another IPv6 next hop; a value under 1280 counts as 1280.
    #[inline]
    pub const fn with_mtu6(mut self, mtu6: u32) -> Self {
        self.mtu6 = if mtu6 < crate::mtu::IPV6_MINIMUM { crate::mtu::IPV6_MINIMUM } else { mtu6 };
        self
    }

    /// The same for another IPv4 next hop; a value under 68 counts as 68.
    #[inline]
    pub const fn with_mtu4(mut self, mtu4: u32) -> Self {
        self.mtu4 = if mtu4 < crate::mtu::IPV4_MINIMUM { crate::mtu::IPV4_MINIMUM } else { mtu4 };
        self
    }

    /// The same with another limit for what may be fragmented.
    #[inline]
    pub const fn with_lowest_ipv6_mtu(mut self, lowest: LowestIpv6Mtu) -> Self {
        self.lowest_ipv6_mtu = lowest;
        self
    }

    /// The same with another change to the hop count.
    #[inline]
    pub const fn with_hop_change(mut self, hop_change: HopChange) -> Self {
        self.hop_change = hop_change;
        self
    }

    /// The traffic class of a packet that came with `octet`.
    #[inline]
    pub(crate) const fn traffic_class(&self, octet: u8) -> u8 {
        match self.traffic_class {
            TrafficClass::Keep => octet,
            TrafficClass::Set(value) => value,
        }
    }

    /// What is left of a hop count; `None` when nothing is.
    #[inline]
    pub(crate) const fn hops_left(&self, hops: u8) -> Option<u8> {
        match (self.hop_change, hops) {
            (_, 0) | (HopChange::SpendOne, 1) => None,
            (HopChange::SpendOne, hops) => Some(hops - 1),
            (HopChange::Keep, hops) => Some(hops),
        }
    }
}

/// Settings that were refused, with the offending value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// IPv4 MTU under 68.
    Mtu4(u32),
    /// IPv6 MTU under 1280.
    Mtu6(u32),
    /// Lowest IPv6 MTU under 1280.
    LowestIpv6Mtu(u32),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Mtu4(mtu) => write!(f, "IPv4 MTU {mtu} is under 68 (RFC 791)"),
            ConfigError::Mtu6(mtu) => write!(f, "IPv6 MTU {mtu} is under 1280 (RFC 8200 section 5)"),
            ConfigError::LowestIpv6Mtu(mtu) => {
                write!(f, "lowest IPv6 MTU {mtu} is under 1280 (RFC 8200 section 5)")
            }
        }
    }
}

impl core::error::Error for ConfigError {}
