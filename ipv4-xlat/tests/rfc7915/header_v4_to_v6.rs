//! IPv4 headers into IPv6 headers: checklist B (RFC 7915 4.1).

use crate::lab::*;

#[test]
fn tcp_udp_and_echo_become_ipv6_with_flow_label_zero() {
    for (protocol, l4) in [(6, tcp(b"hello")), (17, udp(b"hello")), (1, echo(8, b"hello"))] {
        let packet = to_v6(&v4(protocol, l4), &defaults());
        assert_eq!(u32_at(&packet, 0), 6 << 28);
        assert_eq!(packet[7], 63);
        assert_eq!((&packet[8..24], &packet[24..40]), (&a6().octets()[..], &b6().octets()[..]));
    }
}
