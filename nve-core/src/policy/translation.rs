//! How IPv4 is translated, by who is at the other end: a tenant of the same network, or an endpoint with IPv6.
//!
//! What must stay true: inside a network, and between IPv4 tenants of two, nothing is lost that two edges can put back; towards an endpoint with
//! IPv6 the rules are a router's (RFC 7915).

use ipv4_xlat::{Config, FragmentedIcmp, HopChange, LowestIpv6Mtu, Settings, TrafficClass, ZeroUdpChecksum};

use super::{IPV6_MINIMUM, World};

impl World {
    /// How IPv4 is translated for endpoints that have IPv6, along a path that carries `mtu` bytes: a router's rules (RFC 7915).
    pub(crate) fn apart_along(&self, mtu: u16) -> Config {
        along(APART.with_mtu4(u32::from(self.uplink_mtu).saturating_sub(20)), mtu)
    }
    /// The same for the outside, of whose paths nothing is learned.
    pub(crate) fn apart_outside(&self) -> Config {
        let config = self.apart_along(self.uplink_mtu);
        LowestIpv6Mtu::new(u32::from(IPV6_MINIMUM))
            .map_or(config, |lowest| config.with_lowest_ipv6_mtu(lowest))
    }
}

/// Translation between tenants of one network (design, section 5, "Inside a VN").
const IN_NETWORK: Config = match Config::new(Settings {
    hop_change: HopChange::Keep,
    mtu4: 1480,
    mtu6: 1500,
    lowest_ipv6_mtu: 1500,
    zero_udp_checksum: ZeroUdpChecksum::Forward,
    traffic_class: TrafficClass::Keep,
    fragmented_icmp: FragmentedIcmp::Pass,
}) {
    Ok(config) => config,
    Err(_) => panic!("refused when this file is compiled"),
};

/// Translation between a tenant's IPv4 and endpoints with IPv6.
const APART: Config = match Config::new(Settings {
    hop_change: HopChange::SpendOne,
    mtu4: 1480,
    mtu6: 1500,
    lowest_ipv6_mtu: 1500,
    zero_udp_checksum: ZeroUdpChecksum::Compute,
    traffic_class: TrafficClass::Keep,
    fragmented_icmp: FragmentedIcmp::Drop,
}) {
    Ok(config) => config,
    Err(_) => panic!("refused when this file is compiled"),
};

/// The same for an uplink that takes packets of `uplink_mtu` bytes; that much a packet with DF = 0 may grow to.
pub(super) fn translation(uplink_mtu: u16) -> Config {
    along(IN_NETWORK.with_mtu4(u32::from(uplink_mtu).saturating_sub(20)), uplink_mtu)
}

/// The same along a path that carries `mtu` bytes.
pub(super) fn along(config: Config, mtu: u16) -> Config {
    let mtu = u32::from(mtu);
    let config = config.with_mtu6(mtu);
    LowestIpv6Mtu::new(mtu).map_or(config, |lowest| config.with_lowest_ipv6_mtu(lowest))
}
