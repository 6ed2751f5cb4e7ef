//! Nothing here needs root where unprivileged user namespaces are allowed and /dev/net/tun is open to all, as Debian ships it.

use std::process::Command;
use std::{env, fs};

use vhost_ila_tests::process::output;
use vhost_ila_tests::sandbox;

/// Run as root in the sandbox: `$1` cargo's target directory, `$2` the program, `$3` the daemon, `$4` xtask. Leaves in /mnt what an
/// ordinary user needs, all that he cannot reach otherwise; the mounts end with the sandbox.
const PREPARE: &str = "
    set -e
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir -p /mnt/target/tools /mnt/target/e2e && mount --bind $1/tools /mnt/target/tools
    cp $2 /mnt/program && cp $3 /mnt/target/e2e/vhost-ila && cp $4 /mnt/xtask
    chown -R --no-dereference nobody: /mnt/target/e2e && chown nobody: /mnt/target
    mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun
";

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_demo_passes_for_a_user_who_is_not_root() {
    passes("demo", env!("CARGO_BIN_EXE_demo"), "demo: passed");
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_thirteen_scenarios_pass_for_a_user_who_is_not_root() {
    passes("scenarios", env!("CARGO_BIN_EXE_scenarios"), "scenarios: passed");
}

/// Runs `program`, which leaves `target/NAME`, as nobody; it must say `passed`.
fn passes(name: &str, program: &str, passed: &str) {
    sandbox::entered().unwrap();
    // In a user namespace, 0 is somebody else outside: 4294967295 identities mean that there is none.
    let identities = fs::read_to_string("/proc/self/uid_map").unwrap();
    if identities.split_whitespace().last() != Some("4294967295") {
        println!("SKIPPED: this run is without root as a whole");
        return;
    }
    let variable = |name: &str| env::var(name).unwrap();
    let mut prepare = Command::new("sh");
    prepare.args(["-c", PREPARE, "sh"]).arg(sandbox::target().unwrap()).arg(program);
    prepare.arg(variable("VHOST_ILA_BINARY")).arg(variable("VHOST_ILA_XTASK"));
    output(prepare).unwrap();

    let mut run = Command::new("setpriv");
    run.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
    run.args(["/mnt/xtask", "sandbox", "/mnt/program"]);
    run.env("CARGO_TARGET_DIR", "/mnt/target").env("HOME", "/mnt").current_dir("/mnt");
    let said = output(run).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{said}");
    assert!(said.contains(passed));
    assert!(fs::metadata(format!("/mnt/target/{name}")).is_ok());
}
