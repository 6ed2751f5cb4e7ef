//! A fabric that loses, reorders and is narrower than promised.

use core::time::Duration;

use nve_core::packet::Offload;
use nve_core::testkit::World;
use nve_core::testkit::dissect::Dissected;
use nve_core::testkit::frames::{self, Header};

use crate::{GATEWAY, VM1, VM2, address, endpoint, two_hosts, two_hosts_by_hand};

#[test]
fn tcp_survives_a_fabric_that_loses_one_packet_in_twenty() {
    let mut world = two_hosts().start();
    world.link("hv2").loss_per_mille = 50;
    for to in VM2 {
        let mark = world.mark();
        let took = world.transfer("vm1", "vm2", to, 200_000);
        assert!(took.is_ok(), "{to}: {took:?}");
        let sent = world.sent_on_link("hv1", mark).len();
        let arrived = world.received_on_link("hv2", mark).len();
        assert!(sent > arrived, "{to}: {sent} sent, {arrived} arrived: nothing was lost");
    }
}

#[test]
fn tcp_survives_packets_that_overtake_each_other() {
    let mut world = two_hosts().start();
    world.link("hv2").late_per_mille = 100;
    for to in VM2 {
        let took = world.transfer("vm1", "vm2", to, 200_000);
        assert!(took.is_ok(), "{to}: {took:?}");
    }
}

/// What `guest` got since `mark`, which must be one ICMP error from the gateway about `sent`.
fn the_error<'w>(world: &'w World, guest: &str, mark: usize, sent: &[u8]) -> Dissected<'w> {
    let records = world.received(guest, mark);
    assert_eq!(records.len(), 1, "{records:?}");
    let view = records[0].ip().expect("an IP packet");
    let sent = Dissected::of_ip(sent).expect("an IP packet");
    assert_eq!(view.source, address(GATEWAY[usize::from(sent.version == 6)]), "from the gateway");
    assert_eq!(view.destination, sent.source);
    let quote = view.icmp_error().expect("an ICMP error").quote;
    let quote = Dissected::of_ip(quote).expect("a quoted packet");
    assert_eq!((quote.source, quote.destination), (sent.source, sent.destination), "in the sender's words");
    assert_eq!((quote.total_len, quote.ports()), (sent.total_len, sent.ports()));
    assert!(sent.transport.starts_with(quote.transport), "the quoted bytes are those sent");
    assert!(quote.transport.len() >= 8);
    view
}

#[test]
fn a_narrow_fabric_tells_an_ipv6_guest_its_mtu() {
    let mut world = two_hosts_by_hand().start();
    world.link("hv2").mtu = 1400;
    let packet = |len: usize| {
        frames::udp(Header::default(), endpoint(VM1[1], 1), endpoint(VM2[1], 2), &vec![0x5a; len - 48])
    };
    let (large, mark) = (packet(1401), world.mark());
    world.send("vm1", &large, Offload::NONE);
    world.run_for(Duration::from_secs(1));
    let error = the_error(&world, "vm1", mark, &large).icmp_error().expect("an error");
    assert_eq!((error.kind, error.code, error.word), (2, 0, 1400));
    assert_eq!(world.received("vm2", mark).len(), 0);

    let (fits, mark) = (packet(1400), world.mark());
    world.send("vm1", &fits, Offload::NONE);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.received("vm2", mark).len(), 1, "what fits passes");
}

#[test]
fn a_narrow_fabric_tells_an_ipv4_guest_its_mtu_in_its_own_family() {
    let mut world = two_hosts_by_hand().start();
    world.link("hv2").mtu = 1400;
    let packet = |len: usize| {
        frames::udp(Header::default(), endpoint(VM1[0], 1), endpoint(VM2[0], 2), &vec![0x5a; len - 28])
    };
    let (large, mark) = (packet(1381), world.mark());
    world.send("vm1", &large, Offload::NONE);
    world.run_for(Duration::from_secs(1));
    let error = the_error(&world, "vm1", mark, &large).icmp_error().expect("an error");
    assert_eq!((error.kind, error.code, error.word), (3, 4, 1380));
    assert_eq!(world.received("vm2", mark).len(), 0);

    let (fits, mark) = (packet(1380), world.mark());
    world.send("vm1", &fits, Offload::NONE);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.received("vm2", mark).len(), 1, "what fits passes");
}
