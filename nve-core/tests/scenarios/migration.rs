//! A guest moves to another host: its attachment waits there, and is told by the guest itself that it has come (docs/decisions/0017).
//!
//! ```text
//!   hv1: vm1, near          hv2: vm1 (waits), there          hv3: far
//! ```

use core::net::IpAddr;
use core::time::Duration;

use nve_core::DropReason;
use nve_core::addr::{Key as Who, Locator};
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::Offload;
use nve_core::pipeline::{Learned, Lesson, NotLearned, PortId, Presence, Receiver, Source};
use nve_core::redirect::{Key, KeyId, Keys, Message, Outcome, PORT, Policy};
use nve_core::setup::{Crossing, GRACE, Mapping, Realm, Setup, Stragglers};
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{Dice, GuestPlan, Plan, Verdict, World};
use smoltcp::wire::EthernetAddress;

use crate::{VM1, address, endpoint};

const NEAR: [&str; 2] = ["10.1.0.11", "2001:db8:b1:e::11"];
const THERE: [&str; 2] = ["10.1.0.12", "2001:db8:b1:e::12"];
const FAR: [&str; 2] = ["10.1.0.13", "2001:db8:b1:e::13"];
/// Who talks to the guest that moves, and from where.
const PEERS: [(&str, [&str; 2]); 3] = [("near", NEAR), ("there", THERE), ("far", FAR)];

fn plan(by_hand: bool) -> Plan {
    let guest = |name, host, own: &[&str]| {
        let guest = GuestPlan::new(name, host, "blue", own);
        if by_hand { guest.by_hand() } else { guest }
    };
    Plan::new(17)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .host("hv1")
        .host("hv2")
        .host("hv3")
        .guest(guest("vm1", "hv1", &VM1))
        .guest(guest("near", "hv1", &NEAR))
        .guest(guest("there", "hv2", &THERE))
        .guest(guest("far", "hv3", &FAR))
        .standby("vm1", "hv2")
}

const OVERRIDE: u8 = 0x20;
const FOREIGN: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 9, 9, 9]);

fn port(world: &World) -> PortId {
    world.nve("hv2").port("vm1").expect("an attachment that waits")
}

fn presence(world: &World) -> Presence {
    world.nve("hv2").presence(port(world))
}

fn started(world: &World, carried_on: bool) {
    world.nve("hv2").started(port(world), carried_on);
}

/// Which peers reach vm1, wherever it is, with a packet of this family.
fn reach(world: &mut World, family: usize) -> Vec<&'static str> {
    PEERS
        .into_iter()
        .filter(|(name, own)| reaches(world, name, own[family], family))
        .map(|(name, _)| name)
        .collect()
}

fn reaches(world: &mut World, from: &str, own: &str, family: usize) -> bool {
    let mark = world.mark();
    let packet = frames::udp(Header::default(), endpoint(own, 1), endpoint(VM1[family], 2), b"to it");
    world.send(from, &packet, Offload::NONE);
    world.run_for(Duration::from_millis(50));
    !world.received("vm1", mark).is_empty()
}

fn udp_from(source: &str) -> Vec<u8> {
    frames::udp(Header::default(), endpoint(source, 1), endpoint(THERE[family_of(source)], 2), b"from it")
}

fn family_of(address: &str) -> usize {
    usize::from(!address.contains('.'))
}

fn mac(world: &World) -> EthernetAddress {
    world.guest("vm1").mac
}

/// A gratuitous ARP, as Linux sends it after a migration.
fn gratuitous(sender: EthernetAddress, named: EthernetAddress, own: &str) -> Vec<u8> {
    let IpAddr::V4(own) = address(own) else { panic!("IPv4 only") };
    let mut frame = [&[0xff; 6], sender.as_bytes(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend([named.as_bytes(), &own.octets(), &[0xff; 6], &own.octets()].concat());
    frame
}

/// An unsolicited neighbour advertisement to all nodes, as Linux sends it after a migration.
fn unsolicited(sender: EthernetAddress, named: EthernetAddress, flags: u8, target: &str) -> Vec<u8> {
    let IpAddr::V6(octets) = address(target) else { panic!("IPv6 only") };
    let body = [&[136, 0, 0, 0, flags, 0, 0, 0], &octets.octets()[..], &[2, 1], named.as_bytes()].concat();
    let header = Header { hop_limit: 255, ..Header::default() };
    let packet = frames::ip(header, address(target), address("ff02::1"), 58, body);
    frames::ethernet(sender, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), &packet)
}

/// Whether `there` hears what vm1 sends from its address of this family.
fn is_heard(world: &mut World, family: usize) -> bool {
    let mark = world.mark();
    world.send("vm1", &udp_from(VM1[family]), Offload::NONE);
    world.run_for(Duration::from_millis(5));
    !world.received("there", mark).is_empty()
}

fn send(world: &mut World, frame: Vec<u8>) {
    world.send_frame("vm1", frame, Offload::NONE);
    world.run_for(Duration::from_millis(5));
}

/// From the setup of the target to the switch, nobody on any host loses a packet.
#[test]
fn while_an_attachment_waits_everybody_reaches_the_guest_where_it_runs() {
    for family in [0, 1] {
        let mut world = plan(true).start();
        assert_eq!(presence(&world), Presence::Waiting);
        assert_eq!(reach(&mut world, family), ["near", "there", "far"]);
        // Rings that start, of a guest that has not said anything, change nothing yet.
        started(&world, false);
        assert_eq!(
            (presence(&world), reach(&mut world, family)),
            (Presence::Armed, vec!["near", "there", "far"])
        );
    }
}

/// As an operator writes it when the guest is here.
fn without_standby(setup: &mut Setup) {
    setup.moves.standby.clear();
    setup.mappings.retain(|mapping| !VM1.map(address).contains(&mapping.address));
}

/// What tells a host that its guest has come.
type Sign = fn(&mut World);

fn signs() -> [(&'static str, Sign); 7] {
    [
        ("a gratuitous ARP", |world| send(world, gratuitous(mac(world), mac(world), VM1[0]))),
        ("an advertisement", |world| send(world, unsolicited(mac(world), mac(world), OVERRIDE, VM1[1]))),
        ("an IPv4 packet", |world| world.send("vm1", &udp_from(VM1[0]), Offload::NONE)),
        ("an IPv6 packet", |world| world.send("vm1", &udp_from(VM1[1]), Offload::NONE)),
        ("rings that go on", |world| started(world, true)),
        ("the operator", |world| assert!(world.nve("hv2").activate(port(world)))),
        ("no standby", |world| world.reload("hv2", without_standby).expect("accepted")),
    ]
}

/// From then on whoever is on its new host reaches it there, in both families, and what it sends is admitted.
#[test]
fn an_announcement_a_frame_rings_that_go_on_or_the_operator_bring_it_here_at_once() {
    for (sign, give) in signs() {
        let mut world = plan(true).start();
        world.migrate("vm1", "hv2");
        if sign != "rings that go on" {
            started(&world, false);
        }
        assert_eq!(reach(&mut world, 0), [""; 0], "{sign}: its old host has nobody to give it to");
        give(&mut world);
        world.run_for(Duration::from_millis(5));
        assert_eq!(presence(&world), Presence::Here, "{sign}");
        for told in [false, true] {
            for family in [0, 1] {
                assert_eq!(reach(&mut world, family), ["there"], "{sign}, {told}");
                assert!(is_heard(&mut world, family), "{sign}, {told}");
            }
            let arrivals = world.nve("hv2").arrivals(1);
            assert_eq!(arrivals.len(), usize::from(!told), "{sign}: whoever must tell is told once");
            for arrival in arrivals {
                let hosts: Vec<_> = arrival
                    .identifiers
                    .iter()
                    .map(|arrived| arrived.from.map(|host| host.prefix()))
                    .collect();
                assert_eq!(
                    (&*arrival.attachment, hosts),
                    ("vm1", vec![Some(world.locator_of("hv1")); 2]),
                    "{sign}"
                );
            }
        }
    }
}

/// Made for the guest of this world.
type Frame = fn(&World) -> Vec<u8>;

/// Nothing but the addresses that the configuration gives it, under its own MAC, and only once something has started.
#[test]
fn a_hostile_guest_brings_nothing_here_that_is_not_its_own() {
    let attempts: [(&str, Frame, DropReason); 10] = [
        ("another MAC", |_| gratuitous(FOREIGN, FOREIGN, VM1[0]), DropReason::SpoofedMac),
        ("another MAC inside", |w| gratuitous(mac(w), FOREIGN, VM1[0]), DropReason::SpoofedMac),
        (
            "another MAC in an option",
            |w| unsolicited(mac(w), FOREIGN, OVERRIDE, VM1[1]),
            DropReason::SpoofedMac,
        ),
        (
            "a solicited answer",
            |w| unsolicited(mac(w), mac(w), OVERRIDE | 0x40, VM1[1]),
            DropReason::NdUnanswered,
        ),
        ("a neighbour's IPv4 address", |w| gratuitous(mac(w), mac(w), NEAR[0]), DropReason::SpoofedAddress),
        (
            "a neighbour's IPv6 address",
            |w| unsolicited(mac(w), mac(w), OVERRIDE, NEAR[1]),
            DropReason::SpoofedAddress,
        ),
        (
            "an address of its host's neighbour",
            |w| gratuitous(mac(w), mac(w), THERE[0]),
            DropReason::SpoofedAddress,
        ),
        (
            "a packet from a neighbour's address",
            |w| frames::ethernet(mac(w), GATEWAY_MAC, &udp_from(FAR[0])),
            DropReason::SpoofedAddress,
        ),
        (
            "a packet under another MAC",
            |_| frames::ethernet(FOREIGN, GATEWAY_MAC, &udp_from(VM1[0])),
            DropReason::SpoofedMac,
        ),
        ("a cut announcement", |w| gratuitous(mac(w), mac(w), VM1[0])[..30].to_vec(), DropReason::Malformed),
    ];
    for (attempt, frame, reason) in attempts {
        let mut world = plan(true).start();
        world.migrate("vm1", "hv2");
        started(&world, false);
        let before = world.nve("hv2").mappings();
        let frame = frame(&world);
        send(&mut world, frame);
        assert_eq!(presence(&world), Presence::Armed, "{attempt}");
        assert_eq!(world.nve("hv2").mappings(), before, "{attempt}");
        assert_eq!(world.counters("vm1").dropped(reason), 1, "{attempt}: {:?}", world.counters("vm1"));
    }
}

/// A machine on whose attachment nothing has started since it waits: one that was left behind.
#[test]
fn what_has_not_started_anew_brings_nothing_here_and_sends_nothing() {
    let mut world = plan(true).start();
    world.migrate("vm1", "hv2");
    for (family, own) in VM1.into_iter().enumerate() {
        assert!(!is_heard(&mut world, family));
        assert_eq!(world.counters("vm1").dropped(DropReason::Moved), family as u64 + 1, "{own}");
    }
    let own = mac(&world);
    send(&mut world, gratuitous(own, own, VM1[0]));
    assert_eq!((presence(&world), world.counters("vm1").dropped(DropReason::Moved)), (Presence::Waiting, 3));
    started(&world, false);
    assert!(is_heard(&mut world, 0), "control");
    assert_eq!(presence(&world), Presence::Here);
}

fn learned(world: &World, epoch: u64) -> Learned {
    Learned { source: Source::Redirect, epoch, since: world.now(), until: None }
}

fn locator(world: &World, host: &str) -> Locator {
    Locator::new(world.locator_of(host)).expect("a /64")
}

/// Tells `host` that vm1 is at `to` now, as the host that has it does, or an operator.
fn tell(world: &World, host: &str, to: &str, epoch: u64) -> Vec<Result<Lesson, NotLearned>> {
    let (to, learned) = (locator(world, to), learned(world, epoch));
    keys(world).into_iter().map(|key| world.nve(host).moved(key, to, learned)).collect()
}

fn keys(world: &World) -> [Who; 2] {
    VM1.map(|own| {
        let lines = world.nve("hv3").mappings();
        let line = lines.into_iter().find(|line| line.address == address(own)).expect("it is mapped");
        world.nve("hv3").key(line.sir.address(line.identifier)).expect("of its domain")
    })
}

/// Its guest is on hv2, and hv1 knows; hv3 does not.
fn moved(stragglers: Stragglers) -> World {
    let mut world = plan(true).start();
    let choose = |setup: &mut Setup| setup.moves.stragglers = stragglers;
    world.reload("hv1", choose).expect("accepted");
    world.migrate("vm1", "hv2");
    started(&world, true);
    assert_eq!(world.nve("hv2").arrivals(7).len(), 1);
    assert_eq!(tell(&world, "hv1", "hv2", 7), [Ok(Lesson::New), Ok(Lesson::New)]);
    world
}

fn dropped_from_the_fabric(world: &World, host: &str, reason: DropReason) -> u64 {
    world.nve(host).counters().uplink.dropped(reason)
}

#[test]
fn the_old_host_forwards_for_a_time_with_a_hop_spent_and_then_drops_by_name() {
    for family in [0, 1] {
        let mut world = moved(Stragglers::Forward);
        let mark = world.mark();
        assert_eq!(reach(&mut world, family), ["near", "there", "far"]);
        let hops: Vec<u8> = world
            .received("vm1", mark)
            .iter()
            .filter_map(|record| record.ip().map(|ip| ip.hop_limit))
            .collect();
        // A router between near and it; far's packet was at hv1 first: two routers, the walk's own hop, and hv1's kernel on either side.
        assert_eq!(hops, [63, 64, 59]);
        world.run_for(GRACE + Duration::from_secs(1));
        assert_eq!(reach(&mut world, family), ["near", "there"], "far has not been told");
        assert_eq!(dropped_from_the_fabric(&world, "hv1", DropReason::NotLocal), 1);
        assert_eq!(tell(&world, "hv3", "hv2", 7), [Ok(Lesson::New), Ok(Lesson::New)]);
        assert_eq!(reach(&mut world, family), ["near", "there", "far"]);
    }
}

/// Who writes to it from another network, by a rule that names it or by one that names a neighbour of it.
#[test]
fn an_old_host_forwards_by_rules_that_name_the_guest() {
    const GREEN: &str = "2001:db8:b2:e::11";
    for (named, passes) in [(VM1[1], true), (THERE[1], false)] {
        let rule = Crossing {
            to_addresses: vec![format!("{named}/128").parse().expect("a prefix")],
            replies: true,
            ..Crossing::between(Realm::of("green"), Realm::of("blue"))
        };
        let mut world = plan(true)
            .network("green", 1002, "", "2001:db8:b2:e::/96")
            .guest(GuestPlan::new("green", "hv3", "green", &[GREEN]).by_hand())
            .crossing(rule)
            .start();
        assert_eq!(reaches(&mut world, "green", GREEN, 1), passes, "where it was");
        world.migrate("vm1", "hv2");
        started(&world, true);
        assert_eq!(world.nve("hv2").arrivals(7).len(), 1);
        assert_eq!(tell(&world, "hv1", "hv2", 7), [Ok(Lesson::New), Ok(Lesson::New)]);
        assert_eq!(reaches(&mut world, "green", GREEN, 1), passes, "{named}: by its old host");
    }
}

#[test]
fn an_old_host_that_does_not_forward_drops_by_name() {
    for stragglers in [Stragglers::Redirect, Stragglers::Drop] {
        let mut world = moved(stragglers);
        assert_eq!(reach(&mut world, 0), ["near", "there"], "{stragglers:?}");
        assert_eq!(dropped_from_the_fabric(&world, "hv1", DropReason::Moved), 1);
        world.run_for(GRACE + Duration::from_secs(1));
        assert_eq!(reach(&mut world, 0), ["near", "there"], "{stragglers:?}");
        assert_eq!(dropped_from_the_fabric(&world, "hv1", DropReason::NotLocal), 1);
    }
}

/// The machine that was left behind has its rings, and would take and send: it gets nothing and is heard by nobody.
#[test]
fn nothing_is_delivered_to_a_stale_attachment_nor_taken_from_it() {
    let mut world = moved(Stragglers::Forward);
    let nve = world.nve("hv1");
    let stale = nve.port("vm1").expect("it is configured still");
    nve.set_receiver(stale, Receiver { up: true, ..Receiver::default() });
    // Delivering to it would fail here: nobody is attached to it.
    for family in [0, 1] {
        assert_eq!(reach(&mut world, family), ["near", "there", "far"]);
    }
    let mark = world.mark();
    let to_all = frames::udp(Header::default(), endpoint(NEAR[0], 1), endpoint("10.1.255.255", 2), b"to all");
    world.send("near", &to_all, Offload::NONE);
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.received("there", mark).len(), 1, "control");
    world.migrate("vm1", "hv1");
    for family in [0, 1] {
        let mark = world.mark();
        world.send("vm1", &udp_from(VM1[family]), Offload::NONE);
        world.run_for(Duration::from_millis(50));
        assert!(world.received("there", mark).is_empty());
        assert_eq!(world.counters("vm1").dropped(DropReason::Moved), family as u64 + 1);
    }
}

#[test]
fn an_older_word_about_a_move_changes_nothing() {
    let mut world = moved(Stragglers::Forward);
    assert_eq!(tell(&world, "hv1", "hv3", 6), [Err(NotLearned::OldEpoch(7)); 2]);
    assert_eq!(tell(&world, "hv1", "hv3", 7), [Err(NotLearned::OldEpoch(7)); 2]);
    assert_eq!(tell(&world, "hv2", "hv1", 7), [Err(NotLearned::OldEpoch(7)); 2], "replayed at its new host");
    assert_eq!(tell(&world, "hv2", "hv2", 8), [Err(NotLearned::Locator); 2]);
    assert_eq!(presence(&world), Presence::Here);
    assert_eq!(reach(&mut world, 0), ["near", "there", "far"]);
    assert_eq!(tell(&world, "hv2", "hv1", 8), [Ok(Lesson::New); 2], "control");
    assert_eq!(presence(&world), Presence::Waiting);
}

/// Each host believes that the other has it, and both forward: a packet ends by its hops, and is given to nobody.
#[test]
fn two_hosts_that_each_believe_it_is_with_the_other_end_a_packet_by_its_hops() {
    for family in [0, 1] {
        let mut world = moved(Stragglers::Forward);
        assert_eq!(tell(&world, "hv2", "hv1", 8), [Ok(Lesson::New); 2]);
        let mark = world.mark();
        assert!(!reaches(&mut world, "far", FAR[family], family));
        world.run_for(Duration::from_secs(1));
        let passed = world.sent_on_link("hv1", mark).len() + world.sent_on_link("hv2", mark).len();
        assert!((2..=64).contains(&passed), "{passed}");
        assert!(world.received("vm1", mark).is_empty());
        // The host that believes the later word settles it.
        assert_eq!(tell(&world, "hv1", "hv2", 9), [Ok(Lesson::Moved); 2]);
        assert!(world.nve("hv2").activate(port(&world)));
        assert_eq!(reach(&mut world, family), ["near", "there", "far"]);
    }
}

/// An operator who replaces the attachment by mappings, without any other word, gets the same grace.
#[test]
fn a_reload_that_moves_it_forwards_as_well_and_what_was_learned_outlives_others() {
    let mut world = plan(true).start();
    world.migrate("vm1", "hv2");
    started(&world, true);
    let to = locator(&world, "hv2");
    let mapping = |own: &str| Mapping { network: "blue".into(), address: address(own), locator: to };
    world
        .reload("hv1", |setup| {
            setup.attachments.retain(|attachment| attachment.name != "vm1");
            setup.mappings.extend(VM1.map(mapping));
        })
        .expect("accepted");
    assert_eq!(reach(&mut world, 0), ["near", "there", "far"]);
    world.run_for(GRACE + Duration::from_secs(1));
    assert_eq!(reach(&mut world, 0), ["near", "there"]);

    let mut world = moved(Stragglers::Forward);
    for host in ["hv1", "hv2", "hv1"] {
        world.reload(host, |_| {}).expect("what ran is accepted");
        assert_eq!(reach(&mut world, 1), ["near", "there", "far"], "after a reload of {host}");
    }
    assert_eq!(world.nve("hv2").presence(port(&world)), Presence::Here);
}

/// There and back, ten times, each host an attachment of it that waits while it is at the other.
#[test]
fn it_moves_there_and_back_ten_times_and_each_time_everybody_follows() {
    let mut world = moved(Stragglers::Forward);
    assert_eq!(tell(&world, "hv3", "hv2", 7), [Ok(Lesson::New); 2]);
    for turn in 0..10 {
        let (from, to) = if turn % 2 == 0 { ("hv2", "hv1") } else { ("hv1", "hv2") };
        world.migrate("vm1", to);
        let nve = world.nve(to);
        nve.started(nve.port("vm1").expect("it waits"), turn % 3 > 0);
        if turn % 3 == 0 {
            let frame = gratuitous(mac(&world), mac(&world), VM1[0]);
            send(&mut world, frame);
        }
        let arrivals = world.nve(to).arrivals(1);
        let arrived = arrivals[0].identifiers[0];
        assert_eq!((arrived.epoch, arrived.from), (8 + turn, Some(locator(&world, from))), "turn {turn}");
        for host in [from, "hv3"] {
            assert!(tell(&world, host, to, arrived.epoch).iter().all(Result::is_ok), "turn {turn}, {host}");
        }
        for family in [0, 1] {
            assert_eq!(reach(&mut world, family), ["near", "there", "far"], "turn {turn}");
        }
    }
}

/// A connection that is open when the guest moves goes on, byte for byte, from a neighbour of its old host, of its new host, and from a third.
#[test]
fn connections_survive_the_move() {
    for (peer, _) in PEERS {
        for own in VM1 {
            let mut world = plan(false).start();
            let mut switched = false;
            let done = world.transfer_while(peer, "vm1", own, 300_000, |world, received| {
                if switched || received < 100_000 {
                    return;
                }
                switched = true;
                world.migrate("vm1", "hv2");
                started(world, true);
                for arrival in world.nve("hv2").arrivals(7) {
                    assert_eq!(arrival.identifiers.len(), 2);
                }
                assert!(tell(world, "hv1", "hv2", 7).iter().all(Result::is_ok));
            });
            assert!(done.is_ok(), "{peer} to {own}: {done:?}");
        }
    }
}

fn policy() -> Policy {
    let key = Key::new(KeyId(1), &[7; 32]).expect("32 bytes");
    let keys = Keys::new(vec![key]);
    Policy { keys, accept: true, send: true, lifetime: Duration::from_secs(120), ..Policy::default() }
}

/// Hosts that tell each other; its guest has just begun to run on hv2.
fn told() -> World {
    let mut world = plan(true).start();
    for host in ["hv1", "hv2", "hv3"] {
        world.redirects(host, policy());
    }
    world.migrate("vm1", "hv2");
    started(&world, true);
    world
}

/// With keys nobody types anything: the new host tells the old one, and that one whoever still sends to it.
#[test]
fn the_new_host_tells_the_old_one_and_the_old_one_tells_whoever_still_sends_to_it() {
    for family in [0, 1] {
        let mut world = told();
        world.run_for(Duration::from_millis(20));
        assert_eq!(world.redirected("hv1", Outcome::Learned), 2);
        let mark = world.mark();
        assert_eq!(reach(&mut world, family), ["near", "there", "far"]);
        let by_old = |world: &World, mark| {
            let sent = world.sent_on_link("hv1", mark);
            sent.iter().filter(|record| record.ip().is_some_and(|ip| ip.ports() == Some((1, 2)))).count()
        };
        assert_eq!(by_old(&world, mark), 2, "near's own, and far's, which is forwarded");
        assert_eq!(world.redirected("hv3", Outcome::Learned), 1);
        let mark = world.mark();
        assert_eq!(reach(&mut world, family), ["near", "there", "far"]);
        assert_eq!(by_old(&world, mark), 1, "far's goes straight");
        world.run_for(Duration::from_secs(30));
        assert_eq!(
            world.redirected("hv1", Outcome::Renewed),
            8,
            "each address is told five times, and then no more"
        );
    }
}

/// As an operator may want it who would rather lose a packet than carry one.
#[test]
fn an_old_host_that_only_redirects_loses_the_first_packet_and_no_other() {
    let mut world = told();
    world.reload("hv1", |setup| setup.moves.stragglers = Stragglers::Redirect).expect("accepted");
    world.run_for(Duration::from_millis(20));
    assert_eq!(reach(&mut world, 0), ["near", "there"]);
    assert_eq!(dropped_from_the_fabric(&world, "hv1", DropReason::Moved), 1);
    assert_eq!(world.redirected("hv3", Outcome::Learned), 1);
    assert_eq!(reach(&mut world, 0), ["near", "there", "far"]);
}

#[test]
fn a_word_that_is_lost_is_said_again() {
    let mut world = told();
    let mut left = 3;
    world.filter(Box::new(move |_, packet| {
        let lost = packet.payload().starts_with(b"ILAR") && left > 0;
        left -= u32::from(lost);
        if lost { Verdict::Lose } else { Verdict::Pass }
    }));
    world.run_for(Duration::from_millis(20));
    assert_eq!(world.redirected("hv1", Outcome::Learned), 0);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.redirected("hv1", Outcome::Learned), 1);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.redirected("hv1", Outcome::Learned), 2);
}

/// Only the host that says it has an identifier itself takes it from an attachment; a router's word about it, or an old one, does not.
#[test]
fn no_other_hosts_word_and_no_old_one_takes_an_identifier_from_an_attachment() {
    let mut world = plan(true).start();
    world.redirects("hv1", policy());
    let key = Key::new(KeyId(1), &[7; 32]).expect("32 bytes");
    let [identifier, _] = keys(&world);
    let [hv1, hv2, hv3] = ["hv1", "hv2", "hv3"].map(|host| locator(&world, host));
    let message = Message {
        sender: hv3,
        recipient: hv1,
        sir: "2001:db8:51::/64".parse().expect("a /64"),
        identifier: identifier.identifier(),
        locator: hv2,
        epoch: 9,
        sequence: 1,
        time: world.unix(),
        lifetime: Duration::from_secs(60),
    };
    let datagram = |message: Message| {
        let (from, to) = (message.sender.control_address(), message.recipient.control_address());
        frames::udp(Header::default(), (from, PORT).into(), (to, PORT).into(), &message.seal(&key))
    };
    let hear = |world: &mut World, message: Message| {
        world.send_to_host("hv1", datagram(message));
        world.run_for(Duration::from_millis(1));
    };
    hear(&mut world, message);
    assert_eq!(world.redirected("hv1", Outcome::Here), 1, "hv3 says that hv2 has it");
    hear(&mut world, Message { sender: hv2, epoch: 0, ..message });
    assert_eq!(world.redirected("hv1", Outcome::OldEpoch), 1);
    assert!(reaches(&mut world, "near", NEAR[0], 0), "it is where it was");
    hear(&mut world, Message { sender: hv2, sequence: 2, ..message });
    assert_eq!(world.redirected("hv1", Outcome::Learned), 1, "control: hv2 says that it has it");
    assert!(!reaches(&mut world, "near", NEAR[0], 0));
    hear(&mut world, Message { sender: hv2, sequence: 2, ..message });
    assert_eq!(world.redirected("hv1", Outcome::Replayed), 1);
}

/// Nobody types anything: a connection of each peer goes on when the guest goes on elsewhere.
#[test]
fn with_keys_connections_survive_without_another_word() {
    for (peer, _) in PEERS {
        let mut world = plan(false).start();
        for host in ["hv1", "hv2", "hv3"] {
            world.redirects(host, policy());
        }
        let mut switched = false;
        let done = world.transfer_while(peer, "vm1", VM1[0], 300_000, |world, received| {
            if !switched && received > 100_000 {
                switched = true;
                world.migrate("vm1", "hv2");
                started(world, true);
            }
        });
        assert!(done.is_ok_and(|took| took < Duration::from_secs(10)), "{peer}: {done:?}");
    }
}

/// Whether `frame`, from vm1's socket, says by itself that it is vm1's.
fn says_so(world: &World, frame: &[u8]) -> bool {
    let own = mac(world);
    let [IpAddr::V4(v4), IpAddr::V6(v6)] = VM1.map(address) else { panic!("one of each") };
    let at = |from: usize, bytes: &[u8]| frame.get(from..from + bytes.len()) == Some(bytes);
    at(6, own.as_bytes())
        && match frame.get(12..14) {
            Some([8, 6]) => at(22, own.as_bytes()) && at(28, &v4.octets()) && at(38, &v4.octets()),
            Some([8, 0]) => at(26, &v4.octets()),
            Some([0x86, 0xdd]) => at(22, &v6.octets()) || at(62, &v6.octets()),
            _ => false,
        }
}

/// Frames that are nearly right, of whatever is at the socket: what brings the addresses here says whose it is, and nothing else of the
/// mapping table ever changes.
#[test]
fn of_frames_that_are_nearly_right_only_those_that_say_whose_they_are_bring_it_here() {
    let mut world = plan(true).start();
    world.expect_bad_checksums();
    world.migrate("vm1", "hv2");
    started(&world, false);
    let own = mac(&world);
    let others = |world: &World| {
        let lines = world.nve("hv2").mappings().into_iter();
        lines.filter(|line| !VM1.map(address).contains(&line.address)).collect::<Vec<_>>()
    };
    let before = others(&world);
    let good = [
        gratuitous(own, own, VM1[0]),
        unsolicited(own, own, OVERRIDE, VM1[1]),
        frames::ethernet(own, GATEWAY_MAC, &udp_from(VM1[0])),
        frames::ethernet(own, GATEWAY_MAC, &udp_from(VM1[1])),
    ];
    let (mut dice, mut came, mut epoch) = (Dice::new(17), 0, 100);
    for round in 0..20_000 {
        let mut frame = good[round % good.len()].clone();
        for _ in 0..dice.roll() % 3 {
            let at = dice.roll() as usize % frame.len();
            frame[at] ^= 1 << (dice.roll() % 8);
        }
        frame.truncate(frame.len() - (dice.roll() % 8 == 0) as usize * (dice.roll() as usize % frame.len()));
        let says = says_so(&world, &frame);
        world.send_frame("vm1", frame.clone(), Offload::NONE);
        world.run_for(Duration::from_millis(20));
        if presence(&world) == Presence::Here {
            assert!(says, "round {round}: {frame:02x?}");
            (came, epoch) = (came + 1, epoch + 1);
            assert!(tell(&world, "hv2", "hv1", epoch).iter().all(Result::is_ok));
            started(&world, false);
        }
    }
    assert_eq!(others(&world), before);
    assert!(came > 1000, "control: {came} came");
}
