//! What somebody on the fabric can try: any IPv6 packet, except one that bears a tenant's true name as its source. That one *is* the
//! tenant's as far as anybody can tell: the source address is the only tag of a network on the wire.

use core::net::Ipv6Addr;

use super::{Strangers, wire};
use crate::testkit::dissect::protocol;
use crate::testkit::frames::{self, Header};

impl Strangers {
    /// As if `speaker`'s host, or somebody else, sent it to the host of `towards`.
    pub(super) fn by_fabric(&mut self, speaker: usize, towards: usize) -> (&'static str, Vec<u8>) {
        let (from, to) = (self.tenant(speaker).clone(), self.tenant(towards).clone());
        let payload = self.payload(speaker, false);
        let (family, other) = (self.dice.roll() as usize % 2, self.dice.roll() as usize % 2);
        let source = self.place.source(&from, other);
        let neutral = self.dice.chance(500);
        let target = self.place.ila_address(&to, family, neutral);
        let (kind, source, destination) = match self.dice.roll() % 6 {
            0 => ("fabric: to another network", source, target),
            1 => ("fabric: to another network, untranslated", source, self.place.source(&to, family)),
            2 => ("fabric: forged destination bits", source, self.turned(target)),
            3 => ("fabric: forged source bits", self.unlike(source), target),
            // C = 1 with every adjustment there is, so that the reversed word is any.
            4 => {
                let identifier = self.place.ila_address(&to, family, true).to_bits() & !0xffff;
                let any = Ipv6Addr::from_bits(identifier | u128::from(self.dice.roll() as u16));
                ("fabric: forged adjustment", source, any)
            }
            _ => return ("fabric: forged error", self.forged_error(&payload, source, target)),
        };
        (kind, wire::any(&mut self.dice, source.into(), destination.into(), &payload))
    }

    /// Up to three bits of the identifier or of the locator turned over.
    fn turned(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        let mut bits = address.to_bits();
        for _ in 0..=self.dice.roll() % 3 {
            let within = if self.dice.chance(900) { 64 } else { 128 };
            bits ^= 1 << (self.dice.roll() % within);
        }
        Ipv6Addr::from_bits(bits)
    }

    /// Anything but a tenant's name: a locator, C = 1, another type, a VNID that nobody has.
    fn unlike(&mut self, source: Ipv6Addr) -> Ipv6Addr {
        let low = source.to_bits() as u64;
        let host = self.dice.roll() as usize % self.place.locators.len();
        let type_bits = 1_u64 << (60 + self.dice.roll() % 4);
        match self.dice.roll() % 4 {
            0 => wire::under(self.place.locators[host], low),
            1 => Ipv6Addr::from_bits(source.to_bits() ^ u128::from(type_bits)),
            2 => Ipv6Addr::from_bits(source.to_bits() ^ 1 << (44 + self.dice.roll() % 16)),
            _ => Ipv6Addr::from_bits(u128::from(self.dice.roll()) << 64 | u128::from(self.dice.roll())),
        }
    }

    /// An ICMPv6 error about a packet between networks, which nobody can have sent.
    fn forged_error(&mut self, payload: &[u8], source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        let (about_from, about_to) = if self.dice.chance(500) { (target, source) } else { (source, target) };
        let about = wire::plain(&mut self.dice, about_from.into(), about_to.into(), payload);
        let kind = 1 + self.dice.roll() as u8 % 4;
        let mtu = (self.dice.roll() as u32 % 2000).to_be_bytes();
        let transport = [&[kind, 0, 0, 0], &mtu[..], &about].concat();
        frames::ip(Header::default(), source.into(), target.into(), protocol::ICMPV6, transport)
    }
}
