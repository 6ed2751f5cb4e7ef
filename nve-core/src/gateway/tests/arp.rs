use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

use super::*;

fn arp(operation: ArpOperation, mac: EthernetAddress, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut bytes = [0; 28];
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes[..]));
    ethernet(MAC, EthernetAddress::BROADCAST, EthernetProtocol::Arp, &bytes)
}

pub(super) fn request(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(ArpOperation::Request, MAC, source, target)
}

fn assert_resolves(source: Ipv4Addr, target: Ipv4Addr) {
    let reply = ask(&request(source, target)).expect("an answer");
    let packet = ArpPacket::new_checked(from_gateway(&reply, MAC, EthernetProtocol::Arp)).unwrap();
    assert_eq!(
        ArpRepr::parse(&packet).unwrap(),
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: GATEWAY_MAC,
            source_protocol_addr: target,
            target_hardware_addr: MAC,
            target_protocol_addr: source,
        }
    );
}

#[test]
fn every_other_address_of_the_network_resolves_to_the_gateway() {
    for target in [PEER4, FREE4, GATEWAY4, Ipv4Addr::new(10, 1, 0, 255)] {
        assert_resolves(OWN4, target);
    }
}

#[test]
fn network_broadcast_own_and_foreign_addresses_do_not_resolve() {
    let network = Ipv4Addr::new(10, 1, 0, 0);
    let broadcast = Ipv4Addr::new(10, 1, 255, 255);
    for target in [network, broadcast, OWN4, Ipv4Addr::new(10, 2, 0, 1), Ipv4Addr::UNSPECIFIED] {
        assert_eq!(ask(&request(OWN4, target)), ignored(DropReason::ArpUnanswered), "{target}");
    }
}

#[test]
fn a_31_has_two_hosts() {
    let ctx = GatewayContext { prefix4: Some(Ipv4Cidr::new(Ipv4Addr::new(10, 1, 0, 0), 31)), ..context() };
    assert!(ask_with(&ctx, &request(OWN4, Ipv4Addr::new(10, 1, 0, 0))).is_ok());
}

#[test]
fn a_probe_is_answered_only_for_an_address_that_is_taken() {
    assert_resolves(Ipv4Addr::UNSPECIFIED, PEER4);
    assert_resolves(Ipv4Addr::UNSPECIFIED, GATEWAY4);
    for target in [OWN4, FREE4] {
        assert_eq!(ask(&request(Ipv4Addr::UNSPECIFIED, target)), ignored(DropReason::ArpUnanswered));
    }
}

#[test]
fn a_probe_of_the_own_address_is_answered_when_another_holds_it_too() {
    let everybody = |_| true;
    let ctx = GatewayContext { held_by_another: &everybody, ..context() };
    assert!(ask_with(&ctx, &request(Ipv4Addr::UNSPECIFIED, OWN4)).is_ok());
}

#[test]
fn announcements_and_replies_are_met_with_silence() {
    assert_eq!(ask(&request(OWN4, OWN4)), ignored(DropReason::ArpUnanswered));
    let reply = arp(ArpOperation::Reply, MAC, OWN4, PEER4);
    assert_eq!(ask(&reply), ignored(DropReason::ArpUnanswered));
}

#[test]
fn a_forged_sender_is_dropped_by_name() {
    assert_eq!(ask(&arp(ArpOperation::Request, OTHER_MAC, OWN4, GATEWAY4)), ignored(DropReason::SpoofedMac));
    assert_eq!(ask(&request(PEER4, GATEWAY4)), ignored(DropReason::SpoofedAddress));
    let mut frame = request(OWN4, GATEWAY4);
    frame[6..12].copy_from_slice(OTHER_MAC.as_bytes());
    assert_eq!(ask(&frame), ignored(DropReason::SpoofedMac));
}

#[test]
fn arp_for_another_medium_is_malformed() {
    let mut frame = request(OWN4, GATEWAY4);
    frame[15] = 6; // IEEE 802
    assert_eq!(ask(&frame), ignored(DropReason::Malformed));
    assert_eq!(ask(&request(OWN4, GATEWAY4)[..41]), ignored(DropReason::Malformed));
}

#[test]
fn more_requests_than_the_bucket_holds_are_dropped() {
    let frame = request(OWN4, PEER4);
    let asked = Frame::whole(&frame);
    let (ctx, mut limits, mut out) = (context(), Limits::default(), [0; 64]);
    let mut replies = 0;
    for _ in 0..1000 {
        match answer(&ctx, &mut limits, Duration::ZERO, &asked, &mut out) {
            Answer::Reply(_) => replies += 1,
            other => assert_eq!(other, Answer::Drop(DropReason::GatewayRate)),
        }
    }
    assert_eq!(replies, 256);
}
