//! A guest owns its rings and every byte in them; other tenants do not notice what it writes there.

use std::time::{Duration, Instant};

use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{Beside, HOSTILE};
use vhost_ila_tests::ringpeer::dirty_log::{DirtyLog, WHOLE};
use vhost_ila_tests::ringpeer::header::NetHeader;
use vhost_ila_tests::ringpeer::memory::{HIGH_START, LOW};
use vhost_ila_tests::ringpeer::neighbours::{EVIL, datagram};
use vhost_ila_tests::ringpeer::ring::Ring;
use vhost_ila_tests::ringpeer::{Chain, Options, Peer, connect};
use vhost_ila_tests::site::VM1;
use virtio_bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT as INDIRECT, VRING_DESC_F_NEXT as NEXT, VRING_DESC_F_WRITE as WRITE,
};
use vm_memory::{Bytes, GuestAddress};

/// Where the hostile frame lies.
const FRAME: u64 = HIGH_START + (200 << 20);

/// Where indirect tables are written.
const TABLE: u64 = FRAME + 0x20_0000;

/// Descriptors: address, length, flags, next.
type Descriptors = Vec<(u64, u32, u32, u16)>;

/// A chain: its name, descriptors from index 0, heads offered, and what the ring breaks of, as its status says: one of the words,
/// nothing for a chain that is only a bad frame.
type Case = (&'static str, Descriptors, Vec<u16>, &'static str);

fn chains(own: u32) -> Vec<Case> {
    let frame = |flags, next| (FRAME, 70, flags | own, next);
    vec![
        ("a loop of one", vec![frame(NEXT, 0)], vec![0], "no end"),
        ("a loop of two", vec![frame(NEXT, 1), frame(NEXT, 0)], vec![0], "no end"),
        ("a next beyond the ring", vec![frame(NEXT, 256)], vec![0], "beyond its table"),
        ("a next far beyond the ring", vec![frame(NEXT, u16::MAX)], vec![0], "beyond its table"),
        ("a head beyond the ring", vec![frame(0, 0)], vec![256, u16::MAX], "beyond its table"),
        ("the same head again and again", vec![frame(0, 0)], vec![0; 200], ""),
        ("an address in the hole", vec![(LOW + 0x1000, 70, own, 0)], vec![0], "outside the shared memory"),
        ("an address at the hole's edge", vec![(LOW - 8, 70, own, 0)], vec![0], "outside the shared memory"),
        ("an address that wraps", vec![(u64::MAX - 7, 70, own, 0)], vec![0], "outside the shared memory"),
        (
            "an address past the end",
            vec![(HIGH_START + (300 << 20), 70, own, 0)],
            vec![0],
            "outside the shared memory",
        ),
        ("no bytes", vec![(FRAME, 0, own, 0)], vec![0], "no bytes"),
        ("no bytes anywhere", vec![(u64::MAX, 0, own, 0)], vec![0], "no bytes"),
        (
            "no bytes, many times",
            (1..=200).map(|next| (FRAME, 0, own | NEXT, next)).chain([frame(0, 0)]).collect(),
            vec![0],
            "no bytes",
        ),
        ("one byte", vec![(FRAME, 1, own, 0)], vec![0], ""),
        ("less than a header", vec![(FRAME, 11, own, 0)], vec![0], ""),
        ("a header and nothing", vec![(FRAME, 12, own, 0)], vec![0], ""),
        ("a header and a byte", vec![(FRAME, 13, own, 0)], vec![0], ""),
        ("four gigabytes", vec![(FRAME, u32::MAX, own, 0)], vec![0], "outside the shared memory"),
        (
            "megabytes in all",
            (1..=40).map(|next| (FRAME, 60_000, own | NEXT, next)).chain([frame(0, 0)]).collect(),
            vec![0],
            "",
        ),
        (
            "more than four gigabytes in all",
            (1..=9).map(|next| (FRAME, 1 << 29, own | NEXT, next)).chain([frame(0, 0)]).collect(),
            vec![0],
            "outside the shared memory",
        ),
        ("the wrong direction", vec![(FRAME, 70, own ^ WRITE, 0)], vec![0], "direction"),
        ("both directions", vec![frame(NEXT, 1), (FRAME, 70, own ^ WRITE, 0)], vec![0], "direction"),
        (
            "both directions, the other first",
            vec![(FRAME, 70, own ^ WRITE | NEXT, 1), frame(0, 0)],
            vec![0],
            "direction",
        ),
        ("unknown flags", vec![(FRAME, 70, 0xfff8 | own, 0)], vec![0], ""),
        ("the rings themselves", vec![(0x1000, 0x3000, own, 0)], vec![0], ""),
        ("a table within a table", vec![(TABLE, 16, INDIRECT, 0)], vec![0], "indirect"),
        ("a table of no whole descriptors", vec![(TABLE, 17, INDIRECT, 0)], vec![0], "indirect"),
        ("a table of nothing", vec![(TABLE, 0, INDIRECT, 0)], vec![0], "indirect"),
        ("a table larger than the ring", vec![(TABLE, 16 * 65_535, INDIRECT, 0)], vec![0], "indirect"),
        ("a table in the hole", vec![(LOW + 0x1000, 32, INDIRECT, 0)], vec![0], "indirect|outside"),
        ("a table past the end", vec![(u64::MAX - 15, 32, INDIRECT, 0)], vec![0], "indirect|outside"),
        ("a table with a next", vec![(TABLE, 16, INDIRECT | NEXT, 1), frame(0, 0)], vec![0], "indirect"),
        ("a table that is the ring", vec![(0x1000, 16 * 256, INDIRECT, 0)], vec![0], "indirect|direction"),
    ]
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn chains_that_no_driver_writes_to_send() {
    corpus("e2e/hostile-transmit", Peer::tx, 0);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn chains_that_no_driver_writes_to_receive() {
    corpus("e2e/hostile-receive", Peer::rx, WRITE);
}

/// Each bad chain with every set of ring features, and while dirty pages are logged, in the ring that `ring` takes, whose good chains have the direction `own`.
fn corpus(evidence: &str, ring: fn(&mut Peer) -> &mut Ring, own: u32) {
    let mut host = Beside::start(evidence).unwrap();
    let kinds = [(Options::default(), false), (Options::offloads(), false), (Options::offloads(), true)];
    for (options, logs) in kinds {
        for (name, descriptors, heads, fault) in chains(own) {
            let mut peer = prepared(options, ring, &descriptors, &heads);
            if logs {
                // CVE-2019-14835: what is logged of a chain must not run ahead of the chain.
                peer.log_into(DirtyLog::new(WHOLE).unwrap()).unwrap();
            }
            peer.attach(connect(&host.socket).unwrap()).unwrap();
            host.unharmed(name).unwrap();
            must_be_named(&host, name, fault);
            // Once more while it runs: what is read only once cannot have become worse.
            offer(ring(&mut peer), &heads);
            host.unharmed(name).unwrap();
        }
        host.recovered("bad chains").unwrap();
    }
    host.end().unwrap();
}

/// The hostile tenant's status says that a ring broke of `fault`, which is some words between bars.
fn must_be_named(host: &Beside, name: &str, fault: &str) {
    if fault.is_empty() {
        return;
    }
    wait_for(&format!("{name} to be named"), Duration::from_secs(5), || {
        let rings = host.shown()?["rings"].to_string();
        Ok(fault.split('|').any(|word| rings.contains(word)).then_some(()))
    })
    .unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn indices_that_jump() {
    let mut host = Beside::start("e2e/hostile-indices").unwrap();
    for ring in [Peer::tx as fn(&mut Peer) -> &mut Ring, Peer::rx] {
        for distance in [257, 1000, 32_768, 65_279, u16::MAX] {
            let mut peer = Peer::connect(&host.socket, Options::default()).unwrap();
            ring(&mut peer).skip(distance);
            ring(&mut peer).publish().unwrap();
            host.unharmed(&format!("a jump by {distance}")).unwrap();
            if std::ptr::fn_addr_eq(ring, Peer::tx as fn(&mut Peer) -> &mut Ring) {
                // A receive ring's index is only looked at again when its buffers are used up.
                must_be_named(&host, "a jump", "available index jumped");
            }
        }
    }
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn headers_that_contradict_their_packets() {
    let mut host = Beside::start("e2e/hostile-net-headers").unwrap();
    let mut peer =
        Peer::connect(&host.socket, Options { chain: Chain::HeaderApart, ..Options::offloads() }).unwrap();
    let frame = datagram(&HOSTILE, &VM1, EVIL).unwrap();
    let edges = [0, 1, 13, 14, 33, 34, 40, 41, 54, 1400, 32_768, 65_520, u16::MAX];
    for flags in [0, 1, 2, 3, 0xff] {
        for gso_type in [0, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0xff] {
            for start in edges {
                for (offset, size) in edges.into_iter().zip(edges.into_iter().rev()) {
                    if gso_type == 0 && flags & 1 == 0 {
                        // Nothing is claimed, so nothing is wrong: it would be delivered.
                        continue;
                    }
                    let header = NetHeader {
                        flags: flags | 1,
                        gso_type,
                        hdr_len: size,
                        gso_size: size,
                        csum_start: start,
                        csum_offset: offset,
                        num_buffers: start,
                    };
                    // The one that is true: a partial UDP checksum.
                    if (gso_type, start, offset) != (0, 34, 6) {
                        peer.send_with(header, &frame).unwrap();
                    }
                }
            }
        }
        host.unharmed(&format!("headers with flags {flags}")).unwrap();
    }
    peer.flush().unwrap();
    drop(peer);
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn rings_that_change_while_they_are_read() {
    let mut host = Beside::start("e2e/hostile-flipper").unwrap();
    for (options, seed) in [(Options::default(), 1), (Options::offloads(), 2)] {
        let mut random: u64 = seed;
        let mut next = move || {
            // Marsaglia's xorshift: the same in every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut sessions = 0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            let mut peer = Peer::new(options).unwrap();
            let Ok(()) = peer.attach(connect(&host.socket).unwrap()) else { continue };
            sessions += 1;
            let map = peer.memory().map.clone();
            for _ in 0..20_000 {
                let value = next();
                // Half of them in the rings' descriptors, and plausible: small indices, addresses that exist.
                let at = GuestAddress(0x1000 + next() % 0x6000 / 2 * 2);
                let small =
                    [value & 0xff, HIGH_START + (value & 0xff_ffff), value][(value >> 60) as usize % 3];
                map.write_slice(&small.to_le_bytes()[..2 + (value >> 50) as usize % 7], at).unwrap();
                if value % 64 == 0 {
                    drop(peer.tx().kick.write(1));
                    drop(peer.rx().kick.write(1));
                }
            }
            host.unharmed("memory that changes").unwrap();
        }
        println!("{sessions} sessions of rings that change");
        assert!(sessions > 0);
    }
    host.end().unwrap();
}

/// A peer that is not attached yet, whose `ring` has `descriptors` and offers `heads`.
fn prepared(
    options: Options,
    ring: fn(&mut Peer) -> &mut Ring,
    descriptors: &Descriptors,
    heads: &[u16],
) -> Peer {
    let mut peer = Peer::new(options).unwrap();
    let frame = [[0; 12].as_slice(), &datagram(&HOSTILE, &VM1, EVIL).unwrap()].concat();
    let map = peer.memory().map.clone();
    map.write_slice(&frame[..frame.len() - EVIL.len()], GuestAddress(FRAME)).unwrap();
    let ring = ring(&mut peer);
    // Every entry of a table refers to a table itself.
    ring.write_raw(GuestAddress(TABLE), TABLE, 16, INDIRECT, 0).unwrap();
    for index in 0..256 {
        // What was posted by the book is overwritten as well.
        let (address, length, flags, next) = descriptors[usize::from(index) % descriptors.len()];
        ring.write_raw(ring.descriptor(index), address, length, flags, next).unwrap();
    }
    offer(ring, heads);
    peer
}

/// Offers `heads`: more of them, or where the ring is full, in place of those it has.
fn offer(ring: &mut Ring, heads: &[u16]) {
    heads.iter().for_each(|head| ring.offer_raw(*head).unwrap());
    if ring.free() == 0 {
        ring.skip(0u16.wrapping_sub(u16::try_from(heads.len()).unwrap()));
    }
    ring.publish().unwrap();
}
