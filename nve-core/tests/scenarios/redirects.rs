//! The triangle through an ILA router, and the straight line after its redirect (draft, section 4.6).
//!
//! ```text
//!   hv1: the router, knows all      hv2: vm1, asks the router      hv3: vm2
//!   (the fabric routes SIR and VNETs to the first host)
//! ```

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use nve_core::DropReason;
use nve_core::addr::ChecksumMode::{self, Neutral, Unmodified};
use nve_core::addr::{Identifier, Locator, SirPrefix, Vnid};
use nve_core::packet::Offload;
use nve_core::redirect::{Key, KeyId, Keys, Message, Outcome, PORT, Policy};
use nve_core::testkit::dissect::Dissected;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Plan, Sends, World};

use crate::{VM1, VM2, endpoint};

const LIFETIME: Duration = Duration::from_secs(120);

fn policy(secret: u8) -> Policy {
    Policy {
        keys: Keys::new(vec![Key::new(KeyId(1), &[secret; 32]).expect("32 bytes")]),
        accept: true,
        send: true,
        lifetime: LIFETIME,
        ..Policy::default()
    }
}

/// As in the picture; neither guest's host knows of the other guest if `both`.
fn plan(checksum: ChecksumMode, both: bool) -> Plan {
    let plan = Plan::new(1)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .host_in("hv1", checksum)
        .host_in("hv2", checksum)
        .asking_the_router()
        .host_in("hv3", checksum);
    let plan = VM2.iter().fold(plan, |plan, address| plan.without_mapping("hv2", address));
    if !both {
        return plan;
    }
    VM1.iter().fold(plan.asking_the_router(), |plan, address| plan.without_mapping("hv3", address))
}

fn with_guests(plan: Plan) -> World {
    plan.guest(GuestPlan::new("vm1", "hv2", "blue", &VM1))
        .guest(GuestPlan::new("vm2", "hv3", "blue", &VM2))
        .start()
}

/// The router tells, the others listen.
fn redirecting(world: &mut World) {
    for host in ["hv1", "hv2", "hv3"] {
        world.redirects(host, policy(7));
    }
}

/// Tenants' packets that the router has put on its link since `mark`.
fn passed_on(world: &World, mark: usize) -> usize {
    let control =
        |address: IpAddr| address.to_string().ends_with("::1") && !address.to_string().contains("b1:e");
    let sent = world.sent_on_link("hv1", mark);
    sent.iter().filter(|record| record.ip().is_some_and(|ip| !control(ip.source))).count()
}

#[test]
fn the_first_packets_take_the_triangle_and_the_others_the_straight_line() {
    for (checksum, both) in [(Neutral, false), (Neutral, true), (Unmodified, true)] {
        for address in VM2 {
            let mut world = with_guests(plan(checksum, both));
            redirecting(&mut world);
            let mark = world.mark();
            assert_eq!(world.pings("vm1", address, 5, 56), 5);
            let ways = 1 + usize::from(both);
            assert_eq!(passed_on(&world, mark), ways, "{checksum:?}, {address}: one packet each way at most");
            assert_eq!(world.redirected("hv1", Outcome::Sent), ways as u64);
            assert_eq!(world.redirected("hv2", Outcome::Learned), 1);
            let mark = world.mark();
            assert_eq!(world.pings("vm1", address, 5, 56), 5);
            assert_eq!(passed_on(&world, mark), 0);
        }
    }
}

#[test]
fn a_redirect_that_has_ended_brings_the_triangle_back_and_another_redirect() {
    let mut world = with_guests(plan(Neutral, false));
    redirecting(&mut world);
    assert_eq!(world.pings("vm1", VM2[0], 3, 56), 3);
    world.run_for(LIFETIME);
    let mark = world.mark();
    assert_eq!(world.pings("vm1", VM2[0], 3, 56), 3);
    assert_eq!(passed_on(&world, mark), 1);
    assert_eq!(world.redirected("hv2", Outcome::Learned), 2, "after two minutes a pause is forgotten");
}

#[test]
fn without_redirects_everything_takes_the_triangle_offloads_too() {
    for (tells, listens) in [(false, true), (true, false)] {
        let plan = plan(Neutral, true).fabric_offloads();
        let mut world = plan
            .guest(GuestPlan::new("vm1", "hv2", "blue", &VM1).sends(Sends::LargeSends).takes_offloads())
            .guest(GuestPlan::new("vm2", "hv3", "blue", &VM2).sends(Sends::LargeSends).takes_offloads())
            .start();
        world.redirects("hv1", Policy { send: tells, ..policy(7) });
        world.redirects("hv2", Policy { accept: listens, ..policy(7) });
        for address in VM2 {
            let mark = world.mark();
            assert!(world.transfer("vm1", "vm2", address, 300_000).is_ok(), "{address}");
            assert!(passed_on(&world, mark) > 10, "{}", passed_on(&world, mark));
        }
        let (sent, off) = (world.redirected("hv1", Outcome::Sent), world.redirected("hv2", Outcome::Off));
        assert_eq!((sent > 0, off > 0), (tells, tells && !listens));
        assert_eq!(world.redirected("hv2", Outcome::Learned), 0);
    }
}

/// What the router does not know either is dropped there, once: it never sends to SIR or a VNET itself.
#[test]
fn what_the_router_does_not_know_is_dropped_by_it_and_loops_nowhere() {
    let mut world = with_guests(plan(Neutral, true));
    redirecting(&mut world);
    for nobody in ["10.1.0.99", "2001:db8:b1:e::99"] {
        let mark = world.mark();
        assert_eq!(world.pings("vm1", nobody, 3, 56), 0);
        let asked = world.sent_on_link("hv2", mark).len();
        let reached = world.received_on_link("hv1", mark).len();
        assert!(asked >= 3 && reached == asked, "{asked} sent, {reached} at the router");
        assert_eq!(world.sent_on_link("hv1", mark).len(), 0);
    }
    assert!(world.nve("hv1").counters().uplink.dropped(DropReason::NoMapping) >= 6);
    // And its own tenants are told so.
    let unknown = Identifier::ipv4(Vnid::new(1001).expect("a VNID"), [10, 1, 0, 99].into());
    let unknown = world.nve("hv1").world().domains()[0].key(unknown).expect("type 2 has one");
    assert_eq!(world.nve("hv1").residence(unknown), None);
}

#[test]
fn a_packet_too_large_for_the_last_link_is_answered_in_the_triangle_too() {
    let mut world = plan(Neutral, true)
        .guest(GuestPlan::new("vm1", "hv2", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv3", "blue", &VM2).by_hand())
        .start();
    world.link("hv3").mtu = 1400;
    for (from, to, told) in [(VM1[0], VM2[0], 1380), (VM1[1], VM2[1], 1400)] {
        let mark = world.mark();
        let packet = frames::udp(Header::default(), endpoint(from, 1), endpoint(to, 2), &[0; 1400]);
        world.send("vm1", &packet, Offload::NONE);
        world.run_for(Duration::from_millis(50));
        let errors = world.received("vm1", mark);
        let [error] = &errors[..] else { panic!("{from}: {} frames", errors.len()) };
        let error = error.ip().expect("IP");
        let error = error.icmp_error().expect("an ICMP error");
        let quoted = Dissected::of_ip(error.quote).expect("a quoted packet");
        assert_eq!(error.word & 0xffff, told);
        assert_eq!((quoted.source, quoted.destination), (endpoint(from, 1).ip(), endpoint(to, 2).ip()));
    }
}

/// Where an address without a mapping may be anybody's, still nobody reaches another network, or speaks for who is here.
#[test]
fn hosts_that_ask_the_router_still_judge_sources() {
    let mut world = plan(Neutral, true)
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:f::/96")
        .guest(GuestPlan::new("vm1", "hv2", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv3", "blue", &VM2).by_hand())
        .start();
    let to_vm2 = |source: &str| {
        let locator = "2001:db8:0:3::".parse::<Ipv6Addr>().expect("an address");
        let identifier = Identifier::ipv6(Vnid::new(1001).expect("a VNID"), 2);
        let destination = Locator::new(locator).expect("a locator").unmodified(identifier).ipv6();
        let source = SocketAddr::new(source.parse().expect("an address"), 1);
        let packet = frames::udp(Header::default(), source, endpoint("2001:db8:b1:e::2", 2), b"hello");
        let mut packet = packet;
        packet[24..40].copy_from_slice(&destination.octets());
        packet
    };
    let mut arrives = |source: &str| {
        let mark = world.mark();
        world.send_to_host("hv3", to_vm2(source));
        world.run_for(Duration::from_millis(10));
        world.received("vm2", mark).len()
    };
    assert_eq!(arrives("2001:db8:b1:e::1"), 1, "control: vm1, of which hv3 knows nothing");
    assert_eq!(arrives("2001:db8:b1:e::2"), 0, "its own");
    assert_eq!(arrives("2001:db8:b1:e::ffff:fffe"), 0, "the gateway");
    assert_eq!(arrives("2001:db8:b1:f::1"), 0, "another network");
    assert_eq!(arrives("2001:db8:77::1"), 0, "outside");
}

/// From the fabric to hv2's control address: that vm2 lives on `locator`.
fn redirect(world: &World, secret: u8, locator: u16, sequence: u64) -> Vec<u8> {
    let host = |n: u16| Locator::new(Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 0)).expect("a locator");
    let message = Message {
        sender: host(1),
        recipient: host(2),
        sir: "2001:db8:51::/64".parse::<SirPrefix>().expect("a prefix"),
        identifier: Identifier::ipv4(Vnid::new(1001).expect("a VNID"), [10, 1, 0, 2].into()),
        locator: host(locator),
        epoch: 1,
        sequence,
        time: world.unix(),
        lifetime: LIFETIME,
    };
    let bytes = message.seal(&Key::new(KeyId(1), &[secret; 32]).expect("32 bytes"));
    let at = |n: u16| SocketAddr::new(host(n).control_address().into(), PORT);
    frames::udp(Header::default(), at(1), at(2), &bytes)
}

#[test]
fn forged_and_replayed_redirects_change_nothing() {
    let mut world = with_guests(plan(Neutral, false));
    world.redirects("hv2", policy(7));
    let lives = |world: &World| {
        let identifier = Identifier::ipv4(Vnid::new(1001).expect("a VNID"), [10, 1, 0, 2].into());
        let key = world.nve("hv2").world().domains()[0].key(identifier).expect("type 2 has one");
        world.nve("hv2").residence(key).map(|residence| residence.locator.to_string())
    };
    let forged = redirect(&world, 8, 9, 1);
    world.send_to_host("hv2", forged);
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.redirected("hv2", Outcome::BadMac), lives(&world)), (1, None));
    // Control: the same under the right key.
    let good = redirect(&world, 7, 9, 1);
    world.send_to_host("hv2", good.clone());
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.redirected("hv2", Outcome::Learned), 1);
    assert_eq!(lives(&world).as_deref(), Some("2001:db8:0:9::/64"));
    world.run_for(LIFETIME);
    assert_eq!(lives(&world), None);
    world.send_to_host("hv2", good);
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.redirected("hv2", Outcome::Stale), lives(&world)), (1, None));
}
