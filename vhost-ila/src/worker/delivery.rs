//! One frame to one place, as the core decided; what went wrong is told to the core, which counts it by name.

use nve_core::DropReason;
use nve_core::packet::{ChecksumState, ETHERNET_LEN, Frame, GsoKind, HEAD_LEN, Offload};
use nve_core::pipeline::{Desk, Fate, Nve, Origin, PortId, Question, Rewritten, Scratch, Walker};
use std::io;
use std::sync::Arc;

use super::Ways;
use super::counters::WorkerCounters;
use super::fabric::Fabric;
use super::homes::Homes;
use super::receivers::{Receivers, Receiving};
use super::run::Towards;
use super::task::TaskNic;
use super::toll::Tolls;
use crate::device::cpu;
use crate::device::event::Notifier;
use crate::device::handover::{Events, Role};
use crate::device::memory::Payload;
use crate::device::net_header::{LEN, NetHeader};
use crate::device::ring::{Chains, NoRoom, RingFault};
use crate::device::status::{RingStatus, Status};
use crate::punt::WorkerEnd;
use crate::uplink::Uplink;

/// Where frames to one attachment go.
#[derive(Default, Debug)]
pub(super) struct Port {
    pub(super) receivers: Receivers,
    /// The NIC of a host task, which has no rings.
    pub(super) task: Option<Box<TaskNic>>,
    /// One of its rings has something to publish.
    pub(super) touched: bool,
    /// Its rings are ours for this batch; else, where there are several workers, it has none here.
    pub(super) borrowed: bool,
}

/// Where the untouched part of a frame lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// A chain of a guest, or of the fabric; the frame, or the packet, begins `front` bytes into it. `taken` is what was copied of it.
    Chain { chains: &'a Chains, index: usize, front: usize, taken: &'a [u8; LEN + HEAD_LEN] },
    /// The whole frame, in memory of ours.
    Own(&'a [u8]),
}

impl<'a> Source<'a> {
    #[inline]
    pub(super) fn payload(&self, rewritten: &Rewritten) -> Payload<'a> {
        let tail = &rewritten.tail;
        match *self {
            // What was copied, and looked at, is not read again: the guest may have written something else there since.
            Self::Chain { chains, index, front, taken } => {
                chains.payload(index, taken, front + tail.start..front + tail.end)
            }
            Self::Own(bytes) => Payload::own(bytes.get(tail.clone()).unwrap_or_default()),
        }
    }

    /// The first bytes of [`Self::payload`], those that were copied and looked at.
    pub(super) fn behind(&self, rewritten: &Rewritten) -> &'a [u8] {
        let start = rewritten.tail.start;
        match *self {
            Self::Chain { front, taken, .. } => taken.get(front + start..),
            Self::Own(bytes) => bytes.get(start..),
        }
        .unwrap_or_default()
    }

    /// Copies the whole frame to the start of `to`; how many bytes there were.
    pub(super) fn linearise(&self, to: &mut [u8]) -> usize {
        match *self {
            Self::Chain { chains, index, front, .. } => chains.copy(index, front, to),
            Self::Own(bytes) => {
                let len = bytes.len().min(to.len());
                to[..len].copy_from_slice(&bytes[..len]);
                len
            }
        }
    }
}

/// Everything a frame can go to.
pub(super) struct Outlets {
    pub(super) nve: Arc<Nve>,
    pub(super) walker: Walker,
    /// By port number; grows when an attachment's first ring starts.
    pub(super) ports: Vec<Port>,
    /// Ports that this turn wrote to.
    pub(super) touched: Vec<u16>,
    /// Where the rings are that other workers write to, too.
    pub(super) homes: Homes,
    /// Ports whose rings are ours for this batch, and go back there.
    pub(super) borrowed: Vec<u16>,
    pub(super) uplink: Box<dyn Uplink>,
    /// The fabric, where the uplink is a device with rings.
    pub(super) fabric: Option<Box<Fabric>>,
    /// The gateway's TUN, where this host is one: packets from outside.
    pub(super) outside: Option<Box<dyn Uplink>>,
    /// What tasks made of the packets they were given.
    pub(super) tolls: Tolls,
    /// The way to the slow path and back.
    pub(super) punts: WorkerEnd,
    pub(super) notifier: Notifier,
    pub(super) counters: Arc<WorkerCounters>,
}

impl Outlets {
    pub(super) fn new(
        nve: Arc<Nve>,
        (index, workers): (u16, u16),
        Ways { uplink, link, outside }: Ways,
        homes: Homes,
        (punts, notifier): (WorkerEnd, Notifier),
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let walker = Walker::among(Arc::clone(&nve), index, workers);
        // Others may start the rings of any port.
        let shared = homes.count();
        Self {
            nve,
            walker,
            ports: (0..shared).map(|_| Port::default()).collect(),
            touched: Vec::with_capacity(shared),
            homes,
            borrowed: Vec::with_capacity(shared),
            uplink,
            fabric: link.map(|link| Box::new(Fabric::new(link))),
            outside,
            tolls: Tolls::default(),
            punts,
            notifier,
            counters,
        }
    }

    /// Makes room for `port`, so that nothing grows on the data path.
    pub(super) fn admit(&mut self, port: PortId) -> &mut Port {
        let index = usize::from(port.0);
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, Port::default);
            self.touched.reserve(self.ports.len());
        }
        &mut self.ports[index]
    }

    /// The attachment that a frame with this fate goes to.
    #[inline]
    fn receiver(&mut self, origin: Origin, fate: &Fate) -> Option<(u16, &mut Port)> {
        let port = match (fate, origin) {
            (Fate::Local(port, _), _) => *port,
            (Fate::Reply(..), Origin::Port(port)) => port,
            (Fate::Uplink(_), _) if self.fabric.is_some() => PortId::FABRIC,
            _ => return None,
        };
        Some((port.0, self.ports.get_mut(usize::from(port.0))?))
    }

    /// The flow of `frame`, where its receiver has several rings; for frames whose question is gone.
    pub(super) fn flow(&mut self, origin: Origin, fate: &Fate, frame: &Frame<'_>) -> u32 {
        if let Some((index, _)) = self.receiver(origin, fate).filter(|(_, port)| !port.receivers.is_up()) {
            self.take(index);
        }
        match self.receiver(origin, fate) {
            Some((_, port)) if port.receivers.spread() => {
                let mut question = Question::default();
                self.walker.classify(origin, frame, &mut question);
                question.flow(frame)
            }
            _ => 0,
        }
    }

    /// Whether flows to the attachment of this number go to several rings.
    #[inline]
    pub(super) fn spread(&mut self, index: u16) -> bool {
        let Some(port) = self.ports.get(usize::from(index)) else { return false };
        if !port.receivers.is_up() {
            return self.spread_elsewhere(index);
        }
        port.receivers.spread()
    }

    /// The same of one whose rings another worker may have: those are waited for when there is a frame for them, not before.
    #[cold]
    fn spread_elsewhere(&mut self, index: u16) -> bool {
        self.take_if_free(index) && self.ports.get(usize::from(index)).is_some_and(|p| p.receivers.spread())
    }

    /// The place of the ring of `flow` there.
    #[inline]
    pub(super) fn place(&self, index: u16, flow: u32) -> usize {
        self.ports.get(usize::from(index)).map_or(0, |port| port.receivers.place(flow))
    }

    /// Asks for our own state of these rings.
    #[inline]
    pub(super) fn fetch(&self, towards: Towards) {
        let Some(port) = self.ports.get(usize::from(towards.port)) else { return };
        towards.places().for_each(|place| port.receivers.fetch(place));
    }

    /// Frames to this ring may be coming: [`Self::look`] and [`Self::prepare`] follow.
    #[inline]
    pub(super) fn expect(&mut self, index: u16, place: usize) {
        let ring = self.ports.get_mut(usize::from(index)).and_then(|port| port.receivers.at(place));
        if let Some(ring) = ring {
            ring.queue.ring.expect();
        }
    }

    /// The same, for what [`Self::publish`] writes, where that has left the cache.
    #[inline]
    pub(super) fn expect_to_publish(&mut self, index: u16, place: usize) {
        if let Some(ring) = self.ring(index, place) {
            ring.queue.ring.expect_to_publish();
            ring.queue.status.expect(Role::Receive(ring.queue.pair));
        }
    }

    /// The ring at this place, of those that frames to the attachment of this number go to.
    #[inline]
    pub(super) fn ring(&mut self, index: u16, place: usize) -> Option<&mut Receiving> {
        self.ports.get_mut(usize::from(index))?.receivers.at(place)
    }

    /// So many frames, of so many bytes in all, were written to it.
    #[inline]
    pub(super) fn wrote(&mut self, (index, place): (u16, usize), frames: u16, bytes: usize) {
        let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
        let Some(ring) = port.receivers.at(place).filter(|_| frames > 0) else { return };
        ring.written += frames;
        ring.given.0 += u64::from(frames);
        ring.given.1 += bytes as u64;
        if !port.touched {
            port.touched = true;
            self.touched.push(index);
        }
    }

    /// Finds the buffers that so many frames to it would need.
    #[inline]
    pub(super) fn look(&mut self, index: u16, place: usize, frames: usize) {
        let ring = self.ports.get_mut(usize::from(index)).and_then(|port| port.receivers.at(place));
        if let Some(ring) = ring {
            ring.queue.ring.look(frames);
        }
    }

    /// Fetches the buffers that so many frames to a ring, those that it was not given yet included, will need.
    #[inline]
    pub(super) fn prepare(&mut self, index: u16, place: usize, frames: usize) {
        let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
        let Some(ring) = port.receivers.at(place) else { return };
        if let Err(fault) = ring.queue.ring.prepare(frames) {
            let pair = ring.queue.pair;
            self.break_receive(index, pair, fault);
        }
    }

    /// Carries out a fate that needs nothing more than a copy; `flow` is asked where the receiver has several rings.
    #[inline(always)]
    pub(super) fn perform(
        &mut self,
        origin: Origin,
        fate: &Fate,
        flow: impl Fn() -> u32,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        match fate {
            Fate::Local(port, rewritten) => {
                self.give_to_port(origin, (*port, flow), rewritten, scratch, source);
            }
            fate => self.perform_other(origin, fate, flow, scratch, source),
        }
    }

    #[inline(never)]
    fn perform_other(
        &mut self,
        origin: Origin,
        fate: &Fate,
        flow: impl Fn() -> u32,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        match fate {
            Fate::Local(..) => {}
            Fate::Uplink(rewritten) => self.give_to_uplink((origin, flow), rewritten, scratch, source),
            Fate::Reply(rewritten, _) => match origin {
                Origin::Port(port) => self.give_back_to_port((port, flow), rewritten, scratch, source),
                Origin::Uplink => self.give_to_uplink((origin, flow), rewritten, scratch, source),
                Origin::Outside => self.give_to_outside(rewritten, scratch, source),
            },
            // Counted by the core; asked for again by `again.rs`; punted where the frame is whole.
            Fate::Drop(_) | Fate::Again(_) | Fate::Punt(_) => {}
        }
    }

    /// Hands a whole frame to the slow path.
    #[cold]
    pub(super) fn punt(&mut self, origin: Origin, desk: Desk, frame: &Frame<'_>) {
        let punted = match origin {
            Origin::Port(port) => self.punts.punt(port, desk, frame.head),
            // The gateway serves attachments only.
            Origin::Uplink | Origin::Outside => Err(DropReason::NotOurs),
        };
        if let Err(reason) = punted {
            self.walker.dropped(origin, reason);
        }
    }

    /// An answer to whoever asked.
    #[cold]
    fn give_back_to_port(
        &mut self,
        (port, flow): (PortId, impl Fn() -> u32),
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        self.give_to_port(Origin::Port(port), (port, flow), rewritten, scratch, source);
    }

    #[inline(always)]
    fn give_to_port(
        &mut self,
        origin: Origin,
        (port, flow): (PortId, impl Fn() -> u32),
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        let slot = self.ports.get_mut(usize::from(port.0));
        let Some((slot, head)) = slot.zip(scratch.head.get(rewritten.head.clone())) else {
            return self.walker.dropped(origin, DropReason::ReceiverDown);
        };
        let chosen = if slot.receivers.spread() { flow() } else { 0 };
        let Some(ring) = slot.receivers.choose(chosen) else {
            return self.give_elsewhere(origin, (port, flow), rewritten, scratch, source);
        };
        let queue = &mut *ring.queue;
        let header =
            NetHeader::for_frame(&rewritten.offload, head, || source.behind(rewritten), queue.verified);
        match queue.ring.deliver(header, head, source.payload(rewritten)) {
            Ok(buffers) => {
                if buffers > 1 || rewritten.offload.checksum != ChecksumState::InPacket {
                    count_given((&queue.status, queue.pair), &rewritten.offload, buffers, queue.verified);
                }
                ring.written += 1;
                ring.note(rewritten.len());
                if !slot.touched {
                    slot.touched = true;
                    self.touched.push(port.0);
                }
            }
            Err(NoRoom::Full) => self.walker.dropped(origin, DropReason::ReceiverFull),
            Err(NoRoom::Broken(fault)) => {
                let pair = queue.pair;
                self.break_receive(port.0, pair, fault);
                self.walker.dropped(origin, DropReason::ReceiverDown);
            }
        }
    }

    /// What has no ring here has one that another worker may have, or a TUN, or is down.
    #[cold]
    #[inline(never)]
    fn give_elsewhere(
        &mut self,
        origin: Origin,
        (port, flow): (PortId, impl Fn() -> u32),
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        // Once: a port whose rings are here and that is down is not asked for again.
        if self.take(port.0) {
            return self.give_to_port(origin, (port, flow), rewritten, scratch, source);
        }
        self.give_to_task(origin, port, rewritten, scratch, source);
    }

    /// What has no ring has a TUN, or is down. The frame loses its Ethernet header.
    #[cold]
    fn give_to_task(
        &mut self,
        origin: Origin,
        port: PortId,
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        let head = scratch.head.get(rewritten.head.clone()).and_then(|head| head.get(ETHERNET_LEN..));
        let task = self.ports.get_mut(usize::from(port.0)).and_then(|slot| slot.task.as_deref_mut());
        let Some((task, head)) = task.zip(head) else {
            return self.walker.dropped(origin, DropReason::ReceiverDown);
        };
        let begin = cpu::cycles();
        if !self.tolls.lets_pass(&mut task.toll, begin) {
            return self.walker.dropped(origin, DropReason::ReceiverFull);
        }
        let header = NetHeader::for_packet(&rewritten.offload, head, || source.behind(rewritten));
        let sent = task.tun.send(header, head, source.payload(rewritten));
        self.tolls.took(&mut task.toll, rewritten.len(), cpu::cycles().wrapping_sub(begin));
        match sent {
            Ok(()) => self.walker.delivered(Origin::Port(port), 1, rewritten.len() as u64),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.walker.dropped(origin, DropReason::ReceiverFull);
            }
            // Its interface is down, or gone: the next look at it says which.
            Err(_) => self.walker.dropped(origin, DropReason::ReceiverDown),
        }
    }

    fn give_to_uplink(
        &mut self,
        (origin, flow): (Origin, impl Fn() -> u32),
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        if self.fabric.is_some() {
            return self.give_to_fabric((origin, flow), rewritten, scratch, source);
        }
        let head = scratch.head.get(rewritten.head.clone()).unwrap_or_default();
        let header = NetHeader::for_packet(&rewritten.offload, head, || source.behind(rewritten));
        match self.uplink.send(header, head, source.payload(rewritten)) {
            Ok(()) => self.walker.delivered(Origin::Uplink, 1, rewritten.len() as u64),
            Err(_) => self.walker.dropped(origin, DropReason::UplinkFull),
        }
    }

    /// An answer to whoever sent from outside: an ICMP error.
    #[cold]
    fn give_to_outside(&mut self, rewritten: &Rewritten, scratch: &Scratch, source: Source<'_>) {
        let head = scratch.head.get(rewritten.head.clone()).unwrap_or_default();
        let header = NetHeader::for_packet(&rewritten.offload, head, || source.behind(rewritten));
        let sent = self.outside.as_mut().map(|tun| tun.send(header, head, source.payload(rewritten)));
        match sent {
            Some(Ok(())) => self.walker.delivered(Origin::Outside, 1, rewritten.len() as u64),
            _ => self.walker.dropped(Origin::Outside, DropReason::UplinkFull),
        }
    }

    /// Shows every receiver what this turn wrote, and queues the interrupts they asked for.
    #[inline]
    pub(super) fn publish(&mut self) {
        while let Some(index) = self.touched.pop() {
            let Some(port) = self.ports.get_mut(usize::from(index)) else { continue };
            port.touched = false;
            for ring in port.receivers.all().filter(|ring| ring.written > 0) {
                let queue = &mut *ring.queue;
                let signal = queue.ring.publish();
                let tables = queue.ring.take_tables();
                let role = Role::Receive(queue.pair);
                count_tables(&queue.status, role, tables);
                let frames = std::mem::take(&mut ring.written);
                let (given, bytes) = std::mem::take(&mut ring.given);
                let to = if index == PortId::FABRIC.0 { Origin::Uplink } else { Origin::Port(PortId(index)) };
                self.walker.delivered(to, given, bytes);
                signal_driver(
                    &mut self.notifier,
                    &queue.events,
                    (&queue.status, role),
                    frames.into(),
                    signal,
                );
                self.counters.signals.add(u64::from(signal));
            }
        }
    }

    /// The guest behind `index` uses the first `pairs`.
    pub(super) fn use_pairs(&mut self, index: u16, pairs: u8) {
        self.take(index);
        let receivers = &mut self.admit(PortId(index)).receivers;
        receivers.use_pairs(Some(pairs));
        let up = receivers.is_up();
        let receiver = self.nve.receiver(PortId(index));
        if receiver.up != up {
            self.nve.set_receiver(PortId(index), nve_core::pipeline::Receiver { up, ..receiver });
        }
    }

    /// Stops using a receive ring, once, by name.
    pub(super) fn break_receive(&mut self, index: u16, pair: u8, fault: RingFault) {
        let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
        let Some(ring) = port.receivers.of_pair(pair) else { return };
        ring.queue.fault = Some(fault);
        let whose = (index, &*ring.queue.status, Role::Receive(pair));
        tell_fault(&mut self.notifier, &ring.queue.events, whose, fault);
        port.receivers.settle();
        if !port.receivers.is_up() {
            let receiver = self.nve.receiver(PortId(index));
            self.nve.set_receiver(PortId(index), nve_core::pipeline::Receiver { up: false, ..receiver });
        }
    }
}

/// What a frame given with more than its bytes used.
#[cold]
pub(super) fn count_given((status, pair): (&Status, u8), offload: &Offload, buffers: u16, verified: bool) {
    let Some(RingStatus { uses, .. }) = status.ring(Role::Receive(pair)) else { return };
    uses.merged_frames.add(u64::from(buffers > 1));
    match offload.checksum {
        ChecksumState::InPacket => return,
        ChecksumState::Verified => return uses.verified_checksums_given.add(u64::from(verified)),
        ChecksumState::Partial { .. } => uses.partial_checksums_given.add(1),
    }
    let (kind, ecn) = match offload.gso.map(|gso| gso.kind) {
        Some(GsoKind::TcpV4 { ecn }) => (&uses.tso4_given, ecn),
        Some(GsoKind::TcpV6 { ecn }) => (&uses.tso6_given, ecn),
        Some(GsoKind::UdpL4) => (&uses.uso_given, false),
        None => return,
    };
    kind.add(1);
    uses.ecn_given.add(u64::from(ecn));
}

/// So many chains of a ring came by indirect tables.
#[inline]
pub(super) fn count_tables(status: &Status, role: Role, tables: u64) {
    if tables > 0
        && let Some(ring) = status.ring(role)
    {
        ring.uses.indirect_chains.add(tables);
    }
}

/// Buffers of a ring were given back: the driver is told if it wants to be.
#[inline]
pub(super) fn signal_driver(
    notifier: &mut Notifier,
    events: &Events,
    (status, role): (&Status, Role),
    frames: u64,
    wanted: bool,
) {
    if let Some(call) = events.call().filter(|_| wanted) {
        notifier.queue(call);
    }
    if let Some(ring) = status.ring(role) {
        ring.gave_back(frames, wanted);
    }
}

/// A ring broke: the front-end is told, and an operator sees it.
pub(super) fn tell_fault(
    notifier: &mut Notifier,
    events: &Events,
    (port, status, role): (u16, &Status, Role),
    fault: RingFault,
) {
    status.journal.write(
        log::Level::Warn,
        &format_args!("port {port}"),
        format_args!("{role:?} ring stopped: {fault}"),
    );
    if let Some(ring) = status.ring(role) {
        ring.set_fault(Some(fault));
    }
    if let Some(error) = &events.error {
        notifier.queue(std::os::fd::AsFd::as_fd(error));
    }
}
