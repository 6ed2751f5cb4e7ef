//! Every feature bit that is offered, one row each: the offer, the off switches, what `show` says and `docs/virtio.md` come from here.
//!
//! What must stay true: a row's test exists and drives the bit from outside; its counter is one of [`crate::device::status`]'s (the
//! documentation's test checks both). A bit without a row is never offered.

use virtio_bindings::{virtio_config, virtio_net as net, virtio_ring};

use super::Bit::{self, Protocol, Virtio};

/// One feature bit.
#[derive(Debug)]
pub struct Feature {
    /// Its name in lower case, without `VIRTIO_NET_F_` and the like.
    pub name: &'static str,
    /// Where it is negotiated.
    pub bit: Bit,
    /// It is of no use without one of these (virtio 1.2, 5.1.3.1), and withdrawn with the last of them.
    pub needs: &'static [Bit],
    /// `[attachment.X] without` may name it.
    pub switch: bool,
    /// What it does here.
    pub does: &'static str,
    /// The test that drives it from outside.
    pub test: &'static str,
    /// What shows that it was used: a key of `uses`, or of another part of the answer.
    pub counter: &'static str,
}

const fn row(name: &'static str, bit: Bit, does: &'static str) -> Feature {
    Feature { name, bit, needs: &[], switch: true, does, test: "", counter: "" }
}

const fn net_row(name: &'static str, bit: u32, does: &'static str) -> Feature {
    row(name, Virtio(bit), does)
}

impl Feature {
    const fn needs(mut self, needs: &'static [Bit]) -> Self {
        self.needs = needs;
        self
    }

    const fn always(mut self) -> Self {
        self.switch = false;
        self
    }

    const fn shown(mut self, test: &'static str, counter: &'static str) -> Self {
        self.test = test;
        self.counter = counter;
        self
    }
}

const CSUM: Bit = Virtio(net::VIRTIO_NET_F_CSUM);
const GUEST_CSUM: Bit = Virtio(net::VIRTIO_NET_F_GUEST_CSUM);
const HOST_TSO: &[Bit] = &[Virtio(net::VIRTIO_NET_F_HOST_TSO4), Virtio(net::VIRTIO_NET_F_HOST_TSO6)];
const GUEST_TSO: &[Bit] = &[Virtio(net::VIRTIO_NET_F_GUEST_TSO4), Virtio(net::VIRTIO_NET_F_GUEST_TSO6)];
const CTRL_VQ: &[Bit] = &[Virtio(net::VIRTIO_NET_F_CTRL_VQ)];

const LOG_SHMFD: Bit = Protocol(1);

/// Protocol feature 0, VHOST_USER_PROTOCOL_F_MQ.
pub(super) const PROTOCOL_MQ: Bit = Protocol(0);
/// VIRTIO_NET_F_MQ.
pub(super) const MQ: Bit = Virtio(net::VIRTIO_NET_F_MQ);

/// Every bit, virtio-net's first, then the rings', then vhost-user's.
pub const FEATURES: &[Feature] = &[
    net_row("csum", net::VIRTIO_NET_F_CSUM, "takes frames whose checksum is partial; it is finished in software where the receiver, or a destination with C = 0, cannot")
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "partial_checksums_taken"),
    net_row("guest_csum", net::VIRTIO_NET_F_GUEST_CSUM, "gives partial and verified checksums on as they are")
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "partial_checksums_given"),
    net_row("mtu", net::VIRTIO_NET_F_MTU, "tells the guest the largest packet in its configuration space")
        .shown("a_front_end_reads_mac_and_mtu_from_the_configuration_space", "configuration_reads"),
    net_row("mac", net::VIRTIO_NET_F_MAC, "tells the guest its MAC address in its configuration space")
        .shown("a_front_end_reads_mac_and_mtu_from_the_configuration_space", "configuration_reads"),
    net_row("guest_tso4", net::VIRTIO_NET_F_GUEST_TSO4, "gives TCP super-packets over IPv4 on whole; without it they are segmented in software")
        .needs(&[GUEST_CSUM])
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "tso4_given"),
    net_row("guest_tso6", net::VIRTIO_NET_F_GUEST_TSO6, "the same over IPv6")
        .needs(&[GUEST_CSUM])
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "tso6_given"),
    net_row("guest_ecn", net::VIRTIO_NET_F_GUEST_ECN, "gives super-packets with CWR on whole")
        .needs(GUEST_TSO)
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "ecn_given"),
    net_row("host_tso4", net::VIRTIO_NET_F_HOST_TSO4, "takes TCP super-packets over IPv4: their headers are translated once")
        .needs(&[CSUM])
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "tso4_taken"),
    net_row("host_tso6", net::VIRTIO_NET_F_HOST_TSO6, "the same over IPv6")
        .needs(&[CSUM])
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "tso6_taken"),
    net_row("host_ecn", net::VIRTIO_NET_F_HOST_ECN, "takes super-packets with CWR")
        .needs(HOST_TSO)
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "ecn_taken"),
    net_row("mrg_rxbuf", net::VIRTIO_NET_F_MRG_RXBUF, "writes a frame into as many receive buffers as it takes")
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "merged_buffers"),
    net_row("status", net::VIRTIO_NET_F_STATUS, "tells the guest that its link is up in its configuration space")
        .shown("a_front_end_reads_mac_and_mtu_from_the_configuration_space", "configuration_reads"),
    net_row("ctrl_vq", net::VIRTIO_NET_F_CTRL_VQ, "serves the control queue of front-ends that pass it on; QEMU, cloud-hypervisor and DPDK serve it themselves")
        .shown("the_control_queue_sets_pairs_and_refuses_what_it_does_not_know", "control_commands"),
    net_row("guest_announce", net::VIRTIO_NET_F_GUEST_ANNOUNCE, "lets the guest announce itself after a migration, where QEMU would send a fake RARP")
        .needs(CTRL_VQ)
        .shown("the_control_queue_sets_pairs_and_refuses_what_it_does_not_know", "announcements_acknowledged"),
    net_row("mq", net::VIRTIO_NET_F_MQ, "serves several queue pairs: `queues` of the attachment; off with `queues = 1`")
        .needs(CTRL_VQ)
        .shown("flows_spread_over_the_enabled_pairs_and_each_keeps_its_order", "rings[].frames"),
    net_row("indirect_desc", virtio_ring::VIRTIO_RING_F_INDIRECT_DESC, "takes chains from a table outside the ring")
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "indirect_chains"),
    net_row("event_idx", virtio_ring::VIRTIO_RING_F_EVENT_IDX, "signals and is kicked at the index the other side names; without it, by flags")
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "rings[].signals_spared"),
    net_row("version_1", virtio_config::VIRTIO_F_VERSION_1, "the modern device; a driver or front-end that does without it is refused by name")
        .always()
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "accepted"),
    net_row("in_order", virtio_config::VIRTIO_F_IN_ORDER, "promises that buffers come back in the order they were made available")
        .shown("buffers_come_back_in_the_order_they_were_made_available", "rings[].frames"),
    net_row("log_all", 26, "VHOST_F_LOG_ALL: marks the pages that are written while the front-end migrates its guest")
        .needs(&[LOG_SHMFD])
        .shown("everything_that_is_written_while_logging_is_marked", "pages_marked"),
    net_row("protocol_features", 30, "VHOST_USER_F_PROTOCOL_FEATURES: the bits below; rings start disabled")
        .always()
        .shown("every_feature_can_be_switched_off_and_its_lack_is_made_up_for", "accepted_protocol"),
    row("mq", PROTOCOL_MQ, "answers how many queue pairs there are; goes with the virtio-net bit")
        .needs(&[MQ])
        .always()
        .shown("flows_spread_over_the_enabled_pairs_and_each_keeps_its_order", "queue_numbers_told"),
    row("log_shmfd", LOG_SHMFD, "takes the file in which written pages are marked")
        .shown("everything_that_is_written_while_logging_is_marked", "pages_marked"),
    row("reply_ack", Protocol(3), "answers a message when what it asks for is done, and the worker has let go of the old state")
        .always()
        .shown("protocol_features_do_what_they_promise", "accepted_protocol"),
    row("config", Protocol(9), "serves the configuration space: MAC, link status, queue pairs, MTU; read only")
        .shown("protocol_features_do_what_they_promise", "configuration_reads"),
    row("reset_device", Protocol(13), "stops and forgets all rings; memory stays")
        .shown("protocol_features_do_what_they_promise", "device_resets"),
    row("configure_mem_slots", Protocol(15), "adds and removes single memory regions")
        .shown("protocol_features_do_what_they_promise", "regions_changed"),
];

/// Bits that a front-end may know and that are never offered, by the names of virtio 1.3 and vhost-user: for those who accept one.
pub(super) const NEVER: &[(Bit, &str)] = &[
    (Virtio(net::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), "ctrl_guest_offloads"),
    (Virtio(net::VIRTIO_NET_F_GUEST_UFO), "guest_ufo"),
    (Virtio(net::VIRTIO_NET_F_HOST_UFO), "host_ufo"),
    (Virtio(27), "any_layout, of legacy devices"),
    (Virtio(virtio_config::VIRTIO_F_ACCESS_PLATFORM), "access_platform: a vIOMMU"),
    (Virtio(virtio_config::VIRTIO_F_RING_PACKED), "ring_packed"),
    (Virtio(virtio_config::VIRTIO_F_ORDER_PLATFORM), "order_platform"),
    (Virtio(virtio_config::VIRTIO_F_NOTIFICATION_DATA), "notification_data"),
    (Virtio(virtio_config::VIRTIO_F_RING_RESET), "ring_reset"),
    (Virtio(net::VIRTIO_NET_F_GUEST_USO4), "guest_uso4"),
    (Virtio(net::VIRTIO_NET_F_GUEST_USO6), "guest_uso6"),
    (Virtio(net::VIRTIO_NET_F_HOST_USO), "host_uso"),
    (Virtio(net::VIRTIO_NET_F_HASH_REPORT), "hash_report"),
    (Virtio(net::VIRTIO_NET_F_RSS), "rss"),
    (Protocol(2), "rarp"),
    (Protocol(4), "net_mtu"),
    (Protocol(5), "backend_req"),
    (Protocol(6), "cross_endian"),
    (Protocol(8), "pagefault"),
    (Protocol(10), "backend_send_fd"),
    (Protocol(11), "host_notifier"),
    (Protocol(12), "inflight_shmfd"),
    (Protocol(14), "inband_notifications"),
    (Protocol(16), "status"),
    (Protocol(19), "device_state"),
];
