//! Packets from the fabric that go a way which was gone before: the same as by the walk, byte for byte.

use proptest::prelude::*;

use super::totality::offload;
use super::*;
use crate::packet::Gso;

/// Where it goes, its bytes, and what is left to finish.
type Arrived = (PortId, Vec<u8>, Offload);

const FAMILIES: [[&str; 3]; 2] =
    [["10.1.0.1", "10.1.0.2", "10.1.0.3"], ["2001:db8:b1:e::1", "2001:db8:b1:e::2", "2001:db8:b1:e::3"]];

/// As a guest of host 2 is called on the wire, and one of host 1.
fn ends(family: usize, from: usize, to: usize) -> (IpAddr, IpAddr) {
    let called = FAMILIES[family][from];
    (if family == 0 { sir_of(called) } else { addr(called) }, ila_of(1, FAMILIES[family][to]))
}

/// A datagram from vm2 to vm1.
fn datagram(family: usize, ports: (u16, u16)) -> Vec<u8> {
    let (from, to) = ends(family, 1, 0);
    let (from, to) = (SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1));
    frames::udp(Header::default(), from, to, &[7; 20])
}

/// Two like `before` have come the ordinary way.
fn after(lab: &mut Lab, before: &[u8]) {
    for _ in 0..2 {
        let _ = lab.walker.walk(Origin::Uplink, &Frame::whole(before), &mut Scratch::default());
    }
}

fn arrived(fate: Fate, scratch: &Scratch, packet: &Frame<'_>) -> Result<Arrived, String> {
    match fate {
        Fate::Local(port, r) if !r.more => {
            Ok((port, [&scratch.head[r.head], &packet.head[r.tail]].concat(), r.offload))
        }
        other => Err(format!("{other:?}")),
    }
}

/// What becomes of `packet` by a way that was kept; `None`: there is none for it.
fn retraced(lab: &mut Lab, packet: &Frame<'_>) -> Option<Arrived> {
    let (mut scratch, mut fate) = (Scratch::default(), Fate::Again(Again::Whole));
    *lab.walker.parts().identification = 0x1234;
    let gone = lab.walker.retrace_homeward(packet, (&mut scratch, &mut fate));
    assert!(gone || (fate == Fate::Again(Again::Whole) && *lab.walker.parts().identification == 0x1234));
    gone.then(|| arrived(fate, &scratch, packet).expect("to an attachment"))
}

/// The same by the walk.
fn walked(lab: &mut Lab, packet: &Frame<'_>) -> Result<Arrived, String> {
    let (mut scratch, mut fate) = (Scratch::default(), Fate::Again(Again::Whole));
    let mut question = Question::default();
    lab.walker.classify(Origin::Uplink, packet, &mut question);
    *lab.walker.parts().identification = 0x1234;
    lab.walker.decide_walking(&question, packet, &mut scratch, &mut fate);
    arrived(fate, &scratch, packet)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_way_from_the_fabric_leads_where_the_walk_would(
        (is_tcp, family, unmodified) in (any::<bool>(), 0..2_usize, any::<bool>()),
        len in 0..1600_usize,
        (hop_limit, traffic_class) in (any::<u8>(), any::<u8>()),
        spoil in prop::option::weighted(0.5, (0..70_usize, any::<u8>())),
        other in prop::option::weighted(0.1, Just(2_usize)),
        left in 0..3_usize,
        size in 1..2000_u16,
        arbitrary in prop::option::weighted(0.1, offload()),
        zero in prop::option::weighted(0.2, any::<bool>()),
        receiver in prop::sample::select(vec![0_usize, 0, 1, 2]),
        padded in 0..10_usize,
    ) {
        let mut setup = setup(1, ChecksumMode::Neutral);
        setup.uplink_hops = u8::from(len % 2 == 0);
        let mut hv1 = Lab::of(setup);
        let (from, mut to) = ends(family, 1, other.unwrap_or(0));
        if let (true, IpAddr::V6(neutral)) = (unmodified, to) {
            // C = 0: the low word is the receiver's own. (Nobody looks whether the checksum is right.)
            let low = u128::from(neutral.to_bits() as u64 & !(1 << 60) & !0xffff);
            let known = if other.is_some() { 3 } else { 1 };
            to = Ipv6Addr::from_bits(neutral.to_bits() >> 64 << 64 | low | known).into();
        }
        let header = Header { hop_limit, traffic_class, ..Header::default() };
        let (source, destination) = (SocketAddr::new(from, 5000), SocketAddr::new(to, 6000));
        let payload = vec![0x37; len];
        let mut packet = if is_tcp {
            frames::tcp(header, source, destination, frames::flags::ACK, &payload)
        } else {
            frames::udp(header, source, destination, &payload)
        };
        let offload = match left {
            0 => Offload::NONE,
            1 => frames::leave_checksum(&mut packet),
            _ => frames::leave_segmentation(&mut packet, size),
        };
        let offload = arbitrary.unwrap_or(offload);
        let field = 40 + if is_tcp { 16 } else { 6 };
        if let Some(all_ones) = zero {
            packet[field..field + 2].fill(if all_ones { 0xff } else { 0 });
        }
        if let Some((at, byte)) = spoil.filter(|(at, _)| *at < packet.len()) {
            packet[at] = byte;
        }
        packet.extend(vec![0xee; padded]);
        // As the way that was kept is between the addresses of this very packet, they are whatever it has.
        let before = frames::udp(Header::default(), SocketAddr::new(from, 7), SocketAddr::new(to, 9), &[7; 20]);
        after(&mut hv1, &before);
        let receiver =
            [ALL_FEATURES, Receiver { up: true, ..Receiver::default() }, Receiver::default()][receiver];
        hv1.nve.set_receiver(hv1.port("vm1"), receiver);
        hv1.nve.set_receiver(hv1.port("vm3"), receiver);
        let frame = Frame { offload, ..Frame::whole(&packet) };
        let again = retraced(&mut hv1, &frame);
        let outcome = walked(&mut hv1, &frame);
        if let Some(again) = again {
            prop_assert_eq!(Ok(again), outcome);
            return Ok(());
        }
        // Only what is not plain is left to the walk.
        let spoiled = spoil.is_some() || arbitrary.is_some() || zero.is_some();
        let fits = family == 1 || packet.len() <= 1500;
        let plain = !spoiled && fits && hop_limit > 0 && left == 0 && receiver.up;
        prop_assert!(!plain, "left to the walk: {:?}", outcome);
    }

    /// Whatever comes behind packets that are kept in mind, it is as if they had not been.
    #[test]
    fn trains_of_many_are_told_apart(order in prop::collection::vec((0..2_usize, 0..2_usize, any::<bool>()), 1..60)) {
        let (mut hv1, mut fresh) = (Lab::new(1), Lab::new(1));
        for (family, to, is_long) in order {
            let (from, to) = ends(family, 1, 2 * to);
            let len = if is_long { 1000 } else { 10 };
            let packet = frames::udp(Header::default(), SocketAddr::new(from, 7), SocketAddr::new(to, 9), &vec![7; len]);
            let frame = Frame::whole(&packet);
            let outcome = walked(&mut fresh, &frame).expect("they are all let in");
            match retraced(&mut hv1, &frame) {
                Some(again) => prop_assert_eq!(again, outcome),
                None => {
                    let _ = hv1.walker.walk(Origin::Uplink, &frame, &mut Scratch::default());
                }
            }
        }
    }
}

#[test]
fn a_super_packet_from_the_fabric_goes_its_way_again_as_it_is() {
    let (from, to) = ends(1, 1, 0);
    let (from, to) = (SocketAddr::new(from, 5000), SocketAddr::new(to, 6000));
    let mut packet = frames::tcp(Header::default(), from, to, frames::flags::ACK, &[7; 9000]);
    let offload = frames::leave_segmentation(&mut packet, 1400);
    let mut hv1 = Lab::new(1);
    after(&mut hv1, &datagram(1, (5000, 6000)));
    let frame = Frame { offload, ..Frame::whole(&packet) };
    let (_, bytes, left) = retraced(&mut hv1, &frame).expect("it is plain");
    assert_eq!((bytes.len(), left.gso.map(|Gso { size, .. }| size)), (14 + packet.len(), Some(1400)));
}

#[test]
fn a_way_from_the_fabric_is_not_gone_again_once_either_end_has_moved() {
    for family in [0, 1] {
        let packet = datagram(family, (7, 9));
        let frame = Frame::whole(&packet);
        let mut hv1 = Lab::new(1);
        let mut now = 1;
        let mut turn = |hv1: &mut Lab| {
            now += 1;
            hv1.walker.begin(Duration::from_secs(now));
            let gone = retraced(hv1, &frame).is_some();
            after(hv1, &packet);
            gone
        };
        assert!(!turn(&mut hv1), "it has not been gone yet");
        assert!(turn(&mut hv1), "as long as nothing changes");
        for end in [0, 1] {
            let key = key_of(&hv1, FAMILIES[family][end]);
            let target = hv1.nve.table.remove(key).unwrap();
            assert!(!turn(&mut hv1), "an end is nowhere");
            assert!(!turn(&mut hv1), "what was dropped has shown no way");
            hv1.nve.table.insert(key, target).unwrap();
            assert!(!turn(&mut hv1), "nobody has looked where it is now");
            assert!(turn(&mut hv1));
        }
        hv1.nve.world.change(hv1.nve.world().as_ref().clone());
        assert!(!turn(&mut hv1), "the world is another");
        assert!(turn(&mut hv1));
    }
}

fn key_of(lab: &Lab, address: &str) -> crate::addr::Key {
    let world = lab.nve.world();
    let network = world.networks().find(|network| network.name == "blue").unwrap();
    crate::policy::key_in(network, addr(address)).unwrap()
}

#[test]
fn a_server_that_the_gateway_alone_may_be_is_refused_behind_harmless_packets_of_the_fabric() {
    for (family, client) in [(0, 68), (1, 546)] {
        let mut hv1 = Lab::new(1);
        after(&mut hv1, &datagram(family, (7, 9)));
        assert!(retraced(&mut hv1, &Frame::whole(&datagram(family, (67, client)))).is_none());
        assert!(retraced(&mut hv1, &Frame::whole(&datagram(family, (67, 9)))).is_some());
    }
}

#[test]
fn what_a_router_would_have_to_know_is_looked_up_each_time() {
    let mut setup = setup(1, ChecksumMode::Neutral);
    setup.mappings.clear();
    setup.host.unknown = setup::Unknown::Router;
    let mut hv1 = Lab::of(setup);
    let packet = datagram(1, (7, 9));
    after(&mut hv1, &packet);
    let frame = Frame::whole(&packet);
    assert!(walked(&mut hv1, &frame).is_ok(), "its source may live anywhere");
    assert!(retraced(&mut hv1, &frame).is_none());
}
