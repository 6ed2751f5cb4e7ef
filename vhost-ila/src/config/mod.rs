//! What the operator wrote, refused whole or checked.
//!
//! What must stay true:
//!
//! * A [`Config`] exists only if every file was read, every key is known, every value is legal, and the objects fit together.
//! * A refusal names every offending item it could find by file and line, with a remedy; the caller's running state is untouched,
//!   because nothing here has a side effect.
//!
//! ```text
//!   PATH (a file, or a directory of *.toml)
//!     source.rs   bytes, and where each byte is: file and line
//!     raw.rs      RawFile: shape and spelling checked by serde, every value with its span
//!     check.rs    each value parsed into its witness type (value.rs), who owns what, what is written twice
//!     bulk.rs     mappings by the million, read line by line
//!     across.rs   nve-core's check across objects, its refusals brought back to a line
//! ```

mod across;
mod attachment;
mod bulk;
mod check;
mod instance;
pub(crate) mod nearest;
mod raw;
mod realms;
mod redirect;
mod refused;
mod source;
#[cfg(test)]
mod tests;
mod uplink;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nve_core::link::NextHop;
use nve_core::setup::CheckedSetup;

use crate::device::features::Offer;
use crate::redirect::RedirectConfig;

pub use refused::{Problem, Refused};
pub use source::Place;

/// Where sockets live if `[host] runtime` does not say.
pub const DEFAULT_RUNTIME: &str = "/run/vhost-ila";

/// Where what must survive a reboot is, if nothing else is said.
pub const DEFAULT_STATE: &str = "/var/lib/vhost-ila";

/// The control socket's name in the runtime directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The plug socket's name in the runtime directory: where `vhost-ila plug` passes the NICs of tasks.
pub const PLUG_SOCKET: &str = "plug.sock";

/// Everything a daemon is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// For the core: host, networks, attachments and mappings.
    pub setup: CheckedSetup,
    /// One per attachment of a tenant, in the same order.
    pub devices: Vec<DeviceConfig>,
    /// The way to the fabric.
    pub uplink: UplinkConfig,
    /// Where this host faces the outside.
    pub gateway: Option<GatewayConfig>,
    /// How the workers poll.
    pub worker: WorkerConfig,
    /// What is told and believed of redirects; without it nothing is.
    pub redirect: Option<RedirectConfig>,
    /// Who says where identifiers live, beside this config.
    pub authority: AuthorityConfig,
    /// Identifiers of the bulk file that the mapping table must have room for, from the start.
    pub mappings_room: usize,
    /// Directory of the sockets.
    pub runtime: PathBuf,
    /// Where it is all written.
    sections: Sections,
}

/// Where the sections are that only a restart can change, and where attachments and mappings are.
#[derive(Clone, Debug)]
struct Sections {
    host: Place,
    uplink: Place,
    /// By the name that refusals of nve-core give to each.
    objects: BTreeMap<String, Place>,
}

impl Config {
    /// Reads and checks `path`: a file, or a directory with a `host.toml` and any other `*.toml`.
    ///
    /// # Errors
    /// Everything that is wrong, by file and line. Where a file's shape is wrong, its values are not judged yet.
    pub fn load(path: &Path) -> Result<Self, Refused> {
        Self::load_with(path, None)
    }

    /// As [`Config::load`], with the sockets under `runtime` whatever `[host] runtime` says.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(path: &Path, runtime: Option<&Path>) -> Result<Self, Refused> {
        let mut problems = Vec::new();
        let mut files = Vec::new();
        for source in source::read(path)? {
            match raw::parse(&source) {
                Ok(raw) => files.push((source, raw)),
                Err(problem) => problems.push(problem),
            }
        }
        Refused::unless_empty(problems)?;
        check::check(&files, runtime)
    }

    /// Whether a running daemon can change from this config to `wanted` without a restart.
    ///
    /// # Errors
    /// Each item that cannot change, at its section in `wanted`.
    pub fn can_become(&self, wanted: &Self) -> Result<(), Refused> {
        let (old, new) = (&self.setup.setup().host, &wanted.setup.setup().host);
        let (host, uplink) = (&wanted.sections.host, &wanted.sections.uplink);
        let domains = |config: &Self| -> Vec<_> {
            let further = config.setup.setup().further_domains.iter();
            further.map(|domain| (domain.name.clone(), domain.sir, domain.locator)).collect()
        };
        let fixed = [
            (host, "host.locator", old.locator == new.locator),
            (host, "host.sir", old.sir == new.sir),
            (host, "[domain]", domains(self) == domains(wanted)),
            (host, "host.runtime", self.runtime == wanted.runtime),
            (host, "host.spin", self.worker.spin == wanted.worker.spin),
            (host, "host.workers", self.worker.count == wanted.worker.count),
            (uplink, "[uplink]", self.uplink == wanted.uplink),
            (uplink, "[gateway]", self.gateway == wanted.gateway),
            (host, "[authority]", self.authority == wanted.authority),
        ];
        let changed = fixed.into_iter().filter(|(_, _, same)| !same);
        let problem = |(place, item, _): (&Place, &str, bool)| Problem {
            place: place.clone(),
            what: format!("{item} differs from the running daemon's"),
            remedy: "change it back, or restart the daemon".into(),
        };
        let mut problems: Vec<_> = changed.map(problem).collect();
        // A name has one NIC: the old one is let go of after the core has changed, the new one would be made before.
        let machines = |config: &Self| -> Vec<String> {
            config.setup.setup().attachments.iter().map(|attachment| attachment.name.clone()).collect()
        };
        let (were_machines, were_tasks) = (machines(self), self.tasks());
        let into_tasks = wanted.tasks().into_iter().filter(|name| were_machines.contains(name));
        let into_machines = machines(wanted).into_iter().filter(|name| were_tasks.contains(name));
        problems.extend(into_tasks.chain(into_machines).map(|name| Problem {
            place: wanted.place_of(&format!("attachment.{name}")).clone(),
            what: format!("attachment.{name}: its kind differs from the running daemon's"),
            remedy: "remove it in one reload and add it in the next, or give it another name".into(),
        }));
        Refused::unless_empty(problems)
    }

    /// Where the object is written that nve-core calls `name`, such as `attachment.vm1`.
    pub fn place_of(&self, name: &str) -> &Place {
        self.sections.objects.get(name).unwrap_or(&self.sections.host)
    }

    /// Every vhost-user socket: the attachments', and the uplink's where it is one.
    pub fn sockets(&self) -> impl Iterator<Item = &DeviceConfig> {
        let uplink = match &self.uplink {
            UplinkConfig::VhostUser { device, .. } => Some(device),
            UplinkConfig::Tun { .. } | UplinkConfig::None { .. } => None,
        };
        self.devices.iter().chain(uplink)
    }

    /// Path of the control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join(CONTROL_SOCKET)
    }

    /// Path of the plug socket.
    pub fn plug_socket(&self) -> PathBuf {
        self.runtime.join(PLUG_SOCKET)
    }

    /// Names of the tasks' attachments.
    pub fn tasks(&self) -> Vec<String> {
        self.setup.setup().tasks.iter().map(|task| task.name.clone()).collect()
    }

    /// The runtime directory that the config at `path` names, whatever else is wrong with it: to find a daemon that runs on.
    ///
    /// # Errors
    /// It cannot be read, or is no TOML.
    pub fn runtime_of(path: &Path) -> Result<PathBuf, Refused> {
        let mut runtime = None;
        for source in source::read(path)?.iter().filter(|source| source.owns_host) {
            runtime = raw::runtime(source).map_err(Refused::one)?;
        }
        Ok(runtime.unwrap_or_else(|| DEFAULT_RUNTIME.into()))
    }
}

/// One vhost-user socket to serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceConfig {
    /// Name of the attachment; the same as in the core's setup.
    pub name: String,
    /// Absolute path of the socket.
    pub socket: PathBuf,
    /// Who listens.
    pub mode: SocketMode,
    /// The guest's MAC, as its virtio configuration space shows it.
    pub mac: [u8; 6],
    /// A user whose front-ends may use the socket, beside root's and our own; a socket we make belongs to it.
    pub user: Option<u32>,
    /// Bytes of guest memory that a front-end may have us map.
    pub memory_max: u64,
    /// What the device offers: queue pairs and features.
    pub offer: Offer,
}

/// Which end of a vhost-user socket listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SocketMode {
    /// We listen, the front-end connects.
    #[default]
    Server,
    /// The front-end listens, we connect and connect again.
    Client,
}

/// The way to the fabric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UplinkConfig {
    /// A TUN device of the host's kernel.
    Tun {
        /// Interface name, at most 15 bytes.
        name: String,
        /// Bytes of the largest IPv6 packet, 1280..=65535.
        mtu: u16,
    },
    /// A socket to which an application of the fabric attaches: DPDK's, OVS, VPP.
    VhostUser {
        /// The socket, and what the device offers.
        device: DeviceConfig,
        /// Who on that link takes what goes to the fabric.
        next_hop: NextHop,
        /// Bytes of the largest IPv6 packet, 1280..=65535.
        mtu: u16,
    },
    /// No uplink: attachments of this host reach each other only.
    None {
        /// As for a TUN; it decides what tenants are told.
        mtu: u16,
    },
}

impl UplinkConfig {
    /// Bytes of the largest packet of the fabric.
    pub const fn mtu(&self) -> u16 {
        match self {
            Self::Tun { mtu, .. } | Self::VhostUser { mtu, .. } | Self::None { mtu } => *mtu,
        }
    }

    /// Hops that this host's own kernel spends between us and the fabric, each way.
    pub const fn hops(&self) -> u8 {
        match self {
            Self::Tun { .. } | Self::None { .. } => 1,
            Self::VhostUser { .. } => 0,
        }
    }
}

/// Who says where identifiers live, beside the config itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum AuthorityConfig {
    /// Nobody.
    #[default]
    Static,
    /// A registry in this process.
    Embedded {
        /// Directory of its file; absolute.
        state: PathBuf,
    },
}

/// The way in from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayConfig {
    /// Interface name of the TUN by which packets from outside come, at most 15 bytes.
    pub tun: String,
    /// The interface that faces outside, from which the kernel leads them there: for `check --host`.
    pub interface: Option<String>,
}

/// How many workers there are, and how they poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerConfig {
    /// 1 to [`MAX_WORKERS`](crate::worker::MAX_WORKERS).
    pub count: u16,
    /// How long an idle worker spins before it sleeps; zero never spins.
    pub spin: Duration,
}
