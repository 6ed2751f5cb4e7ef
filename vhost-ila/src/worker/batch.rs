//! One batch through the walk, in stages, so that what a stage needs was asked for in the stage before.
//!
//! What must stay true: frames of one origin are delivered in the order they were taken, those that need software included.

use std::io;

use nve_core::DropReason;
use nve_core::packet::{ETHERNET_LEN, Frame, GsoKind, HEAD_LEN, MAX_FRAME, Offload};
use nve_core::pipeline::{Fate, Origin, PortId, Question, Rewritten, Scratch, Walker};

use super::again::Linear;
use super::delivery::{Outlets, Source, signal_driver};
use super::sender::{Kicked, Sender};
use crate::device::cpu;
use crate::device::handover::{Role, TransmitQueue};
use crate::device::net_header::{LEN, NetHeader, READ_LEN, SenderOffloads};
use crate::device::ring::{BATCH, BATCH_BYTES, Chains};
use crate::device::status::Uses;
use crate::uplink::{MAX_PACKET, Uplink};

/// Packets read from the uplink, or a task, in one turn.
const UPLINK_BATCH: usize = 32;
/// Segments that software may have to cut in one batch; a frame that asks for more (of small ones) is alone in its batch. Bytes do
/// not tell: eight kilobytes are six segments of Linux's, or hundreds of a guest's that wants to keep the worker busy.
const SEGMENTS: usize = 512;

/// One frame's own lines. Its size is no multiple of a page, so that neighbours do not fall on the same cache sets.
#[repr(align(64))]
struct Slot {
    /// virtio-net header and the frame's first bytes, copied once.
    taken: [u8; LEN + HEAD_LEN],
    scratch: Scratch,
}

#[derive(Clone, Copy)]
struct Meta {
    /// Bytes of the frame, without the virtio-net header.
    len: usize,
    offload: Offload,
    question: Option<Question>,
}

/// What the frames of a batch left to us.
#[derive(Clone, Copy, Default)]
struct Taken {
    partial: u16,
    tso4: u16,
    tso6: u16,
    ecn: u16,
}

impl Taken {
    fn note(&mut self, offload: &Offload) {
        self.partial += 1;
        let (kind, ecn) = match offload.gso.map(|gso| gso.kind) {
            Some(GsoKind::TcpV4 { ecn }) => (&mut self.tso4, ecn),
            Some(GsoKind::TcpV6 { ecn }) => (&mut self.tso6, ecn),
            Some(GsoKind::UdpL4) | None => return,
        };
        *kind += 1;
        self.ecn += u16::from(ecn);
    }

    fn count(self, uses: &Uses) {
        uses.partial_checksums_taken.add(self.partial.into());
        uses.tso4_taken.add(self.tso4.into());
        uses.tso6_taken.add(self.tso6.into());
        uses.ecn_taken.add(self.ecn.into());
    }
}

/// Buffers for one batch at a time; made once.
pub(super) struct Batch {
    chains: Chains,
    slots: Vec<Slot>,
    meta: Vec<Meta>,
    /// Each with its flow, where the receiver has several rings.
    fates: Vec<(Fate, u32)>,
    packets: Vec<Vec<u8>>,
    linear: Linear,
}

impl Batch {
    pub(super) fn new() -> Self {
        let slot = || Slot { taken: [0; LEN + HEAD_LEN], scratch: Scratch::default() };
        Self {
            chains: Chains::default(),
            slots: (0..BATCH).map(|_| slot()).collect(),
            meta: Vec::with_capacity(BATCH),
            fates: Vec::with_capacity(BATCH),
            packets: (0..UPLINK_BATCH).map(|_| vec![0; ETHERNET_LEN + MAX_PACKET]).collect(),
            linear: Linear::new(),
        }
    }

    /// Lets go of guest memory.
    pub(super) fn clear(&mut self) {
        self.chains.clear();
    }

    /// One batch of a guest's transmit ring; how many frames it had.
    #[inline]
    pub(super) fn transmit(&mut self, out: &mut Outlets, sender: &mut Sender) -> usize {
        let Sender { port, queue } = sender;
        if queue.fault.is_some() {
            return 0;
        }
        let mut broken = queue.ring.take(&mut self.chains).err();
        let mut count = self.chains.len();
        if count > 0 {
            let origin = if *port == PortId::FABRIC.0 { Origin::Uplink } else { Origin::Port(PortId(*port)) };
            if queue.enabled {
                if origin == Origin::Uplink {
                    self.walk_chains::<true>(out, origin, queue);
                } else {
                    self.walk_chains::<false>(out, origin, queue);
                }
                if self.chains.len() < count {
                    // What broke it lies behind what is left for the next turn, and is found again.
                    broken = None;
                    count = self.chains.len();
                }
            } else {
                (0..count).for_each(|_| out.walker.dropped(origin, DropReason::ReceiverDown));
            }
            self.give_back(out, queue);
        }
        if let Some(fault) = broken {
            sender.breaks(out, fault);
        }
        count
    }

    fn give_back(&mut self, out: &mut Outlets, queue: &mut TransmitQueue) {
        queue.ring.finish(&self.chains);
        let signal = queue.ring.publish();
        let tables = queue.ring.take_tables();
        if tables > 0 {
            queue.status.uses.indirect_chains.add(tables);
        }
        let frames = self.chains.len() as u64;
        let role = Role::Transmit(queue.pair);
        signal_driver(&mut out.notifier, &queue.events, (&queue.status, role), frames, signal);
        out.counters.signals.add(u64::from(signal));
    }

    /// `FABRIC`: the frames are of a vhost-user uplink, and packets for the walk behind their Ethernet headers.
    #[inline]
    fn walk_chains<const FABRIC: bool>(
        &mut self,
        out: &mut Outlets,
        origin: Origin,
        queue: &mut TransmitQueue,
    ) {
        let front = front(FABRIC);
        let mut taken = Taken::default();
        let mut segments = 0;
        self.meta.clear();
        for (i, slot) in self.slots.iter_mut().enumerate().take(self.chains.len()) {
            let bytes = self.chains.bytes(i);
            let copied = self.chains.copy(i, 0, &mut slot.taken[..LEN + HEAD_LEN]);
            let mut meta = Meta { len: bytes.saturating_sub(LEN), offload: Offload::NONE, question: None };
            if copied < LEN + ETHERNET_LEN || meta.len > MAX_FRAME {
                out.walker.dropped(origin, DropReason::Malformed);
            } else if let Some(len) = packet_len::<FABRIC>(out, &slot.taken[LEN..copied], meta.len) {
                meta.len = len;
                let link = front - LEN;
                let header =
                    slot.taken.first_chunk::<READ_LEN>().map(NetHeader::from_bytes).unwrap_or_default();
                match header.offload(queue.allowed, ETHERNET_LEN as u16, link + meta.len) {
                    Ok(offload) => {
                        if offload != Offload::NONE {
                            segments += segments_of(&offload, meta.len);
                            if segments > SEGMENTS && i > 0 {
                                queue.ring.leave(&mut self.chains, i);
                                break;
                            }
                            taken.note(&offload);
                        }
                        meta.offload = offload;
                        let head = &slot.taken[front..copied.min(front + meta.len)];
                        let frame = Frame { head, len: meta.len, offload };
                        let question = out.walker.classify(origin, &frame);
                        if let Some(at) = out.walker.slot(&question) {
                            cpu::prefetch(at);
                        }
                        meta.question = Some(question);
                    }
                    Err(_) => out.walker.dropped(origin, DropReason::BadOffload),
                }
            }
            self.meta.push(meta);
        }
        if taken.partial > 0 {
            taken.count(&queue.status.uses);
        }
        self.decide_chains::<FABRIC>(out, origin);
    }

    #[inline]
    fn decide_chains<const FABRIC: bool>(&mut self, out: &mut Outlets, origin: Origin) {
        let front = front(FABRIC);
        self.fates.clear();
        let mut first = 0;
        for (i, meta) in self.meta.iter().enumerate() {
            let slot = &mut self.slots[i];
            let head = &slot.taken[front..(front + meta.len).min(LEN + HEAD_LEN)];
            let frame = Frame { head, len: meta.len, offload: meta.offload };
            let (fate, flow) = match meta.question {
                None => (Fate::Drop(DropReason::Malformed), 0),
                Some(question) => {
                    let fate = out.walker.decide(question, &frame, &mut slot.scratch);
                    let special = needs_software(&fate);
                    let flow = if special { 0 } else { out.expect(origin, &fate, || question.flow(&frame)) };
                    (fate, flow)
                }
            };
            let special = needs_software(&fate);
            self.fates.push((fate, flow));
            if special {
                // What was decided before goes first; then this one, at once, while the core still holds its pieces.
                deliver::<FABRIC>(out, origin, &self.chains, &self.slots, &self.fates[first..i], first);
                first = i + 1;
                let source = Source::Chain { chains: &self.chains, index: i, front };
                let slot = &mut self.slots[i];
                let head = &slot.taken[front..(front + meta.len).min(LEN + HEAD_LEN)];
                let frame = Frame { head, len: meta.len, offload: meta.offload };
                let fate = &self.fates[i].0;
                special_delivery(out, &mut self.linear, origin, &frame, fate, &mut slot.scratch, source);
            }
        }
        deliver::<FABRIC>(out, origin, &self.chains, &self.slots, &self.fates[first..], first);
    }

    /// What the gateway says unasked.
    #[inline]
    pub(super) fn announce(&mut self, out: &mut Outlets) {
        let Some(slot) = self.slots.first_mut() else { return };
        for _ in 0..BATCH {
            let Some((port, said)) = out.walker.tick(&mut slot.scratch) else { return };
            out.perform(Origin::Port(port), (&Fate::Reply(said, None), 0), &slot.scratch, Source::Own(&[]));
        }
    }

    /// What the slow path answers, a batch of it; how many frames there were.
    #[inline]
    pub(super) fn answers(&mut self, out: &mut Outlets) -> usize {
        (0..BATCH).take_while(|_| self.answer(out)).count()
    }

    /// One such answer; false if there is none.
    #[inline]
    fn answer(&mut self, out: &mut Outlets) -> bool {
        let Some((port, frame)) = out.punts.answer() else { return false };
        self.deliver_answer(out, port, &frame);
        true
    }

    #[cold]
    fn deliver_answer(&mut self, out: &mut Outlets, port: PortId, frame: &[u8]) {
        let origin = Origin::Port(port);
        let is_its_own = out.walker.bears_its_mac(port, frame);
        let Some((slot, header)) = self.slots.first_mut().zip(frame.first_chunk::<ETHERNET_LEN>()) else {
            return;
        };
        if !is_its_own {
            return out.walker.dropped(origin, DropReason::NoAttachment);
        }
        slot.scratch.head[..ETHERNET_LEN].copy_from_slice(header);
        let said = Rewritten { tail: ETHERNET_LEN..frame.len(), ..Rewritten::whole(0..ETHERNET_LEN) };
        out.perform(origin, (&Fate::Reply(said, None), 0), &slot.scratch, Source::Own(frame));
    }

    /// One batch from the uplink; how many packets there were.
    ///
    /// # Errors
    /// `NotConnected`: the uplink is gone for good.
    pub(super) fn receive(&mut self, out: &mut Outlets) -> io::Result<usize> {
        let Outlets { uplink, walker, .. } = out;
        self.read(&mut **uplink, walker, Origin::Uplink, &[])?;
        Ok(self.walk_packets(out, Origin::Uplink))
    }

    /// One batch from outside, where this host is a gateway; how many packets there were.
    ///
    /// # Errors
    /// `NotConnected`: the gateway's TUN is gone for good.
    pub(super) fn receive_from_outside(&mut self, out: &mut Outlets) -> io::Result<usize> {
        let Outlets { outside, walker, .. } = out;
        let Some(tun) = outside else { return Ok(0) };
        self.read(&mut **tun, walker, Origin::Outside, &[])?;
        Ok(self.walk_packets(out, Origin::Outside))
    }

    /// One batch from the task of `port`; how many packets there were.
    ///
    /// # Errors
    /// `NotConnected`: its TUN is gone for good.
    pub(super) fn receive_from_task(&mut self, out: &mut Outlets, port: u16) -> io::Result<usize> {
        let Outlets { ports, walker, .. } = out;
        let Some(task) = ports.get_mut(usize::from(port)).and_then(|port| port.task.as_deref_mut()) else {
            return Ok(0);
        };
        let origin = Origin::Port(PortId(port));
        self.read(&mut *task.tun, walker, origin, &task.ethernet)?;
        Ok(self.walk_packets(out, origin))
    }

    /// Reads a batch of IP packets and asks about each, behind the `ethernet` header that it gets.
    fn read(
        &mut self,
        from: &mut dyn Uplink,
        walker: &mut Walker,
        origin: Origin,
        ethernet: &[u8],
    ) -> io::Result<()> {
        self.meta.clear();
        let (mut segments, mut bytes) = (0, 0);
        for packet in &mut self.packets {
            if segments > SEGMENTS || bytes >= BATCH_BYTES {
                break;
            }
            let Some((front, ip)) = packet.split_at_mut_checked(ethernet.len()) else { break };
            let (len, header) = match from.receive(ip) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                // What was read before it is still to be served; the next look finds it gone again.
                Err(e) if self.meta.is_empty() && e.kind() == io::ErrorKind::NotConnected => return Err(e),
                // One packet the kernel could not hand over; not the end of the others.
                Err(_) => break,
            };
            let ip_len = len.min(ip.len());
            front.copy_from_slice(ethernet);
            let len = ethernet.len() + ip_len;
            bytes += len;
            let mut meta = Meta { len, offload: Offload::NONE, question: None };
            match header.offload(SenderOffloads::ALL, 0, ip_len) {
                Ok(offload) => {
                    segments += segments_of(&offload, len);
                    meta.offload = offload;
                    let question = walker.classify(origin, &Frame { head: &packet[..len], len, offload });
                    if let Some(at) = walker.slot(&question) {
                        cpu::prefetch(at);
                    }
                    meta.question = Some(question);
                }
                Err(_) => walker.dropped(origin, DropReason::BadOffload),
            }
            self.meta.push(meta);
        }
        Ok(())
    }

    /// Carries out what becomes of the packets that were read; how many there were.
    fn walk_packets(&mut self, out: &mut Outlets, origin: Origin) -> usize {
        // A system call per packet outweighs what staging the deliveries would save.
        for ((meta, packet), slot) in self.meta.iter().zip(&self.packets).zip(&mut self.slots) {
            let Some(question) = meta.question else { continue };
            let whole = &packet[..meta.len];
            let frame = Frame { head: whole, len: meta.len, offload: meta.offload };
            let fate = out.walker.decide(question, &frame, &mut slot.scratch);
            let source = Source::Own(whole);
            if needs_software(&fate) {
                special_delivery(out, &mut self.linear, origin, &frame, &fate, &mut slot.scratch, source);
            } else {
                let flow = out.flow(origin, &fate, &frame);
                out.perform(origin, (&fate, flow), &slot.scratch, source);
            }
        }
        self.meta.len()
    }
}

/// Where what the core sees begins in a chain: behind the virtio-net header, and of the fabric's frames behind the Ethernet header.
#[inline]
const fn front(fabric: bool) -> usize {
    if fabric { LEN + ETHERNET_LEN } else { LEN }
}

/// Bytes of what the core is to see of a frame of `len` bytes that begins with `taken`; `None`: nothing, and that is all done.
#[inline]
fn packet_len<const FABRIC: bool>(out: &mut Outlets, taken: &[u8], len: usize) -> Option<usize> {
    if FABRIC { out.arrives(taken, len) } else { Some(len) }
}

/// How many segments a frame of `len` bytes comes to, should software have to cut it.
#[inline]
fn segments_of(offload: &Offload, len: usize) -> usize {
    offload.gso.map_or(0, |gso| len / usize::from(gso.size).max(1))
}

/// Whether a fate must be carried out before the next frame is decided, and is more than one delivery.
#[inline]
fn needs_software(fate: &Fate) -> bool {
    match fate {
        Fate::Again(_) | Fate::Punt(_) => true,
        Fate::Local(_, r) | Fate::Uplink(r) | Fate::Reply(r, _) => r.more,
        Fate::Drop(_) => false,
    }
}

/// Delivers plain fates; `first` is the batch index of the first.
#[inline]
fn deliver<const FABRIC: bool>(
    out: &mut Outlets,
    origin: Origin,
    chains: &Chains,
    slots: &[Slot],
    fates: &[(Fate, u32)],
    first: usize,
) {
    out.prepare();
    for (i, (fate, flow)) in fates.iter().enumerate() {
        let index = first + i;
        let source = Source::Chain { chains, index, front: front(FABRIC) };
        out.perform(origin, (fate, *flow), &slots[index].scratch, source);
    }
}

/// A frame in pieces, or one that needs software first.
fn special_delivery(
    out: &mut Outlets,
    linear: &mut Linear,
    origin: Origin,
    frame: &Frame<'_>,
    fate: &Fate,
    scratch: &mut Scratch,
    source: Source<'_>,
) {
    match fate {
        Fate::Again(again) => linear.again(out, origin, frame, *again, scratch, source),
        fate => pieces(out, origin, frame, fate, scratch, source),
    }
}

/// Delivers a fate and, where there are more, the packet's other pieces and copies, each where it goes.
pub(super) fn pieces(
    out: &mut Outlets,
    origin: Origin,
    frame: &Frame<'_>,
    fate: &Fate,
    scratch: &mut Scratch,
    source: Source<'_>,
) {
    if let Fate::Punt(desk) = fate {
        return out.punt(origin, *desk, frame);
    }
    let flow = out.flow(origin, fate, frame);
    out.perform(origin, (fate, flow), scratch, source);
    let mut more = needs_software(fate);
    // The core has as many as there are pieces and receivers.
    while more {
        let Some(next) = out.walker.next_copy(frame, scratch) else { return };
        more = needs_software(&next);
        let flow = out.flow(origin, &next, frame);
        out.perform(origin, (&next, flow), scratch, source);
    }
}
