//! Host tasks: NICs without rings, served between those that have some.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use nve_core::DropReason;
use nve_core::setup::Task;

use super::*;
use crate::device::memory::Payload;
use crate::device::net_header::NetHeader;

/// What a namespace with a great many rules makes of a packet.
const SLOW: Duration = Duration::from_millis(20);

/// Both ends of a TUN that is only memory.
#[derive(Default)]
struct Wire {
    /// What the task sends.
    sent: Mutex<VecDeque<Vec<u8>>>,
    /// What it is given: the new head, and how many bytes follow it untouched.
    given: Mutex<Vec<(Vec<u8>, usize)>>,
    full: AtomicBool,
    /// Its namespace makes a long thing of each packet.
    slow: AtomicBool,
    gone: AtomicBool,
}

struct Pretended(Arc<Wire>);

impl Uplink for Pretended {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn receive(&mut self, packet: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        if self.0.gone.load(Relaxed) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let Some(next) = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else {
            return Ok(None);
        };
        packet[..next.len()].copy_from_slice(&next);
        Ok(Some((next.len(), NetHeader::default())))
    }
    fn send(&mut self, _: NetHeader, head: &[u8], tail: Payload<'_>) -> io::Result<()> {
        if self.0.full.load(Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let end = Instant::now() + SLOW;
        while self.0.slow.load(Relaxed) && Instant::now() < end {
            std::hint::spin_loop();
        }
        let given = (head.to_vec(), tail.len());
        self.0.given.lock().unwrap_or_else(PoisonError::into_inner).push(given);
        Ok(())
    }
}

fn address(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0x2000, 0, 0, n)
}

/// An echo request, its checksum of no interest to anybody here.
fn packet(from: u16, to: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
    packet[4..6].copy_from_slice(&(8 + payload as u16).to_be_bytes());
    packet.extend(address(from).octets());
    packet.extend(address(to).octets());
    packet.extend([128, 0, 0, 0, 0, 1, 0, 1]);
    packet.resize(48 + payload, 7);
    packet
}

struct Tasks {
    nve: Arc<Nve>,
    daemon: DaemonHandle,
    wires: [Arc<Wire>; 2],
}

/// Tasks 1 and 2 of one host, both plugged in.
fn tasks() -> Tasks {
    let task = |n: u16| Task { name: format!("task{n}"), addresses: vec![address(n)] };
    let setup = Setup { tasks: vec![task(1), task(2)], ..setup(0) };
    let nve = Nve::new(setup.check().unwrap(), 64);
    // It looks at what cannot wake it.
    let uplink = crate::uplink::open(&UplinkConfig::None { mtu: 1500 }).unwrap();
    let daemon = Daemon::start_with(uplink, Duration::from_secs(60), Arc::clone(&nve)).unwrap();
    let names = ["task1".to_owned(), "task2".to_owned()];
    daemon.tasks().apply(&names);
    let wires: [Arc<Wire>; 2] = Default::default();
    let tasks = Tasks { nve, daemon, wires };
    (0..2).for_each(|n| tasks.plug(n));
    tasks
}

impl Tasks {
    fn plug(&self, n: usize) {
        let tun = Box::new(Pretended(Arc::clone(&self.wires[n])));
        self.daemon.tasks().plug(&format!("task{}", n + 1), tun, "eth0", None).unwrap();
    }
    fn send(&self, n: usize, packet: Vec<u8>) {
        self.wires[n].sent.lock().unwrap().push_back(packet);
    }
    fn given(&self, n: usize) -> usize {
        self.wires[n].given.lock().unwrap().len()
    }
    fn drops(&self, name: &str, reason: DropReason) -> u64 {
        let totals = self.nve.counters();
        totals.ports.iter().find(|(port, _)| port == name).unwrap().1.dropped(reason)
    }
}

#[test]
fn what_one_task_sends_another_is_given_without_its_ethernet_header() {
    let tasks = tasks();
    for payload in [0, 100, 1452] {
        tasks.send(0, packet(1, 2, payload));
    }
    until("all are given", || tasks.given(1) == 3);
    let (head, tail) = tasks.wires[1].given.lock().unwrap()[2].clone();
    let sent = packet(1, 2, 1452);
    assert!(sent.starts_with(&head) && head.len() + tail == sent.len(), "the same bytes: {head:02x?}");
    // Not its own address.
    tasks.send(0, packet(9, 2, 0));
    until("dropped by name", || tasks.drops("task1", DropReason::SpoofedAddress) == 1);
    assert_eq!(tasks.given(1), 3);
}

#[test]
fn a_full_tun_is_a_counted_drop_and_a_task_that_is_not_plugged_in_another() {
    let tasks = tasks();
    tasks.wires[1].full.store(true, Relaxed);
    tasks.send(0, packet(1, 2, 0));
    until("no room", || tasks.drops("task1", DropReason::ReceiverFull) == 1);
    tasks.daemon.tasks().unplug("task2").unwrap();
    assert!(tasks.daemon.tasks().unplug("task2").is_err(), "once");
    tasks.send(0, packet(1, 2, 0));
    until("down", || tasks.drops("task1", DropReason::ReceiverDown) == 1);
}

#[test]
fn a_tun_that_is_gone_is_closed_by_name_and_another_takes_its_place() {
    let tasks = tasks();
    tasks.wires[0].gone.store(true, Relaxed);
    let interface = |n: usize| tasks.daemon.tasks().report()[n].interface.clone();
    until("seen", || interface(0).is_none());
    let report = tasks.daemon.tasks().report().remove(0);
    assert!(report.last_fault.unwrap().contains("its TUN is gone"));
    assert_eq!(interface(1).as_deref(), Some("eth0"), "the other's is there");
    until("it is closed", || Arc::strong_count(&tasks.wires[0]) == 1);
    tasks.wires[0].gone.store(false, Relaxed);
    tasks.plug(0);
    tasks.send(0, packet(1, 2, 0));
    until("given", || tasks.given(1) == 1);
}

#[test]
fn a_task_that_leaves_the_config_is_closed_and_one_that_floods_leaves_its_neighbour_its_turn() {
    let tasks = tasks();
    (0..2000).for_each(|_| tasks.send(0, packet(1, 2, 1400)));
    tasks.send(1, packet(2, 1, 0));
    until("in between", || tasks.given(0) == 1);
    // A worker that loses its processor within a delivery takes the task for a slow one, and drops some by that name.
    until("all of it", || tasks.given(1) as u64 + tasks.drops("task1", DropReason::ReceiverFull) == 2000);
    assert!(tasks.given(1) > 0);
    tasks.daemon.tasks().apply(&["task2".to_owned()]);
    until("it is closed", || Arc::strong_count(&tasks.wires[0]) == 1);
    assert_eq!(tasks.daemon.tasks().report().len(), 1);
}

#[test]
fn a_namespace_that_makes_a_long_thing_of_each_packet_is_full_and_its_neighbours_are_served_meanwhile() {
    const PACKETS: u64 = 500;
    let tasks = tasks();
    tasks.wires[1].slow.store(true, Relaxed);
    (0..PACKETS).for_each(|_| tasks.send(0, packet(1, 2, 0)));
    let begin = Instant::now();
    until("all are given or dropped by name", || {
        tasks.given(1) as u64 + tasks.drops("task1", DropReason::ReceiverFull) == PACKETS
    });
    assert!(begin.elapsed() < SLOW * (PACKETS / 4) as u32, "{:?}", begin.elapsed());
    let given = tasks.given(1);
    assert!((1..100).contains(&given), "{given} were waited for");
    // Once it is as fast as others and has paid, nothing of it is dropped any more; unless the worker loses its processor within a
    // delivery, which looks the same to it, but not ten times.
    tasks.wires[1].slow.store(false, Relaxed);
    let nothing_is_dropped = |_| {
        std::thread::sleep(SLOW * 10);
        let dropped = || tasks.drops("task1", DropReason::ReceiverFull);
        let (given, before) = (tasks.given(1), dropped());
        (0..PACKETS).for_each(|_| tasks.send(0, packet(1, 2, 0)));
        until("given", || (tasks.given(1) - given) as u64 + dropped() - before == PACKETS);
        dropped() == before
    };
    assert!((0..10).any(nothing_is_dropped));
}
