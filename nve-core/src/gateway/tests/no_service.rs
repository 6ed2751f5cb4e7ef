use ipv4_xlat::{IcmpError, Icmpv4Error, Icmpv6Error};

use super::*;

fn udp6(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    ipv6(from, to, 1, IpProtocol::Udp, &[0x80, 0, 0x82, 0x9a, 0, 8, 0, 0])
}

#[test]
fn a_traceroute_to_the_gateway_ends_there() {
    let port4 = IcmpError::V4(Icmpv4Error { to: OWN4, icmp_type: 3, code: 3, word: 0 });
    let frame = udp4((OWN4, 1000), (GATEWAY4, 33434), b"probe");
    assert_eq!(ask(&frame), Err(Answer::Owed(DropReason::GatewayNoService, port4)));
    for (to, gateway) in [(OWN6, GATEWAY6), (OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL)] {
        let port6 = IcmpError::V6(Icmpv6Error { to, icmp_type: 1, code: 4, word: 0 });
        assert_eq!(ask(&udp6(to, gateway)), Err(Answer::Owed(DropReason::GatewayNoService, port6)));
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
