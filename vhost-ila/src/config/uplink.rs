//! `[uplink]`: what the way to the fabric is, and what belongs to each kind.
//!
//! What must stay true: a key that another kind has is refused, not ignored; a vhost-user uplink's socket is nobody else's.

use std::path::{Path, PathBuf};

use nve_core::addr::Locator;
use nve_core::link::{NextHop, default_mac};
use smoltcp::wire::EthernetAddress;
use std::ops::Range;
use toml::Spanned;

use super::attachment::{self, MAX_SOCKET_PATH};
use super::raw::{RawUplink, Text};
use super::value::Judge;
use super::{
    CONTROL_SOCKET, DeviceConfig, GatewayConfig, PLUG_SOCKET, Place, Problem, Refused, SocketMode,
    UplinkConfig,
};
use crate::device::features::Offer;
use crate::device::memory::MAX_BYTES;

/// What the device of a vhost-user uplink is called in the log.
const NAME: &str = "uplink";

/// The socket of an uplink that was given none.
const SOCKET: &str = "fabric.sock";

/// The words of `uplink.kind`.
const KINDS: &[(&str, Kind)] = &[("tun", Kind::Tun), ("vhost-user", Kind::VhostUser), ("none", Kind::None)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tun,
    VhostUser,
    None,
}

/// The section with its values checked, what depends on other sections left open.
pub(super) enum Uplink {
    /// Nothing is open.
    Ready(UplinkConfig),
    /// Its socket's directory, and the locator a MAC is made of.
    VhostUser(Box<Fabric>),
}

/// A socket that an application of the fabric attaches to.
pub(super) struct Fabric {
    /// As written: relative to the runtime directory, or absolute.
    socket: PathBuf,
    mode: SocketMode,
    user: Option<u32>,
    memory_max: u64,
    offer: Offer,
    mac: Option<EthernetAddress>,
    next_hop: NextHop,
    mtu: u16,
    place: Place,
}

pub(super) fn section(judge: &mut Judge<'_>, raw: &Spanned<RawUplink>) -> Option<Uplink> {
    let (place, raw) = (judge.place(raw.span()), raw.get_ref());
    let mtu = match &raw.mtu {
        Some(mtu) => judge.number("uplink.mtu", mtu, 1280..=65535),
        None => Some(1500),
    };
    let kind = judge.keyword("uplink.kind", &raw.kind, KINDS)?;
    if !of_its_kind(judge, kind, raw) {
        return None;
    }
    match kind {
        Kind::Tun => {
            let name = match &raw.name {
                Some(name) => judge.interface("uplink.name", name)?,
                None => "ila0".into(),
            };
            Some(Uplink::Ready(UplinkConfig::Tun { name, mtu: mtu? }))
        }
        Kind::None => Some(Uplink::Ready(UplinkConfig::None { mtu: mtu? })),
        Kind::VhostUser => fabric(judge, raw, (mtu, place)).map(|fabric| Uplink::VhostUser(Box::new(fabric))),
    }
}

/// Refuses what an uplink of this kind has not.
fn of_its_kind(judge: &mut Judge<'_>, kind: Kind, raw: &RawUplink) -> bool {
    let span = |text: &Option<Text>| text.as_ref().map(Spanned::span);
    let device: [(&str, Option<Range<usize>>); 9] = [
        ("socket", span(&raw.socket)),
        ("mode", span(&raw.mode)),
        ("user", span(&raw.user)),
        ("memory_max", span(&raw.memory_max)),
        ("queues", raw.queues.as_ref().map(Spanned::span)),
        ("without", raw.without.first().map(Spanned::span)),
        ("packed", raw.packed.as_ref().map(Spanned::span)),
        ("mac", span(&raw.mac)),
        ("next_hop", span(&raw.next_hop)),
    ];
    let written = KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word);
    let device = device.into_iter().map(|(key, span)| (key, span, Kind::VhostUser, "vhost-user"));
    let mut all = true;
    for (key, span, of, word) in device.chain([("name", span(&raw.name), Kind::Tun, "tun")]) {
        if let Some(span) = span.filter(|_| kind != of) {
            let what = format!("uplink.{key}: an uplink of kind \"{written}\" has no {key}");
            judge.refuse(span, what, format!("remove the line, or write kind = \"{word}\""));
            all = false;
        }
    }
    all
}

fn fabric(judge: &mut Judge<'_>, raw: &RawUplink, (mtu, place): (Option<u16>, Place)) -> Option<Fabric> {
    let at = |key: &str| format!("uplink.{key}");
    let socket = match &raw.socket {
        Some(text) => judge.path(&at("socket"), text),
        None => Some(SOCKET.into()),
    };
    let mode = match &raw.mode {
        Some(text) => judge.keyword(&at("mode"), text, attachment::MODES),
        None => Some(SocketMode::default()),
    };
    let user = judge.optional(&raw.user, |judge, text| judge.user(&at("user"), text));
    let memory_max = match &raw.memory_max {
        Some(text) => judge.bytes(&at("memory_max"), text, 1 << 20..=MAX_BYTES),
        None => Some(MAX_BYTES),
    };
    let packed = raw.packed.as_ref().is_some_and(|packed| *packed.get_ref());
    let offer = attachment::offer(judge, &at, (raw.queues.as_ref(), &raw.without, packed));
    let mac = judge.optional(&raw.mac, |judge, text| judge.mac(&at("mac"), text));
    let next_hop = match &raw.next_hop {
        Some(text) => next_hop(judge, text),
        None => {
            let what = "uplink.next_hop: who takes what goes to the fabric is not said".into();
            let remedy = "add a line next_hop = \"fe80::1\", a router's address on that link, or its MAC";
            judge.refuse(raw.kind.span(), what, remedy.into());
            None
        }
    };
    Some(Fabric {
        socket: socket?,
        mode: mode?,
        user: user?,
        memory_max: memory_max?,
        offer: offer?,
        mac: mac?,
        next_hop: next_hop?,
        mtu: mtu?,
        place,
    })
}

/// A router's address, or the MAC of a station.
fn next_hop(judge: &mut Judge<'_>, text: &Text) -> Option<NextHop> {
    // An IPv6 address may look like a MAC to nobody: it has eight groups, or `::`.
    match text.get_ref().parse::<std::net::Ipv6Addr>() {
        Ok(router) if router.is_multicast() || router.is_unspecified() || router.is_loopback() => {
            let what = format!("uplink.next_hop: {router} is no router's address");
            judge.refuse(text.span(), what, "write a link-local address such as \"fe80::1\"".into());
            None
        }
        Ok(router) => Some(NextHop::Router(router)),
        Err(_) => judge.mac("uplink.next_hop", text).map(NextHop::Station),
    }
}

impl Uplink {
    /// With what other sections say: the host's locator, and the directory of the sockets.
    ///
    /// # Errors
    /// The socket is taken by another, or its path is too long.
    pub(super) fn complete(self, locator: Locator, runtime: &Path) -> Result<UplinkConfig, Refused> {
        let fabric = match self {
            Self::Ready(config) => return Ok(config),
            Self::VhostUser(fabric) => *fabric,
        };
        let socket = runtime.join(&fabric.socket);
        let mut problems = Vec::new();
        let mut refuse = |what: String, remedy: &str| {
            problems.push(Problem { place: fabric.place.clone(), what, remedy: remedy.into() });
        };
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            let what = format!("uplink.socket: {} is longer than {MAX_SOCKET_PATH} bytes", socket.display());
            refuse(what, "shorten host.runtime or the socket's name");
        }
        if [CONTROL_SOCKET, PLUG_SOCKET].iter().any(|taken| runtime.join(taken) == socket) {
            let what = format!("uplink.socket: {} is the daemon's own", socket.display());
            refuse(what, "give it a path of its own");
        }
        Refused::unless_empty(problems)?;
        let mac = fabric.mac.unwrap_or_else(|| default_mac(locator));
        let Fabric { mode, user, memory_max, offer, next_hop, mtu, .. } = fabric;
        let device = DeviceConfig { name: NAME.into(), socket, mode, mac: mac.0, user, memory_max, offer };
        Ok(UplinkConfig::VhostUser { device, next_hop, mtu })
    }
}

/// The gateway's TUN is another interface than the uplink's, and it needs one to pass packets on to: a TUN, beside which `check --host`
/// judges what the kernel must do for both.
pub(super) fn beside_gateway(
    gateway: Option<&GatewayConfig>,
    place: Option<&Place>,
    uplink: &UplinkConfig,
) -> Result<(), Refused> {
    let (Some(GatewayConfig { tun, .. }), Some(place)) = (gateway, place) else { return Ok(()) };
    let (what, remedy) = match uplink {
        UplinkConfig::None { .. } => (
            "[gateway]: the uplink is of kind \"none\", so nothing could be passed on".to_owned(),
            "write kind = \"tun\" in [uplink], or remove [gateway]",
        ),
        UplinkConfig::Tun { name, .. } if name == tun => (
            format!("gateway.tun: {tun} is the uplink's interface"),
            "name another: what comes by it is taken to be from outside",
        ),
        UplinkConfig::VhostUser { .. } => (
            "[gateway]: what comes from outside comes by the host's kernel, and this uplink is not its"
                .to_owned(),
            "write kind = \"tun\" in [uplink], or remove [gateway]: another host may be the gateway",
        ),
        UplinkConfig::Tun { .. } => return Ok(()),
    };
    Err(Refused::one(Problem { place: place.clone(), what, remedy: remedy.into() }))
}

/// Redirects are heard on a socket of this host's kernel, to which a vhost-user uplink brings nothing.
pub(super) fn beside_redirect(place: Option<&Place>, uplink: &UplinkConfig) -> Result<(), Refused> {
    let (Some(place), UplinkConfig::VhostUser { .. }) = (place, uplink) else { return Ok(()) };
    let what = "[redirect]: redirects come by the host's kernel, and this uplink is not its".to_owned();
    let remedy = "write kind = \"tun\" in [uplink], or remove [redirect]".into();
    Err(Refused::one(Problem { place: place.clone(), what, remedy }))
}

/// Whether so many workers can use `uplink`.
pub(super) fn beside_workers(count: u16, place: &Place, uplink: &UplinkConfig) -> Result<(), Refused> {
    if count == 1 || !matches!(uplink, UplinkConfig::VhostUser { .. }) {
        return Ok(());
    }
    let what = format!("host.workers: {count} workers cannot share an uplink of kind \"vhost-user\" yet");
    Err(Refused::one(Problem {
        place: place.clone(),
        what,
        remedy: "write workers = 1, or remove the line".into(),
    }))
}
