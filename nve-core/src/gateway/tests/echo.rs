use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr};

use super::*;

pub(super) fn ping4(to: Ipv4Addr, ident: u16, data: &[u8]) -> Vec<u8> {
    let message = Icmpv4Repr::EchoRequest { ident, seq_no: 0, data };
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
    ipv4(OWN4, to, IpProtocol::Icmp, &bytes)
}

fn ping6(from: Ipv6Addr, to: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    icmpv6(from, to, 64, &Icmpv6Repr::EchoRequest { ident: 7, seq_no: 9, data })
}

#[test]
fn the_ipv4_gateway_answers_echo_with_the_same_data() {
    let reply = ask(&ping4(GATEWAY4, 7, b"abcdefg")).expect("an answer");
    assert_well_formed(&reply);
    let ip = Ipv4Packet::new_checked(from_gateway(&reply, MAC, EthernetProtocol::Ipv4)).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY4, OWN4));
    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
    let echo = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
    assert_eq!(echo, Icmpv4Repr::EchoReply { ident: 7, seq_no: 0, data: b"abcdefg" });
}

#[test]
fn echo_of_nothing_but_zeros_has_a_checksum_that_verifies() {
    let reply = ask(&ping4(GATEWAY4, 0, &[0; 8])).expect("an answer");
    let icmp = Icmpv4Packet::new_checked(&reply[34..]).unwrap();
    assert!(icmp.verify_checksum());
}

#[test]
fn both_ipv6_gateway_addresses_answer_echo() {
    for (from, to) in [(OWN6, GATEWAY6), (OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL)] {
        let reply = ask(&ping6(from, to, b"abc")).expect("an answer");
        assert_well_formed(&reply);
        let ip = Ipv6Packet::new_checked(from_gateway(&reply, MAC, EthernetProtocol::Ipv6)).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (to, from));
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let echo = Icmpv6Repr::parse(&to, &from, &icmp, &ChecksumCapabilities::default()).unwrap();
        assert_eq!(echo, Icmpv6Repr::EchoReply { ident: 7, seq_no: 9, data: b"abc" });
    }
}

#[test]
fn a_reply_leaves_ethernet_padding_and_ip_options_out() {
    let mut frame = ping4(GATEWAY4, 7, b"abc");
    frame.extend_from_slice(&[0xee; 15]);
    assert_eq!(ask(&frame).expect("an answer").len(), 14 + 20 + 8 + 3);
}

#[test]
fn only_the_head_of_a_long_echo_is_needed() {
    let frame = ping4(GATEWAY4, 7, &[5; 8000]);
    let mut out = [0; 128];
    let asked = Frame { head: &frame[..128], ..Frame::whole(&frame) };
    let answer = answer(&context(), &mut Limits::default(), Duration::ZERO, &asked, &mut out);
    let Answer::Reply(reply) = answer else { panic!("{answer:?}") };
    assert_well_formed(&bytes_of(&reply, &out, &frame));
}

#[test]
fn a_length_that_lies_is_malformed() {
    let frame = ping4(GATEWAY4, 7, b"abcdefg");
    assert_eq!(ask(&frame[..frame.len() - 1]), ignored(DropReason::Malformed));
}

#[test]
fn echo_from_another_address_is_dropped() {
    assert_eq!(ask(&ping6(PEER6, GATEWAY6, b"")), ignored(DropReason::SpoofedAddress));
    let mut frame = ping4(GATEWAY4, 7, b"");
    frame[29] = 2; // 10.1.0.2
    assert_eq!(ask(&frame), ignored(DropReason::SpoofedAddress));
}

#[test]
fn echo_to_neighbours_is_not_the_gateways_business() {
    assert_eq!(ask(&ping4(PEER4, 7, b"abc")), Err(Answer::LetGo));
    assert_eq!(ask(&ping6(OWN6, PEER6, b"abc")), Err(Answer::LetGo));
}
