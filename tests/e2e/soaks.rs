//! What takes minutes: run by `cargo xtask test --long` only.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2};
use vhost_ila_tests::stage::{Stage, befall};
use vhost_ila_tests::traffic;

use crate::restarts::answered;

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn for_ten_minutes_daemons_are_killed_between_transfers_and_no_sum_differs() {
    let mut site = Site::start("e2e/soak", Plan::of(&[VM1, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(600) {
        for (host, target) in [(0, VM2.ipv4), (1, VM2.ipv6)] {
            let sums = traffic::transfer(vm1, vm2, target, 20).unwrap();
            assert_eq!(sums.sent, sums.received, "round {rounds}");
            site.daemons[host].kill().unwrap();
            site.daemons[host].restart().unwrap();
            answered(vm1, VM2.ipv4);
            answered(vm1, VM2.ipv6);
        }
        rounds += 1;
    }
    println!("{rounds} rounds, each of two transfers of 20 MB and two kills");
}

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn a_hundred_reboots() {
    a_hundred((20, "reboots"), befall::reboot);
}

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn a_hundred_resets() {
    a_hundred((20, "resets"), befall::reset);
}

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn a_hundred_kernels_by_kexec() {
    a_hundred((20, "kernels"), befall::kexec);
}

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn a_hundred_times_the_driver_is_unbound() {
    a_hundred((20, "drivers"), befall::rebind);
}

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn a_hundred_cables() {
    a_hundred((26, "cables"), befall::cable);
}

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn a_hundred_mtus() {
    a_hundred((26, "changes of MTU"), befall::mtu);
}

#[test]
#[ignore = "end to end: run by cargo xtask test --long"]
fn a_hundred_memories() {
    a_hundred((24, "memories"), befall::memory);
}

/// What befalls a guest in every run, a hundred times.
fn a_hundred((check, unit): (u8, &'static str), what: impl FnMut(&mut Stage) -> Result<SystemTime>) {
    let mut stage = Stage::start(&format!("e2e/soak-{}", unit.replace(' ', "-")), Plan::of(&[])).unwrap();
    let mut check = Check::begin(check, unit);
    stage.series(&mut check, (unit, 100), what).unwrap();
    stage.end().unwrap();
}
