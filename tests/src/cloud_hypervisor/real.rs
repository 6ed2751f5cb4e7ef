//! cloud-hypervisor itself, where it is on PATH and its KVM boots a guest; else the reason why not.
//!
//! ```text
//! cloud-hypervisor, the test kernel: DHCP, then ping the gateway for ever ──> serial port ──> guest-NAME.log, where replies are counted
//! ```
//!
//! What must stay true: a `/dev/kvm` that opens is no proof, so the test kernel is booted with a time limit before anything is
//! tested. It has one serial port, so its guest takes no commands: what it does is on the kernel's command line.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::initramfs::Image;
use crate::process::{Owned, wait_for};
use crate::site::Vm;

/// How long the test kernel may take to say that it is up.
const BOOT: Duration = Duration::from_secs(20);

/// The program, which has booted the test kernel once.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    image: Image,
}

/// A virtual machine that pings. It is killed when dropped.
pub struct Machine {
    process: Owned,
    console: PathBuf,
}

/// Looks for the program, and tries whether it boots `image`. What it says goes to `evidence`.
///
/// # Errors
///
/// Says why it cannot be used here.
pub fn find(image: &Image, evidence: &Path) -> Result<Program> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::split_paths(&path).map(|directory| directory.join("cloud-hypervisor"));
    let path = path.into_iter().find(|file| file.is_file()).context("no cloud-hypervisor on PATH")?;
    fs::File::options().read(true).write(true).open("/dev/kvm").context("/dev/kvm cannot be opened")?;
    let program = Program { path, image: image.clone() };
    let mut machine = program.start("kvm-trial", "", &[], evidence)?;
    machine.must_say("guest: ready", 1, BOOT).context("cloud-hypervisor does not boot the test kernel")?;
    Ok(program)
}

impl Program {
    /// A machine with the NIC of `vm` at `socket`, which it connects to; it pings `target`.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be started.
    pub fn boot(&self, vm: &Vm, socket: &Path, target: Ipv4Addr, evidence: &Path) -> Result<Machine> {
        let nic = format!("vhost_user=true,socket={},vhost_mode=client,mac={}", socket.display(), vm.mac);
        self.start(vm.name, &format!(" talk={target}"), &["--net", &nic], evidence)
    }

    fn start(&self, name: &str, talk: &str, devices: &[&str], evidence: &Path) -> Result<Machine> {
        let console = evidence.join(format!("guest-{name}.log"));
        let mut command = Command::new(&self.path);
        command.arg("--kernel").arg(&self.image.kernel).arg("--initramfs").arg(&self.image.initramfs);
        command.args(["--cmdline", &format!("console=ttyS0 loglevel=4 panic=-1 only-console{talk}")]);
        command.args(["--memory", "size=256M,shared=on", "--cpus", "boot=1", "--console", "off"]);
        command.args(["--serial", &format!("file={}", console.display())]).args(devices);
        let log = evidence.join(format!("cloud-hypervisor-{name}.log"));
        Ok(Machine { process: Owned::spawn(&format!("cloud-hypervisor {name}"), command, &log)?, console })
    }
}

impl Machine {
    /// How many lines of its console contain `text`.
    pub fn said(&self, text: &str) -> usize {
        let console = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&console).lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until `count` lines of its console contain `text`.
    ///
    /// # Errors
    ///
    /// Fails after `limit`, or when it ends.
    pub fn must_say(&mut self, text: &str, count: usize, limit: Duration) -> Result<()> {
        wait_for(&format!("{count} times {text:?} in {}", self.console.display()), limit, || {
            self.process.must_run()?;
            Ok((self.said(text) >= count).then_some(()))
        })
    }
}
