//! What a device offers, and what a front-end accepted of it.
//!
//! What must stay true: a bit is offered only if everything it promises is carried, and accepted only if it was offered; a bit that needs
//! another is not offered without it (virtio 1.2, 5.1.3.1).
//!
//! Never offered: SEND_RARP, NET_SET_MTU, STATUS and INFLIGHT of vhost-user, which the dispatcher of the `vhost` crate does not decode or
//! which IN_ORDER makes unnecessary. Packed rings are offered where the attachment asks for them.

mod table;

use nve_core::pipeline::Receiver;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

pub use table::{FEATURES, Feature};

use super::net_header::SenderOffloads;

/// Most queue pairs of an attachment.
pub const MAX_PAIRS: u8 = 32;
/// Queue pairs of an attachment whose config does not say.
pub const DEFAULT_PAIRS: u8 = 8;

/// A feature bit and where it is negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bit {
    /// GET_FEATURES: virtio-net's, the rings', and vhost-user's own two.
    Virtio(u32),
    /// GET_PROTOCOL_FEATURES.
    Protocol(u32),
}

impl Bit {
    const fn mask(self) -> u64 {
        match self {
            Self::Virtio(bit) | Self::Protocol(bit) => 1 << bit,
        }
    }
}

/// What one attachment's device offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    virtio: u64,
    protocol: u64,
    pairs: u8,
}

impl Default for Offer {
    fn default() -> Self {
        Self::new(DEFAULT_PAIRS, &[])
    }
}

impl Offer {
    /// Everything but `without`, what is of no use without those, and what must be asked for; `pairs` queue pairs, 1..=[`MAX_PAIRS`].
    #[must_use]
    pub fn new(pairs: u8, without: &[&Feature]) -> Self {
        let pairs = pairs.clamp(1, MAX_PAIRS);
        let mut offer = Self { virtio: 0, protocol: 0, pairs };
        let withdrawn = |feature: &Feature| {
            feature.asked.is_some()
                || without.iter().any(|off| off.bit == feature.bit)
                || (pairs == 1 && feature.bit == table::MQ)
        };
        for feature in FEATURES.iter().filter(|feature| !withdrawn(feature)) {
            *offer.word(feature.bit) |= feature.bit.mask();
        }
        // Each round withdraws a bit, or is the last.
        while let Some(useless) = FEATURES.iter().find(|f| offer.has(f.bit) && !offer.is_useful(f)) {
            *offer.word(useless.bit) &= !useless.bit.mask();
        }
        if !offer.has(table::MQ) {
            offer.pairs = 1;
        }
        offer
    }

    /// This offer, and packed rings.
    #[must_use]
    pub fn with_packed_rings(mut self) -> Self {
        *self.word(table::RING_PACKED) |= table::RING_PACKED.mask();
        self
    }

    /// Whether packed rings are offered.
    #[must_use]
    pub fn packed_rings(self) -> bool {
        self.has(table::RING_PACKED)
    }

    fn word(&mut self, bit: Bit) -> &mut u64 {
        match bit {
            Bit::Virtio(_) => &mut self.virtio,
            Bit::Protocol(_) => &mut self.protocol,
        }
    }

    fn is_useful(self, feature: &Feature) -> bool {
        feature.needs.is_empty() || feature.needs.iter().any(|bit| self.has(*bit))
    }

    /// Whether `bit` is offered.
    #[must_use]
    pub fn has(self, bit: Bit) -> bool {
        let word = match bit {
            Bit::Virtio(_) => self.virtio,
            Bit::Protocol(_) => self.protocol,
        };
        word & bit.mask() != 0
    }

    /// What GET_FEATURES answers.
    #[must_use]
    pub fn virtio(self) -> u64 {
        self.virtio
    }

    /// What GET_PROTOCOL_FEATURES answers. The `vhost` crate adds REPLY_ACK whatever we say, and carries it.
    #[must_use]
    pub fn protocol(self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::from_bits_truncate(self.protocol)
    }

    /// Queue pairs.
    #[must_use]
    pub fn pairs(self) -> u8 {
        self.pairs
    }
}

/// The names of the bits set in `virtio` and `protocol`, virtio's first.
pub fn names(virtio: u64, protocol: u64) -> (Vec<&'static str>, Vec<&'static str>) {
    let set = Offer { virtio, protocol, pairs: 1 };
    let (of_virtio, of_protocol): (Vec<&Feature>, Vec<&Feature>) = FEATURES
        .iter()
        .filter(|feature| set.has(feature.bit))
        .partition(|feature| matches!(feature.bit, Bit::Virtio(_)));
    let name = |features: Vec<&Feature>| features.iter().map(|feature| feature.name).collect();
    (name(of_virtio), name(of_protocol))
}

/// Why a front-end's choice of features was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAccepted {
    /// Bits of SET_FEATURES that were not offered.
    #[error("SET_FEATURES with {}, not offered", listed(*.0, Bit::Virtio))]
    Virtio(u64),
    /// VIRTIO_F_VERSION_1 is missing.
    #[error("SET_FEATURES without version_1 (bit 32): legacy drivers are not served")]
    Legacy,
    /// Bits of SET_PROTOCOL_FEATURES that were not offered.
    #[error("SET_PROTOCOL_FEATURES with {}, not offered", listed(*.0, Bit::Protocol))]
    Protocol(u64),
}

/// The names of all bits of `mask`, offered by somebody or not.
fn listed(mask: u64, kind: fn(u32) -> Bit) -> String {
    let name = |bit: Bit| {
        let offered = FEATURES.iter().find(|feature| feature.bit == bit).map(|feature| feature.name);
        offered.or_else(|| table::NEVER.iter().find(|(never, _)| *never == bit).map(|(_, name)| *name))
    };
    let set = (0..u64::BITS).filter(|number| mask & 1 << number != 0);
    let named =
        set.map(|number| format!("{} (bit {number})", name(kind(number)).unwrap_or("an unknown feature")));
    named.collect::<Vec<_>>().join(", ")
}

/// The features that both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Accepted(u64);

impl Accepted {
    /// What a front-end accepts of `offer`.
    ///
    /// # Errors
    /// A bit was not in `offer`, or VIRTIO_F_VERSION_1 is missing: a legacy driver's rings and header are others.
    pub fn new(bits: u64, offer: Offer) -> Result<Self, NotAccepted> {
        match bits & !offer.virtio {
            0 if bits & 1 << VIRTIO_F_VERSION_1 == 0 => Err(NotAccepted::Legacy),
            0 => Ok(Self(bits)),
            surplus => Err(NotAccepted::Virtio(surplus)),
        }
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }

    /// VHOST_USER_F_PROTOCOL_FEATURES: rings start disabled.
    #[must_use]
    pub fn protocol(self) -> bool {
        self.0 & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0
    }

    /// VHOST_F_LOG_ALL: the front-end migrates its guest and wants to know what we write. It is no feature of the guest's.
    #[must_use]
    pub fn log_all(self) -> bool {
        self.0 & VhostUserVirtioFeatures::LOG_ALL.bits() != 0
    }

    /// VIRTIO_F_EVENT_IDX.
    #[must_use]
    pub fn event_idx(self) -> bool {
        self.has(VIRTIO_RING_F_EVENT_IDX)
    }

    /// VIRTIO_F_RING_PACKED.
    #[must_use]
    pub fn packed(self) -> bool {
        self.has(VIRTIO_F_RING_PACKED)
    }

    /// What GET_VRING_BASE answers of a ring that has not carried anything: index 0, and in packed rings wrap counters of 1 (vhost-user,
    /// "A vring state description": bits 15 and 31).
    #[must_use]
    pub fn first_base(self) -> u32 {
        if self.packed() { 0x8000_8000 } else { 0 }
    }

    /// VIRTIO_F_IN_ORDER.
    #[must_use]
    pub fn in_order(self) -> bool {
        self.has(VIRTIO_F_IN_ORDER)
    }

    /// VIRTIO_F_INDIRECT_DESC.
    #[must_use]
    pub fn indirect(self) -> bool {
        self.has(VIRTIO_RING_F_INDIRECT_DESC)
    }

    /// VIRTIO_NET_F_MRG_RXBUF.
    #[must_use]
    pub fn mergeable(self) -> bool {
        self.has(net::VIRTIO_NET_F_MRG_RXBUF)
    }

    /// VIRTIO_NET_F_MQ.
    #[must_use]
    pub fn multiqueue(self) -> bool {
        self.has(net::VIRTIO_NET_F_MQ)
    }

    /// VIRTIO_NET_F_CTRL_VQ.
    #[must_use]
    pub fn control_queue(self) -> bool {
        self.has(net::VIRTIO_NET_F_CTRL_VQ)
    }

    /// VIRTIO_NET_F_GUEST_ANNOUNCE.
    #[must_use]
    pub fn guest_announce(self) -> bool {
        self.has(net::VIRTIO_NET_F_GUEST_ANNOUNCE)
    }

    /// What the guest may leave to us.
    #[must_use]
    pub fn sender(self) -> SenderOffloads {
        SenderOffloads {
            csum: self.has(net::VIRTIO_NET_F_CSUM),
            tso4: self.has(net::VIRTIO_NET_F_HOST_TSO4),
            tso6: self.has(net::VIRTIO_NET_F_HOST_TSO6),
            ecn: self.has(net::VIRTIO_NET_F_HOST_ECN),
            uso: self.has(net::VIRTIO_NET_F_HOST_USO),
        }
    }

    /// What the guest can finish itself; `up`: a receive ring of it runs.
    #[must_use]
    pub fn receiver(self, up: bool) -> Receiver {
        Receiver {
            up,
            csum: self.has(net::VIRTIO_NET_F_GUEST_CSUM),
            tso4: self.has(net::VIRTIO_NET_F_GUEST_TSO4),
            tso6: self.has(net::VIRTIO_NET_F_GUEST_TSO6),
            ecn: self.has(net::VIRTIO_NET_F_GUEST_ECN),
            // A UDP super-packet does not say of which family it is, and drivers take both.
            uso: self.has(net::VIRTIO_NET_F_GUEST_USO4) && self.has(net::VIRTIO_NET_F_GUEST_USO6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(names: &[&str], pairs: u8) -> Offer {
        let off: Vec<_> = FEATURES.iter().filter(|f| f.switch && names.contains(&f.name)).collect();
        assert_eq!(off.len(), names.len(), "known names");
        Offer::new(pairs, &off)
    }

    #[test]
    fn a_feature_that_was_not_offered_cannot_be_accepted() {
        let packed = Offer::default().with_packed_rings();
        assert!(packed.packed_rings() && !Offer::default().packed_rings());
        for offer in [Offer::default(), without(&["host_tso4", "mrg_rxbuf"], 4), packed] {
            assert!(Accepted::new(offer.virtio(), offer).is_ok());
            for bit in 0..64 {
                assert_eq!(
                    Accepted::new(1 << VIRTIO_F_VERSION_1 | 1 << bit, offer).is_ok(),
                    offer.has(Bit::Virtio(bit)),
                    "bit {bit}"
                );
            }
        }
    }

    #[test]
    fn what_needs_a_withdrawn_feature_is_withdrawn_with_it() {
        let offer = without(&["csum"], 8);
        for bit in [net::VIRTIO_NET_F_HOST_TSO4, net::VIRTIO_NET_F_HOST_TSO6, net::VIRTIO_NET_F_HOST_ECN] {
            assert!(!offer.has(Bit::Virtio(bit)), "bit {bit}");
        }
        assert!(offer.has(Bit::Virtio(net::VIRTIO_NET_F_GUEST_ECN)), "the other direction stays");
        let one_left = without(&["guest_tso4"], 8);
        assert!(one_left.has(Bit::Virtio(net::VIRTIO_NET_F_GUEST_ECN)), "TSO6 is enough for ECN");
        let none_left = without(&["guest_tso4", "guest_tso6"], 8);
        assert!(!none_left.has(Bit::Virtio(net::VIRTIO_NET_F_GUEST_ECN)));
    }

    #[test]
    fn one_pair_is_offered_without_mq_and_mq_not_without_a_control_queue() {
        for offer in [without(&[], 1), without(&["ctrl_vq"], 8), without(&["mq"], 8)] {
            assert!(!offer.has(table::MQ) && !offer.has(table::PROTOCOL_MQ));
            assert_eq!(offer.pairs(), 1);
        }
        assert_eq!(Offer::default().pairs(), DEFAULT_PAIRS);
        assert!(Offer::default().protocol().contains(VhostUserProtocolFeatures::MQ));
    }

    #[test]
    fn every_bit_has_one_row_and_every_switch_one_name() {
        for (i, feature) in FEATURES.iter().enumerate() {
            let later = &FEATURES[i + 1..];
            assert!(later.iter().all(|other| other.bit != feature.bit), "{feature:?}");
            assert!(!feature.switch || later.iter().all(|other| other.name != feature.name || !other.switch));
        }
    }

    #[test]
    fn a_refusal_names_each_feature() {
        let refusal = |bits| Accepted::new(bits, without(&["csum"], 8)).unwrap_err().to_string();
        assert_eq!(refusal(1), "SET_FEATURES with csum (bit 0), not offered");
        assert_eq!(
            refusal(1 << 33 | 1 << 34),
            "SET_FEATURES with access_platform: a vIOMMU (bit 33), ring_packed (bit 34), not offered"
        );
        assert_eq!(refusal(1 << 63), "SET_FEATURES with an unknown feature (bit 63), not offered");
        assert_eq!(refusal(0), "SET_FEATURES without version_1 (bit 32): legacy drivers are not served");
        let protocol = NotAccepted::Protocol(1 << 2 | 1 << 3).to_string();
        assert_eq!(protocol, "SET_PROTOCOL_FEATURES with rarp (bit 2), reply_ack (bit 3), not offered");
    }
}
