//! Two workers that write to the same receive rings, while control threads take those away.
//!
//! vm1 and vm3 send by the first worker, vm2 by the second; what is for vm3 comes by both.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::*;
use crate::device::guest::UVA;
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
