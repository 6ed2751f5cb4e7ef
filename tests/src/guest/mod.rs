//! A guest: QEMU with Debian's kernel, driven over a serial line.
//!
//! ```text
//! harness ──"7 18 ping -c 3 10.1.0.2\n"──> /run/vhost-ila/NAME.agent ──> ttyS1 ──> init: sh -c ...
//!         <──output, "=7 0\n"─────────                                            └─> ttyS0 ──> guest-NAME.log
//!         ──QMP──> /run/vhost-ila/NAME.qmp: reset it, add memory, pull its cable ([`monitor`])
//! ```
//!
//! What must stay true: one command at a time, each with a limit; everything a guest is told and says is in its log.

pub mod accel;
mod lines;
pub mod monitor;
mod qemu;

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::initramfs::Image;
use crate::process::{Owned, wait_for};
use crate::sandbox;
pub use accel::Accel;
use lines::Lines;
use monitor::Monitor;
pub use qemu::{Nic, PORT, Qemu};

/// A boot takes about 5 s under emulation on an idle machine.
const BOOT: Duration = Duration::from_secs(90);

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Names the guest, its log and its sockets.
    pub name: String,
    /// Kernel and initramfs.
    pub image: Image,
    /// Which QEMU runs it.
    pub qemu: Qemu,
    /// How it runs.
    pub accel: Accel,
    /// Its network card, if any.
    pub nic: Option<Nic>,
    /// Another, `eth1`.
    pub second: Option<Nic>,
}

/// A running guest. It is killed when dropped.
pub struct Guest {
    name: String,
    process: Owned,
    agent: Agent,
    monitor: Monitor,
    log: PathBuf,
}

impl Guest {
    /// Starts QEMU and waits until the guest takes commands. Its console goes to `guest-NAME.log` in `evidence`.
    ///
    /// # Errors
    ///
    /// Fails when QEMU ends or the guest does not come up in time.
    pub fn boot(spec: &Spec, evidence: &Path) -> Result<Guest> {
        let mut guest = Guest::start(spec, evidence)?;
        guest.wait_until_ready(BOOT)?;
        Ok(guest)
    }

    /// Starts QEMU without waiting; [`Guest::wait_until_ready`] goes on.
    ///
    /// # Errors
    ///
    /// Fails when QEMU cannot be started or ends at once.
    pub fn start(spec: &Spec, evidence: &Path) -> Result<Guest> {
        Guest::start_with(spec, &[], evidence)
    }

    /// As [`Guest::start`], with more arguments for QEMU.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn start_with(spec: &Spec, more: &[&str], evidence: &Path) -> Result<Guest> {
        let name = spec.name.clone();
        let log = evidence.join(format!("guest-{name}.log"));
        let [socket, controls] = ["agent", "qmp"].map(|end| {
            let path = Path::new(sandbox::RUNTIME).join(format!("{name}.{end}"));
            // Left by another guest of this name.
            drop(fs::remove_file(&path));
            path
        });
        let listener = UnixListener::bind(&socket).context("the guest's agent socket")?;
        listener.set_nonblocking(true)?;
        let mut command = qemu::command(spec, &log, &socket, &controls)?;
        command.args(more);
        let mut process =
            Owned::spawn(&format!("QEMU {name}"), command, &evidence.join(format!("qemu-{name}.log")))?;
        let stream = wait_for(&format!("QEMU {name} to connect"), Duration::from_secs(20), || {
            process.must_run()?;
            match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        let monitor = wait_for(&format!("QEMU {name}'s monitor"), Duration::from_secs(20), || {
            process.must_run()?;
            Ok(UnixStream::connect(&controls).ok())
        })?;
        Ok(Guest { name, process, agent: Agent::new(stream)?, monitor: Monitor::new(monitor)?, log })
    }

    /// The machine's own controls.
    pub fn monitor(&mut self) -> &mut Monitor {
        &mut self.monitor
    }

    /// The file of the guest's memory, as long as it runs.
    ///
    /// # Errors
    ///
    /// Fails when QEMU is gone.
    pub fn memory(&self) -> Result<File> {
        let files = format!("/proc/{}/fd", self.process.id());
        let mut paths = fs::read_dir(files)?.flatten().map(|entry| entry.path());
        let is_memory = |path: &PathBuf| {
            let target = fs::read_link(path).unwrap_or_default();
            target.to_string_lossy().contains("memfd:memory-backend-memfd")
        };
        let path = paths.find(is_memory).context("QEMU has no file of the guest's memory")?;
        Ok(File::open(path)?)
    }

    /// Kills QEMU as a crash would.
    ///
    /// # Errors
    ///
    /// Fails when it is gone already, or cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.must_run()?;
        self.process.end(Signal::KILL, Duration::from_secs(20)).map(drop)
    }

    /// Waits until the guest's init says that it takes commands: after [`Guest::start`], and after a reboot.
    ///
    /// # Errors
    ///
    /// Fails when `limit` passes or QEMU ends.
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        let answer = self.agent.answer("ready", limit);
        self.process.must_run()?;
        answer
            .map(drop)
            .with_context(|| format!("guest {} did not come up, see {}", self.name, self.log.display()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `command` in the guest's shell and returns its exit status and output.
    ///
    /// # Errors
    ///
    /// Fails when the guest does not answer within `limit`. A command that fails is no error here.
    pub fn try_run(&mut self, command: &str, limit: Duration) -> Result<Finished> {
        ensure!(!command.contains('\n'), "a command is one line");
        let context = || format!("guest {}: {command}", self.name);
        let id = self.agent.ask(command).with_context(context)?;
        self.agent.answer(&id, limit).with_context(context)
    }

    /// Runs `command`, which must succeed within 60 seconds, and returns its output.
    ///
    /// # Errors
    ///
    /// Fails when it does not answer or exits with an error, quoting its output.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.run_within(command, Duration::from_secs(60))
    }

    /// As [`Guest::run`], with a limit.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        let finished = self.try_run(command, limit)?;
        if finished.status != 0 {
            bail!("guest {}: {command}: exit status {}\n{}", self.name, finished.status, finished.output);
        }
        Ok(finished.output)
    }

    /// Starts `command` in the background, its output in the guest's file `output`.
    ///
    /// # Errors
    ///
    /// Fails when the guest does not answer.
    pub fn spawn(&mut self, command: &str, output: &str) -> Result<()> {
        self.run(&format!("({command}) >{output} 2>&1 &")).map(drop)
    }

    /// Sends `command`, which ends the guest's kernel (`reboot -f`), and awaits no answer.
    ///
    /// # Errors
    ///
    /// Fails when QEMU is gone.
    pub fn send(&mut self, command: &str) -> Result<()> {
        self.agent.ask(command).map(drop)
    }
}

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The shell's exit status.
    pub status: i32,
    /// Standard output and errors together.
    pub output: String,
}

/// The harness's end of the guest's second serial port.
struct Agent {
    lines: Lines,
    asked: u32,
    /// The last line, should it have to be said again.
    said: String,
}

impl Agent {
    fn new(stream: UnixStream) -> Result<Agent> {
        Ok(Agent { lines: Lines::new(stream)?, asked: 0, said: String::new() })
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        self.asked += 1;
        let id = self.asked.to_string();
        // The guest's shell reads words: what surrounds them is not among the bytes it counts.
        let command = command.trim();
        self.said = format!("{id} {} {command}", command.len());
        self.lines.say(&self.said)?;
        Ok(id)
    }

    /// Reads until the line `=ID STATUS`. Answers to earlier questions, given up or cut off by a reboot, are dropped. What the port garbled
    /// is said again.
    fn answer(&mut self, id: &str, limit: Duration) -> Result<Finished> {
        let start = Instant::now();
        let mut output = String::new();
        loop {
            let line = self.lines.next(start, limit)?;
            let Some((answered, status)) =
                line.strip_prefix('=').and_then(|rest| rest.trim_end().split_once(' '))
            else {
                output.push_str(&line);
                continue;
            };
            if answered == id {
                let status = status.parse().with_context(|| format!("not an exit status: {status}"))?;
                return Ok(Finished { status, output });
            }
            output.clear();
            if answered == "garbled" {
                self.lines.say(&self.said)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn an_answer_is_the_output_up_to_the_line_with_its_number() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut agent = Agent::new(ours).unwrap();
        theirs.write_all(b"late\n=0 1\n").unwrap();
        let id = agent.ask("echo a; echo b").unwrap();
        theirs.write_all(b"a\nb\n=1 3\n").unwrap();
        let finished = agent.answer(&id, Duration::from_secs(1)).unwrap();
        assert_eq!(finished, Finished { status: 3, output: "a\nb\n".into() });
    }

    #[test]
    fn what_the_port_garbled_is_said_again() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut agent = Agent::new(ours).unwrap();
        let id = agent.ask("true ").unwrap();
        theirs.write_all(b"=garbled 0\n=1 0\n").unwrap();
        assert_eq!(agent.answer(&id, Duration::from_secs(1)).unwrap().status, 0);
        let mut said = [0; 18];
        theirs.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"1 4 true\n1 4 true\n");
    }

    #[test]
    fn a_guest_that_says_nothing_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut agent = Agent::new(ours).unwrap();
        let error = agent.answer("ready", Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().starts_with("no answer"), "{error}");
    }
}
