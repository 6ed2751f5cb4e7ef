//! The JSON of every answer; written by the daemon and read by the command.
//!
//! What must stay true: keys are only added, never renamed or removed within `/v1`; what may exceed 2^53 is text.

mod registration;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use nve_core::counters::{PortTotals, Totals};
use nve_core::link::link_local;
use nve_core::pipeline::{GroupLine, MappingLine, PathLine};
use serde::{Deserialize, Serialize};
use smoltcp::wire::EthernetAddress;
use utoipa::ToSchema;

use super::running::written;
use crate::config::{self, Refused, UplinkConfig};
use crate::redirect::RedirectReport;

pub use registration::{Denial, DeniedUpdate, Held, Move, Registration, Update, Updated};

/// What was taken, given and dropped since the daemon started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// By attachment.
    pub attachments: BTreeMap<String, Port>,
    /// Everything dropped, by the reason's name, attachments and uplink together.
    pub drops: BTreeMap<String, u64>,
    /// The fabric's side; lengths are those of IPv6 packets.
    pub uplink: Port,
    /// The outside, where this host is a gateway; lengths as the uplink's.
    #[serde(default)]
    pub outside: Port,
    /// One per worker thread.
    pub workers: Vec<Worker>,
}

/// One side's packets. "In" is what it sent to us, "out" what we gave it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// Packets taken from it.
    pub in_packets: u64,
    /// Bytes taken from it.
    pub in_bytes: u64,
    /// Packets given to it.
    pub out_packets: u64,
    /// Bytes given to it.
    pub out_bytes: u64,
    /// Of what it sent, dropped, by the reason's name; reasons that did not occur are left out.
    pub drops: BTreeMap<String, u64>,
}

/// What a worker spent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Cycles of the turns that moved packets (x86-64: of the time stamp counter).
    pub busy_cycles: u64,
    /// Packets taken, from rings and uplink.
    pub packets: u64,
    /// Rings looked at.
    pub polls: u64,
    /// Rings looked at that had something.
    pub busy_polls: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Interrupts sent to guests.
    pub signals: u64,
    /// Times it waited for receive rings that another worker wrote to.
    #[serde(default)]
    pub waits: u64,
    /// Turns that moved packets, by how long they took: below 10 us, 100 us, 1 ms, 10 ms, 100 ms, and the rest.
    #[serde(default)]
    pub turns: Vec<u64>,
    /// The same, finer: four steps of a quarter of a microsecond, then four to each doubling, the last for all that is longer. What was
    /// between two answers is their difference.
    #[serde(default)]
    pub fine_turns: Vec<u64>,
    /// The longest turn so far, in microseconds, the time other threads had the processor included.
    #[serde(default)]
    pub longest_turn_us: u64,
    /// The uplink failed for good (its interface was removed): what is sent to it is dropped until the daemon is restarted.
    #[serde(default)]
    pub uplink_lost: bool,
    /// The gateway's TUN failed for good: nothing comes from outside until the daemon is restarted.
    #[serde(default)]
    pub gateway_lost: bool,
}

/// The way to the fabric, as configured and, where it is a device, as its driver runs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Uplink {
    /// `tun`, `vhost-user` or `none`.
    pub kind: String,
    /// Bytes of the largest IPv6 packet.
    pub mtu: u16,
    /// The TUN's interface, where it is one.
    pub interface: Option<String>,
    /// Our MAC address on the fabric's link, where it is a device.
    pub mac: Option<String>,
    /// Our address on that link, to which a router sends what is for the locator.
    #[schema(value_type = Option<String>)]
    pub link_local: Option<Ipv6Addr>,
    /// Its socket.
    #[schema(value_type = Option<String>)]
    pub socket: Option<PathBuf>,
    /// What runs behind that.
    pub device: Option<Device>,
}

impl From<&UplinkConfig> for Uplink {
    fn from(config: &UplinkConfig) -> Self {
        let kind = |kind: &str| Self {
            kind: kind.into(),
            mtu: config.mtu(),
            interface: None,
            mac: None,
            link_local: None,
            socket: None,
            device: None,
        };
        match config {
            UplinkConfig::Tun { name, .. } => Self { interface: Some(name.clone()), ..kind("tun") },
            UplinkConfig::None { .. } => kind("none"),
            UplinkConfig::VhostUser { device, .. } => Self {
                mac: Some(written(device.mac)),
                link_local: Some(link_local(EthernetAddress(device.mac))),
                socket: Some(device.socket.clone()),
                ..kind("vhost-user")
            },
        }
    }
}

/// A NIC of a virtual machine, as configured and as its driver runs it; or of a host task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// `vhost-user`, or `tun` for a task.
    #[serde(default)]
    pub kind: String,
    /// Its virtual network; `tasks` for a task.
    pub network: String,
    /// Its own MAC address: the only one it may send from, but for `macs`. A task's is nobody's to see.
    pub mac: String,
    /// Virtual MAC addresses that it may also send from.
    #[serde(default)]
    pub macs: Vec<String>,
    /// Its own addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Where its guest is: `here`; `waiting`, elsewhere, where the mappings say; `armed`, elsewhere, and something has started here.
    #[serde(default)]
    pub presence: String,
    /// Prefixes behind it.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Addresses that it may hold in turn with others.
    #[serde(default)]
    pub shared: Vec<SharedAddress>,
    /// Bytes of the largest IP packet it is told to send.
    pub mtu: u16,
    /// Path of its vhost-user socket; of the plug socket, where a task's TUN is passed.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// Who listens on the socket: `server` if we do, else `client`.
    pub mode: String,
    /// What runs behind the socket; a task has none.
    pub device: Device,
    /// A task's TUN; null where it is no task.
    #[serde(default)]
    pub task: Option<Task>,
}

/// The TUN of a host task.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// The interface's name in its namespace, as it was when it was plugged in; null while none is.
    pub interface: Option<String>,
    /// How often one was plugged in since the attachment was made.
    pub plugs: u64,
    /// Why the last one went, or was refused.
    pub last_fault: Option<String>,
}

/// What came of `unplug`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Unplugged {
    /// The attachment whose TUN is gone.
    pub attachment: String,
}

/// An address that several attachments may hold, one at a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SharedAddress {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The attachment that holds it now.
    pub holder: Option<String>,
    /// Where frames for it go: the MAC address that it was claimed with.
    pub mac: Option<String>,
}

/// A vhost-user connection and what was negotiated over it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Whether a front-end is connected.
    pub connected: bool,
    /// Front-ends so far.
    pub connections: u64,
    /// Front-ends turned away because of the user they run as.
    #[serde(default)]
    pub refused: u64,
    /// Connections that ended by a mistake of the daemon's.
    #[serde(default)]
    pub panics: u64,
    /// virtio features the driver accepted, 16 hexadecimal digits.
    pub features: String,
    /// vhost-user protocol features the front-end accepted, 16 hexadecimal digits.
    pub protocol_features: String,
    /// Whether the pages that are written are marked for the front-end: it migrates its guest, or means to.
    pub logging: bool,
    /// Pages marked so far that were not marked before, of 4096 bytes.
    pub pages_marked: u64,
    /// virtio features offered, by name (docs/virtio.md).
    pub offered: Vec<String>,
    /// vhost-user protocol features offered, by name.
    pub offered_protocol: Vec<String>,
    /// virtio features the driver accepted, by name.
    pub accepted: Vec<String>,
    /// vhost-user protocol features the front-end accepted, by name.
    pub accepted_protocol: Vec<String>,
    /// Queue pairs offered.
    pub queues: u8,
    /// The guest's rings: a receive and a transmit ring of each pair, then the control queue.
    pub rings: Vec<Ring>,
    /// How often each feature was used since the attachment was made, by the counters of docs/virtio.md.
    pub uses: BTreeMap<String, u64>,
    /// Why the last connection ended or could not be made.
    pub last_fault: Option<String>,
}

/// One ring.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Ring {
    /// `receive N`, `transmit N` (of the pair N, from 0), or `control`.
    pub role: String,
    /// The worker has it.
    pub running: bool,
    /// The front-end enabled it.
    pub enabled: bool,
    /// Entries.
    pub size: u64,
    /// Frames taken from it or written to it; commands, on the control queue.
    pub frames: u64,
    /// Interrupts sent to the guest.
    pub signals: u64,
    /// Times buffers were given back and the driver wanted no interrupt.
    pub signals_spared: u64,
    /// What it died of, until it is set up again.
    pub fault: Option<String>,
}

/// Where an address lives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Mapping {
    /// Its virtual network.
    pub network: String,
    /// The tenant's address, or a prefix that is behind a router VM (`192.168.7.0/24`).
    pub address: String,
    /// Several attachments of this host may hold it in turn.
    #[serde(default)]
    pub shared: bool,
    /// The SIR prefix of its domain, a /64.
    #[serde(default)]
    pub sir: String,
    /// Its identifier, 16 hexadecimal digits, C = 0; of a prefix, that of its first address.
    pub identifier: String,
    /// The locator of the host that has it, a /64.
    pub locator: String,
    /// The attachment, where that host is this one; null while nobody holds a shared address.
    pub attachment: Option<String>,
    /// The address on the wire, in this host's checksum mode; of a prefix, its first address.
    #[schema(value_type = String)]
    pub wire: Ipv6Addr,
    /// Who says so: `setup` (the config), `registered` (an authority) or `redirect` (an ILA router).
    #[serde(default)]
    pub source: String,
    /// Of what was learned: higher is later. Zero of what the config says.
    #[serde(default)]
    pub epoch: u64,
    /// Seconds since it was learned; null of what the config says.
    #[serde(default)]
    pub learned_seconds_ago: Option<u64>,
    /// Seconds until it ends by itself; null if it does not.
    #[serde(default)]
    pub ends_in_seconds: Option<u64>,
}

/// A group that somebody listens to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its network's name.
    pub network: String,
    /// The group's address, as tenants know it.
    #[schema(value_type = String)]
    pub group: IpAddr,
    /// The key: 64 bits, hexadecimal.
    pub identifier: String,
    /// Attachments of this host that said they listen.
    pub attachments: Vec<String>,
    /// Locators of other hosts that have listeners.
    pub locators: Vec<String>,
}

impl From<GroupLine> for Group {
    fn from(line: GroupLine) -> Self {
        let GroupLine { network, group, identifier, attachments, locators } = line;
        let locators = locators.iter().map(ToString::to_string).collect();
        Self { network, group, identifier: format!("{identifier:016x}"), attachments, locators }
    }
}

/// The way to another host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Path {
    /// The locator of the host it leads to, a /64.
    pub locator: String,
    /// Bytes of the largest IPv6 packet that is sent there now.
    pub mtu: u16,
    /// Seconds since the fabric said that it carries no more; null where that is the uplink's own MTU. Ten minutes later it is tried
    /// again.
    pub learned_seconds_ago: Option<u64>,
}

impl From<PathLine> for Path {
    fn from(line: PathLine) -> Self {
        let PathLine { locator, mtu, learned } = line;
        Self { locator: locator.to_string(), mtu, learned_seconds_ago: learned.map(|age| age.as_secs()) }
    }
}

/// Redirects (docs/redirect.md): who tells them, who hears them, and what came of each.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Redirects {
    /// The control addresses and port, one in each SIR domain; none: the config has no `[redirect]`.
    #[serde(default)]
    pub sockets: Vec<String>,
    /// Whether redirects are listened to.
    pub accept: bool,
    /// Whether they are told for what is passed on.
    pub send: bool,
    /// Numbers of the keys; the first signs.
    pub keys: Vec<u16>,
    /// How often each came about, by its name; what did not is left out.
    pub outcomes: BTreeMap<String, u64>,
}

impl From<RedirectReport> for Redirects {
    fn from(report: RedirectReport) -> Self {
        let RedirectReport { at, accept, send, keys, outcomes } = report;
        let outcomes = outcomes.into_iter().filter(|(_, times)| *times > 0);
        Self {
            sockets: at.into_iter().map(|(address, port)| format!("[{address}]:{port}")).collect(),
            accept,
            send,
            keys,
            outcomes: outcomes.map(|(outcome, times)| (outcome.name().to_owned(), times)).collect(),
        }
    }
}

/// Where an attachment's guest is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// The attachment.
    pub attachment: String,
    /// As in an attachment.
    pub presence: String,
    /// It was not so before.
    pub changed: bool,
    /// The locator of the host that has its guest.
    pub locator: String,
}

/// What runs after a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Virtual networks.
    pub networks: usize,
    /// Attachments.
    pub attachments: usize,
    /// Mappings written in the config.
    pub mappings: usize,
}

/// Why nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// Everything in one text.
    pub error: String,
    /// Each offending item of the config; empty if the config was not at fault.
    pub problems: Vec<Problem>,
}

/// One offending item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The file.
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Counters {
    /// The sums of the core, with those of the workers.
    pub fn new(totals: &Totals, workers: Vec<Worker>) -> Self {
        let attachments: BTreeMap<_, _> =
            totals.ports.iter().map(|(name, port)| (name.clone(), Port::from(port))).collect();
        let uplink = Port::from(&totals.uplink);
        let outside = Port::from(&totals.outside);
        let mut drops = BTreeMap::new();
        for (reason, packets) in attachments.values().chain([&uplink, &outside]).flat_map(|port| &port.drops)
        {
            *drops.entry(reason.clone()).or_default() += packets;
        }
        Self { attachments, drops, uplink, outside, workers }
    }
}

impl From<&PortTotals> for Port {
    fn from(totals: &PortTotals) -> Self {
        Self {
            in_packets: totals.in_packets,
            in_bytes: totals.in_bytes,
            out_packets: totals.out_packets,
            out_bytes: totals.out_bytes,
            drops: totals.drops.iter().map(|(reason, n)| (reason.name().to_owned(), *n)).collect(),
        }
    }
}

impl Mapping {
    /// The line as of `now`.
    pub fn new(line: MappingLine, now: Duration) -> Self {
        Self {
            network: line.network,
            address: match line.length {
                Some(length) => format!("{}/{length}", line.address),
                None => line.address.to_string(),
            },
            shared: line.shared,
            sir: line.sir.to_string(),
            identifier: format!("{:016x}", line.identifier.bits()),
            locator: line.locator.to_string(),
            attachment: line.attachment,
            wire: line.wire,
            source: line.source.name().to_owned(),
            epoch: line.epoch,
            learned_seconds_ago: line.since.map(|since| now.saturating_sub(since).as_secs()),
            ends_in_seconds: line.until.map(|until| until.saturating_sub(now).as_secs()),
        }
    }
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Self {
        let problem = |problem: &config::Problem| Problem {
            file: problem.place.file.clone(),
            line: problem.place.line,
            what: problem.what.clone(),
            remedy: problem.remedy.clone(),
        };
        Self { error: refused.to_string(), problems: refused.problems().iter().map(problem).collect() }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self { error: error.to_string(), problems: Vec::new() }
    }
}
