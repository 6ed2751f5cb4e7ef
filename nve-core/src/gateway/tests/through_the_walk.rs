//! The same questions by the worker's door: a setup with one attachment here and one address on another host.

use std::sync::Arc;

use smoltcp::wire::DhcpMessageType;

use super::*;
use crate::addr::{ChecksumMode, Vnid};
use crate::packet::HEAD_LEN;
use crate::pipeline::{Again, Fate, Nve, Origin, Scratch, Walker};
use crate::setup::{Attachment, Host, Instance, Mapping, Network, Setup};

fn nve() -> Arc<Nve> {
    let network = Network {
        ipv4: context().prefix4,
        ipv6: context().vnet,
        dns: RESOLVERS.to_vec(),
        domain: Some("blue.example".into()),
        search: vec!["blue.example".into(), "example".into()],
        ntp: vec![
            "10.1.0.123".parse().expect("an address"),
            "2001:db8:b1:e::123".parse().expect("an address"),
        ],
        lease4: Lease4::HostRoute,
        ..Network::named("blue", Vnid::new(1001).unwrap())
    };
    let attachment = Attachment {
        name: "vm1".into(),
        network: "blue".into(),
        mac: MAC,
        addresses: ADDRESSES.to_vec(),
        hostname: Some("vm1".into()),
        instance: Instance::default(),
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
    };
    let remote =
        |address| Mapping { network: "blue".into(), address, locator: "2001:db8:0:2::/64".parse().unwrap() };
    let host = Host {
        name: "hv1".into(),
        locator: "2001:db8:0:1::/64".parse().unwrap(),
        sir: "2001:db8:51::/64".parse().unwrap(),
        checksum: ChecksumMode::Neutral,
        uplink_mtu: 1500,
        unknown: Default::default(),
    };
    let mappings = vec![remote(PEER4.into()), remote(PEER6.into())];
    let setup = Setup { networks: vec![network], attachments: vec![attachment], mappings, ..Setup::of(host) };
    Nve::new(setup.check().expect("a good setup"), 16)
}

/// The fate of a frame from vm1, head first as a worker brings it, and the reply if there is one.
fn walk(walker: &mut Walker, frame: &[u8]) -> (Fate, Vec<u8>) {
    let port = nve().port("vm1").unwrap();
    let mut scratch = Scratch::default();
    let head = Frame { head: &frame[..frame.len().min(HEAD_LEN)], ..Frame::whole(frame) };
    let mut fate = walker.walk(Origin::Port(port), &head, &mut scratch);
    if fate == Fate::Again(Again::Whole) {
        fate = walker.walk(Origin::Port(port), &Frame::whole(frame), &mut scratch);
    }
    let reply = match &fate {
        Fate::Reply(reply, _) => bytes_of(reply, &scratch.head, frame),
        _ => Vec::new(),
    };
    (fate, reply)
}

#[test]
fn what_the_gateway_says_is_what_the_walk_replies() {
    let mut walker = Walker::new(nve());
    walker.begin(Duration::from_secs(1));
    let questions = [
        arp::request(OWN4, PEER4),
        nd::solicit(OWN6, GATEWAY6),
        nd::solicit(OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL),
        dhcpv4::frame(&dhcpv4::client(DhcpMessageType::Discover)),
        dhcpv6::frame(&[11, 1, 2, 3]),
        echo::ping4(GATEWAY4, 7, &[1; 1000]),
    ];
    for question in questions {
        let (fate, reply) = walk(&mut walker, &question);
        let ctx = GatewayContext { lease4: Lease4::HostRoute, ..context() };
        assert_eq!(Ok(reply), ask_with(&ctx, &question), "{fate:?}");
    }
}

#[test]
fn an_address_of_another_host_is_taken_and_an_unmapped_one_is_free() {
    let mut walker = Walker::new(nve());
    walker.begin(Duration::from_secs(1));
    let unspecified = Ipv4Addr::UNSPECIFIED;
    assert!(matches!(walk(&mut walker, &arp::request(unspecified, PEER4)).0, Fate::Reply(_, None)));
    for free in [OWN4, FREE4] {
        let fate = walk(&mut walker, &arp::request(unspecified, free)).0;
        assert_eq!(fate, Fate::Drop(DropReason::ArpUnanswered));
    }
    let probe = |target| nd::solicit(Ipv6Addr::UNSPECIFIED, target);
    assert!(matches!(walk(&mut walker, &probe(PEER6)).0, Fate::Reply(_, None)));
    for free in [OWN6, FREE6] {
        assert_eq!(walk(&mut walker, &probe(free)).0, Fate::Drop(DropReason::NdUnanswered));
    }
}

#[test]
fn a_port_that_serves_nothing_is_unreachable_and_counted() {
    let mut walker = Walker::new(nve());
    walker.begin(Duration::from_secs(1));
    let frame = udp4((OWN4, 1000), (GATEWAY4, 33434), b"probe");
    let (fate, reply) = walk(&mut walker, &frame);
    assert!(matches!(fate, Fate::Reply(_, Some(DropReason::GatewayNoService))), "{fate:?}");
    assert_well_formed(&reply);
    assert_eq!((&reply[26..30], &reply[34..36]), (&GATEWAY4.octets()[..], &[3, 3][..]));
}

#[test]
fn multicast_that_is_not_the_gateways_goes_on() {
    let mut walker = Walker::new(nve());
    walker.begin(Duration::from_secs(1));
    let mdns = udp4((OWN4, 5353), (Ipv4Addr::new(224, 0, 0, 251), 5353), b"");
    assert!(matches!(walk(&mut walker, &mdns).0, Fate::Uplink(_)));
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
    let mdns = ipv6(OWN_LINK_LOCAL, group, 255, IpProtocol::Udp, &[0x14, 0xe9, 0x14, 0xe9, 0, 8, 0, 0]);
    assert_eq!(walk(&mut walker, &mdns).0, Fate::Drop(DropReason::NoListener));
}
