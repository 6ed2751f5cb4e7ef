//! Frames whose sender's half of the way to the fabric is kept: they leave as by the walk, byte for byte, wherever they go.

use proptest::prelude::*;

use super::*;
use crate::packet::HEAD_LEN;

/// A frame from vm1.
fn framed(packet: &[u8]) -> Vec<u8> {
    frames::ethernet(mac(1), GATEWAY_MAC, packet)
}

/// A datagram from vm1.
fn datagram(to: &str, ports: (u16, u16)) -> Vec<u8> {
    framed(&frames::udp(Header::default(), socket("10.1.0.1", ports.0), socket(to, ports.1), &[7; 20]))
}

/// Two frames of vm1 to vm2 have gone the ordinary way.
fn after_two(lab: &mut Lab) {
    let port = Origin::Port(lab.port("vm1"));
    for _ in 0..2 {
        let frame = datagram("10.1.0.2", (7, 9));
        let _ = lab.walker.walk(port, &Frame::whole(&frame), &mut Scratch::default());
    }
}

/// The packet that leaves by what is kept; `None`: it does not.
fn left(lab: &mut Lab, frame: &[u8]) -> Option<Vec<u8>> {
    let outbound = lab.walker.outbound(lab.port("vm1"))?;
    let mut bytes = [0xa5; ROOM + HEAD_LEN];
    let copied = frame.len().min(HEAD_LEN);
    bytes[ROOM..ROOM + copied].copy_from_slice(&frame[..copied]);
    let before = bytes;
    let mut asked = lab.walker.ask(&outbound, bytes.last_chunk().unwrap(), frame.len())?;
    assert_ne!(lab.walker.line_of(&asked), 0);
    if frame.len().is_multiple_of(2) {
        lab.walker.look(&mut asked);
    }
    let Some(len) = lab.walker.leave(&outbound, &asked, &mut bytes) else {
        assert_eq!(bytes, before, "what is left alone is as it was");
        return None;
    };
    let known = bytes.len().min(ETHERNET_LEN + len);
    let behind = frame.get(HEAD_LEN..).unwrap_or_default();
    Some([&bytes[ETHERNET_LEN..known], &behind[..ETHERNET_LEN + len - known]].concat())
}

/// The packet that leaves by the walk, or what else becomes of it.
fn walked(lab: &mut Lab, frame: &[u8]) -> Result<Vec<u8>, String> {
    let (mut scratch, mut fate) = (Scratch::default(), Fate::Again(Again::Whole));
    let mut question = Question::default();
    let frame = Frame::whole(frame);
    lab.walker.classify(Origin::Port(lab.port("vm1")), &frame, &mut question);
    lab.walker.decide_walking(&question, &frame, &mut scratch, &mut fate);
    match fate {
        Fate::Uplink(r) if !r.more && r.offload == Offload::NONE => {
            Ok([&scratch.head[r.head], &frame.head[r.tail]].concat())
        }
        other => Err(format!("{other:?}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn whoever_it_is_for_a_frame_leaves_as_the_walk_would_have_it(
        is_tcp in any::<bool>(),
        len in 0..1600_usize,
        (sender, to) in prop::sample::select(vec![
            ("10.1.0.1", "10.1.0.2"), ("10.1.0.1", "10.1.0.2"), ("10.1.0.1", "10.1.0.2"), ("10.1.0.1", "10.1.0.4"),
            ("10.1.0.1", "10.1.255.255"), ("10.1.0.1", "10.1.0.3"), ("10.1.0.1", "10.1.0.99"), ("10.1.0.1", "10.1.255.254"),
            ("10.1.0.1", "8.8.8.8"), ("10.1.0.1", "10.1.0.0"), ("10.1.0.3", "10.1.0.2"), ("127.0.0.1", "10.1.0.2"),
        ]),
        (hop_limit, traffic_class, identification, dont_fragment) in (any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>()),
        spoil in prop::option::weighted(0.5, (0..60_usize, any::<u8>())),
        mac_of in prop::sample::select(vec![1_u8, 1, 1, 3]),
        seal in prop::bool::weighted(0.9),
        zero in prop::option::weighted(0.2, any::<bool>()),
        padded in 0..10_usize,
        router_hops in any::<bool>(),
    ) {
        let mut setup = setup(1, ChecksumMode::Neutral);
        setup.uplink_hops = u8::from(router_hops);
        let further = setup::Mapping { network: "blue".into(), address: addr("10.1.0.4"), locator: locator(7) };
        setup.mappings.push(further);
        let mut hv1 = Lab::of(setup);
        let header = Header { hop_limit, traffic_class, identification, dont_fragment };
        let (source, destination) = (socket(sender, 5000), socket(to, 6000));
        let payload = vec![0x37; len];
        let mut packet = if is_tcp {
            frames::tcp(header, source, destination, frames::flags::ACK, &payload)
        } else {
            frames::udp(header, source, destination, &payload)
        };
        let field = 20 + if is_tcp { 16 } else { 6 };
        if let Some(all_ones) = zero {
            packet[field..field + 2].fill(if all_ones { 0xff } else { 0 });
        }
        if let Some((at, byte)) = spoil.filter(|(at, _)| *at < packet.len()) {
            packet[at] = byte;
        }
        if seal && packet[0] & 0xf >= 5 && packet.len() >= 60 {
            frames::seal_ipv4(&mut packet);
        }
        let mut frame = frames::ethernet(mac(mac_of), GATEWAY_MAC, &packet);
        frame.extend(vec![0xee; padded]);
        after_two(&mut hv1);
        if let Some(left) = left(&mut hv1, &frame) {
            prop_assert_eq!(Ok(left), walked(&mut hv1, &frame));
            return Ok(());
        }
        let fits = packet.len() + 20 <= 1280;
        let known = matches!(to, "10.1.0.2" | "10.1.0.4") && sender == "10.1.0.1" && mac_of == 1;
        let spoiled = spoil.is_some() || !seal || zero.is_some();
        prop_assert!(!(fits && known && !spoiled && hop_limit > 0), "left to the others");
    }
}

#[test]
fn where_a_packet_goes_is_looked_up_each_time() {
    let mut hv1 = Lab::new(1);
    after_two(&mut hv1);
    let frame = datagram("10.1.0.2", (7, 9));
    let key = {
        let world = hv1.nve.world();
        let network = world.networks().find(|network| network.name == "blue").unwrap();
        crate::policy::key_in(network, addr("10.1.0.2")).unwrap()
    };
    let to_host = |packet: Vec<u8>| packet[31];
    assert_eq!(left(&mut hv1, &frame).map(to_host), Some(2));
    let target = hv1.nve.table.remove(key).unwrap();
    hv1.walker.begin(Duration::from_secs(2));
    assert_eq!(left(&mut hv1, &frame), None, "it lives nowhere");
    let port = hv1.port("vm3");
    hv1.nve.table.insert(key, crate::tables::Target::Local(port)).unwrap();
    assert_eq!(left(&mut hv1, &frame), None, "it lives here");
    hv1.nve.table.insert(key, target).unwrap();
    assert_eq!(left(&mut hv1, &frame).map(to_host), Some(2), "changed mappings take nothing from its sender");
}

#[test]
fn whoever_lies_behind_a_full_line_of_the_table_is_found_as_well() {
    let mut hv1 = Lab::new(1);
    let keys4 = hv1.nve.world().networks().find(|network| network.name == "blue").unwrap().keys4;
    let target = hv1.nve.table.get(keys4.of(0x0a01_0002)).unwrap();
    let others = || 0x0a01_0100..0x0a01_0100 + 90;
    for address in others() {
        hv1.nve.table.insert(keys4.of(address), target).unwrap();
    }
    after_two(&mut hv1);
    let mut behind = 0;
    for address in others() {
        let (key, to) = (keys4.of(address), core::net::Ipv4Addr::from_bits(address).to_string());
        let place = hv1.nve.table.look(hv1.nve.table.bucket_of(key), key);
        behind += u32::from(matches!(place, crate::tables::Place::Behind(_)));
        // Of an even length, and of an odd one: looked at ahead, and not.
        for len in [20, 21] {
            let frame = framed(&udp("10.1.0.1", &to, len));
            let packet = left(&mut hv1, &frame);
            assert!(packet.is_some());
            assert_eq!(packet, walked(&mut hv1, &frame).ok());
        }
    }
    assert!(behind > 0, "some are in a second line");
}

#[test]
fn a_sender_is_judged_anew_once_the_world_has_changed() {
    let mut hv1 = Lab::new(1);
    let frame = datagram("10.1.0.2", (7, 9));
    assert_eq!(left(&mut hv1, &frame), None, "nobody has sent yet");
    after_two(&mut hv1);
    assert!(left(&mut hv1, &frame).is_some());
    hv1.nve.world.change(hv1.nve.world().as_ref().clone());
    hv1.walker.begin(Duration::from_secs(2));
    assert_eq!(left(&mut hv1, &frame), None);
    after_two(&mut hv1);
    assert!(left(&mut hv1, &frame).is_some());
}

#[test]
fn a_server_that_the_gateway_alone_may_be_does_not_leave_behind_a_harmless_frame() {
    let mut hv1 = Lab::new(1);
    after_two(&mut hv1);
    assert_eq!(left(&mut hv1, &datagram("10.1.0.2", (67, 68))), None);
    assert!(left(&mut hv1, &datagram("10.1.0.2", (68, 67))).is_some());
}

#[test]
fn a_guest_with_two_addresses_uses_both() {
    let mut setup = setup(1, ChecksumMode::Neutral);
    setup.attachments[0].addresses.push(addr("10.1.0.7"));
    let mut hv1 = Lab::of(setup);
    let vm1 = Origin::Port(hv1.port("vm1"));
    let frame = |source: &str| framed(&udp(source, "10.1.0.2", 20));
    for source in ["10.1.0.7", "10.1.0.1"] {
        for _ in 0..2 {
            assert_eq!(left(&mut hv1, &frame(source)), None, "the other's half is kept");
            let frame = frame(source);
            let _ = hv1.walker.walk(vm1, &Frame::whole(&frame), &mut Scratch::default());
        }
        let packet = left(&mut hv1, &frame(source));
        assert_eq!(packet, walked(&mut hv1, &frame(source)).ok());
        assert!(packet.is_some());
    }
}
