//! Whatever a guest sends: no panic, and what is sent back is well formed, bounded, and for the asker only.

use proptest::prelude::*;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, NdiscRepr};

use super::*;

/// Frames the gateway answers: where mutation starts.
pub(super) fn answered() -> Vec<Vec<u8>> {
    let mut arp = [0; 28];
    ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: MAC,
        source_protocol_addr: OWN4,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: PEER4,
    }
    .emit(&mut ArpPacket::new_unchecked(&mut arp[..]));
    let nd = |message| icmpv6(OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL, 255, &Icmpv6Repr::Ndisc(message));
    let mut discover = [0; 260];
    discover[..3].copy_from_slice(&[1, 1, 6]);
    discover[28..34].copy_from_slice(MAC.as_bytes());
    discover[236..247].copy_from_slice(&[99, 130, 83, 99, 53, 1, 1, 57, 2, 5, 220]);
    discover[247] = 255;
    let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    vec![
        ethernet(MAC, EthernetAddress::BROADCAST, EthernetProtocol::Arp, &arp),
        nd(NdiscRepr::RouterSolicit { lladdr: Some(MAC.into()) }),
        nd(NdiscRepr::NeighborSolicit { target_addr: GATEWAY6, lladdr: Some(MAC.into()) }),
        udp4((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), &discover),
        ipv4(OWN4, GATEWAY4, IpProtocol::Icmp, &echo),
        icmpv6(OWN6, GATEWAY6, 64, &Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: b"abcd" }),
        dhcpv6::frame(&[1, 1, 2, 3, 0, 1, 0, 4, 0, 1, 0, 9, 0, 3, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]),
    ]
}

/// The checksum fields of `frame` made right again, so that mutations reach behind the checks.
fn with_good_checksums(mut frame: Vec<u8>) -> Vec<u8> {
    let Ok(mut eth) = EthernetFrame::new_checked(&mut frame[..]) else { return frame };
    match eth.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut ip) = Ipv4Packet::new_checked(eth.payload_mut()) else { return frame };
            ip.fill_checksum();
            let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
            if let Ok(mut udp) = UdpPacket::new_checked(ip.payload_mut()) {
                udp.fill_checksum(&from, &to);
            }
        }
        EthernetProtocol::Ipv6 => {
            let Ok(mut ip) = Ipv6Packet::new_checked(eth.payload_mut()) else { return frame };
            let (from, to) = (ip.src_addr(), ip.dst_addr());
            match ip.next_header() {
                IpProtocol::Udp => {
                    if let Ok(mut udp) = UdpPacket::new_checked(ip.payload_mut()) {
                        udp.fill_checksum(&from.into(), &to.into());
                    }
                }
                _ => {
                    if let Ok(mut icmp) = Icmpv6Packet::new_checked(ip.payload_mut()) {
                        icmp.fill_checksum(&from, &to);
                    }
                }
            }
        }
        _ => {}
    }
    frame
}

fn check(frame: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(reply) = ask(frame) {
        // An echo's own checksum error is returned to the one who made it.
        if ask(&with_good_checksums(frame.to_vec())).as_ref() == Ok(&reply) && !is_echo(frame) {
            assert_well_formed(&reply);
        }
        prop_assert_eq!(&reply[6..12], GATEWAY_MAC.as_bytes());
        let to = &reply[..6];
        let all_nodes = [0x33, 0x33, 0, 0, 0, 1];
        prop_assert!(to == MAC.as_bytes() || to == [0xff; 6] || to == all_nodes);
        prop_assert!(reply.len() <= frame.len().max(14 + 1480));
    }
    Ok(())
}

fn is_echo(frame: &[u8]) -> bool {
    matches!(frame.get(23), Some(1)) || matches!(frame.get(54), Some(128))
}

#[test]
fn the_frames_that_mutation_starts_from_are_answered_well() {
    for frame in answered() {
        assert_well_formed(&ask(&frame).expect("an answer"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(frame in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..4_usize) {
        let mut frame = frame;
        if let Some(field) = frame.get_mut(6..14) {
            let ethertype = [[8, 6], [8, 0], [0x86, 0xdd], [0, 0]][kind];
            field.copy_from_slice(&[MAC.as_bytes(), &ethertype].concat());
        }
        check(&frame)?;
    }

    #[test]
    fn mutated_frames(
        which in 0..7_usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        mend in any::<bool>(),
    ) {
        let mut frame = answered().swap_remove(which);
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        check(&if mend { with_good_checksums(frame) } else { frame })?;
    }

    #[test]
    fn a_small_reply_buffer_is_no_danger(which in 0..7_usize, room in 0..600_usize) {
        let frame = answered().swap_remove(which);
        let mut out = vec![0; room];
        match answer(&context(), &mut Limits::default(), Duration::ZERO, &Frame::whole(&frame), &mut out) {
            Answer::Reply(reply) => assert_well_formed(&bytes_of(&reply, &out, &frame)),
            other => prop_assert_eq!(other, Answer::Drop(DropReason::GatewayNoRoom)),
        }
    }
}
