//! Mappings that change while packets flow: lines to `vhost-ila mapping apply`, as an orchestrator would pipe them.
//!
//! ```text
//!   thread, so many lines a second ──> vhost-ila mapping apply ──control socket, what has come by then together──> registry ──> table
//! ```
//!
//! What must stay true: of four lines two move a destination that is sent to, one unregisters a spare address, and one registers it; every
//! line is one that the registry takes, and afterwards packets go where was said last, or the measurement fails.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::ours::LOCATORS;
use crate::bench::generator::FIRST_DESTINATION;
use crate::bench::machine;
use crate::process::output;

/// Registered addresses that nobody sends to, behind the destinations.
const SPARE: u32 = 2_000;

/// How often lines are written.
const TICK: Duration = Duration::from_millis(5);

/// Where everybody is.
pub(super) struct Places {
    destinations: u32,
    /// How often each destination has moved.
    moves: Vec<u32>,
    next: u32,
}

/// The address of a number, destinations first.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST_DESTINATION) + number)
}

/// A locator of the hosts that identifiers are on.
fn locator(number: u32) -> String {
    format!("2001:db8:0:{:x}::/64", 0x100 + number % LOCATORS)
}

impl Places {
    /// Registers all with the daemon of `config`.
    pub(super) fn register(binary: &Path, config: &Path, destinations: u32) -> Result<Places> {
        let lines: String = (0..destinations + SPARE)
            .map(|number| format!("register blue {} {}\n", address(number), locator(number)))
            .collect();
        let file = config.with_file_name("registrations.txt");
        std::fs::write(&file, lines)?;
        let mut command = Command::new(binary);
        command.args(["mapping", "apply", "--config"]).arg(config).arg(&file);
        let said = output(command)?;
        ensure!(said.trim() == format!("{} changed", destinations + SPARE), "{said}");
        Ok(Places { destinations, moves: vec![0; destinations as usize], next: 0 })
    }

    /// Fails where the daemon has a destination elsewhere than was said last.
    pub(super) fn verify(&self, binary: &Path, config: &Path) -> Result<()> {
        let mut command = Command::new(binary);
        command.args(["show", "mappings", "--json", "--config"]).arg(config);
        let mappings: Value = serde_json::from_str(&output(command)?)?;
        let mappings = mappings.as_array().context("`show mappings` is a list")?;
        let at: HashMap<&str, &str> = mappings
            .iter()
            .filter_map(|mapping| Some((mapping["address"].as_str()?, mapping["locator"].as_str()?)))
            .collect();
        for (number, moves) in (0..).zip(&self.moves) {
            let (address, said) = (address(number).to_string(), locator(number + moves));
            let is = at.get(&*address).copied();
            ensure!(is == Some(&said), "{address} is at {is:?}, and was moved {moves} times, to {said}");
        }
        Ok(())
    }

    /// Four changes.
    fn change(&mut self) -> String {
        let round = self.next;
        self.next += 1;
        let mut lines = String::new();
        for number in [2 * round % self.destinations, (2 * round + 1) % self.destinations] {
            let moves = &mut self.moves[number as usize];
            let (from, to) = (locator(number + *moves), locator(number + *moves + 1));
            *moves += 1;
            lines += &format!("move blue {} {from} {to}\n", address(number));
        }
        let spare = self.destinations + round % SPARE;
        let at = locator(spare);
        lines += &format!("unregister blue {} {at}\nregister blue {} {at}\n", address(spare), address(spare));
        lines
    }
}

/// The changes, while they run.
pub(super) struct Updates {
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Places>>>,
    before: (u64, Instant),
}

impl Updates {
    /// Begins to make so many a second.
    pub(super) fn start(binary: &Path, config: &Path, places: Places, rate: u32) -> Result<Updates> {
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).arg(binary).args(["mapping", "apply", "--config"]).arg(config);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (told, end) = (Arc::clone(&written), Arc::clone(&stop));
        let thread = thread::spawn(move || feed(child, places, rate, &told, &end));
        Ok(Updates { written, stop, thread: Some(thread), before: (0, Instant::now()) })
    }

    /// They are counted from here.
    pub(super) fn begin(&mut self) {
        self.before = (self.written.load(Ordering::Relaxed), Instant::now());
    }

    /// How many a second there were since, and where everybody is; ends them.
    pub(super) fn end(&mut self) -> Result<(f64, Places)> {
        let (before, start) = self.before;
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds is far below 2^52")]
        let rate = (self.written.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().context("they have ended")?.join();
        let places = ended.map_err(|_| anyhow!("the thread of the updates panicked"))??;
        Ok((rate, places))
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Who drops it has an error of its own to tell.
            drop(thread.join());
        }
    }
}

/// Writes lines until it is told to stop; what was not taken of them is an error.
fn feed(
    mut child: Child,
    mut places: Places,
    rate: u32,
    written: &AtomicU64,
    stop: &AtomicBool,
) -> Result<Places> {
    // Two hundred times a second it would take the worker's core for the tenth of a millisecond that lines take to write.
    machine::leave_core_0()?;
    let mut input = child.stdin.take().context("no standard input")?;
    let (start, mut lines) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // What it could not take in time is not made up for.
        let count = due.saturating_sub(lines).min(u64::from(rate) / 50) / 4;
        let text: String = (0..count).map(|_| places.change()).collect();
        input.write_all(text.as_bytes()).context("vhost-ila mapping apply has ended")?;
        written.fetch_add(4 * count, Ordering::Relaxed);
        lines = lines.max(due.saturating_sub(due % 4));
        thread::sleep(TICK);
    }
    drop(input);
    let said = child.wait_with_output()?;
    let all = written.load(Ordering::Relaxed);
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&said.stderr).lines().take(3).collect::<Vec<_>>().join("; ");
    ensure!(told.trim() == format!("{all} changed"), "of {all} changes: {} {complaint}", told.trim());
    Ok(places)
}
