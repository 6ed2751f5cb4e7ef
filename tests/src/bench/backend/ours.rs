//! `vhost-ila run` between two tenants of one network.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Backend, Worked};
use crate::bench::case::{Case, To};
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
const LOCATORS: u32 = 250;

/// The configuration of a case: a host, its uplink, and a network with one or two tenants.
fn config(case: &Case) -> String {
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
    if case.to == To::Wire {
        config += "[mappings]\nfile = \"mappings.txt\"\n";
    }
    config
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
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    cycles: u64,
    packets: u64,
    polls: u64,
}

/// The running daemon.
pub(super) struct Ours {
    binary: PathBuf,
    config: PathBuf,
    runtime: PathBuf,
    sockets: Vec<PathBuf>,
    process: Owned,
    before: Counters,
}

impl Ours {
    pub(super) fn start(binary: &Path, case: &Case, evidence: &Path) -> Result<Ours> {
        let runtime = Path::new(sandbox::RUNTIME).join("bench");
        fs::create_dir_all(&runtime)?;
        let config = evidence.join("host.toml");
        fs::write(&config, self::config(case))?;
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
        Ok(Ours { binary: binary.to_owned(), config, runtime, sockets, process, before })
    }

    fn counters(&mut self) -> Result<Counters> {
        self.process.must_run()?;
        let mut show = Command::new(&self.binary);
        show.args(["show", "counters", "--json", "--config"]).arg(&self.config);
        let counters: Value = serde_json::from_str(&output(show)?)?;
        let workers = counters["workers"].as_array().context("`show counters` has workers")?;
        let sum = |key: &str| workers.iter().filter_map(|worker| worker[key].as_u64()).sum();
        Ok(Counters { cycles: sum("busy_cycles"), packets: sum("packets"), polls: sum("busy_polls") })
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
        Ok(())
    }

    fn end(&mut self) -> Result<Worked> {
        let (before, after) = (self.before, self.counters()?);
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds are far below 2^52")]
        let since = |count: fn(&Counters) -> u64| count(&after).saturating_sub(count(&before)) as f64;
        let packets = since(|counters| counters.packets);
        ensure!(packets > 10_000.0, "{packets} packets: nothing circulates");
        Ok(Worked {
            cycles: since(|counters| counters.cycles) / packets,
            per_poll: Some(packets / since(|counters| counters.polls)),
            longest: None,
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
