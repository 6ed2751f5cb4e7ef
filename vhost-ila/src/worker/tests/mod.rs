//! The daemon in this process, driven over real sockets by front-ends of the `vhost` crate and guests of our own.

mod connections;
mod costly;
mod dirty_log;
mod fabric;
mod hostile;
mod instructions;
mod life_cycle;
mod lines;
mod many_ports;
mod order;
mod pairs;
mod punt;
mod stepped;
mod task;
mod traffic;
mod train;
mod two_workers;
mod uplink;
mod wakes;

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nve_core::addr::{ChecksumMode, Vnid};
use nve_core::pipeline::Nve;
use nve_core::setup::{Attachment, Host, Instance, Multicast, Network, Setup};
use smoltcp::wire::EthernetAddress;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::*;
use crate::config::SocketMode;
use crate::device::connection;
use crate::device::features::Offer;
use crate::device::guest::{Buffer, Driver, Ram};
use crate::device::handover::Role;
use crate::device::memory::MAX_BYTES;
use crate::device::server::Stop;
use crate::device::session::Session;
use crate::device::status::{RingReport, Status};

const REGIONS: [(u64, u64); 2] = [(0, 0x10_0000), (0x10_0000, 0x30_0000)];
const RX_RING: u64 = 0;
const TX_RING: u64 = 0x1_0000;
const RX_DATA: u64 = 0x10_0000;
const TX_DATA: u64 = 0x20_0000;
const BUFFER: u64 = 2048;
const SIZE: u16 = 256;
const WAIT: Duration = Duration::from_secs(30);

fn mac(n: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, n]
}

/// One VN, attachments vm1.. with addresses 10.1.0.1.. and 2001:db8:b1:e::1..
fn setup(count: u8) -> Setup {
    let attachment = |n: u8| Attachment {
        name: format!("vm{n}"),
        network: "blue".into(),
        mac: EthernetAddress(mac(n)),
        addresses: vec![
            format!("10.1.0.{n}").parse().unwrap(),
            format!("2001:db8:b1:e::{n}").parse().unwrap(),
        ],
        hostname: None,
        instance: Instance::default(),
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
    };
    Setup {
        networks: vec![Network {
            ipv4: Some("10.1.0.0/16".parse().unwrap()),
            ipv6: Some("2001:db8:b1:e::/96".parse().unwrap()),
            // Nobody is asked who listens: what a guest receives is what the test sends.
            multicast: Multicast::Flood,
            ..Network::named("blue", Vnid::new(1001).unwrap())
        }],
        attachments: (1..=count).map(attachment).collect(),
        ..Setup::of(Host {
            name: "hv1".into(),
            locator: "2001:db8:0:1::/64".parse().unwrap(),
            sir: "2001:db8:51::/64".parse().unwrap(),
            checksum: ChecksumMode::Neutral,
            uplink_mtu: 1500,
            unknown: Default::default(),
        })
    }
}

fn nve(count: u8) -> Arc<Nve> {
    Nve::new(setup(count).check().unwrap(), 64)
}

struct Lab {
    dir: tempfile::TempDir,
    nve: Arc<Nve>,
    daemon: DaemonHandle,
}

fn device(dir: &Path, n: u8) -> DeviceConfig {
    let name = format!("vm{n}");
    DeviceConfig {
        socket: dir.join(format!("{name}.sock")),
        name,
        mode: SocketMode::Server,
        mac: mac(n),
        user: None,
        memory_max: MAX_BYTES,
        offer: offer(),
    }
}

impl Lab {
    fn new(count: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nve = nve(count);
        let config = DaemonConfig {
            devices: (1..=count).map(|n| device(dir.path(), n)).collect(),
            uplink: UplinkConfig::None { mtu: 1500 },
            gateway: None,
            spin: Duration::ZERO,
            workers: WORKERS.get(),
        };
        let daemon = Daemon::start(config, Arc::clone(&nve)).unwrap();
        Self { dir, nve, daemon }
    }

    fn socket(&self, n: u8) -> PathBuf {
        self.dir.path().join(format!("vm{n}.sock"))
    }

    fn report(&self, n: u8) -> AttachmentReport {
        let name = format!("vm{n}");
        self.daemon.status().attachments.into_iter().find(|a| a.name == name).unwrap()
    }

    fn ring(&self, n: u8, role: Role) -> RingReport {
        self.report(n).rings.into_iter().find(|ring| ring.role == role).unwrap()
    }

    fn transmit_fault(&self, n: u8) -> Option<String> {
        self.ring(n, Role::Transmit(0)).fault
    }

    fn drops(&self, n: u8, reason: nve_core::DropReason) -> u64 {
        let totals = self.nve.counters();
        let name = format!("vm{n}");
        let (_, port) = totals.ports.iter().find(|(port, _)| *port == name).unwrap();
        port.dropped(reason)
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

thread_local! {
    /// The kind of rings of this test's guests.
    static PACKED: Cell<bool> = const { Cell::new(false) };
    /// The workers of this test's daemons.
    static WORKERS: Cell<u16> = const { Cell::new(1) };
}

/// Runs a test with guests of split rings, and again with guests of packed ones; and each with one worker and with two, between which
/// every two neighbours are.
fn over_both_kinds(test: impl Fn()) {
    with_one_and_two_workers(|| {
        for packed in [false, true] {
            PACKED.set(packed);
            test();
        }
        PACKED.set(false);
    });
}

/// Runs a test with one worker, and with two.
fn with_one_and_two_workers(test: impl Fn()) {
    for workers in [1, 2] {
        WORKERS.set(workers);
        test();
    }
    WORKERS.set(1);
}

/// What devices offer.
fn offer() -> Offer {
    if PACKED.get() { Offer::default().with_packed_rings() } else { Offer::default() }
}

/// The driver of a ring of this test's kind.
fn driver(base: u64, size: u16) -> Driver {
    if PACKED.get() { Driver::packed(base, size) } else { Driver::new(base, size) }
}

/// What a front-end accepts that does not migrate its guest and serves the control queue itself, as QEMU does.
fn accepted() -> u64 {
    offer().virtio() & !LOG_ALL & !CTRL_VQ
}

/// VIRTIO_NET_F_CTRL_VQ.
const CTRL_VQ: u64 = 1 << 17;
/// VHOST_F_LOG_ALL.
const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();

struct Guest {
    frontend: Frontend,
    ram: Ram,
    rx: Driver,
    tx: Driver,
    rx_events: (EventFd, EventFd),
    tx_events: (EventFd, EventFd),
    /// Where the buffer behind each head lies.
    rx_buffers: Vec<u64>,
    /// What SET_VRING_BASE says.
    bases: [u16; 2],
    sent: u64,
}

impl Guest {
    fn connect(socket: &Path) -> Self {
        Self::with_features(socket, accepted())
    }

    fn with_features(socket: &Path, features: u64) -> Self {
        let mut frontend = Frontend::connect(socket, 20).unwrap();
        let ram = Ram::new(&REGIONS);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap(), offer().virtio());
        let protocol = frontend.get_protocol_features().unwrap();
        assert_eq!(protocol, Offer::default().protocol());
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(features).unwrap();
        let event = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let mut guest = Self {
            frontend,
            ram,
            rx: driver(RX_RING, SIZE),
            tx: driver(TX_RING, SIZE),
            rx_events: (event(), event()),
            tx_events: (event(), event()),
            rx_buffers: vec![0; usize::from(SIZE)],
            bases: [driver(0, SIZE).first_base(); 2],
            sent: 0,
        };
        guest.share_memory();
        (0..SIZE).for_each(|i| guest.offer(RX_DATA + BUFFER * u64::from(i)));
        guest.rx.expose(&guest.ram);
        guest.start(0);
        guest.start(1);
        guest
    }

    fn share_memory(&self) {
        let regions: Vec<_> = self
            .ram
            .regions
            .iter()
            .map(|r| VhostUserMemoryRegionInfo {
                guest_phys_addr: r.gpa,
                memory_size: r.len,
                userspace_addr: r.uva,
                mmap_offset: r.offset,
                mmap_handle: self.ram.file.as_raw_fd(),
            })
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
    }

    fn start(&mut self, index: usize) {
        let (driver, events) =
            if index == 0 { (&self.rx, &self.rx_events) } else { (&self.tx, &self.tx_events) };
        let at = driver.front_end_addresses();
        self.frontend.set_vring_num(index, SIZE).unwrap();
        let config = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: at.descriptors,
            used_ring_addr: at.used,
            avail_ring_addr: at.available,
            log_addr: None,
        };
        self.frontend.set_vring_addr(index, &config).unwrap();
        self.frontend.set_vring_base(index, self.bases[index]).unwrap();
        self.frontend.set_vring_call(index, &events.1).unwrap();
        self.frontend.set_vring_kick(index, &events.0).unwrap();
        self.frontend.set_vring_enable(index, true).unwrap();
    }

    /// Takes a ring back; where it was, without packed rings' wrap counter and their other half, which says the same.
    fn stop(&mut self, index: usize) -> u32 {
        let base = self.frontend.get_vring_base(index).unwrap();
        self.bases[index] = base as u16;
        if !PACKED.get() {
            return base;
        }
        assert_eq!(base >> 16, base & 0xffff);
        base & 0x7fff
    }

    fn offer(&mut self, gpa: u64) {
        let head = self.rx.offer(&self.ram, &[Buffer { gpa, len: BUFFER as u32, writable: true }]);
        self.rx_buffers[usize::from(head)] = gpa;
    }

    fn queue(&mut self, frame: &[u8]) {
        self.tx.take_used(&self.ram);
        let gpa = TX_DATA + BUFFER * (self.sent % 128);
        self.ram.write(gpa, &[0; 12]);
        self.ram.write(gpa + 12, frame);
        self.tx.offer(&self.ram, &[Buffer { gpa, len: 12 + frame.len() as u32, writable: false }]);
        self.sent += 1;
    }

    fn kick(&mut self) {
        self.tx.expose(&self.ram);
        self.tx_events.0.write(1).unwrap();
    }

    fn send(&mut self, frame: &[u8]) {
        self.queue(frame);
        self.kick();
    }

    /// The next frame, once the device has signalled it.
    fn receive(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        until("a frame arrives", || {
            // A wake without a frame, or none, is looked at again.
            let _ = self.rx_events.1.read();
            got = self.take();
            !got.is_empty()
        });
        assert_eq!(got.len(), 1, "one frame");
        got.remove(0)
    }

    /// What has arrived, without virtio-net headers; buffers are offered again.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let used = self.rx.take_used(&self.ram);
        let frames: Vec<_> = used
            .iter()
            .map(|(head, len)| {
                let gpa = self.rx_buffers[*head as usize];
                let frame = self.ram.read(gpa + 12, *len as usize - 12);
                self.offer(gpa);
                frame
            })
            .collect();
        self.rx.expose(&self.ram);
        frames
    }
}

/// A UDP datagram from vm`from` to vm`to`, sent to the virtual gateway's MAC; checksum zero, which IPv4 allows.
fn datagram(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0x49, 0x4c, 0x41, 0x00, 0x01];
    frame.extend(mac(from));
    frame.extend([0x08, 0x00]);
    let len = (28 + payload.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, from, 10, 1, 0, to];
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend([0x30, 0x39, 0x30, 0x39]);
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

fn payload_of(frame: &[u8]) -> &[u8] {
    &frame[42..]
}
