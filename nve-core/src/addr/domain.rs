//! SIR domains, and the key of an identifier in one (draft, section 3.8; docs/decisions/0016).
//!
//! What must stay true: a [`Key`] is made by a [`Domain`] only, so that nothing is looked up without one; two domains never make the same
//! key; the key gives both back, the domain and the identifier.
//!
//! ```text
//!   upper nibble of an identifier   type 1: 2    type 2: 4    type 3: 6    type 4: 8      C = 0, so these four of sixteen
//!   of its key, by domain       0        2            4            6            8         xor 0
//!                               1        3            5            7            9         xor 1
//!                               2       10           12           14            0         xor 8
//!                               3       11           13           15            1         xor 9
//! ```

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU64;

use super::{Identifier, Kind, Locator, Neutral, SirPrefix, Vnid};

/// A domain's number on this host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DomainId(u8);

impl DomainId {
    /// All there can be: what the upper nibble of a key has room for.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// What the upper nibble of an identifier is changed by: its lowest and its highest bit.
    const fn fold(self) -> u64 {
        let number = self.0 as u64;
        (number & 1) << 60 | (number >> 1) << 63
    }

    /// The domain whose keys have this upper nibble.
    const fn of_nibble(nibble: u64) -> Self {
        let kind = nibble & 0b1110;
        let second = kind == 0 || kind > 8;
        Self((nibble & 1) as u8 | (second as u8) << 1)
    }

    /// The number: 0 to 3.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// One identifier space as this host serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Domain {
    id: DomainId,
    sir: SirPrefix,
    locator: Locator,
    neutral: Neutral,
}

impl Domain {
    /// The domain of `sir`, in which this host is at `locator`.
    pub const fn new(id: DomainId, sir: SirPrefix, locator: Locator) -> Self {
        Self { id, sir, locator, neutral: Neutral::sir(locator, sir) }
    }
    /// Its number.
    #[inline]
    pub const fn id(&self) -> DomainId {
        self.id
    }
    /// What its identifiers are behind.
    #[inline]
    pub const fn sir(&self) -> SirPrefix {
        self.sir
    }
    /// Where this host is in it, and in no other.
    #[inline]
    pub const fn locator(&self) -> Locator {
        self.locator
    }
    /// The adjustment between the two (types 1 and 2).
    #[inline]
    pub const fn neutral(&self) -> Neutral {
        self.neutral
    }
    /// The key of `identifier`; `None` of type 0, which no table has.
    #[inline]
    pub const fn key(&self, identifier: Identifier) -> Option<Key> {
        match (identifier.type_number(), NonZeroU64::new(identifier.bits() ^ self.id.fold())) {
            (1..=4, Some(bits)) => Some(Key(bits)),
            _ => None,
        }
    }
    /// The keys of all type 2 identifiers of one network.
    pub fn keys_of_ipv4(&self, vnid: Vnid) -> Keys {
        self.keys(Identifier::ipv4(vnid, Ipv4Addr::UNSPECIFIED))
    }
    /// The keys of all type 3 identifiers of one network.
    pub fn keys_of_ipv6(&self, vnid: Vnid) -> Keys {
        self.keys(Identifier::ipv6(vnid, 0))
    }
    /// Of those that differ from `first` in their low 32 bits, which are zero. A type other than 0 makes none of them zero.
    fn keys(&self, first: Identifier) -> Keys {
        Keys(self.key(first).map_or(NonZeroU64::MIN, |key| key.0))
    }
    /// `SIR:identifier`, what it is called by those for whom that is an address (types 1 and 2).
    #[inline]
    pub const fn address(&self, identifier: Identifier) -> Ipv6Addr {
        self.sir.address(identifier).ipv6()
    }
}

/// An identifier of type 1 to 4 and its domain in 64 bits: the key of every table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(NonZeroU64);

impl Key {
    /// All of it.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0.get()
    }
    /// From what [`Key::bits`] gave; `None`: it is no key's.
    pub(crate) const fn from_bits(bits: u64) -> Option<Self> {
        let Some(nonzero) = NonZeroU64::new(bits) else { return None };
        match Identifier::from_bits(Self(nonzero).identifier().bits()) {
            Ok(identifier) if identifier.type_number() != 0 => Some(Self(nonzero)),
            _ => None,
        }
    }
    /// Of `identifier` in the domain that most tests have alone, the first.
    #[cfg(test)]
    pub(crate) fn first(identifier: Identifier) -> Self {
        Self::from_bits(identifier.bits()).expect("types 1 to 4 have one")
    }
    /// The domain that made it.
    #[inline]
    pub const fn domain(self) -> DomainId {
        DomainId::of_nibble(self.bits() >> 60)
    }
    /// The identifier it was made of.
    #[inline]
    pub const fn identifier(self) -> Identifier {
        Identifier::unfolded(self.bits() ^ self.domain().fold())
    }
    /// What the identifier says.
    #[inline]
    pub const fn kind(self) -> Kind {
        self.identifier().kind()
    }
    /// The type of the identifier: 1 to 4.
    #[inline]
    pub const fn type_number(self) -> u8 {
        self.identifier().type_number()
    }
    /// The network of types 2 to 4; its number is one of the key's domain.
    #[inline]
    pub const fn vnid(self) -> Option<Vnid> {
        self.identifier().vnid()
    }
    /// The low 32 bits, host byte order: of type 2 the address, of type 3 its end.
    #[inline]
    pub const fn low(self) -> u32 {
        self.bits() as u32
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}:{:016x})", self.domain().get(), self.identifier())
    }
}

/// The keys of all addresses of one network in one family: made once, and each is one operation from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys(NonZeroU64);

impl Keys {
    /// Of the address that has these low 32 bits, host byte order.
    #[inline]
    pub fn of(self, low: u32) -> Key {
        Key(self.0 | u64::from(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> [Domain; 4] {
        DomainId::ALL.map(|id| {
            let n = u128::from(id.get());
            let sir = Ipv6Addr::from_bits((0x2001_0db8_0051 << 80) | n << 64);
            let locator = Ipv6Addr::from_bits((0x2001_0db8_0001 << 80) | n << 64);
            Domain::new(id, SirPrefix::new(sir).unwrap(), Locator::new(locator).unwrap())
        })
    }

    /// The lowest and the highest of each type.
    fn identifiers() -> Vec<Identifier> {
        let edges = (1..=4_u64).flat_map(|kind| [(kind << 61) | (1 << 32), (kind << 61) | ((1 << 60) - 1)]);
        edges.chain([0x2000_0000_0000_0000]).map(|bits| Identifier::from_bits(bits).unwrap()).collect()
    }

    #[test]
    fn two_domains_never_make_the_same_key_and_a_key_gives_back_both() {
        let mut seen = std::collections::HashSet::new();
        for domain in domains() {
            for identifier in identifiers() {
                let key = domain.key(identifier).expect("types 1 to 4 have one");
                assert!(seen.insert(key), "{key:?} is another's, too");
                assert_eq!((key.domain(), key.identifier()), (domain.id(), identifier));
                assert_eq!(Key::from_bits(key.bits()), Some(key));
            }
        }
        assert_eq!(seen.len(), 4 * identifiers().len());
    }

    #[test]
    fn an_ordinary_address_has_no_key() {
        for domain in domains() {
            assert_eq!(domain.key(Identifier::from_bits(1).unwrap()), None);
            assert_eq!(domain.key(Identifier::from_bits(0).unwrap()), None);
        }
        assert_eq!(Key::from_bits(0), None);
        assert_eq!(Key::from_bits(1), None, "no network has the number zero");
    }

    /// All sixteen values of the upper nibble are somebody's, and each of one domain and type.
    #[test]
    fn every_upper_nibble_is_of_one_domain_and_type() {
        let named: std::collections::HashSet<_> = (0..16_u64)
            .map(|nibble| Key::from_bits(nibble << 60 | 1 << 32).expect("a key"))
            .map(|key| (key.domain(), key.type_number()))
            .collect();
        assert_eq!(named.len(), 16);
    }

    #[test]
    fn the_keys_of_a_network_are_those_of_its_identifiers() {
        let vnid = Vnid::new(0x0fff_ffff).unwrap();
        for domain in domains() {
            let (keys4, keys6) = (domain.keys_of_ipv4(vnid), domain.keys_of_ipv6(vnid));
            for low in [0, 1, u32::MAX] {
                assert_eq!(Some(keys4.of(low)), domain.key(Identifier::ipv4(vnid, low.into())));
                assert_eq!(Some(keys6.of(low)), domain.key(Identifier::ipv6(vnid, low)));
            }
        }
    }

    #[test]
    fn an_optional_key_is_no_larger_than_a_key() {
        assert_eq!(size_of::<Option<Key>>(), 8);
    }
}
