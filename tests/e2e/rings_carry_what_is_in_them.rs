//! Checks 5 and 12: honest rings of every shape and size. What comes out is what went in, once and in order.

use std::time::Duration;

use vhost_ila_tests::dice::Dice;
use vhost_ila_tests::ringpeer::beside::HONEST;
use vhost_ila_tests::ringpeer::header::NetHeader;
use vhost_ila_tests::ringpeer::neighbours::datagram;
use vhost_ila_tests::ringpeer::{Chain, Options, Peer};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{LINK_MTU, Plan, Site, VM1, Vm};

/// How long a frame may take on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn however_a_chain_cuts_a_frame() {
    let mut check = Check::begin(5, "chains");
    let site = Site::start("e2e/any-cuts", Plan::of(&[VM1, HONEST]).offering_packed_rings()).unwrap();
    let mut dice = check.dice();
    let whole = Options { chain: Chain::Whole, ..Options::default() };
    // Event indices, indirect tables, small mergeable buffers.
    let all = Options { rx_buffer: 300, ..Options::offloads() };
    let (many, some) = check.scale((1_000, 300), (50_000, 50_000));
    // A packed ring's end is where a chain is cut once more.
    let odd = Options { ring: 200, ..whole.packed() };
    for (options, rounds) in [(whole, many), (all, many), (odd, some), (all.packed().in_order(), some)] {
        let mut one = Peer::connect(&site.socket(&VM1), options).unwrap();
        let mut two = Peer::connect(&site.socket(&HONEST), options).unwrap();
        for round in 0..rounds {
            let payload = dice.bytes([LINK_MTU as usize - 28, 40, 0][round % 3]);
            let frame = datagram(&VM1, &HONEST, &payload).unwrap();
            let cuts = cuts(&mut dice, 12 + frame.len() as u32);
            check.trying(&cuts.iter().flat_map(|cut| cut.to_le_bytes()).collect::<Vec<u8>>());
            one.send_cut(NetHeader::default(), &frame, &cuts).unwrap();
            let came = two.receive(LIMIT).unwrap().expect("lost");
            // All but the MAC addresses, which are the gateway's and the receiver's now, and what a router may change of an IPv4 header.
            let kept = |bytes: &[u8]| [&bytes[12..18], &bytes[23..24], &bytes[26..]].concat();
            assert_eq!(kept(&came.bytes), kept(&frame), "cut at {cuts:?}");
            check.count(1);
        }
    }
}

/// Where a chain of up to 64 descriptors is cut; the header over one to twelve of them, often.
fn cuts(dice: &mut Dice, length: u32) -> Vec<u32> {
    let mut cuts: Vec<u32> = match dice.below(4) {
        // Byte by byte through the header.
        0 => (1..=12).collect(),
        // Even pieces.
        1 => {
            let step = (1 + dice.below(200) as u32).max(length.div_ceil(63));
            (step..length).step_by(step as usize).collect()
        }
        _ => (0..dice.below(60)).map(|_| 1 + dice.below(u64::from(length) - 1) as u32).collect(),
    };
    cuts.sort_unstable();
    cuts.dedup();
    cuts.retain(|cut| (1..length).contains(cut));
    cuts
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn however_often_its_indices_wrap() {
    let mut check = Check::begin(12, "frames");
    let site = Site::start("e2e/any-wrap", Plan::of(&[VM1, HONEST]).offering_packed_rings()).unwrap();
    let sizes: Vec<u16> = (6..=15).map(|power| 1 << power).collect();
    // Every size in a full run; the edges once round in the others.
    let (sizes, frames) = check.scale((vec![64, 32_768], 66_000), (sizes, 3 * 65_536 + 1000));
    for ring in sizes {
        for base in [Options::default(), Options::offloads()] {
            wraps(&mut check, &site, Options { ring, ..base }, frames);
        }
    }
}

/// Their offsets turn at the ring's size, which may be any, and their wrap counters with them.
#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn however_often_a_packed_ring_turns() {
    let mut check = Check::begin(12, "frames");
    let site = Site::start("e2e/packed-wrap", Plan::of(&[VM1, HONEST]).offering_packed_rings()).unwrap();
    let sizes = [66, 99, 128, 1000, 1024, 32_767, 32_768].map(|size| (size, 3 * 65_536 + 1000));
    let sizes = check.scale(vec![(66, 3_000), (99, 3_000), (32_768, 34_000)], sizes.into());
    for (ring, frames) in sizes {
        for base in [Options::default(), Options::offloads().in_order()] {
            wraps(&mut check, &site, Options { ring, ..base.packed() }, frames);
        }
    }
}

fn wraps(check: &mut Check, site: &Site, options: Options, frames: u32) {
    let mut one = Peer::connect(&site.socket(&VM1), options).unwrap();
    let mut two = Peer::connect(&site.socket(&HONEST), options).unwrap();
    pass(&VM1, &HONEST, &mut one, &mut two, frames / 2);
    pass(&HONEST, &VM1, &mut two, &mut one, frames / 2);
    pass(&VM1, &HONEST, &mut one, &mut two, frames - frames / 2);
    pass(&HONEST, &VM1, &mut two, &mut one, frames - frames / 2);
    check.count(2 * u64::from(frames));
}

/// `frames` numbered frames from one peer to the other, some at a time: none is lost, none comes twice.
fn pass(from: &Vm, to: &Vm, sender: &mut Peer, receiver: &mut Peer, frames: u32) {
    const AT_ONCE: u32 = 24;
    for first in (0..frames).step_by(AT_ONCE as usize) {
        let numbers = first..frames.min(first + AT_ONCE);
        for number in numbers.clone() {
            sender.send(&datagram(from, to, &number.to_be_bytes()).unwrap()).unwrap();
        }
        for number in numbers {
            let came = receiver.receive(LIMIT).unwrap().expect("lost");
            assert!(came.bytes.ends_with(&number.to_be_bytes()), "{number}: {:02x?}", came.bytes);
        }
    }
}
