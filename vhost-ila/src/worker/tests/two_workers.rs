//! Two workers that write to the same receive rings, while control threads take those away.
//!
//! vm1 and vm3 send by the first worker, vm2 by the second; what is for vm3 comes by both.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::*;
use crate::device::guest::UVA;
use crate::device::memory::Payload;
use crate::device::net_header::NetHeader;
use crate::device::ring::RingFault;

/// Three guests of one host.
fn lab() -> (Lab, [Guest; 3]) {
    WORKERS.set(2);
    let lab = Lab::new(3);
    let guests = [1, 2, 3].map(|n| Guest::connect(&lab.socket(n)));
    (lab, guests)
}

/// What `from` numbers and sends to vm3, a burst of so many.
fn burst(guest: &mut Guest, from: u8, numbers: std::ops::Range<u32>) {
    for number in numbers {
        guest.queue(&datagram(from, 3, &[&[from][..], &number.to_le_bytes()].concat()));
    }
    guest.kick();
}

/// The numbers that came from each sender, in the order they came.
fn sorted(frames: &[Vec<u8>]) -> [Vec<u32>; 2] {
    [1, 2].map(|from| {
        let of = frames.iter().map(|frame| payload_of(frame)).filter(|payload| payload[0] == from);
        of.map(|payload| u32::from_le_bytes(payload[1..5].try_into().unwrap())).collect()
    })
}

/// Sends from vm1 and vm2 without end, each from a thread of its own, while `work` has vm3; then checks that what came was in order.
fn under_traffic(work: impl FnOnce(&Lab, Guest)) {
    let (lab, [a, b, c]) = lab();
    let (end, sent) = (AtomicBool::new(false), [AtomicU32::new(0), AtomicU32::new(0)]);
    std::thread::scope(|scope| {
        for (mut guest, from, sent) in [(a, 1, &sent[0]), (b, 2, &sent[1])] {
            let end = &end;
            scope.spawn(move || {
                while !end.load(Relaxed) {
                    let next = sent.load(Relaxed);
                    burst(&mut guest, from, next..next + 16);
                    sent.store(next + 16, Relaxed);
                    let limit = Instant::now() + WAIT;
                    while guest.tx.available().wrapping_sub(used(&guest.tx, &guest.ram)) > 64 {
                        assert!(Instant::now() < limit, "vm{from}'s frames are taken");
                        std::thread::yield_now();
                    }
                }
            });
        }
        let end = Ending(&end);
        work(&lab, c);
        drop(end);
    });
    assert!(sent.iter().all(|sent| sent.load(Relaxed) > 16), "both sent");
    assert!(lab.daemon.is_running());
}

/// Ends the senders, whatever becomes of the test.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The used index, as the driver reads it.
fn used(driver: &Driver, ram: &Ram) -> u16 {
    let at = driver.front_end_addresses().used - UVA + 2;
    u16::from_le_bytes(ram.read(at, 2).try_into().unwrap())
}

fn rises(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|two| two[0] < two[1])
}

#[test]
fn what_two_workers_bring_one_guest_arrives_whole_and_in_order() {
    let (lab, [mut a, mut b, mut c]) = lab();
    for round in 0..100u32 {
        let numbers = round * 100..round * 100 + 100;
        burst(&mut a, 1, numbers.clone());
        burst(&mut b, 2, numbers.clone());
        let mut got = Vec::new();
        until("all arrive", || {
            got.extend(c.take());
            got.len() >= 200
        });
        let wanted: Vec<u32> = numbers.collect();
        assert_eq!(sorted(&got), [wanted.clone(), wanted]);
    }
    let workers = lab.daemon.workers();
    assert!(workers.iter().all(|worker| worker.packets >= 10_000), "{workers:?}");
}

#[test]
fn a_ring_that_both_workers_write_to_is_left_alone_once_its_stop_is_answered() {
    under_traffic(|lab, mut c| {
        let mut last = [None; 2];
        for round in 0..60 {
            let mut got = Vec::new();
            until("both bring something", || {
                got.extend(c.take());
                sorted(&got).iter().all(|of| !of.is_empty())
            });
            let base = c.stop(0);
            got.extend(c.take());
            // What was used is what is there; nobody writes behind it.
            let shown = used(&c.rx, &c.ram);
            assert_eq!(base as u16, shown, "round {round}");
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(used(&c.rx, &c.ram), shown, "round {round}");
            for (numbers, last) in sorted(&got).iter().zip(&mut last) {
                assert!(rises(numbers) && *last < numbers.first().copied(), "round {round}: {numbers:?}");
                *last = numbers.last().copied().or(*last);
            }
            c.start(0);
        }
        assert_eq!(lab.ring(3, Role::Receive(0)).fault, None);
    });
}

#[test]
fn a_guest_that_comes_and_goes_under_traffic_of_two_workers_harms_nobody() {
    under_traffic(|lab, mut c| {
        for round in 0..20 {
            until("something arrives", || !c.take().is_empty());
            // Its memory is unmapped.
            drop(c);
            until("gone", || !lab.report(3).connected);
            c = Guest::connect(&lab.socket(3));
            assert_eq!(lab.ring(3, Role::Receive(0)).fault, None, "round {round}");
        }
    });
}

#[test]
fn a_ring_that_breaks_under_traffic_of_two_workers_is_named_once_and_starts_anew() {
    under_traffic(|lab, mut c| {
        for _ in 0..20 {
            until("something arrives", || !c.take().is_empty());
            c.rx.expose_index(&c.ram, c.rx.available().wrapping_add(0x4000));
            until("named", || lab.ring(3, Role::Receive(0)).fault.is_some());
            assert_eq!(lab.ring(3, Role::Receive(0)).fault, Some(RingFault::AvailableIndex.to_string()));
            c.rx.expose(&c.ram);
            c.stop(0);
            c.start(0);
        }
    });
}

#[test]
fn memory_cut_off_under_two_workers_stops_that_guest_only() {
    under_traffic(|lab, mut c| {
        for _ in 0..5 {
            until("something arrives", || !c.take().is_empty());
            c.ram.file.set_len(0).unwrap();
            until("named", || lab.ring(3, Role::Receive(0)).fault.is_some());
            // Or, by who writes first, what is read there now: zeros, be it an index or a descriptor.
            let zeros = [RingFault::AvailableIndex, RingFault::Direction, RingFault::Empty];
            let named = [RingFault::Memory].iter().chain(&zeros).map(|fault| Some(fault.to_string()));
            let named: Vec<_> = named.collect();
            assert!(named.contains(&lab.ring(3, Role::Receive(0)).fault));
            drop(c);
            until("gone", || !lab.report(3).connected);
            c = Guest::connect(&lab.socket(3));
        }
    });
}

#[test]
fn workers_that_want_each_others_receivers_wait_and_go_on() {
    /// How often one has waited for what the other had: often enough that both had what the other wanted.
    const WAITS: u64 = 200;
    WORKERS.set(2);
    let lab = Lab::new(4);
    let [a, b, mut c, mut d] = [1, 2, 3, 4].map(|n| Guest::connect(&lab.socket(n)));
    let (end, sent) = (AtomicBool::new(false), [AtomicU32::new(0), AtomicU32::new(0)]);
    std::thread::scope(|scope| {
        // In every batch both receivers, by turns, and each begins with another.
        for (mut guest, from, order, sent) in [(a, 1, [3, 4], &sent[0]), (b, 2, [4, 3], &sent[1])] {
            let end = &end;
            scope.spawn(move || {
                while !end.load(Relaxed) {
                    for number in 0..32 {
                        guest.queue(&datagram(from, order[number % 2], b"both"));
                    }
                    guest.kick();
                    let limit = Instant::now() + WAIT;
                    while guest.tx.available() != used(&guest.tx, &guest.ram) {
                        assert!(Instant::now() < limit, "vm{from}'s frames are taken");
                        std::thread::yield_now();
                    }
                    sent.fetch_add(32, Relaxed);
                }
            });
        }
        let ending = Ending(&end);
        let mut came = [0, 0];
        until("they wait for each other", || {
            came[0] += c.take().len();
            came[1] += d.take().len();
            lab.daemon.workers().iter().map(|worker| worker.waits).sum::<u64>() >= WAITS
        });
        drop(ending);
        assert!(came.iter().all(|came| *came > 0), "{came:?}");
    });
    assert!(sent.iter().all(|sent| sent.load(Relaxed) > 0), "both went on: {sent:?}");
}

/// An uplink that panics when it is given a packet: a bug in the middle of a batch.
struct Faulty;

impl Uplink for Faulty {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn receive(&mut self, _: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        Ok(None)
    }
    fn send(&mut self, _: NetHeader, _: &[u8], _: Payload<'_>) -> io::Result<()> {
        panic!("a bug")
    }
    fn beside(&self) -> io::Result<Box<dyn Uplink>> {
        Ok(Box::new(Faulty))
    }
}

#[test]
fn what_a_panicking_worker_had_of_others_is_given_back_and_its_end_is_told() {
    let elsewhere = nve_core::setup::Mapping {
        network: "blue".into(),
        address: "10.1.0.9".parse().unwrap(),
        locator: "2001:db8:0:2::/64".parse().unwrap(),
    };
    let nve = Nve::new(Setup { mappings: vec![elsewhere], ..setup(3) }.check().unwrap(), 64);
    let ways = Ways { uplink: Box::new(Faulty), link: None, outside: None };
    let daemon = Daemon::start_on(ways, (2, Duration::ZERO), Arc::clone(&nve), desks(&nve)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    daemon.apply(&[1, 2, 3].map(|n| device(dir.path(), n))).unwrap();
    let lab = Lab { dir, nve, daemon };
    let [mut a, mut b, mut c] = [1, 2, 3].map(|n| Guest::connect(&lab.socket(n)));
    // The rings of vm3 are the second worker's when it comes to what is for the uplink.
    b.queue(&datagram(2, 3, b"before"));
    b.queue(&datagram(2, 9, b"the bug"));
    b.kick();
    until("a worker has ended", || !lab.daemon.is_running());
    a.send(&datagram(1, 3, b"after"));
    let mut got = Vec::new();
    until("the other goes on", || {
        got.extend(c.take());
        got.iter().any(|frame| payload_of(frame) == b"after")
    });
}
