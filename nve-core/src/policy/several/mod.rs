//! Identifiers with several locators, and which one a flow goes to (draft, section 4.5; docs/decisions/0019): rendezvous hashing, the
//! locator of the highest weight.
//!
//! ```text
//!   flow   = mix(mix(mix(mix(0 ^ source's upper 64 bits) ^ source's lower) ^ destination's identifier) ^ protocol)
//!   weight = mix(flow ^ mix(locator's upper 64 bits))                         of each locator; the highest is chosen
//!   mix(x) = SplitMix64: x += 0x9e3779b97f4a7c15; x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
//!            x = (x ^ x >> 27) * 0x94d049bb133111eb; x ^ x >> 31
//! ```
//!
//! What must stay true: nothing is remembered; every host that knows the same locators chooses alike, so there is no seed; a locator that
//! goes moves the flows it had and no other; one that comes takes its share and moves no flow between the others. Packets without ports have
//! the flow of those with: fragments stay together.

use core::net::Ipv6Addr;

use crate::addr::{Identifier, Key, Locator};
use crate::pipeline::PortId;
use crate::tables::Target;

/// What is the same in all packets that one endpoint sends to another by one protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flow(u64);

impl Flow {
    /// Of packets from `source`, as it is called on the wire. `protocol` is that of IPv6, of all the datagram.
    pub(crate) fn new(source: Ipv6Addr, destination: Identifier, protocol: u8) -> Self {
        let bits = source.to_bits();
        let words = [(bits >> 64) as u64, bits as u64, destination.bits(), u64::from(protocol)];
        Self(words.into_iter().fold(0, |flow, word| mix(flow ^ word)))
    }

    fn weight(self, locator: Locator) -> u64 {
        mix(self.0 ^ mix(locator.upper()))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): each bit of the result depends on each bit of `x`.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// An identifier that lives at several hosts at once; this one may be among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Several {
    pub(crate) key: Key,
    /// At least one.
    places: Box<[(Locator, Target)]>,
}

impl Several {
    /// At `places`; `None` if there are none.
    pub(crate) fn new(key: Key, places: Vec<(Locator, Target)>) -> Option<Self> {
        (!places.is_empty()).then_some(Self { key, places: places.into() })
    }

    /// Where `flow` goes.
    pub(crate) fn choose(&self, flow: Flow) -> Option<Target> {
        let weighed = self.places.iter().max_by_key(|(locator, _)| (flow.weight(*locator), locator.upper()));
        weighed.map(|(_, target)| *target)
    }

    /// The attachment of this host that has it.
    pub(crate) fn here(&self) -> Option<PortId> {
        self.places.iter().find_map(|(_, target)| match target {
            Target::Local(port) => Some(*port),
            Target::Remote(..) => None,
        })
    }

    /// The place with this locator.
    pub(crate) fn at(&self, upper: u64) -> Option<Target> {
        self.places.iter().find(|(locator, _)| locator.upper() == upper).map(|(_, target)| *target)
    }

    /// All places; another host's first.
    pub(crate) fn places(&self) -> impl Iterator<Item = Target> {
        let is_here = |target: &Target| matches!(target, Target::Local(_));
        let others = self.places.iter().map(|(_, target)| *target).filter(move |target| !is_here(target));
        others.chain(self.here().map(Target::Local))
    }
}

#[cfg(test)]
mod tests;
