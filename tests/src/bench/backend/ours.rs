//! `vhost-ila run` between two tenants of one network.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use super::updates::{Places, Updates};
use super::{Backend, Worked};
use crate::bench::case::{Beside, Case, To};
use crate::bench::generator::FIRST_DESTINATION;
use crate::bench::machine::remove;
use crate::process::{Owned, output, wait_for};
use crate::sandbox;

/// Everything on: nothing is left out of the walk because it is measured.
const HOST: &str = r#"
[host]
name = "bench"
locator = "2001:db8:0:1::/64"
sir = "2001:db8:51::/64"
runtime = "/run/vhost-ila/bench"
spin = "1s"
"#;

/// Hosts that the mapped identifiers are on, each as many.
pub(super) const LOCATORS: u32 = 250;

/// The configuration of a case: a host, its uplink, and a network with one or two tenants.
fn config(case: &Case, evidence: &Path) -> String {
    let mut config = HOST.to_owned();
    config += match case.to {
        To::Neighbour => "[uplink]\nkind = \"none\"\nmtu = 9000\n",
        To::Wire => {
            "[uplink]\nkind = \"vhost-user\"\nsocket = \"fabric.sock\"\nmode = \"server\"\n\
             next_hop = \"02:00:00:00:00:99\"\n"
        }
    };
    config += "[network.blue]\nvni = 1001\nipv4 = \"10.0.0.0/8\"\nipv6 = \"2001:db8:b1:e::/96\"\n";
    for (number, name) in (1..).zip(names(case)) {
        config += &format!(
            "[attachment.{name}]\nnetwork = \"blue\"\nkind = \"vhost-user\"\nsocket = \"{name}.sock\"\nmode = \"server\"\n\
             mac = \"02:00:00:00:00:{number:02x}\"\naddresses = [\"10.1.0.{number}\", \"2001:db8:b1:e::{number}\"]\n"
        );
        if case.packed {
            config += "packed = true\n";
        }
    }
    if is_registered(case) {
        config += &format!("[authority]\nkind = \"embedded\"\nstate = {:?}\n", evidence.join("state"));
    } else if case.to == To::Wire {
        config += "[mappings]\nfile = \"mappings.txt\"\n";
    }
    config
}

/// Whether destinations are told by the control socket.
fn is_registered(case: &Case) -> bool {
    matches!(case.beside, Beside::Registered | Beside::Updates(_))
}

/// The tenants of a case.
fn names(case: &Case) -> Vec<String> {
    let letters = ["a", "b"].map(str::to_owned).into_iter();
    letters.chain((3..).map(|number| format!("t{number}"))).take(case.tenants()).collect()
}

/// The mappings of a case, for a file of their own.
fn mappings(case: &Case) -> String {
    let mut mappings = String::new();
    if case.to == To::Wire {
        for number in 0..case.destinations {
            let address = Ipv4Addr::from(u32::from(FIRST_DESTINATION) + number);
            let locator = 0x100 + number % LOCATORS;
            mappings += &format!("blue {address} 2001:db8:0:{locator:x}::/64\n");
        }
    }
    mappings
}

/// The worker's counters, summed over workers.
#[derive(Clone, Debug, Default)]
struct Counters {
    cycles: u64,
    packets: u64,
    polls: u64,
    turns: Vec<u64>,
}

/// The running daemon.
pub(super) struct Ours {
    binary: PathBuf,
    config: PathBuf,
    runtime: PathBuf,
    sockets: Vec<PathBuf>,
    process: Owned,
    before: Counters,
    updates: Option<Updates>,
}

/// Of ten thousand batches, the longest but one: what is longer is a core that others took, which is nobody's batch.
const ALL_BUT: u64 = 10_000;

impl Counters {
    /// Microseconds of the longest batch since `before`, its step's upper end: see the worker's `fine_turns`.
    fn longest_since(&self, before: &Counters) -> Option<f64> {
        let since: Vec<u64> = self
            .turns
            .iter()
            .enumerate()
            .map(|(step, count)| count - before.turns.get(step).copied().unwrap_or(0))
            .collect();
        let mut left = since.iter().sum::<u64>() / ALL_BUT;
        let step = since.iter().rposition(|count| {
            let is_it = *count > left;
            left = left.saturating_sub(*count);
            is_it
        })?;
        Some(upper_end(step + 1))
    }
}

/// Where a step of `fine_turns` begins, in microseconds.
fn upper_end(step: usize) -> f64 {
    let (doublings, quarters) = if step < 4 { (0, step) } else { (step / 4 - 1, 4 + step % 4) };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let quarters = ((quarters as u64) << doublings) as f64;
    quarters / 4.0
}

impl Ours {
    pub(super) fn start(binary: &Path, case: &Case, evidence: &Path) -> Result<Ours> {
        let runtime = Path::new(sandbox::RUNTIME).join("bench");
        fs::create_dir_all(&runtime)?;
        let config = evidence.join("host.toml");
        fs::write(&config, self::config(case, evidence))?;
        fs::write(evidence.join("mappings.txt"), mappings(case))?;
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(binary).arg("run").arg("--config").arg(&config);
        let mut process = Owned::spawn("vhost-ila", command, &evidence.join("vhost-ila.log"))?;
        let fabric = (case.to == To::Wire).then(|| "fabric".to_owned());
        let listening = names(case).into_iter().chain(fabric);
        let sockets: Vec<_> = listening.map(|name| runtime.join(format!("{name}.sock"))).collect();
        // A million mappings take their time to be read.
        wait_for("vhost-ila's sockets", Duration::from_secs(120), || {
            process.must_run()?;
            Ok(sockets.iter().all(|socket| socket.exists()).then_some(()))
        })?;
        let before = Counters::default();
        let (binary, updates) = (binary.to_owned(), None);
        let mut ours = Ours { binary, config, runtime, sockets, process, before, updates };
        if is_registered(case) {
            ours.register(case)?;
        }
        Ok(ours)
    }

    /// The worker keeps its core; the daemon's other threads, which have something to do here, go to the front-end's.
    fn register(&mut self, case: &Case) -> Result<()> {
        let mut core = CpuSet::new();
        core.set(1);
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let thread = thread?.path();
            let id = thread.file_name().and_then(|id| id.to_str()).and_then(|id| id.parse().ok());
            if fs::read_to_string(thread.join("comm"))?.trim() != "worker0" {
                sched_setaffinity(id.and_then(Pid::from_raw), &core)?;
            }
        }
        wait_for("the daemon to answer", Duration::from_secs(20), || Ok(self.counters().ok()))?;
        let places = Places::register(&self.binary, &self.config, case.destinations)?;
        if let Beside::Updates(rate) = case.beside {
            self.updates = Some(Updates::start(&self.binary, &self.config, places, rate)?);
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<Counters> {
        self.process.must_run()?;
        // Not on the core of which it asks.
        let mut show = Command::new("taskset");
        show.args(["-c", "1"]).arg(&self.binary);
        show.args(["show", "counters", "--json", "--config"]).arg(&self.config);
        let counters: Value = serde_json::from_str(&output(show)?)?;
        let workers = counters["workers"].as_array().context("`show counters` has workers")?;
        let sum = |key: &str| workers.iter().filter_map(|worker| worker[key].as_u64()).sum();
        let mut turns = Vec::new();
        for steps in workers.iter().filter_map(|worker| worker["fine_turns"].as_array()) {
            turns.resize(steps.len().max(turns.len()), 0);
            turns.iter_mut().zip(steps).for_each(|(sum, count)| *sum += count.as_u64().unwrap_or(0));
        }
        Ok(Counters { cycles: sum("busy_cycles"), packets: sum("packets"), polls: sum("busy_polls"), turns })
    }
}

impl Backend for Ours {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn id(&self) -> u32 {
        self.process.id()
    }

    fn begin(&mut self) -> Result<()> {
        self.before = self.counters()?;
        self.updates.iter_mut().for_each(Updates::begin);
        Ok(())
    }

    fn end(&mut self) -> Result<Worked> {
        let (before, after) = (self.before.clone(), self.counters()?);
        let updated = self.updates.take().map(|mut updates| updates.end()).transpose()?;
        let updates = updated.as_ref().map(|(rate, _)| *rate);
        if let Some((_, places)) = &updated {
            places.verify(&self.binary, &self.config)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds are far below 2^52")]
        let since = |count: fn(&Counters) -> u64| count(&after).saturating_sub(count(&before)) as f64;
        let packets = since(|counters| counters.packets);
        ensure!(packets > 10_000.0, "{packets} packets: nothing circulates");
        Ok(Worked {
            cycles: since(|counters| counters.cycles) / packets,
            per_poll: Some(packets / since(|counters| counters.polls)),
            longest: after.longest_since(&before),
            updates,
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // A killed daemon leaves its sockets; what cannot be removed is seen by the next one, which refuses to start.
        drop(self.process.end(rustix::process::Signal::KILL, Duration::from_secs(5)));
        let control = self.runtime.join("control.sock");
        self.sockets.iter().chain([&control]).for_each(|socket| drop(remove(socket)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_batch_is_that_of_the_last_step_but_for_one_in_ten_thousand() {
        let counters = |turns: &[(usize, u64)]| {
            let mut all = vec![0; 48];
            turns.iter().for_each(|(step, count)| all[*step] = *count);
            Counters { turns: all, ..Counters::default() }
        };
        let before = counters(&[(40, 5)]);
        assert_eq!(counters(&[(4, 9_000), (40, 5)]).longest_since(&before), Some(1.25));
        assert_eq!(counters(&[(4, 20_000), (12, 1), (40, 6)]).longest_since(&before), Some(1.25));
        assert_eq!(counters(&[(4, 20_000), (12, 2), (40, 6)]).longest_since(&before), Some(5.0));
        assert_eq!(before.longest_since(&before), None);
    }
}
