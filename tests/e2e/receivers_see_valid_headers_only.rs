//! Check 8: virtio-net headers from random numbers before honest packets. What a neighbour on the host is given of them is valid, for a
//! driver that takes every offload and for one that takes none.

use std::time::Duration;

use vhost_ila_tests::dice::Dice;
use vhost_ila_tests::ringpeer::beside::{HONEST, HOSTILE};
use vhost_ila_tests::ringpeer::checksum::sum;
use vhost_ila_tests::ringpeer::header::NetHeader;
use vhost_ila_tests::ringpeer::judge::judge;
use vhost_ila_tests::ringpeer::neighbours::datagram;
use vhost_ila_tests::ringpeer::{Chain, Options, Peer};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{LINK_MTU, Plan, Site, UPLINK_MTU, VM1, Vm};

/// Frames sent before the receivers are looked at: few enough that what they become fits the receivers' rings.
const BURST: u64 = 32;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn whatever_the_sender_wrote() {
    let mut check = Check::begin(8, "headers");
    let plan = Plan::of(&[VM1, HONEST, HOSTILE]).offering_packed_rings();
    let mut site = Site::start("e2e/any-headers", plan).unwrap();
    let kinds = [Options::offloads(), Options::default()];
    let headers = check.scale(20_000, 1_000_000);
    headers_before_packets(&mut check, &site, kinds, headers);
    let headers = check.scale(5_000, 1_000_000);
    headers_before_packets(&mut check, &site, kinds.map(Options::packed), headers);
    site.daemons_must_run().unwrap();
}

/// So many of them, to a receiver of each kind.
fn headers_before_packets(check: &mut Check, site: &Site, kinds: [Options; 2], headers: u64) {
    let refused_before = site.daemons[0].drops("bad-offload").unwrap();
    let mut receivers = [(&VM1, kinds[0]), (&HONEST, kinds[1])]
        .map(|(vm, options)| (vm, options, Peer::connect(&site.socket(vm), options).unwrap()));
    let options = Options { chain: Chain::HeaderApart, ..kinds[0] };
    let mut sender = Peer::connect(&site.socket(&HOSTILE), options).unwrap();
    let mut dice = check.dice();
    // IPv4 has room to grow by; IPv6 does not grow.
    let mtu = [LINK_MTU.into(), UPLINK_MTU.into()];
    let (mut delivered, mut large) = (0_u64, 0_u64);
    for _ in 0..headers / BURST {
        for _ in 0..BURST {
            let receiver = dice.of(&[&VM1, &HONEST]);
            let (header, frame) = packet(&mut dice, receiver);
            check.trying(&[header.to_bytes().as_slice(), &frame].concat());
            sender.send_with(header, &frame).unwrap();
        }
        sender.flush().unwrap();
        for (vm, options, peer) in &mut receivers {
            while let Some(frame) = peer.receive(Duration::ZERO).unwrap() {
                if let Err(error) = judge(&frame, options.features, mtu) {
                    panic!("{} was given {frame:02x?}: {error:?}", vm.name);
                }
                delivered += 1;
                large += u64::from(frame.header.gso_type != 0);
            }
        }
        check.count(BURST);
    }
    let refused = site.daemons[0].drops("bad-offload").unwrap() - refused_before;
    println!("{delivered} frames delivered, {large} of them super-packets; {refused} refused");
    // Neither side of the question may be empty.
    assert!(delivered > headers / 20 && large > headers / 200 && refused > headers / 20);
}

/// An honest packet from the hostile one to `receiver`, behind a header that is true, almost true, or anything.
fn packet(dice: &mut Dice, receiver: &Vm) -> (NetHeader, Vec<u8>) {
    let (ip, tcp) = (dice.of(&[20, 40]), dice.once_in(2));
    let (protocol, header, field) = if tcp { (6u8, 20, 16) } else { (17, 8, 6) };
    let l4 = 14 + ip;
    let payload = dice.of(&[0, 1, 100, 1000, 1400, 1432, 2800, 4000]);
    let transport = (header + payload) as u16;
    // Ethernet and addresses as a datagram's; the rest is written over.
    let mut frame = datagram(&HOSTILE, receiver, &[]).unwrap();
    frame.truncate(34);
    if ip == 20 {
        frame[16..18].copy_from_slice(&(transport + 20).to_be_bytes());
        frame[23] = protocol;
        frame[24..26].fill(0);
        let checksum = !sum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    } else {
        frame.truncate(12);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(transport.to_be_bytes());
        frame.extend([protocol, 64]);
        for vm in [&HOSTILE, receiver] {
            frame.extend(vm.ipv6.parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
    }
    frame.extend([0x30, 0x39, 0x30, 0x39]);
    if tcp {
        frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        frame.extend(transport.to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.extend(dice.bytes(payload));
    let told = header_for(dice, l4 as u16, l4 as u16 + header as u16, field, ip, tcp);
    let addresses = if ip == 20 { 26..34 } else { 22..54 };
    let seed = u32::from(sum(&frame[addresses], u32::from(transport) + u32::from(protocol)));
    // As flags say that it is: the sum of the pseudo-header, or the checksum.
    let value = if told.flags & 1 != 0 { sum(&[], seed) } else { !sum(&frame[l4..], seed) };
    let at = l4 + usize::from(field);
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    (told, frame)
}

fn header_for(dice: &mut Dice, start: u16, data: u16, offset: u16, ip: usize, tcp: bool) -> NetHeader {
    let gso = tcp && dice.once_in(2);
    let kind = if ip == 20 { 1 } else { 4 };
    let mut header = NetHeader {
        flags: u8::from(gso || dice.once_in(2)),
        gso_type: if gso { kind } else { 0 },
        hdr_len: data,
        gso_size: if gso { dice.of(&[500, 1000, 1400, 1420]) } else { 0 },
        csum_start: start,
        csum_offset: offset,
        num_buffers: 0,
    };
    let edges = [0, 1, 6, 13, 14, 16, 33, 34, 35, 53, 54, 1399, 1460, 1481, 32_768, 65_520, u16::MAX];
    let words = [dice.of(&edges), dice.roll() as u16, start, data];
    // A third is true; in the others some fields are not.
    for _ in 0..dice.below(3) {
        let word = dice.of(&words);
        match dice.below(7) {
            0 => header.flags = dice.of(&[0, 1, 2, 3, 4, 0xff]),
            1 => header.gso_type = dice.of(&[0, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0x84, 0xff]),
            2 => header.hdr_len = word,
            3 => header.gso_size = word,
            4 => header.csum_start = word,
            5 => header.csum_offset = word,
            _ => header.num_buffers = word,
        }
    }
    header
}
