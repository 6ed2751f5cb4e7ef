//! A host with two honest tenants and a hostile one, for the tests of bad input.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use serde_json::Value;

use super::neighbours::Neighbours;
use super::{Options, Peer};
use crate::daemon::Footprint;
use crate::site::{Plan, Site, VM1, Vm};

/// An honest tenant, beside [`VM1`] on hv1.
pub const HONEST: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };

/// The hostile one, on the same host and in the same network.
pub const HOSTILE: Vm =
    Vm { name: "evil", mac: "52:54:00:00:00:66", ipv4: "10.1.0.66", ipv6: "2001:db8:b1:e::66", ..VM1 };

/// The gateway of their network.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 254);

/// The host, while the honest ones talk.
pub struct Beside {
    site: Site,
    neighbours: Neighbours,
    /// The hostile tenant's socket.
    pub socket: PathBuf,
    before: Footprint,
}

impl Beside {
    /// Starts the host and the conversation; evidence goes to `target/NAME`.
    ///
    /// # Errors
    ///
    /// Fails when something does not come up.
    pub fn start(name: &str) -> Result<Beside> {
        Beside::with_workers(name, 1)
    }

    /// The same with so many workers. The honest ones are at different ones.
    ///
    /// # Errors
    ///
    /// As [`Beside::start`].
    pub fn with_workers(name: &str, workers: u16) -> Result<Beside> {
        let plan = Plan { workers, ..Plan::of(&[VM1, HONEST, HOSTILE]).offering_packed_rings() };
        let site = Site::start(name, plan)?;
        let neighbours = Neighbours::begin(&site, &VM1, &HONEST, &HOSTILE)?;
        let socket = site.socket(&HOSTILE);
        // What is made at first use, the control socket's thread for one, is made before.
        site.daemons[0].show("attachments")?;
        // What a session costs while it lasts is not counted: none does.
        Peer::connect(&socket, Options::default())?.must_resolve(&HOSTILE, GATEWAY)?;
        sleep(Duration::from_millis(200));
        // Nor the thread that answers questions, which stays for some seconds.
        site.daemons[0].show("attachments")?;
        let before = site.daemons[0].footprint()?;
        Ok(Beside { site, neighbours, socket, before })
    }

    /// Nobody else has noticed `act`.
    ///
    /// # Errors
    ///
    /// Fails when the daemon ended or the neighbours fell silent.
    pub fn unharmed(&mut self, act: &str) -> Result<()> {
        self.site.daemons_must_run().with_context(|| act.to_owned())?;
        self.neighbours.must_talk().with_context(|| act.to_owned())
    }

    /// As [`Beside::unharmed`]; and a driver that behaves can use the hostile tenant's socket again.
    ///
    /// # Errors
    ///
    /// Fails when it cannot.
    pub fn recovered(&mut self, act: &str) -> Result<()> {
        self.unharmed(act)?;
        let mut peer =
            Peer::connect(&self.socket, Options::default()).with_context(|| format!("after {act}"))?;
        peer.must_resolve(&HOSTILE, GATEWAY).with_context(|| format!("after {act}"))
    }

    /// The hostile tenant's device, as `show attachments` has it.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer.
    pub fn shown(&self) -> Result<Value> {
        let shown = self.site.daemons[0].show("attachments")?;
        let attachments = shown.as_array().context("`show attachments` is a list")?;
        let hostile = attachments.iter().find(|one| one["name"] == HOSTILE.name).context("not shown")?;
        Ok(hostile["device"].clone())
    }

    /// How many lines the daemon has logged.
    ///
    /// # Errors
    ///
    /// Fails when there is no log.
    pub fn log_lines(&self) -> Result<usize> {
        let log = self.site.evidence.join(format!("{}.log", self.site.fabric.hosts[0].name));
        Ok(std::fs::read_to_string(log)?.lines().count())
    }

    /// How many packets were dropped for `reason`, of all attachments and the uplink.
    ///
    /// # Errors
    ///
    /// As [`Beside::shown`].
    pub fn drops(&self, reason: &str) -> Result<u64> {
        self.site.daemons[0].drops(reason)
    }

    /// What the daemon holds of the machine at this moment.
    ///
    /// # Errors
    ///
    /// Fails when it is gone.
    pub fn footprint(&self) -> Result<Footprint> {
        self.site.daemons[0].footprint()
    }

    /// Waits until the daemon holds no more than it did `before`: it lets go of a connection after its end, not with it.
    ///
    /// # Errors
    ///
    /// Fails when it still does after two seconds.
    pub fn must_return_to(&self, before: &Footprint) -> Result<()> {
        let start = Instant::now();
        loop {
            match before.must_hold(&self.footprint()?) {
                Err(_) if start.elapsed() < Duration::from_secs(2) => sleep(Duration::from_millis(20)),
                held => return held,
            }
        }
    }

    /// What the daemon has logged so far.
    ///
    /// # Errors
    ///
    /// Fails when there is no log.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.site.evidence.join("hv1.log"))?)
    }

    /// The daemon's files that a program it ran would inherit.
    ///
    /// # Errors
    ///
    /// Fails when it is gone.
    pub fn inheritable(&self) -> Result<Vec<String>> {
        self.site.daemons[0].inheritable()
    }

    /// Ends the conversation: nothing was lost in it, and the daemon has kept no file, map or memory of the hostile one's.
    ///
    /// # Errors
    ///
    /// Fails when something was.
    pub fn end(mut self) -> Result<()> {
        self.recovered("all of it")?;
        self.must_return_to(&self.before)?;
        let attachments = self.site.daemons[0].show("attachments")?;
        let panicked = |one: &&Value| one["device"]["panics"].as_u64() != Some(0);
        let panicked = attachments.as_array().and_then(|all| all.iter().find(panicked));
        ensure!(panicked.is_none(), "a connection panicked: {panicked:?}");
        let (rounds, slowest) = self.neighbours.end()?;
        println!("{rounds} rounds between the neighbours, the slowest {slowest:?}");
        ensure!(slowest < Duration::from_secs(2), "the neighbours once waited {slowest:?}");
        self.site.daemons_must_run()
    }
}
