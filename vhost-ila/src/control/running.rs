//! What runs: the NVE, its devices, and the config both came from.
//!
//! What must stay true: reload is atomic. A refused config changes nothing; one whose devices cannot be made is taken back with all that it
//! displaced (what was learned or registered, who waits for its guest), so that core and devices always come from the same config.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nve_core::addr::Locator;
use nve_core::pipeline::{Learned, Nve, PortId, Source, Trial};

use super::answer;
use super::answer::{
    Attachment, Counters, Device, Group, Mapping, Moved, Path, Redirects, Refusal, Reloaded, SharedAddress,
    Task, Uplink, Worker,
};
use super::registry::{self, Reason, Registry};
use crate::authority::StaticFile;
use crate::config::{Config, DeviceConfig, SocketMode};
use crate::redirect::Service;
use crate::task::PlugError;

/// The devices of a daemon, as control sees them. `worker::DaemonHandle` is one; tests have another.
pub trait Devices: Send + Sync {
    /// Serves exactly `devices`, and the tasks called `tasks`, from now on; those whose config is unchanged are not disturbed.
    ///
    /// # Errors
    /// A device cannot be made. Which of the others were, is not known: the caller applies the old list again.
    fn apply(&self, devices: &[DeviceConfig], tasks: &[String]) -> io::Result<()>;
    /// What runs behind each socket, by attachment.
    fn status(&self) -> BTreeMap<String, Device>;
    /// The TUN of each task, by attachment.
    fn tasks(&self) -> BTreeMap<String, Task>;
    /// Lets go of the TUN of a task.
    ///
    /// # Errors
    /// There is none.
    fn unplug(&self, name: &str) -> Result<(), PlugError>;
    /// What each worker spent.
    fn workers(&self) -> Vec<Worker>;
    /// What runs behind the uplink's socket, where it has one.
    fn uplink(&self) -> Option<Device> {
        None
    }
    /// Redirects, where there are any.
    fn redirects(&self) -> Option<&Service> {
        None
    }
}

/// A running daemon.
pub struct Running {
    nve: Arc<Nve>,
    devices: Box<dyn Devices>,
    source: StaticFile,
    registry: Registry,
    /// What runs. Held during a reload, so that there is one at a time.
    config: Mutex<Config>,
}

impl Running {
    /// `nve` and `devices` were made from `config`, and that was read from `source`.
    pub fn new(nve: Arc<Nve>, devices: Box<dyn Devices>, source: StaticFile, config: Config) -> Self {
        Self { nve, devices, source, registry: Registry::default(), config: Mutex::new(config) }
    }

    /// The same, with a registry that was opened by the same config.
    pub fn with_registry(self, registry: Registry) -> Self {
        registry.feed(&self.running(), &self.nve);
        Self { registry, ..self }
    }

    fn running(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the config again and runs it instead. Says in the log what came of it. Blocks: reads files, and waits for workers to
    /// let go of removed devices.
    ///
    /// # Errors
    /// What ran before runs; the refusal says why.
    pub fn reload(&self) -> Result<Reloaded, Refusal> {
        let mut running = self.running();
        let outcome = self.replace(&mut running);
        match &outcome {
            Ok(now) => log::info!(
                "reloaded: {} networks, {} attachments, {} mappings",
                now.networks,
                now.attachments,
                now.mappings
            ),
            Err(refusal) => {
                log::error!("reload refused, the running config stays:\n{}", refusal.error);
            }
        }
        outcome
    }

    fn replace(&self, running: &mut Config) -> Result<Reloaded, Refusal> {
        let wanted = self.source.read().map_err(|refused| Refusal::from(&refused))?;
        running.can_become(&wanted).map_err(|refused| Refusal::from(&refused))?;
        // What can fail for reasons outside comes first, and changes nothing.
        let service = self.devices.redirects();
        let redirects = service.map(|service| service.prepare(wanted.redirect.as_ref())).transpose()?;
        let settled = self.registry.settle(&wanted)?;
        if let Err(refusal) = self.try_out(running, &wanted) {
            self.registry.unsettle(settled);
            return Err(refusal);
        }
        if let (Some(service), Some(redirects)) = (service, redirects) {
            service.install(redirects);
        }
        tell_of_new_addresses(running, &wanted);
        *running = wanted;
        // Networks may have come that registrations waited for.
        self.registry.feed(running, &self.nve);
        Ok(running.reloaded())
    }

    /// Puts `wanted` in force, the core first and then the devices.
    ///
    /// # Errors
    /// Core and devices are those of `running`, as before.
    fn try_out(&self, running: &Config, wanted: &Config) -> Result<(), Refusal> {
        let trial = self.nve.try_out(wanted.setup.clone());
        let trial = trial.map_err(|error| Refusal { error: error.to_string(), problems: Vec::new() })?;
        if let Err(error) = self.devices.apply(&wanted.devices, &wanted.tasks()) {
            self.take_back(trial, running);
            return Err(error.into());
        }
        trial.keep();
        Ok(())
    }

    /// Back to `running`, which the core and the devices already ran together.
    fn take_back(&self, trial: Trial<'_>, running: &Config) {
        if let Err(error) = trial.take_back(&running.setup) {
            log::error!("the old setup could not be restored: {error}");
        }
        if let Err(error) = self.devices.apply(&running.devices, &running.tasks()) {
            log::error!("an old device could not be restored: {error}");
        }
    }

    pub(super) fn registrations(&self) -> Result<Vec<answer::Registration>, Reason> {
        self.registry.list(&self.running())
    }

    pub(super) fn register(&self, request: &answer::Held) -> Result<answer::Registration, Reason> {
        let outcome = self.registry.register((&self.running(), &self.nve), request);
        said(outcome, "registered")
    }

    pub(super) fn move_to(&self, request: &answer::Move) -> Result<answer::Registration, Reason> {
        said(self.registry.move_to((&self.running(), &self.nve), request), "moved")
    }

    pub(super) fn unregister(&self, request: &answer::Held) -> Result<(), Reason> {
        self.registry.unregister((&self.running(), &self.nve), request)
    }

    pub(super) fn update(&self, requests: &[answer::Update]) -> Result<answer::Updated, Reason> {
        let updated = self.registry.update((&self.running(), &self.nve), requests)?;
        log::debug!("{} mappings changed, {} changes denied", updated.changed, updated.denied.len());
        Ok(updated)
    }

    pub(super) fn redirects(&self) -> Redirects {
        self.devices.redirects().map(|service| Redirects::from(service.report())).unwrap_or_default()
    }

    pub(super) fn uplink(&self) -> Uplink {
        let uplink = Uplink::from(&self.running().uplink);
        Uplink { device: self.devices.uplink(), ..uplink }
    }

    pub(super) fn counters(&self) -> Counters {
        Counters::new(&self.nve.counters(), self.devices.workers())
    }

    pub(super) fn attachments(&self) -> Vec<Attachment> {
        let config = self.running().clone();
        let mut status = self.devices.status();
        let facts = config.setup.setup().attachments.iter().zip(&config.devices);
        let machines = facts.map(|(facts, device)| Attachment {
            name: facts.name.clone(),
            kind: "vhost-user".into(),
            network: facts.network.clone(),
            mac: written(device.mac),
            macs: facts.macs.iter().map(|mac| written(mac.0)).collect(),
            addresses: facts.addresses.clone(),
            presence: self.presence(&facts.name),
            prefixes: facts.prefixes.iter().map(ToString::to_string).collect(),
            shared: facts.shared.iter().map(|address| self.shared(&facts.network, *address)).collect(),
            mtu: self.nve.port(&facts.name).map_or(0, |port| self.nve.mtu(port)),
            socket: device.socket.clone(),
            mode: match device.mode {
                SocketMode::Server => "server".into(),
                SocketMode::Client => "client".into(),
            },
            device: status.remove(&facts.name).unwrap_or_default(),
            task: None,
        });
        machines.chain(self.tasks(&config)).collect()
    }

    pub(super) fn unplug(&self, name: &str) -> Result<(), PlugError> {
        self.devices.unplug(name)
    }

    /// The guest of this attachment is here.
    pub(super) fn activate(&self, name: &str) -> Result<Moved, Misplaced> {
        let port = self.port(name)?;
        let changed = self.nve.activate(port);
        let world = self.nve.world();
        let attachment = world.attachment(port).ok_or_else(|| Misplaced::Unknown(name.to_owned()))?;
        Ok(self.placed(name, port, (changed, attachment.sir_domain.locator())))
    }

    /// The guest of this attachment is at the host of locator `to`.
    pub(super) fn moved(&self, name: &str, to: &str) -> Result<Moved, Misplaced> {
        // Not while a reload gives ports and addresses away.
        let _config = self.running();
        let port = self.port(name)?;
        let refused = |why: &dyn Display| Misplaced::Refused(format!("attachment {name}: {to}: {why}"));
        let locator: Locator = to.parse().map_err(|error| refused(&error))?;
        let since = crate::epoch::now();
        let learned = Learned { source: Source::Registered, epoch: registry::now(), since, until: None };
        let changed = self.nve.gone(port, locator, learned).map_err(|error| refused(&error))?;
        if changed {
            log::info!("attachment {name}: its guest has gone to {locator}");
        }
        Ok(self.placed(name, port, (changed, locator)))
    }

    fn port(&self, name: &str) -> Result<PortId, Misplaced> {
        self.nve.port(name).ok_or_else(|| Misplaced::Unknown(name.to_owned()))
    }

    fn placed(&self, name: &str, port: PortId, (changed, locator): (bool, Locator)) -> Moved {
        let presence = self.nve.presence(port).name().to_owned();
        Moved { attachment: name.to_owned(), presence, changed, locator: locator.to_string() }
    }

    fn presence(&self, name: &str) -> String {
        let port = self.nve.port(name);
        port.map_or_else(String::new, |port| self.nve.presence(port).name().to_owned())
    }

    fn tasks(&self, config: &Config) -> Vec<Attachment> {
        let mut status = self.devices.tasks();
        let socket = config.plug_socket();
        let tasks = config.setup.setup().tasks.iter();
        tasks
            .map(|task| Attachment {
                name: task.name.clone(),
                kind: "tun".into(),
                network: config.setup.setup().realm_of(task).name().into_owned(),
                mac: String::new(),
                macs: Vec::new(),
                addresses: task.addresses.iter().copied().map(IpAddr::V6).collect(),
                presence: self.presence(&task.name),
                prefixes: Vec::new(),
                shared: Vec::new(),
                mtu: self.nve.port(&task.name).map_or(0, |port| self.nve.mtu(port)),
                socket: socket.clone(),
                mode: "server".into(),
                device: Device::default(),
                task: Some(status.remove(&task.name).unwrap_or_default()),
            })
            .collect()
    }

    fn shared(&self, network: &str, address: IpAddr) -> SharedAddress {
        let (holder, mac) = self.nve.holder(network, address).unzip();
        SharedAddress { address, holder, mac: mac.map(|mac| written(mac.0)) }
    }

    pub(super) fn mappings(&self) -> Vec<Mapping> {
        let now = crate::epoch::now();
        let config = self.running().clone();
        self.nve
            .mappings_beside(&config.setup.setup().bulk)
            .into_iter()
            .map(|line| Mapping::new(line, now))
            .collect()
    }

    pub(super) fn groups(&self) -> Vec<Group> {
        self.nve.groups().into_iter().map(Group::from).collect()
    }

    pub(super) fn paths(&self) -> Vec<Path> {
        self.nve.paths(crate::epoch::now()).into_iter().map(Path::from).collect()
    }
}

/// Why an attachment's guest is where it was.
#[derive(Debug)]
pub(super) enum Misplaced {
    /// There is no attachment of this name.
    Unknown(String),
    /// Why, in words.
    Refused(String),
}

/// The same, and in the log.
fn said(outcome: Result<answer::Registration, Reason>, what: &str) -> Result<answer::Registration, Reason> {
    if let Ok(answer::Registration { address, locator, epoch, .. }) = &outcome {
        log::info!("{what}: {address} is at {locator}, epoch {epoch}");
    }
    outcome
}

/// A MAC address as the configuration writes it.
pub(super) fn written(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Config {
    fn reloaded(&self) -> Reloaded {
        let setup = self.setup.setup();
        Reloaded {
            networks: setup.networks.len(),
            attachments: setup.attachments.len(),
            mappings: setup.mappings.len() + setup.bulk.len(),
        }
    }
}

/// A task's interface keeps the addresses that its namespace gave it, whatever the config says now.
fn tell_of_new_addresses(running: &Config, wanted: &Config) {
    for task in &wanted.setup.setup().tasks {
        let before = running.setup.setup().tasks.iter().find(|before| before.name == task.name);
        if before.is_some_and(|before| before.addresses != task.addresses) {
            log::warn!(
                "{}: has other addresses now; if it is plugged in, its namespace must be told",
                task.name
            );
        }
    }
}
