//! Guests and front-ends that mean harm: the fault is named, and the others do not notice.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::conversation::Listener;
use super::*;
use crate::device::ring::RingFault;

/// One message, well-formed or not, to a session of its own; returns when that has ended.
fn one_message(lab: &Lab, request: u32, flags: u32, payload: &[u8], fds: &[i32]) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stop = Stop::new().unwrap();
    let port = lab.nve.port("vm3").unwrap();
    let config = device(lab.dir.path(), 3);
    let status = Arc::new(Status::new(config.offer));
    let session = Session::new(Arc::clone(&lab.nve), port, &config, lab.daemon.workers.link.clone(), status);
    let header = [request, flags, payload.len() as u32].map(u32::to_ne_bytes).concat();
    ours.send_with_fds(&[&header[..]], fds).unwrap();
    // A session that has ended already takes no more.
    let _ = (&ours).write_all(payload);
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = connection::serve(theirs, session, &stop);
}

#[test]
fn a_broken_ring_stops_alone_and_is_named() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let c = Guest::connect(&lab.socket(3));
    c.tx.expose_index(&c.ram, 0x4000);
    c.tx_events.0.write(1).unwrap();
    until("named", || lab.transmit_fault(3).is_some());
    assert_eq!(lab.transmit_fault(3), Some(RingFault::AvailableIndex.to_string()));
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here");
    assert!(lab.report(3).connected);
}

#[test]
fn memory_cut_off_under_a_ring_stops_that_attachment_only() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let c = Guest::connect(&lab.socket(3));
    c.ram.file.set_len(0).unwrap();
    c.tx_events.0.write(1).unwrap();
    until("named", || lab.transmit_fault(3).is_some());
    assert_eq!(lab.transmit_fault(3), Some(RingFault::Memory.to_string()));
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here");
}

#[test]
fn a_refused_message_closes_that_connection_with_a_reason() {
    let lab = Lab::new(1);
    type Attack = fn(&mut Guest) -> bool;
    let attacks: [(&str, Attack); 7] = [
        ("a ring size that is no power of two", |g| g.frontend.set_vring_num(1, 100).is_err()),
        ("a ring that does not exist", |g| g.frontend.set_vring_num(17, 128).is_err()),
        ("a feature never offered", |g| g.frontend.set_features(1 << 34).is_err()),
        ("a second owner", |g| g.frontend.set_owner().is_err()),
        ("a protocol feature never offered", |g| {
            // The crate does not wait for the answer to this one.
            g.frontend.set_protocol_features(VhostUserProtocolFeatures::STATUS).is_ok()
        }),
        ("a region longer than its file", |g| {
            let region = VhostUserMemoryRegionInfo {
                guest_phys_addr: 0x1000_0000,
                memory_size: 0x100_0000,
                userspace_addr: 0x1000_0000,
                mmap_offset: 0,
                mmap_handle: g.ram.fd(),
            };
            g.frontend.add_mem_region(&region).is_err()
        }),
        ("a region nobody added", |g| {
            let region = VhostUserMemoryRegionInfo {
                guest_phys_addr: 0x1000_0000,
                memory_size: 0x1000,
                userspace_addr: 0x1000_0000,
                mmap_offset: 0,
                mmap_handle: g.ram.fd(),
            };
            g.frontend.remove_mem_region(&region).is_err()
        }),
    ];
    for (what, attack) in attacks {
        let mut guest = Guest::connect(&lab.socket(1));
        assert!(attack(&mut guest), "{what}");
        until(what, || !lab.report(1).connected);
        assert!(lab.report(1).last_fault.is_some(), "{what}");
    }
}

#[test]
fn any_message_ends_at_most_its_own_connection_and_leaves_nothing_behind() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let memory = Ram::new(&REGIONS);
    let event = EventFd::new(0).unwrap();
    let (pipe, _writer) = io::pipe().unwrap();
    let descriptors: [&[i32]; 5] =
        [&[], &[event.as_raw_fd()], &[memory.fd()], &[pipe.as_raw_fd()], &[event.as_raw_fd(); 33]];
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let mut round = 0u8;
    for request in 0..64 {
        for size in [0, 4, 8, 12, 40, 64, 4096, 5000] {
            for fds in descriptors {
                round = round.wrapping_mul(5).wrapping_add(17);
                let flags = [1, 1, 9, 9, 5, 0, 3, u32::MAX][usize::from(round >> 5)];
                let payload: Vec<u8> = (0..size).map(|i| if i % 8 == 0 { round } else { 0 }).collect();
                one_message(&lab, request, flags, &payload, fds);
            }
        }
    }
    // Other tests of this process have some of their own open.
    until("descriptors are back", || open() < before + 100);
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here");
}

#[test]
fn a_call_descriptor_that_would_block_costs_nobody_anything() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let mut c = Guest::connect(&lab.socket(3));
    // Full, and blocking.
    let trap = EventFd::new(0).unwrap();
    trap.write(u64::MAX - 1).unwrap();
    c.frontend.set_vring_call(0, &trap).unwrap();
    for i in 0..50 {
        a.send(&datagram(1, 3, &[i; 10]));
        a.send(&datagram(1, 2, &[i; 10]));
        assert_eq!(payload_of(&b.receive()), [i; 10]);
    }
    until("all arrived without a signal", || {
        c.sent += c.take().len() as u64;
        c.sent >= 50
    });
}

#[test]
fn any_conversation_leaves_nothing_behind() {
    let mut listener = Listener::new(nve(1), "vm1").unwrap();
    let scripts = proptest::collection::vec(any::<u8>(), 0..300);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..2000 {
        let script = scripts.new_tree(&mut runner).unwrap().current();
        listener.hear(&script);
    }
}

#[test]
fn more_memory_than_an_attachment_may_have_is_refused_by_name_and_hurts_nobody_else() {
    let lab = Lab::new(2);
    let small = DeviceConfig { memory_max: 1 << 20, ..device(lab.dir.path(), 1) };
    lab.daemon.apply(&[small, device(lab.dir.path(), 2)]).unwrap();
    let mut b = Guest::connect(&lab.socket(2));
    let refused = Frontend::connect(lab.socket(1), 4).unwrap();
    let ram = Ram::new(&[(0, 2 << 20)]);
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: 2 << 20,
        userspace_addr: 0x1000_0000,
        mmap_offset: 0,
        mmap_handle: ram.fd(),
    };
    refused.set_owner().unwrap();
    drop(refused.set_mem_table(&[region]));
    until("refused", || lab.report(1).last_fault.is_some());
    assert!(lab.report(1).last_fault.unwrap().contains("memory_max"));
    // As much as it has is its own to use.
    b.send(&datagram(2, 2, b"still here"));
    until("taken", || b.tx.take_used(&b.ram).len() == 1);
}
