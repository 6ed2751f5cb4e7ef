//! Packets of many shapes around a payload, and the names that tenants have on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Neighbourhood, Tenant};
use crate::testkit::checksum;
use crate::testkit::dice::Dice;
use crate::testkit::dissect::protocol;
use crate::testkit::frames::{self, Header, flags};

const C_BIT: u64 = 1 << 60;

/// What every NVE lets pass between two that may talk: UDP, TCP or echo.
pub(super) fn plain(dice: &mut Dice, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let header = Header { dont_fragment: dice.chance(500), ..Header::default() };
    // Not those of servers that only the gateway may be.
    let mut port = || 1024 + (dice.roll() as u16 & 0x7fff);
    let (from, to) = ((source, port()).into(), (destination, port()).into());
    match dice.roll() % 3 {
        0 => frames::udp(header, from, to, payload),
        1 => frames::tcp(header, from, to, flags::ACK, payload),
        _ => frames::echo_request(header, source, destination, 1, payload),
    }
}

/// Any shape: as [`plain`], or fragments, options, extension headers, tunnels, other protocols.
pub(super) fn any(dice: &mut Dice, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let header = Header::default();
    let mut whole = plain(dice, source, destination, payload);
    let ipv6 = destination.is_ipv6();
    match dice.roll() % 12 {
        0 if ipv6 => extended(source, destination, 44, &[0, 0, 0, 1, 0, 0, 0, 7], payload),
        1 if ipv6 => extended(source, destination, 44, &[0, 0, 0, 0x41, 0, 0, 0, 7], payload),
        2 if ipv6 => extended(source, destination, 0, &[0, 0, 1, 4, 0, 0, 0, 0], payload),
        3 if ipv6 => extended(source, destination, 60, &[0, 0, 1, 4, 0, 0, 0, 0], payload),
        0 | 1 => {
            // A first fragment, or a later one.
            whole[6..8].copy_from_slice(if dice.chance(500) { &[0x20, 0] } else { &[0, 8] });
            frames::seal_ipv4(&mut whole);
            whole
        }
        2 => {
            let router = dice.roll().to_be_bytes();
            whole.splice(20..20, [131, 7, 4, router[0], router[1], router[2], router[3], 0]);
            whole[0] = 0x47;
            let total = whole.len() as u16;
            whole[2..4].copy_from_slice(&total.to_be_bytes());
            frames::seal_ipv4(&mut whole);
            whole
        }
        4 => {
            // Room for any protocol's checksum before the mark.
            let body = [&[0; 24][..], payload].concat();
            frames::ip(header, source, destination, dice.roll() as u8, body)
        }
        // GRE and IP in IP, as tunnels of other kinds begin.
        5 => frames::ip(header, source, destination, [47, 4, 41][dice.roll() as usize % 3], whole),
        6 => frames::udp(header, (source, 4789).into(), (destination, 4789).into(), &whole),
        _ => whole,
    }
}

/// An extension header (its first byte, the next header, becomes UDP) before a datagram.
pub(super) fn extended(
    source: IpAddr,
    destination: IpAddr,
    kind: u8,
    extension: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let datagram = frames::udp(Header::default(), (source, 1).into(), (destination, 2).into(), payload);
    let mut body = extension.to_vec();
    body[0] = protocol::UDP;
    body.extend(&datagram[40..]);
    frames::ip(Header::default(), source, destination, kind, body)
}

impl Neighbourhood {
    /// The low 64 bits that the wire knows an address of `network` by, C = 0.
    pub(super) fn identifier(&self, network: usize, address: IpAddr) -> u64 {
        let vni = u64::from(self.networks[network].0) << 32;
        match address {
            IpAddr::V4(v4) => 2 << 61 | vni | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => 3 << 61 | vni | u64::from(v6.to_bits() as u32),
        }
    }

    /// `SIR:` and an IPv4 tenant.
    pub(super) fn sir_address(&self, network: usize, address: Ipv4Addr) -> Ipv6Addr {
        under(self.sir, self.identifier(network, address.into()))
    }

    /// A tenant's address as the endpoint's checksum sees it, and where it lives.
    fn endpoint(&self, tenant: &Tenant, family: usize) -> (Ipv6Addr, u64) {
        match family {
            0 => (
                self.sir_address(tenant.network, tenant.ipv4),
                self.identifier(tenant.network, tenant.ipv4.into()),
            ),
            _ => (tenant.ipv6, self.identifier(tenant.network, tenant.ipv6.into())),
        }
    }

    /// `L:I` of a tenant on its host: C = 0, or C = 1 with the adjustment that keeps a checksum for its own address right.
    pub(super) fn ila_address(&self, tenant: &Tenant, family: usize, neutral: bool) -> Ipv6Addr {
        let (endpoint, identifier) = self.endpoint(tenant, family);
        let locator = self.locators[tenant.host];
        if !neutral {
            return under(locator, identifier);
        }
        let changed = under(locator, identifier | C_BIT);
        // Low word + what the endpoint's address adds to a sum - what this one does, in one's complement.
        let minus = !checksum::sum(&changed.octets());
        let plus = checksum::sum(&endpoint.octets());
        let words = [identifier as u16, plus, minus].map(u16::to_be_bytes);
        let low = checksum::sum(words.as_flattened());
        Ipv6Addr::from_bits(changed.to_bits() & !0xffff | u128::from(low))
    }

    /// How the wire names a tenant as a source: `SIR:(VNI:VA)`, or its own IPv6 address.
    pub(super) fn source(&self, tenant: &Tenant, family: usize) -> Ipv6Addr {
        self.endpoint(tenant, family).0
    }
}

/// A prefix's upper 64 bits and these below.
pub(super) fn under(prefix: Ipv6Addr, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.to_bits() >> 64 << 64 | u128::from(low))
}
