//! The daemon's threads: one control thread per attachment, the worker that moves packets, and the slow path's (`punt/`).
//!
//! What must stay true:
//!
//! * The worker never waits for anything but work: no lock, no allocation, no log line per packet, no blocking system call except
//!   its own sleep.
//! * It decides nothing. `nve-core` returns a fate; the worker carries it out and says how that went.
//! * Every port gets its turn: at most one batch of each ring, then the next; and no more of the worker's time than its neighbours.
//!
//! ```text
//!   poll.rs      turn: requests > each transmit ring > signals > tasks > commands > answers > uplink > signals;  no work: spin, then sleep in epoll
//!   sender.rs    what a guest brings: a transmit ring, a control queue
//!   senders.rs   which transmit rings are looked at, and which rest until they are kicked
//!   batch.rs     take > headers copied once > classify all (prefetch) > decide all (prefetch) > deliver all
//!   train.rs     its first frames, if they go the way of the last one to a neighbour: copied, followed and delivered in one pass
//!   fan.rs       the same to one with several rings, whatever conversations they mix
//!   outbound.rs  the same of those that leave to a fabric with rings, whomever they are for
//!   delivery.rs  one frame to one place: a receive ring, the uplink, or a counter
//!   fabric.rs    a vhost-user uplink: the link's header and neighbour discovery; its rings are as an attachment's
//!   task.rs      NICs without rings: the TUNs of host tasks
//!   receivers.rs which receive ring of an attachment, by the frame's flow
//!   run.rs       which receive rings a batch goes to: their buffers are fetched
//!   homes.rs     receive rings that several workers write to: with one of them at a time
//!   threads.rs   the workers' threads
//!   turns.rs     who must sit turns out, for what it has cost
//!   clock.rs     the time, without asking the system in every turn
//!   again.rs     frames the core wants whole, summed or segmented first
//! ```

mod again;
mod batch;
mod clock;
#[cfg(any(test, fuzzing))]
pub mod conversation;
mod counters;
mod delivery;
mod fabric;
mod fan;
mod homes;
mod outbound;
mod poll;
mod receivers;
mod run;
mod sender;
mod senders;
mod task;
#[cfg(test)]
mod tests;
mod threads;
mod toll;
mod train;
mod turns;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use counters::{WorkerCounters, WorkerReport};
use nve_core::link::Link;
use nve_core::pipeline::{Nve, PortId, Receiver};
use nve_core::punt::Desks;
use smoltcp::wire::EthernetAddress;
use tokio::sync::Notify;

use crate::config::{DeviceConfig, UplinkConfig};
use crate::device::server::Server;
use crate::device::status::AttachmentReport;
use crate::punt::{self, PuntReport, Serve};
use crate::redirect;
use crate::task::Tasks;
use crate::uplink::{self, Uplink};
use threads::Threads;

/// More than any host has cores to spare for. Each has some megabytes, and an equal part of what the gateway grants an attachment.
pub const MAX_WORKERS: u16 = 16;

/// What [`Daemon::start`] needs.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// Sockets to serve; each name is an attachment of the core's setup.
    pub devices: Vec<DeviceConfig>,
    /// The way to the fabric.
    pub uplink: UplinkConfig,
    /// The interface of the gateway's TUN, where this host is one.
    pub gateway: Option<String>,
    /// How long an idle worker spins before it sleeps; zero never spins.
    pub spin: Duration,
    /// How many workers there are: 1 to [`MAX_WORKERS`].
    pub workers: u16,
}

/// Starts the threads.
#[derive(Clone, Copy, Debug)]
pub struct Daemon;

impl Daemon {
    /// Opens the uplink, starts the worker, and serves every device.
    ///
    /// # Errors
    /// The system's, in words: the uplink or a socket could not be made. Nothing is left running then.
    pub fn start(config: DaemonConfig, nve: Arc<Nve>) -> io::Result<DaemonHandle> {
        let uplink = uplink::open(&config.uplink)?;
        let tun = |name: &String| uplink::Tun::open(name, config.uplink.mtu());
        let outside = config.gateway.as_ref().map(tun).transpose()?;
        let outside = outside.map(|tun| Box::new(tun) as Box<dyn Uplink>);
        let link = link(&config.uplink, &nve);
        let desks = desks(&nve);
        let mut handle =
            Self::start_on(Ways { uplink, link, outside }, (config.workers, config.spin), nve, desks)?;
        if let UplinkConfig::VhostUser { device, .. } = &config.uplink {
            handle.fabric = Some(handle.serve_fabric(device)?);
        }
        handle.apply(&config.devices)?;
        Ok(handle)
    }

    /// Starts the worker on an uplink of the caller's, without devices.
    ///
    /// # Errors
    /// The system's.
    pub fn start_with(uplink: Box<dyn Uplink>, spin: Duration, nve: Arc<Nve>) -> io::Result<DaemonHandle> {
        let desks = desks(&nve);
        Self::start_on(Ways { uplink, link: None, outside: None }, (1, spin), nve, desks)
    }

    /// The same with so many workers, and with what serves the slow path.
    fn start_on(
        ways: Ways,
        (workers, spin): (u16, Duration),
        nve: Arc<Nve>,
        desks: impl Serve,
    ) -> io::Result<DaemonHandle> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("1 to {MAX_WORKERS} workers")));
        }
        if ways.link.is_none() {
            nve.set_receiver(PortId::FABRIC, ways.uplink.takes());
        }
        let (punts, desks_end) = punt::ends(workers)?;
        let punt = punt::Thread::start(desks_end, desks)?;
        let (redirects, notes) = redirect::Service::start(Arc::clone(&nve))?;
        let workers = Threads::start(&nve, ways, (punts, &notes), spin)?;
        let tasks = Arc::new(Tasks::new(Arc::clone(&nve), workers.link.clone()));
        let servers = Mutex::default();
        Ok(DaemonHandle { nve, workers, punt, redirects, fabric: None, servers, tasks })
    }
}

/// The slow path's service.
fn desks(nve: &Arc<Nve>) -> Desks {
    Desks::new(Arc::clone(nve), RandomState::new().hash_one(()), punt::random())
}

/// Our end of the link to the fabric, where the uplink is a device.
fn link(uplink: &UplinkConfig, nve: &Nve) -> Option<Link> {
    let UplinkConfig::VhostUser { device, next_hop, .. } = uplink else { return None };
    // Not the kernel: nobody, until somebody attaches.
    nve.set_receiver(PortId::FABRIC, Receiver::default());
    let locators: Vec<_> = nve.world().domains().iter().map(|domain| domain.locator()).collect();
    Some(Link::new(EthernetAddress(device.mac), locators, *next_hop))
}

/// Where packets come from and go to that is no attachment.
struct Ways {
    uplink: Box<dyn Uplink>,
    /// Our end of the link to the fabric, where the uplink is a device.
    link: Option<Link>,
    /// The gateway's TUN.
    outside: Option<Box<dyn Uplink>>,
}

impl Ways {
    /// What another worker has of them: it sends to the uplink, and reads nothing.
    fn beside(&self) -> io::Result<Self> {
        Ok(Self { uplink: self.uplink.beside()?, link: None, outside: None })
    }
}

struct Device {
    config: DeviceConfig,
    server: Server,
}

/// Tells, when it is dropped with its thread's stack, that a worker has ended, by a panic or otherwise.
struct TellsItsEnd(Arc<Notify>);

impl Drop for TellsItsEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The running daemon; stops when dropped.
pub struct DaemonHandle {
    nve: Arc<Nve>,
    workers: Threads,
    /// The slow path, which ends after the workers.
    punt: punt::Thread,
    redirects: redirect::Service,
    /// The socket of the fabric, where the uplink is one.
    fabric: Option<Mutex<Server>>,
    servers: Mutex<BTreeMap<String, Device>>,
    tasks: Arc<Tasks>,
}

impl std::fmt::Debug for DaemonHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonHandle").field("workers", &self.workers.report()).finish_non_exhaustive()
    }
}

/// What `show attachments` and `show workers` tell.
#[derive(Clone, Debug)]
pub struct DaemonReport {
    /// By name.
    pub attachments: Vec<AttachmentReport>,
    /// One each.
    pub workers: Vec<WorkerReport>,
}

impl DaemonHandle {
    /// Makes the served devices those of `devices`; unchanged ones are not disturbed. Call it after `Nve::apply`, which numbers
    /// the attachments.
    ///
    /// # Errors
    /// The first socket that could not be made, or a name the core does not know; the others are served all the same.
    pub fn apply(&self, devices: &[DeviceConfig]) -> io::Result<()> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, running| devices.contains(&running.config));
        let mut first = Ok(());
        for config in devices {
            if servers.contains_key(&config.name) {
                continue;
            }
            match self.serve(config) {
                Ok(server) => {
                    servers.insert(config.name.clone(), Device { config: config.clone(), server });
                }
                Err(e) => {
                    let e = io::Error::new(e.kind(), format!("attachment {}: {e}", config.name));
                    log::error!("{e}");
                    first = first.and(Err(e));
                }
            }
        }
        first
    }

    fn serve(&self, config: &DeviceConfig) -> io::Result<Server> {
        let port = self.nve.port(&config.name);
        let port = port.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not an attachment"))?;
        Server::start(config, port, Arc::clone(&self.nve), self.workers.link.clone())
    }

    fn serve_fabric(&self, config: &DeviceConfig) -> io::Result<Mutex<Server>> {
        let server = Server::start(config, PortId::FABRIC, Arc::clone(&self.nve), self.workers.link.clone());
        server.map(Mutex::new).map_err(|e| io::Error::new(e.kind(), format!("the uplink: {e}")))
    }

    /// What an operator sees of the uplink's device, where it is one.
    #[must_use]
    pub fn fabric(&self) -> Option<AttachmentReport> {
        let server = self.fabric.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(server.status.report("uplink"))
    }

    /// Everything an operator sees of devices and workers.
    #[must_use]
    pub fn status(&self) -> DaemonReport {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        DaemonReport {
            attachments: servers.iter().map(|(name, device)| device.server.status.report(name)).collect(),
            workers: self.workers(),
        }
    }

    /// The host tasks.
    #[must_use]
    pub fn tasks(&self) -> &Arc<Tasks> {
        &self.tasks
    }

    /// What each worker spent; does not wait for a reload that is under way.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerReport> {
        self.workers.report()
    }

    /// Redirects, told and heard.
    #[must_use]
    pub fn redirects(&self) -> &redirect::Service {
        &self.redirects
    }

    /// What the slow path did.
    #[must_use]
    pub fn punt(&self) -> PuntReport {
        self.punt.report()
    }

    /// Whether every worker still moves packets. One ends by itself only by a bug.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.workers.are_running()
    }

    /// Waits until a worker has ended, without looking: nothing wakes an idle daemon.
    pub async fn worker_ended(&self) {
        self.workers.ended.notified().await;
    }

    /// Ends every connection and thread; returns when all have ended.
    pub fn stop(&self) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(server) = &self.fabric {
            server.lock().unwrap_or_else(PoisonError::into_inner).stop();
        }
        self.workers.stop();
    }
}

impl Drop for DaemonHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
