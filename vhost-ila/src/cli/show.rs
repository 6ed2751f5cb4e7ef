//! `show`: what a running daemon says of itself.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use axum::http::{Method, StatusCode};
use clap::ValueEnum;
use nve_core::DropReason;
use nve_core::redirect::Outcome;
use serde::de::DeserializeOwned;

use super::table::Table;
use crate::authority::StaticFile;
use crate::control::answer::{
    Attachment, Counters, Device, Group, Mapping, Path, Port, Redirects, Refusal, SharedAddress, Task, Uplink,
};
use crate::control::client;

/// `show ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of what
    #[arg(value_enum)]
    subject: Subject,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subject {
    /// Packets and bytes by attachment, and every drop by its reason
    Counters,
    /// The way to the fabric, and what runs behind its socket where it has one
    Uplink,
    /// Attachments, as configured and as their drivers run them
    Attachments,
    /// Where each address lives
    Mappings,
    /// Who listens to each group
    Groups,
    /// How large a packet the fabric carries to each host
    Paths,
    /// Redirects told and heard, and every refusal by its name
    Redirects,
}

/// Asks the daemon of the config at `config`; a table, or its JSON.
///
/// # Errors
/// The config cannot be read, no daemon answers, or it does not know the question.
pub fn run(args: Args, config: &StaticFile) -> Result<String> {
    let path = match args.subject {
        Subject::Counters => "/v1/counters",
        Subject::Uplink => "/v1/uplink",
        Subject::Attachments => "/v1/attachments",
        Subject::Mappings => "/v1/mappings",
        Subject::Groups => "/v1/groups",
        Subject::Paths => "/v1/paths",
        Subject::Redirects => "/v1/redirects",
    };
    let (status, body) = client::request(&config.control_socket()?, Method::GET, path)?;
    if status != StatusCode::OK {
        let refusal = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error);
        bail!("the daemon answers {status}: {}", refusal.unwrap_or_default());
    }
    if args.json {
        return Ok(String::from_utf8(body.to_vec())? + "\n");
    }
    Ok(match args.subject {
        Subject::Counters => counters(&read(&body)?),
        Subject::Uplink => uplink(&read(&body)?),
        Subject::Attachments => attachments(&read::<Vec<_>>(&body)?),
        Subject::Mappings => mappings(&read::<Vec<_>>(&body)?),
        Subject::Groups => groups(&read::<Vec<_>>(&body)?),
        Subject::Paths => paths(&read::<Vec<_>>(&body)?),
        Subject::Redirects => redirects(&read(&body)?),
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(body)?)
}

fn counters(counters: &Counters) -> String {
    let mut traffic = Table::new(["", "in packets", "in bytes", "out packets", "out bytes", "dropped"]);
    let mut drops = Table::new(["dropped from", "reason", "packets", "meaning"]);
    let ports = counters.attachments.iter().map(|(name, port)| (name.as_str(), port));
    let outside = (counters.outside != Port::default()).then_some(("outside", &counters.outside));
    for (name, port) in ports.chain([("uplink", &counters.uplink)]).chain(outside) {
        let Port { in_packets, in_bytes, out_packets, out_bytes, drops: reasons } = port;
        let dropped: u64 = reasons.values().sum();
        let numbers = [in_packets, in_bytes, out_packets, out_bytes, &dropped].map(u64::to_string);
        traffic.row([name.to_owned()].into_iter().chain(numbers));
        for (reason, packets) in reasons {
            let known = DropReason::ALL.iter().find(|known| known.name() == reason);
            let meaning = known.map_or("", |reason| reason.doc()).trim();
            drops.row([name.to_owned(), reason.clone(), packets.to_string(), meaning.to_owned()]);
        }
    }
    let mut text = traffic.to_string();
    if !drops.is_empty() {
        let _ = write!(text, "\n{drops}");
    }
    for (index, worker) in counters.workers.iter().enumerate() {
        let per_packet = worker.busy_cycles.checked_div(worker.packets);
        let per_packet = per_packet.map_or("-".to_owned(), |cycles| cycles.to_string());
        let _ = writeln!(
            text,
            "\nworker {index}: {} packets, {per_packet} cycles each; {} of {} polls found work",
            worker.packets, worker.busy_polls, worker.polls
        );
        if worker.waits > 0 {
            let _ =
                writeln!(text, "it waited {} times for receive rings that another wrote to", worker.waits);
        }
        if worker.gateway_lost {
            text += "the gateway is lost: its interface was removed; restart the daemon to open it again\n";
        }
        if worker.uplink_lost {
            text += "the uplink is lost: its interface was removed; restart the daemon to open it again\n";
        }
    }
    text
}

fn uplink(uplink: &Uplink) -> String {
    let Uplink { kind, mtu, interface, mac, link_local, socket, device: behind } = uplink;
    let mut text = format!("{kind}, packets of up to {mtu} bytes\n");
    if let Some(interface) = interface {
        let _ = writeln!(text, "interface {interface}");
    }
    if let (Some(mac), Some(link_local), Some(socket)) = (mac, link_local, socket) {
        let _ = writeln!(text, "{mac}, {link_local}; socket {}", socket.display());
    }
    if let Some(behind) = behind {
        let fault =
            behind.last_fault.as_ref().map_or(String::new(), |fault| format!("; last fault: {fault}"));
        let _ = writeln!(text, "{}{fault}", state(behind));
        text += &device("driver", behind);
    }
    text
}

fn attachments(attachments: &[Attachment]) -> String {
    let mut table =
        Table::new(["name", "network", "mac", "addresses", "mtu", "socket", "device", "last fault"]);
    for attachment in attachments {
        let addresses: Vec<_> = attachment.addresses.iter().map(ToString::to_string).collect();
        table.row([
            attachment.name.clone(),
            attachment.network.clone(),
            if attachment.mac.is_empty() { "-".into() } else { attachment.mac.clone() },
            addresses.join(","),
            attachment.mtu.to_string(),
            attachment.socket.display().to_string(),
            present(attachment, attachment.task.as_ref().map_or_else(|| state(&attachment.device), plugged)),
            attachment
                .task
                .as_ref()
                .map_or(&attachment.device.last_fault, |task| &task.last_fault)
                .clone()
                .unwrap_or_else(|| "-".into()),
        ]);
    }
    let mut text = table.to_string();
    for attachment in attachments.iter().filter(|attachment| attachment.task.is_none()) {
        let _ = write!(text, "\n{}", device(&attachment.name, &attachment.device));
        text += &lent(attachment);
    }
    text
}

fn plugged(task: &Task) -> String {
    task.interface
        .as_ref()
        .map_or_else(|| "not plugged in".into(), |interface| format!("plugged in: {interface}"))
}

/// What runs behind it, and that its guest is elsewhere.
fn present(attachment: &Attachment, state: String) -> String {
    match attachment.presence.as_str() {
        "" | "here" => state,
        away => format!("{away} for its guest, {state}"),
    }
}

fn state(device: &Device) -> String {
    let pairs = device.rings.iter().filter(|ring| ring.running && ring.role.starts_with("receive")).count();
    match (device.connected, pairs) {
        (_, 1) => "running".into(),
        (_, 2..) => format!("running, {pairs} pairs"),
        (true, 0) => "connected".into(),
        (false, 0) => "down".into(),
    }
}

/// What was negotiated, the rings that run or broke, and what was used of it all.
fn device(name: &str, device: &Device) -> String {
    let mut text = format!("{name}: up to {} queue pairs\n", device.queues);
    let lists = [
        ("offered", &device.offered, &device.offered_protocol),
        ("accepted", &device.accepted, &device.accepted_protocol),
    ];
    for (what, virtio, protocol) in lists {
        let _ = writeln!(text, "  {what}: {}; vhost-user: {}", listed(virtio), listed(protocol));
    }
    let mut table = Table::new(["  ring", "size", "frames", "signals", "spared", "fault"]);
    for ring in device.rings.iter().filter(|ring| ring.running || ring.fault.is_some()) {
        let numbers = [ring.size, ring.frames, ring.signals, ring.signals_spared].map(|n| n.to_string());
        let fault = ring.fault.clone().unwrap_or_else(|| "-".into());
        table.row([format!("  {}", ring.role)].into_iter().chain(numbers).chain([fault]));
    }
    if !table.is_empty() {
        let _ = write!(text, "{table}");
    }
    let uses = device.uses.iter().filter(|(_, times)| **times > 0);
    let uses: Vec<_> = uses.map(|(name, times)| format!("{name} {times}")).collect();
    if !uses.is_empty() {
        let _ = writeln!(text, "  used: {}", uses.join(", "));
    }
    text
}

/// What it may use beside its own addresses.
fn lent(attachment: &Attachment) -> String {
    let mut text = String::new();
    if !attachment.prefixes.is_empty() {
        let _ = writeln!(text, "  behind it: {}", attachment.prefixes.join(", "));
    }
    for SharedAddress { address, holder, mac } in &attachment.shared {
        let _ = match (holder, mac) {
            (Some(holder), Some(mac)) => writeln!(text, "  shared: {address}, held by {holder} at {mac}"),
            _ => writeln!(text, "  shared: {address}, held by nobody yet"),
        };
    }
    if !attachment.macs.is_empty() {
        let _ = writeln!(text, "  also sends from: {}", attachment.macs.join(", "));
    }
    text
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "-".into() } else { names.join(" ") }
}

fn mappings(mappings: &[Mapping]) -> String {
    let mut table = Table::new(["network", "address", "locator", "attachment", "on the wire", "from"]);
    for mapping in mappings {
        table.row([
            mapping.network.clone(),
            mapping.address.clone(),
            mapping.locator.clone(),
            match (&mapping.attachment, mapping.shared) {
                (Some(holder), true) => format!("{holder} (shared)"),
                (None, true) => "nobody yet (shared)".into(),
                (Some(attachment), false) => attachment.clone(),
                (None, false) => "-".into(),
            },
            mapping.wire.to_string(),
            said_by(mapping),
        ]);
    }
    table.to_string()
}

/// `setup`, or `redirect 12 s ago, epoch 3, ends in 288 s`.
fn said_by(mapping: &Mapping) -> String {
    let mut text = mapping.source.clone();
    if let Some(ago) = mapping.learned_seconds_ago {
        let _ = write!(text, " {ago} s ago, epoch {}", mapping.epoch);
    }
    if let Some(left) = mapping.ends_in_seconds {
        let _ = write!(text, ", ends in {left} s");
    }
    text
}

fn groups(groups: &[Group]) -> String {
    let mut table = Table::new(["network", "group", "attachments", "other hosts"]);
    for group in groups {
        let (here, elsewhere) = (listed(&group.attachments), listed(&group.locators));
        table.row([group.network.clone(), group.group.to_string(), here, elsewhere]);
    }
    table.to_string()
}

fn redirects(redirects: &Redirects) -> String {
    if redirects.sockets.is_empty() {
        return "no [redirect] in the config\n".into();
    }
    let socket = redirects.sockets.join(", ");
    let does = |does: bool| if does { "yes" } else { "no" };
    let keys: Vec<_> = redirects.keys.iter().map(ToString::to_string).collect();
    let (heard, told) = (does(redirects.accept), does(redirects.send));
    let mut text = format!("at {socket}; heard: {heard}, told: {told}; keys: {}\n", keys.join(" "));
    let mut table = Table::new(["outcome", "times", "meaning"]);
    for (name, times) in &redirects.outcomes {
        let known = Outcome::ALL.iter().find(|known| known.name() == name);
        let meaning = known.map_or("", |outcome| outcome.doc()).trim();
        table.row([name.clone(), times.to_string(), meaning.to_owned()]);
    }
    if !table.is_empty() {
        let _ = write!(text, "\n{table}");
    }
    text
}

fn paths(paths: &[Path]) -> String {
    let mut table = Table::new(["locator", "mtu", "learned"]);
    for path in paths {
        let learned = path.learned_seconds_ago.map_or("-".to_owned(), |seconds| format!("{seconds} s ago"));
        table.row([path.locator.clone(), path.mtu.to_string(), learned]);
    }
    table.to_string()
}
