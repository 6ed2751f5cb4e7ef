//! A guest's virtio-net device, or a task's TUN, as smoltcp sees it: frames in, frames out, and what is left to the other side.

use std::collections::VecDeque;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::packet::{ETHERNET_LEN, Offload};
use crate::policy::TASK_MAC;
use crate::testkit::dissect::{Dissected, protocol};
use crate::testkit::{frames, nic};

/// What a guest leaves for others to finish when it sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sends {
    /// Nothing: packets are complete.
    #[default]
    Plain,
    /// Checksums of TCP and UDP (`VIRTIO_NET_F_CSUM`).
    PartialChecksums,
    /// And TCP segmentation over IPv4 (`VIRTIO_NET_F_HOST_TSO4`).
    LargeSends,
}

/// Bytes of the largest frame a guest sends when it leaves segmentation.
const LARGEST_SEND: usize = 60_000;

/// The device: two queues and what was agreed on.
pub(in crate::testkit) struct NetDevice {
    pub(in crate::testkit) mtu: u16,
    pub(in crate::testkit) sends: Sends,
    /// What its link carries; frames have an Ethernet header here in any case, which a task's stack does not see.
    medium: Medium,
    pub(in crate::testkit) inbox: VecDeque<(Vec<u8>, Offload)>,
    pub(in crate::testkit) outbox: Vec<(Vec<u8>, Offload)>,
}

impl NetDevice {
    pub(super) fn new(mtu: u16, sends: Sends, medium: Medium) -> Self {
        Self { mtu, sends, medium, inbox: VecDeque::new(), outbox: Vec::new() }
    }

    /// Bytes that the stack does not see.
    fn hidden(&self) -> usize {
        if self.medium == Medium::Ip { ETHERNET_LEN } else { 0 }
    }

    fn room(&mut self) -> Room<'_> {
        Room { sends: self.sends, hidden: self.hidden(), outbox: &mut self.outbox, segment: None }
    }
}

pub(in crate::testkit) struct Taken {
    frame: Vec<u8>,
    hidden: usize,
}

pub(in crate::testkit) struct Room<'a> {
    sends: Sends,
    hidden: usize,
    outbox: &'a mut Vec<(Vec<u8>, Offload)>,
    segment: Option<u16>,
}

impl Device for NetDevice {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Taken, Room<'_>)> {
        let (mut frame, offload) = self.inbox.pop_front()?;
        // A guest's stack takes a partial checksum as good, and a super-packet as one. smoltcp wants to see the sum.
        if let Some(packet) = frame.get_mut(ETHERNET_LEN..) {
            nic::complete_in_place(packet, offload);
        }
        let hidden = self.hidden();
        Some((Taken { frame, hidden }, self.room()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        Some(self.room())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET_LEN - self.hidden();
        if self.sends != Sends::Plain {
            capabilities.checksum.tcp = Checksum::Rx;
            capabilities.checksum.udp = Checksum::Rx;
        }
        if self.sends == Sends::LargeSends {
            // Not over IPv6: smoltcp 0.14 asks its own stack to fragment those, which it does not do.
            capabilities.segmentation.tcpv4 = LARGEST_SEND.try_into().ok();
        }
        capabilities
    }
}

impl RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame.get(self.hidden..).unwrap_or_default())
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; self.hidden + len];
        let result = f(&mut frame[self.hidden..]);
        if self.hidden > 0 {
            // What the shell puts before a packet from a TUN.
            frame[6..12].copy_from_slice(TASK_MAC.as_bytes());
            frame[12..ETHERNET_LEN].copy_from_slice(&[0x86, 0xdd]);
        }
        let leaves = self.sends != Sends::Plain
            && Dissected::of_frame(&frame)
                .is_some_and(|ip| matches!(ip.protocol, protocol::TCP | protocol::UDP) && !ip.is_fragment());
        let offload = match (leaves, self.segment) {
            (false, _) => Offload::NONE,
            (true, None) => frames::leave_checksum(&mut frame[ETHERNET_LEN..]),
            (true, Some(size)) => frames::leave_segmentation(&mut frame[ETHERNET_LEN..], size),
        };
        self.outbox.push((frame, offload));
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(core::num::NonZeroU16::get);
    }
}
