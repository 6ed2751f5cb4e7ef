//! Front-ends that migrate their guests: what we write is marked in their log, while they want it.

use vhost::VhostUserDirtyLogRegion;

use super::pairs::{send_flows, with_two_pairs};
use super::*;

const PAGE: u64 = 4096;

/// A log file of so many bytes.
fn log_of(bytes: u64) -> Ram {
    Ram::new(&[(0, bytes)])
}

fn take_marks(log: &Ram) -> Vec<u64> {
    let len = log.regions[0].len;
    let bytes = log.read(0, len as usize);
    log.write(0, &vec![0; len as usize]);
    (0..8 * len).filter(|page| bytes[(page / 8) as usize] & 1 << (page % 8) != 0).collect()
}

impl Guest {
    fn set_log(&self, log: &Ram, bytes: u64) -> bool {
        let region = VhostUserDirtyLogRegion { mmap_size: bytes, mmap_offset: 0, mmap_handle: log.fd() };
        self.frontend.set_log_base(0, Some(region)).is_ok()
    }

    /// As QEMU does it when a migration begins, fails or ends.
    fn set_logging(&self, on: bool) {
        self.frontend.set_features(if on { accepted() | LOG_ALL } else { accepted() }).unwrap();
        for (index, driver) in [(0, &self.rx), (1, &self.tx)] {
            let at = driver.front_end_addresses();
            let config = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: u32::from(on),
                desc_table_addr: at.descriptors,
                used_ring_addr: at.used,
                avail_ring_addr: at.available,
                log_addr: on.then_some(driver.at.used),
            };
            self.frontend.set_vring_addr(index, &config).unwrap();
        }
    }

    fn memory(&self) -> Vec<u8> {
        let end = REGIONS.iter().map(|(gpa, len)| gpa + len).max().unwrap();
        self.ram.read(0, end as usize)
    }
}

fn changed(before: &[u8], after: &[u8]) -> Vec<u64> {
    let pages = before.chunks(PAGE as usize).zip(after.chunks(PAGE as usize)).enumerate();
    pages.filter(|(_, (old, new))| old != new).map(|(page, _)| page as u64).collect()
}

#[test]
fn what_is_written_is_marked_while_logging_is_on_and_only_then() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        let log = log_of(0x1000);
        assert!(b.set_log(&log, 0x1000));
        for round in 0..5u8 {
            a.send(&datagram(1, 2, &[round; 900]));
            b.receive();
            assert!(take_marks(&log).is_empty(), "a log alone logs nothing");
            let (before, marked) = (b.memory(), lab.report(2).pages_marked);
            b.set_logging(true);
            assert!(lab.report(2).logging);
            for i in 0..20 {
                a.send(&datagram(1, 2, &[0x80 | i; 1200]));
                // Nothing is offered again: what is compared is what the device wrote.
                until("a frame arrives", || b.rx.take_used(&b.ram).len() == 1);
            }
            let changed = changed(&before, &b.memory());
            let marks = take_marks(&log);
            // The transmit ring's used.idx did not move; its flags or event index may have.
            let missing: Vec<_> = changed.iter().filter(|page| !marks.contains(page)).collect();
            assert!(missing.is_empty(), "round {round}: {missing:x?} changed and are not marked");
            let known =
                |page: &u64| changed.contains(page) || *page >= TX_RING / PAGE && *page < RX_DATA / PAGE;
            assert!(marks.iter().all(known), "round {round}: {marks:x?} are more than {changed:x?}");
            assert!(marks.len() > 10);
            assert_eq!(lab.report(2).pages_marked - marked, marks.len() as u64, "each was marked once anew");
            b.set_logging(false);
            assert!(!lab.report(2).logging);
            take_marks(&log);
            for i in 0..20u64 {
                b.offer(RX_DATA + BUFFER * (20 * u64::from(round) + i));
            }
            b.rx.expose(&b.ram);
        }
        assert_eq!(lab.report(1).pages_marked, 0, "the neighbour logs nothing");
    });
}

#[test]
fn every_pair_marks_what_it_writes() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let (mut b, mut second) = with_two_pairs(&lab, 2, accepted());
        let log = log_of(0x1000);
        assert!(b.set_log(&log, 0x1000));
        let before = b.memory();
        b.frontend.set_features(accepted() | LOG_ALL).unwrap();
        send_flows(&mut a, 20, 3);
        let (mut by_first, mut by_second) = (0, 0);
        until("all arrive", || {
            by_first += b.rx.take_used(&b.ram).len();
            by_second += second.take(&b).len();
            by_first + by_second == 60
        });
        assert!(by_first > 6 && by_second > 6, "{by_first} and {by_second}");
        // The worker has let go of the rings when this is answered, and of all marks with them.
        b.frontend.set_features(accepted()).unwrap();
        let marks = take_marks(&log);
        let changed = changed(&before, &b.memory());
        let missing: Vec<_> = changed.iter().filter(|page| !marks.contains(page)).collect();
        assert!(missing.is_empty(), "{missing:x?} changed and are not marked");
        assert!(
            changed.contains(&(second.driver.at.used / PAGE)),
            "the second pair's used ring is among them"
        );
    });
}

#[test]
fn a_ring_that_is_to_log_waits_for_its_log() {
    over_both_kinds(|| {
        let lab = Lab::new(2);
        let mut a = Guest::connect(&lab.socket(1));
        let mut b = Guest::connect(&lab.socket(2));
        b.set_logging(true);
        let fault = lab.ring(2, Role::Receive(0)).fault.unwrap();
        assert!(fault.contains("given no log"), "{fault}");
        b.queue(&datagram(2, 1, b"from before"));
        b.kick();
        std::thread::sleep(Duration::from_millis(20));
        assert!(a.take().is_empty(), "nothing is written unmarked");
        let log = log_of(0x1000);
        assert!(b.set_log(&log, 0x1000));
        assert_eq!(payload_of(&a.receive()), b"from before");
        assert_eq!(lab.ring(2, Role::Receive(0)).fault, None);
        until("marked", || take_marks(&log).contains(&(b.tx.at.used / PAGE)));
    });
}

#[test]
fn memory_added_while_logging_is_logged_and_beyond_the_log_it_stops_the_ring_until_that_has_grown() {
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let log = log_of(0x1000);
    assert!(b.set_log(&log, 0x300), "0x1800 pages");
    b.set_logging(true);
    let add = |b: &mut Guest, gpa: u64| {
        // Not a multiple of a page, and the buffer is at its end.
        let extra = Ram::new(&[(gpa, 0x1_0800)]);
        let info = VhostUserMemoryRegionInfo {
            guest_phys_addr: gpa,
            memory_size: 0x1_0800,
            userspace_addr: 0x1000_0000 + gpa,
            mmap_offset: 0,
            mmap_handle: extra.fd(),
        };
        b.frontend.add_mem_region(&info).unwrap();
        extra
    };
    let used_up = |a: &mut Guest, b: &mut Guest| {
        // The buffers that are there already come first.
        for _ in 0..SIZE {
            a.send(&datagram(1, 2, b"fill"));
            until("a frame arrives", || b.rx.take_used(&b.ram).len() == 1);
        }
    };
    let inside = add(&mut b, 0x100_0000);
    used_up(&mut a, &mut b);
    take_marks(&log);
    b.rx.offer(&b.ram, &[Buffer { gpa: 0x101_0600, len: 0x200, writable: true }]);
    b.rx.expose(&b.ram);
    a.send(&datagram(1, 2, b"into the new memory"));
    until("a frame arrives", || b.rx.take_used(&b.ram).len() == 1);
    assert_eq!(inside.read(0x101_0600 + 12 + 42, 19), b"into the new memory");
    assert!(take_marks(&log).contains(&0x1010), "the region's last page, which it has half of");
    // Its first page is the first without a bit.
    let beyond = add(&mut b, 0x180_0000);
    b.rx.offer(&b.ram, &[Buffer { gpa: 0x180_0000, len: 0x200, writable: true }]);
    b.rx.expose(&b.ram);
    a.send(&datagram(1, 2, b"lost"));
    until("the fault is named", || {
        lab.ring(2, Role::Receive(0)).fault.is_some_and(|f| f.contains("beyond the dirty log"))
    });
    assert!(b.rx.take_used(&b.ram).is_empty());
    // QEMU grows the log before it adds memory; here it is late, and mends the ring.
    let grown = log_of(0x2000);
    assert!(b.set_log(&grown, 0x2000));
    assert_eq!(lab.ring(2, Role::Receive(0)).fault, None);
    take_marks(&log);
    a.send(&datagram(1, 2, b"kept"));
    until("a frame arrives", || b.rx.take_used(&b.ram).len() == 1);
    assert_eq!(beyond.read(0x180_0000 + 12 + 42, 4), b"kept");
    assert!(take_marks(&grown).contains(&0x1800));
    assert!(take_marks(&log).is_empty(), "nothing more goes to the old log");
}

#[test]
fn a_log_cut_off_stops_that_attachment_only() {
    let lab = Lab::new(3);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    let c = Guest::connect(&lab.socket(3));
    let log = log_of(0x1000);
    assert!(c.set_log(&log, 0x1000));
    c.set_logging(true);
    log.file.set_len(0).unwrap();
    for _ in 0..3 {
        a.send(&datagram(1, 3, b"to the one who logs"));
    }
    until("named", || lab.ring(3, Role::Receive(0)).fault.is_some_and(|f| f.contains("cut off")));
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here");
    assert!(lab.report(3).connected);
    // The other ring stops with it, unless it was not used since.
    drop(c);
    until("gone", || !lab.report(3).connected);
    let mut c = Guest::connect(&lab.socket(3));
    let log = log_of(0x1000);
    assert!(c.set_log(&log, 0x1000));
    c.set_logging(true);
    log.file.set_len(0).unwrap();
    c.send(&datagram(3, 2, b"from the one who logs"));
    until("named", || lab.report(3).rings[1].fault.as_ref().is_some_and(|f| f.contains("cut off")));
}

#[test]
fn logs_that_make_no_sense_end_the_connection_by_name() {
    let lab = Lab::new(1);
    let edges = [0, 1, 1 << 63, u64::MAX];
    for (size, offset) in edges.into_iter().flat_map(|size| edges.map(|offset| (size, offset))) {
        let guest = Guest::connect(&lab.socket(1));
        let log = log_of(0x1000);
        let region = VhostUserDirtyLogRegion { mmap_size: size, mmap_offset: offset, mmap_handle: log.fd() };
        assert!(guest.frontend.set_log_base(0, Some(region)).is_err(), "{size:#x} at {offset:#x}");
        until("named", || !lab.report(1).connected && lab.report(1).last_fault.is_some());
        let why = lab.report(1).last_fault.unwrap();
        // Sizes of nothing and sums that overflow are the dispatcher's to refuse.
        assert!(
            why.contains("dirty log") || why.contains("invalid message"),
            "{size:#x} at {offset:#x}: {why}"
        );
    }
    let guest = Guest::connect(&lab.socket(1));
    let (pipe, _writer) = io::pipe().unwrap();
    let region = VhostUserDirtyLogRegion { mmap_size: 0x1000, mmap_offset: 0, mmap_handle: pipe.as_raw_fd() };
    assert!(guest.frontend.set_log_base(0, Some(region)).is_err(), "a pipe");
    until("closed", || !lab.report(1).connected);
}
