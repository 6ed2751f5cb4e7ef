//! Child processes with one owner each.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until `ready` returns something, for at most `limit`.
///
/// # Errors
///
/// Fails when the limit has passed, naming `what` was waited for, or when `ready` fails.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = ready()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(LOOK);
    }
}

/// Runs `command` to its end and returns what it printed.
///
/// # Errors
///
/// Fails when it cannot be started or exits with an error, quoting what it said.
pub fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A child that is killed when its owner lets go of it.
#[derive(Debug)]
pub struct Owned {
    name: String,
    child: Child,
}

impl Owned {
    /// Starts `command`, its output and errors appended to `log`.
    ///
    /// # Errors
    ///
    /// Fails when the log or the process cannot be made.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Owned> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Owned { name: name.to_owned(), child })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or nothing while it runs.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails when the process is gone.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status} (signal {:?})", self.name, status.signal()),
        }
    }

    /// Sends `signal` and waits up to `limit` for the end.
    ///
    /// # Errors
    ///
    /// Fails when it does not end in time; it is killed then.
    pub fn end(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal)?;
        let what = format!("{} to end after {signal:?}", self.name);
        let child = &mut self.child;
        wait_for(&what, limit, || Ok(child.try_wait()?))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Errors mean that it is gone already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
