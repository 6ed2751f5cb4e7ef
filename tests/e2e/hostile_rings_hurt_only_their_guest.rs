//! A guest owns its rings and every byte in them; other tenants do not notice what it writes there.

use std::time::{Duration, Instant};

use vhost_ila_tests::ringpeer::beside::{Beside, HOSTILE};
use vhost_ila_tests::ringpeer::card::{Card, Control};
use vhost_ila_tests::ringpeer::dirty_log::{DirtyLog, WHOLE};
use vhost_ila_tests::ringpeer::header::NetHeader;
use vhost_ila_tests::ringpeer::memory::{HIGH_START, LOW};
use vhost_ila_tests::ringpeer::neighbours::{EVIL, SECRET, datagram};
use vhost_ila_tests::ringpeer::ring::{Raw, Ring};
use vhost_ila_tests::ringpeer::{Chain, Options, Peer, connect};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::VM1;
use virtio_bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT as INDIRECT, VRING_DESC_F_NEXT as NEXT, VRING_DESC_F_WRITE as WRITE,
};
use vm_memory::{Bytes, GuestAddress};

/// Where the hostile frame lies.
const FRAME: u64 = HIGH_START + (200 << 20);

/// Where indirect tables are written.
const TABLE: u64 = FRAME + 0x20_0000;

/// What `show attachments` says of a broken ring.
mod fault {
    pub(super) const NONE: &[&str] = &[];
    pub(super) const ENDLESS: &[&str] = &["has no end"];
    pub(super) const INDEX: &[&str] = &["index is beyond its table"];
    pub(super) const ADDRESS: &[&str] = &["outside the shared memory"];
    pub(super) const EMPTY: &[&str] = &["has no bytes"];
    pub(super) const DIRECTION: &[&str] = &["wrong direction"];
    pub(super) const TABLE: &[&str] = &["bad indirect descriptor table"];
    /// Where no table was negotiated, it is one; where it was, it is looked for.
    pub(super) const TABLE_ADDRESS: &[&str] = &["bad indirect descriptor table", "outside the shared memory"];
    pub(super) const TABLE_DIRECTION: &[&str] = &["bad indirect descriptor table", "wrong direction"];
    pub(super) const NO_ANSWER: &[&str] = &["no room for its answer"];
    pub(super) const JUMP: &[&str] = &["available index jumped"];
    /// Or none.
    pub(super) const ANY: &[&str] = &[""];
}

/// A chain that no driver writes, and what its ring is then broken by.
struct Bad {
    name: &'static str,
    /// From index 0 on, and again over the whole ring. In a packed ring what is next is an id, and a chain goes on behind each.
    descriptors: Vec<Raw>,
    /// Heads offered; in a packed ring all of the descriptors are.
    heads: Vec<u16>,
    fault: &'static [&'static str],
}

/// Those of a kind of ring.
fn chains(own: u32, packed: bool) -> Vec<Bad> {
    let of_its_kind = if packed { of_packed_rings(own) } else { of_split_rings(own) };
    of_any_ring(own, packed).into_iter().chain(of_its_kind).collect()
}

fn of_split_rings(own: u32) -> Vec<Bad> {
    let one = |name, flags, next, fault| {
        let descriptors = vec![(FRAME, 70, flags | own, next)];
        Bad { name, descriptors, heads: vec![0], fault }
    };
    vec![
        one("a next beyond the ring", NEXT, 256, fault::INDEX),
        one("a next far beyond the ring", NEXT, u16::MAX, fault::INDEX),
        Bad { heads: vec![256, u16::MAX], ..one("a head beyond the ring", 0, 0, fault::INDEX) },
        Bad { heads: vec![0; 100], ..one("the same head again and again", 0, 0, fault::NONE) },
    ]
}

fn of_packed_rings(own: u32) -> Vec<Bad> {
    let frames = |name, ids: Vec<u16>| {
        let descriptors = ids.into_iter().map(|id| (FRAME, 70, own, id)).collect();
        Bad { name, descriptors, heads: vec![], fault: fault::NONE }
    };
    // 2.8.8: a table is a chain by itself.
    let descriptors = vec![(FRAME, 70, own | NEXT, 0), (TABLE, 16, INDIRECT, 0)];
    vec![
        frames("an id beyond the ring", vec![256, u16::MAX]),
        frames("the same id again and again", vec![7; 100]),
        Bad { name: "a table behind a buffer", descriptors, heads: vec![], fault: fault::TABLE },
    ]
}

fn of_any_ring(own: u32, packed: bool) -> Vec<Bad> {
    let frame = |flags, next| (FRAME, 70, flags | own, next);
    let one = |name, descriptor, fault| Bad { name, descriptors: vec![descriptor], heads: vec![0], fault };
    let many = |name, descriptors, fault| Bad { name, descriptors, heads: vec![0], fault };
    vec![
        one("a loop of one", frame(NEXT, 0), fault::ENDLESS),
        many("a loop of two", vec![frame(NEXT, 1), frame(NEXT, 0)], fault::ENDLESS),
        many(
            "a loop of the whole ring",
            (1..=256).map(|next| (FRAME, 70, own | NEXT, next % 256)).collect(),
            fault::ENDLESS,
        ),
        one("an address in the hole", (LOW + 0x1000, 70, own, 0), fault::ADDRESS),
        one("an address at the hole's edge", (LOW - 8, 70, own, 0), fault::ADDRESS),
        one("an address that wraps", (u64::MAX - 7, 70, own, 0), fault::ADDRESS),
        one("an address past the end", (HIGH_START + (300 << 20), 70, own, 0), fault::ADDRESS),
        one("no bytes", (FRAME, 0, own, 0), fault::EMPTY),
        one("no bytes anywhere", (u64::MAX, 0, own, 0), fault::EMPTY),
        many(
            "no bytes, many times",
            (1..=200).map(|next| (FRAME, 0, own | NEXT, next)).chain([frame(0, 0)]).collect(),
            fault::EMPTY,
        ),
        one("one byte", (FRAME, 1, own, 0), fault::NONE),
        one("less than a header", (FRAME, 11, own, 0), fault::NONE),
        one("a header and nothing", (FRAME, 12, own, 0), fault::NONE),
        one("a header and a byte", (FRAME, 13, own, 0), fault::NONE),
        one("more than any frame", (FRAME, 65_536 + 100, own, 0), fault::NONE),
        one("four gigabytes", (FRAME, u32::MAX, own, 0), fault::ADDRESS),
        many(
            "megabytes in all",
            (1..=40).map(|next| (FRAME, 60_000, own | NEXT, next)).chain([frame(0, 0)]).collect(),
            fault::NONE,
        ),
        many(
            "more than four gigabytes in all",
            (1..=9).map(|next| (FRAME, 1 << 29, own | NEXT, next)).chain([frame(0, 0)]).collect(),
            fault::ADDRESS,
        ),
        one("the wrong direction", (FRAME, 70, own ^ WRITE, 0), fault::DIRECTION),
        many("both directions", vec![frame(NEXT, 1), (FRAME, 70, own ^ WRITE, 0)], fault::DIRECTION),
        many(
            "both directions, the other first",
            vec![(FRAME, 70, own ^ WRITE | NEXT, 1), (FRAME, 70, own ^ WRITE | NEXT, 0)],
            fault::DIRECTION,
        ),
        one("unknown flags", (FRAME, 70, 0xfff8 | own, 0), fault::NONE),
        // Of a packed ring that is its descriptors.
        one(OWN_RINGS, (0x1000, 0x3000, own, 0), if packed { fault::ANY } else { fault::NONE }),
        one("a table within a table", (TABLE, 16, INDIRECT, 0), fault::TABLE),
        one("a table of no whole descriptors", (TABLE, 17, INDIRECT, 0), fault::TABLE),
        one("a table of nothing", (TABLE, 0, INDIRECT, 0), fault::TABLE),
        one("a table larger than the ring", (TABLE, 16 * 65_535, INDIRECT, 0), fault::TABLE),
        one("a table in the hole", (LOW + 0x1000, 32, INDIRECT, 0), fault::TABLE_ADDRESS),
        one("a table past the end", (u64::MAX - 15, 32, INDIRECT, 0), fault::TABLE_ADDRESS),
        one("a table with a next", (TABLE, 16, INDIRECT | NEXT, 0), fault::TABLE),
        // The receive ring, whose descriptors are all to be written.
        one("a table that is a ring", (0x1000, 16 * 256, INDIRECT, 0), fault::TABLE_DIRECTION),
    ]
}

/// The chain whose buffer is the rings: writing there is what its guest asked for.
const OWN_RINGS: &str = "the rings themselves";

/// Which ring is attacked.
#[derive(Clone, Copy)]
struct Attacked {
    ring: fn(&mut Peer) -> &mut Ring,
    /// Its name in `show attachments`.
    name: &'static str,
    /// The flag of its good buffers.
    own: u32,
}

const RECEIVE: Attacked = Attacked { ring: Peer::rx, name: "receive 0", own: WRITE };
const TRANSMIT: Attacked = Attacked { ring: Peer::tx, name: "transmit 0", own: 0 };

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn chains_that_no_driver_writes_to_send() {
    corpus("e2e/hostile-transmit", TRANSMIT, 1);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn chains_that_no_driver_writes_to_receive() {
    corpus("e2e/hostile-receive", RECEIVE, 1);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn chains_that_no_driver_writes_to_receive_from_two_workers() {
    corpus("e2e/hostile-receive-two-workers", RECEIVE, 2);
}

/// Each bad chain with every set of ring features, and while dirty pages are logged: its ring is broken by the right name, and nothing is written but what may be.
fn corpus(evidence: &str, attacked: Attacked, workers: u16) {
    let mut checks = [1, 2, 3, 4, 6, 30].map(|number| Check::begin(number, "chains"));
    let mut host = Beside::with_workers(evidence, workers).unwrap();
    let rounds = checks[0].scale(1, 20);
    let (plain, all) = (Options::default(), Options::offloads());
    let packed = [(plain.packed(), false), (all.packed(), false), (all.packed().in_order(), true)];
    let split = [(plain, false), (all, false), (all, true)];
    let kinds = [&split[..], checks[0].scale(&packed[2..], &packed[..])].concat();
    // With several workers what is new is who finds the chain, not what it is.
    let kinds = if workers > 1 { kinds[..1].to_vec() } else { kinds };
    for (options, logs) in kinds.repeat(rounds) {
        for bad in chains(attacked.own, options.is_packed()) {
            let mut peer = prepared(options, attacked.ring, &bad);
            if logs {
                // CVE-2019-14835: what is logged of a chain must not run ahead of the chain.
                peer.log_into(DirtyLog::new(WHOLE).unwrap()).unwrap();
            }
            let before = Untouched::by(&mut peer, &bad, attacked);
            peer.attach(connect(&host.socket).unwrap()).unwrap();
            host.unharmed(bad.name).unwrap();
            broken_by(&host, attacked.name, &bad);
            // Once more while it runs: what is read only once cannot have become worse.
            offer((attacked.ring)(&mut peer), &bad);
            host.unharmed(bad.name).unwrap();
            broken_by(&host, attacked.name, &bad);
            assert_eq!(peer.finds(SECRET).unwrap(), None, "{}: a neighbour's memory", bad.name);
            let received = peer.memory().bytes(GuestAddress(FRAME), 0x2_0000).unwrap();
            let secret = received.chunks_exact(8).position(|word| word == SECRET.to_ne_bytes());
            assert_eq!(secret, None, "{}: a neighbour's memory in a frame", bad.name);
            before.must_be_so(&mut peer, &bad);
            checks.iter_mut().for_each(|check| check.count(1));
        }
        host.recovered("bad chains").unwrap();
    }
    host.end().unwrap();
}

/// As [`chains`], for a control queue of 64 entries: what is read, then what the answer is written to.
fn commands(packed: bool) -> Vec<Bad> {
    let many = |name, descriptors, fault| Bad { name, descriptors, heads: vec![0], fault };
    let one = |name, descriptor, fault| many(name, vec![descriptor], fault);
    let command = |flags, next| (FRAME, 4, flags, next);
    let answered = |command, answer| vec![command, answer];
    let answer = (FRAME + 0x800, 1, WRITE, 0);
    let mut commands = vec![
        one("a loop of one", command(NEXT, 0), fault::ENDLESS),
        many("a loop of two", vec![command(NEXT, 1), command(NEXT, 0)], fault::ENDLESS),
        one("a loop of answers", (FRAME, 1, WRITE | NEXT, 0), fault::ENDLESS),
        one("an address in the hole", (LOW + 0x1000, 4, 0, 0), fault::ADDRESS),
        one("an address that wraps", (u64::MAX - 3, 4, 0, 0), fault::ADDRESS),
        many("gigabytes", answered((FRAME, u32::MAX, NEXT, 1), answer), fault::ADDRESS),
        one("no bytes", (FRAME, 0, 0, 0), fault::EMPTY),
        one("no answer", command(0, 0), fault::NO_ANSWER),
        many(
            "an answer in the hole",
            answered(command(NEXT, 1), (LOW + 0x1000, 1, WRITE, 0)),
            fault::ADDRESS,
        ),
        many("an answer of no bytes", answered(command(NEXT, 1), (FRAME, 0, WRITE, 0)), fault::EMPTY),
        many("the answer first", answered((FRAME, 1, WRITE | NEXT, 1), command(0, 0)), fault::DIRECTION),
        one("nothing but an answer", (FRAME, 1, WRITE, 0), fault::NONE),
        many("a command without its data", answered((FRAME, 1, NEXT, 1), answer), fault::NONE),
        many("more data than any command has", answered((FRAME, 60_000, NEXT, 1), answer), fault::NONE),
        one("a table within a table", (TABLE, 16, INDIRECT, 0), fault::TABLE),
        one("a table of nothing", (TABLE, 0, INDIRECT, 0), fault::TABLE),
        one("a table larger than the ring", (TABLE, 16 * 65_535, INDIRECT, 0), fault::TABLE),
        one("a table in the hole", (LOW + 0x1000, 32, INDIRECT, 0), fault::TABLE_ADDRESS),
    ];
    if !packed {
        commands.push(one("a next beyond the ring", command(NEXT, 64), fault::INDEX));
        let head = one("a head beyond the ring", command(0, 0), fault::INDEX);
        commands.push(Bad { heads: vec![64, u16::MAX], ..head });
    }
    commands
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn commands_that_no_driver_writes() {
    let mut checks = [1, 2, 3, 4, 6].map(|number| Check::begin(number, "commands"));
    let mut host = Beside::start("e2e/hostile-commands").unwrap();
    for options in [Options::default(), Options::offloads(), Options::offloads().packed()] {
        for bad in commands(options.is_packed()) {
            let mut card = Card::connect(&host.socket, options, 1, Control::PassedOn).unwrap();
            let map = card.pair(0).memory().map.clone();
            let canary = [0xa5; 0x1000];
            for page in [FRAME - 0x1000, FRAME + 0x1000] {
                map.write_slice(&canary, GuestAddress(page)).unwrap();
            }
            let ring = card.control().unwrap();
            ring.write_raw(GuestAddress(TABLE), TABLE, 16, INDIRECT, 0).unwrap();
            for index in 0..64 {
                let at = usize::from(index) % bad.descriptors.len();
                let (address, length, flags, next) = bad.descriptors[at];
                ring.write_raw(ring.descriptor(index), address, length, flags, next).unwrap();
            }
            // Again behind a fault: a broken queue is left alone.
            for _ in 0..2 {
                offer(card.control().unwrap(), &bad);
                host.unharmed(bad.name).unwrap();
                broken_by(&host, "control", &bad);
            }
            for page in [FRAME - 0x1000, FRAME + 0x1000] {
                let mut now = [0; 0x1000];
                map.read_slice(&mut now, GuestAddress(page)).unwrap();
                assert_eq!(now, canary, "{}: written beside the buffer", bad.name);
            }
            checks.iter_mut().for_each(|check| check.count(1));
        }
        host.recovered("bad commands").unwrap();
    }
    host.end().unwrap();
}

/// The status names what broke the ring, soon; or nothing, where a ring survives.
fn broken_by(host: &Beside, ring: &str, bad: &Bad) {
    let said = || -> Option<String> {
        let shown = host.shown().unwrap();
        let mut rings = shown["rings"].as_array().expect("rings").iter();
        let attacked = rings.find(|shown| shown["role"] == ring).expect("the attacked ring");
        attacked["fault"].as_str().map(str::to_owned)
    };
    let right = |said: Option<String>| match said {
        None => bad.fault.is_empty() || bad.fault == fault::ANY,
        Some(said) => bad.fault.iter().any(|fault| said.contains(fault)),
    };
    let start = Instant::now();
    while !right(said()) {
        let late = start.elapsed() > Duration::from_secs(5);
        assert!(!late, "{}: {:?} instead of {:?}", bad.name, said(), bad.fault);
    }
}

/// A guest's memory outside what the device may write.
struct Untouched(Vec<(u64, Vec<u8>)>);

impl Untouched {
    /// The memory of rings without the device's areas, and a page on each side of the declared buffer.
    fn by(peer: &mut Peer, bad: &Bad, attacked: Attacked) -> Untouched {
        let parts = peer.rings().map(|ring| ring.written_by_the_device()).concat();
        let mut written: Vec<_> = parts.iter().map(|(start, bytes)| start.0..start.0 + bytes).collect();
        if attacked.own == WRITE {
            let buffers = bad.descriptors.iter().filter(|buffer| buffer.1 < 1 << 20 && buffer.2 & WRITE != 0);
            written.extend(buffers.map(|buffer| buffer.0..buffer.0.saturating_add(buffer.1.into())));
        }
        written.sort_by_key(|range| range.start);
        let mut kept = Vec::new();
        for (mut start, end) in [(0, LOW), (FRAME - 0x1000, FRAME + 0x2_0000)] {
            for range in &written {
                if (start..end).contains(&range.start) {
                    kept.push((start, range.start - start));
                    start = range.end;
                }
            }
            kept.push((start, end.saturating_sub(start)));
        }
        let memory = peer.memory();
        Untouched(
            kept.into_iter()
                .map(|(start, length)| (start, memory.bytes(GuestAddress(start), length).unwrap()))
                .collect(),
        )
    }

    fn must_be_so(&self, peer: &mut Peer, bad: &Bad) {
        // What the peer itself has offered meanwhile.
        let offered = [peer.rx().driver_area(), peer.tx().driver_area()];
        for (start, before) in &self.0 {
            let now = peer.memory().bytes(GuestAddress(*start), before.len() as u64).unwrap();
            let differs = |at: &usize| {
                now[*at] != before[*at] && !offered.iter().any(|range| range.contains(&(start + *at as u64)))
            };
            let first = if now == *before { None } else { (0..now.len()).find(differs) };
            assert!(
                first.is_none() || bad.name == OWN_RINGS,
                "{}: written at {start:#x} + {first:#x?}",
                bad.name
            );
        }
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn indices_that_jump() {
    let mut check = Check::begin(7, "jumps");
    let mut dice = check.dice();
    let mut host = Beside::start("e2e/hostile-indices").unwrap();
    let more = (0..check.scale(5, 500)).map(|_| 257 + dice.below(65_279) as u16);
    for distance in [257, 1000, 32_768, 65_279, u16::MAX].into_iter().chain(more) {
        for attacked in [TRANSMIT, RECEIVE] {
            let mut peer = Peer::connect(&host.socket, Options::default()).unwrap();
            let ring = (attacked.ring)(&mut peer);
            ring.skip(distance).unwrap();
            ring.publish().unwrap();
            let act = format!("a jump by {distance}");
            host.unharmed(&act).unwrap();
            let broken = Bad { name: "a jump", descriptors: vec![], heads: vec![], fault: fault::JUMP };
            // Back by as many as are not done is where it was: a receive ring whose buffers wait.
            if !(attacked.own == WRITE && distance >= 65_280) {
                broken_by(&host, attacked.name, &broken);
            }
            check.count(1);
        }
    }
    assert!(host.log_lines().unwrap() < 100, "a line for every jump");
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
    let mut check = Check::begin(11, "writes into rings");
    let mut host = Beside::start("e2e/hostile-flipper").unwrap();
    let each = check.scale(Duration::from_secs(3), Duration::from_secs(300));
    let mut dice = check.dice();
    let (plain, all) = (Options::default(), Options::offloads());
    for options in [plain, all, plain.packed(), all.packed()] {
        let mut sessions = 0;
        let start = Instant::now();
        while start.elapsed() < each {
            let mut peer = Peer::new(options).unwrap();
            let Ok(()) = peer.attach(connect(&host.socket).unwrap()) else { continue };
            sessions += 1;
            let map = peer.memory().map.clone();
            for _ in 0..20_000 {
                let value = dice.roll();
                // Half of them in the rings' descriptors, and plausible: small indices, addresses that exist, flags of a lap.
                let at = GuestAddress(0x1000 + dice.roll() % 0x6000 / 2 * 2);
                let plausible = [value & 0xff, HIGH_START + (value & 0xff_ffff), value, value & 0x8087];
                let small = plausible[(value >> 60) as usize % plausible.len()];
                map.write_slice(&small.to_le_bytes()[..2 + (value >> 50) as usize % 7], at).unwrap();
                if value.is_multiple_of(64) {
                    drop(peer.tx().kick.write(1));
                    drop(peer.rx().kick.write(1));
                }
            }
            host.unharmed("memory that changes").unwrap();
            assert_eq!(peer.finds(SECRET).unwrap(), None, "a neighbour's memory");
            check.count(20_000);
        }
        println!("{sessions} sessions of rings that change");
        assert!(sessions > 0);
    }
    host.end().unwrap();
}

/// A peer that is not attached yet, whose `ring` has the descriptors of `bad` and offers its heads.
fn prepared(options: Options, ring: fn(&mut Peer) -> &mut Ring, bad: &Bad) -> Peer {
    let mut peer = Peer::new(options).unwrap();
    let frame = [[0; 12].as_slice(), &datagram(&HOSTILE, &VM1, EVIL).unwrap()].concat();
    let map = peer.memory().map.clone();
    map.write_slice(&frame[..frame.len() - EVIL.len()], GuestAddress(FRAME)).unwrap();
    let ring = ring(&mut peer);
    // Every entry of a table refers to a table itself.
    ring.write_raw(GuestAddress(TABLE), TABLE, 16, INDIRECT, 0).unwrap();
    for index in 0..256 {
        // What was posted by the book is overwritten as well.
        let (address, length, flags, next) = bad.descriptors[usize::from(index) % bad.descriptors.len()];
        ring.write_raw(ring.descriptor(index), address, length, flags, next).unwrap();
    }
    // A receive ring is full already.
    ring.rewind();
    offer(ring, bad);
    peer
}

fn offer(ring: &mut Ring, bad: &Bad) {
    if ring.is_packed() {
        ring.put_raw(&bad.descriptors).unwrap();
    } else {
        bad.heads.iter().for_each(|head| ring.offer_raw(*head).unwrap());
    }
    ring.publish().unwrap();
}
