//! What a tenant can try from its own port: anything at all in an Ethernet frame.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

use super::{Strangers, Tenant, wire};
use crate::gateway::GATEWAY_MAC;
use crate::testkit::dice::Dice;
use crate::testkit::dissect::protocol;
use crate::testkit::frames::{self, Header};

impl Strangers {
    /// What `speaker` tries towards `towards`, who may be itself.
    pub(super) fn by_tenant(&mut self, speaker: usize, towards: usize) -> (&'static str, Vec<u8>) {
        let (from, to) = (self.tenant(speaker).clone(), self.tenant(towards).clone());
        let payload = self.payload(speaker, false);
        let (kind, source, destination) = match self.dice.roll() % 10 {
            0 => ("by its address", from.ipv6.into(), to.ipv6.into()),
            1 => ("by the IPv4 address that many have", from.ipv4.into(), to.ipv4.into()),
            2 => ("by a name of the wire", from.ipv6.into(), self.wire_name(&to).into()),
            3 | 4 => self.as_another(&from, &to, towards),
            5 => self.for_many(&from),
            6 => self.for_nobody(&from, &to),
            7 => return ("link protocols", self.on_the_link(&from, &to, &payload)),
            8 => return ("damage", self.damaged(&from, &to, &payload)),
            _ => return ("routed", self.routed(&from, &to, towards, &payload)),
        };
        let packet = wire::any(&mut self.dice, source, destination, &payload);
        (kind, self.in_a_frame(&from, &to, &packet))
    }

    /// In a frame from the speaker's card or another's, to the gateway's or another's, tagged or not.
    fn in_a_frame(&mut self, from: &Tenant, to: &Tenant, packet: &[u8]) -> Vec<u8> {
        let source = if self.dice.chance(100) { to.mac } else { from.mac };
        let destination = match self.dice.roll() % 8 {
            0 => to.mac,
            1 => EthernetAddress::BROADCAST,
            2 => EthernetAddress([0x33, 0x33, 0, 0, 0, 1]),
            3 => EthernetAddress([0x01, 0, 0x5e, 0, 0, 0xfb]),
            _ => GATEWAY_MAC,
        };
        let mut frame = frames::ethernet(source, destination, packet);
        if self.dice.chance(30) {
            frame.splice(12..12, [0x81, 0, 0, self.dice.roll() as u8]);
        }
        frame
    }

    /// What the wire calls a tenant: under SIR, or under its host's locator.
    fn wire_name(&mut self, to: &Tenant) -> Ipv6Addr {
        let (family, neutral) = (self.dice.roll() as usize % 2, self.dice.chance(500));
        match self.dice.roll() % 3 {
            0 => self.place.sir_address(to.network, to.ipv4),
            1 => self.place.ila_address(to, family, neutral),
            // A group of its network (type 4).
            _ => {
                let vni = u64::from(self.place.networks[to.network].0) << 32;
                wire::under(self.place.locators[to.host], 4 << 61 | vni | 0x2000_00fb)
            }
        }
    }

    /// From an address that is not the speaker's, best of all one of the network it wants to be heard in.
    fn as_another(&mut self, from: &Tenant, to: &Tenant, towards: usize) -> (&'static str, IpAddr, IpAddr) {
        let mate = self.mate(towards);
        let kind = "from another's address";
        match self.dice.roll() % 5 {
            0 => (kind, mate.ipv6.into(), to.ipv6.into()),
            1 => (kind, to.ipv6.into(), to.ipv6.into()),
            2 => (kind, self.place.sir_address(to.network, mate.ipv4).into(), self.wire_name(to).into()),
            3 => (kind, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(), to.ipv6.into()),
            _ => (
                kind,
                Ipv4Addr::from_bits(from.ipv4.to_bits() ^ 1 << (self.dice.roll() % 32)).into(),
                to.ipv4.into(),
            ),
        }
    }

    /// Broadcast and groups.
    fn for_many(&mut self, from: &Tenant) -> (&'static str, IpAddr, IpAddr) {
        let random = self.dice.roll();
        let kind = "to many";
        let v6 = |a, b, low: u64| {
            Ipv6Addr::from_bits(u128::from(a) << 112 | u128::from(b) << 24 | u128::from(low))
        };
        match self.dice.roll() % 8 {
            0 => (kind, from.ipv4.into(), Ipv4Addr::BROADCAST.into()),
            1 => (kind, from.ipv4.into(), Ipv4Addr::new(10, 1, 255, 255).into()),
            2 => (kind, from.ipv4.into(), Ipv4Addr::new(224, 0, 0, 251).into()),
            3 => (kind, from.ipv4.into(), Ipv4Addr::from_bits(0xe000_0000 | random as u32 >> 4).into()),
            4 => (kind, from.ipv6.into(), v6(0xff02_u16, 0_u64, 1).into()),
            5 => (kind, from.ipv6.into(), v6(0xff02_u16, 0x01_ff00_u64 >> 8, random & 0xff_ffff).into()),
            _ => {
                let scope = (random >> 32) as u16 & 0xf;
                (kind, from.ipv6.into(), v6(0xff00 | scope, 0, random & 0xfff_ffff).into())
            }
        }
    }

    /// An address that nobody has, here or there.
    fn for_nobody(&mut self, from: &Tenant, to: &Tenant) -> (&'static str, IpAddr, IpAddr) {
        let random = self.dice.roll();
        let kind = "to nobody";
        match self.dice.roll() % 4 {
            0 => (kind, from.ipv4.into(), Ipv4Addr::from_bits(0x0a01_0000 | random as u32 & 0xffff).into()),
            1 => (kind, from.ipv4.into(), Ipv4Addr::from_bits(random as u32).into()),
            2 => {
                let (_, vnet) = self.place.networks[to.network];
                let low = u128::from(random as u32);
                (kind, from.ipv6.into(), Ipv6Addr::from_bits(vnet.to_bits() | low).into())
            }
            _ => (kind, from.ipv6.into(), wire::under(self.place.sir, random).into()),
        }
    }

    /// What only the gateway may say on the link, and what it alone is told.
    fn on_the_link(&mut self, from: &Tenant, to: &Tenant, payload: &[u8]) -> Vec<u8> {
        let hops = Header { hop_limit: 255, ..Header::default() };
        // The gateway's, or one that anybody may have.
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1 + self.dice.roll() as u16 % 2);
        let target = to.ipv6.octets();
        let icmp = |kind: u8, body: &[u8], source: Ipv6Addr, destination: Ipv6Addr| {
            let transport = [&[kind, 0, 0, 0, 0, 0, 0, 0], body].concat();
            frames::ip(hops, source.into(), destination.into(), protocol::ICMPV6, transport)
        };
        let said = [&target[..], payload].concat();
        let packet = match self.dice.roll() % 9 {
            0 => return arp(&mut self.dice, from, to, payload),
            1 => icmp(135, &said, from.ipv6, to.ipv6),
            2 => icmp(136, &said, to.ipv6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
            3 => icmp(136, &said, from.ipv6, to.ipv6),
            4 => icmp(134, payload, link_local, to.ipv6),
            5 => icmp(137, &[&target[..], &target[..], payload].concat(), link_local, to.ipv6),
            6 => frames::udp(hops, (from.ipv4, 67).into(), (to.ipv4, 68).into(), payload),
            7 => frames::udp(hops, (from.ipv6, 547).into(), (to.ipv6, 546).into(), payload),
            // An error about a packet that the other may have sent.
            _ => {
                let about = wire::plain(&mut self.dice, to.ipv6.into(), from.ipv6.into(), payload);
                icmp(1, &about, from.ipv6, to.ipv6)
            }
        };
        self.in_a_frame(from, to, &packet)
    }

    /// An honest packet with a few bits turned over, of which some are the destination's.
    fn damaged(&mut self, from: &Tenant, to: &Tenant, payload: &[u8]) -> Vec<u8> {
        let (source, destination): (IpAddr, IpAddr) = match self.dice.chance(300) {
            true => (from.ipv4.into(), to.ipv4.into()),
            false => (from.ipv6.into(), to.ipv6.into()),
        };
        let packet = wire::any(&mut self.dice, source, destination, payload);
        let mut frame = frames::ethernet(from.mac, GATEWAY_MAC, &packet);
        // Not in the mark, which tells whose it is.
        let end = frame.len().min(if destination.is_ipv6() { 54 } else { 34 });
        for _ in 0..=self.dice.roll() % 3 {
            let at = self.dice.roll() as usize % end;
            frame[at] ^= 1 << (self.dice.roll() % 8);
        }
        frame
    }

    /// Through somebody: routing headers and tunnels whose inside names the other.
    fn routed(&mut self, from: &Tenant, to: &Tenant, towards: usize, payload: &[u8]) -> Vec<u8> {
        let name = self.wire_name(to);
        let (via, mate): (Ipv6Addr, Tenant) = (self.mate_of(from), self.mate(towards));
        let inner = wire::plain(&mut self.dice, mate.ipv6.into(), to.ipv6.into(), payload);
        let packet = match self.dice.roll() % 4 {
            0 => {
                let mut extension = vec![0, 2, [0, 2, 4][self.dice.roll() as usize % 3], 1, 0, 0, 0, 0];
                extension.extend(if self.dice.chance(500) { to.ipv6 } else { name }.octets());
                wire::extended(from.ipv6.into(), via.into(), 43, &extension, payload)
            }
            1 => frames::ip(Header::default(), from.ipv6.into(), via.into(), 41, inner),
            2 => frames::ip(Header::default(), from.ipv6.into(), to.ipv6.into(), 41, inner),
            _ => frames::ip(Header::default(), from.ipv4.into(), to.ipv4.into(), 41, inner),
        };
        self.in_a_frame(from, to, &packet)
    }

    fn mate_of(&mut self, tenant: &Tenant) -> Ipv6Addr {
        let index = self.place.tenants.iter().position(|other| other.name == tenant.name);
        self.mate(index.unwrap_or_default()).ipv6
    }
}

/// A request, reply or announcement, about any of the addresses.
fn arp(dice: &mut Dice, from: &Tenant, to: &Tenant, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], from.mac.as_bytes(), &[8, 6, 0, 1, 8, 0, 6, 4, 0]].concat();
    frame.push(1 + dice.roll() as u8 % 2);
    for _ in 0..2 {
        let of = if dice.chance(500) { from } else { to };
        frame.extend(of.mac.as_bytes());
        frame.extend(of.ipv4.octets());
    }
    frame.extend(payload);
    frame
}
