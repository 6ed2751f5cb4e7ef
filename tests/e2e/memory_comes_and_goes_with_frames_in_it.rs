//! Memory is plugged into a running front-end, frames are sent from it and received into it, and it is taken out again: from the
//! answer on, the daemon has nothing of it mapped.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_frontend::VhostUserMemoryRegionInfo;
use vhost_frontend::vhost_user::VhostUserFrontend;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{Beside, GATEWAY, HOSTILE};
use vhost_ila_tests::ringpeer::header::LENGTH;
use vhost_ila_tests::ringpeer::memory::user;
use vhost_ila_tests::ringpeer::neighbours::arp_request;
use vhost_ila_tests::ringpeer::ring::{Part, Ring};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::Check;
use vm_memory::{Address, GuestAddress};

/// Where the new memory begins for the guest, and its bytes: receive buffers, then one to send from.
const PLUGGED: GuestAddress = GuestAddress(1 << 40);
const BYTES: u64 = 1 << 20;
const SENT_FROM: u64 = BYTES / 2;

const RING: u16 = 64;
const BUFFER: u32 = 2048;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn of_a_front_end_and_nothing_of_it_stays_mapped() {
    let mut host = Beside::start("e2e/plugged-memory").unwrap();
    let mut check = Check::begin(24, "regions that came and went");
    let options = Options { ring: RING, rx_buffer: BUFFER, ..Options::default() };
    for (options, regions) in
        [(options, check.scale(5, 500)), (options.packed().in_order(), check.scale(2, 500))]
    {
        comes_and_goes(&mut host, &mut check, options, regions);
    }
    host.end().unwrap();
}

fn comes_and_goes(host: &mut Beside, check: &mut Check, options: Options, regions: u32) {
    let mut peer = Peer::connect(&host.socket, options).unwrap();
    peer.must_resolve(&HOSTILE, GATEWAY).unwrap();
    let before = host.footprint().unwrap();
    for _ in 0..regions {
        let file = memory().unwrap();
        let region = region(&file);
        peer.frontend().unwrap().add_mem_region(&region).unwrap();
        let with = host.footprint().unwrap();
        assert_eq!(with.guest_memory, before.guest_memory + BYTES, "it is mapped");

        // What the neighbour sends all the time takes the old buffers, and the new ones take their places.
        let plugged = |turn: u64| Part {
            address: PLUGGED.unchecked_add(turn * u64::from(BUFFER)),
            length: BUFFER,
            writable: true,
        };
        let old: Vec<Part> =
            (0..u64::from(RING)).map(|turn| turn_over(&mut peer, plugged(turn)).unwrap()).collect();
        ask_from(&file, peer.tx()).unwrap();
        let mut answers = 0;
        for (turn, part) in (0..).zip(old) {
            let used = turn_over(&mut peer, part).unwrap();
            assert_eq!(used, plugged(turn), "buffers are used in order");
            let mut ethernet = [0; 14];
            file.read_exact_at(&mut ethernet, turn * u64::from(BUFFER) + LENGTH as u64).unwrap();
            assert_eq!(ethernet[6..12], [2, 0x49, 0x4c, 0x41, 0, 1], "it is a frame of the gateway's");
            answers += u32::from(ethernet[12..] == [8, 6]);
        }
        assert_eq!(answers, 1, "what was sent from the new memory was answered into it");

        peer.frontend().unwrap().remove_mem_region(&region).unwrap();
        let without = host.footprint().unwrap();
        assert_eq!(without.guest_memory, before.guest_memory, "nothing of it is mapped");
        // Whoever touched it now would be killed.
        ftruncate(&file, 0).unwrap();
        peer.must_resolve(&HOSTILE, GATEWAY).unwrap();
        check.count(1);
    }
    host.footprint().unwrap().must_be_no_more_than(&before).unwrap();

    // A driver that sends from what is gone hurts its own ring.
    let gone = Part { address: PLUGGED, length: 100, writable: false };
    peer.tx().add(&[gone]).unwrap();
    peer.tx().publish().unwrap();
    wait_for("the ring to be broken by name", Duration::from_secs(5), || {
        Ok(host.shown()?.to_string().contains("memory").then_some(()))
    })
    .unwrap();
    host.unharmed("a frame in memory that is gone").unwrap();
}

fn memory() -> Result<File> {
    let file = File::from(memfd_create("plugged", MemfdFlags::CLOEXEC)?);
    ftruncate(&file, BYTES)?;
    Ok(file)
}

fn region(file: &File) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: PLUGGED.0,
        memory_size: BYTES,
        userspace_addr: user(PLUGGED),
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

/// Waits for the next receive buffer to be used, puts `part` in its place, and returns what was there.
fn turn_over(peer: &mut Peer, part: Part) -> Result<Part> {
    let (id, _) = wait_for("a frame", Duration::from_secs(5), || peer.rx().take_used())?;
    let used = *peer.rx().parts(id).first().context("a chain of nothing")?;
    peer.rx().add(&[part])?;
    peer.rx().publish()?;
    Ok(used)
}

/// Sends a question for the gateway's address from the new memory.
fn ask_from(file: &File, tx: &mut Ring) -> Result<()> {
    let frame = [vec![0; LENGTH], arp_request(&HOSTILE, GATEWAY)?].concat();
    file.write_all_at(&frame, SENT_FROM)?;
    let part = Part {
        address: PLUGGED.unchecked_add(SENT_FROM),
        length: u32::try_from(frame.len())?,
        writable: false,
    };
    tx.add(&[part])?;
    tx.publish()?;
    wait_for("it to be sent", Duration::from_secs(5), || tx.take_used()).map(drop)
}
