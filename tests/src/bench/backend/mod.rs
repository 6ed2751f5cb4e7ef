//! Who forwards: each back-end listens on two sockets and works on core 0.

mod forwarding;
mod ours;
mod ovs;
mod updates;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::case::{Case, Peer, To};
use crate::testpmd::Pages;

/// A back-end that runs. It ends when dropped.
pub trait Backend {
    /// Where its ports listen: two, but for [`crate::bench::case::Load::Fleet`].
    fn sockets(&self) -> &[PathBuf];

    /// The process that works.
    fn id(&self) -> u32;

    /// Its work is counted from here.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be asked.
    fn begin(&mut self) -> Result<()>;

    /// What it did since [`Backend::begin`].
    ///
    /// # Errors
    ///
    /// Fails when it cannot be asked, or did nothing.
    fn end(&mut self) -> Result<Worked>;

    /// Packets it finds when it finds any, for a back-end whose counting of them costs something: with the load still on.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be asked.
    fn bursts(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// A back-end's own count.
#[derive(Clone, Copy, Debug)]
pub struct Worked {
    /// Busy cycles for each packet.
    pub cycles: f64,
    /// Packets it found when it found any, if it counts that all the time.
    pub per_poll: Option<f64>,
    /// See [`crate::bench::figures::Measured::longest`].
    pub longest: Option<f64>,
    /// See [`crate::bench::figures::Measured::updates`].
    pub updates: Option<f64>,
}

/// Who is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// This program, from the file, under a label.
    Ours(String, PathBuf),
    /// The program of the file again, under the load that the case's is compared with.
    Without(PathBuf),
    /// Somebody else's.
    Peer(Peer),
}

impl Who {
    /// For a table.
    pub fn name(&self) -> String {
        match self {
            Who::Ours(label, _) => label.clone(),
            Who::Without(_) | Who::Peer(Peer::Without) => "without".into(),
            Who::Peer(Peer::Testpmd) => "testpmd".into(),
            Who::Peer(Peer::Ovs) => "OVS-DPDK".into(),
        }
    }

    /// Bytes of a frame when it arrives: what this back-end does to one on its way to the wire shows in its length.
    pub fn arrives_as(&self, case: &Case) -> u32 {
        let more = match (case.to, self) {
            (To::Neighbour, _) | (To::Wire, Who::Peer(Peer::Testpmd)) => 0,
            // An IPv6 header in place of IPv4's.
            (To::Wire, Who::Ours(..) | Who::Without(_) | Who::Peer(Peer::Without)) => 20,
            // Ethernet, IPv4, UDP and VXLAN before it.
            (To::Wire, Who::Peer(Peer::Ovs)) => 50,
        };
        case.frame_bytes() + more
    }

    /// The case that it is measured by: `case`, or that without what it is about.
    pub fn case(&self, case: &'static Case) -> &'static Case {
        match self {
            Who::Without(_) => case.without.unwrap_or(case),
            Who::Ours(..) | Who::Peer(_) => case,
        }
    }

    /// Starts it for `case`; what it says goes to `evidence`. testpmd's packets lie in `pages`; Open vSwitch's in huge ones always.
    ///
    /// # Errors
    ///
    /// Fails when it does not listen in time.
    pub fn start(&self, case: &Case, pages: Pages, evidence: &Path) -> Result<Box<dyn Backend>> {
        Ok(match self {
            Who::Ours(_, binary) | Who::Without(binary) => {
                Box::new(ours::Ours::start(binary, case, evidence)?)
            }
            Who::Peer(Peer::Without) => bail!("only this program can be without something"),
            Who::Peer(Peer::Testpmd) => Box::new(forwarding::Forwarding::start(pages, evidence)?),
            Who::Peer(Peer::Ovs) => Box::new(ovs::Ovs::start(case, evidence)?),
        })
    }
}
