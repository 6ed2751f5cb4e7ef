//! What is to be said of the machine.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// From now on this thread works on core 1: core 0 is the back-end's.
///
/// # Errors
///
/// Fails where there is no such core.
pub(super) fn leave_core_0() -> Result<()> {
    let mut core = CpuSet::new();
    core.set(1);
    Ok(sched_setaffinity(None, &core)?)
}

/// Ticks (of ten milliseconds) that the hypervisor took from this machine so far: the eighth figure of the first line of `/proc/stat`.
///
/// # Errors
///
/// Fails when there is no such figure.
fn stolen() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("an empty /proc/stat")?;
    Ok(line.split_whitespace().nth(8).context("no steal time")?.parse()?)
}

/// For how long the threads of process `id` so far could have run and did not, since others had the processor
/// (`/proc/PID/task/*/schedstat`, the second figure).
///
/// # Errors
///
/// Fails when there is no such process.
fn waited(id: u32) -> Result<Duration> {
    let mut waited = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        // One that has ended meanwhile waits for nothing.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanos = text.split_whitespace().nth(1).context("no time of waiting")?;
        waited += Duration::from_nanos(nanos.parse()?);
    }
    Ok(waited)
}

/// Processor, number of cores and kernel, as a sentence's part.
pub fn facts() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let of = |key: &str| {
        let line = cpu.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
    };
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cores} cores, {} MHz, Linux {}",
        of("model name"),
        of("cpu MHz"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// What others took of a measurement's time.
pub struct Disturbance {
    start: Instant,
    stolen: u64,
    /// Back-end and front-end.
    processes: [u32; 2],
    waited: [Duration; 2],
}

impl Disturbance {
    /// Begins to count.
    ///
    /// # Errors
    ///
    /// Fails when a process is gone.
    pub fn begin(processes: [u32; 2]) -> Result<Disturbance> {
        let [back, front] = processes;
        let waited = [waited(back)?, waited(front)?];
        Ok(Disturbance { start: Instant::now(), stolen: stolen()?, processes, waited })
    }

    /// Ticks stolen since, and the share of the time in which the back-end or the front-end waited for its core, in percent.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn end(self) -> Result<(u64, f64)> {
        let mut share = 0.0;
        for (id, before) in self.processes.into_iter().zip(self.waited) {
            let waited = waited(id)?.saturating_sub(before);
            share += 100.0 * waited.as_secs_f64() / self.start.elapsed().as_secs_f64();
        }
        Ok((stolen()? - self.stolen, share))
    }
}

/// Removes a file that may not be there.
///
/// # Errors
///
/// Fails when it is there and stays.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
