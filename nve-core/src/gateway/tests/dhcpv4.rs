use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr};

use super::*;
use crate::packet::Offload;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// A message as a fresh client would send it.
pub(super) fn client(message_type: DhcpMessageType) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: MAC,
        client_ip: ANY,
        your_ip: ANY,
        server_ip: ANY,
        router: None,
        subnet_mask: None,
        relay_agent_ip: ANY,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

pub(super) fn frame(message: &DhcpRepr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
    let to = if message.client_ip == ANY { Ipv4Addr::BROADCAST } else { GATEWAY4 };
    udp4((message.client_ip, 68), (to, 67), &bytes)
}

/// The DHCP message in a reply to `mac` at `to`, as smoltcp's client would read it.
fn message_of(reply: &[u8], mac: EthernetAddress, to: Ipv4Addr) -> DhcpPacket<&[u8]> {
    assert_well_formed(reply);
    let ip = Ipv4Packet::new_checked(from_gateway(reply, mac, EthernetProtocol::Ipv4)).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY4, to));
    assert_eq!(reply[34..38], [0, 67, 0, 68]);
    DhcpPacket::new_checked(&reply[42..]).unwrap()
}

fn option(message: &DhcpPacket<&[u8]>, kind: u8) -> Option<Vec<u8>> {
    message.options().find(|o| o.kind == kind).map(|o| o.data.to_vec())
}

#[test]
fn a_discover_is_offered_the_attachments_address() {
    let reply = ask(&frame(&client(DhcpMessageType::Discover))).expect("an offer");
    let packet = message_of(&reply, MAC, OWN4);
    let offer = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(offer.message_type, DhcpMessageType::Offer);
    assert_eq!(offer.transaction_id, 0x1234_5678);
    assert_eq!((offer.your_ip, offer.server_identifier), (OWN4, Some(GATEWAY4)));
    assert_eq!((offer.subnet_mask, offer.router), (Some(Ipv4Addr::new(255, 255, 0, 0)), Some(GATEWAY4)));
    assert_eq!(offer.lease_duration, Some(3600));
    assert_eq!((offer.renew_duration, offer.rebind_duration), (Some(1800), Some(3150)));
    assert_eq!(option(&packet, 6), Some(vec![10, 1, 0, 53]));
    assert_eq!(option(&packet, 12), Some(b"vm1".to_vec()));
    assert_eq!(option(&packet, 15), Some(b"blue.example".to_vec()));
    assert_eq!(option(&packet, 26), Some(1480_u16.to_be_bytes().to_vec()));
    assert_eq!(option(&packet, 28), Some(vec![10, 1, 255, 255]));
    assert_eq!(option(&packet, 42), Some(vec![10, 1, 0, 123]));
    assert_eq!(option(&packet, 119), Some(b"\x04blue\x07example\0\x07example\0".to_vec()));
    assert_eq!(option(&packet, 121), None);
}

#[test]
fn a_client_that_lists_options_gets_those_and_what_its_link_needs() {
    let asking = DhcpRepr { parameter_request_list: Some(&[1, 3, 6]), ..client(DhcpMessageType::Discover) };
    let reply = ask(&frame(&asking)).expect("an offer");
    let kinds: Vec<u8> = message_of(&reply, MAC, OWN4).options().map(|o| o.kind).collect();
    assert_eq!(kinds, [53, 54, 51, 58, 59, 1, 3, 26, 6]);
}

#[test]
fn host_route_mode_tells_a_32_and_routes() {
    let ctx = GatewayContext { lease4: Lease4::HostRoute, ..context() };
    let reply = ask_with(&ctx, &frame(&client(DhcpMessageType::Discover))).expect("an offer");
    let packet = message_of(&reply, MAC, OWN4);
    assert_eq!(option(&packet, 1), Some(vec![255; 4]));
    let routes = [32, 10, 1, 255, 254, 0, 0, 0, 0, 0, 10, 1, 255, 254];
    assert_eq!(option(&packet, 121), Some(routes.to_vec()));
    assert_eq!(option(&packet, 28), None);
}

#[test]
fn selecting_and_rebooting_clients_are_acknowledged() {
    let selecting = DhcpRepr {
        requested_ip: Some(OWN4),
        server_identifier: Some(GATEWAY4),
        ..client(DhcpMessageType::Request)
    };
    let rebooting = DhcpRepr { server_identifier: None, ..selecting.clone() };
    for asking in [selecting, rebooting] {
        let reply = ask(&frame(&asking)).expect("an acknowledgement");
        let packet = message_of(&reply, MAC, OWN4);
        let ack = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((ack.message_type, ack.your_ip), (DhcpMessageType::Ack, OWN4));
    }
}

#[test]
fn renewing_by_unicast_and_rebinding_by_broadcast_extend_the_lease() {
    let renewing = DhcpRepr { client_ip: OWN4, ..client(DhcpMessageType::Request) };
    let mut bytes = vec![0; renewing.buffer_len()];
    renewing.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
    for to in [GATEWAY4, Ipv4Addr::BROADCAST] {
        let reply = ask(&udp4((OWN4, 68), (to, 67), &bytes)).expect("an acknowledgement");
        let packet = message_of(&reply, MAC, OWN4);
        let ack = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((ack.message_type, ack.client_ip, ack.your_ip), (DhcpMessageType::Ack, OWN4, OWN4));
    }
}

#[test]
fn another_address_is_refused() {
    let selecting = DhcpRepr { requested_ip: Some(PEER4), ..client(DhcpMessageType::Request) };
    let renewing = DhcpRepr { client_ip: PEER4, ..client(DhcpMessageType::Request) };
    let nothing = client(DhcpMessageType::Request);
    for asking in [selecting, renewing, nothing] {
        let reply = ask(&frame(&asking)).expect("a refusal");
        let packet = message_of(&reply, EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST);
        let nak = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((nak.message_type, nak.your_ip), (DhcpMessageType::Nak, ANY));
        assert_eq!(nak.server_identifier, Some(GATEWAY4));
    }
}

#[test]
fn a_client_that_cannot_hear_unicast_is_sent_a_broadcast() {
    let asking = DhcpRepr { broadcast: true, ..client(DhcpMessageType::Discover) };
    let reply = ask(&frame(&asking)).expect("an offer");
    message_of(&reply, EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST);
}

#[test]
fn an_inform_brings_options_without_a_lease() {
    let asking = DhcpRepr { client_ip: OWN4, ..client(DhcpMessageType::Inform) };
    let reply = ask(&frame(&asking)).expect("options");
    let packet = message_of(&reply, MAC, OWN4);
    let ack = DhcpRepr::parse(&packet).unwrap();
    assert_eq!((ack.message_type, ack.your_ip), (DhcpMessageType::Ack, ANY));
    assert_eq!((ack.lease_duration, ack.router), (None, Some(GATEWAY4)));
    let forged = DhcpRepr { client_ip: PEER4, ..asking };
    assert_eq!(ask(&frame(&forged)), ignored(DropReason::SpoofedAddress));
}

#[test]
fn decline_release_and_other_servers_clients_get_no_answer() {
    let decline = client(DhcpMessageType::Decline);
    assert_eq!(ask(&frame(&decline)), ignored(DropReason::DhcpDecline));
    let release = DhcpRepr { client_ip: OWN4, ..client(DhcpMessageType::Release) };
    assert_eq!(ask(&frame(&release)), ignored(DropReason::DhcpUnanswered));
    let elsewhere = DhcpRepr { server_identifier: Some(PEER4), ..client(DhcpMessageType::Request) };
    assert_eq!(ask(&frame(&elsewhere)), ignored(DropReason::DhcpUnanswered));
}

#[test]
fn relay_agents_and_foreign_hardware_are_refused_by_name() {
    let relayed = DhcpRepr { relay_agent_ip: PEER4, ..client(DhcpMessageType::Discover) };
    assert_eq!(ask(&frame(&relayed)), ignored(DropReason::DhcpRelay));
    let nested = DhcpRepr { client_hardware_address: OTHER_MAC, ..client(DhcpMessageType::Discover) };
    assert_eq!(ask(&frame(&nested)), ignored(DropReason::SpoofedMac));
}

#[test]
fn client_identifiers_of_any_kind_change_nothing() {
    let odd = [DhcpOption { kind: 61, data: b"\0vm-abc" }];
    let asking = DhcpRepr { additional_options: &odd, ..client(DhcpMessageType::Discover) };
    assert!(ask(&frame(&asking)).is_ok());
}

#[test]
fn an_attachment_without_ipv4_is_not_answered() {
    let ctx = GatewayContext { addresses: &ADDRESSES[1..], ..context() };
    assert_eq!(
        ask_with(&ctx, &frame(&client(DhcpMessageType::Discover))),
        ignored(DropReason::DhcpUnanswered)
    );
}

#[test]
fn a_reply_is_never_longer_than_the_client_takes() {
    let long = ["d".repeat(60), "e".repeat(60), "f".repeat(60), "g".repeat(60)].join(".");
    let host = "h".repeat(255);
    let search = [long.clone()];
    let ctx = GatewayContext { hostname: Some(&host), domain: Some(&long), search: &search, ..context() };
    for (max_size, most) in [(None, 576), (Some(0), 576), (Some(900), 900), (Some(1500), 1480)] {
        let asking = DhcpRepr { max_size, ..client(DhcpMessageType::Discover) };
        let reply = ask_with(&ctx, &frame(&asking)).expect("an offer");
        assert!(reply.len() - 14 <= most, "{} > {most}", reply.len() - 14);
        let packet = message_of(&reply, MAC, OWN4);
        assert_eq!(DhcpRepr::parse(&packet).unwrap().router, Some(GATEWAY4));
    }
}

#[test]
fn a_pending_checksum_is_not_judged_and_a_wrong_one_is() {
    let mut bytes = frame(&client(DhcpMessageType::Discover));
    bytes[40] ^= 0x55;
    assert_eq!(ask(&bytes), ignored(DropReason::BadChecksum));
    let pending = ChecksumState::Partial { start: 20, offset: 6 };
    let offload = Offload { checksum: pending, gso: None };
    let asked = Frame { offload, ..Frame::whole(&bytes) };
    let answer = answer(&context(), &mut Limits::default(), Duration::ZERO, &asked, &mut [0; 2048]);
    assert!(matches!(answer, Answer::Reply(_)));
}

#[test]
fn a_tenants_own_server_is_reached_by_unicast() {
    assert_eq!(ask(&udp4((OWN4, 68), (PEER4, 67), b"")), Err(Answer::LetGo));
}

#[test]
fn a_head_is_not_enough() {
    let bytes = frame(&client(DhcpMessageType::Discover));
    let asked = Frame { head: &bytes[..128], ..Frame::whole(&bytes) };
    let answer = answer(&context(), &mut Limits::default(), Duration::ZERO, &asked, &mut [0; 2048]);
    assert_eq!(answer, Answer::Again(Again::Whole));
}
