//! Guest memory is a file of the front-end's: too short, cut off while in use, in a thousand pieces, or no memory at all.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use rustix::fs::ftruncate;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{Beside, GATEWAY, HOSTILE};
use vhost_ila_tests::ringpeer::hostile::{Connection, memory_table, request};
use vhost_ila_tests::ringpeer::memory::Memory;
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::Check;

/// Regions one attachment may have; and as many again while a table is exchanged.
const CAP: usize = 64;

/// Name, regions as [`memory_table`] takes them, files.
type Table = (&'static str, Vec<[u64; 4]>, Vec<RawFd>);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_file_that_is_cut_off_while_the_rings_run() {
    let mut check = Check::begin(15, "cuts");
    let mut host = Beside::start("e2e/hostile-truncated").unwrap();
    // All of it; then all but the first pages of the rings; then the buffers only.
    for left in [0, 0x3000, 4 << 20].repeat(check.scale(1, 50)) {
        check.count(1);
        let memory = Memory::unsealed().unwrap();
        let file = memory.file.clone();
        let mut peer = Peer::in_memory(memory, Options::default()).unwrap();
        // A daemon may refuse memory that can be cut off. One that takes it must survive the cut.
        let taken = vhost_ila_tests::ringpeer::connect(&host.socket).and_then(|stream| peer.attach(stream));
        println!("{left} bytes left: {}", if taken.is_ok() { "taken" } else { "refused" });
        if taken.is_ok() {
            peer.must_resolve(&HOSTILE, GATEWAY).unwrap();
        }
        ftruncate(&*file, left).unwrap();
        drop(peer.tx().kick.write(1));
        drop(peer.rx().kick.write(1));
        host.unharmed(&format!("{left} bytes of memory left")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        host.unharmed(&format!("{left} bytes of memory left")).unwrap();
        // The peer's own mapping is cut off too: it must not touch it again.
        drop(peer);
        host.recovered(&format!("{left} bytes of memory left")).unwrap();
    }
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn tables_that_no_machine_has() {
    let mut check = Check::begin(15, "tables");
    let mut host = Beside::start("e2e/hostile-tables").unwrap();
    let memory = Memory::new().unwrap();
    let file = memory.file.as_raw_fd();
    let zero = File::open("/dev/zero").unwrap();
    let directory = File::open("/").unwrap();
    let whole = [0, 4 << 20, 0x7000_0000_0000, 0];
    let tables: Vec<Table> = vec![
        ("no region", vec![], vec![]),
        ("no file", vec![whole], vec![]),
        ("more files than regions", vec![whole], vec![file; 3]),
        ("forty regions", vec![whole; 40], vec![file; 32]),
        ("the same twice", vec![whole, whole], vec![file; 2]),
        ("an overlap", vec![whole, [0x1000, 0x2000, 0x7100_0000_0000, 0]], vec![file; 2]),
        ("an overlap of user addresses", vec![whole, [1 << 32, 0x2000, 0x7000_0000_1000, 0]], vec![file; 2]),
        ("out of order", vec![[1 << 32, 0x1000, 0x7200_0000_0000, 0], whole], vec![file; 2]),
        ("no bytes", vec![[0, 0, 0, 0]], vec![file]),
        ("more bytes than the file has", vec![[0, 1 << 40, 0, 0]], vec![file]),
        ("a start beyond the file", vec![[0, 0x1000, 0, 1 << 40]], vec![file]),
        ("an odd offset", vec![[0, 0x1000, 0, 0x123]], vec![file]),
        ("an odd size", vec![[0, 0x1001, 0, 0]], vec![file]),
        ("guest addresses that wrap", vec![[u64::MAX - 0xfff, 0x2000, 0, 0]], vec![file]),
        ("user addresses that wrap", vec![[0, 0x2000, u64::MAX - 0xfff, 0]], vec![file]),
        ("an offset that wraps", vec![[0, 0x2000, 0, u64::MAX - 0xfff]], vec![file]),
        ("a size that wraps", vec![[0x1000, u64::MAX, 0, 0]], vec![file]),
        ("/dev/zero", vec![whole], vec![zero.as_raw_fd()]),
        ("a directory", vec![whole], vec![directory.as_raw_fd()]),
    ];
    for (name, regions, files) in &tables {
        check.count(1);
        let connection = Connection::to(&host.socket).unwrap();
        drop(connection.negotiate());
        drop(connection.say(request::SET_MEM_TABLE, &memory_table(regions), files));
        // A refused table is not the last word: the right one may follow.
        drop(connection.say(request::SET_MEM_TABLE, &memory_table(&[whole]), &[file]));
        host.unharmed(name).unwrap();
        drop(connection);
    }
    host.recovered("impossible tables").unwrap();
    for (name, regions, files) in &tables {
        let Some(region) = regions.first() else { continue };
        let connection = Connection::to(&host.socket).unwrap();
        drop(connection.negotiate());
        let body: Vec<u8> = [0].iter().chain(region).flat_map(|word| word.to_le_bytes()).collect();
        for _ in 0..3 {
            drop(connection.say(request::ADD_MEM_REG, &body, &files[..files.len().min(1)]));
        }
        host.unharmed(name).unwrap();
    }
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn regions_without_number_do_not_use_up_what_all_tenants_share() {
    let mut check = Check::begin(15, "regions");
    let mut host = Beside::start("e2e/hostile-regions").unwrap();
    let before = host.footprint().unwrap();
    let memory = Memory::new().unwrap();
    let (all, mut said) = (check.scale(5_000, 100_000), 0);
    while said < all {
        let mut connection = Connection::to(&host.socket).unwrap();
        connection.negotiate().unwrap();
        // More than one attachment may have; how many are taken is seen in the process's maps.
        for number in 0..100u64 {
            let region = [0, number << 20, 0x1000, 0x7000_0000_0000 + (number << 20), 0];
            let body: Vec<u8> = region.into_iter().flat_map(u64::to_le_bytes).collect();
            said += 1;
            if connection.say(request::ADD_MEM_REG, &body, &[memory.file.as_raw_fd()]).is_err() {
                break;
            }
        }
        let maps = host.footprint().unwrap().maps;
        assert!(maps <= before.maps + 2 * CAP + 16, "{maps} maps, {} before", before.maps);
        assert!(connection.is_closed(), "a hundred regions were taken");
        wait_for("it to be named", Duration::from_secs(5), || {
            let fault = host.shown()?["last_fault"].to_string();
            Ok(fault.contains("more than 64 regions").then_some(()))
        })
        .unwrap();
    }
    check.count(said);
    host.unharmed("thousands of regions").unwrap();
    host.end().unwrap();
}
