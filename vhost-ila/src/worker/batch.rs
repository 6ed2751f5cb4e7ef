//! One batch through the walk, in stages, so that what a stage needs was asked for in the stage before.
//!
//! What must stay true: frames of one origin are delivered in the order they were taken, those that need software included.

use std::io;

use nve_core::DropReason;
use nve_core::packet::{ETHERNET_LEN, Frame, HEAD_LEN, MAX_FRAME, Offload};
use nve_core::pipeline::{Fate, Origin, PortId, Question, Scratch};

use super::again::Linear;
use super::delivery::{Outlets, Source, count_signal};
use crate::device::cpu;
use crate::device::net_header::{LEGACY_LEN, LEN, NetHeader, SenderOffloads};
use crate::device::ring::{BATCH, Chains};
use crate::uplink::MAX_PACKET;

/// Packets read from the uplink in one turn.
const UPLINK_BATCH: usize = 32;
/// Pieces of one fragmented packet; 64 KiB in pieces of 1280 bytes is 52.
const MAX_PIECES: usize = 64;

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

/// Buffers for one batch at a time; made once.
pub(super) struct Batch {
    chains: Chains,
    slots: Vec<Slot>,
    meta: Vec<Meta>,
    fates: Vec<Fate>,
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
            packets: (0..UPLINK_BATCH).map(|_| vec![0; MAX_PACKET]).collect(),
            linear: Linear::new(),
        }
    }

    /// Lets go of guest memory.
    pub(super) fn clear(&mut self) {
        self.chains.clear();
    }

    /// One batch of a guest's transmit ring; how many frames it had.
    #[inline]
    pub(super) fn transmit(&mut self, out: &mut Outlets, index: u16) -> usize {
        let Some(queue) = out.ports.get_mut(usize::from(index)).and_then(|p| p.transmit.as_deref_mut())
        else {
            return 0;
        };
        if queue.fault.is_some() {
            return 0;
        }
        let broken = queue.ring.take(&mut self.chains).err();
        let (header_len, allowed, enabled) = (queue.header_len, queue.allowed, queue.enabled);
        let count = self.chains.len();
        if count > 0 {
            let origin = Origin::Port(PortId(index));
            if enabled {
                self.walk_chains(out, origin, header_len, allowed);
            } else {
                (0..count).for_each(|_| out.walker.dropped(origin, DropReason::ReceiverDown));
            }
            self.give_back(out, index);
        }
        if let Some(fault) = broken {
            out.break_transmit(index, fault);
        }
        count
    }

    fn give_back(&mut self, out: &mut Outlets, index: u16) {
        let Some(queue) = out.ports.get_mut(usize::from(index)).and_then(|p| p.transmit.as_deref_mut())
        else {
            return;
        };
        queue.ring.finish(&self.chains);
        if queue.ring.publish()
            && let Some(call) = queue.events.call()
        {
            out.notifier.queue(call);
            count_signal(&queue.status, 1);
            out.counters.signals.add(1);
        }
    }

    #[inline]
    fn walk_chains(&mut self, out: &mut Outlets, origin: Origin, header_len: usize, allowed: SenderOffloads) {
        self.meta.clear();
        for (i, slot) in self.slots.iter_mut().enumerate().take(self.chains.len()) {
            let bytes = self.chains.bytes(i);
            let copied = self.chains.copy(i, 0, &mut slot.taken[..header_len + HEAD_LEN]);
            let mut meta =
                Meta { len: bytes.saturating_sub(header_len), offload: Offload::NONE, question: None };
            if copied < header_len + ETHERNET_LEN || meta.len > MAX_FRAME {
                out.walker.dropped(origin, DropReason::Malformed);
            } else {
                let header =
                    slot.taken.first_chunk::<LEGACY_LEN>().map(NetHeader::from_bytes).unwrap_or_default();
                match header.offload(allowed, ETHERNET_LEN as u16, meta.len) {
                    Ok(offload) => {
                        meta.offload = offload;
                        let frame = Frame { head: &slot.taken[header_len..copied], len: meta.len, offload };
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
        self.decide_chains(out, origin, header_len);
    }

    #[inline]
    fn decide_chains(&mut self, out: &mut Outlets, origin: Origin, header_len: usize) {
        self.fates.clear();
        let mut first = 0;
        for (i, meta) in self.meta.iter().enumerate() {
            let slot = &mut self.slots[i];
            let fate = match meta.question {
                None => Fate::Drop(DropReason::Malformed),
                Some(question) => {
                    let head = &slot.taken[header_len..header_len + HEAD_LEN.min(meta.len)];
                    let frame = Frame { head, len: meta.len, offload: meta.offload };
                    out.walker.decide(question, &frame, &mut slot.scratch)
                }
            };
            let special = needs_software(&fate);
            if !special {
                out.expect(origin, &fate);
            }
            self.fates.push(fate);
            if special {
                // What was decided before goes first; then this one, at once, while the core still holds its pieces.
                deliver(out, origin, header_len, &self.chains, &self.slots, &self.fates[first..i], first);
                first = i + 1;
                let source = Source::Chain { chains: &self.chains, index: i, header_len };
                let slot = &mut self.slots[i];
                let head = &slot.taken[header_len..header_len + HEAD_LEN.min(meta.len)];
                let frame = Frame { head, len: meta.len, offload: meta.offload };
                special_delivery(
                    out,
                    &mut self.linear,
                    origin,
                    &frame,
                    &self.fates[i],
                    &mut slot.scratch,
                    source,
                );
            }
        }
        deliver(out, origin, header_len, &self.chains, &self.slots, &self.fates[first..], first);
    }

    /// One batch from the uplink; how many packets there were.
    ///
    /// # Errors
    /// `NotConnected`: the uplink is gone for good.
    pub(super) fn receive(&mut self, out: &mut Outlets) -> io::Result<usize> {
        self.meta.clear();
        let origin = Origin::Uplink;
        for packet in &mut self.packets {
            let (len, header) = match out.uplink.receive(packet) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                // What was read before it is still to be served; the next look finds it gone again.
                Err(e) if self.meta.is_empty() && e.kind() == io::ErrorKind::NotConnected => return Err(e),
                // One packet the kernel could not hand over; not the end of the others.
                Err(_) => break,
            };
            let len = len.min(packet.len());
            let mut meta = Meta { len, offload: Offload::NONE, question: None };
            match header.offload(SenderOffloads::ALL, 0, len) {
                Ok(offload) => {
                    meta.offload = offload;
                    let question = out.walker.classify(origin, &Frame { head: &packet[..len], len, offload });
                    if let Some(at) = out.walker.slot(&question) {
                        cpu::prefetch(at);
                    }
                    meta.question = Some(question);
                }
                Err(_) => out.walker.dropped(origin, DropReason::BadOffload),
            }
            self.meta.push(meta);
        }
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
                out.perform(origin, &fate, &slot.scratch, source);
            }
        }
        Ok(self.meta.len())
    }
}

/// Whether a fate must be carried out before the next frame is decided.
#[inline]
fn needs_software(fate: &Fate) -> bool {
    match fate {
        Fate::Again(_) => true,
        Fate::Local(_, r) | Fate::Uplink(r) | Fate::Reply(r, _) => r.more,
        Fate::Drop(_) => false,
    }
}

/// Delivers plain fates; `first` is the batch index of the first.
#[inline]
fn deliver(
    out: &mut Outlets,
    origin: Origin,
    header_len: usize,
    chains: &Chains,
    slots: &[Slot],
    fates: &[Fate],
    first: usize,
) {
    out.prepare();
    for (i, fate) in fates.iter().enumerate() {
        let index = first + i;
        let source = Source::Chain { chains, index, header_len };
        out.perform(origin, fate, &slots[index].scratch, source);
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

/// Delivers a fate and, where there are more, the packet's other pieces, all to the same place.
pub(super) fn pieces(
    out: &mut Outlets,
    origin: Origin,
    frame: &Frame<'_>,
    fate: &Fate,
    scratch: &mut Scratch,
    source: Source<'_>,
) {
    out.perform(origin, fate, scratch, source);
    let mut more = needs_software(fate);
    for _ in 0..MAX_PIECES {
        if !more {
            return;
        }
        let Some(piece) = out.walker.next_piece(frame, scratch) else { return };
        more = piece.more;
        let piece = match fate {
            Fate::Local(port, _) => Fate::Local(*port, piece),
            Fate::Uplink(_) => Fate::Uplink(piece),
            Fate::Reply(_, reason) => Fate::Reply(piece, *reason),
            Fate::Drop(_) | Fate::Again(_) => return,
        };
        out.perform(origin, &piece, scratch, source);
    }
}
