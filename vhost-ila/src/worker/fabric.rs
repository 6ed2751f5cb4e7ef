//! The fabric behind a vhost-user uplink (docs/decisions/0020-vhost-user-uplink.md): rings of an application, and an Ethernet link.
//!
//! What must stay true: its rings are walked, broken and published by the attachments' code, as those of the port behind all attachments;
//! what is different is here: the Ethernet header, which packets get and lose, and neighbour discovery, which ends here.

use std::time::Duration;

use nve_core::DropReason;
use nve_core::link::{ANSWER_LEN, Link, Taken};
use nve_core::packet::{ChecksumState, ETHERNET_LEN, Offload};
use nve_core::pipeline::{Origin, PortId, Rewritten, Scratch};

use super::delivery::{Outlets, Source, count_given};
use crate::device::memory::Payload;
use crate::device::net_header::{NetHeader, WireHeader};
use crate::device::ring::NoRoom;

/// Bytes of an IPv6 header.
const IPV6_LEN: usize = 40;

/// Our end of the link.
pub(super) struct Fabric {
    link: Link,
    /// A head, behind the link's header.
    frame: Box<[u8; ETHERNET_LEN + Scratch::LEN]>,
    /// When the present turn began.
    now: Duration,
}

impl Fabric {
    pub(super) fn new(link: Link) -> Self {
        Self { link, frame: Box::new([0; ETHERNET_LEN + Scratch::LEN]), now: Duration::ZERO }
    }

    /// `head` as it begins on the link; `None` while the next hop is not known.
    #[inline]
    fn framed(&mut self, head: &[u8]) -> Option<&[u8]> {
        let header = self.link.header()?;
        let (front, rest) = self.frame.split_first_chunk_mut::<ETHERNET_LEN>()?;
        *front = *header;
        rest.get_mut(..head.len())?.copy_from_slice(head);
        self.frame.get(..ETHERNET_LEN + head.len())
    }
}

/// Bytes of the IPv6 packet in a frame of `len` bytes: what is behind the packet's own length is the link's padding.
#[inline]
fn packet_len(head: &[u8], len: usize) -> usize {
    let behind = len.saturating_sub(ETHERNET_LEN);
    match head.get(ETHERNET_LEN + 4..ETHERNET_LEN + 6) {
        Some(&[high, low]) => behind.min(IPV6_LEN + usize::from(u16::from_be_bytes([high, low]))),
        _ => behind,
    }
}

impl Outlets {
    /// Starts a turn.
    #[inline]
    pub(super) fn begin(&mut self, now: Duration) {
        self.walker.begin(now);
        if let Some(fabric) = &mut self.fabric {
            fabric.now = now;
        }
    }

    /// A frame of `len` bytes from the fabric, of which these are the first: bytes of the packet behind its Ethernet header, or `None`, and
    /// all is done that comes of it.
    #[inline]
    pub(super) fn arrives(&mut self, head: &[u8], len: usize) -> Option<usize> {
        match self.fabric.as_ref()?.link.take(head) {
            Taken::Packet => Some(packet_len(head, len)),
            Taken::Discovery => {
                self.hear(head.get(..len).unwrap_or(head));
                None
            }
            Taken::Refused(reason) => {
                self.walker.dropped(Origin::Uplink, reason);
                None
            }
        }
    }

    #[cold]
    fn hear(&mut self, frame: &[u8]) {
        let Some(fabric) = &mut self.fabric else { return };
        let mut answer = [0; ANSWER_LEN];
        match fabric.link.hear(fabric.now, frame, &mut answer) {
            Ok(Some(len)) => self.say(answer.get(..len).unwrap_or_default()),
            Ok(None) => {}
            Err(reason) => self.walker.dropped(Origin::Uplink, reason),
        }
    }

    /// Asks for the next hop, where that is due.
    #[inline]
    pub(super) fn ask(&mut self) {
        let Some(fabric) = &mut self.fabric else { return };
        let mut question = [0; ANSWER_LEN];
        if let Some(len) = fabric.link.tick(fabric.now, &mut question) {
            self.say(question.get(..len).unwrap_or_default());
        }
    }

    /// How long until [`Self::ask`] may have something to do, or the gateway; `None`: until something else happens.
    pub(super) fn until_tick(&self) -> Option<Duration> {
        let link = self.fabric.as_ref().and_then(|fabric| fabric.link.until_tick(fabric.now));
        link.into_iter().chain(self.walker.until_tick()).min()
    }

    /// A receive ring of `port` runs, or none does any more.
    pub(super) fn attached(&mut self, port: PortId, now: Duration) {
        let up = self.ports.get(usize::from(port.0)).is_some_and(|port| port.receivers.is_up());
        match self.fabric.as_mut().filter(|_| port == PortId::FABRIC) {
            Some(fabric) if up => fabric.link.up(now),
            Some(fabric) => fabric.link.down(),
            None => {}
        }
    }

    /// A frame of our own to the link. One that finds no room is lost: what it asked is asked again, what it answered as well.
    #[cold]
    fn say(&mut self, frame: &[u8]) {
        // Lost as others are, where the ring breaks.
        let _ = self.write_to_fabric(0, WireHeader::PLAIN, (frame, Payload::own(&[])));
    }

    /// What stands before a packet to the next hop, where the fabric is a device with rings and the next hop is known.
    #[inline]
    pub(super) fn link_header(&self) -> Option<[u8; ETHERNET_LEN]> {
        self.fabric.as_ref()?.link.header().copied()
    }

    /// A frame to the next hop, with nothing left to finish: its first bytes, link header included, and the others.
    pub(super) fn give_framed(&mut self, origin: Origin, head: &[u8], tail: Payload<'_>) {
        match self.write_to_fabric(0, WireHeader::PLAIN, (head, tail)) {
            Ok(buffers) => {
                let rewritten = Rewritten {
                    head: 0..head.len() - ETHERNET_LEN,
                    tail: 0..tail.len(),
                    offload: Offload::NONE,
                    more: false,
                };
                if buffers > 1 {
                    self.count_given_to_fabric(0, &rewritten, buffers);
                }
                if let Some(ring) = self.ring(PortId::FABRIC.0, 0) {
                    ring.note(rewritten.len());
                }
            }
            Err(reason) => self.walker.dropped(origin, reason),
        }
    }

    /// A packet to the next hop.
    #[inline]
    pub(super) fn give_to_fabric(
        &mut self,
        (origin, flow): (Origin, impl Fn() -> u32),
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        let head = scratch.head.get(rewritten.head.clone()).unwrap_or_default();
        let spread =
            self.ports.get(usize::from(PortId::FABRIC.0)).is_some_and(|port| port.receivers.spread());
        let flow = if spread { flow() } else { 0 };
        let Some(mut fabric) = self.fabric.take() else { return };
        let given = match fabric.framed(head) {
            Some(framed) => {
                // What it takes of offloads, the core has looked at.
                let header =
                    NetHeader::for_frame(&rewritten.offload, framed, || source.behind(rewritten), false);
                self.write_to_fabric(flow, header, (framed, source.payload(rewritten)))
            }
            None if self.fabric_is_up() => Err(DropReason::NextHopUnknown),
            None => Err(DropReason::UplinkDown),
        };
        self.fabric = Some(fabric);
        match given {
            Ok(buffers) => {
                if buffers > 1 || rewritten.offload.checksum != ChecksumState::InPacket {
                    self.count_given_to_fabric(flow, rewritten, buffers);
                }
                let port = self.ports.get_mut(usize::from(PortId::FABRIC.0));
                if let Some(ring) = port.and_then(|port| port.receivers.choose(flow)) {
                    ring.note(rewritten.len());
                }
            }
            Err(reason) => self.walker.dropped(origin, reason),
        }
    }

    fn fabric_is_up(&self) -> bool {
        self.ports.get(usize::from(PortId::FABRIC.0)).is_some_and(|port| port.receivers.is_up())
    }

    /// Writes a frame to the ring of `flow`; how many buffers it took.
    #[inline]
    fn write_to_fabric(
        &mut self,
        flow: u32,
        header: WireHeader,
        (head, tail): (&[u8], Payload<'_>),
    ) -> Result<u16, DropReason> {
        let index = PortId::FABRIC.0;
        let port = self.ports.get_mut(usize::from(index)).ok_or(DropReason::UplinkDown)?;
        let ring = port.receivers.choose(flow).ok_or(DropReason::UplinkDown)?;
        match ring.queue.ring.deliver(header, head, tail) {
            Ok(buffers) => {
                ring.written += 1;
                if !port.touched {
                    port.touched = true;
                    self.touched.push(index);
                }
                Ok(buffers)
            }
            Err(NoRoom::Full) => Err(DropReason::UplinkFull),
            Err(NoRoom::Broken(fault)) => {
                let pair = ring.queue.pair;
                self.break_receive(index, pair, fault);
                Err(DropReason::UplinkDown)
            }
        }
    }

    #[cold]
    fn count_given_to_fabric(&mut self, flow: u32, rewritten: &Rewritten, buffers: u16) {
        let port = self.ports.get_mut(usize::from(PortId::FABRIC.0));
        if let Some(ring) = port.and_then(|port| port.receivers.choose(flow)) {
            count_given((&ring.queue.status, ring.queue.pair), &rewritten.offload, buffers, false);
        }
    }
}
