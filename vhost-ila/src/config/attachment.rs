//! `[attachment.X]`: the facts for the core, and, of a tenant, the socket for the device.
//!
//! What must stay true: every device has its own socket path, it fits a Unix socket address, and none is the control socket.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nve_core::setup::{Attachment, Task};
use toml::Spanned;

use super::raw::{RawAttachment, Text};
use super::value::Judge;
use super::{
    CONTROL_SOCKET, DeviceConfig, PLUG_SOCKET, Place, Problem, Refused, SocketMode, UplinkConfig, instance,
    nearest,
};
use crate::device::features::{DEFAULT_PAIRS, FEATURES, MAX_PAIRS, Offer};
use crate::device::memory::MAX_BYTES;

/// `sun_path` without its terminating zero.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// The words of `mode`.
pub(super) const MODES: &[(&str, SocketMode)] =
    &[("server", SocketMode::Server), ("client", SocketMode::Client)];

/// One attachment, its values checked.
pub(super) enum Attached {
    /// Behind a vhost-user socket.
    Tenant(Attachment, Socket),
    /// Behind a TUN device.
    Task(Task),
}

/// What stands behind an attachment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    VhostUser,
    Tun,
}

/// The words of `attachment.NAME.kind`.
const KINDS: &[(&str, Kind)] = &[("vhost-user", Kind::VhostUser), ("tun", Kind::Tun)];

/// Where the front-end is met.
pub(super) struct Socket {
    /// As written: relative to the runtime directory, or absolute.
    path: PathBuf,
    mode: SocketMode,
    user: Option<u32>,
    memory_max: u64,
    offer: Offer,
    place: Place,
}

pub(super) fn section(judge: &mut Judge<'_>, name: &Text, raw: &RawAttachment) -> Option<Attached> {
    let kind = match &raw.kind {
        Some(kind) => judge.keyword(&format!("attachment.{}.kind", name.get_ref()), kind, KINDS)?,
        None => Kind::VhostUser,
    };
    match kind {
        Kind::VhostUser => tenant(judge, name, raw),
        Kind::Tun => task(judge, name.get_ref(), raw).map(Attached::Task),
    }
}

/// The address of a task, and nothing of what only a virtual machine's NIC has.
fn task(judge: &mut Judge<'_>, name: &str, raw: &RawAttachment) -> Option<Task> {
    let at = |key: &str| format!("attachment.{name}.{key}");
    let texts = [
        ("network", &raw.network),
        ("mac", &raw.mac),
        ("socket", &raw.socket),
        ("mode", &raw.mode),
        ("user", &raw.user),
        ("hostname", &raw.hostname),
        ("instance_id", &raw.instance_id),
        ("user_data", &raw.user_data),
        ("memory_max", &raw.memory_max),
    ];
    let one = texts.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?.span())));
    let lists = [
        ("macs", &raw.macs),
        ("prefixes", &raw.prefixes),
        ("shared", &raw.shared),
        ("ssh_keys", &raw.ssh_keys),
        ("without", &raw.without),
    ];
    let lists = lists.into_iter().filter_map(|(key, texts)| Some((key, texts.first()?.span())));
    let queues = raw.queues.iter().map(|queues| ("queues", queues.span()));
    let queues = queues.chain(raw.standby.iter().map(|standby| ("standby", standby.span())));
    let queues = queues.chain(raw.packed.iter().map(|packed| ("packed", packed.span())));
    let mut none = true;
    for (key, span) in one.chain(lists).chain(queues) {
        let what = format!("{}: an attachment of kind \"tun\" has none", at(key));
        judge.refuse(span, what, "remove the line, or write kind = \"vhost-user\"".into());
        none = false;
    }
    let remedy = "write the SIR address of a task, without a prefix length";
    let addresses = addresses(judge, &at("addresses"), raw, remedy)?;
    none.then(|| Task { name: name.to_owned(), addresses })
}

/// `addresses`, at least one.
fn addresses<T: FromStr>(
    judge: &mut Judge<'_>,
    item: &str,
    raw: &RawAttachment,
    remedy: &str,
) -> Option<Vec<T>>
where
    T::Err: Display,
{
    let addresses = raw.addresses.get_ref().iter();
    let addresses: Vec<Option<T>> = addresses.map(|text| judge.parse(item, text, remedy)).collect();
    if addresses.is_empty() {
        let what = format!("{item}: an attachment without an address could send nothing");
        judge.refuse(raw.addresses.span(), what, "list at least one address of its network".into());
    }
    addresses.into_iter().collect()
}

/// `network` and `mac`, which every tenant has.
fn required<'a>(judge: &mut Judge<'_>, name: &Text, raw: &'a RawAttachment) -> Option<(&'a Text, &'a Text)> {
    for (key, value) in [("network", &raw.network), ("mac", &raw.mac)] {
        if value.is_none() {
            let what = format!("attachment.{}: missing field `{key}`", name.get_ref());
            judge.refuse(name.span(), what, format!("add a line `{key} = ...`"));
        }
    }
    Some((raw.network.as_ref()?, raw.mac.as_ref()?))
}

fn tenant(judge: &mut Judge<'_>, name: &Text, raw: &RawAttachment) -> Option<Attached> {
    let (network, mac_text) = required(judge, name, raw)?;
    let name = name.get_ref();
    let at = |key: &str| format!("attachment.{name}.{key}");
    let mode = match &raw.mode {
        Some(text) => judge.keyword(&at("mode"), text, MODES),
        None => Some(SocketMode::default()),
    };
    let user = judge.optional(&raw.user, |judge, text| judge.user(&at("user"), text));
    let memory_max = match &raw.memory_max {
        Some(text) => judge.bytes(&at("memory_max"), text, 1 << 20..=MAX_BYTES),
        None => Some(MAX_BYTES),
    };
    let mac = judge.mac(&at("mac"), mac_text);
    let hostname = judge.optional(&raw.hostname, |judge, text| judge.domain(&at("hostname"), text));
    let instance = instance::section(judge, &at, raw);
    let packed = raw.packed.as_ref().is_some_and(|packed| *packed.get_ref());
    let offer = offer(judge, &at, (raw.queues.as_ref(), &raw.without, packed));
    let remedy = "write an IPv4 or IPv6 address without a prefix length";
    let addresses = addresses(judge, &at("addresses"), raw, remedy);
    let macs: Vec<Option<_>> = raw.macs.iter().map(|text| judge.mac(&at("macs"), text)).collect();
    let prefixes: Vec<Option<_>> =
        raw.prefixes.iter().map(|text| judge.prefix_behind(&at("prefixes"), text)).collect();
    let shared: Vec<Option<_>> =
        raw.shared.iter().map(|text| judge.parse(&at("shared"), text, remedy)).collect();
    let (path, span) = match &raw.socket {
        Some(text) => (judge.path(&at("socket"), text), text.span()),
        None => (Some(PathBuf::from(format!("{name}.sock"))), mac_text.span()),
    };
    let facts = Attachment {
        name: name.clone(),
        network: network.get_ref().clone(),
        mac: mac?,
        macs: macs.into_iter().collect::<Option<_>>()?,
        addresses: addresses?,
        prefixes: prefixes.into_iter().collect::<Option<_>>()?,
        shared: shared.into_iter().collect::<Option<_>>()?,
        hostname: hostname?,
        instance: instance?,
    };
    let (mode, user, memory_max, offer) = (mode?, user?, memory_max?, offer?);
    let socket = Socket { path: path?, mode, user, memory_max, offer, place: judge.place(span) };
    Some(Attached::Tenant(facts, socket))
}

/// `queues`, `without` and `packed`.
pub(super) fn offer(
    judge: &mut Judge<'_>,
    at: &impl Fn(&str) -> String,
    (queues, without, packed): (Option<&Spanned<i64>>, &[Text], bool),
) -> Option<Offer> {
    let pairs = match queues {
        Some(queues) => judge.number(&at("queues"), queues, 1..=u16::from(MAX_PAIRS)),
        None => Some(u16::from(DEFAULT_PAIRS)),
    };
    let pairs = pairs.and_then(|pairs| u8::try_from(pairs).ok());
    let switches = || FEATURES.iter().filter(|feature| feature.switch);
    let mut off = Vec::new();
    for text in without {
        let known = switches().find(|feature| feature.name == text.get_ref());
        if known.is_none() {
            let what = format!("{}: there is no feature \"{}\" to switch off", at("without"), text.get_ref());
            let remedy = match nearest::of(text.get_ref(), switches().map(|feature| feature.name)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => {
                    format!("name some of: {}", switches().map(|f| f.name).collect::<Vec<_>>().join(", "))
                }
            };
            judge.refuse(text.span(), what, remedy);
        }
        off.push(known);
    }
    let offer = Offer::new(pairs?, &off.into_iter().collect::<Option<Vec<_>>>()?);
    Some(if packed { offer.with_packed_rings() } else { offer })
}

/// The devices to serve, their sockets under `runtime` unless absolute.
pub(super) fn devices(
    attachments: &[Attachment],
    sockets: Vec<Socket>,
    (runtime, uplink): (&Path, &UplinkConfig),
) -> Result<Vec<DeviceConfig>, Refused> {
    let mut problems = Vec::new();
    let mut taken: BTreeMap<PathBuf, String> = BTreeMap::new();
    taken.insert(runtime.join(CONTROL_SOCKET), "the control socket".into());
    taken.insert(runtime.join(PLUG_SOCKET), "the plug socket".into());
    if let UplinkConfig::VhostUser { device, .. } = uplink {
        taken.insert(device.socket.clone(), "the uplink".into());
    }
    let mut devices = Vec::new();
    for (attachment, socket) in attachments.iter().zip(sockets) {
        let path = runtime.join(&socket.path);
        let item = format!("attachment.{}.socket", attachment.name);
        let mut refuse = |what: String, remedy: &str| {
            problems.push(Problem { place: socket.place.clone(), what, remedy: remedy.into() });
        };
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            let what = format!("{item}: {} is longer than {MAX_SOCKET_PATH} bytes", path.display());
            refuse(what, "shorten host.runtime or the socket's name");
        }
        if let Some(holder) = taken.insert(path.clone(), format!("attachment.{}", attachment.name)) {
            refuse(format!("{item}: {} is taken by {holder}", path.display()), "give it a path of its own");
        }
        let mac = attachment.mac.0;
        let Socket { mode, user, memory_max, offer, .. } = socket;
        let name = attachment.name.clone();
        devices.push(DeviceConfig { name, socket: path, mode, mac, user, memory_max, offer });
    }
    Refused::unless_empty(problems)?;
    Ok(devices)
}
