//! One batch through the walk, in stages, so that what a stage needs was asked for in the stage before.
//!
//! ```text
//!   the guest's transmit ring    take ──> copy, classify ──> decide ──> deliver ──> give back
//!   the next sender's            expect                      look
//!   the probable receiver's      expect                      look, prepare
//! ```
//!
//! The first frames of a batch mostly need none of this: `train.rs` and `outbound.rs` send them in one pass, and the stages begin behind them.
//!
//! What must stay true: frames of one origin are delivered in the order they were taken, those that need software included.

use std::io;
use std::ops::Range;

use nve_core::DropReason;
use nve_core::packet::{ETHERNET_LEN, Frame, GsoKind, HEAD_LEN, MAX_FRAME, Offload};
use nve_core::pipeline::{
    Again, Asked, Fate, Origin, PortId, Question, ROOM, Rewritten, Scratch, Walker, flow_of_plain,
};

use super::again::Linear;
use super::delivery::{Outlets, Source, count_tables, signal_driver};
use super::run::{Run, Towards};
use super::sender::{Kicked, Sender};
use super::train::Gone;
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

/// Frames whose lines are asked for at once: as many as a processor waits for, while it works on others.
pub(super) const CHUNK: usize = 16;

/// virtio-net header and a frame's first bytes, copied once.
pub(super) type Taken = [u8; LEN + HEAD_LEN];

/// Bytes in front of those, a word's multiple: for what a frame grows by when it leaves.
const FRONT: usize = ROOM.next_multiple_of(16);

/// One frame's own lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Slot {
    bytes: [u8; FRONT + LEN + HEAD_LEN],
}

impl Slot {
    /// What was copied.
    #[inline]
    pub(super) fn taken(&self) -> &Taken {
        self.last()
    }
    /// The same, to be rewritten.
    #[inline]
    pub(super) fn taken_mut(&mut self) -> &mut Taken {
        self.last_mut()
    }
    /// Its last bytes: what was copied, and room in front of it.
    #[inline]
    pub(super) fn last<const N: usize>(&self) -> &[u8; N] {
        const { assert!(N <= FRONT + LEN + HEAD_LEN) };
        self.bytes.last_chunk().unwrap_or(&[0; N])
    }
    /// The same, to be rewritten.
    #[inline]
    pub(super) fn last_mut<const N: usize>(&mut self) -> &mut [u8; N] {
        const { assert!(N <= FRONT + LEN + HEAD_LEN) };
        match self.bytes.last_chunk_mut() {
            Some(last) => last,
            None => unreachable!("the array is as long, which the compiler has seen"),
        }
    }
}

/// What is known of a frame. Written field by field to where it stays: see [`Question`].
#[derive(Clone, Copy, Default)]
struct Meta {
    /// Bytes of the frame, without the virtio-net header.
    len: usize,
    offload: Offload,
    /// Its flow, once it was asked for.
    flow: Option<u32>,
    stage: Stage,
    question: Question,
}

/// How far a frame has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Stage {
    /// It is dropped, and counted.
    #[default]
    Dropped,
    /// There is a question.
    Asked,
    /// It goes the way of the one before it: its fate is known, and there is no question.
    Decided,
}

impl Meta {
    /// The frame, or packet, of a chain that begins with these bytes.
    #[inline]
    fn frame<'a, const FABRIC: bool>(&self, taken: &'a Taken) -> Frame<'a> {
        let end = (front(FABRIC) + self.len).min(LEN + HEAD_LEN);
        Frame { head: &taken[front(FABRIC)..end], len: self.len, offload: self.offload }
    }

    /// Which conversation it is of.
    #[inline]
    fn flow_of<const FABRIC: bool>(&self, frame: &Frame<'_>) -> u32 {
        let origin = if FABRIC { Origin::Uplink } else { Origin::Port(PortId(0)) };
        if self.stage == Stage::Decided { flow_of_plain(origin, frame) } else { self.question.flow(frame) }
    }
}

/// What the frames of a batch left to us.
#[derive(Clone, Copy, Default)]
struct Left {
    partial: u16,
    tso4: u16,
    tso6: u16,
    ecn: u16,
    uso: u16,
}

impl Left {
    fn note(&mut self, offload: &Offload) {
        self.partial += 1;
        let (kind, ecn) = match offload.gso.map(|gso| gso.kind) {
            Some(GsoKind::TcpV4 { ecn }) => (&mut self.tso4, ecn),
            Some(GsoKind::TcpV6 { ecn }) => (&mut self.tso6, ecn),
            Some(GsoKind::UdpL4) => (&mut self.uso, false),
            None => return,
        };
        *kind += 1;
        self.ecn += u16::from(ecn);
    }

    fn count(self, uses: &Uses) {
        uses.partial_checksums_taken.add(self.partial.into());
        uses.tso4_taken.add(self.tso4.into());
        uses.tso6_taken.add(self.tso6.into());
        uses.ecn_taken.add(self.ecn.into());
        uses.uso_taken.add(self.uso.into());
    }
}

/// Buffers for one batch at a time; made once.
pub(super) struct Batch {
    pub(super) chains: Chains,
    pub(super) slots: Box<[Slot; BATCH]>,
    pub(super) scratch: Vec<Scratch>,
    /// Of frames that leave for the fabric.
    pub(super) asked: Box<[Option<Asked>; BATCH]>,
    meta: Box<[Meta; BATCH]>,
    fates: Box<[Fate; BATCH]>,
    packets: Vec<Vec<u8>>,
    /// How many of them there are.
    received: usize,
    linear: Linear,
    /// Rings take turns so seldom that their frames come from memory, not from another core: they are asked for a batch ahead.
    pub(super) many: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            chains: Chains::default(),
            slots: Box::new([Slot { bytes: [0; FRONT + LEN + HEAD_LEN] }; BATCH]),
            scratch: (0..BATCH).map(|_| Scratch::default()).collect(),
            asked: Box::new([None; BATCH]),
            meta: Box::new([Meta::default(); BATCH]),
            fates: Box::new([const { Fate::Again(Again::Whole) }; BATCH]),
            packets: (0..UPLINK_BATCH).map(|_| vec![0; ETHERNET_LEN + MAX_PACKET]).collect(),
            received: 0,
            linear: Linear::new(),
            many: false,
        }
    }

    /// Lets go of guest memory.
    pub(super) fn clear(&mut self) {
        self.chains.clear();
    }

    /// One batch of a guest's transmit ring; how many frames it had.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        out: &mut Outlets,
        sender: &mut Sender,
        next: Option<&mut Sender>,
    ) -> usize {
        let Sender { port, queue, towards, .. } = sender;
        if queue.fault.is_some() {
            return 0;
        }
        let mut broken = queue.ring.take(&mut self.chains).err();
        let mut count = self.chains.len();
        if count > 0 {
            let origin = if *port == PortId::FABRIC.0 { Origin::Uplink } else { Origin::Port(PortId(*port)) };
            if queue.enabled {
                let next = next.filter(|next| next.queue.fault.is_none());
                if origin == Origin::Uplink {
                    self.walk_chains::<true>(out, origin, (queue, next), towards);
                } else {
                    self.walk_chains::<false>(out, origin, (queue, next), towards);
                }
                if self.chains.len() < count {
                    // What broke it lies behind what is left for the next turn, and is found again.
                    broken = None;
                    count = self.chains.len();
                }
            } else {
                (0..count).for_each(|_| out.walker.dropped(origin, DropReason::ReceiverDown));
            }
            // First whoever the frames are for: they are waited for, and of two guests that are woken the second waits for a processor.
            out.publish();
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
        let role = Role::Transmit(queue.pair);
        count_tables(&queue.status, role, tables);
        let frames = self.chains.len() as u64;
        signal_driver(&mut out.notifier, &queue.events, (&queue.status, role), frames, signal);
        out.counters.signals.add(u64::from(signal));
    }

    /// `FABRIC`: the frames are of a vhost-user uplink, and packets for the walk behind their Ethernet headers.
    #[inline]
    fn walk_chains<const FABRIC: bool>(
        &mut self,
        out: &mut Outlets,
        origin: Origin,
        (queue, mut next): (&mut TransmitQueue, Option<&mut Sender>),
        towards: &mut Towards,
    ) {
        if let Some(next) = &next {
            next.expect(self.many);
        }
        self.chains.prefetch(0..2 * CHUNK);
        let count = self.chains.len().min(BATCH);
        let Gone { done, mut copied } = match origin {
            Origin::Port(port) if !FABRIC && towards.port == PortId::FABRIC.0 => {
                self.outbound(out, port, &mut next)
            }
            Origin::Port(port) if !FABRIC => self.train(out, port, &mut next, towards),
            _ => Gone::default(),
        };
        if done == count {
            return;
        }
        let mut run = Run::new(out, *towards);
        let mut left = Left::default();
        let mut segments = 0;
        for i in done..count {
            if i >= copied {
                copied = self.copy_heads(copied);
            }
            let (Some(slot), meta) = (self.slots.get_mut(i), &mut self.meta[i]) else { break };
            let copied = self.chains.bytes(i).min(LEN + HEAD_LEN);
            meta.len = self.chains.bytes(i).saturating_sub(LEN);
            (meta.offload, meta.stage) = (Offload::NONE, Stage::Dropped);
            if copied < LEN + ETHERNET_LEN || meta.len > MAX_FRAME {
                out.walker.dropped(origin, DropReason::Malformed);
                continue;
            }
            let Some(len) = packet_len::<FABRIC>(out, &slot.taken()[LEN..copied], meta.len) else { continue };
            meta.len = len;
            if !NetHeader::is_plain(slot.taken()) {
                let header =
                    slot.taken().first_chunk::<READ_LEN>().map(NetHeader::from_bytes).unwrap_or_default();
                let link = front(FABRIC) - LEN;
                let Ok(offload) = header.offload(queue.allowed, ETHERNET_LEN as u16, link + meta.len) else {
                    out.walker.dropped(origin, DropReason::BadOffload);
                    continue;
                };
                segments += segments_of(&offload, meta.len);
                if segments > SEGMENTS && i > 0 {
                    queue.ring.leave(&mut self.chains, i);
                    break;
                }
                left.note(&offload);
                meta.offload = offload;
            }
            if FABRIC {
                let frame = meta.frame::<FABRIC>(slot.taken());
                if out.walker.retrace_homeward(&frame, (&mut self.scratch[i], &mut self.fates[i])) {
                    meta.stage = Stage::Decided;
                    meta.flow = run.guess(out, || meta.flow_of::<FABRIC>(&frame));
                    continue;
                }
            } else if let Origin::Port(port) = origin {
                let (what, to) = ((meta.len, meta.offload), (&mut self.scratch[i], &mut self.fates[i]));
                let head = slot.taken_mut().last_chunk_mut();
                if head.is_some_and(|head| out.walker.retrace(port, head, what, to)) {
                    meta.stage = Stage::Decided;
                    let frame = meta.frame::<FABRIC>(slot.taken());
                    meta.flow = run.guess(out, || meta.flow_of::<FABRIC>(&frame));
                    continue;
                }
            }
            meta.stage = Stage::Asked;
            let frame = meta.frame::<FABRIC>(slot.taken());
            out.walker.classify(origin, &frame, &mut meta.question);
            meta.flow = run.guess(out, || meta.flow_of::<FABRIC>(&frame));
            if let Some(at) = out.walker.slot(&meta.question) {
                cpu::prefetch(at);
            }
        }
        if left.partial > 0
            && let Some(ring) = queue.status.ring(Role::Transmit(queue.pair))
        {
            left.count(&ring.uses);
        }
        if let Some(next) = &mut next {
            next.queue.ring.look();
        }
        run.look(out);
        *towards = self.decide_chains::<FABRIC>(out, origin, (run, next), done);
    }

    /// Copies the heads of the chunk that begins with chain `from`; where the one after it begins, which was asked for before.
    #[inline]
    pub(super) fn copy_heads(&mut self, from: usize) -> usize {
        self.chains.prefetch(from + 2 * CHUNK..from + 3 * CHUNK);
        let end = (from + CHUNK).min(self.chains.len());
        let slots = self.slots.get_mut(from..end).unwrap_or_default();
        self.chains.copy_heads(from, slots.iter_mut().map(Slot::taken_mut));
        from + CHUNK
    }

    /// Decides and delivers the frames from `start` on; where they went.
    #[inline]
    fn decide_chains<const FABRIC: bool>(
        &mut self,
        out: &mut Outlets,
        origin: Origin,
        (mut run, next): (Run, Option<&mut Sender>),
        start: usize,
    ) -> Towards {
        let (mut first, mut frames, mut bytes) = (start, 0, 0);
        let far = out.walker.is_far();
        for i in start..self.chains.len().min(BATCH) {
            let is_chunk = i % CHUNK == 0 || i == start;
            if far && is_chunk {
                self.expect_behind(out, i);
            }
            let (Some(slot), meta, fate) = (self.slots.get_mut(i), &mut self.meta[i], &mut self.fates[i])
            else {
                break;
            };
            if is_chunk {
                run.chunk(out, (i + CHUNK - first) as u16);
            }
            if let Some(next) = next.as_ref().filter(|_| self.many) {
                next.queue.ring.fetch(i);
            }
            let settled = match meta.stage {
                Stage::Decided => true,
                Stage::Asked => {
                    let frame = meta.frame::<FABRIC>(slot.taken());
                    out.walker.decide(&meta.question, &frame, &mut self.scratch[i], fate)
                }
                Stage::Dropped => {
                    *fate = Fate::Drop(DropReason::Malformed);
                    continue;
                }
            };
            if settled {
                frames += 1;
                bytes += meta.len as u64;
            }
            let frame = meta.frame::<FABRIC>(slot.taken());
            let flow = || {
                let flow = meta.flow_of::<FABRIC>(&frame);
                *meta.flow.insert(flow)
            };
            match fate {
                Fate::Local(port, rewritten) if !rewritten.more => run.note(out, *port, flow),
                Fate::Uplink(rewritten) if !rewritten.more && out.fabric.is_some() => {
                    run.note(out, PortId::FABRIC, flow);
                }
                fate if needs_software(fate) => {
                    // What was decided before goes first; then this one, at once, while the core still holds its pieces.
                    run.end(out);
                    self.deliver::<FABRIC>(out, origin, first..i);
                    first = i + 1;
                    self.deliver_special::<FABRIC>(out, origin, i);
                }
                _ => {}
            }
        }
        run.end(out);
        self.deliver::<FABRIC>(out, origin, first..self.chains.len().min(BATCH));
        out.walker.took(origin, frames, bytes);
        run.towards()
    }

    /// Asks for the table lines that keys of the chunk after the one at `from` have behind their first: those have come by now.
    #[inline(never)]
    fn expect_behind(&self, out: &Outlets, from: usize) {
        let chunks = if from == 0 { 0..2 * CHUNK } else { from + CHUNK..from + 2 * CHUNK };
        let end = chunks.end.min(self.chains.len()).min(BATCH);
        for meta in
            self.meta.get(chunks.start..end).into_iter().flatten().filter(|meta| meta.stage == Stage::Asked)
        {
            if let Some(at) = out.walker.slot_behind(&meta.question) {
                cpu::prefetch(at);
            }
        }
    }

    /// Delivers plain fates.
    #[inline]
    fn deliver<const FABRIC: bool>(&mut self, out: &mut Outlets, origin: Origin, which: Range<usize>) {
        for index in which {
            let (Some(slot), Some(scratch)) = (self.slots.get(index), self.scratch.get(index)) else {
                return;
            };
            let (Some(meta), Some(fate)) = (self.meta.get(index), self.fates.get(index)) else { return };
            let source =
                Source::Chain { chains: &self.chains, index, front: front(FABRIC), taken: slot.taken() };
            let flow =
                || meta.flow.unwrap_or_else(|| meta.flow_of::<FABRIC>(&meta.frame::<FABRIC>(slot.taken())));
            out.perform(origin, fate, flow, scratch, source);
        }
    }

    #[cold]
    fn deliver_special<const FABRIC: bool>(&mut self, out: &mut Outlets, origin: Origin, index: usize) {
        let (Some(slot), Some(scratch)) = (self.slots.get(index), self.scratch.get_mut(index)) else {
            return;
        };
        let (Some(meta), Some(fate)) = (self.meta.get(index), self.fates.get(index)) else { return };
        let source = Source::Chain { chains: &self.chains, index, front: front(FABRIC), taken: slot.taken() };
        let frame = meta.frame::<FABRIC>(slot.taken());
        special_delivery(out, &mut self.linear, origin, &frame, fate, scratch, source);
    }

    /// What the gateway says unasked.
    #[inline]
    pub(super) fn announce(&mut self, out: &mut Outlets) {
        let Some(scratch) = self.scratch.first_mut() else { return };
        for _ in 0..BATCH {
            let Some((port, said)) = out.walker.tick(scratch) else { return };
            let fate = Fate::Reply(said, None);
            out.perform(Origin::Port(port), &fate, || 0, scratch, Source::Own(&[]));
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
        let Some((scratch, header)) = self.scratch.first_mut().zip(frame.first_chunk::<ETHERNET_LEN>())
        else {
            return;
        };
        if !is_its_own {
            return out.walker.dropped(origin, DropReason::NoAttachment);
        }
        scratch.head[..ETHERNET_LEN].copy_from_slice(header);
        let said = Rewritten { tail: ETHERNET_LEN..frame.len(), ..Rewritten::whole(0..ETHERNET_LEN) };
        out.perform(origin, &Fate::Reply(said, None), || 0, scratch, Source::Own(frame));
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
        self.received = 0;
        let (mut segments, mut bytes) = (0, 0);
        let left = self.scratch.iter_mut().zip(self.fates.iter_mut());
        for ((packet, meta), (scratch, fate)) in self.packets.iter_mut().zip(self.meta.iter_mut()).zip(left) {
            if segments > SEGMENTS || bytes >= BATCH_BYTES {
                break;
            }
            let Some((front, ip)) = packet.split_at_mut_checked(ethernet.len()) else { break };
            let (len, header) = match from.receive(ip) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                // What was read before it is still to be served; the next look finds it gone again.
                Err(e) if self.received == 0 && e.kind() == io::ErrorKind::NotConnected => return Err(e),
                // One packet the kernel could not hand over; not the end of the others.
                Err(_) => break,
            };
            let ip_len = len.min(ip.len());
            front.copy_from_slice(ethernet);
            let len = ethernet.len() + ip_len;
            bytes += len;
            self.received += 1;
            (meta.len, meta.offload, meta.stage) = (len, Offload::NONE, Stage::Dropped);
            let Ok(offload) = header.offload(SenderOffloads::ALL, 0, ip_len) else {
                walker.dropped(origin, DropReason::BadOffload);
                continue;
            };
            segments += segments_of(&offload, len);
            (meta.offload, meta.stage) = (offload, Stage::Asked);
            let frame = Frame { head: &packet[..len], len, offload };
            if origin == Origin::Uplink && walker.retrace_homeward(&frame, (scratch, fate)) {
                meta.stage = Stage::Decided;
                continue;
            }
            walker.classify(origin, &frame, &mut meta.question);
            if let Some(at) = walker.slot(&meta.question) {
                cpu::prefetch(at);
            }
        }
        Ok(())
    }

    /// Carries out what becomes of the packets that were read; how many there were.
    fn walk_packets(&mut self, out: &mut Outlets, origin: Origin) -> usize {
        // A system call per packet outweighs what staging the deliveries would save.
        let left = self.scratch.iter_mut().zip(self.fates.iter_mut());
        for ((meta, packet), (scratch, fate)) in
            self.meta.iter().zip(&self.packets).zip(left).take(self.received)
        {
            let whole = &packet[..meta.len];
            let frame = Frame { head: whole, len: meta.len, offload: meta.offload };
            let settled = match meta.stage {
                Stage::Dropped => continue,
                Stage::Decided => true,
                Stage::Asked => out.walker.decide(&meta.question, &frame, scratch, fate),
            };
            if settled {
                out.walker.took(origin, 1, meta.len as u64);
            }
            let source = Source::Own(whole);
            if needs_software(fate) {
                special_delivery(out, &mut self.linear, origin, &frame, fate, scratch, source);
            } else {
                // What was decided at once is from the fabric.
                out.perform(origin, fate, || meta.flow_of::<true>(&frame), scratch, source);
            }
        }
        self.received
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
    out.perform(origin, fate, || flow, scratch, source);
    let mut more = needs_software(fate);
    // The core has as many as there are pieces and receivers.
    while more {
        let Some(next) = out.walker.next_copy(frame, scratch) else { return };
        more = needs_software(&next);
        let flow = out.flow(origin, &next, frame);
        out.perform(origin, &next, || flow, scratch, source);
    }
}
