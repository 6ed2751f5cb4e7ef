//! What is to be said of the machine.

use std::fs;
use std::path::Path;
use std::{io, thread};

use anyhow::{Context, Result};

/// Ticks (of ten milliseconds) that the hypervisor took from this machine so far: the eighth figure of the first line of `/proc/stat`.
///
/// # Errors
///
/// Fails when there is no such figure.
pub fn stolen() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("an empty /proc/stat")?;
    Ok(line.split_whitespace().nth(8).context("no steal time")?.parse()?)
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
