//! What `vhost-ila qemu-args` prints is pasted into real QEMUs, and the daemon meets them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use vhost_ila_tests::process::{Owned, output, wait_for};
use vhost_ila_tests::sandbox;
use vhost_ila_tests::tools::Set;

const LIMIT: Duration = Duration::from_secs(20);

/// The program with `arguments`, the example of one host, and the sandbox's runtime directory.
fn vhost_ila(arguments: &[&str]) -> Command {
    let mut command = Command::new(PathBuf::from(std::env::var_os("VHOST_ILA_BINARY").unwrap()));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/one-host.toml");
    command.args(arguments).arg("--config").arg(config).args(["--runtime", sandbox::RUNTIME]);
    command
}

/// A machine that is never started: QEMU of `set` with what was printed for `attachment`.
fn qemu(set: &str, attachment: &str, log: &Path) -> Owned {
    let set = Set::open(set).unwrap();
    let mut command = set.tool("qemu-system-x86_64").unwrap().command();
    for firmware in ["qemu", "seabios"] {
        command.arg("-L").arg(set.file("share").unwrap().join(firmware));
    }
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-S", "-machine", "q35,accel=tcg"]);
    // The boot ROM is another package's, and nothing boots.
    command.args(["-global", "virtio-net-pci.romfile="]);
    let printed = output(vhost_ila(&["qemu-args", attachment, "--only", "qemu"])).unwrap();
    command.args(printed.replace("\\\n", " ").split_whitespace());
    Owned::spawn(&format!("QEMU for {attachment}"), command, log).unwrap()
}

fn connected(attachment: usize) -> bool {
    let attachments = output(vhost_ila(&["show", "attachments", "--json"])).unwrap();
    let attachments: Value = serde_json::from_str(&attachments).unwrap();
    attachments[attachment]["device"]["connected"] == Value::Bool(true)
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn qemu_takes_the_arguments_as_they_are_printed_and_reconnects() {
    sandbox::entered().unwrap();
    let evidence = sandbox::evidence("e2e/pasted-arguments").unwrap();
    for set in ["qemu", "qemu72"] {
        let log = evidence.join(format!("{set}.log"));
        let start = || Owned::spawn("vhost-ila", vhost_ila(&["run"]), &evidence.join("daemon.log")).unwrap();
        let mut daemon = start();
        let control = Path::new(sandbox::RUNTIME).join("control.sock");
        wait_for("the daemon", LIMIT, || Ok(control.exists().then_some(()))).unwrap();
        // In one the daemon listens, in the other QEMU does.
        let mut machines = [qemu(set, "a", &log), qemu(set, "b", &log)];
        for lives in 1..=2 {
            for (attachment, machine) in machines.iter_mut().enumerate() {
                wait_for(&format!("{set} {attachment}, life {lives}"), LIMIT, || {
                    machine.must_run()?;
                    Ok(connected(attachment).then_some(()))
                })
                .unwrap();
            }
            daemon.end(rustix::process::Signal::TERM, LIMIT).unwrap();
            daemon = start();
            wait_for("the daemon again", LIMIT, || Ok(control.exists().then_some(()))).unwrap();
        }
        drop(machines);
        daemon.end(rustix::process::Signal::TERM, LIMIT).unwrap();
    }
}
