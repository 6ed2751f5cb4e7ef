//! DPDK's testpmd, from where `cargo xtask fetch dpdk` has unpacked it.
//!
//! What must stay true: it says each line when it is whole, so that it can be asked while it runs; it takes commands on its standard input, which stays open until it is told to quit; nobody's installed DPDK
//! takes part, which would load its own drivers beside these.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::namespace::Namespace;
use crate::process::{output, wait_for};
use crate::tools::Set;

/// Where an installed DPDK has its drivers, which it is compiled to look into.
const INSTALLED: &str = "/usr/lib/x86_64-linux-gnu/dpdk";

/// Where its packets lie.
#[derive(Clone, Copy, Debug)]
pub enum Pages {
    /// So many megabytes of huge pages, of which the machine must have enough.
    Huge(u32),
    /// So many megabytes of a memfd of ordinary pages: slower, and the machine stays as it is.
    Ordinary(u32),
}

/// A testpmd that takes commands. It is killed when dropped.
pub struct Testpmd {
    child: Child,
    input: Option<ChildStdin>,
    log: PathBuf,
}

/// testpmd on `lcores` (`0@1,1@1`: the main and the forwarding thread, both on core 1), apart from others by `prefix`; devices, `--` and its
/// own arguments can be added.
///
/// # Errors
///
/// Fails when it is not unpacked, or an installed DPDK cannot be hidden.
pub fn command(prefix: &str, pages: Pages, lcores: &str) -> Result<Command> {
    command_by(&[], prefix, pages, lcores)
}

/// As [`command`], in a network namespace: `net_af_packet` is of its interfaces.
///
/// # Errors
///
/// As there.
pub fn command_in(namespace: &Namespace, prefix: &str, pages: Pages, lcores: &str) -> Result<Command> {
    let namespace = format!("--net=/run/netns/{}", namespace.name());
    command_by(&["nsenter", &namespace], prefix, pages, lcores)
}

fn command_by(before: &[&str], prefix: &str, pages: Pages, lcores: &str) -> Result<Command> {
    hide_the_installed()?;
    let set = Set::open("dpdk")?;
    let before = [before, &["stdbuf", "-oL"]].concat();
    let mut command = set.tool("dpdk-testpmd")?.command_by(&before);
    command.arg("-d").arg(set.file("lib/x86_64-linux-gnu/dpdk/pmds-23.0")?);
    command.args(["--no-pci", &format!("--file-prefix={prefix}"), "--no-telemetry", "--lcores", lcores]);
    match pages {
        Pages::Huge(megabytes) => {
            command.args(["--single-file-segments", "--huge-dir", "/dev/hugepages"]);
            command.args(["-m", &megabytes.to_string()])
        }
        Pages::Ordinary(megabytes) => command.args(["--no-huge", "-m", &megabytes.to_string()]),
    };
    Ok(command)
}

/// Covers the drivers of an installed DPDK, in this sandbox's mounts only.
pub(crate) fn hide_the_installed() -> Result<()> {
    let installed = Path::new(INSTALLED);
    if installed.is_dir() && fs::read_dir(installed)?.next().is_some() {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "tmpfs", INSTALLED]);
        output(mount)?;
    }
    Ok(())
}

impl Testpmd {
    /// Starts `command`; what it says goes to `log`.
    ///
    /// # Errors
    ///
    /// Fails when the log or the process cannot be made.
    pub fn start(mut command: Command, log: &Path) -> Result<Testpmd> {
        let file = File::create(log)?;
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let mut child = command.spawn().context("starting testpmd")?;
        let input = child.stdin.take();
        Ok(Testpmd { child, input, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn must_run(&mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "testpmd ended, see {}", self.log.display());
        Ok(())
    }

    /// All that it has said so far.
    ///
    /// # Errors
    ///
    /// Fails when its log cannot be read.
    pub fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Gives it commands, one a line.
    ///
    /// # Errors
    ///
    /// Fails when it has ended.
    pub fn say(&mut self, commands: &str) -> Result<()> {
        let input = self.input.as_mut().context("testpmd was told to quit")?;
        writeln!(input, "{commands}").with_context(|| format!("testpmd is gone, see {}", self.log.display()))
    }

    /// Gives it a command and returns what it says from then on, as soon as `until` has come up `times` times in it and that line is
    /// whole.
    ///
    /// # Errors
    ///
    /// Fails when that takes longer than `limit`, or it has ended.
    pub fn ask(&mut self, command: &str, until: &str, times: usize, limit: Duration) -> Result<String> {
        let before = fs::metadata(&self.log)?.len();
        self.say(command)?;
        wait_for(&format!("testpmd to answer {command}: {until}"), limit, || {
            self.must_run()?;
            let said = fs::read(&self.log)?;
            let said = String::from_utf8_lossy(said.get(usize::try_from(before)?..).unwrap_or_default())
                .into_owned();
            let last = said.match_indices(until).nth(times - 1);
            Ok(last.is_some_and(|(at, _)| said[at..].contains('\n')).then_some(said))
        })
    }

    /// Ends it, and returns all it has said.
    ///
    /// # Errors
    ///
    /// Fails when it does not end within twenty seconds.
    pub fn finish(mut self) -> Result<String> {
        self.say("quit")?;
        self.input = None;
        let child = &mut self.child;
        wait_for("testpmd to end", Duration::from_secs(20), || Ok(child.try_wait()?))?;
        self.said()
    }
}

/// The numbers that follow `key`, with colons and blanks between, wherever it is said.
pub fn numbers_after(said: &str, key: &str) -> Vec<f64> {
    let number = |(at, _): (usize, &str)| {
        let rest = said[at + key.len()..].trim_start_matches([' ', ':']);
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    said.match_indices(key).filter_map(number).collect()
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // Errors mean that it has ended, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
