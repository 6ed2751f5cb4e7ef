//! The slow path, from a guest's ring and back: what it costs others, and what becomes of a desk that stalls or panics.

use std::sync::{Mutex, MutexGuard};

use nve_core::DropReason;
use nve_core::gateway::dns::{Heard, Token};
use nve_core::pipeline::PortId;
use nve_core::punt::{Outbox, Punted};

use super::*;
use crate::punt::SHARE;
use crate::uplink;

/// A TCP SYN from vm`from` to the metadata service; checksums good.
fn syn(from: u8, source_port: u16) -> Vec<u8> {
    let mut frame = vec![0x02, 0x49, 0x4c, 0x41, 0x00, 0x01];
    frame.extend(mac(from));
    frame.extend([0x08, 0x00]);
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, from, 169, 254, 169, 254];
    let sum =
        |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let fold = |sum: u32| !((sum & 0xffff) + (sum >> 16)) as u16;
    let checksum = fold(sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut tcp = vec![0, 0, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0x10, 0, 0, 0, 0, 0];
    tcp[..2].copy_from_slice(&source_port.to_be_bytes());
    let checksum = fold(sum(&ip[12..]) + 6 + 20 + sum(&tcp));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(ip);
    frame.extend(tcp);
    frame
}

/// A desk that answers each frame with itself, when it is let; and panics when told to.
struct Double {
    gate: Arc<Mutex<()>>,
    forgotten: Arc<Mutex<Vec<PortId>>>,
}

/// The source port that makes it panic.
const POISON: u16 = 666;
/// The source ports that make it answer to all hosts' MAC, and to a stranger's.
const TO_ALL: u16 = 777;
const TO_A_STRANGER: u16 = 778;
const ALL_HOSTS: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 1];

impl Serve for Double {
    fn take(&mut self, _: Duration, punted: &Punted<'_>, out: &mut Outbox) {
        drop(self.gate.lock().unwrap());
        assert!(punted.frame[34..36] != POISON.to_be_bytes(), "a bug");
        let mut answer = punted.frame.to_vec();
        match u16::from_be_bytes([answer[34], answer[35]]) {
            TO_ALL => answer[..6].copy_from_slice(&ALL_HOSTS),
            TO_A_STRANGER => answer[..6].copy_from_slice(&mac(9)),
            _ => answer.copy_within(6..12, 0),
        }
        out.frames.push((punted.port, answer));
    }
    fn tick(&mut self, _: Duration, _: &mut Outbox) {}
    fn heard(&mut self, _: Duration, _: Token, _: Heard, _: &mut Outbox) {}
    fn until_tick(&self, _: Duration) -> Option<Duration> {
        None
    }
    fn forget(&mut self, port: PortId) {
        self.forgotten.lock().unwrap().push(port);
    }
}

/// A daemon with such a desk, and its guests vm1 and vm2.
struct Stand {
    lab: Lab,
    gate: Arc<Mutex<()>>,
    forgotten: Arc<Mutex<Vec<PortId>>>,
    a: Guest,
    b: Guest,
}

impl Stand {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nve = nve(2);
        let (gate, forgotten) = <(Arc<Mutex<()>>, Arc<Mutex<Vec<PortId>>>)>::default();
        let double = Double { gate: Arc::clone(&gate), forgotten: Arc::clone(&forgotten) };
        let uplink = uplink::open(&UplinkConfig::None { mtu: 1500 }).unwrap();
        let daemon = Daemon::start_on(
            Ways { uplink, link: None, outside: None },
            (WORKERS.get(), Duration::ZERO),
            Arc::clone(&nve),
            double,
        )
        .unwrap();
        daemon.apply(&[device(dir.path(), 1), device(dir.path(), 2)]).unwrap();
        let lab = Lab { dir, nve, daemon };
        let (a, b) = (Guest::connect(&lab.socket(1)), Guest::connect(&lab.socket(2)));
        Self { lab, gate, forgotten, a, b }
    }

    fn stall(gate: &Arc<Mutex<()>>) -> MutexGuard<'_, ()> {
        gate.lock().unwrap()
    }
}

fn burst(guest: &mut Guest, from: u8, count: u16) {
    (0..count).for_each(|port| guest.queue(&syn(from, 1000 + port)));
    guest.kick();
}

#[test]
fn a_slow_path_that_stalls_costs_only_who_floods_it() {
    let mut stand = Stand::new();
    let gate = Arc::clone(&stand.gate);
    let stalled = Stand::stall(&gate);
    burst(&mut stand.a, 1, 100);
    let lost = 100 - u64::from(SHARE);
    until("the flood is counted", || stand.lab.drops(1, DropReason::PuntFull) == lost);
    // The other's share is whole, and the worker waits for nothing.
    burst(&mut stand.b, 2, SHARE);
    stand.a.send(&datagram(1, 2, b"between neighbours"));
    assert_eq!(payload_of(&stand.b.receive()), b"between neighbours");
    assert_eq!(stand.lab.drops(2, DropReason::PuntFull), 0);
    drop(stalled);
    for guest in [&mut stand.a, &mut stand.b] {
        let mut answers = Vec::new();
        until("every frame of the share is answered", || {
            answers.extend(guest.take());
            answers.len() >= usize::from(SHARE)
        });
        let ports: Vec<_> = answers.iter().map(|frame| u16::from_be_bytes([frame[34], frame[35]])).collect();
        assert_eq!(ports, (1000..1000 + SHARE).collect::<Vec<_>>(), "the first, in order");
    }
    until("all is served", || stand.lab.daemon.punt().served == 2 * u64::from(SHARE));
    assert_eq!(stand.lab.drops(1, DropReason::PuntFull), lost);
    let totals = stand.lab.nve.counters();
    assert_eq!(totals.ports[0].1.out_packets, u64::from(SHARE), "answers are counted as delivered");
    // Room again.
    stand.a.send(&syn(1, 9));
    assert_eq!(stand.a.receive()[34..36], [0, 9]);
}

/// A querier asks a group; and what is for an attachment that a reload has replaced is for nobody.
#[test]
fn what_the_slow_path_says_is_for_a_group_or_for_who_has_the_port_now() {
    let mut stand = Stand::new();
    stand.a.send(&syn(1, TO_ALL));
    assert_eq!(stand.a.receive()[..6], ALL_HOSTS);
    stand.a.send(&syn(1, TO_A_STRANGER));
    until("it is dropped", || stand.lab.drops(1, DropReason::NoAttachment) == 1);
    stand.a.send(&syn(1, 9));
    assert_eq!(stand.a.receive()[34..36], [0, 9], "and it was not delivered before");
}

#[test]
fn a_desk_that_panics_is_counted_and_the_next_frame_served() {
    let mut stand = Stand::new();
    for _ in 0..3 {
        stand.a.send(&syn(1, POISON));
        stand.b.send(&syn(2, 9));
        assert_eq!(stand.b.receive()[34..36], [0, 9]);
    }
    until("three panics", || stand.lab.daemon.punt().panics == 3);
    let port = stand.lab.nve.port("vm1").unwrap();
    assert_eq!(*stand.forgotten.lock().unwrap(), [port; 3], "what was kept for the culprit, and nobody else");
    assert!(stand.lab.daemon.is_running());
    stand.a.send(&syn(1, 9));
    assert_eq!(stand.a.receive()[34..36], [0, 9], "and its share is whole");
}

/// An answer comes although nothing else wakes the worker: it sleeps, and spins never.
#[test]
fn the_gateways_own_stack_answers_a_guest() {
    let lab = Lab::new(1);
    let mut guest = Guest::connect(&lab.socket(1));
    for port in [1000, 1001] {
        guest.send(&syn(1, port));
        let answer = guest.receive();
        assert_eq!((&answer[..6], &answer[26..34]), (&mac(1)[..], &[169, 254, 169, 254, 10, 1, 0, 1][..]));
        assert_eq!(answer[36..38], port.to_be_bytes());
        assert_eq!(answer[42..46], 8_u32.to_be_bytes(), "acknowledged");
    }
}
