//! Every feature bit that is offered, one row each: the offer, the off switches, what `show` says and `docs/virtio.md` come from here.
//!
//! What must stay true: a row's test exists and drives the bit from outside; its counter is one that the control API shows (the
//! documentation's test checks both). A bit without a row is never offered.

use virtio_bindings::virtio_config::{self, VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

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
    /// The line of `[attachment.X]` that it takes to be offered, where it is not of itself.
    pub asked: Option<&'static str>,
    /// What it does here.
    pub does: &'static str,
    /// The test that drives it from outside.
    pub test: &'static str,
    /// What shows that it was used: a counter of `uses`, or another key of the answer.
    pub counter: &'static str,
}

const fn row(name: &'static str, bit: Bit) -> Feature {
    Feature { name, bit, needs: &[], switch: true, asked: None, does: "", test: "", counter: "" }
}

impl Feature {
    const fn does(mut self, does: &'static str) -> Self {
        self.does = does;
        self
    }

    const fn needs(mut self, needs: &'static [Bit]) -> Self {
        self.needs = needs;
        self
    }

    const fn always(mut self) -> Self {
        self.switch = false;
        self
    }

    const fn asked(mut self, line: &'static str) -> Self {
        (self.switch, self.asked) = (false, Some(line));
        self
    }

    const fn shown(mut self, test: &'static str, counter: &'static str) -> Self {
        self.test = test;
        self.counter = counter;
        self
    }
}

const GUEST_CSUM: &[Bit] = &[Virtio(net::VIRTIO_NET_F_GUEST_CSUM)];
const CSUM: &[Bit] = &[Virtio(net::VIRTIO_NET_F_CSUM)];
const GUEST_TSO: &[Bit] = &[Virtio(net::VIRTIO_NET_F_GUEST_TSO4), Virtio(net::VIRTIO_NET_F_GUEST_TSO6)];
const HOST_TSO: &[Bit] = &[Virtio(net::VIRTIO_NET_F_HOST_TSO4), Virtio(net::VIRTIO_NET_F_HOST_TSO6)];
const CTRL_VQ: &[Bit] = &[Virtio(net::VIRTIO_NET_F_CTRL_VQ)];

/// VIRTIO_F_RING_PACKED.
pub(super) const RING_PACKED: Bit = Virtio(virtio_config::VIRTIO_F_RING_PACKED);
/// VIRTIO_NET_F_MQ.
pub(super) const MQ: Bit = Virtio(net::VIRTIO_NET_F_MQ);
/// VHOST_USER_PROTOCOL_F_MQ.
pub(super) const PROTOCOL_MQ: Bit = Protocol(0);
/// VHOST_USER_PROTOCOL_F_LOG_SHMFD.
const LOG_SHMFD: Bit = Protocol(1);

/// The tests.
const SWITCHES: &str = "every_feature_can_be_switched_off_and_its_lack_is_made_up_for";
const CONFIGURATION: &str = "a_front_end_reads_mac_status_pairs_and_mtu_from_the_configuration_space";
const COMMANDS: &str = "a_driver_commands_by_the_control_queue_and_gets_as_many_pairs_as_it_asks_for";
const PAIRS: &str = "flows_spread_over_pairs_and_each_keeps_its_order";
const ORDER: &str = "buffers_come_back_in_the_order_they_were_made_available";
const LOG: &str = "what_is_written_is_marked_while_logging_is_on_and_only_then";
const PACKED: &str = "packed_rings_carry_what_split_rings_carry";
const PROTOCOL: &str = "protocol_features_do_what_they_promise";

/// Every bit: virtio-net's and the rings' in the order of their numbers, then vhost-user's.
pub const FEATURES: &[Feature] = &[
    row("csum", Virtio(net::VIRTIO_NET_F_CSUM))
        .does(
            "takes frames whose checksum is partial; it is completed in software where the receiver, or a destination with \
             C = 0, cannot",
        )
        .shown(SWITCHES, "partial_checksums_taken"),
    row("guest_csum", Virtio(net::VIRTIO_NET_F_GUEST_CSUM))
        .does("gives partial checksums on as they are, and those known to be right as valid")
        .shown(SWITCHES, "partial_checksums_given"),
    row("mtu", Virtio(net::VIRTIO_NET_F_MTU))
        .does("tells the guest the largest packet, in the configuration space")
        .shown(CONFIGURATION, "configuration_reads"),
    row("mac", Virtio(net::VIRTIO_NET_F_MAC))
        .does("tells the guest its MAC address, in the configuration space")
        .shown(CONFIGURATION, "configuration_reads"),
    row("guest_tso4", Virtio(net::VIRTIO_NET_F_GUEST_TSO4))
        .does("gives TCP super-packets over IPv4 on whole; without it they are segmented in software")
        .needs(GUEST_CSUM)
        .shown(SWITCHES, "tso4_given"),
    row("guest_tso6", Virtio(net::VIRTIO_NET_F_GUEST_TSO6))
        .does("the same over IPv6")
        .needs(GUEST_CSUM)
        .shown(SWITCHES, "tso6_given"),
    row("guest_ecn", Virtio(net::VIRTIO_NET_F_GUEST_ECN))
        .does("gives super-packets with CWR on whole; without it they are segmented in software")
        .needs(GUEST_TSO)
        .shown(SWITCHES, "ecn_given"),
    row("host_tso4", Virtio(net::VIRTIO_NET_F_HOST_TSO4))
        .does("takes TCP super-packets over IPv4: their headers are translated once")
        .needs(CSUM)
        .shown(SWITCHES, "tso4_taken"),
    row("host_tso6", Virtio(net::VIRTIO_NET_F_HOST_TSO6))
        .does("the same over IPv6")
        .needs(CSUM)
        .shown(SWITCHES, "tso6_taken"),
    row("host_ecn", Virtio(net::VIRTIO_NET_F_HOST_ECN))
        .does("takes super-packets with CWR")
        .needs(HOST_TSO)
        .shown(SWITCHES, "ecn_taken"),
    row("mrg_rxbuf", Virtio(net::VIRTIO_NET_F_MRG_RXBUF))
        .does("writes a frame into as many receive buffers as it takes")
        .shown(SWITCHES, "merged_frames"),
    row("status", Virtio(net::VIRTIO_NET_F_STATUS))
        .does("tells the guest that its link is up, in the configuration space")
        .shown(CONFIGURATION, "configuration_reads"),
    row("ctrl_vq", Virtio(net::VIRTIO_NET_F_CTRL_VQ))
        .does("serves the control queue where the front-end passes it on")
        .shown(COMMANDS, "control_commands"),
    row("guest_announce", Virtio(net::VIRTIO_NET_F_GUEST_ANNOUNCE))
        .does("lets the guest announce itself after a migration, where QEMU would want to send a fake RARP")
        .needs(CTRL_VQ)
        .shown(COMMANDS, "announcements_acknowledged"),
    row("mq", MQ)
        .does("serves several queue pairs: `queues` of the attachment; off with `queues = 1` as well")
        .needs(CTRL_VQ)
        .shown(PAIRS, "rings[].frames"),
    row("log_all", Virtio(26))
        .does("marks the pages that are written while the front-end migrates its guest")
        .needs(&[LOG_SHMFD])
        .shown(LOG, "pages_marked"),
    row("indirect_desc", Virtio(VIRTIO_RING_F_INDIRECT_DESC))
        .does("takes chains from a table outside the ring, no longer than the ring")
        .shown(SWITCHES, "indirect_chains"),
    row("event_idx", Virtio(VIRTIO_RING_F_EVENT_IDX))
        .does("signals, and is kicked, at the index the other side names; without it, by flags")
        .shown(SWITCHES, "rings[].signals_spared"),
    row("protocol_features", Virtio(30))
        .does("the bits of vhost-user below; rings start disabled")
        .always()
        .shown(SWITCHES, "accepted"),
    row("version_1", Virtio(VIRTIO_F_VERSION_1))
        .does("the modern device; a driver or front-end that does without it is refused by name")
        .always()
        .shown(SWITCHES, "accepted"),
    row("ring_packed", RING_PACKED)
        .does("one table of descriptors for both sides in place of three: fewer cache lines change hands for each packet")
        .asked("packed = true")
        .shown(PACKED, "accepted"),
    row("in_order", Virtio(VIRTIO_F_IN_ORDER))
        .does("promises that every ring's buffers come back in the order they were made available")
        .shown(ORDER, "rings[].frames"),
    row("guest_uso4", Virtio(net::VIRTIO_NET_F_GUEST_USO4))
        .does("gives UDP super-packets on whole, with `guest_uso6`; without both they are cut into their datagrams in software")
        .needs(GUEST_CSUM)
        .shown(SWITCHES, "uso_given"),
    row("guest_uso6", Virtio(net::VIRTIO_NET_F_GUEST_USO6))
        .does("the same, with `guest_uso4`")
        .needs(GUEST_CSUM)
        .shown(SWITCHES, "uso_given"),
    row("host_uso", Virtio(net::VIRTIO_NET_F_HOST_USO))
        .does(
            "takes UDP super-packets of either family, of up to 128 datagrams; they are cut in software where the receiver, or the \
             kernel behind a TUN (before Linux 6.2), does not take them",
        )
        .needs(CSUM)
        .shown(SWITCHES, "uso_taken"),
    row("mq", PROTOCOL_MQ)
        .does("answers how many queue pairs there are; goes with virtio-net's bit of this name")
        .needs(&[MQ])
        .always()
        .shown(PAIRS, "queue_numbers_told"),
    row("log_shmfd", LOG_SHMFD)
        .does("takes the file in which written pages are marked")
        .shown(LOG, "pages_marked"),
    row("reply_ack", Protocol(3))
        .does("answers a message when what it asks for is done, and the worker has let go of the old state")
        .always()
        .shown(PROTOCOL, "accepted_protocol"),
    row("config", Protocol(9))
        .does("serves the configuration space, read only: MAC, link status, queue pairs, MTU")
        .shown(CONFIGURATION, "configuration_reads"),
    row("reset_device", Protocol(13))
        .does("stops and forgets all rings; the memory stays")
        .shown(PROTOCOL, "device_resets"),
    row("configure_mem_slots", Protocol(15))
        .does("adds and removes single memory regions")
        .shown(PROTOCOL, "regions_changed"),
];

/// Bits that a front-end may know and that are never offered, by the names of virtio 1.3 and vhost-user: for those who accept one.
pub(super) const NEVER: &[(Bit, &str)] = &[
    (Virtio(net::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), "ctrl_guest_offloads"),
    (Virtio(net::VIRTIO_NET_F_GUEST_UFO), "guest_ufo"),
    (Virtio(net::VIRTIO_NET_F_HOST_UFO), "host_ufo"),
    (Virtio(27), "any_layout, of legacy devices"),
    (Virtio(virtio_config::VIRTIO_F_ACCESS_PLATFORM), "access_platform: a vIOMMU"),
    (Virtio(virtio_config::VIRTIO_F_ORDER_PLATFORM), "order_platform"),
    (Virtio(virtio_config::VIRTIO_F_NOTIFICATION_DATA), "notification_data"),
    (Virtio(virtio_config::VIRTIO_F_RING_RESET), "ring_reset"),
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
