//! `show`: what a running daemon says of itself.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use axum::http::{Method, StatusCode};
use clap::ValueEnum;
use nve_core::DropReason;
use serde::de::DeserializeOwned;

use super::table::Table;
use crate::authority::StaticFile;
use crate::control::answer::{Attachment, Counters, Mapping, Path, Port, Refusal};
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
    /// Attachments, as configured and as their drivers run them
    Attachments,
    /// Where each address lives
    Mappings,
    /// How large a packet the fabric carries to each host
    Paths,
}

/// Asks the daemon of the config at `config`; a table, or its JSON.
///
/// # Errors
/// The config cannot be read, no daemon answers, or it does not know the question.
pub fn run(args: Args, config: &StaticFile) -> Result<String> {
    let path = match args.subject {
        Subject::Counters => "/v1/counters",
        Subject::Attachments => "/v1/attachments",
        Subject::Mappings => "/v1/mappings",
        Subject::Paths => "/v1/paths",
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
        Subject::Attachments => attachments(&read::<Vec<_>>(&body)?),
        Subject::Mappings => mappings(&read::<Vec<_>>(&body)?),
        Subject::Paths => paths(&read::<Vec<_>>(&body)?),
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(body)?)
}

fn counters(counters: &Counters) -> String {
    let mut traffic = Table::new(["", "in packets", "in bytes", "out packets", "out bytes", "dropped"]);
    let mut drops = Table::new(["dropped from", "reason", "packets", "meaning"]);
    let ports = counters.attachments.iter().map(|(name, port)| (name.as_str(), port));
    for (name, port) in ports.chain([("uplink", &counters.uplink)]) {
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
        if worker.uplink_lost {
            text += "the uplink is lost: its interface was removed; restart the daemon to open it again\n";
        }
    }
    text
}

fn attachments(attachments: &[Attachment]) -> String {
    let mut table =
        Table::new(["name", "network", "mac", "addresses", "mtu", "socket", "device", "last fault"]);
    for attachment in attachments {
        let addresses: Vec<_> = attachment.addresses.iter().map(ToString::to_string).collect();
        let device = &attachment.device;
        let state = if device.rings.iter().any(|ring| ring.running) {
            "running"
        } else if device.connected {
            "connected"
        } else {
            "down"
        };
        table.row([
            attachment.name.clone(),
            attachment.network.clone(),
            attachment.mac.clone(),
            addresses.join(","),
            attachment.mtu.to_string(),
            attachment.socket.display().to_string(),
            state.to_owned(),
            device.last_fault.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    table.to_string()
}

fn mappings(mappings: &[Mapping]) -> String {
    let mut table = Table::new(["network", "address", "locator", "attachment", "on the wire"]);
    for mapping in mappings {
        table.row([
            mapping.network.clone(),
            mapping.address.to_string(),
            mapping.locator.clone(),
            mapping.attachment.clone().unwrap_or_else(|| "-".into()),
            mapping.wire.to_string(),
        ]);
    }
    table.to_string()
}

fn paths(paths: &[Path]) -> String {
    let mut table = Table::new(["locator", "mtu", "learned"]);
    for path in paths {
        let learned = path.learned_seconds_ago.map_or("-".to_owned(), |seconds| format!("{seconds} s ago"));
        table.row([path.locator.clone(), path.mtu.to_string(), learned]);
    }
    table.to_string()
}
