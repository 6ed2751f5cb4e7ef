//! testpmd between two vhost ports: no look at the frame, no network virtualization at all.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Backend, Worked};
use crate::bench::machine::remove;
use crate::process::wait_for;
use crate::sandbox;
use crate::testpmd::{self, Pages, Testpmd, numbers_after};

/// How long testpmd may take to start, and to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// For so long bursts are counted.
const BURSTS: Duration = Duration::from_millis(300);

/// The running testpmd.
pub(super) struct Forwarding {
    testpmd: Testpmd,
    sockets: [PathBuf; 2],
}

impl Forwarding {
    pub(super) fn start(pages: Pages, evidence: &Path) -> Result<Forwarding> {
        let sockets =
            ["a.sock", "b.sock"].map(|name| Path::new(sandbox::RUNTIME).join(format!("dpdk-{name}")));
        sockets.iter().try_for_each(|socket| remove(socket))?;
        let mut command = testpmd::command("be", pages, "0@0,1@0")?;
        for (number, socket) in sockets.iter().enumerate() {
            command.args(["--vdev", &format!("net_vhost{number},iface={}", socket.display())]);
        }
        command.args(["--", "-i", "--forward-mode=io", "--nb-cores=1", "--total-num-mbufs=20000"]);
        if let Pages::Ordinary(_) = pages {
            command.arg("--no-mlockall");
        }
        command.args(["--record-core-cycles", "--no-flush-rx"]);
        let mut testpmd = Testpmd::start(command, &evidence.join("testpmd.log"))?;
        wait_for("DPDK's sockets", LIMIT, || {
            testpmd.must_run()?;
            Ok(sockets.iter().all(|socket| socket.exists()).then_some(()))
        })?;
        testpmd.say("start")?;
        Ok(Forwarding { testpmd, sockets })
    }
}

impl Backend for Forwarding {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn id(&self) -> u32 {
        self.testpmd.id()
    }

    fn begin(&mut self) -> Result<()> {
        self.testpmd.say("clear port stats all\nclear fwd stats all")
    }

    fn end(&mut self) -> Result<Worked> {
        let said = self.testpmd.ask("stop", "Done.", 1, LIMIT)?;
        let cycles = numbers_after(&said, "CPU cycles/packet=");
        let cycles = *cycles.first().context("no cycles from testpmd")?;
        Ok(Worked { cycles, per_poll: None, longest: None, updates: None })
    }

    fn bursts(&mut self) -> Result<Option<f64>> {
        // It has stopped; the frames wait in their rings.
        self.testpmd.say("clear fwd stats all\nset record-burst-stats on\nstart")?;
        sleep(BURSTS);
        let said = self.testpmd.ask("stop", "Done.", 1, LIMIT)?;
        Ok(per_poll(&said))
    }
}

/// Of what testpmd says at `stop`: packets divided by bursts. What it received in a poll it sends in one, and sends none after a poll
/// that found nothing.
fn per_poll(said: &str) -> Option<f64> {
    let bursts: f64 = said
        .lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("TX-bursts :")?;
            let (all, rest) = rest.split_once('[')?;
            let empty: f64 = rest.split_once("% of 0 pkts").and_then(|(empty, _)| empty.parse().ok())?;
            Some(all.trim().parse::<f64>().ok()? * (1.0 - empty / 100.0))
        })
        .sum();
    let packets: f64 = numbers_after(said, "RX-packets:").last().copied()?;
    (bursts > 0.0).then_some(packets / bursts)
}

#[cfg(test)]
mod tests {
    use super::per_poll;

    #[test]
    fn empty_bursts_do_not_count() {
        let said = "  RX-bursts : 9000 [99% of 0 pkts + 1% of 32 pkts]\n  TX-bursts : 1000 [50% of 0 pkts + 50% of 32 pkts]\n  \
                    TX-bursts : 300 [0% of 0 pkts + 100% of 32 pkts]\n  RX-packets: 8000  RX-dropped: 0\n  RX-packets: 16000  RX-dropped: 0\n";
        assert_eq!(per_poll(said), Some(20.0));
        assert_eq!(per_poll(""), None);
    }
}
