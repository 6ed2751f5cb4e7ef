//! Any bytes, from both sides: no panic, and whatever goes out is a packet.

use proptest::prelude::*;

use super::*;
use crate::packet::{ChecksumState, Gso, GsoKind, HEAD_LEN};

const A6: &str = "2001:db8:b1:e::1";

/// Packets that get far, to be spoiled.
fn seeds() -> Vec<Vec<u8>> {
    let ila = |address: &str| ila_of(1, address).to_string();
    let from6 = |to: &str| [tcp("2001:db8:b1:e::2", to, 60), echo("2001:db8:b1:e::2", to, 60)];
    let from4 = |to: &str| [udp(&sir_of("10.1.0.2").to_string(), to, 60)];
    let quoted = udp(A6, &ila_of(2, "2001:db8:b1:e::2").to_string(), 20);
    let mut seeds = vec![errors::error(2, 0, 1300, "2001:db8:ffff::1", &quoted)];
    seeds.extend(from6(&ila(A6)));
    seeds.extend(from4(&ila("10.1.0.1")));
    for to in ["2001:db8:b1:e::2", "2001:db8:b1:e::3", "2001:db8:b1:e::ffff:fffe", "ff02::1"] {
        seeds.extend([tcp(A6, to, 60), udp(A6, to, 60), echo(A6, to, 60)]);
    }
    for to in ["10.1.0.2", "10.1.0.3", "10.1.255.254", "255.255.255.255"] {
        seeds.extend([tcp("10.1.0.1", to, 60), udp("10.1.0.1", to, 2000), echo("10.1.0.1", to, 60)]);
    }
    seeds
}

pub(super) fn offload() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        3 => Just(ChecksumState::InPacket),
        1 => Just(ChecksumState::Verified),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
        4 => (prop_oneof![Just(20), Just(40)], prop_oneof![Just(6), Just(16)])
            .prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
    ];
    let kind = prop_oneof![
        any::<bool>().prop_map(|ecn| GsoKind::TcpV4 { ecn }),
        any::<bool>().prop_map(|ecn| GsoKind::TcpV6 { ecn }),
        Just(GsoKind::UdpL4),
    ];
    let gso = prop_oneof![2 => Just(None), 1 => (kind, 0..3000_u16).prop_map(|(kind, size)| Some(Gso { kind, size }))];
    (checksum, gso).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

/// What comes out is a packet of the length its header says, with a right IPv4 header checksum and sane offload metadata.
fn check(out: &Out) {
    if matches!(out, Out::Dropped(_)) {
        return;
    }
    let is_arp =
        matches!(out, Out::Local(_, bytes, _) | Out::Reply(bytes, _) if bytes.get(12..14) == Some(&[8, 6]));
    if is_arp {
        return;
    }
    let packet = out.packet();
    let view = out.ip();
    assert_eq!(view.total_len, packet.len(), "{out:02x?}");
    assert!(view.header_checksum_good);
    if let ChecksumState::Partial { start, offset } = out.offload().checksum {
        assert_eq!(usize::from(start), view.transport_at);
        assert!(usize::from(start + offset) + 2 <= packet.len());
    }
    if let Some(gso) = out.offload().gso {
        assert!(gso.size > 0 && out.offload().checksum != ChecksumState::InPacket);
    }
}

fn walk_everything(hv1: &mut Lab, bytes: &[u8], offload: Offload) {
    let vm1 = Origin::Port(hv1.port("vm1"));
    for origin in [vm1, Origin::Uplink] {
        for out in hv1.walk(origin, bytes, offload) {
            check(&out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), offload in offload()) {
        walk_everything(&mut Lab::new(1), &bytes, offload);
    }

    #[test]
    fn spoiled_packets_are_no_harm(
        seed in any::<prop::sample::Index>(),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        headers in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        offload in offload(),
        plain in any::<bool>(),
    ) {
        let seeds = seeds();
        let mut packet = seed.get(&seeds).clone();
        for (at, byte) in &spoil {
            let at = at.index(packet.len());
            packet[at] = *byte;
        }
        for (at, byte) in &headers {
            let at = at.index(packet.len().min(60));
            packet[at] = *byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()) + 1);
        }
        if packet[0] >> 4 == 4 && packet.len() >= 60 {
            frames::seal_ipv4(&mut packet);
        }
        let offload = if plain { Offload::NONE } else { offload };
        let mut hv1 = Lab::new(1);
        for out in hv1.walk(Origin::Uplink, &packet, offload) {
            check(&out);
        }
        for out in hv1.send_with("vm1", &packet, offload) {
            check(&out);
        }
    }
}

/// The attachment, or the fabric; the bytes; and what is left to finish.
type Out4 = (Option<PortId>, Vec<u8>, Offload);

/// What is copied of a frame, behind the end of which lies something else.
fn copied(bytes: &[u8]) -> [u8; HEAD_LEN] {
    let mut head = [0xa5; HEAD_LEN];
    let len = bytes.len().min(HEAD_LEN);
    head[..len].copy_from_slice(&bytes[..len]);
    head
}

/// What becomes of `frame` from `vm1`, in bytes, after two like `before` went their way and `vm3` became this; `None`: it does not go the same
/// way.
fn retraced(before: &[u8], receiver: Receiver, frame: &Frame<'_>) -> Option<Out4> {
    let lab = &mut Lab::new(1);
    let port = lab.port("vm1");
    let (mut scratch, mut fate) = (Scratch::default(), Fate::Again(Again::Whole));
    for _ in 0..2 {
        let _ = lab.walker.walk(Origin::Port(port), &Frame::whole(before), &mut scratch);
    }
    lab.nve.set_receiver(lab.port("vm3"), receiver);
    *lab.walker.parts().identification = 0x1234;
    let copied = copied(frame.head);
    let mut head = copied;
    let what = (frame.len, frame.offload);
    let track = lab.walker.track(port).filter(|_| frame.offload.is_none());
    if !lab.walker.retrace(port, &mut head, what, (&mut scratch, &mut fate)) {
        assert_eq!((head, &fate), (copied, &Fate::Again(Again::Whole)), "what is left alone is as it was");
        if let Some(track) = track {
            assert_eq!(lab.walker.follow(&track, &mut head, frame.len), None);
            assert_eq!(head, copied, "what is left alone is as it was");
        }
        return None;
    }
    // What follows the track goes the same way, and becomes the same.
    if let (Some(track), Fate::Local(to, rewritten)) = (track, &fate) {
        *lab.walker.parts().identification = 0x1234;
        let mut followed = copied;
        let len = lab.walker.follow(&track, &mut followed, frame.len);
        assert_eq!((track.to(), len, &followed), (*to, Some(rewritten.tail.end), &head));
        // And to the ring that the walk would choose for it.
        let mut question = Question::default();
        lab.walker.classify(Origin::Port(port), frame, &mut question);
        assert_eq!([&copied, &followed].map(|head| track.flow(head)), [question.flow(frame); 2]);
        assert_eq!(track.conversation(&copied), track.conversation(&followed));
    }
    let head =
        [head.get(..frame.len).unwrap_or(&head), frame.head.get(HEAD_LEN..).unwrap_or_default()].concat();
    let (to, rewritten) = match fate {
        Fate::Local(to, rewritten) => (Some(to), rewritten),
        Fate::Uplink(rewritten) => (None, rewritten),
        other => panic!("{other:?}"),
    };
    assert!(!rewritten.more);
    Some((to, [&scratch.head[rewritten.head], &head[rewritten.tail]].concat(), rewritten.offload))
}

/// What becomes of `frame` from `vm1`, in bytes, by the shortcut or by the walk; `None`: the shortcut does not decide it.
fn outcome(lab: &mut Lab, frame: &Frame<'_>, shortcut: bool) -> Option<Result<Out4, String>> {
    let sender = Origin::Port(lab.port("vm1"));
    let (mut scratch, mut fate) = (Scratch::default(), Fate::Again(Again::Whole));
    let mut question = Question::default();
    lab.walker.classify(sender, frame, &mut question);
    *lab.walker.parts().identification = 0x1234;
    if shortcut {
        let walk = lab.walker.parts();
        let here = (walk.world, walk.identification);
        neighbour::decide(walk.nve, here, &question, frame, (&mut scratch, &mut fate)).then_some(())?;
    } else {
        lab.walker.decide_walking(&question, frame, &mut scratch, &mut fate);
    }
    let (to, rewritten) = match fate {
        Fate::Local(to, rewritten) => (Some(to), rewritten),
        Fate::Uplink(rewritten) => (None, rewritten),
        other => return Some(Err(format!("{other:?}"))),
    };
    if rewritten.more {
        return Some(Err("in pieces".into()));
    }
    let bytes = [&scratch.head[rewritten.head], &frame.head[rewritten.tail]].concat();
    Some(Ok((to, bytes, rewritten.offload)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_shortcut_is_what_the_walk_would_do(
        is_tcp in any::<bool>(),
        (is_ipv6, len) in (any::<bool>(), 0..1600_usize),
        (sender, to) in (prop::sample::select(vec![1_u8, 1, 1, 1, 2]), prop::sample::select(vec![2_u8, 3, 3])),
        header in (any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>()),
        spoil in prop::option::weighted(0.5, (0..60_usize, any::<u8>())),
        seal in prop::bool::weighted(0.9),
        left in prop_oneof![Just(0_u8), Just(1), Just(2)],
        size in 1..2000_u16,
        receiver in prop::sample::select(vec![0_usize, 0, 1, 2]),
        arbitrary in prop::option::weighted(0.1, offload()),
        zero in prop::option::weighted(0.2, any::<bool>()),
        kind in prop::option::weighted(0.2, 0..3_usize),
    ) {
        let (hop_limit, traffic_class, identification, dont_fragment) = header;
        let header = Header { hop_limit, traffic_class, identification, dont_fragment };
        let prefix = if is_ipv6 { "2001:db8:b1:e::" } else { "10.1.0." };
        let endpoint = |last: u8, port| socket(&format!("{prefix}{last}"), port);
        let (source, destination) = (endpoint(sender, 5000), endpoint(to, 6000));
        let is_far = to == 2;
        let payload = vec![0x37; len];
        let mut packet = if is_tcp {
            frames::tcp(header, source, destination, frames::flags::ACK, &payload)
        } else {
            frames::udp(header, source, destination, &payload)
        };
        let mut offload = match left {
            0 => Offload::NONE,
            1 => frames::leave_checksum(&mut packet),
            _ => frames::leave_segmentation(&mut packet, size),
        };
        let field = if is_ipv6 { 40 } else { 20 } + if is_tcp { 16 } else { 6 };
        if let Some(all_ones) = zero {
            packet[field..field + 2].fill(if all_ones { 0xff } else { 0 });
        }
        if let (Some(kind), Some(gso)) = (kind, &mut offload.gso) {
            gso.kind = [GsoKind::TcpV4 { ecn: false }, GsoKind::TcpV6 { ecn: false }, GsoKind::UdpL4][kind];
        }
        if let Some((at, byte)) = spoil.filter(|(at, _)| *at < packet.len()) {
            packet[at] = byte;
        }
        offload = arbitrary.unwrap_or(offload);
        if seal && !is_ipv6 && packet[0] & 0xf >= 5 && packet.len() >= 60 {
            frames::seal_ipv4(&mut packet);
        }
        let bytes = frames::ethernet(mac(1), GATEWAY_MAC, &packet);
        let frame = Frame { offload, ..Frame::whole(&bytes) };
        let mut hv1 = Lab::new(1);
        let receiver = [ALL_FEATURES, Receiver { up: true, ..Receiver::default() }, Receiver::default()][receiver];
        hv1.nve.set_receiver(hv1.port("vm3"), receiver);
        let before = frames::ethernet(mac(1), GATEWAY_MAC, &frames::udp(Header::default(), endpoint(1, 7), endpoint(to, 9), &[7; 20]));
        let again = retraced(&before, receiver, &frame);
        if let Some(again) = &again {
            prop_assert_eq!(Some(Ok(again.clone())), outcome(&mut hv1, &frame, false));
        }
        if let Some(short) = outcome(&mut hv1, &frame, true) {
            // The same two, and the same Ethernet header: what is plain goes the same way again, but for large sends.
            let same = spoil.is_none_or(|(at, _)| at >= packet.len());
            prop_assert!(again.is_some() || offload.gso.is_some() || !same || short.is_err(), "not gone again");
            prop_assert_eq!(Some(short), outcome(&mut hv1, &frame, false));
            return Ok(());
        }
        // Only what is not plain is left to the long way.
        let either_zero = !is_ipv6 && matches!(packet[field..field + 2], [0, 0] | [0xff, 0xff]);
        let spoiled = kind.is_some() || spoil.is_some() || arbitrary.is_some() || !seal;
        let fits = if left == 2 { size <= 1000 } else { packet.len() <= if is_ipv6 { 1500 } else { 1480 } };
        let none = !is_tcp && zero == Some(false) && left == 0 && !is_far;
        let takes = is_far || receiver == ALL_FEATURES || receiver.up && left == 0;
        // Datagrams of no more than there is, and no more of them than a kernel takes.
        let cut = is_tcp || left < 2 || (usize::from(size) <= len && len <= 128 * usize::from(size));
        let fits = fits && cut;
        let fits = if is_far { left == 0 && packet.len() <= if is_ipv6 { 1280 } else { 1252 } } else { fits };
        let is_plain = !spoiled && (!either_zero || none) && fits && hop_limit > 0 && sender == 1 && takes;
        prop_assert!(!is_plain, "left to the long way");
    }
}

/// A datagram of `vm1` to `vm3`, from and to this port.
fn datagram(ports: (u16, u16), family: usize) -> Vec<u8> {
    let prefix = ["10.1.0.", "2001:db8:b1:e::"][family];
    let endpoint = |last: u8, port| socket(&format!("{prefix}{last}"), port);
    let packet = frames::udp(Header::default(), endpoint(1, ports.0), endpoint(3, ports.1), &[7; 20]);
    frames::ethernet(mac(1), GATEWAY_MAC, &packet)
}

#[test]
fn a_way_is_not_gone_again_once_its_end_has_moved() {
    for family in [0, 1] {
        let before = datagram((7, 9), family);
        let frame = Frame::whole(&before);
        assert!(retraced(&before, ALL_FEATURES, &frame).is_some(), "as long as nothing changes");

        let mut hv1 = Lab::new(1);
        let port = hv1.port("vm1");
        let retrace = |hv1: &mut Lab, now| {
            hv1.walker.begin(Duration::from_secs(now));
            let (mut scratch, mut fate) = (Scratch::default(), Fate::Again(Again::Whole));
            let mut head = copied(&before);
            let gone =
                hv1.walker.retrace(port, &mut head, (before.len(), Offload::NONE), (&mut scratch, &mut fate));
            for _ in 0..2 {
                let _ = hv1.walker.walk(Origin::Port(port), &frame, &mut scratch);
            }
            gone
        };
        assert!(!retrace(&mut hv1, 1), "it has not been gone yet");
        assert!(retrace(&mut hv1, 2));
        let mut question = Question::default();
        hv1.walker.classify(Origin::Port(port), &frame, &mut question);
        let target = hv1.nve.table.remove(question.key.unwrap()).unwrap();
        assert!(!retrace(&mut hv1, 3), "its end is nowhere");
        hv1.nve.table.insert(question.key.unwrap(), target).unwrap();
        assert!(!retrace(&mut hv1, 4), "nobody has looked where it is now");
        assert!(retrace(&mut hv1, 5));
        hv1.nve.world.change(hv1.nve.world().as_ref().clone());
        assert!(!retrace(&mut hv1, 6), "the world is another");
    }
}

#[test]
fn a_server_that_the_gateway_alone_may_be_is_refused_behind_a_harmless_packet_as_well() {
    for (family, client) in [(0, 68), (1, 546)] {
        let (before, rogue) = (datagram((7, 9), family), datagram((67, client), family));
        assert!(retraced(&before, ALL_FEATURES, &Frame::whole(&rogue)).is_none());
        assert!(retraced(&before, ALL_FEATURES, &Frame::whole(&datagram((67, 9), family))).is_some());
    }
}
