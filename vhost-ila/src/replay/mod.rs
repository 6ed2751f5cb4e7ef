//! A capture through the real pipeline, offline.
//!
//! What must stay true:
//!
//! * It is the pipeline of the daemon, with the same config; only rings and uplink are missing.
//! * The capture's timestamps are the clock, so that the same capture has the same fate tomorrow. The clock never goes back.
//! * Nothing vanishes: each packet of the input comes out as what became of it, or as itself with the comment `drop=NAME`; what goes to
//!   the slow path with the comment `punt=DESK`, before the answer. The desks have no time but that of the packets.
//!
//! ```text
//!   in.pcap(ng) ── input.rs ──> CarryOut over Walker ──┬─ local, reply ──> interface of an attachment (Ethernet)
//!   Ethernet from an attachment,                       ├─ uplink ────────> interface `uplink` (raw IPv6)
//!   raw IPv6 from the uplink                           └─ dropped ───────> the input's interface, drop=NAME
//! ```

mod input;
mod output;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use nve_core::DropReason;
use nve_core::packet::Offload;
use nve_core::pipeline::{CarryOut, Nve, Origin, Outcome, Receiver, Walker};
use nve_core::punt::{Desks, Outbox, Punted};

use input::Input;
use output::Output;

/// What became of the packets of a capture.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Packets read.
    pub packets: u64,
    /// Packets delivered to attachments, by name; answers to the origin are not among them.
    pub local: BTreeMap<String, u64>,
    /// Packets delivered to the fabric.
    pub uplink: u64,
    /// Answers to where packets came from.
    pub replies: u64,
    /// Packets dropped, by the reason's name.
    pub drops: BTreeMap<&'static str, u64>,
}

/// Sends every packet of the capture `input` from `origin` through `nve`, and writes what becomes of them to `output`.
///
/// All attachments of `nve` count as running, with drivers that take no offloads.
///
/// # Errors
/// A file cannot be read or written, its link type is not that of `origin`, or a packet was not captured whole.
pub fn replay(nve: &Arc<Nve>, origin: Origin, input: &Path, output: &Path) -> Result<Summary> {
    let ports = nve.ports();
    for port in &ports {
        nve.set_receiver(port.port, Receiver { up: true, ..Receiver::default() });
    }
    let names: BTreeMap<_, _> = ports.iter().map(|port| (port.port, port.name.as_str())).collect();
    let mut input = Input::open(input, origin)?;
    let mut output = Output::create(output, &names)?;
    let mut walker = Walker::new(Arc::clone(nve));
    let mut shell = CarryOut::default();
    // A capture is replayed the same way tomorrow.
    let mut desks = Desks::new(Arc::clone(nve), 0, Box::new(|| 0));
    let mut summary = Summary::default();
    while let Some(packet) = input.next()? {
        summary.packets += 1;
        walker.begin(packet.now);
        let mut written = Ok(());
        let mut said = Outbox::default();
        // What is said unasked came of no packet.
        desks.tick(packet.now, &mut Outbox::default());
        shell.carry_out(&mut walker, origin, &packet.bytes, Offload::NONE, &mut |outcome| {
            summary.count(&outcome, &names);
            if let (Outcome::Punted(desk, frame), Origin::Port(port)) = (&outcome, origin) {
                desks.take(packet.now, &Punted { port, desk: *desk, frame }, &mut said);
            }
            if written.is_ok() {
                written = output.write(packet.time, origin, &packet.bytes, &outcome);
            }
        });
        written?;
        for (port, frame) in said.frames {
            summary.replies += 1;
            output.answered(packet.time, port, &frame)?;
        }
    }
    output.finish()?;
    Ok(summary)
}

impl Summary {
    fn count(&mut self, outcome: &Outcome<'_>, names: &BTreeMap<nve_core::pipeline::PortId, &str>) {
        let mut drop = |reason: DropReason| *self.drops.entry(reason.name()).or_default() += 1;
        match outcome {
            Outcome::Local(port, ..) => {
                let name = names.get(port).copied().unwrap_or_default();
                *self.local.entry(name.to_owned()).or_default() += 1;
            }
            Outcome::Uplink(..) => self.uplink += 1,
            Outcome::Reply(_, reason) => {
                self.replies += 1;
                reason.map(&mut drop);
            }
            // What its desk says is counted as answers.
            Outcome::Punted(..) => {}
            Outcome::Dropped(reason) => drop(*reason),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8} packets read", self.packets)?;
        for (name, packets) in &self.local {
            writeln!(f, "{packets:>8} delivered to {name}")?;
        }
        writeln!(f, "{:>8} delivered to the uplink", self.uplink)?;
        writeln!(f, "{:>8} answered", self.replies)?;
        for (reason, packets) in &self.drops {
            writeln!(f, "{packets:>8} dropped: {reason}")?;
        }
        Ok(())
    }
}
