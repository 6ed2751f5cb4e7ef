//! Uplinks that fail.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;
use crate::device::memory::Payload;
use crate::device::net_header::NetHeader;
use crate::device::ring::BATCH_BYTES;

/// An uplink that fails in one way, and counts how often it was asked.
struct Failing(fn() -> io::Error, Arc<AtomicU32>);

impl Uplink for Failing {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn receive(&mut self, _: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        self.1.fetch_add(1, Relaxed);
        Err(self.0())
    }
    fn send(&mut self, _: NetHeader, _: &[u8], _: Payload<'_>) -> io::Result<()> {
        Err(self.0())
    }
}

/// A daemon that spins on an uplink that fails with what `error` makes, and how often it looked at it.
fn with_failing_uplink(error: fn() -> io::Error) -> (DaemonHandle, impl Fn() -> u32) {
    let looks = Arc::<AtomicU32>::default();
    let uplink = Box::new(Failing(error, Arc::clone(&looks)));
    let daemon = Daemon::start_with(uplink, Duration::from_secs(60), nve(1)).unwrap();
    (daemon, move || looks.load(Relaxed))
}

#[test]
fn what_workers_spent_is_told_while_a_reload_is_under_way() {
    let lab = Lab::new(1);
    let _reload = lab.daemon.servers.lock().unwrap();
    assert_eq!(lab.daemon.workers().len(), 1);
}

#[test]
fn a_worker_that_panicked_is_seen_by_whoever_asks() {
    let (daemon, _) = with_failing_uplink(|| panic!("a bug"));
    until("it panicked", || !daemon.is_running());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // It is told even to those who come to ask afterwards; this would wait for ever.
    runtime.block_on(daemon.worker_ended());
}

#[test]
fn an_uplink_is_given_up_when_it_is_gone_and_not_for_one_odd_packet() {
    let (daemon, looks) = with_failing_uplink(|| io::ErrorKind::InvalidInput.into());
    until("looked at again", || looks() > 3);
    assert!(daemon.is_running());
    let (daemon, looks) = with_failing_uplink(|| io::ErrorKind::NotConnected.into());
    until("looked at", || looks() > 0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(looks(), 1, "given up");
    assert!(daemon.is_running(), "guests of this host still talk");
    assert!(daemon.workers()[0].uplink_lost, "and an operator sees it");
}

/// An uplink with so many packets of 64 KB, one after the other.
struct Large(u32);

impl Uplink for Large {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn receive(&mut self, packet: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        let Some(left) = self.0.checked_sub(1) else { return Ok(None) };
        self.0 = left;
        Ok(Some((packet.len(), NetHeader::default())))
    }
    fn send(&mut self, _: NetHeader, _: &[u8], _: Payload<'_>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_flood_from_the_fabric_takes_no_longer_turns_than_a_guests() {
    const PACKETS: u32 = 640;
    let daemon = Daemon::start_with(Box::new(Large(PACKETS)), Duration::from_secs(60), nve(1)).unwrap();
    until("all were taken", || daemon.workers()[0].packets == u64::from(PACKETS));
    let turns: u64 = daemon.workers()[0].turns.iter().sum();
    let bytes = u64::from(PACKETS) * 65_535 / turns;
    assert!(bytes <= BATCH_BYTES as u64 + 65_535, "{turns} turns, {bytes} bytes in each");
}
