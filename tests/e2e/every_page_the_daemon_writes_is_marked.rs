//! A front-end that migrates its guest is told of every page that the daemon wrote to, and of few others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use vhost_ila_tests::dice::Dice;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{Beside, HONEST, HOSTILE};
use vhost_ila_tests::ringpeer::dirty_log::{DirtyLog, PAGE, WHOLE};
use vhost_ila_tests::ringpeer::hostile::{Connection, request};
use vhost_ila_tests::ringpeer::memory::{self, HIGH, HIGH_START, Memory};
use vhost_ila_tests::ringpeer::neighbours::datagram;
use vhost_ila_tests::ringpeer::ring::Part;
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};
use vm_memory::{Bytes, GuestAddress};

const QUIET: Duration = Duration::from_millis(30);
const VMS: [Vm; 3] = [VM1, HONEST, VM2];

/// What the device may write to, page by page.
fn snapshot(peer: &mut Peer) -> BTreeMap<u64, Vec<u8>> {
    let parts = peer.written_by_the_device();
    let map = peer.memory().map.clone();
    let pages = parts.into_iter().flat_map(|(start, bytes)| start.0 / PAGE..=(start.0 + bytes - 1) / PAGE);
    pages
        .map(|page| {
            let mut bytes = vec![0; PAGE as usize];
            map.read_slice(&mut bytes, GuestAddress(page * PAGE)).unwrap();
            (page, bytes)
        })
        .collect()
}

fn changed(before: &BTreeMap<u64, Vec<u8>>, after: &BTreeMap<u64, Vec<u8>>) -> BTreeSet<u64> {
    before.iter().filter(|(page, bytes)| after[page] != **bytes).map(|(page, _)| *page).collect()
}

/// Datagrams between all three of random lengths and contents, until all have come.
fn chatter(peers: &mut [Peer; 3], dice: &mut Dice, count: u64) {
    let mut sent = 0;
    for number in 0..count {
        let from = dice.below(3) as usize;
        let to = (from + 1 + dice.below(2) as usize) % 3;
        let length = dice.below(1400) as usize;
        let frame = datagram(&VMS[from], &VMS[to], &dice.bytes(length)).unwrap();
        peers[from].send(&frame).unwrap();
        sent += 1;
        if number % 64 == 63 {
            peers.iter_mut().for_each(|peer| sent -= received(peer));
        }
    }
    peers.iter_mut().for_each(|peer| peer.flush().unwrap());
    for _ in 0..100 {
        peers.iter_mut().for_each(|peer| sent -= received(peer));
        if sent == 0 {
            return;
        }
    }
    panic!("{sent} datagrams did not come");
}

/// How many datagrams came; other frames, the gateway's, are passed over.
fn received(peer: &mut Peer) -> u64 {
    let frames = peer.receive_all(QUIET).unwrap();
    frames.iter().filter(|f| f.bytes.get(12..14) == Some(&[8, 0]) && f.bytes.get(23) == Some(&17)).count()
        as u64
}

fn peers(site: &Site, options: Options) -> [Peer; 3] {
    let mut peers = VMS.map(|vm| Peer::connect(&site.socket(&vm), options).unwrap());
    // Neighbours are found, announcements are over.
    chatter(&mut peers, &mut Dice::new(0), 12);
    peers
}

fn shown(site: &Site, vm: &Vm) -> (bool, u64) {
    let attachments = site.daemons[vm.host].show("attachments").unwrap();
    let one = attachments.as_array().unwrap().iter().find(|one| one["name"] == vm.name).unwrap();
    (one["device"]["logging"].as_bool().unwrap(), one["device"]["pages_marked"].as_u64().unwrap())
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn whatever_its_driver_can_do() {
    let mergeable = 1 << VIRTIO_NET_F_MRG_RXBUF | 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << 32;
    let kinds = [
        Options::default(),
        Options::offloads(),
        // A frame takes several buffers, which lie across pages.
        Options { features: mergeable, rx_buffer: 700, ..Options::default() },
        // A table of several pages, which ends within one.
        Options { features: mergeable, rx_buffer: 700, ring: 1000, ..Options::default() }.packed(),
        Options::offloads().packed().in_order(),
    ];
    let site = Site::start("e2e/dirty-pages", Plan::of(&VMS).offering_packed_rings()).unwrap();
    for (kind, options) in kinds.into_iter().enumerate() {
        let mut peers = peers(&site, options);
        let mut dice = Dice::new(kind as u64 + 1);
        let rounds = if scoreboard::long() { 50 } else { 2 };
        for round in 0..rounds {
            let logged = round % 3;
            // The second log of a peer takes the place of its first.
            peers[logged].log_into(DirtyLog::new(WHOLE).unwrap()).unwrap();
            peers[logged].log_into(DirtyLog::new(WHOLE).unwrap()).unwrap();
            let before = snapshot(&mut peers[logged]);
            chatter(&mut peers, &mut dice, 150);
            let changed = changed(&before, &snapshot(&mut peers[logged]));
            assert!(changed.len() > 10, "only {} pages were written to", changed.len());
            assert!(shown(&site, &VMS[logged]).0, "logging is not shown");
            let log = peers[logged].stop_logging().unwrap();
            let marked = log.marked().unwrap();
            let missing: Vec<_> = changed.difference(&marked).collect();
            assert!(
                missing.is_empty(),
                "kind {kind}, round {round}: {missing:x?} changed, and are not marked"
            );
            // Written with what was there already: an event index, the flags of a used ring.
            let surplus: Vec<_> = marked.difference(&changed).collect();
            assert!(
                surplus.len() <= 4 && surplus.iter().all(|page| before.contains_key(page)),
                "kind {kind}, round {round}: {surplus:x?} are marked, and did not change"
            );
            let (logging, count) = shown(&site, &VMS[logged]);
            assert!(!logging && count >= marked.len() as u64);
            // Off: nothing is marked.
            chatter(&mut peers, &mut dice, 30);
            assert_eq!(log.marked().unwrap(), marked, "marked after logging was over");
            assert_eq!(shown(&site, &VMS[logged]).1, count);
        }
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_memory_added_while_it_logs_too() {
    let site = Site::start("e2e/dirty-hotplug", Plan::of(&VMS)).unwrap();
    let mut peers = peers(&site, Options { ring: 64, ..Options::default() });
    peers[0].log_into(DirtyLog::new(WHOLE).unwrap()).unwrap();
    // Not a whole number of pages; the buffer is at its end.
    let (start, bytes) = (HIGH_START + HIGH + (1 << 20), (1 << 20) + 0x800);
    let file = peers[0].add_memory(GuestAddress(start), bytes).unwrap();
    let buffer = bytes - 0x700;
    let part = Part { address: GuestAddress(start + buffer), length: 0x700, writable: true };
    // Behind the buffers that are in the ring, of which one is taken back to make room.
    peers[1].send(&datagram(&HONEST, &VM1, b"makes room").unwrap()).unwrap();
    wait_for("a buffer to come back", Duration::from_secs(10), || peers[0].rx().take_used()).unwrap();
    peers[0].rx().add(&[part]).unwrap();
    peers[0].rx().publish().unwrap();
    let mut came = vec![0; 4];
    for number in 0..64u32 {
        peers[1].send(&datagram(&HONEST, &VM1, &[7; 1000]).unwrap()).unwrap();
        peers[1].flush().unwrap();
        file.read_exact_at(&mut came, buffer + 12 + 42).unwrap();
        if came == [7; 4] {
            println!("buffer {number} was the new one");
            break;
        }
    }
    assert_eq!(came, [7; 4], "the new memory was never written to");
    let marked = peers[0].stop_logging().unwrap().marked().unwrap();
    assert!(marked.contains(&((start + buffer) / PAGE)), "its last, incomplete page is not marked");
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn logs_that_no_front_end_has_hurt_only_their_sender() {
    let mut host = Beside::start("e2e/hostile-logs").unwrap();
    let log = memory::file(WHOLE).unwrap();
    let others =
        [File::open("/dev/null").unwrap(), File::open("/").unwrap(), File::open("/proc/self/exe").unwrap()];
    let edges = [0, 1, 7, 4096, WHOLE, WHOLE + 1, 1 << 63, u64::MAX - 4096, u64::MAX];
    let say = |host: &Beside, size: u64, offset: u64, files: &[RawFd]| {
        let mut connection = Connection::to(&host.socket).unwrap();
        connection.negotiate_with(1 << 1).unwrap();
        let body = [size, offset].map(u64::to_le_bytes).concat();
        drop(connection.say(request::SET_LOG_BASE, &body, files));
        connection.is_closed()
    };
    for (at, size) in edges.into_iter().enumerate() {
        let offset = edges[(at * 5 + 2) % edges.len()];
        for (size, offset) in [(size, offset), (size, 0), (WHOLE, size)] {
            if size > 0 && size.checked_add(offset).is_some_and(|end| end <= WHOLE) {
                // A good one, as there is no memory yet.
                continue;
            }
            assert!(say(&host, size, offset, &[log.as_raw_fd()]), "{size:#x} at {offset:#x}");
        }
        host.unharmed(&format!("a log of {size:#x}")).unwrap();
    }
    for file in &others {
        assert!(say(&host, 4096, 0, &[file.as_raw_fd()]), "{file:?}");
    }
    assert!(say(&host, 4096, 0, &[]), "no file");
    assert!(say(&host, 4096, 0, &[log.as_raw_fd(); 2]), "two files");
    host.recovered("bad logs").unwrap();
    // Too small for what is in use, and cut off while it is in use.
    let mut peer = Peer::connect(&host.socket, Options::default()).unwrap();
    assert!(peer.log_into(DirtyLog::new(16).unwrap()).is_err(), "a log of 16 bytes");
    drop(peer);
    let mut peer = Peer::new(Options::default()).unwrap();
    peer.log_into(DirtyLog::new(WHOLE).unwrap()).unwrap();
    peer.attach(vhost_ila_tests::ringpeer::connect(&host.socket).unwrap()).unwrap();
    peer.log().unwrap().file.set_len(0).unwrap();
    for _ in 0..20 {
        peer.send(&datagram(&HOSTILE, &VM1, b"cut off").unwrap()).unwrap();
    }
    host.unharmed("a log that was cut off").unwrap();
    let device = host.shown().unwrap();
    let fault = device["rings"][1]["fault"].as_str();
    assert!(fault.is_some_and(|fault| fault.contains("cut off")), "{device:#}");
    drop(peer);
    // The same mappings as memory and as log: marks go where frames go.
    let mut peer = Peer::in_memory(Memory::new().unwrap(), Options::default()).unwrap();
    let file = peer.memory().file.try_clone().unwrap();
    peer.log_into(DirtyLog::of(file, WHOLE)).unwrap();
    peer.attach(vhost_ila_tests::ringpeer::connect(&host.socket).unwrap()).unwrap();
    host.unharmed("a log that is the guest's memory").unwrap();
    drop(peer);
    host.end().unwrap();
}
