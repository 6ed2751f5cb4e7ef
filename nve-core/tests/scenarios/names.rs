//! Names by the gateway, in virtual time: an answer of a host's resolvers for whoever asked, on its own host, and for nobody else.

use core::net::SocketAddr;
use core::time::Duration;

use nve_core::DropReason;
use nve_core::addr::ChecksumMode::Neutral;
use nve_core::packet::Offload;
use nve_core::testkit::dissect::Dissected;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, World};

use crate::{VM1, VM2, endpoint, two_hosts_in};

const SILENT: &str = "192.0.2.53:53";
const SPEAKING: &str = "[2001:db8:53::53]:53";
const QUESTION: &[u8] = b"\x03www\x07example\0\0\x01\0\x01";
const GATEWAYS: [[&str; 3]; 2] =
    [["10.1.255.254", "10.1.255.254", "10.1.255.254"], ["2001:db8:b1:e::ffff:fffe", "fe80::1", "fe80::1"]];

/// Two guests on two hosts, whose first resolver never answers.
fn world() -> World {
    let mut world = two_hosts_in(Neutral, Neutral)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_hand())
        .start();
    for host in ["hv1", "hv2"] {
        let servers = || [SILENT, SPEAKING].map(|server| server.parse().expect("an address")).to_vec();
        world.reload(host, |setup| setup.networks[0].dns_forward = servers()).expect("a good setup");
        world.resolver(host, |server, question| {
            let answer = || {
                let mut answer = question.to_vec();
                answer[2] |= 0x80;
                answer.extend_from_slice(b"record");
                answer
            };
            (server == SPEAKING.parse::<SocketAddr>().expect("an address")).then(answer)
        });
    }
    world
}

fn ask(world: &mut World, guest: &str, from: &str, to: &str, id: u8) {
    let question = [&[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], QUESTION].concat();
    let packet = frames::udp(Header::default(), endpoint(from, 40_000), endpoint(to, 53), &question);
    world.send(guest, &packet, Offload::NONE);
}

/// Identifications and codes of the answers that a guest got from the gateway since `mark`.
fn answers(world: &World, guest: &str, mark: usize) -> Vec<(u8, u8)> {
    let read = |bytes: &[u8]| {
        let fields = Dissected::of_frame(bytes)?;
        let payload = fields.payload();
        (fields.ports() == Some((53, 40_000))).then(|| (payload[1], payload[3] & 15))
    };
    world.received(guest, mark).iter().filter_map(|record| read(&record.bytes)).collect()
}

#[test]
fn each_guest_is_answered_by_the_resolvers_of_its_own_host() {
    let mut world = world();
    for family in [0, 1] {
        for (number, gateway) in (1..).zip(GATEWAYS[family]) {
            let id = family as u8 * 10 + number;
            let mark = world.mark();
            ask(&mut world, "vm1", VM1[family], gateway, id);
            ask(&mut world, "vm2", VM2[family], gateway, id + 100);
            // The first time the silent one is waited for; then the one that spoke is asked first.
            let patience = if (family, number) == (0, 1) { 1300 } else { 10 };
            world.run_for(Duration::from_millis(patience));
            assert_eq!(answers(&world, "vm1", mark), [(id, 0)], "by {gateway}");
            assert_eq!(answers(&world, "vm2", mark), [(id + 100, 0)], "by {gateway}");
        }
    }
    assert_eq!(world.counters("vm1").dropped(DropReason::DnsForged), 0);
}

#[test]
fn a_guest_whose_host_has_no_resolver_that_speaks_hears_so_and_the_other_is_answered() {
    let mut world = world();
    world.resolver("hv1", |_, _| None);
    let mark = world.mark();
    ask(&mut world, "vm1", VM1[0], GATEWAYS[0][0], 1);
    ask(&mut world, "vm2", VM2[0], GATEWAYS[0][0], 2);
    world.run_for(Duration::from_millis(4700));
    assert_eq!(answers(&world, "vm1", mark), []);
    world.run_for(Duration::from_millis(200));
    assert_eq!((answers(&world, "vm1", mark), answers(&world, "vm2", mark)), (vec![(1, 2)], vec![(2, 0)]));
}
