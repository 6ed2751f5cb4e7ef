//! One frame to one place, as the core decided; what went wrong is told to the core, which counts it by name.

use nve_core::DropReason;
use nve_core::pipeline::{Fate, Nve, Origin, PortId, Rewritten, Scratch, Walker};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::WorkerCounters;
use crate::device::event::Notifier;
use crate::device::handover::{ReceiveQueue, TransmitQueue};
use crate::device::memory::Payload;
use crate::device::net_header::NetHeader;
use crate::device::ring::{Chains, NoRoom, RingFault};
use crate::device::status::{RINGS, Status};
use crate::uplink::Uplink;

/// The rings of one attachment that run.
#[derive(Default, Debug)]
pub(super) struct Port {
    pub(super) receive: Option<Box<ReceiveQueue>>,
    pub(super) transmit: Option<Box<TransmitQueue>>,
    /// Frames of the present batch that will go to its receive ring.
    expected: u16,
    /// Its receive ring has something to publish.
    touched: bool,
}

/// Where the untouched part of a frame lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// A chain of a guest; the frame begins after `header_len` bytes of it.
    Chain { chains: &'a Chains, index: usize, header_len: usize },
    /// The whole frame, in memory of ours.
    Own(&'a [u8]),
}

impl<'a> Source<'a> {
    #[inline]
    fn payload(&self, rewritten: &Rewritten) -> Payload<'a> {
        let tail = &rewritten.tail;
        match *self {
            Self::Chain { chains, index, header_len } => {
                chains.payload(index, header_len + tail.start..header_len + tail.end)
            }
            Self::Own(bytes) => Payload::own(bytes.get(tail.clone()).unwrap_or_default()),
        }
    }

    /// Copies the whole frame to the start of `to`; how many bytes there were.
    pub(super) fn linearise(&self, to: &mut [u8]) -> usize {
        match *self {
            Self::Chain { chains, index, header_len } => chains.copy(index, header_len, to),
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
    /// Ports whose receive ring this turn wrote to.
    touched: Vec<u16>,
    /// Ports that the present batch goes to.
    expected: Vec<u16>,
    pub(super) uplink: Box<dyn Uplink>,
    pub(super) notifier: Notifier,
    pub(super) counters: Arc<WorkerCounters>,
    /// When the last fault was logged: a hostile front-end can cause one with every message.
    logged: Option<Instant>,
}

impl Outlets {
    pub(super) fn new(
        nve: Arc<Nve>,
        uplink: Box<dyn Uplink>,
        notifier: Notifier,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let walker = Walker::new(Arc::clone(&nve));
        Self {
            nve,
            walker,
            ports: Vec::new(),
            touched: Vec::new(),
            expected: Vec::new(),
            uplink,
            notifier,
            counters,
            logged: None,
        }
    }

    /// Makes room for `port`, so that nothing grows on the data path.
    pub(super) fn admit(&mut self, port: PortId) -> &mut Port {
        let index = usize::from(port.0);
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, Port::default);
            self.touched.reserve(self.ports.len());
            self.expected.reserve(self.ports.len());
        }
        &mut self.ports[index]
    }

    /// Notes that a frame with this fate is coming, for [`Self::prepare`].
    #[inline]
    pub(super) fn expect(&mut self, origin: Origin, fate: &Fate) {
        let port = match (fate, origin) {
            (Fate::Local(port, _), _) => *port,
            (Fate::Reply(..), Origin::Port(port)) => port,
            _ => return,
        };
        if let Some(slot) = self.ports.get_mut(usize::from(port.0)) {
            if slot.expected == 0 {
                self.expected.push(port.0);
            }
            slot.expected += 1;
        }
    }

    /// Fetches the buffers that the expected frames will need, each ring once.
    #[inline]
    pub(super) fn prepare(&mut self) {
        while let Some(index) = self.expected.pop() {
            let Some(port) = self.ports.get_mut(usize::from(index)) else { continue };
            let frames = usize::from(std::mem::take(&mut port.expected));
            if let Some(queue) = port.receive.as_deref_mut()
                && queue.fault.is_none()
                && let Err(fault) = queue.ring.prepare(frames)
            {
                self.break_receive(index, fault);
            }
        }
    }

    /// Carries out a fate that needs nothing more than a copy.
    #[inline]
    pub(super) fn perform(&mut self, origin: Origin, fate: &Fate, scratch: &Scratch, source: Source<'_>) {
        match fate {
            Fate::Local(port, rewritten) => self.give_to_port(origin, *port, rewritten, scratch, source),
            Fate::Uplink(rewritten) => self.give_to_uplink(origin, rewritten, scratch, source),
            Fate::Reply(rewritten, _) => match origin {
                Origin::Port(port) => self.give_to_port(origin, port, rewritten, scratch, source),
                Origin::Uplink => self.give_to_uplink(origin, rewritten, scratch, source),
            },
            // Counted by the core; asked for again by `again.rs`.
            Fate::Drop(_) | Fate::Again(_) => {}
        }
    }

    #[inline]
    fn give_to_port(
        &mut self,
        origin: Origin,
        port: PortId,
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        let slot = self.ports.get_mut(usize::from(port.0));
        let Some((slot, head)) = slot.zip(scratch.head.get(rewritten.head.clone())) else {
            return self.walker.dropped(origin, DropReason::ReceiverDown);
        };
        let Some(queue) = slot.receive.as_deref_mut().filter(|q| q.fault.is_none()) else {
            return self.walker.dropped(origin, DropReason::ReceiverDown);
        };
        let header = NetHeader::for_frame(&rewritten.offload, head, queue.verified);
        match queue.ring.deliver(header, head, source.payload(rewritten)) {
            Ok(()) => {
                if !slot.touched {
                    slot.touched = true;
                    self.touched.push(port.0);
                }
                self.walker.delivered(origin, Origin::Port(port), rewritten.len());
            }
            Err(NoRoom::Full) => self.walker.dropped(origin, DropReason::ReceiverFull),
            Err(NoRoom::Broken(fault)) => {
                self.break_receive(port.0, fault);
                self.walker.dropped(origin, DropReason::ReceiverDown);
            }
        }
    }

    fn give_to_uplink(
        &mut self,
        origin: Origin,
        rewritten: &Rewritten,
        scratch: &Scratch,
        source: Source<'_>,
    ) {
        let head = scratch.head.get(rewritten.head.clone()).unwrap_or_default();
        let header = NetHeader::for_packet(&rewritten.offload, head);
        match self.uplink.send(header, head, source.payload(rewritten)) {
            Ok(()) => self.walker.delivered(origin, Origin::Uplink, rewritten.len()),
            Err(_) => self.walker.dropped(origin, DropReason::UplinkFull),
        }
    }

    /// Shows every receiver what this turn wrote, and queues the interrupts they asked for.
    #[inline]
    pub(super) fn publish(&mut self) {
        while let Some(index) = self.touched.pop() {
            let Some(port) = self.ports.get_mut(usize::from(index)) else { continue };
            port.touched = false;
            if let Some(queue) = port.receive.as_deref_mut()
                && queue.ring.publish()
                && let Some(call) = queue.events.call()
            {
                self.notifier.queue(call);
                count_signal(&queue.status, 0);
                self.counters.signals.add(1);
            }
        }
    }

    /// Stops using a receive ring, once, by name.
    pub(super) fn break_receive(&mut self, index: u16, fault: RingFault) {
        let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
        let Some(queue) = port.receive.as_deref_mut() else { return };
        queue.fault = Some(fault);
        if let Some(status) = queue.status.ring(0) {
            status.set_fault(Some(fault));
        }
        if let Some(error) = &queue.events.error {
            self.notifier.queue(std::os::fd::AsFd::as_fd(error));
        }
        let receiver = self.nve.receiver(PortId(index));
        self.nve.set_receiver(PortId(index), nve_core::pipeline::Receiver { up: false, ..receiver });
        self.log_fault("receive", index, fault);
    }

    /// Stops using a transmit ring, once, by name.
    pub(super) fn break_transmit(&mut self, index: u16, fault: RingFault) {
        let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
        let Some(queue) = port.transmit.as_deref_mut() else { return };
        queue.fault = Some(fault);
        if let Some(status) = queue.status.ring(1) {
            status.set_fault(Some(fault));
        }
        if let Some(error) = &queue.events.error {
            self.notifier.queue(std::os::fd::AsFd::as_fd(error));
        }
        self.log_fault("transmit", index, fault);
    }

    /// At most one line a second; the status names every fault.
    fn log_fault(&mut self, side: &str, index: u16, fault: RingFault) {
        let now = Instant::now();
        if self.logged.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1)) {
            self.logged = Some(now);
            log::warn!("{side} ring of port {index} stopped: {fault}");
        }
    }
}

/// One interrupt to the guest, on ring `index`.
#[inline]
pub(super) fn count_signal(status: &Status, index: usize) {
    const { assert!(RINGS == 2, "receive and transmit") };
    if let Some(ring) = status.ring(index) {
        ring.signals.add(1);
    }
}
