//! A guest reboots, is reset, starts another kernel, lets go of its card, shrinks its link, loses its cable: each time packets flow
//! both ways within two seconds of its being ready, and its daemon holds what it held before.

use vhost_ila_tests::site::Plan;
use vhost_ila_tests::stage::{LIMIT, Stage, befall};

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn rebinding_reset_reboot_kexec_mtu_and_cable() {
    let mut stage = Stage::start("e2e/befallen", Plan::of(&[])).unwrap();
    stage.series("driver unbound and bound", 2, LIMIT, befall::rebind).unwrap();
    stage.series("cable pulled", 2, LIMIT, befall::cable).unwrap();
    stage.series("MTU", 1, LIMIT, befall::mtu).unwrap();
    stage.series("system_reset", 1, LIMIT, befall::reset).unwrap();
    stage.series("reboot", 1, LIMIT, befall::reboot).unwrap();
    stage.series("kexec", 1, LIMIT, befall::kexec).unwrap();
    stage.end().unwrap();
}
