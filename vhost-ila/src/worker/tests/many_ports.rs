//! Many rings on one worker: those without frames rest until they are kicked, and what they cost the others.

use super::stepped::{Port, Stepped, frame};
use super::*;

/// Turns after which whatever is quiet has come to rest.
const LONG: usize = 300;
/// Turns within which a kick is heard.
const SOON: usize = 10;

fn lab(ports: u8, pairs: u8) -> (Stepped, Vec<Port>) {
    let nve = Nve::new(setup(ports).check().unwrap(), 1000);
    let mut stepped = Stepped::new(nve);
    let guests = (1..=ports).map(|n| stepped.attach(n, pairs)).collect();
    (stepped, guests)
}

fn turns(stepped: &mut Stepped, count: usize) {
    for _ in 0..count {
        stepped.worker.turn();
    }
}

fn send(guest: &mut Port, pair: usize, bytes: &[u8], count: u16) -> bool {
    let Port { ram, pairs } = guest;
    pairs[pair].send(ram, bytes, count);
    pairs[pair].kick_if_wanted(ram, count)
}

fn received(guest: &mut Port) -> usize {
    let Port { ram, pairs } = guest;
    pairs.iter_mut().map(|pair| pair.receive(ram)).sum()
}

#[test]
fn rings_without_frames_rest_and_a_kick_brings_them_back() {
    let (mut stepped, mut guests) = lab(3, 4);
    let (to_second, to_first) = (frame(1, "10.1.0.2", 64), frame(3, "10.1.0.1", 64));
    for turn in 0..LONG {
        let wanted = send(&mut guests[0], 0, &to_second, 1);
        assert!(turn == 0 || !wanted, "a ring that is looked at asks for no kicks but the first");
        turns(&mut stepped, 1);
    }
    assert_eq!(received(&mut guests[1]), LONG.min(256), "it had that many buffers");
    assert_eq!(stepped.worker.resting(), 8, "all but four");
    let mut kicked = 0;
    for pair in 0..4 {
        kicked += usize::from(send(&mut guests[2], pair, &to_first, 5));
        turns(&mut stepped, SOON);
        assert_eq!(received(&mut guests[0]), 5, "pair {pair}");
    }
    assert!(kicked > 0, "some of those rested");
    assert!((4..=8).contains(&stepped.worker.resting()), "others rest instead");
}

#[test]
fn a_ring_that_has_frames_when_it_would_rest_does_not() {
    let (mut stepped, mut guests) = lab(2, 4);
    let bytes = frame(1, "10.1.0.2", 64);
    for _ in 0..4 {
        turns(&mut stepped, LONG / 2);
        for pair in 0..4 {
            send(&mut guests[0], pair, &bytes, 1);
        }
    }
    let mut came = 0;
    // A turn that was interrupted is its guest's, who may have to sit some out.
    until("all arrive", || {
        turns(&mut stepped, 1);
        came += received(&mut guests[1]);
        came == 16
    });
    assert_eq!(stepped.worker.resting(), 4);
}

#[test]
fn a_ring_at_rest_can_be_stopped() {
    let (mut stepped, _guests) = lab(2, 4);
    turns(&mut stepped, LONG);
    assert_eq!(stepped.worker.resting(), 4);
    for n in 1..=2 {
        let port = stepped.nve.port(&format!("vm{n}")).unwrap();
        (0..4).for_each(|pair| assert!(stepped.worker.stop(port, Role::Transmit(pair)).is_some()));
    }
    assert_eq!(stepped.worker.resting(), 0);
}

/// Cycles for each packet, when every `apart`-th pair of `ports` guests has frames: before the others rest, and then. Medians of rounds.
fn cycles(ports: u8, pairs: u8, apart: usize) -> [u64; 2] {
    let (mut stepped, mut guests) = lab(ports, pairs);
    let frames: Vec<_> = (1..=ports).map(|n| frame(n, &format!("10.1.0.{}", n % ports + 1), 64)).collect();
    let mut round = || {
        let before = stepped.report();
        for (guest, bytes) in guests.iter_mut().zip(&frames) {
            for pair in (0..usize::from(pairs)).step_by(apart) {
                send(guest, pair, bytes, 32);
            }
        }
        turns(&mut stepped, SOON);
        assert!(guests.iter_mut().all(|guest| received(guest) > 0));
        let after = stepped.report();
        (after.busy_cycles - before.busy_cycles) / (after.packets - before.packets)
    };
    // The caches and tables first.
    for _ in 0..5 {
        round();
    }
    let [awake, rested] = [20, 60].map(|rounds| (0..rounds).map(|_| round()).collect::<Vec<_>>());
    [&awake[..], &rested[20..]].map(|cycles| {
        let mut cycles = cycles.to_vec();
        cycles.sort_unstable();
        cycles[cycles.len() / 2]
    })
}

#[test]
#[ignore = "figures to be read, of an optimised build"]
fn what_many_ports_cost() {
    println!(
        "| ports | pairs of each | with frames | cycles/packet, none at rest | and then |\n|---|---|---|---|---|"
    );
    for (ports, pairs, apart) in [(2, 1, 1), (2, 8, 8), (64, 1, 1), (64, 8, 8), (64, 8, 1)] {
        let with_frames = usize::from(ports) * usize::from(pairs) / apart;
        let [awake, rested] = cycles(ports, pairs, apart);
        println!("| {ports} | {pairs} | {with_frames} | {awake} | {rested} |");
    }
}
