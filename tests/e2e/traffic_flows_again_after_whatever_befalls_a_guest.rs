//! A guest reboots, is reset, starts another kernel, lets go of its card, shrinks its link, loses its cable,
//! gets memory and gives it back: each time packets flow
//! both ways within two seconds of its being ready, and its daemon holds what it held before. A hundred times each: `soaks.rs`.

use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::Plan;
use vhost_ila_tests::stage::{Stage, befall};

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn rebinding_reset_reboot_kexec_mtu_cable_and_memory() {
    let mut stage = Stage::start("e2e/befallen", Plan::of(&[])).unwrap();
    let mut changes = Check::begin(26, "changes of MTU and cable");
    stage.series(&mut changes, ("cable", 2), befall::cable).unwrap();
    stage.series(&mut changes, ("MTU", 1), befall::mtu).unwrap();
    let mut memory = Check::begin(24, "memories plugged in and out");
    stage.series(&mut memory, ("memory", 1), befall::memory).unwrap();
    let mut restarts = Check::begin(20, "restarts of driver or guest");
    stage.series(&mut restarts, ("driver unbound and bound", 3), befall::rebind).unwrap();
    stage.series(&mut restarts, ("system_reset", 1), befall::reset).unwrap();
    stage.series(&mut restarts, ("reboot", 1), befall::reboot).unwrap();
    stage.series(&mut restarts, ("kexec", 1), befall::kexec).unwrap();
    stage.end().unwrap();
}
