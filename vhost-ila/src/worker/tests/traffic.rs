//! Frames between guests of one host.

use super::*;

#[test]
fn two_guests_of_one_host_talk() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        for round in 0..150u32 {
            let text = round.to_le_bytes().repeat(1 + round as usize);
            a.send(&datagram(1, 2, &text));
            let got = b.receive();
            assert_eq!(got[..6], mac(2), "addressed to the receiver");
            assert_eq!(payload_of(&got), text);
            b.send(&datagram(2, 1, &text));
            assert_eq!(payload_of(&a.receive()), text);
        }
        let workers = lab.daemon.status().workers;
        let each = 300 / workers.len() as u64;
        for worker in &workers {
            assert!(worker.packets >= each && worker.cycles_per_packet > 0, "{workers:?}");
        }
    });
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        for i in 0..100u8 {
            a.queue(&datagram(1, 2, &[i; 64]));
        }
        a.kick();
        let mut got = Vec::new();
        until("all arrive", || {
            got.extend(b.take());
            got.len() >= 100
        });
        for (i, frame) in got.iter().enumerate() {
            assert_eq!(payload_of(frame), [i as u8; 64]);
        }
    });
}

#[test]
fn a_front_end_reads_mac_and_mtu_from_the_configuration_space() {
    let lab = Lab::new(1);
    let mut guest = Guest::connect(&lab.socket(1));
    let (_, space) = guest.frontend.get_config(0, 12, VhostUserConfigFlags::empty(), &[0; 12]).unwrap();
    assert_eq!(space[..6], mac(1));
    assert_eq!(u16::from_le_bytes([space[10], space[11]]), lab.nve.mtu(lab.nve.port("vm1").unwrap()));
}

/// Nobody asked: a reload has changed what router advertisements say.
#[test]
fn a_guest_is_told_unasked_what_a_reload_has_changed() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    b.send(&datagram(2, 1, b"both are up"));
    assert_eq!(payload_of(&a.receive()), b"both are up");
    let mut changed = setup(2);
    changed.networks[0].search = vec!["blue.example".into()];
    lab.nve.apply(changed.check().unwrap()).unwrap();
    // Whatever wakes the worker; by itself it looks twice a minute.
    b.send(&datagram(2, 1, b"wake up"));
    let mut got = Vec::new();
    until("both come", || {
        got.extend(a.take());
        got.len() >= 2
    });
    got.sort_by_key(|frame| frame[12..14] == [0x86, 0xdd]);
    assert_eq!(payload_of(&got[0]), b"wake up");
    assert_eq!((got[1][20], got[1][54]), (58, 134), "ICMPv6, a router advertisement");
}
