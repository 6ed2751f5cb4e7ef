//! A front-end that owns its socket may send any bytes and any files; other tenants do not notice.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use vhost_ila_tests::ringpeer::beside::Beside;
use vhost_ila_tests::ringpeer::hostile::{Connection, memory_table, message, request, vring_state};
use vhost_ila_tests::ringpeer::memory::Memory;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The last request that the specification knows, and some beyond.
const REQUESTS: std::ops::Range<u32> = 0..52;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn every_request_with_nonsense_in_it() {
    let mut host = Beside::start("e2e/hostile-requests").unwrap();
    let null = File::open("/dev/null").unwrap();
    let bodies: [&[u8]; 5] = [&[], &[0xff; 8], &[0; 40], &[0xff; 296], &[0xff; 4096]];
    // A bad message costs its sender a quarter of a second, so not every body goes with every request.
    for (ready, shift, files) in [(false, 0, 0), (true, 2, 3)] {
        for (number, request) in REQUESTS.chain([255, u32::MAX]).enumerate() {
            let connection = begin(&host, ready);
            // It may have hung up already.
            drop(connection.say(
                request,
                bodies[(number + shift) % bodies.len()],
                &vec![null.as_raw_fd(); files],
            ));
            host.unharmed(&format!("request {request}")).unwrap();
        }
        host.recovered("nonsense in requests").unwrap();
    }
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn headers_that_lie_and_messages_that_come_in_pieces() {
    let mut host = Beside::start("e2e/hostile-headers").unwrap();
    let owner = message(request::SET_OWNER, 1, 0, &[]);
    let lies = [
        ("version 0", message(request::SET_OWNER, 0, 0, &[])),
        ("version 2", message(request::SET_OWNER, 2, 0, &[])),
        ("a reply", message(request::SET_OWNER, 5, 0, &[])),
        ("all flags", message(request::SET_OWNER, u32::MAX, 0, &[])),
        ("a size of 4 GiB", message(request::SET_FEATURES, 1, u32::MAX, &[0; 8])),
        ("a size beyond the limit", message(request::SET_FEATURES, 1, 4097, &[0; 4097])),
        ("a size that never comes", message(request::SET_FEATURES, 1, 8, &[0; 3])),
        ("noise", (0..5000).map(|at: u32| ((at * 7919) >> 3) as u8).collect()),
        ("a thousand messages at once", owner.repeat(1000)),
    ];
    for (lie, bytes) in lies {
        let connection = Connection::to(&host.socket).unwrap();
        drop(connection.say_bytes(&bytes, &[]));
        host.unharmed(lie).unwrap();
        drop(connection);
        host.recovered(lie).unwrap();
    }
    for cut in 1..owner.len() {
        let connection = Connection::to(&host.socket).unwrap();
        connection.say_bytes(&owner[..cut], &[]).unwrap();
        host.unharmed("half a header").unwrap();
        drop(connection.say_bytes(&owner[cut..], &[]));
    }
    host.recovered("half headers").unwrap();
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn files_that_are_too_many_or_of_the_wrong_kind() {
    let mut host = Beside::start("e2e/hostile-files").unwrap();
    let null = File::open("/dev/null").unwrap();
    for count in [1, 8, 31, 32, 33, 253] {
        for request in
            [request::SET_OWNER, request::GET_FEATURES, request::SET_VRING_KICK, request::SET_MEM_TABLE]
        {
            let connection = begin(&host, false);
            drop(connection.say(request, &[0; 8], &vec![null.as_raw_fd(); count]));
        }
        host.recovered(&format!("{count} files at once")).unwrap();
    }
    let saturated = EventFd::new(EFD_NONBLOCK).unwrap();
    saturated.write(u64::MAX - 1).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let directory = File::open("/").unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let kinds: [(&str, RawFd); 6] = [
        ("a saturated eventfd", saturated.as_raw_fd()),
        ("a pipe's reading end", reader.as_raw_fd()),
        ("a pipe's writing end", writer.as_raw_fd()),
        ("a directory", directory.as_raw_fd()),
        ("/dev/zero", zero.as_raw_fd()),
        ("/dev/null", null.as_raw_fd()),
    ];
    for (kind, file) in kinds {
        for ring in [0u64, 1] {
            for request in [request::SET_VRING_KICK, request::SET_VRING_CALL] {
                let connection = begin(&host, true);
                drop(connection.say(request, &ring.to_le_bytes(), &[file]));
                // Bit 8: no file at all, the ring is to be polled.
                drop(connection.say(request, &(ring | 0x100).to_le_bytes(), &[]));
                drop(connection.say(request, &ring.to_le_bytes(), &[file]));
                host.unharmed(kind).unwrap();
            }
        }
        host.recovered(kind).unwrap();
    }
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn rings_with_impossible_numbers() {
    let mut host = Beside::start("e2e/hostile-numbers").unwrap();
    let numbers = [0, 1, 3, 0x8000, 0x8001, 0x1_0000, 0x1_0001, u32::MAX].map(|number| (0, number));
    let indices = [2, 255, 0x1_0000, u32::MAX].map(|index| (index, 256));
    for request in
        [request::SET_VRING_NUM, request::SET_VRING_BASE, request::SET_VRING_ENABLE, request::GET_VRING_BASE]
    {
        for (index, number) in numbers.into_iter().chain(indices) {
            let connection = begin(&host, true);
            drop(connection.say(request, &vring_state(index, number), &[]));
        }
        host.recovered(&format!("numbers of request {request}")).unwrap();
    }
    for address in [0, 1, 0x7000_0000_0000 - 1, 0x7000_0000_0fff, 0x7000_0000_1000, u64::MAX - 7, u64::MAX] {
        for flags in [0, 1, u32::MAX] {
            let connection = begin(&host, true);
            let words = [u64::from(flags) << 32, address, address, address, address];
            let body: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
            drop(connection.say(request::SET_VRING_NUM, &vring_state(0, 32768), &[]));
            drop(connection.say(request::SET_VRING_ADDR, &body, &[]));
            let kick = EventFd::new(EFD_NONBLOCK).unwrap();
            drop(connection.say(request::SET_VRING_KICK, &0u64.to_le_bytes(), &[kick.as_raw_fd()]));
            drop(kick.write(1));
        }
        host.recovered(&format!("a ring at {address:#x}")).unwrap();
    }
    host.end().unwrap();
}

/// A connection, with features and memory agreed on if `ready`.
fn begin(host: &Beside, ready: bool) -> Connection {
    let connection = Connection::to(&host.socket).unwrap();
    if ready {
        let memory = Memory::new().unwrap();
        let regions = memory.regions().unwrap();
        let table: Vec<[u64; 4]> = regions
            .iter()
            .map(|region| {
                [region.guest_phys_addr, region.memory_size, region.userspace_addr, region.mmap_offset]
            })
            .collect();
        let files: Vec<RawFd> = regions.iter().map(|region| region.mmap_handle).collect();
        connection.negotiate().unwrap();
        connection.say(request::SET_MEM_TABLE, &memory_table(&table), &files).unwrap();
    }
    connection
}
