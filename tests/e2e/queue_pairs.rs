//! A card of several queue pairs: flows, their order, and who says how many pairs are in use.

use std::time::{Duration, Instant};

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::ringpeer::beside::HONEST;
use vhost_ila_tests::ringpeer::card::{Card, Control};
use vhost_ila_tests::ringpeer::neighbours::datagram;
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

const FLOWS: u8 = 40;
const EACH: u8 = 5;
/// How long nothing may come before all is said to have come.
const QUIET: Duration = Duration::from_secs(5);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn flows_spread_over_pairs_and_each_keeps_its_order() {
    spread("e2e/queue-pairs", |options| options);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn flows_spread_over_pairs_of_packed_rings_and_each_keeps_its_order() {
    spread("e2e/queue-pairs-packed", |options| options.packed().in_order());
}

fn spread(evidence: &str, over: fn(Options) -> Options) {
    let plan = Plan::of(&[VM1, VM2, HONEST]).offering_packed_rings();
    let mut site = Site::start(evidence, plan).unwrap();
    let mut card = Card::connect(&site.socket(&VM1), over(Options::offloads()), 4, Control::Ours).unwrap();
    // A neighbour, and one behind the fabric.
    let mut senders =
        [HONEST, VM2].map(|vm| (vm, Peer::connect(&site.socket(&vm), over(Options::default())).unwrap()));
    for pairs in [1, 4, 2, 3, 1] {
        card.use_pairs(pairs).unwrap();
        for (vm, sender) in &mut senders {
            let used = flows(vm, sender, &mut card);
            assert!(used.iter().all(|pair| *pair < usize::from(pairs)), "{used:?} of {pairs}");
            assert_eq!(used.len(), usize::from(pairs), "all are used");
        }
    }
    let device = shown(&site, &VM1);
    assert_eq!(device["uses"]["queue_numbers_told"], 1);
    let frames = |role: &str| {
        let rings = device["rings"].as_array().unwrap();
        rings.iter().find(|ring| ring["role"] == role).unwrap()["frames"].as_u64().unwrap()
    };
    for pair in 0..4 {
        assert!(frames(&format!("receive {pair}")) > 0, "of pair {pair}");
    }
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_driver_commands_by_the_control_queue_and_gets_as_many_pairs_as_it_asks_for() {
    commands("e2e/control-queue", Options::offloads());
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_driver_commands_by_a_packed_control_queue_and_gets_as_many_pairs_as_it_asks_for() {
    commands("e2e/control-queue-packed", Options::offloads().packed());
}

fn commands(evidence: &str, options: Options) {
    let mut site = Site::start(evidence, Plan::of(&[VM1, HONEST]).offering_packed_rings()).unwrap();
    let mut card = Card::connect(&site.socket(&VM1), options, 4, Control::PassedOn).unwrap();
    let mut sender = Peer::connect(&site.socket(&HONEST), Options::default()).unwrap();
    assert_eq!(flows(&HONEST, &mut sender, &mut card), [0], "one pair until more are asked for");
    for pairs in [4, 2] {
        card.use_pairs(pairs).unwrap();
        assert_eq!(flows(&HONEST, &mut sender, &mut card).len(), usize::from(pairs));
    }
    assert!(card.use_pairs(0).is_err() && card.use_pairs(9).is_err());
    assert_eq!(card.command(&[3, 0]).unwrap(), 0, "the announcement is acknowledged");
    // Promiscuous mode, a MAC filter, offloads: of features that are not offered.
    for unknown in [&[0, 0, 1][..], &[1, 0, 0, 0, 0, 0], &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(card.command(unknown).unwrap(), 1, "{unknown:?}");
    }
    assert_eq!(flows(&HONEST, &mut sender, &mut card).len(), 2);
    let uses = &shown(&site, &VM1)["uses"];
    assert_eq!((&uses["control_commands"], &uses["control_commands_refused"]), (&8.into(), &5.into()));
    assert_eq!(uses["announcements_acknowledged"], 1);
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_guest_changes_its_number_of_pairs_while_it_talks() {
    let mut check = Check::begin(26, "changes of pairs");
    let plan = Plan { queues: vec![(VM1.name, 4)], ..Plan::of(&[VM1, VM2]) };
    let mut site = Site::start("e2e/queue-change", plan).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    for pairs in [4, 1, 3, 4] {
        // Ten answered pings a second go on in the background, both ways.
        for (guest, target) in [(&mut *vm1, VM2.ipv4), (&mut *vm2, VM1.ipv4)] {
            guest.spawn(&format!("ping -w 20 -i 0.1 -c 30 {target}"), "/tmp/ping").unwrap();
        }
        vm1.run(&format!("ethtool -L eth0 combined {pairs}")).unwrap();
        for (target, back) in [(VM2.ipv4, VM1.ipv4), (VM2.ipv6, VM1.ipv6)] {
            let there = traffic::transfer(vm1, vm2, target, 2).unwrap();
            assert_eq!(there.sent, there.received, "{pairs} pairs, to {target}");
            let back_again = traffic::transfer(vm2, vm1, back, 2).unwrap();
            assert_eq!(back_again.sent, back_again.received, "{pairs} pairs, to {back}");
        }
        for guest in [&mut *vm1, &mut *vm2] {
            // What lies in a ring that is being disabled may go with it.
            assert!(lost(guest) <= 1, "{pairs} pairs");
        }
        let enabled = |ring: &&serde_json::Value| ring["enabled"] == true && ring["running"] == true;
        let device = shown(&site, &VM1);
        let rings = device["rings"].as_array().unwrap().iter().filter(enabled).count();
        assert_eq!(rings, 2 * pairs, "{device}");
        check.count(1);
    }
    site.daemons_must_run().unwrap();
}

/// How many pings of the background were not answered.
fn lost(guest: &mut Guest) -> u32 {
    let said = guest.run("while pidof ping > /dev/null; do sleep 0.1; done; cat /tmp/ping").unwrap();
    let summary = said.lines().find(|line| line.contains("packets transmitted")).expect(&said).to_owned();
    let mut numbers =
        summary.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u32>().ok());
    let (sent, received) = (numbers.next().unwrap(), numbers.next().unwrap());
    sent - received
}

/// Sends [`FLOWS`] flows of [`EACH`] datagrams to [`VM1`]; the pairs they came by, in order. Each came by one, and in order.
fn flows(from: &Vm, sender: &mut Peer, card: &mut Card) -> Vec<usize> {
    for place in 0..EACH {
        for flow in 0..FLOWS {
            let mut frame = datagram(from, &VM1, &[b'f', flow, place]).unwrap();
            // The source port; the checksum is zero.
            frame[35] = flow;
            sender.send(&frame).unwrap();
        }
    }
    let total = usize::from(FLOWS) * usize::from(EACH);
    let mut pairs = vec![None; usize::from(FLOWS)];
    let mut places = vec![0; usize::from(FLOWS)];
    let start = Instant::now();
    let mut got = 0;
    while got < total {
        assert!(start.elapsed() < QUIET, "{got} of {total} came");
        for (pair, frame) in card.receive(total - got, Duration::from_millis(20)).unwrap() {
            let Some([b'f', flow, place]) = frame.bytes.get(42..45) else { continue };
            let flow = usize::from(*flow);
            assert_eq!(*pairs[flow].get_or_insert(pair), pair, "flow {flow} changed its ring");
            assert_eq!(*place, places[flow], "flow {flow} is out of order");
            places[flow] += 1;
            got += 1;
        }
    }
    let mut used: Vec<usize> = pairs.into_iter().flatten().collect();
    used.sort_unstable();
    used.dedup();
    used
}

/// The device of `vm`, as `show attachments` has it.
fn shown(site: &Site, vm: &Vm) -> serde_json::Value {
    let shown = site.daemons[vm.host].show("attachments").unwrap();
    let one = shown.as_array().unwrap().iter().find(|one| one["name"] == vm.name).unwrap();
    one["device"].clone()
}
