//! `run`: the daemon, from its config to its last thread.
//!
//! ```text
//!   config ──> Nve ──> worker::Daemon (its own threads) ──> plug socket (its own thread), control socket
//!                                                           this thread: control, SIGHUP reloads, SIGTERM and SIGINT stop
//! ```

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nve_core::pipeline::Nve;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::authority::StaticFile;
use crate::config::{Config, DeviceConfig};
use crate::control::answer::{Device, Ring, Task, Worker};
use crate::control::{self, Devices, Registry, Running, Socket};
use crate::device::features;
use crate::device::handover::Role;
use crate::device::memory::pages;
use crate::device::status::{AttachmentReport, RingReport};
use crate::redirect::Service;
use crate::task::{self, PlugError};
use crate::worker::{Daemon, DaemonConfig, DaemonHandle};

/// Identifiers the mapping table has room for, or twice those of the first config if that is more.
const MAPPING_CAPACITY: usize = 1 << 16;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// The config is refused, or a socket or the uplink cannot be made.
pub fn run(source: StaticFile) -> Result<String> {
    // Before anything is seen of us: a signal that comes early waits, and does not kill.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = runtime.block_on(async { Signals::new() })?;

    raise_descriptor_limit();

    let config = source.read()?;
    let host = &config.setup.setup().host;
    for domain in config.setup.setup().domains() {
        log::info!("host {}: locator {}, domain {}", host.name, domain.locator, domain.sir);
    }
    // Where sockets belong to others, those must be able to walk through to them.
    let mode = if config.sockets().any(|device| device.user.is_some()) { 0o711 } else { 0o700 };
    make_runtime_directory(&config.runtime, mode)?;
    // First of the sockets: it tells whether another daemon runs here.
    let control = config.control_socket();
    let (socket, listener) = Socket::listen(&control).context("the control socket cannot be made")?;
    let registry = Registry::open(&config)?;
    let (daemon, nve) = start(&config)?;
    daemon.tasks().apply(&config.tasks());
    daemon.redirects().apply(config.redirect.as_ref())?;
    let plugs = task::Socket::serve(&config.plug_socket(), Arc::clone(daemon.tasks()));
    let plugs = plugs.context("the plug socket cannot be made")?;
    let devices = Box::new(Served(Arc::clone(&daemon)));
    let running = Arc::new(Running::new(nve, devices, source, config).with_registry(registry));

    let outcome = runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        log::info!("running; control socket {}", control.display());
        let server = axum::serve(listener, control::router(Arc::clone(&running)));
        tokio::select! {
            served = server => served.map_err(|e| io::Error::new(e.kind(), format!("the control socket failed: {e}"))),
            // It does not by itself but for a bug. The daemon then ends as well, to be started again by whoever started it: one that answers
            // and moves nothing would go unnoticed.
            () = daemon.worker_ended() => Err(io::Error::other("the worker has ended; see the log")),
            signal = signals.until_stop(&running) => {
                log::info!("{signal}: stopping");
                Ok(())
            }
        }
    });
    // A client that neither reads nor goes away must not hold up the end.
    runtime.shutdown_background();
    drop(plugs);
    daemon.stop();
    drop(socket);
    outcome?;
    Ok(String::new())
}

/// The core, with room to grow.
pub(super) fn core_of(config: &Config) -> Arc<Nve> {
    let setup = config.setup.setup();
    let own: usize = setup.attachments.iter().map(|attachment| attachment.addresses.len()).sum();
    // Of a bulk file, as many as the operator says: a table of millions is not made twice as large to be safe.
    let capacity = MAPPING_CAPACITY.max(2 * (own + setup.mappings.len())) + config.mappings_room;
    Nve::new(config.setup.clone(), capacity)
}

/// The core, and the threads that work for it.
fn start(config: &Config) -> Result<(Arc<DaemonHandle>, Arc<Nve>)> {
    let nve = core_of(config);
    pages::in_huge_pages(nve.table_memory());
    let daemon = DaemonConfig {
        devices: config.devices.clone(),
        uplink: config.uplink.clone(),
        gateway: config.gateway.as_ref().map(|gateway| gateway.tun.clone()),
        spin: config.worker.spin,
        workers: config.worker.count,
    };
    let daemon = Daemon::start(daemon, Arc::clone(&nve)).context("the daemon cannot start")?;
    Ok((Arc::new(daemon), nve))
}

/// As many descriptors as we are allowed: an attachment takes about ten, and the usual limit of 1024 would run out at a hundred.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        log::warn!("the limit of open files stays as it is: {e}");
    }
}

/// Makes the directory, if it is not there; an operator's own stays as it is.
fn make_runtime_directory(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.with_context(|| format!("the runtime directory {} cannot be made", path.display()))
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Reloads on SIGHUP until a signal to stop; its name.
    async fn until_stop(mut self, running: &Arc<Running>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.reload.recv() => {
                    let running = Arc::clone(running);
                    // Not waited for: a signal to stop may come meanwhile. Its outcome goes to the log.
                    drop(tokio::task::spawn_blocking(move || running.reload()));
                }
            }
        }
    }
}

/// The daemon's devices, in the words of the control API.
struct Served(Arc<DaemonHandle>);

impl Devices for Served {
    fn apply(&self, devices: &[DeviceConfig], tasks: &[String]) -> io::Result<()> {
        self.0.apply(devices)?;
        // This cannot fail, and what it unplugs does not come back: not before all else is done.
        self.0.tasks().apply(tasks);
        Ok(())
    }

    fn status(&self) -> BTreeMap<String, Device> {
        let reports = self.0.status().attachments;
        reports.into_iter().map(|report| (report.name.clone(), Device::from(report))).collect()
    }

    fn tasks(&self) -> BTreeMap<String, Task> {
        let reports = self.0.tasks().report().into_iter();
        reports
            .map(|task::Report { name, interface, plugs, last_fault }| {
                (name, Task { interface, plugs, last_fault })
            })
            .collect()
    }

    fn unplug(&self, name: &str) -> Result<(), PlugError> {
        self.0.tasks().unplug(name)
    }

    fn uplink(&self) -> Option<Device> {
        self.0.fabric().map(Device::from)
    }

    fn redirects(&self) -> Option<&Service> {
        Some(self.0.redirects())
    }

    fn workers(&self) -> Vec<Worker> {
        let worker = |report: crate::worker::WorkerReport| Worker {
            busy_cycles: report.busy_cycles,
            packets: report.packets,
            polls: report.polls,
            busy_polls: report.busy_polls,
            sleeps: report.sleeps,
            signals: report.signals,
            waits: report.waits,
            turns: report.turns.to_vec(),
            fine_turns: report.fine_turns,
            longest_turn_us: report.longest_turn_us,
            uplink_lost: report.uplink_lost,
            gateway_lost: report.gateway_lost,
        };
        self.0.workers().into_iter().map(worker).collect()
    }
}

impl From<AttachmentReport> for Device {
    fn from(report: AttachmentReport) -> Self {
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let (offered, offered_protocol) =
            features::names(report.offer.virtio(), report.offer.protocol().bits());
        let (accepted, accepted_protocol) = features::names(report.features, report.protocol_features);
        Self {
            connected: report.connected,
            connections: report.connections,
            refused: report.refused,
            panics: report.panics,
            features: format!("{:016x}", report.features),
            protocol_features: format!("{:016x}", report.protocol_features),
            logging: report.logging,
            pages_marked: report.pages_marked,
            offered: owned(offered),
            offered_protocol: owned(offered_protocol),
            accepted: owned(accepted),
            accepted_protocol: owned(accepted_protocol),
            queues: report.offer.pairs(),
            rings: report.rings.into_iter().map(Ring::from).collect(),
            uses: report.uses.into_iter().map(|(name, times)| (name.to_owned(), times)).collect(),
            last_fault: report.last_fault,
        }
    }
}

impl From<RingReport> for Ring {
    fn from(report: RingReport) -> Self {
        Self {
            role: match report.role {
                Role::Receive(pair) => format!("receive {pair}"),
                Role::Transmit(pair) => format!("transmit {pair}"),
                Role::Control => "control".into(),
            },
            running: report.running,
            enabled: report.enabled,
            size: report.size,
            frames: report.frames,
            signals: report.signals,
            signals_spared: report.signals_spared,
            fault: report.fault,
        }
    }
}
