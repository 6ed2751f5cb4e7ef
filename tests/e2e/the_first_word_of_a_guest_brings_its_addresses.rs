//! A guest that was carried to another host, whose rings do not tell so, says it itself: by a gratuitous ARP, an unsolicited neighbour
//! advertisement or its first packet, whichever is first (docs/decisions/0017). Guests are front-ends of this process, before and after.
//!
//! ```text
//!   hv1: asks ──datagrams──> by_arp, by_advertisement, by_packet        hv2: the same three, on standby
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::checksum::sum;
use vhost_ila_tests::ringpeer::neighbours::{datagram, is_between};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::site::{Plan, Site, VM1, Vm};

use crate::a_guest_moves_and_its_connections_with_it::{presence, redirect, standby};

const ASKS: Vm = VM1;
const BY_ARP: Vm =
    Vm { name: "by_arp", mac: "52:54:00:00:00:02", ipv4: "10.1.0.2", ipv6: "2001:db8:b1:e::2", ..VM1 };
const BY_ADVERTISEMENT: Vm = Vm {
    name: "by_advertisement",
    mac: "52:54:00:00:00:03",
    ipv4: "10.1.0.3",
    ipv6: "2001:db8:b1:e::3",
    ..VM1
};
const BY_PACKET: Vm =
    Vm { name: "by_packet", mac: "52:54:00:00:00:04", ipv4: "10.1.0.4", ipv6: "2001:db8:b1:e::4", ..VM1 };

/// What a guest says of itself, or of another.
type Word = fn(&Vm, &Vm) -> Vec<u8>;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn by_gratuitous_arp_by_unsolicited_advertisement_or_by_any_packet() {
    let movers: [(Vm, Word); 3] =
        [(BY_ARP, gratuitous_arp), (BY_ADVERTISEMENT, unsolicited_advertisement), (BY_PACKET, first_packet)];
    let waiting: String = movers.iter().map(|(vm, _)| standby(vm)).collect();
    let plan = Plan {
        host_text: vec![(0, redirect()), (1, redirect() + &waiting)],
        ..Plan::of(&[ASKS, BY_ARP, BY_ADVERTISEMENT, BY_PACKET])
    };
    let site = Site::start("e2e/first-words", plan).unwrap();
    let mut asks = Peer::connect(&site.socket(&ASKS), Options::default()).unwrap();

    for (vm, word) in movers {
        let at = |host| Peer::connect(&site.socket(&Vm { host, ..vm }), Options::default()).unwrap();
        let places = |host: usize| presence(&site, host, vm.name);
        let mut before = at(0);
        assert_eq!((places(0).as_str(), places(1).as_str()), ("here", "waiting"), "{}", vm.name);
        let mut after = at(1);
        // Its rings begin at zero, so it may be a machine that boots: it could come any moment, and has not.
        until(|| places(1) == "armed", "its rings to start");
        must_reach(&mut asks, &vm, (&mut before, &mut after));

        // What is not its own word counts for nothing: another's address under its own MAC, its address under another's MAC.
        let stranger = Vm { mac: "52:54:00:00:00:99", ..vm };
        for word in [word(&vm, &ASKS), word(&stranger, &vm)] {
            after.send(&word).unwrap();
        }
        must_reach(&mut asks, &vm, (&mut before, &mut after));
        assert_eq!((places(0).as_str(), places(1).as_str()), ("here", "armed"), "{}", vm.name);

        after.send(&word(&vm, &vm)).unwrap();
        until(|| places(1) == "here", "it to be here");
        until(|| places(0) == "waiting", "its old host to know");
        must_reach(&mut asks, &vm, (&mut after, &mut before));
        // And it is heard, which the machine that was left behind is not.
        before.send(&datagram(&vm, &ASKS, b"left behind").unwrap()).unwrap();
        after.send(&datagram(&vm, &ASKS, b"carried").unwrap()).unwrap();
        let heard = next(&mut asks, &vm, &ASKS);
        assert!(heard.ends_with(b"carried"), "{heard:02x?}");
    }
}

fn until(done: impl Fn() -> bool, what: &str) {
    wait_for(what, Duration::from_secs(5), || Ok(done().then_some(()))).unwrap();
}

/// What `asks` sends to `vm` comes to the one, and not to the other.
fn must_reach(asks: &mut Peer, vm: &Vm, (to, other): (&mut Peer, &mut Peer)) {
    asks.send(&datagram(&ASKS, vm, b"where are you").unwrap()).unwrap();
    next(to, &ASKS, vm);
    let stray = other.receive_all(Duration::from_millis(50)).unwrap();
    assert!(!stray.iter().any(|frame| is_between(&frame.bytes, &ASKS, vm)), "{}: at both", vm.name);
}

/// The next packet between these two.
fn next(receiver: &mut Peer, from: &Vm, to: &Vm) -> Vec<u8> {
    loop {
        let frame = receiver.receive(Duration::from_secs(5)).unwrap();
        let frame = frame.unwrap_or_else(|| panic!("nothing from {} for {}", from.name, to.name));
        if is_between(&frame.bytes, from, to) {
            return frame.bytes;
        }
    }
}

/// By the machine with `vm`'s MAC, about `about`'s address.
fn gratuitous_arp(vm: &Vm, about: &Vm) -> Vec<u8> {
    let own: Ipv4Addr = about.ipv4.parse().unwrap();
    let mut frame = [&[0xff; 6][..], &mac(vm), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac(vm)].concat();
    frame.extend([&own.octets()[..], &[0xff; 6], &own.octets()].concat());
    frame
}

/// As [`gratuitous_arp`], as Linux does it for IPv6: to all nodes, overriding what they know.
fn unsolicited_advertisement(vm: &Vm, about: &Vm) -> Vec<u8> {
    let own: Ipv6Addr = about.ipv6.parse().unwrap();
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut body = [&[136, 0, 0, 0, 0x20, 0, 0, 0], &own.octets()[..], &[2, 1], &mac(vm)].concat();
    let addresses = [own.octets(), all_nodes.octets()].concat();
    let checksum = !sum(&body, u32::from(sum(&addresses, 58 + body.len() as u32)));
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, body.len() as u8, 58, 255], &addresses[..]].concat();
    let ethernet = [&[0x33, 0x33, 0, 0, 0, 1], &mac(vm)[..], &[0x86, 0xdd]].concat();
    [ethernet, header, body].concat()
}

/// As [`gratuitous_arp`]: whatever it has to say.
fn first_packet(vm: &Vm, about: &Vm) -> Vec<u8> {
    let to = if about.ipv4 == ASKS.ipv4 { BY_ARP } else { ASKS };
    datagram(&Vm { mac: vm.mac, ..*about }, &to, b"here I am").unwrap()
}

fn mac(vm: &Vm) -> Vec<u8> {
    vm.mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
