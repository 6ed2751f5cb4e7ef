//! Front-ends, rings and memory that come and go.

use super::*;

#[test]
fn a_new_front_end_takes_over_after_the_old_one_died() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut b = Guest::connect(&lab.socket(2));
        for round in 1..=5u8 {
            let mut a = Guest::connect(&lab.socket(1));
            a.send(&datagram(1, 2, &[round; 10]));
            assert_eq!(payload_of(&b.receive()), [round; 10]);
            b.send(&datagram(2, 1, &[round; 20]));
            assert_eq!(payload_of(&a.receive()), [round; 20]);
        }
        until("gone", || !lab.report(1).connected);
        let before = lab.drops(2, nve_core::DropReason::ReceiverDown);
        b.send(&datagram(2, 1, &[0; 20]));
        until("dropped by name", || lab.drops(2, nve_core::DropReason::ReceiverDown) == before + 1);
        assert_eq!(lab.report(1).connections, 5);
    });
}

#[test]
fn a_stopped_ring_says_where_it_was_and_goes_on_from_there() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        for i in 0..3 {
            a.send(&datagram(1, 2, &[i; 10]));
            b.receive();
        }
        assert_eq!(a.stop(1), 3);
        assert_eq!(b.stop(0), 3);
        a.send(&datagram(1, 2, &[7; 10]));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(b.take(), Vec::<Vec<u8>>::new(), "nothing moves while stopped");
        b.start(0);
        a.start(1);
        assert_eq!(payload_of(&b.receive()), [7; 10]);
    });
}

/// QEMU says what it said at first, as the daemon that died has told it nothing since.
#[test]
fn a_ring_goes_on_where_it_was_though_the_front_end_only_knows_where_it_began() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        let first = a.bases;
        // Over the ring's end, so that the wrap counter has changed.
        for i in 0..300u32 {
            if i % 50 == 49 {
                a.stop(1);
                b.stop(0);
                (a.bases, b.bases) = (first, first);
                a.send(&datagram(1, 2, &i.to_le_bytes()));
                b.start(0);
                a.start(1);
            } else {
                a.send(&datagram(1, 2, &i.to_le_bytes()));
            }
            assert_eq!(payload_of(&b.receive()), i.to_le_bytes());
        }
    });
}

#[test]
fn a_ring_that_was_stopped_and_started_still_tells_of_its_fault() {
    let lab = Lab::new(1);
    let mut a = Guest::connect(&lab.socket(1));
    let error = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    a.frontend.set_vring_err(1, &error).unwrap();
    a.frontend.get_vring_base(1).unwrap();
    a.start(1);
    a.tx.expose_index(&a.ram, 0x4000);
    a.tx_events.0.write(1).unwrap();
    until("told", || error.read().is_ok());
}

#[test]
fn a_disabled_transmit_ring_is_emptied_into_nowhere_and_a_disabled_receive_ring_gets_nothing() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        a.frontend.set_vring_enable(1, false).unwrap();
        a.send(&datagram(1, 2, &[1; 10]));
        until("given back", || a.tx.take_used(&a.ram).len() == 1);
        a.frontend.set_vring_enable(1, true).unwrap();
        b.frontend.set_vring_enable(0, false).unwrap();
        a.send(&datagram(1, 2, &[2; 10]));
        until("dropped by name", || lab.drops(1, nve_core::DropReason::ReceiverDown) == 2);
        b.frontend.set_vring_enable(0, true).unwrap();
        a.send(&datagram(1, 2, &[3; 10]));
        assert_eq!(payload_of(&b.receive()), [3; 10], "neither of the first two");
    });
}

#[test]
fn live_changes_of_call_memory_and_features_lose_nothing() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        for i in 0..20u8 {
            b.rx_events.1 = EventFd::new(libc::EFD_NONBLOCK).unwrap();
            b.frontend.set_vring_call(0, &b.rx_events.1).unwrap();
            a.share_memory();
            b.share_memory();
            a.tx_events.0 = EventFd::new(libc::EFD_NONBLOCK).unwrap();
            a.frontend.set_vring_kick(1, &a.tx_events.0).unwrap();
            a.frontend.set_features(accepted()).unwrap();
            a.send(&datagram(1, 2, &[i; 10]));
            assert_eq!(payload_of(&b.receive()), [i; 10]);
        }
    });
}

#[test]
fn a_region_can_be_added_and_removed_under_traffic() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        let extra = Ram::new(&[(0x1000_0000, 0x10_0000)]);
        let info = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0x1000_0000,
            memory_size: 0x10_0000,
            userspace_addr: 0x1000_0000,
            mmap_offset: 0,
            mmap_handle: extra.fd(),
        };
        assert_eq!(a.frontend.get_max_mem_slots().unwrap(), 64);
        a.frontend.add_mem_region(&info).unwrap();
        let frame = datagram(1, 2, b"from the new memory");
        extra.write(0x1000_0000 + 12, &frame);
        let buffer = Buffer { gpa: 0x1000_0000, len: 12 + frame.len() as u32, writable: false };
        a.tx.offer(&a.ram, &[buffer]);
        a.kick();
        assert_eq!(payload_of(&b.receive()), b"from the new memory");
        a.frontend.remove_mem_region(&info).unwrap();
        a.send(&datagram(1, 2, b"from the old"));
        assert_eq!(payload_of(&b.receive()), b"from the old");
        a.tx.offer(&a.ram, &[buffer]);
        a.kick();
        until("the hole is named", || lab.transmit_fault(1).is_some());
    });
}

#[test]
fn descriptors_and_mappings_return_to_what_they_were() {
    let lab = Lab::new(2);
    let count = |what: &str| match what {
        "fd" => std::fs::read_dir("/proc/self/fd").unwrap().count(),
        _ => std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:guest").count(),
    };
    // Other tests of this process open and close things too: the least of many looks is compared.
    let least = |what: &str| (0..50).map(|_| count(what)).min().unwrap();
    drop(Guest::connect(&lab.socket(1)));
    until("gone", || !lab.report(1).connected);
    let before = least("fd");
    for _ in 0..60 {
        let mut guest = Guest::connect(&lab.socket(1));
        guest.send(&datagram(1, 2, &[0; 10]));
    }
    until("gone", || !lab.report(1).connected);
    until("descriptors are back", || least("fd") <= before + 50);
}

#[test]
fn a_client_connects_again_and_again() {
    let lab = Lab::new(1);
    let path = lab.dir.path().join("front-end.sock");
    let config = DeviceConfig { socket: path.clone(), mode: SocketMode::Client, ..device(lab.dir.path(), 1) };
    lab.daemon.apply(&[config]).unwrap();
    for _ in 0..3 {
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap(), Offer::default().virtio());
        drop(listener);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_attachment_can_be_removed_and_added_while_others_run() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let one = [device(lab.dir.path(), 1)];
    let both = [device(lab.dir.path(), 1), device(lab.dir.path(), 2)];
    for _ in 0..3 {
        let mut b = Guest::connect(&lab.socket(2));
        a.send(&datagram(1, 2, b"hello"));
        assert_eq!(payload_of(&b.receive()), b"hello");
        lab.daemon.apply(&one).unwrap();
        assert!(!lab.socket(2).exists());
        lab.daemon.apply(&both).unwrap();
    }
    let unknown = DeviceConfig { name: "nobody".into(), ..device(lab.dir.path(), 9) };
    assert_eq!(lab.daemon.apply(&[unknown]).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_request_wakes_a_worker_about_once() {
    const ROUNDS: u64 = 100;
    with_one_and_two_workers(|| {
        let lab = Lab::new(1);
        let mut guest = Guest::connect(&lab.socket(1));
        let sleeps = || lab.daemon.workers().iter().map(|worker| worker.sleeps).max().unwrap();
        let before = sleeps();
        for _ in 0..ROUNDS {
            guest.stop(0);
            guest.start(0);
        }
        // A stop and a start, a pass of all workers where there are several, and wakes that come late: one each.
        let slept = sleeps() - before;
        assert!(slept <= 20 * ROUNDS, "{slept} sleeps");
    });
}
