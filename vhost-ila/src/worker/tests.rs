//! The daemon in this process, driven over real sockets by front-ends of the `vhost` crate and guests of our own.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nve_core::addr::{ChecksumMode, Vnid};
use nve_core::gateway::Lease4;
use nve_core::pipeline::Nve;
use nve_core::setup::{Attachment, Host, Network, Setup};
use smoltcp::wire::EthernetAddress;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::*;
use crate::config::SocketMode;
use crate::device::connection;
use crate::device::features::{OFFERED, PROTOCOL};
use crate::device::guest::{Buffer, Driver, Ram};
use crate::device::handler::Session;
use crate::device::memory::Payload;
use crate::device::net_header::NetHeader;
use crate::device::server::Stop;
use crate::device::status::Status;

const REGIONS: [(u64, u64); 2] = [(0, 0x10_0000), (0x10_0000, 0x30_0000)];
const RX_RING: u64 = 0;
const TX_RING: u64 = 0x1_0000;
const RX_DATA: u64 = 0x10_0000;
const TX_DATA: u64 = 0x20_0000;
const BUFFER: u64 = 2048;
const SIZE: u16 = 256;
const WAIT: Duration = Duration::from_secs(5);

fn mac(n: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, n]
}

/// One VN, attachments vm1.. with addresses 10.1.0.1.. and 2001:db8:b1:e::1..
fn nve(count: u8) -> Arc<Nve> {
    let attachment = |n: u8| Attachment {
        name: format!("vm{n}"),
        network: "blue".into(),
        mac: EthernetAddress(mac(n)),
        addresses: vec![
            format!("10.1.0.{n}").parse().unwrap(),
            format!("2001:db8:b1:e::{n}").parse().unwrap(),
        ],
        hostname: None,
    };
    let setup = Setup {
        host: Host {
            name: "hv1".into(),
            locator: "2001:db8:0:1::/64".parse().unwrap(),
            sir: "2001:db8:51::/64".parse().unwrap(),
            checksum: ChecksumMode::Neutral,
            uplink_mtu: 1500,
        },
        networks: vec![Network {
            name: "blue".into(),
            vnid: Vnid::new(1001).unwrap(),
            ipv4: Some("10.1.0.0/16".parse().unwrap()),
            ipv6: Some("2001:db8:b1:e::/96".parse().unwrap()),
            gateway4: None,
            gateway6: None,
            dns: vec![],
            domain: None,
            lease4: Lease4::Subnet,
        }],
        attachments: (1..=count).map(attachment).collect(),
        mappings: vec![],
    };
    Nve::new(setup.check().unwrap(), 64)
}

struct Lab {
    dir: tempfile::TempDir,
    nve: Arc<Nve>,
    daemon: DaemonHandle,
}

fn device(dir: &Path, n: u8) -> DeviceConfig {
    let name = format!("vm{n}");
    DeviceConfig { socket: dir.join(format!("{name}.sock")), name, mode: SocketMode::Server, mac: mac(n) }
}

impl Lab {
    fn new(count: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nve = nve(count);
        let config = DaemonConfig {
            devices: (1..=count).map(|n| device(dir.path(), n)).collect(),
            uplink: UplinkConfig::None { mtu: 1500 },
            spin: Duration::ZERO,
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

struct Guest {
    frontend: Frontend,
    ram: Ram,
    rx: Driver,
    tx: Driver,
    rx_events: (EventFd, EventFd),
    tx_events: (EventFd, EventFd),
    /// Where the buffer behind each head lies.
    rx_buffers: Vec<u64>,
    sent: u64,
}

impl Guest {
    fn connect(socket: &Path) -> Self {
        Self::with_features(socket, OFFERED)
    }

    fn with_features(socket: &Path, features: u64) -> Self {
        let mut frontend = Frontend::connect(socket, 4).unwrap();
        let ram = Ram::new(&REGIONS);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap(), OFFERED);
        assert_eq!(frontend.get_protocol_features().unwrap(), PROTOCOL);
        frontend.set_protocol_features(PROTOCOL).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(features).unwrap();
        let event = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let mut guest = Self {
            frontend,
            ram,
            rx: Driver::new(RX_RING, SIZE),
            tx: Driver::new(TX_RING, SIZE),
            rx_events: (event(), event()),
            tx_events: (event(), event()),
            rx_buffers: vec![0; usize::from(SIZE)],
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
        self.frontend.set_vring_base(index, 0).unwrap();
        self.frontend.set_vring_call(index, &events.1).unwrap();
        self.frontend.set_vring_kick(index, &events.0).unwrap();
        self.frontend.set_vring_enable(index, true).unwrap();
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

    fn kick(&self) {
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

#[test]
fn two_guests_of_one_host_talk() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    for round in 0..300u32 {
        let text = round.to_le_bytes().repeat(1 + round as usize);
        a.send(&datagram(1, 2, &text));
        let got = b.receive();
        assert_eq!(got[..6], mac(2), "addressed to the receiver");
        assert_eq!(payload_of(&got), text);
        b.send(&datagram(2, 1, &text));
        assert_eq!(payload_of(&a.receive()), text);
    }
    let worker = &lab.daemon.status().workers[0];
    assert!(worker.packets >= 600 && worker.cycles_per_packet > 0, "{worker:?}");
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    for i in 0..100u8 {
        a.queue(&datagram(1, 2, &[i; 64]));
    }
    a.kick();
    let mut got = Vec::new();
    until("all arrive", || {
        got.extend(b.take());
        got.len() >= 100
    });
    for (i, frame) in got.iter().enumerate() {
        assert_eq!(payload_of(frame), [i as u8; 64]);
    }
}

#[test]
fn a_front_end_reads_mac_and_mtu_from_the_configuration_space() {
    let lab = Lab::new(1);
    let mut guest = Guest::connect(&lab.socket(1));
    let (_, space) = guest.frontend.get_config(0, 12, VhostUserConfigFlags::empty(), &[0; 12]).unwrap();
    assert_eq!(space[..6], mac(1));
    assert_eq!(u16::from_le_bytes([space[10], space[11]]), lab.nve.mtu(lab.nve.port("vm1").unwrap()));
}

#[test]
fn a_new_front_end_takes_over_after_the_old_one_died() {
    let lab = Lab::new(2);
    let mut b = Guest::connect(&lab.socket(2));
    for round in 1..=5u8 {
        let mut a = Guest::connect(&lab.socket(1));
        a.send(&datagram(1, 2, &[round; 10]));
        assert_eq!(payload_of(&b.receive()), [round; 10]);
        b.send(&datagram(2, 1, &[round; 20]));
        assert_eq!(payload_of(&a.receive()), [round; 20]);
    }
    until("gone", || !lab.report(1).connected);
    let before = lab.drops(2, nve_core::DropReason::ReceiverDown);
    b.send(&datagram(2, 1, &[0; 20]));
    until("dropped by name", || lab.drops(2, nve_core::DropReason::ReceiverDown) == before + 1);
    assert_eq!(lab.report(1).connections, 5);
}

#[test]
fn a_stopped_ring_says_where_it_was_and_goes_on_from_there() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    for i in 0..3 {
        a.send(&datagram(1, 2, &[i; 10]));
        b.receive();
    }
    assert_eq!(a.frontend.get_vring_base(1).unwrap(), 3);
    assert_eq!(b.frontend.get_vring_base(0).unwrap(), 3);
    a.send(&datagram(1, 2, &[7; 10]));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(b.take(), Vec::<Vec<u8>>::new(), "nothing moves while stopped");
    b.start(0);
    a.start(1);
    assert_eq!(payload_of(&b.receive()), [7; 10]);
}

#[test]
fn a_disabled_transmit_ring_is_emptied_into_nowhere_and_a_disabled_receive_ring_gets_nothing() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    a.frontend.set_vring_enable(1, false).unwrap();
    a.send(&datagram(1, 2, &[1; 10]));
    until("given back", || a.tx.take_used(&a.ram).len() == 1);
    a.frontend.set_vring_enable(1, true).unwrap();
    b.frontend.set_vring_enable(0, false).unwrap();
    a.send(&datagram(1, 2, &[2; 10]));
    until("dropped by name", || lab.drops(1, nve_core::DropReason::ReceiverDown) == 2);
    b.frontend.set_vring_enable(0, true).unwrap();
    a.send(&datagram(1, 2, &[3; 10]));
    assert_eq!(payload_of(&b.receive()), [3; 10], "neither of the first two");
}

#[test]
fn live_changes_of_call_memory_and_features_lose_nothing() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    for i in 0..20u8 {
        b.rx_events.1 = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        b.frontend.set_vring_call(0, &b.rx_events.1).unwrap();
        a.share_memory();
        b.share_memory();
        a.tx_events.0 = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        a.frontend.set_vring_kick(1, &a.tx_events.0).unwrap();
        a.frontend.set_features(OFFERED).unwrap();
        a.send(&datagram(1, 2, &[i; 10]));
        assert_eq!(payload_of(&b.receive()), [i; 10]);
    }
}

#[test]
fn a_broken_ring_stops_alone_and_is_named() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let c = Guest::connect(&lab.socket(3));
    c.tx.expose_index(&c.ram, 0x4000);
    c.tx_events.0.write(1).unwrap();
    until("named", || lab.report(3).transmit.fault.is_some());
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here");
    assert!(lab.report(3).connected);
}

#[test]
fn memory_cut_off_under_a_ring_stops_that_attachment_only() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let c = Guest::connect(&lab.socket(3));
    c.ram.file.set_len(0).unwrap();
    c.tx_events.0.write(1).unwrap();
    until("named", || lab.report(3).transmit.fault.is_some());
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here");
}

#[test]
fn a_refused_message_closes_that_connection_with_a_reason() {
    let lab = Lab::new(1);
    type Attack = fn(&mut Guest) -> bool;
    let attacks: [(&str, Attack); 7] = [
        ("a ring size that is no power of two", |g| g.frontend.set_vring_num(1, 100).is_err()),
        ("a ring that does not exist", |g| g.frontend.set_vring_num(2, 128).is_err()),
        ("a feature never offered", |g| g.frontend.set_features(1 << 34).is_err()),
        ("a second owner", |g| g.frontend.set_owner().is_err()),
        ("a protocol feature never offered", |g| {
            // The crate does not wait for the answer to this one.
            g.frontend.set_protocol_features(VhostUserProtocolFeatures::STATUS).is_ok()
        }),
        ("a region longer than its file", |g| {
            let region = VhostUserMemoryRegionInfo {
                guest_phys_addr: 0x1000_0000,
                memory_size: 0x100_0000,
                userspace_addr: 0x1000_0000,
                mmap_offset: 0,
                mmap_handle: g.ram.fd(),
            };
            g.frontend.add_mem_region(&region).is_err()
        }),
        ("a region nobody added", |g| {
            let region = VhostUserMemoryRegionInfo {
                guest_phys_addr: 0x1000_0000,
                memory_size: 0x1000,
                userspace_addr: 0x1000_0000,
                mmap_offset: 0,
                mmap_handle: g.ram.fd(),
            };
            g.frontend.remove_mem_region(&region).is_err()
        }),
    ];
    for (what, attack) in attacks {
        let mut guest = Guest::connect(&lab.socket(1));
        assert!(attack(&mut guest), "{what}");
        until(what, || !lab.report(1).connected);
        assert!(lab.report(1).last_fault.is_some(), "{what}");
    }
}

#[test]
fn a_region_can_be_added_and_removed_under_traffic() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let extra = Ram::new(&[(0x1000_0000, 0x10_0000)]);
    let info = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0x1000_0000,
        memory_size: 0x10_0000,
        userspace_addr: 0x1000_0000,
        mmap_offset: 0,
        mmap_handle: extra.fd(),
    };
    assert_eq!(a.frontend.get_max_mem_slots().unwrap(), 64);
    a.frontend.add_mem_region(&info).unwrap();
    let frame = datagram(1, 2, b"from the new memory");
    extra.write(0x1000_0000 + 12, &frame);
    let buffer = Buffer { gpa: 0x1000_0000, len: 12 + frame.len() as u32, writable: false };
    a.tx.offer(&a.ram, &[buffer]);
    a.kick();
    assert_eq!(payload_of(&b.receive()), b"from the new memory");
    a.frontend.remove_mem_region(&info).unwrap();
    a.send(&datagram(1, 2, b"from the old"));
    assert_eq!(payload_of(&b.receive()), b"from the old");
    a.tx.offer(&a.ram, &[buffer]);
    a.kick();
    until("the hole is named", || lab.report(1).transmit.fault.is_some());
}

#[test]
fn descriptors_and_mappings_return_to_what_they_were() {
    let lab = Lab::new(2);
    let count = |what: &str| match what {
        "fd" => std::fs::read_dir("/proc/self/fd").unwrap().count(),
        _ => std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:guest").count(),
    };
    // Other tests of this process open and close things too: the least of many looks is compared.
    let least = |what: &str| (0..50).map(|_| count(what)).min().unwrap();
    drop(Guest::connect(&lab.socket(1)));
    until("gone", || !lab.report(1).connected);
    let before = least("fd");
    for _ in 0..30 {
        let mut guest = Guest::connect(&lab.socket(1));
        guest.send(&datagram(1, 2, &[0; 10]));
    }
    until("gone", || !lab.report(1).connected);
    until("descriptors are back", || least("fd") <= before + 20);
}

#[test]
fn a_client_connects_again_and_again() {
    let lab = Lab::new(1);
    let path = lab.dir.path().join("front-end.sock");
    let config = DeviceConfig { socket: path.clone(), mode: SocketMode::Client, ..device(lab.dir.path(), 1) };
    lab.daemon.apply(&[config]).unwrap();
    for _ in 0..3 {
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap(), OFFERED);
        drop(listener);
        std::fs::remove_file(&path).unwrap();
    }
}

/// An uplink that fails in one way, and counts how often it was asked.
struct Failing(fn() -> io::Error, Arc<std::sync::atomic::AtomicU32>);

impl Uplink for Failing {
    fn readable(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
    fn receive(&mut self, _: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Err(self.0())
    }
    fn send(&mut self, _: NetHeader, _: &[u8], _: Payload<'_>) -> io::Result<()> {
        Err(self.0())
    }
}

/// A daemon that spins on an uplink that fails with what `error` makes, and how often it looked at it.
fn with_failing_uplink(error: fn() -> io::Error) -> (DaemonHandle, impl Fn() -> u32) {
    let looks = Arc::<std::sync::atomic::AtomicU32>::default();
    let uplink = Box::new(Failing(error, Arc::clone(&looks)));
    let daemon = Daemon::start_with(uplink, Duration::from_secs(60), nve(1)).unwrap();
    (daemon, move || looks.load(std::sync::atomic::Ordering::Relaxed))
}

#[test]
fn a_worker_that_panicked_is_seen_by_whoever_asks() {
    let (daemon, _) = with_failing_uplink(|| panic!("a bug"));
    until("it panicked", || !daemon.is_running());
}

#[test]
fn an_uplink_is_given_up_when_it_is_gone_and_not_for_one_odd_packet() {
    let (daemon, looks) = with_failing_uplink(|| io::ErrorKind::InvalidInput.into());
    until("looked at again", || looks() > 3);
    assert!(daemon.is_running());
    let (daemon, looks) = with_failing_uplink(|| io::ErrorKind::NotConnected.into());
    until("looked at", || looks() > 0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(looks(), 1, "given up");
    assert!(daemon.is_running(), "guests of this host still talk");
}

#[test]
fn an_attachment_can_be_removed_and_added_while_others_run() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let one = [device(lab.dir.path(), 1)];
    let both = [device(lab.dir.path(), 1), device(lab.dir.path(), 2)];
    for _ in 0..3 {
        let mut b = Guest::connect(&lab.socket(2));
        a.send(&datagram(1, 2, b"hello"));
        assert_eq!(payload_of(&b.receive()), b"hello");
        lab.daemon.apply(&one).unwrap();
        assert!(!lab.socket(2).exists());
        lab.daemon.apply(&both).unwrap();
    }
    let unknown = DeviceConfig { name: "nobody".into(), ..device(lab.dir.path(), 9) };
    assert_eq!(lab.daemon.apply(&[unknown]).unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// One message, well-formed or not, to a session of its own; returns when that has ended.
fn one_message(lab: &Lab, request: u32, flags: u32, payload: &[u8], fds: &[i32]) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stop = Stop::new().unwrap();
    let port = lab.nve.port("vm3").unwrap();
    let status = Arc::new(Status::default());
    let session = Session::new(Arc::clone(&lab.nve), port, mac(3), lab.daemon.link.clone(), status);
    let header = [request, flags, payload.len() as u32].map(u32::to_ne_bytes).concat();
    ours.send_with_fds(&[&header[..]], fds).unwrap();
    // A session that has ended already takes no more.
    let _ = (&ours).write_all(payload);
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = connection::serve(theirs, session, &stop);
}

#[test]
fn any_message_ends_at_most_its_own_connection_and_leaves_nothing_behind() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let memory = Ram::new(&REGIONS);
    let event = EventFd::new(0).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let descriptors: [&[i32]; 5] =
        [&[], &[event.as_raw_fd()], &[memory.fd()], &[pipe.as_raw_fd()], &[event.as_raw_fd(); 33]];
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let mut round = 0u8;
    for request in 0..64 {
        for size in [0, 4, 8, 12, 40, 64, 4096, 5000] {
            for fds in descriptors {
                round = round.wrapping_mul(5).wrapping_add(17);
                let flags = [1, 1, 9, 9, 5, 0, 3, u32::MAX][usize::from(round >> 5)];
                let payload: Vec<u8> = (0..size).map(|i| if i % 8 == 0 { round } else { 0 }).collect();
                one_message(&lab, request, flags, &payload, fds);
            }
        }
    }
    // Other tests of this process have some of their own open.
    until("descriptors are back", || open() < before + 100);
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here");
}

#[test]
fn a_call_descriptor_that_would_block_costs_nobody_anything() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let mut c = Guest::connect(&lab.socket(3));
    // Full, and blocking.
    let trap = EventFd::new(0).unwrap();
    trap.write(u64::MAX - 1).unwrap();
    c.frontend.set_vring_call(0, &trap).unwrap();
    for i in 0..50 {
        a.send(&datagram(1, 3, &[i; 10]));
        a.send(&datagram(1, 2, &[i; 10]));
        assert_eq!(payload_of(&b.receive()), [i; 10]);
    }
    until("all arrived without a signal", || {
        c.sent += c.take().len() as u64;
        c.sent >= 50
    });
}
