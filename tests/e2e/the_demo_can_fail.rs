//! A demo that cannot fail proves nothing.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vhost_ila_tests::process::{Owned, wait_for};
use vhost_ila_tests::sandbox;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_demo_fails_when_a_daemon_is_killed() {
    sandbox::entered().unwrap();
    let evidence = sandbox::evidence("e2e/demo-killed").unwrap();
    let log = evidence.with_extension("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("e2e/demo-killed");
    drop(fs::remove_file(&log));
    let mut demo = Owned::spawn("the demo", command, &log).unwrap();
    wait_for("both guests to have addresses", Duration::from_secs(120), || {
        demo.must_run()?;
        Ok(fs::read_to_string(&log)?.contains("have booted").then_some(()))
    })
    .unwrap();
    let [one, _other] = daemons()[..] else { panic!("two daemons") };
    kill_process(one, Signal::KILL).unwrap();
    let status = wait_for("the demo to end", Duration::from_secs(180), || demo.ended()).unwrap();
    assert!(!status.success(), "{}", fs::read_to_string(&log).unwrap());
    assert!(fs::read_to_string(&log).unwrap().contains("demo: FAILED"));
}

/// The processes called vhost-ila. All that can be seen here are the sandbox's own.
fn daemons() -> Vec<Pid> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let named = processes.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "vhost-ila")
    });
    named.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
