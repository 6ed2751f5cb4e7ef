//! Daemons of two workers each: neighbours whose rings are on different ones, and a host that is reached from both.
//!
//! ```text
//!   hv1   vm1 ── worker 0 ──┐         hv2   worker 0 (vm2, uplink)
//!         vm3 ── worker 1 ──┴─ uplink ───── worker 1
//! ```

use std::ops::Range;
use std::time::Duration;

use vhost_ila_tests::ringpeer::beside::HONEST;
use vhost_ila_tests::ringpeer::neighbours::{datagram, is_between};
use vhost_ila_tests::ringpeer::{Options, Peer, connect};
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

const QUIET: Duration = Duration::from_millis(500);
const ALL: [Vm; 3] = [VM1, HONEST, VM2];

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn neighbours_on_different_workers_talk_in_order_and_go_on_after_a_killed_daemon() {
    let plan = Plan { workers: 2, ..Plan::of(&ALL).offering_packed_rings() };
    let mut site = Site::start("e2e/two-workers", plan).unwrap();
    for options in [Options::default(), Options::offloads(), Options::offloads().packed()] {
        let mut peers = ALL.map(|vm| Peer::connect(&site.socket(&vm), options).unwrap());
        let mut numbers = 0;
        peers.iter_mut().for_each(|peer| drop(peer.receive_all(QUIET).unwrap()));
        everywhere(&mut peers, &mut numbers);
        // Stopped in order, and started again where they stopped.
        for (index, vm) in ALL.iter().enumerate() {
            peers[index].detach().unwrap();
            peers[index].attach(connect(&site.socket(vm)).unwrap()).unwrap();
        }
        everywhere(&mut peers, &mut numbers);
        site.daemons[0].kill().unwrap();
        site.daemons[0].restart().unwrap();
        for (index, vm) in ALL.iter().enumerate().take(2) {
            peers[index].attach(connect(&site.socket(vm)).unwrap()).unwrap();
        }
        everywhere(&mut peers, &mut numbers);
    }
    let shown = site.daemons[0].show("counters").unwrap();
    let packets = |worker: usize| shown["workers"][worker]["packets"].as_u64().unwrap();
    assert!(packets(0) > 0 && packets(1) > 0, "both took some: {shown}");
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn machines_of_daemons_with_two_workers_talk_on_one_host_and_across() {
    let mut site = Site::start("e2e/two-workers-machines", Plan { workers: 2, ..Plan::of(&ALL) }).unwrap();
    let mut guests = site.boot().unwrap();
    for (from, guest) in guests.iter_mut().enumerate() {
        for (_, to) in ALL.iter().enumerate().filter(|(to, _)| *to != from) {
            traffic::ping(guest, to.ipv4, 2).unwrap();
            traffic::ping(guest, to.ipv6, 2).unwrap();
        }
    }
    // Super-packets there, and what answers them, by the other worker.
    for to in [1, 2] {
        let (sender, receivers) = guests.split_first_mut().unwrap();
        for address in [ALL[to].ipv4, ALL[to].ipv6] {
            let moved = traffic::transfer(sender, &mut receivers[to - 1], address, 4).unwrap();
            assert_eq!(moved.sent, moved.received, "to {address}");
        }
    }
    let shown = site.daemons[0].show("counters").unwrap();
    for worker in shown["workers"].as_array().unwrap() {
        let [packets, sleeps] = ["packets", "sleeps"].map(|what| worker[what].as_u64().unwrap());
        assert!(
            packets > 100 && sleeps < 4 * packets,
            "both took some, and slept when they had none: {worker}"
        );
    }
    site.daemons_must_run().unwrap();
}

/// Two to one at a time, for each of the three.
fn everywhere(peers: &mut [Peer; 3], numbers: &mut u32) {
    for to in 0..3 {
        let first = *numbers;
        *numbers += 60;
        for number in first..*numbers {
            for from in (0..3).filter(|from| *from != to) {
                peers[from].send(&datagram(&ALL[from], &ALL[to], &number.to_be_bytes()).unwrap()).unwrap();
            }
        }
        expect(&mut peers[to], to, first..*numbers);
        peers.iter_mut().for_each(|peer| peer.flush().unwrap());
    }
}

/// Of each of the others the frames with these numbers come, in order, each once.
fn expect(peer: &mut Peer, to: usize, numbers: Range<u32>) {
    let mut came: [Vec<u32>; 3] = Default::default();
    while came.iter().map(Vec::len).sum::<usize>() < 2 * numbers.len() {
        let Some(frame) = peer.receive(Duration::from_secs(5)).unwrap() else { break };
        let frame = frame.bytes;
        if let Some(from) = (0..3).find(|from| is_between(&frame, &ALL[*from], &ALL[to])) {
            came[from].push(u32::from_be_bytes(frame[frame.len() - 4..].try_into().unwrap()));
        }
    }
    for from in (0..3).filter(|from| *from != to) {
        assert_eq!(came[from], numbers.clone().collect::<Vec<_>>(), "{} to {}", ALL[from].name, ALL[to].name);
    }
}
