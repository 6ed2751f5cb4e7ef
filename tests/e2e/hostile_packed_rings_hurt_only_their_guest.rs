//! What only packed rings have, and a driver or front-end gets wrong: wrap counters, event suppression, and where the ring begins. Bad chains
//! are in `hostile_rings_hurt_only_their_guest.rs`.

use std::time::{Duration, Instant};

use vhost_ila_tests::dice::Dice;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{Beside, GATEWAY, HOSTILE};
use vhost_ila_tests::ringpeer::neighbours::arp_request;
use vhost_ila_tests::ringpeer::{Options, Peer, connect};
use vhost_ila_tests::scoreboard::Check;
use vm_memory::{Address, Bytes, GuestAddress};

/// Available and used, as bits of a descriptor's flags.
const LAPS: [u16; 4] = [0, 1 << 7, 1 << 15, 1 << 7 | 1 << 15];

/// Bytes of a question with its header, and of a receive buffer.
const FRAME: u32 = 54;
const BUFFER: u32 = 2048;

/// Words of event suppression: places and none, in a ring of 256, of either lap.
const PLACES: [u16; 8] = [0, 0x8000, 5, 255, 256, 0x80ff, 0x7fff, u16::MAX];

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn wrap_counters_that_lie() {
    let mut check = Check::begin(7, "wrap counters");
    let mut dice = check.dice();
    let mut host = Beside::start("e2e/hostile-wrap-counters").unwrap();
    for options in [Options::default().packed(), Options::offloads().packed().in_order()] {
        let mut peer = Peer::connect(&host.socket, options).unwrap();
        // Whichever are available, they are good: buffers to be received into, and a frame to be sent.
        let frame = [[0; 12].as_slice(), &arp_request(&HOSTILE, GATEWAY).unwrap()].concat();
        let at = peer.memory().for_buffers(4096).unwrap();
        peer.memory().map.write_slice(&frame, at).unwrap();
        assert_eq!(frame.len(), FRAME as usize);
        for index in 0..peer.tx().size() {
            let descriptor = peer.tx().descriptor(index);
            peer.tx().write_raw(descriptor, at.0, FRAME, 0, index).unwrap();
        }
        let before = sent(&host);
        for _ in 0..check.scale(2_000, 100_000) {
            lie(&mut peer, &mut dice);
            check.count(1);
        }
        // A worker that seldom had a processor meanwhile has seen few of them.
        let begin = Instant::now();
        while sent(&host) <= before + 100 {
            assert!(begin.elapsed() < Duration::from_secs(30), "hardly any frame was taken");
            (0..100).for_each(|_| lie(&mut peer, &mut dice));
        }
        host.unharmed("wrap counters that lie").unwrap();
        let rings = host.shown().unwrap()["rings"].clone();
        assert!(rings[0]["fault"].is_null() && rings[1]["fault"].is_null(), "{rings:#}");
    }
    host.recovered("wrap counters that lie").unwrap();
    host.end().unwrap();
}

/// How many frames the hostile one's transmit ring has carried.
fn sent(host: &Beside) -> u64 {
    host.shown().unwrap()["rings"][1]["frames"].as_u64().unwrap()
}

/// Changes the lap of some descriptors, and sometimes an id; the buffers stay what they are.
fn lie(peer: &mut Peer, dice: &mut Dice) {
    let map = peer.memory().map.clone();
    let writes = dice.once_in(2);
    let ring = if writes { peer.rx() } else { peer.tx() };
    let (first, lap) = (dice.below(ring.size().into()) as u16, dice.of(&LAPS));
    for index in (0..1 + dice.below(64) as u16).map(|more| (first + more) % ring.size()) {
        let id = if dice.once_in(64) { dice.roll() as u16 } else { index };
        let (flags, length) = if writes { (lap | 2, BUFFER) } else { (lap, FRAME) };
        let half = u64::from(flags) << 48 | u64::from(id) << 32 | u64::from(length);
        map.store(half.to_le(), ring.descriptor(index).unchecked_add(8), ORDER).unwrap();
    }
    ring.kick.write(1).unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn event_suppression_that_names_no_place() {
    let mut check = Check::begin(7, "event suppressions");
    let mut host = Beside::start("e2e/hostile-event-suppression").unwrap();
    for options in [Options::default().packed(), Options::offloads().packed()] {
        let mut peer = Peer::connect(&host.socket, options).unwrap();
        for flags in [0, 1, 2, 3, 0xfffc, u16::MAX] {
            for place in PLACES {
                let map = peer.memory().map.clone();
                for ring in peer.rings() {
                    let area = GuestAddress(ring.driver_area().start);
                    map.store((u32::from(flags) << 16 | u32::from(place)).to_le(), area, ORDER).unwrap();
                }
                // It goes on, and may not call: what it takes and gives is looked up in the ring.
                peer.send_unheard(&arp_request(&HOSTILE, GATEWAY).unwrap()).unwrap();
                let what = format!("an answer, though {flags:#x}, {place:#x} is wished for");
                wait_for(&what, Duration::from_secs(5), || {
                    let Some((id, _)) = peer.rx().take_used()? else { return Ok(None) };
                    let part = peer.rx().parts(id)[0];
                    peer.rx().add(&[part])?;
                    peer.rx().publish()?;
                    Ok(Some(()))
                })
                .unwrap();
                check.count(1);
            }
        }
        host.unharmed("event suppression").unwrap();
    }
    host.recovered("event suppression").unwrap();
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn rings_that_begin_anywhere() {
    let mut check = Check::begin(7, "beginnings");
    let mut dice = check.dice();
    let mut host = Beside::start("e2e/hostile-beginnings").unwrap();
    let bases = PLACES.into_iter().flat_map(|base| PLACES.map(|noted| (base, noted)));
    let random = (0..check.scale(20, 2_000)).map(|_| (dice.roll() as u16, dice.roll() as u16));
    for (base, noted) in bases.chain(random.collect::<Vec<_>>()) {
        let mut peer = Peer::new(Options::default().packed()).unwrap();
        let map = peer.memory().map.clone();
        for ring in peer.rings() {
            ring.stopped_at(base.into());
            map.store(u32::from(noted).to_le(), ring.device_area(), ORDER).unwrap();
        }
        drop(peer.try_send(&arp_request(&HOSTILE, GATEWAY).unwrap()));
        let act = format!("a ring that begins at {base:#x}, and was noted at {noted:#x}");
        let attached = peer.attach(connect(&host.socket).unwrap());
        if base & 0x7fff < 256 {
            attached.expect(&act);
        } else {
            let fault = || Ok(host.shown()?.to_string().contains("beyond its end").then_some(()));
            wait_for(&act, Duration::from_secs(5), fault).unwrap();
        }
        host.unharmed(&act).unwrap();
        check.count(1);
    }
    host.recovered("rings that begin anywhere").unwrap();
    host.end().unwrap();
}

const ORDER: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Release;
