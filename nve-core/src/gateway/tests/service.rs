//! What goes to the gateway's own stack: from whom, and in what form.

use super::*;
use crate::gateway::{METADATA4, METADATA6};
use crate::packet::{ChecksumState, Gso, GsoKind, Offload};
use crate::pipeline::{Again, Desk};

/// A TCP header to a port, in its family's packet.
fn tcp(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let mut header = [0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&port.to_be_bytes());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, IpProtocol::Tcp, &header),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let repr = Ipv6Repr {
                src_addr: from,
                dst_addr: to,
                next_header: IpProtocol::Tcp,
                payload_len: header.len(),
                hop_limit: 64,
            };
            let mut bytes = vec![0; 40 + header.len()];
            let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
            repr.emit(&mut packet);
            packet.payload_mut().copy_from_slice(&header);
            ethernet(MAC, GATEWAY_MAC, EthernetProtocol::Ipv6, &bytes)
        }
        _ => unreachable!("one family"),
    }
}

const SERVICE: [IpAddr; 2] = [IpAddr::V4(METADATA4), IpAddr::V6(METADATA6)];
const PUNTED: Result<Vec<u8>, Answer> = Err(Answer::Punt(Desk::Service));

#[test]
fn http_to_the_metadata_addresses_goes_to_the_slow_path() {
    for (from, to) in ADDRESSES.into_iter().zip(SERVICE) {
        assert_eq!(ask(&tcp(from, to, 80)), PUNTED);
        let other = ask(&tcp(from, to, 81));
        assert!(matches!(other, Err(Answer::Owed(DropReason::GatewayNoService, _))), "{other:?}");
    }
}

#[test]
fn a_network_without_metadata_has_no_such_address() {
    let ctx = GatewayContext { metadata: false, ..context() };
    for (from, to) in ADDRESSES.into_iter().zip(SERVICE) {
        assert_eq!(ask_with(&ctx, &tcp(from, to, 80)), Err(Answer::LetGo));
    }
}

#[test]
fn only_an_attachments_own_addresses_reach_its_stack() {
    let strangers = [
        (IpAddr::V4(PEER4), SERVICE[0]),
        // A guest without a lease: nobody else's word says that it is who it says.
        (IpAddr::V4(Ipv4Addr::new(169, 254, 7, 7)), SERVICE[0]),
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), SERVICE[0]),
        (IpAddr::V6(PEER6), SERVICE[1]),
        (IpAddr::V6(OWN_LINK_LOCAL), SERVICE[1]),
    ];
    for (from, to) in strangers {
        assert_eq!(ask(&tcp(from, to, 80)), ignored(DropReason::SpoofedAddress), "{from}");
    }
    let mut frame = tcp(ADDRESSES[0], SERVICE[0], 80);
    frame[6..12].copy_from_slice(OTHER_MAC.as_bytes());
    assert_eq!(ask(&frame), ignored(DropReason::SpoofedMac));
}

#[test]
fn what_is_left_to_hardware_is_finished_first() {
    let frame = tcp(ADDRESSES[0], SERVICE[0], 80);
    let partial = ChecksumState::Partial { start: 20, offset: 16 };
    let gso = Some(Gso { kind: GsoKind::TcpV4 { ecn: false }, size: 1000 });
    let ask = |offload, len| {
        let frame = Frame { offload, len, head: &frame };
        answer(&context(), &mut Limits::default(), Duration::ZERO, &frame, &mut [0; 2048])
    };
    let len = frame.len();
    assert_eq!(ask(Offload { checksum: partial, gso: None }, len), Answer::Again(Again::Checksum));
    assert_eq!(ask(Offload { checksum: partial, gso }, len), Answer::Again(Again::Segments));
    assert_eq!(ask(Offload::NONE, len + 1), Answer::Again(Again::Whole), "nothing is punted in part");
}

#[test]
fn a_packet_longer_than_its_attachments_mtu_is_not_for_the_stack() {
    for (payload, answer) in [(1480 - 20, PUNTED), (1481 - 20, ignored(DropReason::TooBig))] {
        let mut bytes = vec![0; payload];
        bytes[..4].copy_from_slice(&[0, 9, 0, 80]);
        assert_eq!(ask(&ipv4(OWN4, METADATA4, IpProtocol::Tcp, &bytes)), answer);
    }
}

#[test]
fn the_metadata_addresses_answer_ping() {
    let echo = ipv4(OWN4, METADATA4, IpProtocol::Icmp, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    assert_well_formed(&ask(&echo).expect("an answer"));
    let request = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: b"abcd" };
    assert_well_formed(&ask(&icmpv6(OWN6, METADATA6, 64, &request)).expect("an answer"));
}
