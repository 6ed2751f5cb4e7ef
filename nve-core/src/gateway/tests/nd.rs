use smoltcp::wire::{NdiscNeighborFlags, NdiscRepr, NdiscRouterFlags, RawHardwareAddress};

use super::*;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);

fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    group.into()
}

fn solicit_from(
    source: Ipv6Addr,
    to: Ipv6Addr,
    target: Ipv6Addr,
    lladdr: Option<EthernetAddress>,
    hop_limit: u8,
) -> Vec<u8> {
    let lladdr = lladdr.map(RawHardwareAddress::from);
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: target, lladdr });
    icmpv6(source, to, hop_limit, &message)
}

pub(super) fn solicit(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let lladdr = (!source.is_unspecified()).then_some(MAC);
    solicit_from(source, solicited_node(target), target, lladdr, 255)
}

fn parse<'a>(reply: &'a [u8], mac: EthernetAddress, source: Ipv6Addr, to: Ipv6Addr) -> NdiscRepr<'a> {
    assert_well_formed(reply);
    let ip = Ipv6Packet::new_checked(from_gateway(reply, mac, EthernetProtocol::Ipv6)).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (source, to, 255));
    let icmp = Icmpv6Packet::new_checked(&reply[54..]).unwrap();
    let Ok(Icmpv6Repr::Ndisc(nd)) = Icmpv6Repr::parse(&source, &to, &icmp, &ChecksumCapabilities::default())
    else {
        panic!("not neighbour discovery")
    };
    nd
}

fn assert_resolves(source: Ipv6Addr, target: Ipv6Addr, flags: NdiscNeighborFlags) {
    let reply = ask(&solicit(source, target)).expect("an answer");
    let (mac, to) = if source.is_unspecified() { (ALL_NODES_MAC, ALL_NODES) } else { (MAC, source) };
    let advert = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr: Some(GATEWAY_MAC.into()) };
    assert_eq!(parse(&reply, mac, target, to), advert);
}

#[test]
fn the_gateways_addresses_resolve_as_a_router() {
    let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    assert_resolves(OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL, flags);
    assert_resolves(OWN6, GATEWAY6, flags);
}

#[test]
fn every_other_address_of_the_network_resolves_as_a_neighbour() {
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    assert_resolves(OWN6, PEER6, flags);
    assert_resolves(OWN_LINK_LOCAL, FREE6, flags);
}

#[test]
fn own_foreign_and_link_local_targets_do_not_resolve() {
    let foreign = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 1, 0, 2);
    let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 2);
    for target in [OWN6, OWN_LINK_LOCAL, foreign, neighbour] {
        assert_eq!(ask(&solicit(OWN_LINK_LOCAL, target)), ignored(DropReason::NdUnanswered), "{target}");
    }
}

#[test]
fn duplicate_address_detection_is_answered_only_for_an_address_that_is_taken() {
    assert_resolves(Ipv6Addr::UNSPECIFIED, PEER6, NdiscNeighborFlags::OVERRIDE);
    let router = NdiscNeighborFlags::OVERRIDE | NdiscNeighborFlags::ROUTER;
    assert_resolves(Ipv6Addr::UNSPECIFIED, GATEWAY_LINK_LOCAL, router);
    for target in [OWN6, OWN_LINK_LOCAL, FREE6] {
        assert_eq!(ask(&solicit(Ipv6Addr::UNSPECIFIED, target)), ignored(DropReason::NdUnanswered));
    }
}

#[test]
fn a_probe_must_be_sent_to_the_targets_group_and_name_no_mac() {
    let unspecified = Ipv6Addr::UNSPECIFIED;
    let wrong_group = solicit_from(unspecified, ALL_NODES, PEER6, None, 255);
    assert_eq!(ask(&wrong_group), ignored(DropReason::Malformed));
    let with_mac = solicit_from(unspecified, solicited_node(PEER6), PEER6, Some(MAC), 255);
    assert_eq!(ask(&with_mac), ignored(DropReason::Malformed));
}

#[test]
fn a_forged_sender_is_dropped_by_name() {
    for source in [PEER6, GATEWAY6, GATEWAY_LINK_LOCAL] {
        assert_eq!(ask(&solicit(source, FREE6)), ignored(DropReason::SpoofedAddress));
    }
    let forged_option = solicit_from(OWN6, solicited_node(PEER6), PEER6, Some(OTHER_MAC), 255);
    assert_eq!(ask(&forged_option), ignored(DropReason::SpoofedMac));
}

#[test]
fn neighbour_discovery_from_beyond_the_link_is_dropped() {
    let frame = solicit_from(OWN6, solicited_node(PEER6), PEER6, Some(MAC), 254);
    assert_eq!(ask(&frame), ignored(DropReason::NdHopLimit));
}

#[test]
fn a_wrong_checksum_is_dropped() {
    let mut frame = solicit(OWN6, PEER6);
    frame[56] ^= 1;
    assert_eq!(ask(&frame), ignored(DropReason::BadChecksum));
}

#[test]
fn an_empty_option_is_malformed() {
    let mut frame = solicit(OWN6, PEER6);
    frame[79] = 0; // the option's length
    frame[78] = 0x02; // its type, which takes up the checksum's difference
    assert_eq!(ask(&frame), ignored(DropReason::BadChecksum));
    let sum = u16::from_be_bytes([frame[56], frame[57]]);
    frame[56..58].copy_from_slice(&sum.wrapping_sub(0xff).to_be_bytes());
    assert_eq!(ask(&frame), ignored(DropReason::Malformed));
}

#[test]
fn advertisements_are_met_with_silence_and_rogue_routers_named() {
    let flags = NdiscNeighborFlags::OVERRIDE;
    let advert = NdiscRepr::NeighborAdvert { flags, target_addr: OWN6, lladdr: Some(MAC.into()) };
    let frame = icmpv6(OWN6, ALL_NODES, 255, &Icmpv6Repr::Ndisc(advert));
    assert_eq!(ask(&frame), ignored(DropReason::NdUnanswered));
    let router = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: smoltcp::time::Duration::from_secs(1800),
        reachable_time: smoltcp::time::Duration::ZERO,
        retrans_time: smoltcp::time::Duration::ZERO,
        lladdr: None,
        mtu: None,
        prefix_info: None,
    };
    let frame = icmpv6(OWN_LINK_LOCAL, ALL_NODES, 255, &Icmpv6Repr::Ndisc(router));
    assert_eq!(ask(&frame), ignored(DropReason::RogueRouter));
}

#[test]
fn a_router_solicitation_brings_router_mtu_and_managed_but_no_prefix() {
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: Some(MAC.into()) });
    let reply = ask(&icmpv6(OWN_LINK_LOCAL, ALL_ROUTERS, 255, &message)).expect("an advertisement");
    let advert = parse(&reply, MAC, GATEWAY_LINK_LOCAL, OWN_LINK_LOCAL);
    let NdiscRepr::RouterAdvert { flags, router_lifetime, lladdr, mtu, prefix_info, .. } = advert else {
        panic!("not a router advertisement")
    };
    assert_eq!(flags, NdiscRouterFlags::MANAGED | NdiscRouterFlags::OTHER);
    assert!(router_lifetime.secs() > 0);
    assert_eq!((lladdr, mtu, prefix_info), (Some(GATEWAY_MAC.into()), Some(1480), None));
}

#[test]
fn a_router_advertisement_tells_resolvers_and_search_domains() {
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
    let reply = ask(&icmpv6(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, 255, &message)).expect("an advertisement");
    parse(&reply, ALL_NODES_MAC, GATEWAY_LINK_LOCAL, ALL_NODES);
    // Ethernet, IPv6, the fixed part, link-layer address, MTU; then RDNSS and DNSSL (RFC 8106, 5).
    let options = &reply[14 + 40 + 16 + 8 + 8..];
    let (rdnss, dnssl) = options.split_at(24);
    assert_eq!(rdnss[..8], [25, 3, 0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(IpAddr::V6(<[u8; 16]>::try_from(&rdnss[8..]).unwrap().into()), RESOLVERS[1]);
    assert_eq!(dnssl[..8], [31, 4, 0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(&dnssl[8..], b"\x04blue\x07example\0\x07example\0\0");
}

#[test]
fn a_network_without_ipv6_has_no_router() {
    let ctx = GatewayContext { vnet: None, gateway6: None, ..context() };
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: Some(MAC.into()) });
    let frame = icmpv6(OWN_LINK_LOCAL, ALL_ROUTERS, 255, &message);
    assert_eq!(ask_with(&ctx, &frame), ignored(DropReason::NdUnanswered));
}
