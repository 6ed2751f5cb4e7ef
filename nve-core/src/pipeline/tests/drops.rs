//! Every drop has a case: a new [`DropReason`] without one fails here.

use super::*;
use crate::packet::{ChecksumState, Gso, GsoKind};
use crate::testkit::dissect::protocol;

const A6: &str = "2001:db8:b1:e::1";
const B6: &str = "2001:db8:b1:e::2";
const ROUTER: &str = "2001:db8:ffff::1";

/// Reasons that no single walk can have, with the test that has them.
const ELSEWHERE: [(DropReason, &str); 18] = [
    (DropReason::ForeignDomain, "nve-core/src/pipeline/tests/domains.rs"),
    (
        DropReason::PeerChecksum,
        "nve-core/src/pipeline/peer/tests.rs, nve-core/tests/scenarios/linux_peers.rs",
    ),
    (DropReason::OutsideDenied, "nve-core/src/pipeline/tests/realms.rs"),
    (DropReason::CrossingFragment, "nve-core/src/pipeline/tests/realms.rs"),
    (DropReason::NoAlias, "nve-core/src/pipeline/tests/realms.rs"),
    (DropReason::NotHolder, "nve-core/tests/scenarios/shared_addresses.rs"),
    (DropReason::Moved, "nve-core/tests/scenarios/migration.rs"),
    (DropReason::DnsQuery, "nve-core/src/gateway/dns/tests.rs"),
    (DropReason::DnsBusy, "nve-core/src/gateway/dns/tests.rs"),
    (DropReason::DnsRepeated, "nve-core/src/gateway/dns/tests.rs"),
    (DropReason::DnsForged, "nve-core/src/gateway/dns/tests.rs"),
    (DropReason::ReceiverFull, "vhost-ila/src/worker/: a receive ring without room"),
    (DropReason::PuntFull, "vhost-ila/src/worker/tests/punt.rs: a slow path that stalls"),
    (DropReason::UplinkFull, "vhost-ila/src/worker/: an uplink that takes nothing"),
    (DropReason::UplinkDown, "vhost-ila/src/worker/tests/fabric.rs: an uplink to which nobody is attached"),
    (DropReason::NextHopUnknown, "vhost-ila/src/worker/tests/fabric.rs: a router that does not answer"),
    (DropReason::ForeignMac, "nve-core/src/link/tests.rs, vhost-ila/src/worker/tests/fabric.rs"),
    (
        DropReason::GatewayNoRoom,
        "nve-core/src/gateway/tests/any_bytes.rs: a reply buffer that is too small (Scratch never is)",
    ),
];

/// A case: the reason, what is done in words, and what is sent from where.
struct Case {
    reason: DropReason,
    what: &'static str,
    origin: &'static str,
    bytes: Vec<u8>,
    offload: Offload,
}

fn case(reason: DropReason, what: &'static str, origin: &'static str, bytes: Vec<u8>) -> Case {
    Case { reason, what, origin, bytes, offload: Offload::NONE }
}

/// From vm1, in an honest frame.
fn tenant(reason: DropReason, what: &'static str, packet: Vec<u8>) -> Case {
    case(reason, what, "vm1", frames::ethernet(mac(1), GATEWAY_MAC, &packet))
}

fn wire(reason: DropReason, what: &'static str, packet: Vec<u8>) -> Case {
    case(reason, what, "uplink", packet)
}

fn outside(reason: DropReason, what: &'static str, packet: Vec<u8>) -> Case {
    case(reason, what, "outside", packet)
}

fn left(offload: Offload, case: Case) -> Case {
    Case { offload, ..case }
}

/// Any protocol over IPv6 or IPv4.
fn any(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    frames::ip(Header::default(), addr(source), addr(destination), protocol, payload.to_vec())
}

fn hops(hop_limit: u8) -> Header {
    Header { hop_limit, ..Header::default() }
}

fn ila(address: &str) -> String {
    ila_of(1, address).to_string()
}

/// `L1:` and any low 64 bits.
fn under_our_locator(low: u64) -> String {
    Ipv6Addr::from_bits(u128::from(locator(1).upper()) << 64 | u128::from(low)).to_string()
}

fn spoiled(mut packet: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    packet[at] = byte;
    packet
}

fn malformed() -> Vec<Case> {
    let partial = |start, offset| Offload { checksum: ChecksumState::Partial { start, offset }, gso: None };
    let gso = |kind| Offload { gso: Some(Gso { kind, size: 100 }), ..partial(40, 16) };
    let datagrams =
        |start, size| Offload { gso: Some(Gso { kind: GsoKind::UdpL4, size }), ..partial(start, 6) };
    let mut source_route = any("10.1.0.1", "10.1.0.2", 17, &[0; 20]);
    source_route.splice(20..20, [131, 7, 4, 10, 1, 0, 9, 0]);
    (source_route[0], source_route[3]) = (0x47, source_route[3] + 8);
    frames::seal_ipv4(&mut source_route);
    vec![
        case(DropReason::Malformed, "a frame of 13 bytes", "vm1", vec![0; 13]),
        tenant(
            DropReason::Malformed,
            "an IPv4 total length beyond the frame",
            spoiled(udp("10.1.0.1", "10.1.0.2", 9), 3, 99),
        ),
        tenant(
            DropReason::Malformed,
            "an IPv6 payload length beyond the frame",
            spoiled(udp(A6, B6, 9), 5, 99),
        ),
        tenant(DropReason::Malformed, "version 5", spoiled(udp("10.1.0.1", "10.1.0.2", 9), 0, 0x55)),
        tenant(DropReason::Malformed, "half a TCP header", any(A6, B6, 6, &[0; 10])),
        wire(DropReason::Malformed, "IPv4 from the fabric", udp("10.1.0.1", "10.1.0.2", 9)),
        wire(DropReason::Malformed, "39 bytes from the fabric", udp(B6, &ila(A6), 1)[..39].to_vec()),
        left(partial(40, 6), tenant(DropReason::BadOffload, "UDP's checksum field in TCP", tcp(A6, B6, 9))),
        left(partial(0, 16), tenant(DropReason::BadOffload, "summing from the IP header", tcp(A6, B6, 9))),
        left(partial(40, 2), tenant(DropReason::BadOffload, "a partial ICMPv6 checksum", echo(A6, B6, 9))),
        left(
            gso(GsoKind::TcpV4 { ecn: false }),
            tenant(DropReason::BadOffload, "TCPv4 segments in IPv6", tcp(A6, B6, 900)),
        ),
        left(gso(GsoKind::UdpL4), tenant(DropReason::BadOffload, "datagrams of TCP", tcp(A6, B6, 900))),
        left(
            datagrams(40, 901),
            tenant(DropReason::BadOffload, "datagrams longer than the payload, IPv6", udp(A6, B6, 900)),
        ),
        left(
            datagrams(20, 901),
            tenant(DropReason::BadOffload, "the same, IPv4", udp("10.1.0.1", "10.1.0.2", 900)),
        ),
        left(datagrams(40, 7), tenant(DropReason::BadOffload, "129 datagrams, IPv6", udp(A6, B6, 900))),
        left(
            datagrams(20, 7),
            tenant(DropReason::BadOffload, "129 datagrams, IPv4", udp("10.1.0.1", "10.1.0.2", 900)),
        ),
        left(datagrams(40, 0), tenant(DropReason::BadOffload, "datagrams of nothing", udp(A6, B6, 900))),
        left(
            datagrams(20, 100),
            tenant(
                DropReason::BadOffload,
                "datagrams whose checksum is where IPv4 would have it",
                udp(A6, B6, 900),
            ),
        ),
        left(
            partial(20, 6),
            tenant(DropReason::BadOffload, "UDP's field in TCP, IPv4", tcp("10.1.0.1", "10.1.0.2", 9)),
        ),
        left(
            partial(41, 16),
            wire(DropReason::BadOffload, "off by one from the fabric", tcp(B6, &ila(A6), 9)),
        ),
        case(
            DropReason::EtherType,
            "a VLAN tag",
            "vm1",
            [&[0; 6][..], mac(1).as_bytes(), &[0x81, 0, 0, 1, 8, 0]].concat(),
        ),
        tenant(DropReason::ExtensionHeader, "hop-by-hop options", any(A6, B6, 0, &[17, 0, 1, 4, 0, 0, 0, 0])),
        tenant(DropReason::ExtensionHeader, "segments left", any(A6, B6, 43, &[17, 0, 4, 1, 0, 0, 0, 0])),
        wire(
            DropReason::ExtensionHeader,
            "segments left, from the fabric",
            any(B6, &ila(A6), 43, &[17, 0, 4, 1, 0, 0, 0, 0]),
        ),
        tenant(
            DropReason::ExtensionHeader,
            "an endless chain",
            any(A6, B6, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(12)),
        ),
        tenant(DropReason::ExtensionHeader, "an IPv4 source route", source_route),
        tenant(
            DropReason::BadFragment,
            "an unaligned fragment",
            any(A6, B6, 44, &[17, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9]),
        ),
        tenant(
            DropReason::BadFragment,
            "beyond 65535 bytes",
            any(A6, B6, 44, &[17, 0, 0xff, 0xf8, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]),
        ),
        tenant(
            DropReason::BadFragment,
            "a first one without its header",
            any(A6, B6, 44, &[6, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]),
        ),
        tenant(
            DropReason::BadChecksum,
            "a wrong IPv4 header checksum",
            spoiled(udp("10.1.0.1", "10.1.0.2", 9), 10, 0xee),
        ),
        tenant(DropReason::HopLimit, "TTL 0", udp_with(hops(0), "10.1.0.1", "10.1.0.2", 9)),
        tenant(DropReason::HopLimit, "hop limit 0", udp_with(hops(0), A6, B6, 9)),
        wire(DropReason::HopLimit, "hop limit 0 from the fabric", udp_with(hops(0), B6, &ila(A6), 9)),
        wire(
            DropReason::HopLimit,
            "hop limit 1 to a SIR address: nothing left to route with",
            udp_with(hops(1), B6, A6, 9),
        ),
        tenant(DropReason::TooBig, "IPv6 of 1501 bytes", udp(A6, B6, 1453)),
        tenant(DropReason::TooBig, "IPv4 of 1481 bytes with DF", udp("10.1.0.1", "10.1.0.2", 1453)),
        tenant(DropReason::Untranslatable, "IGMP to a neighbour", any("10.1.0.1", "10.1.0.2", 43, &[0; 8])),
        tenant(
            DropReason::Untranslatable,
            "an ICMP timestamp",
            any("10.1.0.1", "10.1.0.2", 1, &[13, 0, 0xf2, 0xff, 0, 0, 0, 0]),
        ),
    ]
}

fn isolation() -> Vec<Case> {
    let frame = |source: u8, packet: &[u8]| frames::ethernet(mac(source), GATEWAY_MAC, packet);
    vec![
        case(DropReason::NoAttachment, "a port that has no attachment", "port 99", frame(1, &udp(A6, B6, 1))),
        case(DropReason::SpoofedMac, "a neighbour's MAC", "vm1", frame(3, &udp(A6, B6, 1))),
        case(
            DropReason::SpoofedMac,
            "a neighbour's MAC, to the gateway",
            "vm1",
            frame(3, &echo("10.1.0.1", "10.1.255.254", 1)),
        ),
        tenant(DropReason::SpoofedAddress, "a neighbour's IPv6 address", udp("2001:db8:b1:e::3", B6, 1)),
        tenant(DropReason::SpoofedAddress, "a neighbour's IPv4 address", udp("10.1.0.3", "10.1.0.2", 1)),
        tenant(
            DropReason::SpoofedAddress,
            "the same address in the other network",
            udp("2001:db8:b1:e:0:1:0:1", B6, 1),
        ),
        tenant(
            DropReason::SpoofedAddress,
            "its own SIR address",
            udp(&sir_of("10.1.0.1").to_string(), B6, 1),
        ),
        tenant(
            DropReason::SpoofedAddress,
            "a spoofed source to the outside",
            udp("10.1.0.3", "192.0.2.1", 1),
        ),
        tenant(DropReason::Multicast, "a solicited-node group", udp(A6, "ff02::1:ff00:2", 1)),
        tenant(DropReason::Multicast, "a group of the node's own", udp(A6, "ff01::fb", 1)),
        tenant(DropReason::Multicast, "a group of a prefix", udp(A6, "ff35:40:2001:db8::1", 1)),
        tenant(DropReason::Broadcast, "class E", udp("10.1.0.1", "240.0.0.1", 1)),
        tenant(DropReason::Broadcast, "0.0.0.1", udp("10.1.0.1", "0.0.0.1", 1)),
        tenant(DropReason::Broadcast, "the network's own address", udp("10.1.0.1", "10.1.0.0", 1)),
        tenant(DropReason::NoListener, "mDNS that nobody asked for", udp(A6, "ff02::fb", 1)),
        tenant(DropReason::NoListener, "an IPv4 group of nobody", udp("10.1.0.1", "239.1.2.3", 1)),
        tenant(DropReason::SpoofedAddress, "another's address to all", udp("10.1.0.3", "255.255.255.255", 1)),
        tenant(DropReason::SpoofedAddress, "another's address to a group", udp(B6, "ff02::1", 1)),
        tenant(DropReason::SpoofedAddress, "the gateway's address to a group", udp("fe80::1", "ff02::1", 1)),
        tenant(DropReason::HopLimit, "no hop left, to all", {
            frames::udp(hops(0), (addr(A6), 1).into(), (addr("ff02::1"), 2).into(), b"x")
        }),
        tenant(DropReason::LinkLocal, "what may have a checksum", any("fe80::2", "ff02::1", 112, &[0; 20])),
        tenant(DropReason::QuotedPacket, "an error to all", {
            let quoted = udp(B6, A6, 20);
            any(A6, "ff02::1", protocol::ICMPV6, &[&[1, 0, 0, 0, 0, 0, 0, 0], &quoted[..]].concat())
        }),
        tenant(DropReason::LinkLocal, "a link-local neighbour", udp(A6, "fe80::2", 1)),
        tenant(DropReason::LinkLocal, "IPv4 loopback", udp("10.1.0.1", "127.0.0.1", 1)),
        tenant(
            DropReason::LocatorDestination,
            "the peer by its locator",
            udp(A6, &ila_of(2, B6).to_string(), 1),
        ),
        tenant(DropReason::LocatorDestination, "the host's control address", udp(A6, "2001:db8:0:1::1", 1)),
        tenant(
            DropReason::LocatorDestination,
            "another host's control address",
            udp(A6, "2001:db8:0:2::1", 1),
        ),
        tenant(
            DropReason::SirDestination,
            "an IPv4 neighbour by its SIR address",
            udp(A6, &sir_of("10.1.0.2").to_string(), 1),
        ),
        tenant(DropReason::ForeignNetwork, "the neighbouring /96", udp(A6, "2001:db8:b1:e:0:1:0:1", 1)),
        tenant(DropReason::Outside, "the Internet", udp(A6, "2001:db8:1234::1", 1)),
        tenant(DropReason::Outside, "the Internet over IPv4", udp("10.1.0.1", "192.0.2.1", 1)),
        tenant(DropReason::NoMapping, "nobody's address", udp(A6, "2001:db8:b1:e::99", 1)),
        tenant(DropReason::NoMapping, "nobody's IPv4 address", udp("10.1.0.1", "10.1.0.99", 1)),
        tenant(DropReason::NoMapping, "the subnet-router anycast address", udp(A6, "2001:db8:b1:e::", 1)),
        case(
            DropReason::ReceiverDown,
            "a neighbour that is off",
            "off",
            frame(1, &udp(A6, "2001:db8:b1:e::3", 1)),
        ),
    ]
}

/// Through the gateway's TUN.
fn from_outside() -> Vec<Case> {
    const INTERNET: &str = "2001:db8:1234::1";
    let source = |what, address: &str| outside(DropReason::InsideSource, what, udp(address, B6, 1));
    vec![
        source("a tenant's own address", A6),
        source("a tenant's address of another network", "2001:db8:b1:e:0:1:0:1"),
        source("a tenant's SIR address", &sir_of("10.1.0.2").to_string()),
        source("a task's SIR address", "2001:db8:51:0:2000::7"),
        source("a SIR address of a reserved type", "2001:db8:51:0:a000::7"),
        source("a tenant's ILA address", &ila_of(2, B6).to_string()),
        source("our control address", "2001:db8:0:1::1"),
        source("another host's control address", "2001:db8:0:2::1"),
        outside(DropReason::IllegalSource, "loopback", udp("::1", B6, 1)),
        outside(DropReason::IllegalSource, "a link-local address", udp("fe80::1", B6, 1)),
        outside(DropReason::IllegalSource, "an IPv4 address in disguise", udp("::ffff:192.0.2.1", B6, 1)),
        outside(DropReason::LocatorDestination, "a tenant's ILA address", udp(INTERNET, &ila(A6), 1)),
        outside(
            DropReason::LocatorDestination,
            "a tenant elsewhere",
            udp(INTERNET, &ila_of(2, B6).to_string(), 1),
        ),
        outside(DropReason::LocatorDestination, "a control address", udp(INTERNET, "2001:db8:0:2::1", 1)),
        outside(DropReason::NotOurs, "somebody else outside", udp(INTERNET, "2001:db8:4321::1", 1)),
        outside(DropReason::Malformed, "IPv4", udp("192.0.2.1", "10.1.0.1", 1)),
    ]
}

fn from_the_wire() -> Vec<Case> {
    let red = Identifier::ipv4(vnid("red"), [10, 1, 0, 2].into());
    let foreign = sir().address(red).ipv6().to_string();
    let unknown = (2_u64 << 61) | (7 << 32) | 0x0a01_0001;
    let type_5 = under_our_locator(5 << 61 | 0x3e9_0000_0001);
    let a4 = ila("10.1.0.1");
    let sir_b4 = sir_of("10.1.0.2").to_string();
    let adjusted = format!("{}", Ipv6Addr::from_bits(v6(&sir_b4).to_bits() | u128::from(Identifier::C_BIT)));
    let quoted = udp("2001:db8:b1:e::3", &ila_of(2, B6).to_string(), 20);
    let solicitation = [135, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(v6(A6).octets()).collect::<Vec<u8>>();
    vec![
        wire(DropReason::NotOurs, "another host's locator", udp(B6, &ila_of(2, A6).to_string(), 1)),
        wire(DropReason::NotOurs, "an address of the Internet", udp(B6, "2001:db8:1234::1", 1)),
        wire(DropReason::HostAddress, "locator::1", udp(B6, "2001:db8:0:1::1", 1)),
        wire(DropReason::HostAddress, "type 0 under SIR", udp(B6, "2001:db8:51::1", 1)),
        wire(DropReason::ReservedType, "type 5", udp(B6, &type_5, 1)),
        wire(
            DropReason::ReservedType,
            "type 0 with C",
            udp(B6, &under_our_locator(Identifier::C_BIT | 1), 1),
        ),
        wire(DropReason::ReservedType, "C under SIR", udp(B6, &adjusted, 1)),
        wire(
            DropReason::ReservedType,
            "a VN's IPv6 address under SIR",
            udp(B6, "2001:db8:51:0:6000:3e9:0:1", 1),
        ),
        wire(
            DropReason::NoListener,
            "a group that nobody here listens to",
            udp(B6, &under_our_locator(4 << 61 | 0x3e9_2000_00fb), 1),
        ),
        wire(
            DropReason::ForeignNetwork,
            "red to all of blue",
            udp("2001:db8:b1:e:0:1:0:2", &under_our_locator(4 << 61 | 0x3e9_2000_0001), 1),
        ),
        wire(
            DropReason::IllegalSource,
            "IPv4 to an IPv6 group",
            udp(&sir_b4, &under_our_locator(4 << 61 | 0x3e9_2000_0001), 1),
        ),
        wire(
            DropReason::UnregisteredSource,
            "one of our own, from outside, to all",
            udp(A6, &under_our_locator(4 << 61 | 0x3e9_2000_0001), 1),
        ),
        wire(
            DropReason::Multicast,
            "a group by the router role",
            udp(&sir_b4, &sir_of("239.1.2.3").to_string(), 1),
        ),
        wire(DropReason::UnknownNetwork, "VNI 7 with C = 0", udp(&sir_b4, &under_our_locator(unknown), 1)),
        wire(
            DropReason::UnknownNetwork,
            "VNI 7 with C = 1, type 3",
            udp(B6, &under_our_locator(7 << 60 | 7 << 32 | 1), 1),
        ),
        wire(DropReason::NoMapping, "an identifier nobody has", udp(B6, &ila("2001:db8:b1:e::99"), 1)),
        wire(DropReason::NotLocal, "an identifier that lives on hv2", udp(A6, &ila(B6), 1)),
        wire(DropReason::ForeignNetwork, "red to blue", udp(&foreign, &a4, 1)),
        wire(DropReason::ForeignNetwork, "red to blue, IPv6", udp("2001:db8:b1:e:0:1:0:2", &ila(A6), 1)),
        wire(
            DropReason::ForeignNetwork,
            "red to blue by the router role",
            udp("2001:db8:b1:e:0:1:0:2", A6, 1),
        ),
        wire(DropReason::OutsideSource, "a plain address", udp("2001:db8:1234::1", &ila(A6), 1)),
        wire(
            DropReason::IllegalSource,
            "an identifier under a locator",
            udp(&ila_of(2, B6).to_string(), &ila(A6), 1),
        ),
        wire(DropReason::IllegalSource, "C = 1 under SIR", udp(&adjusted, &a4, 1)),
        wire(DropReason::IllegalSource, "an IPv6 tenant to an IPv4 address", udp(B6, &a4, 1)),
        wire(DropReason::IllegalSource, "an IPv4 tenant to an IPv6 address", udp(&sir_b4, &ila(A6), 1)),
        wire(DropReason::UnregisteredSource, "nobody's address", udp("2001:db8:b1:e::99", &ila(A6), 1)),
        wire(DropReason::UnregisteredSource, "one of our own", udp("2001:db8:b1:e::3", &ila(A6), 1)),
        wire(DropReason::QuotedPacket, "an error about another's packet", {
            let mut error = errors::error(2, 0, 1300, ROUTER, &quoted);
            error[24..40].copy_from_slice(&v6(A6).octets());
            error
        }),
        wire(DropReason::RogueServer, "an offer from the fabric", server(&sir_b4, 67, &a4, 68)),
        wire(DropReason::RogueServer, "a DHCPv6 reply from the fabric", server(B6, 547, &ila(A6), 546)),
        wire(DropReason::RogueServer, "a DHCPv6 reply by the router role", server(B6, 547, A6, 546)),
        wire(
            DropReason::NdUnanswered,
            "neighbour discovery from the fabric",
            any(B6, &ila(A6), protocol::ICMPV6, &solicitation),
        ),
    ]
}

/// What a DHCP server would say.
fn server(from: &str, from_port: u16, to: &str, to_port: u16) -> Vec<u8> {
    frames::udp(Header::default(), socket(from, from_port), socket(to, to_port), &[2; 300])
}

fn at_the_gateway() -> Vec<Case> {
    let arp = |operation: u8, target: u8| {
        let mut frame = [&[0xff; 6][..], mac(1).as_bytes(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
        frame.extend([mac(1).as_bytes(), &[10, 1, 0, 1], &[0; 6], &[10, 1, 0, target]].concat());
        frame
    };
    let nd = |kind: u8, hop_limit: u8, target: &str| {
        let body: Vec<u8> = [kind, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(v6(target).octets()).collect();
        frames::ip(hops(hop_limit), addr(A6), addr("ff02::1"), protocol::ICMPV6, body)
    };
    let dhcp = |kind: u8, relay: u8| {
        let mut message = vec![0; 240];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[24] = relay;
        message[28..34].copy_from_slice(mac(1).as_bytes());
        message[236..240].copy_from_slice(&[99, 130, 83, 99]);
        message.extend([53, 1, kind, 50, 4, 10, 1, 0, 1, 54, 4, 10, 1, 255, 254, 255]);
        let (client, server) = ("0.0.0.0:68".parse().unwrap(), "255.255.255.255:67".parse().unwrap());
        frames::udp(Header::default(), client, server, &message)
    };
    vec![
        case(DropReason::ArpUnanswered, "an announcement", "vm1", arp(1, 1)),
        tenant(DropReason::NdUnanswered, "an unsolicited advertisement", nd(136, 255, A6)),
        tenant(DropReason::NdHopLimit, "a solicitation that was routed", nd(135, 64, B6)),
        tenant(DropReason::RogueRouter, "a router advertisement", {
            let body = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
            frames::ip(hops(255), addr("fe80::2"), addr("ff02::1"), protocol::ICMPV6, body)
        }),
        tenant(DropReason::BadReport, "IGMP cut short", {
            frames::ip(hops(1), addr("10.1.0.1"), addr("224.0.0.22"), 2, vec![0x22, 0, 0xdd, 0xff])
        }),
        tenant(DropReason::BadReport, "MLD without Router Alert", {
            let report = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &v6("ff02::fb").octets()].concat();
            frames::ip(hops(1), addr("fe80::2"), addr("ff02::fb"), protocol::ICMPV6, report)
        }),
        tenant(DropReason::RogueQuerier, "an IGMP query", {
            frames::ip(
                hops(1),
                addr("10.1.0.1"),
                addr("224.0.0.1"),
                2,
                vec![0x11, 100, 0xee, 0x9b, 0, 0, 0, 0],
            )
        }),
        tenant(DropReason::RogueQuerier, "an MLD query", {
            let query = [&[58, 0, 5, 2, 0, 0, 1, 0, 130, 0, 0, 0][..], &[0; 20]].concat();
            frames::ip(hops(1), addr("fe80::2"), addr("ff02::1"), 0, query)
        }),
        tenant(DropReason::SpoofedAddress, "a report from another's address", {
            let report = vec![0x22, 0, 0xdd, 0xff, 0, 0, 0, 0];
            frames::ip(hops(1), addr("10.1.0.3"), addr("224.0.0.22"), 2, report)
        }),
        tenant(DropReason::ExtensionHeader, "hop-by-hop options to a group", {
            any(A6, "ff02::1", 0, &[17, 0, 1, 4, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0])
        }),
        tenant(DropReason::RogueServer, "an offer to a neighbour", server("10.1.0.1", 67, "10.1.0.2", 68)),
        tenant(DropReason::RogueServer, "an offer to all", server("10.1.0.1", 67, "255.255.255.255", 68)),
        tenant(DropReason::RogueServer, "a DHCPv6 reply to a neighbour", server(A6, 547, B6, 546)),
        tenant(DropReason::RogueServer, "an offer in fragments", {
            let mut first = server("10.1.0.1", 67, "10.1.0.2", 68);
            first[6] = 0x20;
            frames::seal_ipv4(&mut first);
            first
        }),
        tenant(DropReason::RogueServer, "a DHCPv6 reply behind options", {
            let datagram = server(A6, 547, B6, 546);
            any(A6, B6, 60, &[&[17, 0, 1, 4, 0, 0, 0, 0], &datagram[40..]].concat())
        }),
        tenant(DropReason::DhcpDecline, "a decline", dhcp(4, 0)),
        tenant(DropReason::DhcpRelay, "a relayed discover", dhcp(1, 10)),
        tenant(DropReason::DhcpUnanswered, "a release", dhcp(7, 0)),
        tenant(DropReason::GatewayNoService, "TCP to the gateway", tcp("10.1.0.1", "10.1.255.254", 0)),
    ]
}

fn cases() -> Vec<Case> {
    [malformed(), isolation(), from_outside(), from_the_wire(), at_the_gateway()]
        .into_iter()
        .flatten()
        .collect()
}

/// Walks the case on a fresh hv1; what came out, and the counter of its origin.
fn run(case: &Case) -> (Vec<Out>, u64) {
    let mut hv1 = Lab::new(1);
    let (origin, counted_at) = match case.origin {
        "uplink" => (Origin::Uplink, "uplink"),
        "outside" => (Origin::Outside, "outside"),
        "port 99" => (Origin::Port(PortId(99)), "uplink"),
        "off" => {
            hv1.nve.set_receiver(hv1.port("vm3"), Receiver::default());
            (Origin::Port(hv1.port("vm1")), "vm1")
        }
        name => (Origin::Port(hv1.port(name)), name),
    };
    let outs = hv1.walk(origin, &case.bytes, case.offload);
    let counted = hv1.drops(counted_at, case.reason);
    (outs, counted)
}

#[test]
fn every_case_is_dropped_by_its_name_and_counted() {
    for case in cases() {
        let (outs, counted) = run(&case);
        let reasons: Vec<_> = outs.iter().map(|out| out.reason().map(DropReason::name)).collect();
        assert_eq!(reasons, [Some(case.reason.name())], "{}: {:?}", case.what, outs);
        assert_eq!(counted, 1, "{}", case.what);
    }
}

#[test]
fn a_flood_is_dropped_by_the_name_of_its_limit() {
    let mut hv1 = Lab::new(1);
    let echo = echo("10.1.0.1", "10.1.255.254", 1);
    let reasons: Vec<_> = (0..5000).filter_map(|_| hv1.send("vm1", &echo).reason()).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == DropReason::GatewayRate));
    let quoted = udp(A6, &ila_of(2, B6).to_string(), 20);
    let error = errors::error(2, 0, 1300, ROUTER, &quoted);
    let reasons: Vec<_> = (0..5000).filter_map(|_| hv1.receive(&error).reason()).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == DropReason::RateLimited));
    let all = udp(A6, "ff02::1", 1);
    let reasons: Vec<_> = (0..5000)
        .flat_map(|_| hv1.send_with("vm1", &all, Offload::NONE))
        .filter_map(|out| out.reason())
        .collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == DropReason::GroupRate));
}

#[test]
fn every_reason_has_a_case() {
    let in_floods = [DropReason::GatewayRate, DropReason::RateLimited, DropReason::GroupRate];
    let cases = cases();
    for reason in DropReason::ALL {
        let here = cases.iter().any(|case| case.reason == *reason) || in_floods.contains(reason);
        let elsewhere = ELSEWHERE.iter().any(|(r, place)| r == reason && !place.is_empty());
        assert!(here != elsewhere, "{}: give it a case, or say where its test is", reason.name());
        assert!(!reason.doc().is_empty());
    }
    let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DropReason::ALL.len(), "names are unique");
}

/// The honest packets beside all these: the lab is not simply closed.
#[test]
fn honest_packets_pass() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    for (source, destination) in [(A6, B6), ("10.1.0.1", "10.1.0.2")] {
        for packet in [udp(source, destination, 9), tcp(source, destination, 9), echo(source, destination, 9)]
        {
            let out = hv1.send("vm1", &packet);
            assert!(matches!(hv2.receive(out.packet()), Out::Local(name, ..) if name == "vm2"));
        }
    }
    let red = hv1.send("red1", &udp("10.1.0.1", "10.1.0.2", 9));
    assert!(matches!(hv2.receive(red.packet()), Out::Local(name, ..) if name == "red2"));
}
