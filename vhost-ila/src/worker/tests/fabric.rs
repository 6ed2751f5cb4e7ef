//! A vhost-user uplink: guests of our own are the application that has attached to it.

use nve_core::DropReason;
use nve_core::link::{ANSWER_LEN, Link, NextHop, link_local};
use nve_core::setup::Mapping;

use super::*;
use crate::device::features::FEATURES;

/// The MAC of host `n` on the fabric's link.
fn station(n: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0xfa, n])
}

/// Host `n` of two, with vm`n` on it; `next_hop` takes what it sends to the fabric.
fn host(n: u8, next_hop: NextHop) -> Lab {
    let mut setup = Setup { uplink_hops: 0, ..setup(2) };
    setup.host.locator = format!("2001:db8:0:{n}::/64").parse().unwrap();
    let (here, there) = setup.attachments.into_iter().partition(|vm| vm.name == format!("vm{n}"));
    let there: Vec<Attachment> = there;
    let mappings = there.iter().flat_map(|vm| vm.addresses.clone()).map(|address| Mapping {
        network: "blue".into(),
        address,
        locator: format!("2001:db8:0:{}::/64", 3 - n).parse().unwrap(),
    });
    (setup.mappings, setup.attachments) = (mappings.collect(), here);
    let dir = tempfile::tempdir().unwrap();
    let nve = Nve::new(setup.check().unwrap(), 64);
    let uplink = DeviceConfig {
        name: "uplink".into(),
        socket: dir.path().join("fabric.sock"),
        mac: station(n).0,
        ..device(dir.path(), n)
    };
    let config = DaemonConfig {
        devices: vec![device(dir.path(), n)],
        uplink: UplinkConfig::VhostUser { device: uplink, next_hop, mtu: 1500 },
        gateway: None,
        spin: Duration::ZERO,
        workers: 1,
    };
    let daemon = Daemon::start(config, Arc::clone(&nve)).unwrap();
    Lab { dir, nve, daemon }
}

/// The same, the other of the two being its next hop, and what has attached to its two sockets.
fn joined(n: u8) -> (Lab, Guest, Guest) {
    let lab = host(n, NextHop::Station(station(3 - n)));
    let (vm, fabric) = (Guest::connect(&lab.socket(n)), lab.fabric());
    (lab, vm, fabric)
}

impl Lab {
    /// Whoever attaches to the uplink's socket.
    fn fabric(&self) -> Guest {
        Guest::connect(&self.dir.path().join("fabric.sock"))
    }

    fn uplink_drops(&self, reason: DropReason) -> u64 {
        self.nve.counters().uplink.dropped(reason)
    }

    fn uplink_fault(&self, role: Role) -> Option<String> {
        let report = self.daemon.fabric().unwrap();
        report.rings.into_iter().find(|ring| ring.role == role).unwrap().fault
    }
}

#[test]
fn neighbours_talk_through_two_daemons_whose_uplinks_are_joined() {
    let ((one, mut vm1, mut fabric1), (two, mut vm2, mut fabric2)) = (joined(1), joined(2));
    for size in [1, 100, 1400] {
        let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
        vm1.send(&datagram(1, 2, &payload));
        let wire = fabric1.receive();
        assert_eq!(wire[..14], [&station(2).0[..], &station(1).0, &[0x86, 0xdd]].concat());
        assert_eq!((wire.len(), wire[21]), (14 + 48 + size, 64), "no hop is given back");
        assert_eq!(wire[38..46], [0x20, 1, 0xd, 0xb8, 0, 0, 0, 2]);
        fabric2.send(&wire);
        let got = vm2.receive();
        assert_eq!((payload_of(&got), got[22]), (&payload[..], 64));

        vm2.send(&datagram(2, 1, &payload));
        fabric1.send(&fabric2.receive());
        assert_eq!(payload_of(&vm1.receive()), payload);
    }
    for lab in [&one, &two] {
        let uplink = lab.nve.counters().uplink;
        assert_eq!((uplink.in_packets, uplink.out_packets, uplink.all_drops()), (3, 3, 0));
    }
}

/// A frame from vm1 to `to`, of `len` bytes, the last two of which say which it is.
fn numbered(number: u16, to: &str, len: usize) -> Vec<u8> {
    let mut frame = stepped::frame(1, to, len);
    frame[len - 2..].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn frames_that_leave_arrive_in_order_and_alike_however_they_go() {
    // Whatever goes another way ends the train: what is too long, of the other family, or without a checksum. And longer than what is copied.
    let kinds = [("10.1.0.2", 64), ("10.1.0.2", 120), ("10.1.0.2", 1200), ("10.1.0.2", 1400)];
    let kinds = kinds.into_iter().chain([("2001:db8:b1:e::2", 90), ("10.1.0.2", 128), ("10.1.0.2", 146)]);
    let kinds: Vec<_> = kinds.collect();
    let (one, mut vm1, mut fabric) = joined(1);
    let mut seen: Vec<Option<Vec<u8>>> = vec![None; kinds.len()];
    let mut number = 0;
    for round in 0..60 {
        let order: Vec<usize> =
            (0..20).map(|i| if i < round % 20 { 0 } else { (i * 5 + round) % kinds.len() }).collect();
        for (place, kind) in order.iter().enumerate() {
            let (to, len) = kinds[*kind];
            vm1.queue(&numbered(number + place as u16, to, len));
        }
        vm1.kick();
        let mut came = Vec::new();
        until("all of them arrive", || {
            came.extend(fabric.take());
            came.len() >= order.len()
        });
        for (kind, mut frame) in order.into_iter().zip(came) {
            let end = frame.len() - 2;
            assert_eq!(frame[end..], number.to_be_bytes());
            frame[end..].fill(0);
            let first = seen[kind].get_or_insert_with(|| frame.clone());
            assert_eq!(*first, frame, "round {round}, {:?}", kinds[kind]);
            number += 1;
        }
    }
    let counters = one.nve.counters();
    assert_eq!((counters.uplink.out_packets, one.drops(1, DropReason::UplinkFull)), (number.into(), 0));
}

#[test]
fn what_a_link_pads_is_cut_off() {
    let ((_one, mut vm1, mut fabric1), (_two, mut vm2, mut fabric2)) = (joined(1), joined(2));
    vm1.send(&datagram(1, 2, b"short"));
    let mut wire = fabric1.receive();
    wire.extend([0xee; 30]);
    fabric2.send(&wire);
    let got = vm2.receive();
    assert_eq!((payload_of(&got), got.len()), (&b"short"[..], 42 + 5));
}

#[test]
fn nothing_leaves_before_the_next_hop_has_said_its_mac() {
    let router = station(0xfe);
    let address = link_local(router);
    let lab = host(1, NextHop::Router(address));
    let mut vm1 = Guest::connect(&lab.socket(1));
    vm1.send(&datagram(1, 2, b"nobody"));
    until("nobody is attached", || lab.drops(1, DropReason::UplinkDown) == 1);

    let mut fabric = lab.fabric();
    let question = fabric.receive();
    vm1.send(&datagram(1, 2, b"too early"));
    until("it is not known", || lab.drops(1, DropReason::NextHopUnknown) == 1);

    let mut end = Link::new(router, ["2001:db8:0:9::/64".parse().unwrap()], NextHop::Station(station(1)));
    let mut answer = [0; ANSWER_LEN];
    let len = end.hear(Duration::ZERO, &question, &mut answer).unwrap().unwrap();
    fabric.send(&answer[..len]);
    let mut wire = Vec::new();
    until("it is known", || {
        vm1.send(&datagram(1, 2, b"now"));
        std::thread::sleep(Duration::from_millis(5));
        // Another question may have come meanwhile.
        wire = fabric.take().into_iter().find(|frame| frame[20] == 17).unwrap_or_default();
        !wire.is_empty()
    });
    assert_eq!(wire[..12], [router.0, station(1).0].concat());
    assert_eq!(lab.nve.counters().uplink.all_drops(), 0);
}

#[test]
fn frames_that_are_not_for_us_are_dropped_by_name_and_the_next_one_arrives() {
    let ((_one, mut vm1, mut fabric1), (two, mut vm2, mut fabric2)) = (joined(1), joined(2));
    vm1.send(&datagram(1, 2, b"good"));
    let good = fabric1.receive();
    let changed = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        frame
    };
    for (frame, reason) in [
        (changed(5, 0x77), DropReason::ForeignMac),
        (changed(13, 6), DropReason::EtherType),
        (good[..13].to_vec(), DropReason::Malformed),
        (good[..50].to_vec(), DropReason::Malformed),
        (good[..60].to_vec(), DropReason::Malformed),
        (changed(45, 7), DropReason::NotOurs),
        (changed(22, 0xff), DropReason::IllegalSource),
        (changed(21, 0), DropReason::HopLimit),
    ] {
        let before = two.uplink_drops(reason);
        fabric2.send(&frame);
        until(reason.name(), || two.uplink_drops(reason) == before + 1);
        fabric2.send(&good);
        assert_eq!(payload_of(&vm2.receive()), b"good");
    }
}

#[test]
fn a_fabric_that_breaks_its_rings_costs_no_attachment_and_may_come_again() {
    let lab = host(1, NextHop::Station(station(2)));
    let (mut vm1, mut fabric) = (Guest::connect(&lab.socket(1)), lab.fabric());
    vm1.send(&datagram(1, 2, b"whole"));
    assert_eq!(fabric.receive()[13], 0xdd);

    fabric.tx.expose_index(&fabric.ram, 30_000);
    fabric.tx_events.0.write(1).unwrap();
    until("its transmit ring is stopped", || lab.uplink_fault(Role::Transmit(0)).is_some());
    vm1.send(&datagram(1, 2, b"still"));
    assert_eq!(payload_of(&fabric.receive()[20..]), b"still", "the other ring goes on");

    fabric.rx.expose_index(&fabric.ram, 30_000);
    // What was looked at ahead is still used.
    until("its receive ring is stopped", || {
        vm1.send(&datagram(1, 2, b"lost"));
        std::thread::sleep(Duration::from_millis(1));
        lab.drops(1, DropReason::UplinkDown) > 0
    });
    assert!(lab.uplink_fault(Role::Receive(0)).is_some());
    assert!(lab.transmit_fault(1).is_none() && lab.report(1).connected);

    drop(fabric);
    let mut fabric = lab.fabric();
    vm1.send(&datagram(1, 2, b"again"));
    assert_eq!(payload_of(&fabric.receive()[20..]), b"again");
}

#[test]
fn what_the_fabrics_driver_does_not_take_is_finished_before() {
    let lab = host(1, NextHop::Station(station(2)));
    let socket = lab.dir.path().join("fabric.sock");
    let bit = |name: &str| match FEATURES.iter().find(|f| f.name == name && f.switch).unwrap().bit {
        crate::device::features::Bit::Virtio(bit) => 1_u64 << bit,
        crate::device::features::Bit::Protocol(_) => 0,
    };
    let mut vm1 = Guest::connect(&lab.socket(1));
    let guest_csum = ["guest_csum", "guest_tso4", "guest_tso6", "guest_ecn"].map(bit).iter().sum::<u64>();
    for takes in [true, false] {
        let features = if takes { accepted() } else { accepted() & !guest_csum };
        let mut fabric = Guest::with_features(&socket, features);
        // A checksum of which only the pseudo header's is there (virtio 1.2, 5.1.6.2): UDP from 34 on, its checksum 6 behind that.
        let mut frame = datagram(1, 2, b"partial");
        let sum: u32 = frame[26..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = sum + 17 + 15;
        frame[40..42].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
        vm1.queue(&frame);
        let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0];
        vm1.ram.write(TX_DATA + BUFFER * ((vm1.sent - 1) % 128), &header);
        vm1.kick();
        let got = fabric.receive();
        let gpa = fabric.rx_buffers.clone();
        assert_eq!(&got[62..], b"partial", "{gpa:x?}");
        let words =
            got[22..].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])));
        let sum = words.sum::<u32>() + 17 + 15;
        let folded = (sum & 0xffff) + (sum >> 16);
        assert_eq!(folded == 0xffff, !takes, "complete only where it must be: {folded:x}");
    }
}
