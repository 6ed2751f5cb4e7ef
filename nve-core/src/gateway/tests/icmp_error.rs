use ipv4_xlat::{Icmpv4Error, Icmpv6Error};

use super::*;

/// The ICMP error that `frame` brings, with the reason it was dropped for.
fn refused(frame: &[u8]) -> Vec<u8> {
    let mut out = [0xaa; 2048];
    let answer = answer(&context(), &mut Limits::default(), Duration::ZERO, &Frame::whole(frame), &mut out);
    let Answer::Reply(reply, Some(DropReason::GatewayNoService)) = answer else { panic!("{answer:?}") };
    let reply = bytes_of(&reply, &out, frame);
    assert_well_formed(&reply);
    reply
}

fn udp6(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    ipv6(from, to, 1, IpProtocol::Udp, &[0x80, 0, 0x82, 0x9a, 0, 8, 0, 0])
}

#[test]
fn a_traceroute_to_the_gateway_ends_there() {
    let frame = udp4((OWN4, 1000), (GATEWAY4, 33434), b"probe");
    let reply = refused(&frame);
    let ip = Ipv4Packet::new_checked(from_gateway(&reply, MAC, EthernetProtocol::Ipv4)).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY4, OWN4));
    assert_eq!(ip.payload()[..2], [3, 3]);
    assert_eq!(ip.payload()[8..], frame[14..]);

    for (from, to) in [(OWN6, GATEWAY6), (OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL)] {
        let frame = udp6(from, to);
        let reply = refused(&frame);
        let ip = Ipv6Packet::new_checked(from_gateway(&reply, MAC, EthernetProtocol::Ipv6)).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (to, from));
        assert_eq!(ip.payload()[..2], [1, 4]);
        assert_eq!(ip.payload()[8..], frame[14..]);
    }
}

#[test]
fn what_has_no_ports_and_what_is_forged_gets_no_error() {
    let gre = ipv4(OWN4, GATEWAY4, IpProtocol::Unknown(47), &[0; 8]);
    assert_eq!(ask(&gre), ignored(DropReason::GatewayNoService));
    let echo_reply = ipv4(OWN4, GATEWAY4, IpProtocol::Icmp, &[0; 8]);
    assert_eq!(ask(&echo_reply), ignored(DropReason::GatewayNoService));
    assert_eq!(ask(&udp4((PEER4, 1), (GATEWAY4, 1), b"")), ignored(DropReason::SpoofedAddress));
    assert_eq!(ask(&udp6(PEER6, GATEWAY6)), ignored(DropReason::SpoofedAddress));
}

#[test]
fn errors_are_no_more_frequent_than_their_bucket_allows() {
    let (ctx, mut limits, mut out) = (context(), Limits::default(), [0; 2048]);
    let frame = udp4((OWN4, 1000), (PEER4, 33434), b"");
    let error = Icmpv4Error::host_unreachable(OWN4);
    let mut tell = |now| tell_v4(&ctx, &mut limits, now, &error, &frame[14..], &mut out).is_some();
    assert_eq!((0..1000).filter(|_| tell(Duration::ZERO)).count(), 50);
    assert_eq!((0..1000).filter(|_| tell(Duration::from_millis(100))).count(), 10);
}

#[test]
fn no_error_is_sent_about_an_error_nor_from_a_network_without_a_gateway() {
    let (mut limits, mut out) = (Limits::default(), [0; 2048]);
    let unreachable = ipv4(OWN4, PEER4, IpProtocol::Icmp, &[3, 1, 0, 0, 0, 0, 0, 0]);
    let error = Icmpv4Error::ttl_exceeded(OWN4);
    assert_eq!(tell_v4(&context(), &mut limits, Duration::ZERO, &error, &unreachable[14..], &mut out), None);
    let ctx = GatewayContext { gateway6: None, vnet: None, ..context() };
    let error = Icmpv6Error::address_unreachable(OWN6);
    let frame = udp6(OWN6, PEER6);
    assert_eq!(tell_v6(&ctx, &mut limits, Duration::ZERO, &error, &frame[14..], &mut out), None);
    assert!(tell_v6(&context(), &mut limits, Duration::ZERO, &error, &frame[14..], &mut out).is_some());
}
