//! The program under test: one `vhost-ila run` a host.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::fabric::{Host, TUN};
use crate::process::{Owned, output, wait_for};
use crate::sandbox;

/// How long a daemon may take to be ready, or to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A daemon on its host. It is killed when dropped.
pub struct Daemon {
    host: Host,
    vnets: Vec<String>,
    /// Its uplink is a TUN.
    tun: bool,
    config: PathBuf,
    log: PathBuf,
    process: Owned,
}

impl Daemon {
    /// Starts the daemon of `host` with `config`, and sets the routes that its TUN needs. Its log goes to `NAME.log` in
    /// `evidence`, after what is there already.
    ///
    /// # Errors
    ///
    /// Fails when the daemon ends or does not make its TUN in time.
    pub fn start(host: &Host, vnets: &[String], config: &Path, evidence: &Path) -> Result<Daemon> {
        Daemon::start_with(host, Some(vnets), config, evidence)
    }

    /// As [`Daemon::start`]; without `vnets` its uplink is none that the kernel would route to.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn start_with(
        host: &Host,
        vnets: Option<&[String]>,
        config: &Path,
        evidence: &Path,
    ) -> Result<Daemon> {
        let log = evidence.join(format!("{}.log", host.name));
        let process = spawn(host, config, &log)?;
        let (tun, vnets) = (vnets.is_some(), vnets.unwrap_or_default().to_vec());
        let mut daemon = Daemon { host: host.clone(), vnets, tun, config: config.to_owned(), log, process };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Kills the daemon as a crash would: no clean-up.
    ///
    /// # Errors
    ///
    /// Fails when it is gone already, or cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.must_run()?;
        self.process.end(Signal::KILL, LIMIT).map(drop)
    }

    /// Asks the daemon to end, and returns how it ended.
    ///
    /// # Errors
    ///
    /// Fails when it does not.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.end(Signal::TERM, LIMIT)
    }

    /// Starts it again after [`Daemon::kill`], as an operator's service manager would.
    ///
    /// # Errors
    ///
    /// As [`Daemon::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.host, &self.config, &self.log)?;
        self.wait_until_ready()
    }

    /// Fails when the daemon is gone.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run().with_context(|| format!("see {}", self.log.display()))
    }

    /// How many files it has open.
    ///
    /// # Errors
    ///
    /// Fails when it is gone.
    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }

    /// What of its files, but for standard input, output and error, is not close-on-exec; those it was started with are among them.
    ///
    /// # Errors
    ///
    /// Fails when it is gone.
    pub fn inheritable(&self) -> Result<Vec<String>> {
        const CLOSE_ON_EXEC: u32 = 0o2_000_000;
        let process = format!("/proc/{}", self.process.id());
        let mut inheritable = Vec::new();
        for file in fs::read_dir(format!("{process}/fdinfo"))? {
            let file = file?;
            let number = file.file_name().to_string_lossy().into_owned();
            // One that was closed meanwhile is none.
            let Ok(text) = fs::read_to_string(file.path()) else { continue };
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).context("no flags")?;
            let flags = u32::from_str_radix(flags.trim(), 8)?;
            if flags & CLOSE_ON_EXEC == 0 && !["0", "1", "2"].contains(&number.as_str()) {
                let link = fs::read_link(format!("{process}/fd/{number}"));
                inheritable.push(format!("{number}: {}", link.unwrap_or_default().display()));
            }
        }
        inheritable.sort();
        Ok(inheritable)
    }

    /// What it holds of the machine at this moment.
    ///
    /// # Errors
    ///
    /// Fails when it is gone.
    pub fn footprint(&self) -> Result<Footprint> {
        let process = format!("/proc/{}", self.process.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let kilobytes = |key: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            let value = value.with_context(|| format!("no {key}"))?.trim().trim_end_matches(" kB");
            value.parse().context("a number of kilobytes")
        };
        let maps = fs::read_to_string(format!("{process}/maps"))?;
        let of_guests = maps.lines().filter(|line| line.contains("/memfd:"));
        Ok(Footprint {
            files: self.open_files()?,
            maps: maps.lines().count(),
            guest_memory: of_guests.filter_map(bytes_of_map).sum(),
            resident: kilobytes("VmRSS:")?,
            own: kilobytes("RssAnon:")?,
            threads: fs::read_dir(format!("{process}/task"))?.count(),
        })
    }

    /// What each of its threads has spent so far.
    ///
    /// # Errors
    ///
    /// Fails when it is gone.
    pub fn threads(&self) -> Result<Vec<Spent>> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id()))?;
        threads.map(|thread| Spent::of(&thread?.path())).collect()
    }

    /// What `vhost-ila show WHAT --json` prints.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer.
    pub fn show(&self, what: &str) -> Result<Value> {
        let mut command = Command::new(binary()?);
        command.args(["show", what, "--json", "--config"]).arg(&self.config);
        Ok(serde_json::from_str(&output(command)?)?)
    }

    /// Has it read its config again.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses what it finds there.
    pub fn reload(&self) -> Result<()> {
        let mut command = Command::new(binary()?);
        command.args(["reload", "--config"]).arg(&self.config);
        output(command).map(drop)
    }

    /// How many packets were dropped for `reason`, of all attachments and the uplink.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let counters = self.show("counters")?;
        let attachments = counters["attachments"].as_object().context("`show counters` has attachments")?;
        let sides = attachments.values().chain([&counters["uplink"]]);
        Ok(sides.filter_map(|side| side["drops"][reason].as_u64()).sum())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let control = runtime(&self.host).join("control.sock");
        let (process, host, log, tun) = (&mut self.process, &self.host, &self.log, self.tun);
        wait_for(&format!("the daemon of {} and its TUN", host.name), LIMIT, || {
            process.must_run().with_context(|| fs::read_to_string(log).unwrap_or_default())?;
            // A killed daemon's socket is still there, and its successor's TUN not yet up when it is first seen.
            let routed = || host.namespace.has_interface(TUN) && host.route_to_tun(&self.vnets).is_ok();
            Ok((control.exists() && (!tun || routed())).then_some(()))
        })
    }
}

/// What a thread has spent since it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Time on a processor (the first figure of `schedstat`).
    pub ran: Duration,
    /// How often it went to sleep by itself, so one less than it was woken (`voluntary_ctxt_switches`).
    pub sleeps: u64,
}

impl Spent {
    fn of(thread: &Path) -> Result<Spent> {
        let read = |file: &str| fs::read_to_string(thread.join(file));
        let (schedule, status) = (read("schedstat")?, read("status")?);
        let ran = schedule.split_whitespace().next().context("no time")?.parse()?;
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let id = thread.file_name().and_then(|name| name.to_str()).context("no number")?;
        Ok(Spent {
            id: id.parse()?,
            name: read("comm")?.trim().to_owned(),
            ran: Duration::from_nanos(ran),
            sleeps: sleeps.context("no switches")?.trim().parse()?,
        })
    }

    /// What it spent since it had spent `before`; all of it if it is another thread.
    #[must_use]
    pub fn since(&self, before: &[Spent]) -> Spent {
        let Some(before) = before.iter().find(|before| before.id == self.id) else { return self.clone() };
        let sleeps = self.sleeps.saturating_sub(before.sleeps);
        Spent { ran: self.ran.saturating_sub(before.ran), sleeps, ..self.clone() }
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open files.
    pub files: usize,
    /// Mapped ranges of memory.
    pub maps: usize,
    /// Bytes of guests' memory that are mapped.
    pub guest_memory: u64,
    /// Memory in use, guests' included, in units of 1024 bytes.
    pub resident: u64,
    /// Memory in use that is its own, in units of 1024 bytes.
    pub own: u64,
    /// Threads.
    pub threads: usize,
}

impl Footprint {
    /// Fails when this is more than `before`, where nothing came that stays: the slope of a series of one and the same thing is zero.
    /// Only an allocator may keep a little, 256 KB.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn must_be_no_more_than(&self, before: &Footprint) -> Result<()> {
        let grew = self.files > before.files
            || self.maps > before.maps
            || self.guest_memory > before.guest_memory
            || self.threads > before.threads
            || self.own > before.own + 256;
        ensure!(!grew, "the daemon held {before:?}, and holds {self:?} after it");
        Ok(())
    }

    /// Fails when `after` holds more than this, but for what an allocator and a thread's stack may keep: 16 maps, 32 MB.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn must_hold(&self, after: &Footprint) -> Result<()> {
        let grew = after.files > self.files
            || after.threads > self.threads
            || after.guest_memory > self.guest_memory
            || after.maps > self.maps + 16
            || after.resident > self.resident + (32 << 10);
        ensure!(!grew, "the daemon held {self:?}, and holds {after:?} after it");
        Ok(())
    }
}

/// The size in bytes of a line of `/proc/PID/maps`: `7f0000000000-7f0000001000 rw-s ...`.
fn bytes_of_map(line: &str) -> Option<u64> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    address(end)?.checked_sub(address(start)?)
}

/// The directory of a host's sockets.
pub fn runtime(host: &Host) -> PathBuf {
    Path::new(sandbox::RUNTIME).join(&host.name)
}

/// The program that `cargo xtask` has built.
pub(crate) fn binary() -> Result<PathBuf> {
    let path =
        env::var_os("VHOST_ILA_BINARY").context("VHOST_ILA_BINARY is not set: run it by `cargo xtask`")?;
    Ok(PathBuf::from(path))
}

fn spawn(host: &Host, config: &Path, log: &Path) -> Result<Owned> {
    let runtime = runtime(host);
    fs::create_dir_all(&runtime)?;
    // Left by a killed daemon: its presence must not be taken for readiness.
    let control = runtime.join("control.sock");
    if control.exists() {
        fs::remove_file(control)?;
    }
    let mut command = host.namespace.command(binary()?);
    command.arg("run").arg("--config").arg(config);
    Owned::spawn(&format!("vhost-ila on {}", host.name), command, log)
}
