use super::*;

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const ROUTER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xfe]);
const STRANGER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x66]);

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn locator() -> Locator {
    "2001:db8:0:1::/64".parse().unwrap()
}

/// Ours, attached, with a router to be asked for.
fn link() -> Link {
    let mut link = Link::new(MAC, [locator()], NextHop::Router(address("fe80::1")));
    link.up(at(0));
    link
}

/// What another station of the link says.
fn says(from: EthernetAddress, source: &str, to: (EthernetAddress, &str), message: NdiscRepr<'_>) -> Vec<u8> {
    let other = Link::new(from, ["2001:db8:0:9::/64".parse().unwrap()], NextHop::Station(MAC));
    let mut frame = vec![0; ANSWER_LEN];
    let len = other.emit(to.0, (address(source), address(to.1)), message, &mut frame).unwrap();
    frame.truncate(len);
    frame
}

fn solicits(target: &str) -> Vec<u8> {
    let message = NdiscRepr::NeighborSolicit { target_addr: address(target), lladdr: Some(STRANGER.into()) };
    let (group, mac) = solicited_node(address(target));
    says(STRANGER, "fe80::66", (mac, &group.to_string()), message)
}

fn advertises(mac: EthernetAddress, target: &str, flags: NdiscNeighborFlags) -> Vec<u8> {
    let message = NdiscRepr::NeighborAdvert { flags, target_addr: address(target), lladdr: Some(mac.into()) };
    says(mac, target, (MAC, &link_local(MAC).to_string()), message)
}

fn both() -> NdiscNeighborFlags {
    NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE
}

/// What the frame brings about.
fn hear(link: &mut Link, now: u64, frame: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
    assert_eq!(link.take(frame), Taken::Discovery);
    let mut out = [0; ANSWER_LEN];
    link.hear(at(now), frame, &mut out).map(|len| len.map(|len| out[..len].to_vec()))
}

/// What the link asks at `now`: to which MAC and address, about whom.
fn asks(link: &mut Link, now: u64) -> Option<(EthernetAddress, Ipv6Addr, Ipv6Addr)> {
    let mut out = [0; ANSWER_LEN];
    let len = link.tick(at(now), &mut out)?;
    let frame = EthernetFrame::new_checked(&out[..len]).unwrap();
    let ip = Ipv6Packet::new_checked(frame.payload()).unwrap();
    assert_eq!((frame.src_addr(), ip.src_addr(), ip.hop_limit()), (MAC, link_local(MAC), 255));
    let message = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    assert!(message.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
    match NdiscRepr::parse(&message).unwrap() {
        NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
            assert_eq!(lladdr, Some(MAC.into()));
            Some((frame.dst_addr(), ip.dst_addr(), target_addr))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_without_a_mac_gets_a_local_one_of_its_locator() {
    assert_eq!(default_mac(locator()), EthernetAddress([2, 0xb8, 0, 0, 0, 1]));
    assert_eq!(link_local(EthernetAddress([0x02, 0xb8, 0, 0, 0, 1])), address("fe80::b8:ff:fe00:1"));
}

#[test]
fn the_next_hop_is_asked_for_each_second_until_it_answers() {
    let mut link = link();
    let (group, mac) = (address("ff02::1:ff00:1"), EthernetAddress([0x33, 0x33, 0xff, 0, 0, 1]));
    for now in 0..9 {
        assert_eq!(asks(&mut link, now), Some((mac, group, address("fe80::1"))));
        assert_eq!((asks(&mut link, now), link.header()), (None, None));
    }
    assert_eq!(hear(&mut link, 9, &advertises(ROUTER, "fe80::1", both())), Ok(None));
    let header = [&ROUTER.0[..], &MAC.0, &[0x86, 0xdd]].concat();
    assert_eq!(link.header().map(|header| &header[..]), Some(&header[..]));
    assert_eq!((asks(&mut link, 38), link.until_tick(at(38))), (None, Some(at(1))));
}

#[test]
fn a_next_hop_that_is_silent_is_asked_three_times_and_then_forgotten() {
    let mut link = link();
    hear(&mut link, 0, &advertises(ROUTER, "fe80::1", both())).unwrap();
    for now in 30..33 {
        assert_eq!(asks(&mut link, now), Some((ROUTER, address("fe80::1"), address("fe80::1"))));
        assert!(link.header().is_some(), "used while it is doubted");
    }
    assert!(asks(&mut link, 33).is_some_and(|(_, to, _)| to == address("ff02::1:ff00:1")));
    assert_eq!(link.header(), None);
    hear(&mut link, 34, &advertises(STRANGER, "fe80::1", both())).unwrap();
    assert_eq!(link.header().unwrap()[..6], STRANGER.0, "another machine has taken its place");
}

#[test]
fn a_link_that_comes_back_uses_what_it_knew_and_asks_at_once() {
    let mut link = link();
    hear(&mut link, 0, &advertises(ROUTER, "fe80::1", both())).unwrap();
    link.down();
    assert_eq!((link.header(), link.until_tick(at(5))), (None, None));
    link.up(at(10));
    assert!(link.header().is_some());
    assert_eq!(asks(&mut link, 10).map(|(mac, ..)| mac), Some(ROUTER));
}

#[test]
fn a_configured_station_needs_no_asking_and_believes_nobody() {
    let mut link = Link::new(MAC, [locator()], NextHop::Station(ROUTER));
    link.up(at(0));
    assert_eq!((asks(&mut link, 100), link.header().unwrap()[..6].to_vec()), (None, ROUTER.0.to_vec()));
    let frame = advertises(STRANGER, "fe80::1", both());
    assert_eq!(hear(&mut link, 1, &frame), Err(DropReason::NdUnanswered));
    assert_eq!(link.header().unwrap()[..6], ROUTER.0);
}

#[test]
fn whoever_asks_for_our_addresses_is_answered_and_for_no_others() {
    let mut link = link();
    let ours = link_local(MAC).to_string();
    for target in [&*ours, "2001:db8:0:1::1", "2001:db8:0:1:4000:3e9:a01:1"] {
        let answer = hear(&mut link, 0, &solicits(target)).unwrap().unwrap();
        let frame = EthernetFrame::new_checked(&answer[..]).unwrap();
        let ip = Ipv6Packet::new_checked(frame.payload()).unwrap();
        assert_eq!((frame.dst_addr(), ip.dst_addr()), (STRANGER, address("fe80::66")), "{target}");
        let message = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        assert!(message.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
        let NdiscRepr::NeighborAdvert { target_addr, lladdr, .. } = NdiscRepr::parse(&message).unwrap()
        else {
            panic!("{target}: {message:?}")
        };
        assert_eq!((target_addr, lladdr), (address(target), Some(MAC.into())));
    }
    for target in ["fe80::1", "2001:db8:51::1", "2001:db8:0:2::1"] {
        assert_eq!(hear(&mut link, 0, &solicits(target)), Err(DropReason::NdUnanswered), "{target}");
    }
}

#[test]
fn whoever_probes_for_our_address_hears_that_it_is_taken() {
    let message = NdiscRepr::NeighborSolicit { target_addr: link_local(MAC), lladdr: None };
    let (group, mac) = solicited_node(link_local(MAC));
    let frame = says(STRANGER, "::", (mac, &group.to_string()), message);
    let answer = hear(&mut link(), 0, &frame).unwrap().unwrap();
    assert_eq!((&answer[..6], &answer[38..54]), (&[0x33, 0x33, 0, 0, 0, 1][..], &ALL_NODES.octets()[..]));
}

#[test]
fn nobody_but_the_next_hop_on_this_link_says_which_mac_it_has() {
    let mut router = advertises(ROUTER, "fe80::1", both());
    let mut spoiled = router.clone();
    *spoiled.last_mut().unwrap() ^= 1;
    router[21] = 64;
    for (frame, reason) in [
        (advertises(STRANGER, "fe80::66", both()), DropReason::NdUnanswered),
        (advertises(EthernetAddress([3, 0, 0, 0, 0, 1]), "fe80::1", both()), DropReason::Malformed),
        (spoiled, DropReason::BadChecksum),
        (router, DropReason::NdHopLimit),
    ] {
        let mut link = link();
        assert_eq!((hear(&mut link, 0, &frame), link.header()), (Err(reason), None));
        assert_eq!(hear(&mut link, 0, &advertises(ROUTER, "fe80::1", both())), Ok(None), "control");
    }
    let mut link = link();
    hear(&mut link, 0, &advertises(ROUTER, "fe80::1", both())).unwrap();
    let modest = advertises(STRANGER, "fe80::1", NdiscNeighborFlags::empty());
    assert_eq!(hear(&mut link, 1, &modest), Err(DropReason::NdUnanswered), "it does not override");
}

#[test]
fn frames_are_told_apart_by_their_station_and_by_what_they_are() {
    let link = link();
    let frame = |mac: EthernetAddress, kind: [u8; 2], to: &str, next: u8, hops: u8, first: u8| {
        let mut frame = [&mac.0[..], &ROUTER.0, &kind, &[0x60, 0, 0, 0, 0, 1, next, hops]].concat();
        frame.extend(address("2001:db8::1").octets());
        frame.extend(address(to).octets());
        frame.push(first);
        frame
    };
    const IPV6: [u8; 2] = [0x86, 0xdd];
    let (ours, group) = ("2001:db8:0:1::1", EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
    for (frame, wanted) in [
        (frame(MAC, IPV6, ours, 17, 64, 0), Taken::Packet),
        (frame(MAC, IPV6, ours, 17, 255, 135), Taken::Packet),
        (frame(MAC, IPV6, ours, 58, 255, 128), Taken::Packet),
        (frame(MAC, IPV6, ours, 58, 64, 135), Taken::Packet),
        (frame(MAC, IPV6, ours, 58, 255, 135), Taken::Discovery),
        (frame(group, IPV6, "ff02::1", 58, 255, 136), Taken::Discovery),
        (frame(group, IPV6, "ff02::1", 17, 255, 136), Taken::Refused(DropReason::ForeignMac)),
        (frame(STRANGER, IPV6, ours, 17, 64, 0), Taken::Refused(DropReason::ForeignMac)),
        (frame(EthernetAddress::BROADCAST, [8, 6], ours, 17, 64, 0), Taken::Refused(DropReason::ForeignMac)),
        (frame(MAC, [8, 0], ours, 17, 64, 0), Taken::Refused(DropReason::EtherType)),
    ] {
        assert_eq!(link.take(&frame), wanted, "{frame:x?}");
    }
    assert_eq!(link.take(&[]), Taken::Refused(DropReason::Malformed));
    let short = frame(MAC, IPV6, ours, 17, 64, 0);
    assert_eq!(link.take(&short[..50]), Taken::Refused(DropReason::Malformed));
}

#[test]
fn no_bytes_whatsoever_make_it_fail() {
    let frames = [solicits("2001:db8:0:1::1"), advertises(ROUTER, "fe80::1", both())];
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..200_000 {
        let mut frame = frames[random() % 2].clone();
        for _ in 0..random() % 4 {
            let at = random() % frame.len();
            frame[at] = random() as u8;
        }
        frame.truncate(random() % (frame.len() + 1));
        let mut link = link();
        let _ = link.take(&frame);
        let _ = link.hear(at(0), &frame, &mut [0; ANSWER_LEN]);
    }
}
