use super::*;

const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// DUID-LL of the gateway's MAC.
const SERVER_ID: [u8; 10] = [0, 3, 0, 1, 0x02, 0x49, 0x4c, 0x41, 0, 1];
const CLIENT_ID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 1];

const CLIENT: u16 = 1;
const SERVER: u16 = 2;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const ADDRESS: u16 = 5;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const IA_PD: u16 = 25;

/// A message (type, transaction, options) from the attachment to all servers.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    from_to(OWN_LINK_LOCAL, SERVERS, message)
}

fn from_to(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: 546, dst_port: 547 };
    let mut bytes = vec![0; 8 + message.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &from.into(),
        &to.into(),
        message.len(),
        |room| room.copy_from_slice(message),
        &ChecksumCapabilities::default(),
    );
    ipv6(from, to, 1, IpProtocol::Udp, &bytes)
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

fn address(address: Ipv6Addr) -> Vec<u8> {
    option(ADDRESS, &[&address.octets()[..], &[0; 8]].concat())
}

fn association(id: u8, inside: &[u8]) -> Vec<u8> {
    option(IA_NA, &[&[0, 0, 0, id, 0, 0, 0, 0, 0, 0, 0, 0], inside].concat())
}

fn message(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    frame(&[&[kind, 0xa, 0xb, 0xc][..], &options.concat()].concat())
}

/// Options by code and data; the whole must be used up.
fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    while let [a, b, c, d, rest @ ..] = bytes {
        let (data, rest) = rest.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        all.push((u16::from_be_bytes([*a, *b]), data.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    all
}

/// Type and options of the answer, whose envelope must be right.
fn said(answer: Result<Vec<u8>, Answer>) -> (u8, Vec<(u16, Vec<u8>)>) {
    let reply = answer.expect("an answer");
    assert_well_formed(&reply);
    let ip = Ipv6Packet::new_checked(from_gateway(&reply, MAC, EthernetProtocol::Ipv6)).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY_LINK_LOCAL, OWN_LINK_LOCAL));
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert_eq!((udp.src_port(), udp.dst_port()), (547, 546));
    let [kind, 0xa, 0xb, 0xc, rest @ ..] = udp.payload() else { panic!("another transaction") };
    (*kind, options(rest))
}

fn find(options: &[(u16, Vec<u8>)], code: u16) -> Option<&[u8]> {
    options.iter().find(|(c, _)| *c == code).map(|(_, data)| &data[..])
}

/// Addresses of an IA_NA, with preferred and valid lifetimes.
fn leased(association: &[u8]) -> Vec<(Ipv6Addr, u32, u32)> {
    let word = |b: &[u8]| u32::from_be_bytes(b.try_into().unwrap());
    let addresses = options(&association[12..]).into_iter().filter(|(code, _)| *code == ADDRESS);
    let read = |(_, d): (u16, Vec<u8>)| {
        (<[u8; 16]>::try_from(&d[..16]).unwrap().into(), word(&d[16..20]), word(&d[20..24]))
    };
    addresses.map(read).collect()
}

fn client() -> Vec<u8> {
    option(CLIENT, &CLIENT_ID)
}

fn server() -> Vec<u8> {
    option(SERVER, &SERVER_ID)
}

#[test]
fn a_solicit_is_advertised_the_attachments_address_and_configuration() {
    let (kind, options) = said(ask(&message(1, &[client(), association(7, &[])])));
    assert_eq!(kind, 2);
    assert_eq!(find(&options, CLIENT), Some(&CLIENT_ID[..]));
    assert_eq!(find(&options, SERVER), Some(&SERVER_ID[..]));
    let association = find(&options, IA_NA).expect("an association");
    assert_eq!(association[..12], [0, 0, 0, 7, 0, 0, 0x07, 0x08, 0, 0, 0x0c, 0x4e]);
    assert_eq!(leased(association), [(OWN6, 3600, 3600)]);
    let IpAddr::V6(resolver) = RESOLVERS[1] else { unreachable!() };
    assert_eq!(find(&options, 23), Some(&resolver.octets()[..]));
    assert_eq!(find(&options, 24), Some(&b"\x04blue\x07example\0\x07example\0"[..]));
}

#[test]
fn rapid_commit_binds_at_once() {
    let asking = [client(), association(7, &[]), option(RAPID_COMMIT, &[])];
    let (kind, options) = said(ask(&message(1, &asking)));
    assert_eq!((kind, find(&options, RAPID_COMMIT)), (7, Some(&[][..])));
    assert_eq!(leased(find(&options, IA_NA).unwrap()), [(OWN6, 3600, 3600)]);
}

#[test]
fn request_renew_and_rebind_are_given_the_address() {
    for (kind, names_server) in [(3, true), (5, true), (6, false)] {
        let mut asking = vec![client(), association(7, &address(OWN6))];
        if names_server {
            asking.push(server());
        }
        let (reply, options) = said(ask(&message(kind, &asking)));
        assert_eq!(reply, 7);
        assert_eq!(leased(find(&options, IA_NA).unwrap()), [(OWN6, 3600, 3600)], "message {kind}");
    }
}

#[test]
fn an_address_that_is_no_longer_the_attachments_is_taken_back() {
    let asking = [client(), server(), association(7, &address(FREE6))];
    let (_, options) = said(ask(&message(5, &asking)));
    assert_eq!(leased(find(&options, IA_NA).unwrap()), [(OWN6, 3600, 3600), (FREE6, 0, 0)]);
}

#[test]
fn only_the_first_association_has_the_address_and_there_are_no_prefixes() {
    let temporary = option(IA_TA, &[0, 0, 0, 9]);
    let prefix = option(IA_PD, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    let asking = [client(), association(7, &[]), association(8, &[]), temporary, prefix];
    let (_, all) = said(ask(&message(1, &asking)));
    let associations: Vec<_> = all.iter().filter(|(code, _)| *code == IA_NA).collect();
    assert_eq!(leased(&associations[0].1).len(), 1);
    assert_eq!(options(&associations[1].1[12..]), [(STATUS, vec![0, 2])]);
    assert_eq!(options(&find(&all, IA_TA).unwrap()[4..]), [(STATUS, vec![0, 2])]);
    assert_eq!(options(&find(&all, IA_PD).unwrap()[12..]), [(STATUS, vec![0, 6])]);
}

#[test]
fn confirm_says_whether_the_address_is_still_right() {
    let status = |held| {
        let (kind, options) = said(ask(&message(4, &[client(), association(7, &address(held))])));
        (kind, find(&options, STATUS).map(<[u8]>::to_vec))
    };
    assert_eq!(status(OWN6), (7, Some(vec![0, 0])));
    assert_eq!(status(FREE6), (7, Some(vec![0, 4])));
    let without = message(4, &[client(), association(7, &[])]);
    assert_eq!(ask(&without), ignored(DropReason::DhcpUnanswered));
}

#[test]
fn release_and_decline_are_confirmed() {
    for kind in [8, 9] {
        let asking = [client(), server(), association(7, &address(OWN6))];
        let (reply, options) = said(ask(&message(kind, &asking)));
        assert_eq!((reply, find(&options, STATUS)), (7, Some(&[0, 0][..])));
        assert_eq!(find(&options, IA_NA), None);
    }
}

#[test]
fn information_is_given_without_an_address_and_only_as_asked() {
    let (kind, options) = said(ask(&message(11, &[option(6, &[0, 24])])));
    assert_eq!(kind, 7);
    assert_eq!((find(&options, CLIENT), find(&options, IA_NA), find(&options, 23)), (None, None, None));
    assert!(find(&options, 24).is_some());
}

#[test]
fn identifiers_that_a_message_must_or_must_not_carry() {
    let both = [client(), server(), association(7, &[])];
    let none = [association(7, &[])];
    for kind in [1, 4, 6] {
        assert_eq!(ask(&message(kind, &both)), ignored(DropReason::Malformed), "message {kind}");
    }
    for kind in [1, 3, 4, 5, 6, 8, 9] {
        assert_eq!(ask(&message(kind, &none)), ignored(DropReason::Malformed), "message {kind}");
    }
    let another = [client(), option(SERVER, &CLIENT_ID), association(7, &[])];
    assert_eq!(ask(&message(3, &another)), ignored(DropReason::DhcpUnanswered));
}

#[test]
fn relays_forgers_and_unicast_are_refused_by_name() {
    assert_eq!(ask(&message(12, &[])), ignored(DropReason::DhcpRelay));
    let solicit = [&[1, 0, 0, 1][..], &client(), &association(7, &[])].concat();
    assert_eq!(ask(&from_to(PEER6, SERVERS, &solicit)), ignored(DropReason::SpoofedAddress));
    let to_gateway = from_to(OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL, &solicit);
    let refused = ask(&to_gateway).expect_err("no lease");
    assert!(matches!(refused, Answer::Owed(DropReason::GatewayNoService, _)));
}

#[test]
fn an_attachment_without_ipv6_is_told_that_there_is_no_address() {
    let ctx = GatewayContext { addresses: &ADDRESSES[..1], ..context() };
    let (kind, all) = said(ask_with(&ctx, &message(1, &[client(), association(7, &[])])));
    assert_eq!(kind, 2);
    assert_eq!(options(&find(&all, IA_NA).unwrap()[12..]), [(STATUS, vec![0, 2])]);
}

/// Not advertised, and yet asked: the client is told, and need not go on asking.
#[test]
fn in_a_network_without_ipv6_there_are_no_addresses() {
    let ctx = GatewayContext { addresses: &ADDRESSES[..1], vnet: None, gateway6: None, ..context() };
    for (asking, answer) in [(1, 2), (5, 7)] {
        let mut about_us = vec![client(), association(7, &[])];
        about_us.extend((asking == 5).then(server));
        let (kind, all) = said(ask_with(&ctx, &message(asking, &about_us)));
        assert_eq!(kind, answer);
        assert_eq!(options(&find(&all, IA_NA).unwrap()[12..]), [(STATUS, vec![0, 2])]);
    }
}

#[test]
fn time_servers_are_told_to_those_who_ask() {
    let (_, all) = said(ask(&message(11, &[client(), option(6, &[0, 56])])));
    let told = find(&all, 56).expect("an NTP option");
    let IpAddr::V6(clock) = CLOCKS[1] else { panic!("the second is IPv6") };
    assert_eq!(options(told), [(1, clock.octets().to_vec())]);
    let (_, all) = said(ask(&message(11, &[client(), option(6, &[0, 23])])));
    assert_eq!(find(&all, 56), None);
}

#[test]
fn a_reply_stays_below_the_minimum_mtu_whatever_is_asked() {
    let stale: Vec<u8> = (0..60).flat_map(|_| address(FREE6)).collect();
    let long_id = option(CLIENT, &[7; 130]);
    let asking: Vec<_> =
        [long_id, server()].into_iter().chain((0..9).map(|id| association(id, &stale))).collect();
    let reply = ask(&message(5, &asking)).expect("an answer");
    assert!(reply.len() <= 14 + 1280, "{}", reply.len());
    let too_long = [option(CLIENT, &[7; 131]), server(), association(7, &[])];
    assert_eq!(ask(&message(5, &too_long)), ignored(DropReason::Malformed));
}
