//! Several locators of one identifier (decision 0019): who of them is sent what, and that everybody sees it alike.
//!
//! ```text
//!   hv1: vm1, of sixty-four addresses      hv5: routes        hv2, hv3, hv4: each has REPLICA4, REPLICA6 and the task
//! ```

use super::errors::error;
use super::*;

use crate::setup::{Crossing, Realm, Several, Task, TaskMapping};
use crate::testkit::dissect::protocol;

const REPLICA4: &str = "10.1.9.9";
const REPLICA6: &str = "2001:db8:b1:e::99";
const TASK: &str = "2001:db8:51:0:2000::99";
/// A task of hv1 alone.
const CLIENT: &str = "2001:db8:51:0:2000::1";

fn senders4() -> impl Iterator<Item = String> {
    (1..=64).map(|n| format!("10.1.1.{n}"))
}

fn senders6() -> impl Iterator<Item = String> {
    (1..=64).map(|n| format!("2001:db8:b1:e::1:{n:x}"))
}

/// A host that knows that the replicas are at `at`; those of its own are attached to it.
fn lab(host: u8, at: &[u8]) -> Lab {
    Lab::of(setup_of(host, at))
}

fn setup_of(host: u8, at: &[u8]) -> Setup {
    let base = setup(1, ChecksumMode::Neutral);
    let all = || senders4().chain(senders6()).map(|address| addr(&address));
    let several = |network: Option<&str>, address: &str| Several {
        network: network.map(str::to_owned),
        address: addr(address),
        locators: at.iter().map(|host| locator(*host)).collect(),
    };
    let attachment = |name: &str, last, addresses| setup::Attachment {
        name: name.into(),
        mac: mac(last),
        addresses,
        ..base.attachments[0].clone()
    };
    let mapping = |address| setup::Mapping { network: "blue".into(), address, locator: locator(1) };
    let replica = at.contains(&host);
    let mut attachments = Vec::new();
    if host == 1 {
        attachments.push(attachment("vm1", 1, all().collect()));
    }
    if replica {
        attachments.push(attachment("replica", 9, vec![addr(REPLICA4), addr(REPLICA6)]));
    }
    let task = |name: &str, address: &str| Task { name: name.into(), addresses: vec![v6(address)] };
    let mut tasks = Vec::new();
    if host == 1 {
        tasks.push(task("client", CLIENT));
    }
    if replica {
        tasks.push(task("server", TASK));
    }
    Setup {
        networks: base.networks,
        attachments,
        mappings: if host == 1 { vec![] } else { all().map(mapping).collect() },
        tasks,
        task_mappings: match host {
            1 => vec![],
            _ => vec![TaskMapping { address: v6(CLIENT), locator: locator(1) }],
        },
        several: vec![several(Some("blue"), REPLICA4), several(Some("blue"), REPLICA6), several(None, TASK)],
        crossings: vec![Crossing::between(Realm::of("blue"), Realm::Tasks(None))],
        ..Setup::of(setup::Host { name: format!("hv{host}"), locator: locator(host), ..base.host })
    }
}

/// Which of hosts 2 to 4 a packet goes to; 1 and up.
fn host_of(packet: &[u8]) -> u8 {
    let view = Dissected::of_ip(packet).expect("an IP packet");
    let IpAddr::V6(destination) = view.destination else { panic!("{}", view.destination) };
    let upper = (destination.to_bits() >> 64) as u64;
    (1..=9).find(|host| locator(*host).upper() == upper).unwrap_or_else(|| panic!("{destination}"))
}

/// One packet, in as many pieces as it leaves in, to one host.
fn chosen(lab: &mut Lab, name: &str, packet: &[u8]) -> u8 {
    let outs = lab.send_with(name, packet, Offload::NONE);
    let hosts: Vec<u8> = outs.iter().map(|out| host_of(out.packet())).collect();
    assert!(!hosts.is_empty() && hosts.iter().all(|host| *host == hosts[0]), "{hosts:?}");
    hosts[0]
}

/// Each sender and replica, by its protocols, and what the first packet of each flow is.
fn flows() -> Vec<Vec<u8>> {
    let four = senders4().map(|source| (source, REPLICA4));
    let six = senders6().flat_map(|source| [(source.clone(), REPLICA6), (source, TASK)]);
    let first =
        |(source, to): (String, &str)| [udp(&source, to, 100), tcp(&source, to, 100), echo(&source, to, 100)];
    four.chain(six).flat_map(first).collect()
}

#[test]
fn flows_are_spread_over_all_locators() {
    let mut hv1 = lab(1, &[2, 3, 4]);
    let mut count = [0; 10];
    for packet in flows() {
        count[usize::from(chosen(&mut hv1, "vm1", &packet))] += 1;
    }
    assert!(count[2..=4].iter().all(|n| (130..=260).contains(n)), "{count:?}, where 192 each are likely");
}

#[test]
fn a_locator_that_is_removed_moves_its_own_flows_and_no_other() {
    let mut hv1 = lab(1, &[2, 3, 4]);
    let before: Vec<_> = flows().iter().map(|packet| chosen(&mut hv1, "vm1", packet)).collect();
    hv1.nve.apply(setup_of(1, &[4, 2]).check().unwrap()).unwrap();
    hv1.walker.begin(Duration::from_secs(2));
    let mut moved = 0;
    for (packet, before) in flows().iter().zip(&before) {
        match chosen(&mut hv1, "vm1", packet) {
            after if *before == 3 => {
                assert!(after == 2 || after == 4);
                moved += 1;
            }
            after => assert_eq!(after, *before),
        }
    }
    assert!(moved > 100, "{moved}");
}

/// Ports do not count, so that what has none goes where what has some does.
#[test]
fn fragments_and_other_ports_go_where_the_flow_goes() {
    let mut hv1 = lab(1, &[2, 3, 4]);
    let pairs =
        senders4().map(|source| (source, REPLICA4)).chain(senders6().map(|source| (source, REPLICA6)));
    for (source, to) in pairs.chain(senders6().map(|source| (source, TASK))).step_by(3) {
        let whole = chosen(&mut hv1, "vm1", &udp(&source, to, 100));
        let ports = |n| SocketAddr::new(addr(&source), n);
        let other = frames::udp(Header::default(), ports(1), SocketAddr::new(addr(to), 53), b"?");
        assert_eq!(chosen(&mut hv1, "vm1", &other), whole);
        // Rules cannot judge a fragment without ports, and admit all of them here.
        for piece in frames::fragments(&udp(&source, to, 3000), 1200) {
            assert_eq!(chosen(&mut hv1, "vm1", &piece), whole, "{source} to {to}");
        }
    }
    for source in senders6() {
        let mut at = in_options(&source).into_iter().map(|piece| chosen(&mut hv1, "vm1", &piece));
        let first = at.next().unwrap();
        assert!(at.all(|at| at == first), "{source}");
    }
}

/// A datagram in two fragments, with a header that only the first one shows: destination options (60), then UDP.
fn in_options(source: &str) -> [Vec<u8>; 2] {
    let datagram = udp(source, REPLICA6, 1600);
    let (first, second) = datagram[40..].split_at(792);
    let piece = |field: u16, parts: &[&[u8]]| {
        let [high, low] = field.to_be_bytes();
        let payload = [&[60, 0, high, low, 0, 0, 0x47, 0x11][..], &parts.concat()].concat();
        frames::ip(Header::default(), addr(source), addr(REPLICA6), 44, payload)
    };
    [piece(1, &[&[17, 0, 1, 4, 0, 0, 0, 0], first]), piece(800, &[second])]
}

#[test]
fn a_router_and_a_sender_choose_alike() {
    let (mut hv1, mut hv5) = (lab(1, &[2, 3, 4]), lab(5, &[4, 3, 2]));
    let long = |source: &str, to: &str| frames::fragments(&udp(source, to, 2500), 1000);
    let pieces = senders4().step_by(5).flat_map(|source| long(&source, REPLICA4));
    let pieces = pieces.chain(senders6().step_by(5).flat_map(|source| long(&source, REPLICA6)));
    let mut seen = [0; 10];
    for packet in flows().into_iter().step_by(2).chain(pieces) {
        for out in hv1.send_with("vm1", &packet, Offload::NONE) {
            let Out::Uplink(mut wire, _) = out else { panic!("{out:?}") };
            let at = host_of(&wire);
            seen[usize::from(at)] += 1;
            // As whoever does not know where it lives sends it.
            let to = Dissected::of_ip(&packet).unwrap().destination;
            let called = if to.is_ipv4() { sir_of(REPLICA4) } else { to };
            let IpAddr::V6(called) = called else { panic!() };
            wire[24..40].copy_from_slice(&called.octets());
            wire[7] = 64;
            assert_eq!(host_of(hv5.receive(&wire).packet()), at, "{to}");
        }
    }
    assert!(seen[2..=4].iter().all(|n| *n > 20), "{seen:?}");
}

#[test]
fn whoever_is_sent_it_has_it_and_may_answer() {
    let mut hosts = [lab(2, &[2, 3, 4]), lab(3, &[2, 3, 4]), lab(4, &[2, 3, 4])];
    let mut hv1 = lab(1, &[2, 3, 4]);
    for packet in flows().iter().step_by(7) {
        let wire = only(hv1.send_with("vm1", packet, Offload::NONE));
        let replica = &mut hosts[usize::from(host_of(wire.packet())) - 2];
        let Out::Local(name, frame, _) = replica.receive(wire.packet()) else { panic!("not delivered") };
        let seen = Dissected::of_frame(&frame).unwrap();
        let answer = udp(&seen.destination.to_string(), &seen.source.to_string(), 50);
        if name == "replica" {
            let back = replica.send("replica", &answer);
            assert_eq!(host_of(back.packet()), 1);
            assert!(matches!(hv1.receive(back.packet()), Out::Local(name, ..) if name == "vm1"));
        }
    }
}

#[test]
fn an_error_goes_to_whoever_sent_what_it_is_about() {
    let mut hv1 = lab(1, &[2, 3, 4]);
    for (source, to) in senders4().map(|s| (s, REPLICA4)).chain(senders6().map(|s| (s, REPLICA6))).step_by(3)
    {
        let flow = chosen(&mut hv1, "vm1", &udp(&source, to, 100));
        // Port unreachable, about a datagram of the flow's other direction.
        let about = udp(to, &source, 100);
        let (kind, code, proto) =
            if to == REPLICA4 { (3, 3, protocol::ICMP) } else { (1, 4, protocol::ICMPV6) };
        let mut transport = vec![kind, code, 0, 0, 0, 0, 0, 0];
        transport.extend(about);
        let error = frames::ip(Header::default(), addr(&source), addr(to), proto, transport);
        assert_eq!(chosen(&mut hv1, "vm1", &error), flow, "{source}");
    }
}

#[test]
fn a_fabric_routers_error_goes_to_whoever_sent_what_it_is_about() {
    let (mut hv1, mut hv5) = (lab(1, &[2, 3, 4]), lab(5, &[2, 3, 4]));
    let mut hosts = [lab(2, &[2, 3, 4]), lab(3, &[2, 3, 4]), lab(4, &[2, 3, 4])];
    for (source, to) in senders4().map(|s| (s, REPLICA4)).chain(senders6().map(|s| (s, REPLICA6))).step_by(3)
    {
        let at = chosen(&mut hv1, "vm1", &udp(&source, to, 100));
        let replica = &mut hosts[usize::from(at) - 2];
        let answer = replica.send("replica", &udp(to, &source, 1300));
        let too_big = error(2, 0, 1280, "2001:db8:ffff::1", answer.packet());
        assert_eq!(host_of(hv5.receive(&too_big).packet()), at, "{source}");
    }
}

#[test]
fn what_a_router_says_lowers_the_path_that_was_chosen() {
    let mut hv1 = lab(1, &[2, 3, 4]);
    let source = senders6().next().unwrap();
    let sent = hv1.send("vm1", &udp(&source, REPLICA6, 1400));
    let at = host_of(sent.packet());
    hv1.receive(&error(2, 0, 1300, "2001:db8:ffff::1", sent.packet()));
    let lowered: Vec<_> =
        hv1.nve.paths(Duration::from_secs(1)).into_iter().filter(|path| path.mtu == 1300).collect();
    assert_eq!(lowered.len(), 1);
    assert_eq!(lowered[0].locator, locator(at));
}

#[test]
fn a_host_that_has_it_too_is_one_of_several_for_its_own_senders() {
    let mut hv1 = lab(1, &[1, 2, 3]);
    let (mut here, mut elsewhere) = (0, 0);
    for packet in flows() {
        for out in hv1.send_with("vm1", &packet, Offload::NONE) {
            match out {
                Out::Local(name, ..) => {
                    assert!(name == "replica" || name == "server");
                    here += 1;
                }
                out => {
                    assert!(matches!(host_of(out.packet()), 2 | 3));
                    elsewhere += 1;
                }
            }
        }
    }
    assert!(here > 100 && elsewhere > 250, "{here}, {elsewhere}");
    // From another host's holder of the same address: registered, and no duplicate.
    let mut hv2 = lab(2, &[1, 2, 3]);
    let from_hv2 = hv2.send("replica", &udp(REPLICA4, "10.1.1.1", 10));
    assert!(matches!(hv1.receive(from_hv2.packet()), Out::Local(name, ..) if name == "vm1"));
    // And tasks of this host talk to their neighbour that is one of several, and get answers.
    let asked = hv1.send("client", &udp(CLIENT, TASK, 10));
    let own = hv1.send("server", &udp(TASK, CLIENT, 10));
    assert!(matches!(&own, Out::Local(name, ..) if name == "client"), "{own:?}");
    assert!(!matches!(asked, Out::Dropped(_)));
}

#[test]
fn no_other_word_moves_an_address_with_several_locators() {
    use crate::pipeline::{Learned, NotLearned, Source};
    let mut hv1 = lab(1, &[2, 3]);
    let learned =
        Learned { source: Source::Registered, epoch: 7, since: Duration::from_secs(1), until: None };
    let key = crate::addr::Key::first(Identifier::ipv4(vnid("blue"), REPLICA4.parse().unwrap()));
    assert_eq!(hv1.nve.learn(key, locator(4), learned), Err(NotLearned::Several));
    assert!(matches!(chosen(&mut hv1, "vm1", &udp("10.1.1.1", REPLICA4, 10)), 2 | 3));
    let lines: Vec<_> =
        hv1.nve.mappings().into_iter().filter(|line| line.address == addr(REPLICA4)).collect();
    let mut told: Vec<_> = lines.iter().map(|line| line.locator).collect();
    told.sort();
    assert_eq!(told, [locator(2), locator(3)]);
}
