//! Whether what the gateway says to one attachment is what it may say. Shares nothing with the gateway but its name.
//!
//! What must stay true, of every frame to the asker: it comes from the gateway's MAC, and goes to the asker's or to the two groups that a host without an
//! address is reached by; its lengths agree and its checksums verify; it is no longer than the MTU told, an echo no longer than its request, an error
//! no longer than errors may be; whoever asked under an address that is not its own hears nothing; and of each kind no more come
//! than its bucket has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nve_core::gateway::GATEWAY_MAC;
use nve_core::testkit::checksum::{self, Verdict};
use nve_core::testkit::dissect::{Dissected, protocol};

use super::{ASKER, LINK_LOCAL};

/// What a network with IPv4 is told on an uplink of 1500, and an Ethernet header.
const LONGEST: usize = 14 + 1480;
/// RFC 1812, 4.3.2.3; RFC 4443, 2.4 (c).
const LONGEST_ERROR_V4: usize = 14 + 576;
const LONGEST_ERROR_V6: usize = 14 + 1280;

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// What is counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Arp,
    Neighbour,
    Router,
    Dhcp,
    Echo,
    Error,
    Dns,
    Service,
    /// Who listens to a group, or to any.
    Query,
}

impl Class {
    const COUNT: usize = 9;

    /// Frames a second, and at once: docs/hostile.md, "Caps". A frame for the service may bring as many as a window holds.
    fn allowance(self) -> (u64, u64) {
        const WINDOW: u64 = 32;
        match self {
            Class::Arp | Class::Neighbour => (100, 256),
            Class::Router => (1, 6),
            Class::Dhcp => (5, 20),
            Class::Echo => (1000, 1000),
            Class::Error => (100, 50),
            Class::Dns => (500, 500),
            // Two for each of the 64 groups that it may listen to and leave at once; general ones.
            Class::Query => (2 * 64, 2 * 64 + 8),
            Class::Service => (500 * WINDOW, 1000 * WINDOW),
        }
    }
}

/// Buckets, in millionths of a frame.
pub(super) struct Buckets {
    left: [u64; Class::COUNT],
    now: Duration,
}

impl Buckets {
    pub(super) fn full(now: Duration) -> Self {
        let mut buckets = Self { left: [0; Class::COUNT], now };
        buckets.wait(Duration::from_secs(1 << 20));
        buckets
    }

    pub(super) fn wait(&mut self, time: Duration) {
        use Class::{Arp, Dhcp, Dns, Echo, Error, Neighbour, Query, Router, Service};
        self.now += time;
        for class in [Arp, Neighbour, Router, Dhcp, Echo, Error, Dns, Service, Query] {
            let (rate, burst) = class.allowance();
            let left = &mut self.left[class as usize];
            *left = (*left + rate * time.as_micros() as u64).min(burst * 1_000_000);
        }
    }

    pub(super) fn spend(&mut self, class: Class) {
        let left = &mut self.left[class as usize];
        assert!(*left >= 1_000_000, "more answers of {class:?} than its bucket has");
        *left -= 1_000_000;
    }
}

/// Judges a frame to the asker, which is the answer to `asked` where it answers one.
pub(super) fn frame(said: &[u8], asked: Option<&[u8]>) -> Class {
    assert!(said.len() >= 14, "no frame: {said:?}");
    assert_eq!(&said[6..12], GATEWAY_MAC.as_bytes(), "not from the gateway");
    let to: [u8; 6] = said[..6].try_into().expect("six bytes");
    if let Some(asked) = asked {
        assert_eq!(asked.get(6..12), Some(&ASKER.mac[..]), "an answer to another's MAC");
    }
    let class = match &said[12..14] {
        [8, 6] => arp(said, asked),
        [8, 0] | [0x86, 0xdd] => packet(said, asked),
        other => panic!("the gateway speaks {other:?}"),
    };
    if class == Class::Query {
        assert!(to[..3] == [1, 0, 0x5e] || to[..2] == [0x33, 0x33], "a query to {to:x?}");
        return class;
    }
    let groups: &[[u8; 6]] = match class {
        Class::Dhcp => &[BROADCAST],
        Class::Neighbour | Class::Router => &[ALL_NODES],
        _ => &[],
    };
    assert!(to == ASKER.mac || groups.contains(&to), "{class:?} to {to:x?}");
    class
}

fn arp(said: &[u8], asked: Option<&[u8]>) -> Class {
    let asked = asked.expect("ARP that nobody asked for");
    assert_eq!((said.len(), &said[14..22]), (42, &[0, 1, 8, 0, 6, 4, 0, 2][..]), "no ARP reply");
    assert_eq!(&said[22..28], GATEWAY_MAC.as_bytes());
    assert_eq!(&said[32..38], &ASKER.mac);
    let (target, sender) = (&asked[38..42], &asked[28..32]);
    assert_eq!((&said[28..32], &said[38..42]), (target, sender), "an answer to another question");
    assert_ne!(target, ASKER.ipv4.octets(), "the asker is told its own address");
    assert!(sender == ASKER.ipv4.octets() || sender == [0; 4], "an answer to another's address");
    Class::Arp
}

fn packet(said: &[u8], asked: Option<&[u8]>) -> Class {
    let fields = Dissected::of_ip(&said[14..]).expect("an IP packet");
    assert_eq!(fields.total_len, said.len() - 14, "the length field lies");
    assert!(fields.header_checksum_good, "IPv4 header checksum");
    assert!(!fields.is_fragment(), "a fragment");
    let class = classify(&fields);
    let longest = match (class, fields.version) {
        (Class::Echo, _) => asked.expect("an echo that nobody asked for").len(),
        (Class::Error, 4) => LONGEST_ERROR_V4,
        (Class::Error, _) => LONGEST_ERROR_V6,
        _ => LONGEST,
    };
    assert!(said.len() <= longest, "{class:?} of {} bytes", said.len());
    let verdict = match fields.protocol {
        // IGMP has no pseudo-header.
        2 if checksum::sum(fields.transport) == 0xffff => Verdict::Good,
        _ => checksum::verify(&fields, fields.source, fields.destination),
    };
    let as_asked = asked.and_then(|asked| Dissected::of_ip(asked.get(14..)?));
    match (class, as_asked) {
        // The data is the asker's own, and so are its mistakes.
        (Class::Echo, Some(asked)) => {
            let before = checksum::verify(&asked, asked.source, asked.destination);
            assert!(before == verdict || before != Verdict::Good, "a good echo became {verdict:?}");
        }
        _ => assert_eq!(verdict, Verdict::Good, "{class:?}"),
    }
    if class == Class::Query {
        assert!(fields.destination.is_multicast(), "a query to {}", fields.destination);
        return class;
    }
    addressed(class, fields.destination);
    if let Some(asked) = as_asked {
        own(class, asked.source);
    }
    class
}

fn classify(fields: &Dissected<'_>) -> Class {
    match (fields.icmp(), fields.protocol, fields.ports()) {
        (Some((136, 0)), protocol::ICMPV6, _) => Class::Neighbour,
        (Some((134, 0)), protocol::ICMPV6, _) => Class::Router,
        (Some((130, 0)), protocol::ICMPV6, _) => Class::Query,
        (None, 2, _) if fields.transport.first() == Some(&0x11) => Class::Query,
        (Some((0, 0)), protocol::ICMP, _) | (Some((129, 0)), protocol::ICMPV6, _) => Class::Echo,
        (Some(_), ..) if fields.icmp_error().is_some() => Class::Error,
        (_, protocol::UDP, Some((67, 68) | (547, 546))) => Class::Dhcp,
        (_, protocol::UDP, Some((53, _))) => Class::Dns,
        (_, protocol::TCP, Some((80, _))) => Class::Service,
        _ => panic!("the gateway says {fields:?}"),
    }
}

/// An answer is for the asker's addresses, or where that cannot be, for the group that it is in.
fn addressed(class: Class, to: IpAddr) {
    let group = match class {
        Class::Dhcp => to == Ipv4Addr::BROADCAST,
        Class::Neighbour | Class::Router => to == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        _ => false,
    };
    let own = to == ASKER.ipv4 || to == ASKER.ipv6 || is_link_local(to);
    assert!(own || group, "{class:?} to {to}");
}

/// Whoever is answered asked from an address of its own; without one, where a protocol begins so.
fn own(class: Class, from: IpAddr) {
    let begins = match class {
        Class::Dhcp => from == Ipv4Addr::UNSPECIFIED,
        Class::Neighbour | Class::Router => from == Ipv6Addr::UNSPECIFIED,
        _ => false,
    };
    let own = from == ASKER.ipv4 || from == ASKER.ipv6 || is_link_local(from);
    // A DHCP client's address is in the message.
    assert!(own || begins || (class == Class::Dhcp && from.is_ipv4()), "{class:?} answers {from}");
}

/// On a link that the asker is alone on, every link-local address but the gateway's is its own.
fn is_link_local(address: IpAddr) -> bool {
    let gateway = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    address == LINK_LOCAL || matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() && v6 != gateway)
}
