//! What a packet costs a worker, from ring to ring: instructions, and that nothing is allocated for it.

use std::process::Command;

use nve_core::link::{Link, NextHop};
use nve_core::packet::Frame;
use nve_core::pipeline::{Fate, Origin, Scratch, Walker};
use nve_core::setup::Mapping;

use super::stepped::{Port, Rings, Stepped, frame};
use super::*;

/// Frames in a batch: what a DPDK front-end brings at once.
const BATCH: u16 = 32;
const FEW: u64 = 10;
const MANY: u64 = 110;
/// Says to the copy of this program that runs under valgrind which case to step, and for how many turns.
const CASE: &str = "VHOST_ILA_CASE";

/// One kind of packet: where it is from, and where to.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    way: Way,
    /// Addresses, of its family, that packets are for in turns.
    to: &'static [&'static str],
    /// Bytes of Ethernet.
    len: usize,
    rings: Rings,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Between two guests of one host.
    Neighbour,
    /// To the uplink; its system call is not part of it.
    ToTheFabric,
    FromTheFabric,
    /// The same two where the fabric is an application with rings.
    ToTheRing,
    FromTheRing,
}

const ONE4: &[&str] = &["10.1.0.9"];
const ONE6: &[&str] = &["2001:db8:b1:e::9"];
const TWO4: &[&str] = &["10.1.0.9", "10.1.0.10"];
const NEXT4: &[&str] = &["10.1.0.2"];
const NEXT6: &[&str] = &["2001:db8:b1:e::2"];

const fn case(name: &'static str, way: Way, to: &'static [&'static str], len: usize) -> Case {
    Case { name, way, to, len, rings: Rings::Split }
}

const CASES: [Case; 14] = [
    case("IPv4 to a neighbour, 64 B", Way::Neighbour, NEXT4, 64),
    Case { rings: Rings::Packed, ..case("the same, packed rings", Way::Neighbour, NEXT4, 64) },
    case("IPv4 to a neighbour, 1494 B", Way::Neighbour, NEXT4, 1494),
    case("IPv4 to the fabric, 64 B", Way::ToTheFabric, ONE4, 64),
    case("IPv4 from the fabric, 64 B", Way::FromTheFabric, ONE4, 64),
    case("IPv4 to the fabric's ring, 64 B", Way::ToTheRing, ONE4, 64),
    case("IPv4 to two there, 64 B", Way::ToTheRing, TWO4, 64),
    case("IPv4 from the fabric's ring, 64 B", Way::FromTheRing, ONE4, 64),
    case("IPv6 to a neighbour, 64 B", Way::Neighbour, NEXT6, 64),
    case("IPv6 to a neighbour, 1494 B", Way::Neighbour, NEXT6, 1494),
    case("IPv6 to the fabric, 64 B", Way::ToTheFabric, ONE6, 64),
    case("IPv6 from the fabric, 64 B", Way::FromTheFabric, ONE6, 64),
    case("IPv6 to the fabric's ring, 64 B", Way::ToTheRing, ONE6, 64),
    case("IPv6 from the fabric's ring, 64 B", Way::FromTheRing, ONE6, 64),
];

/// A worker and its guests, for one case.
struct Lane {
    case: Case,
    stepped: Stepped,
    /// The first sends, the last receives, where they have rings.
    guests: Vec<Port>,
    frames: Vec<Vec<u8>>,
}

impl Lane {
    fn new(case: Case) -> Self {
        // Host 1 has vm1 and vm2; whoever has address 9 or 10 is on host 2.
        let elsewhere = |address: &str| Mapping {
            network: "blue".into(),
            address: address.parse().unwrap(),
            locator: "2001:db8:0:2::/64".parse().unwrap(),
        };
        let mappings = ["10.1.0.9", "10.1.0.10", "2001:db8:b1:e::9"].map(elsewhere).into();
        let hv1 = Nve::new(Setup { mappings, ..setup(2) }.check().unwrap(), 64);
        let hv2 = || Nve::new(at_host_2().check().unwrap(), 64);
        let frames: Vec<_> = case.to.iter().map(|to| frame(1, to, case.len)).collect();
        let (station, next) =
            (EthernetAddress([2, 0, 0, 0, 0xfa, 1]), EthernetAddress([2, 0, 0, 0, 0xfa, 2]));
        let link = |nve: &Nve| {
            Link::new(station, nve.world().domains().iter().map(|d| d.locator()), NextHop::Station(next))
        };
        let (stepped, guests, mut sent) = match case.way {
            Way::Neighbour | Way::ToTheFabric => {
                let mut stepped = Stepped::new(hv1);
                let guests =
                    vec![stepped.attach_with(1, 1, case.rings), stepped.attach_with(2, 1, case.rings)];
                (stepped, guests, frames)
            }
            Way::ToTheRing => {
                let mut stepped = Stepped::on(Arc::clone(&hv1), Some(&link(&hv1)));
                let guests = vec![stepped.attach_with(1, 1, case.rings), stepped.attach_fabric(case.rings)];
                (stepped, guests, frames)
            }
            Way::FromTheFabric => {
                let packet = leaves(&hv1, &frames[0]);
                let mut stepped = Stepped::new(hv2());
                let guests = vec![stepped.attach_with(9, 1, case.rings)];
                (stepped, guests, vec![packet])
            }
            Way::FromTheRing => {
                let packet = leaves(&hv1, &frames[0]);
                let framed = [&station.0[..], &next.0, &[0x86, 0xdd], &packet].concat();
                let hv2 = hv2();
                let mut stepped = Stepped::on(Arc::clone(&hv2), Some(&link(&hv2)));
                let guests = vec![stepped.attach_fabric(case.rings), stepped.attach_with(9, 1, case.rings)];
                (stepped, guests, vec![framed])
            }
        };
        if case.way == Way::FromTheFabric {
            stepped.fabric.wire().packet = std::mem::take(&mut sent[0]);
        }
        Self { case, stepped, guests, frames: sent }
    }

    fn bring(&mut self) {
        match self.case.way {
            Way::FromTheFabric => self.stepped.fabric.wire().left = BATCH.into(),
            _ => {
                let Port { ram, pairs } = &mut self.guests[0];
                pairs[0].send_in_turns(ram, &self.frames, BATCH);
            }
        }
    }

    /// All of a batch came through.
    fn fetch(&mut self) {
        let came = match self.case.way {
            Way::ToTheFabric => std::mem::take(&mut self.stepped.fabric.wire().sent),
            _ => {
                let Port { ram, pairs } = self.guests.last_mut().unwrap();
                pairs[0].receive(ram)
            }
        };
        assert_eq!(came, usize::from(BATCH), "{}", self.case.name);
    }
}

/// What becomes of a frame of vm1's that leaves.
fn leaves(hv1: &Arc<Nve>, frame: &[u8]) -> Vec<u8> {
    let mut walker = Walker::new(Arc::clone(hv1));
    walker.begin(Duration::from_secs(1));
    let mut scratch = Scratch::default();
    let vm1 = Origin::Port(hv1.port("vm1").unwrap());
    let Fate::Uplink(out) = walker.walk(vm1, &Frame::whole(frame), &mut scratch) else { panic!() };
    [&scratch.head[out.head.clone()], &frame[out.tail.clone()]].concat()
}

/// The host that has address 9.
fn at_host_2() -> Setup {
    let mut setup = setup(9);
    setup.attachments.drain(..8);
    setup.host.name = "hv2".into();
    setup.host.locator = "2001:db8:0:2::/64".parse().unwrap();
    let elsewhere = |address: &str| Mapping {
        network: "blue".into(),
        address: address.parse().unwrap(),
        locator: "2001:db8:0:1::/64".parse().unwrap(),
    };
    setup.mappings = ["10.1.0.1", "2001:db8:b1:e::1"].map(elsewhere).into();
    setup
}

/// What is counted.
#[inline(never)]
fn counted_turn(stepped: &mut Stepped) {
    assert!(stepped.worker.turn());
}

#[test]
fn a_packet_from_ring_to_ring_costs_no_allocation() {
    for case in CASES {
        let mut lane = Lane::new(case);
        // The first turns make room.
        for turn in 0..10 {
            lane.bring();
            let allocated = allocation_counter::measure(|| counted_turn(&mut lane.stepped));
            lane.fetch();
            assert!(turn < 2 || allocated.count_total == 0, "{}: {allocated:?}", case.name);
        }
    }
}

#[test]
#[ignore = "a table to be read, by `cargo xtask instructions`; needs valgrind"]
fn instructions_of_a_packet_from_ring_to_ring() {
    if let Ok(told) = std::env::var(CASE) {
        let (index, turns) = told.split_once(' ').unwrap();
        let mut lane = Lane::new(CASES[index.parse::<usize>().unwrap()]);
        for _ in 0..turns.parse().unwrap() {
            lane.bring();
            counted_turn(&mut lane.stepped);
            lane.fetch();
        }
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: there is no valgrind here, so instructions are not counted");
        return;
    }
    println!("{:<30} {:>12}", "from ring to ring", "instructions");
    for (index, case) in CASES.iter().enumerate() {
        let per_packet = (count(index, MANY) - count(index, FEW)) / ((MANY - FEW) * u64::from(BATCH));
        println!("{:<30} {per_packet:>12}", case.name);
    }
}

/// Instructions of so many turns of a case.
fn count(index: usize, turns: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_turn*"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--test-threads=1"])
        .arg("worker::tests::instructions::instructions_of_a_packet_from_ring_to_ring")
        .env(CASE, format!("{index} {turns}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("Collected :")).expect("callgrind counts");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
