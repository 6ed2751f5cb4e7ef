//! What gives a back-end something to do, by one interface.
//!
//! The load of two neighbours that answer each other ([`Swap`]): testpmd on core 1, with a virtio-user NIC on each socket of the back-end.
//!
//! `5tswap` and `--port-topology=loop`: what arrives at a NIC goes back to its sender, addresses and ports exchanged, as a tenant
//! could have sent it. 256 frames circulate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::case::{Case, Load};
use super::generator::Generator;
use crate::testpmd::{self, Pages, Testpmd};

/// The virtual gateway's address, which every tenant sends to.
const GATEWAY: &str = "02:49:4c:41:00:01";

/// How long testpmd may take to start, and to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A running front-end, with its frames on their way.
pub enum FrontEnd {
    /// testpmd.
    Swap(Box<Swap>),
    /// Ours.
    Generator(Generator),
}

impl FrontEnd {
    /// The front-end that `case` names.
    ///
    /// # Errors
    ///
    /// Fails when it does not start.
    pub fn start(case: &Case, sockets: &[PathBuf], evidence: &Path) -> Result<FrontEnd> {
        Ok(match case.load {
            Load::Swap => FrontEnd::Swap(Box::new(Swap::start(case, sockets, evidence)?)),
            Load::Generator | Load::Fleet => FrontEnd::Generator(Generator::start(case, sockets, true)?),
        })
    }

    /// Returns when it has begun to send; testpmd's frames circulate as soon as it has started.
    ///
    /// # Errors
    ///
    /// Fails when nothing arrives.
    pub fn wait_until_it_flows(&mut self) -> Result<()> {
        match self {
            FrontEnd::Swap(_) => Ok(()),
            FrontEnd::Generator(generator) => generator.wait_until_it_flows(),
        }
    }

    /// Arrivals are counted from here.
    ///
    /// # Errors
    ///
    /// Fails when it has ended.
    pub fn begin(&mut self) -> Result<()> {
        match self {
            FrontEnd::Swap(swap) => swap.begin(),
            FrontEnd::Generator(generator) => generator.begin(),
        }
    }

    /// What arrived since: million packets, and gigabytes of frames, a second.
    ///
    /// # Errors
    ///
    /// Fails when hardly anything did, or frames were not of `length` bytes.
    pub fn end(&mut self, length: u32) -> Result<(f64, f64)> {
        let (pps, mean) = match self {
            FrontEnd::Swap(swap) => swap.end()?,
            FrontEnd::Generator(generator) => generator.end()?,
        };
        ensure!((mean - f64::from(length)).abs() < 1.0, "frames of {mean:.1} bytes arrive, not of {length}");
        Ok((pps / 1e6, pps * mean / 1e9))
    }

    /// The process that works: this one, if it is the generator.
    pub fn id(&self) -> u32 {
        match self {
            FrontEnd::Swap(swap) => swap.testpmd.id(),
            FrontEnd::Generator(_) => std::process::id(),
        }
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// Fails when it does not end well.
    pub fn finish(self) -> Result<()> {
        match self {
            FrontEnd::Swap(swap) => swap.finish(),
            FrontEnd::Generator(generator) => generator.finish(),
        }
    }
}

/// The running testpmd.
pub struct Swap {
    testpmd: Testpmd,
}

impl Swap {
    /// Attaches to `sockets` and lets the frames of `case` go.
    ///
    /// # Errors
    ///
    /// Fails when testpmd does not start.
    pub fn start(case: &Case, sockets: &[PathBuf], evidence: &Path) -> Result<Swap> {
        let mut command = testpmd::command("fe", Pages::Huge(256), "0@1,1@1")?;
        for (number, socket) in sockets.iter().enumerate() {
            let mac = format!("02:00:00:00:00:0{}", number + 1);
            let rings = if case.packed { ",packed_vq=1" } else { "" };
            let device =
                format!("net_virtio_user{number},path={},queue_size=1024,mac={mac}{rings}", socket.display());
            command.args(["--vdev", &device]);
        }
        command.args(["--", "-i", "--forward-mode=5tswap", "--port-topology=loop", "--nb-cores=1"]);
        command.args(["--txd=1024", "--rxd=1024", "--total-num-mbufs=20000", "--tx-ip=10.1.0.1,10.1.0.2"]);
        command.args([format!("--eth-peer=0,{GATEWAY}"), format!("--eth-peer=1,{GATEWAY}")]);
        if case.frame_bytes() > 1518 {
            command.args(["--max-pkt-len=9018", "--enable-scatter", "--tx-offloads=0x8000"]);
        }
        let mut testpmd = Testpmd::start(command, &evidence.join("front-end.log"))?;
        let segments: Vec<String> = case.segments.iter().map(u16::to_string).collect();
        testpmd.ask(
            &format!("set txpkts {}\nshow config txpkts", segments.join(",")),
            "Number of segments",
            1,
            LIMIT,
        )?;
        testpmd.say("start tx_first 8")?;
        Ok(Swap { testpmd })
    }

    /// Rates are counted from here.
    ///
    /// # Errors
    ///
    /// Fails when testpmd does not answer.
    pub fn begin(&mut self) -> Result<()> {
        self.rates().map(drop)
    }

    /// What arrived since [`Swap::begin`], by testpmd's own clock: packets a second, and the mean of their lengths in bytes.
    ///
    /// # Errors
    ///
    /// Fails when testpmd does not answer, or nothing circulates.
    pub fn end(&mut self) -> Result<(f64, f64)> {
        let (pps, bits) = self.rates()?;
        ensure!(pps > 1_000.0, "{pps} packets a second: nothing circulates");
        Ok((pps, bits / 8.0 / pps))
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// Fails when it does not end.
    pub fn finish(mut self) -> Result<()> {
        self.testpmd.say("stop")?;
        self.testpmd.finish().map(drop)
    }

    /// Packets and bits a second that both ports received since the last time.
    fn rates(&mut self) -> Result<(f64, f64)> {
        // Two ports.
        let said = self.testpmd.ask("show port stats all", "Tx-pps:", 2, LIMIT)?;
        let sum = |key| testpmd::numbers_after(&said, key).iter().sum();
        Ok((sum("Rx-pps:"), sum("Rx-bps:")))
    }
}
