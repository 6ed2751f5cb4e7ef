//! What a device offers, and what a front-end accepted of it.
//!
//! What must stay true: a bit is offered only if everything it promises is carried, and accepted only if it was offered.

use nve_core::pipeline::Receiver;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::net_header::{LEGACY_LEN, LEN, SenderOffloads};

/// virtio-net and ring features (virtio 1.2, 5.1.3 and 6), one bit each.
///
/// Not offered, because not carried: control queue, several queue pairs, guest announce, USO, packed rings and in-order.
pub const OFFERED: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << net::VIRTIO_NET_F_MAC
    | 1 << net::VIRTIO_NET_F_MTU
    | 1 << net::VIRTIO_NET_F_STATUS
    | 1 << net::VIRTIO_NET_F_MRG_RXBUF
    | 1 << net::VIRTIO_NET_F_CSUM
    | 1 << net::VIRTIO_NET_F_GUEST_CSUM
    | 1 << net::VIRTIO_NET_F_HOST_TSO4
    | 1 << net::VIRTIO_NET_F_HOST_TSO6
    | 1 << net::VIRTIO_NET_F_HOST_ECN
    | 1 << net::VIRTIO_NET_F_GUEST_TSO4
    | 1 << net::VIRTIO_NET_F_GUEST_TSO6
    | 1 << net::VIRTIO_NET_F_GUEST_ECN
    | VhostUserVirtioFeatures::LOG_ALL.bits()
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// vhost-user protocol features. The `vhost` crate adds REPLY_ACK whatever we say, and carries it.
pub const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::REPLY_ACK
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::LOG_SHMFD);

/// The features both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Accepted(u64);

impl Accepted {
    /// None if a bit was never offered.
    #[must_use]
    pub fn new(bits: u64) -> Option<Self> {
        (bits & !OFFERED == 0).then_some(Self(bits))
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

    /// Bytes of the virtio-net header (5.1.6.1): short only for a legacy driver without mergeable buffers.
    #[must_use]
    pub fn header_len(self) -> usize {
        if self.has(VIRTIO_F_VERSION_1) || self.mergeable() { LEN } else { LEGACY_LEN }
    }

    /// What the guest may leave to us.
    #[must_use]
    pub fn sender(self) -> SenderOffloads {
        SenderOffloads {
            csum: self.has(net::VIRTIO_NET_F_CSUM),
            tso4: self.has(net::VIRTIO_NET_F_HOST_TSO4),
            tso6: self.has(net::VIRTIO_NET_F_HOST_TSO6),
            ecn: self.has(net::VIRTIO_NET_F_HOST_ECN),
            uso: false,
        }
    }

    /// What the guest can finish itself; `up`: its receive ring runs.
    #[must_use]
    pub fn receiver(self, up: bool) -> Receiver {
        Receiver {
            up,
            csum: self.has(net::VIRTIO_NET_F_GUEST_CSUM),
            tso4: self.has(net::VIRTIO_NET_F_GUEST_TSO4),
            tso6: self.has(net::VIRTIO_NET_F_GUEST_TSO6),
            ecn: self.has(net::VIRTIO_NET_F_GUEST_ECN),
            uso: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_was_not_offered_cannot_be_accepted() {
        assert!(Accepted::new(OFFERED).is_some());
        for bit in 0..64 {
            assert_eq!(Accepted::new(1 << bit).is_some(), OFFERED & 1 << bit != 0, "bit {bit}");
        }
    }

    #[test]
    fn the_header_is_short_only_for_a_legacy_driver() {
        let header_len = |bits| Accepted::new(bits).unwrap().header_len();
        assert_eq!(header_len(0), 10);
        assert_eq!(header_len(1 << net::VIRTIO_NET_F_MRG_RXBUF), 12);
        assert_eq!(header_len(1 << VIRTIO_F_VERSION_1), 12);
    }
}
