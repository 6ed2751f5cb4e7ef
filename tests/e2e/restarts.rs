//! Guests and daemons come and go under traffic, and it flows again.

use std::time::Duration;

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::ringpeer::beside::GATEWAY;
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{self, Plan, Site, VM1, VM2};
use vhost_ila_tests::stage::{LIMIT, Stage, befall};
use vhost_ila_tests::traffic;

/// From a daemon's restart until a guest's packets cross again: QEMU tries to reconnect every half second.
const RECOVERY: Duration = Duration::from_secs(20);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn traffic_flows_again_after_a_guest_reboots() {
    let site = Site::start("e2e/reboot", Plan::of(&[VM1, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    vm1.spawn(&format!("ping -i 0.2 {}", VM2.ipv4), "/tmp/ping").unwrap();
    traffic::ping(vm1, VM2.ipv4, 3).unwrap();
    // The sender's side and the receiver's, one after the other; the ping in vm1 ends with its kernel.
    for (vm, rebooted) in [(&VM2, true), (&VM1, false)] {
        let guest = if rebooted { &mut *vm2 } else { &mut *vm1 };
        guest.send("reboot -f").unwrap();
        guest.wait_until_ready(Duration::from_secs(90)).unwrap();
        site::address(vm, guest).unwrap();
        traffic::ping(vm1, VM2.ipv4, 5).unwrap();
        traffic::ping(vm1, VM2.ipv6, 5).unwrap();
    }
    let sums = traffic::transfer(vm1, vm2, VM2.ipv4, 5).unwrap();
    assert_eq!(sums.sent, sums.received);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_tcp_connection_survives_a_killed_daemon_that_listens() {
    survives("e2e/killed-server", Plan::of(&[VM1, VM2]));
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_tcp_connection_survives_a_killed_daemon_that_connects() {
    survives("e2e/killed-client", Plan { daemons_connect: true, ..Plan::of(&[VM1, VM2]) });
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn both_ways_are_open_within_a_second_after_qemu_comes_back_to_a_killed_daemon() {
    killed("e2e/killed-listens", Plan::of(&[]), 1);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn both_ways_are_open_within_a_second_after_a_killed_daemon_comes_back_to_qemu() {
    killed("e2e/killed-connects", Plan { daemons_connect: true, ..Plan::of(&[]) }, 0);
}

/// Kills the daemon of a guest that talks, QEMU, and (`both` times in every run) both, a hundred times each in a full run.
fn killed(evidence: &str, plan: Plan, both: u32) {
    let mut stage = Stage::start(evidence, plan).unwrap();
    let mut daemons = Check::begin(22, "killed daemons");
    let times = daemons.scale(3, 100);
    stage.limit = Duration::from_secs(1);
    // Each daemon is compared with one that was come back to as well: QEMU tells it more than at a guest's start.
    let event = befall::killed_daemon(&mut stage).unwrap();
    stage.recovery(event, stage.limit).unwrap();
    stage.series(&mut daemons, ("daemon killed", times), befall::killed_daemon).unwrap();
    stage.limit = LIMIT;
    let mut front_ends = Check::begin(21, "killed QEMUs");
    let times = front_ends.scale(1 - both, 100);
    stage.series(&mut front_ends, ("QEMU killed", times), befall::killed_qemu).unwrap();
    let times = front_ends.scale(both, 100);
    stage.series(&mut front_ends, ("both killed, QEMU started first", times), befall::killed_both).unwrap();
    stage.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_qemu_that_comes_back_again_and_again_costs_no_more_than_once() {
    let mut check = Check::begin(21, "reconnects of a living QEMU");
    let site = Site::start("e2e/reconnects", Plan::of(&[VM1, VM2])).unwrap();
    let mut vm1 = site.power_on_only(&[VM1]).unwrap().remove(0);
    site::address(&VM1, &mut vm1).unwrap();
    // What the guest's driver does not know of may be withdrawn; the connection is closed, and QEMU comes back.
    let mut held = Vec::new();
    for round in 0..check.scale(5, 50) {
        let without = if round % 2 == 0 { "without = [\"reset_device\"]" } else { "" };
        let attachment_keys = vec![(VM1.name, without.to_owned())];
        site.reconfigure(0, &Plan { attachment_keys, ..Plan::of(&[VM1, VM2]) }).unwrap();
        answered(&mut vm1, &GATEWAY.to_string());
        held.push(site.daemons[0].footprint().unwrap());
        check.count(1);
    }
    println!("{held:?}");
    held.last().unwrap().must_be_no_more_than(&held[1]).unwrap();
}

/// A slow TCP stream runs while each host's daemon is killed and started again; all bytes arrive.
pub(crate) fn survives(evidence: &str, plan: Plan) {
    let mut site = Site::start(evidence, plan).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    vm2.run("mkfifo /tmp/open").unwrap();
    vm2.spawn("nc -l -p 5002 0<>/tmp/open >/tmp/stream", "/tmp/nc.log").unwrap();
    vm2.run("until netstat -ltn | grep -q :5002; do sleep 0.1; done").unwrap();
    let stream = format!(
        "(while [ ! -e /tmp/enough ]; do head -c 10000 /dev/urandom; sleep 0.05; done) | tee /tmp/sent | nc {} 5002; touch /tmp/ended",
        VM2.ipv4
    );
    vm1.spawn(&stream, "/tmp/stream.log").unwrap();
    vm1.run("sleep 1").unwrap();
    for host in 0..2 {
        site.daemons[host].kill().unwrap();
        vm1.run("sleep 1").unwrap();
        site.daemons[host].restart().unwrap();
        answered(vm1, VM2.ipv4);
        answered(vm1, VM2.ipv6);
    }
    vm1.run("touch /tmp/enough").unwrap();
    // TCP has backed off meanwhile: its next try may be some seconds away.
    vm1.run_within("until [ -e /tmp/ended ]; do sleep 0.1; done", Duration::from_secs(90)).unwrap();
    let sent = vm1.run("sha256sum </tmp/sent").unwrap();
    let received = vm2.run("sleep 0.5; sha256sum </tmp/stream").unwrap();
    assert_eq!(sent, received);
}

/// Waits until an echo is answered, then demands that five in a row are.
pub(crate) fn answered(guest: &mut Guest, target: &str) {
    guest
        .run_within(&format!("until ping -c 1 -W 1 {target} >/dev/null; do sleep 0.2; done"), RECOVERY)
        .unwrap();
    traffic::ping(guest, target, 5).unwrap();
}
