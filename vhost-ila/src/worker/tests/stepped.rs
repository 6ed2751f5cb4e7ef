//! A worker without a thread: the test hands it rings and takes its turns, so what a turn costs can be counted and repeats.
//!
//! ```text
//!   Port: memory and drivers of one guest ──rings, kicks──> Stepped: Worker::start, Worker::turn
//! ```

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};

use nve_core::link::Link;
use nve_core::pipeline::Receiver;
use rustix::event::{EventfdFlags, eventfd};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};

use super::super::homes::Homes;
use super::super::poll::Worker;
use super::super::threads::Seat;
use super::*;
use crate::device::event::PeerEvent;
use crate::device::handover::{Events, Queue, ReceiveQueue, TransmitQueue, WorkerLink, links};
use crate::device::memory::Payload;
use crate::device::net_header::{NetHeader, SenderOffloads};
use crate::device::ring::{ReceiveRing, RingSpec, TransmitRing};
use crate::punt::{ThreadEnd, ends};

/// Entries of a ring.
pub(super) const ENTRIES: u16 = 256;
/// Bytes that a ring may take, and from one buffer to the next.
const RING: u64 = 0x4000;
const STRIDE: u64 = 2048;
/// Guest memory of a pair of rings and their buffers.
const PAIR: u64 = 2 * RING + 2 * STRIDE * ENTRIES as u64;

/// An uplink in memory: it gives the same packet so often, and counts what it is given.
#[derive(Clone)]
pub(super) struct Fabric {
    wire: Arc<Mutex<Wire>>,
    /// Readable while there is a packet, as a TUN is: whoever puts one there says so.
    pub(super) bell: Arc<File>,
}

#[derive(Default)]
pub(super) struct Wire {
    pub(super) packet: Vec<u8>,
    pub(super) left: usize,
    pub(super) sent: usize,
    /// How often it was looked at.
    pub(super) looks: usize,
    /// Whether this was readable at the last look.
    pub(super) beside: Option<(File, bool)>,
}

impl Fabric {
    pub(super) fn wire(&self) -> std::sync::MutexGuard<'_, Wire> {
        self.wire.lock().unwrap()
    }
}

impl Default for Fabric {
    fn default() -> Self {
        let bell = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        Self { wire: Arc::default(), bell: Arc::new(bell) }
    }
}

impl Uplink for Fabric {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    fn receive(&mut self, to: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        let mut wire = self.wire();
        wire.looks += 1;
        if let Some((event, was)) = &mut wire.beside {
            *was = count(event) > 0;
        }
        let Some(left) = wire.left.checked_sub(1) else { return Ok(None) };
        wire.left = left;
        to[..wire.packet.len()].copy_from_slice(&wire.packet);
        Ok(Some((wire.packet.len(), NetHeader::default())))
    }

    fn send(&mut self, _: NetHeader, _: &[u8], _: Payload<'_>) -> io::Result<()> {
        self.wire().sent += 1;
        Ok(())
    }
}

/// What an eventfd counts, which it counts anew from then on.
pub(super) fn count(mut event: &File) -> u64 {
    let mut bytes = [0; 8];
    event.read_exact(&mut bytes).map_or(0, |()| u64::from_ne_bytes(bytes))
}

/// The worker and what it would not run without.
pub(super) struct Stepped {
    pub(super) worker: Worker,
    pub(super) nve: Arc<Nve>,
    pub(super) fabric: Fabric,
    _beside: Beside,
}

/// What workers would not run without.
pub(super) struct Beside {
    _link: WorkerLink,
    _redirects: redirect::Service,
    _punt: ThreadEnd,
}

/// What so many workers are made of, each with an uplink of its own.
pub(super) fn seats(nve: &Arc<Nve>, count: u16) -> (Vec<(Seat, Fabric)>, Beside) {
    seats_at(nve, count, None)
}

/// The same, where the fabric may be a device with rings.
fn seats_at(nve: &Arc<Nve>, count: u16, end: Option<&Link>) -> (Vec<(Seat, Fabric)>, Beside) {
    let (link, inboxes) = links(count).unwrap();
    let (punts, punt) = ends(count).unwrap();
    let (redirects, notes) = redirect::Service::start(Arc::clone(nve)).unwrap();
    let homes = Homes::of(count);
    let seat = |((index, inbox), punts)| {
        let fabric = Fabric::default();
        let ways = Ways { uplink: Box::new(fabric.clone()), link: end.cloned(), outside: None };
        let seat = Seat {
            nve: Arc::clone(nve),
            place: (index, count),
            inbox,
            ways,
            homes: homes.clone(),
            punts,
            notes: notes.clone(),
            spin: Duration::ZERO,
            counters: Arc::default(),
        };
        (seat, fabric)
    };
    let seats = (0..).zip(inboxes).zip(punts).map(seat).collect();
    (seats, Beside { _link: link, _redirects: redirects, _punt: punt })
}

impl Stepped {
    pub(super) fn new(nve: Arc<Nve>) -> Self {
        Self::on(nve, None)
    }

    /// On a fabric that is a device with rings, at this end of its link.
    pub(super) fn on(nve: Arc<Nve>, link: Option<&Link>) -> Self {
        let (mut seats, beside) = seats_at(&nve, 1, link);
        let (seat, fabric) = seats.remove(0);
        Self { worker: Worker::new(seat).unwrap(), nve, fabric, _beside: beside }
    }

    /// What the worker spent.
    pub(super) fn report(&self) -> WorkerReport {
        self.worker.report()
    }

    /// A guest of `pairs` pairs behind attachment vm`n`, its receive rings full of buffers.
    pub(super) fn attach(&mut self, n: u8, pairs: u8) -> Port {
        self.attach_with(n, pairs, Rings::Split)
    }

    /// The same, with rings of this kind.
    pub(super) fn attach_with(&mut self, n: u8, pairs: u8, rings: Rings) -> Port {
        let (port, guest, queues) = guest(&self.nve, n, pairs, rings);
        queues.into_iter().for_each(|queue| self.worker.start(port, queue).unwrap());
        guest
    }

    /// The application that is the fabric, with a pair of rings.
    pub(super) fn attach_fabric(&mut self, rings: Rings) -> Port {
        let (guest, queues) = guest_at(&self.nve, PortId::FABRIC, 1, rings);
        queues.into_iter().for_each(|queue| self.worker.start(PortId::FABRIC, queue).unwrap());
        guest
    }
}

/// What kind of rings a guest has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rings {
    Split,
    /// With IN_ORDER, as DPDK's have it.
    Packed,
}

impl Rings {
    fn driver(self, base: u64) -> Driver {
        match self {
            Self::Split => Driver::new(base, ENTRIES),
            Self::Packed => Driver::packed(base, ENTRIES),
        }
    }
}

/// A guest of `pairs` pairs behind attachment vm`n`, its receive rings full of buffers, and its rings for workers.
pub(super) fn guest(nve: &Nve, n: u8, pairs: u8, rings: Rings) -> (PortId, Port, Vec<Queue>) {
    let port = nve.port(&format!("vm{n}")).unwrap();
    let (guest, queues) = guest_at(nve, port, pairs, rings);
    (port, guest, queues)
}

/// The same behind `port`.
fn guest_at(nve: &Nve, port: PortId, pairs: u8, rings: Rings) -> (Port, Vec<Queue>) {
    let ram = Ram::new(&[(0, PAIR * u64::from(pairs))]);
    let mut queues = Vec::new();
    let memory = ram.device_view();
    let status = Arc::new(Status::new(Offer::new(pairs, &[])));
    let mut guest = Port { ram, pairs: Vec::new() };
    for pair in 0..pairs {
        let base = PAIR * u64::from(pair);
        let [kick, came, went] = [(); 3].map(|()| File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap()));
        let ours = |event: &File| Some(PeerEvent::new(event.try_clone().unwrap()).unwrap());
        let [watched, rx_call, tx_call] = [&kick, &came, &went].map(ours);
        let mut ends = Pair {
            base,
            tx: rings.driver(base),
            rx: rings.driver(base + RING),
            kick,
            calls: [came, went],
            sent: 0,
        };
        let receive = |i: u16| Buffer { gpa: ends.buffer(i), len: STRIDE as u32, writable: true };
        let buffers: Vec<_> = (0..ENTRIES).map(receive).collect();
        for buffer in buffers {
            ends.rx.offer(&guest.ram, &[buffer]);
        }
        ends.rx.expose(&guest.ram);
        let spec = |addresses| RingSpec {
            memory: Arc::clone(&memory),
            addresses,
            size: ENTRIES,
            packed: rings == Rings::Packed,
            base: None,
            event_idx: true,
            in_order: rings == Rings::Packed,
            indirect: true,
            log: None,
        };
        let receive = Queue::Receive(Box::new(ReceiveQueue {
            pair,
            ring: ReceiveRing::new(&spec(ends.rx.front_end_addresses()), true).unwrap(),
            events: Events { call: rx_call, ..Events::default() },
            verified: true,
            fault: None,
            status: Arc::clone(&status),
        }));
        let transmit = Queue::Transmit(Box::new(TransmitQueue {
            pair,
            ring: TransmitRing::new(&spec(ends.tx.front_end_addresses())).unwrap(),
            events: Events { kick: watched, call: tx_call, ..Events::default() },
            allowed: SenderOffloads::ALL,
            enabled: true,
            fault: None,
            status: Arc::clone(&status),
        }));
        queues.extend([receive, transmit]);
        guest.pairs.push(ends);
    }
    nve.set_receiver(port, Receiver { up: true, csum: true, ..Receiver::default() });
    (guest, queues)
}

/// A guest: memory, and a driver for each ring.
pub(super) struct Port {
    pub(super) ram: Ram,
    pub(super) pairs: Vec<Pair>,
}

/// A guest's half of a pair of rings.
pub(super) struct Pair {
    base: u64,
    tx: Driver,
    rx: Driver,
    pub(super) kick: File,
    /// How it is interrupted: frames have come, frames have gone.
    pub(super) calls: [File; 2],
    sent: u16,
}

impl Pair {
    /// Where receive buffer `i` lies; those to send from are behind all of them.
    fn buffer(&self, i: u16) -> u64 {
        self.base + 2 * RING + STRIDE * u64::from(i)
    }

    /// Queues `count` times `frame`, with a virtio-net header that asks for nothing; the device sees them.
    pub(super) fn send(&mut self, ram: &Ram, frame: &[u8], count: u16) {
        self.send_in_turns(ram, &[frame], count);
    }

    /// The same of several frames in turns, `count` in all.
    pub(super) fn send_in_turns(&mut self, ram: &Ram, frames: &[impl AsRef<[u8]>], count: u16) {
        self.tx.take_used(ram);
        for frame in frames.iter().cycle().take(count.into()).map(AsRef::as_ref) {
            let gpa = self.buffer(ENTRIES) + STRIDE * u64::from(self.sent % ENTRIES);
            ram.write(gpa, &[0; 12]);
            ram.write(gpa + 12, frame);
            self.tx.offer(ram, &[Buffer { gpa, len: 12 + frame.len() as u32, writable: false }]);
            self.sent = self.sent.wrapping_add(1);
        }
        self.tx.expose(ram);
    }

    /// Kicks, where the device asked to be told of the `count` frames that were sent last (EVENT_IDX); whether it did.
    pub(super) fn kick_if_wanted(&self, ram: &Ram, count: u16) -> bool {
        let wanted = self.tx.available().wrapping_sub(self.tx.available_event(ram)).wrapping_sub(1) < count;
        if wanted {
            (&self.kick).write_all(&1_u64.to_ne_bytes()).unwrap();
        }
        wanted
    }

    /// Takes the frames that came, and offers their buffers again; how many there were.
    pub(super) fn receive(&mut self, ram: &Ram) -> usize {
        let used = self.rx.take_used(ram);
        // IN_ORDER: the buffers come back in the order of the descriptors, each at its own place.
        for (head, _) in &used {
            let gpa = self.buffer(*head as u16);
            self.rx.offer(ram, &[Buffer { gpa, len: STRIDE as u32, writable: true }]);
        }
        self.rx.expose(ram);
        used.len()
    }
}

/// A datagram of `len` bytes of Ethernet from vm`from` to `to`, which is an address of its family, with its checksums.
pub(super) fn frame(from: u8, to: &str, len: usize) -> Vec<u8> {
    let to: IpAddress = to.parse::<std::net::IpAddr>().unwrap().into();
    let udp = UdpRepr { src_port: 1000, dst_port: 2000 };
    let mut bytes = vec![0; len];
    bytes[..6].copy_from_slice(&[0x02, 0x49, 0x4c, 0x41, 0x00, 0x01]);
    bytes[6..12].copy_from_slice(&mac(from));
    let checksums = ChecksumCapabilities::default();
    let (at, source): (usize, IpAddress) = match to {
        IpAddress::Ipv4(dst_addr) => {
            bytes[12..14].copy_from_slice(&[0x08, 0x00]);
            let src_addr = [10, 1, 0, from].into();
            let repr = Ipv4Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Udp,
                payload_len: len - 34,
                hop_limit: 64,
            };
            repr.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &checksums);
            (34, src_addr.into())
        }
        IpAddress::Ipv6(dst_addr) => {
            bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
            let src_addr: std::net::Ipv6Addr = format!("2001:db8:b1:e::{from}").parse().unwrap();
            let repr = Ipv6Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Udp,
                payload_len: len - 54,
                hop_limit: 64,
            };
            repr.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[14..]));
            (54, src_addr.into())
        }
    };
    let mut packet = UdpPacket::new_unchecked(&mut bytes[at..]);
    udp.emit(&mut packet, &source, &to, len - at - 8, |payload| payload.fill(7), &checksums);
    bytes
}
