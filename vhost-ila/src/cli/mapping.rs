//! `mapping`: who holds an identifier, asked of and told to the registry of the running daemon.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use clap::Subcommand;
use nve_core::addr::Locator;

use super::table::Table;
use crate::authority::StaticFile;
use crate::control::answer::{Denial, DeniedUpdate, Held, Move, Registration, Update, Updated};
use crate::control::client;

/// `mapping ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Who holds each identifier
    List(ListArgs),
    /// Register an identifier that nobody holds
    Register(HeldArgs),
    /// Give an identifier to another holder, by the word of the one it has
    Move(MoveArgs),
    /// Have nobody hold an identifier that its holder needs no more
    Unregister(HeldArgs),
    /// Make many changes, a line each, as they come
    Apply(ApplyArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Whose identifier.
#[derive(Debug, clap::Args)]
struct Who {
    /// A tenant's address, or a task's SIR address
    address: IpAddr,
    /// The tenant's virtual network; a task has none
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

#[derive(Debug, clap::Args)]
struct HeldArgs {
    #[command(flatten)]
    who: Who,
    /// The locator of its holder, a /64
    #[arg(long, value_name = "PREFIX")]
    locator: Locator,
}

#[derive(Debug, clap::Args)]
struct MoveArgs {
    #[command(flatten)]
    who: Who,
    /// The locator of its holder, a /64
    #[arg(long, value_name = "PREFIX")]
    from: Locator,
    /// The locator of its next holder, a /64
    #[arg(long, value_name = "PREFIX")]
    to: Locator,
}

#[derive(Debug, clap::Args)]
struct ApplyArgs {
    /// Lines such as "register NETWORK ADDRESS LOCATOR", "move NETWORK ADDRESS FROM TO" and "unregister NETWORK ADDRESS LOCATOR", with "-"
    /// for the network of a task; standard input if it is missing
    file: Option<PathBuf>,
}

/// Asks the daemon of the config at `config`.
///
/// # Errors
/// The daemon denies it, and says who holds the identifier; or none answers.
pub fn run(args: Args, config: &StaticFile) -> Result<String> {
    let socket = config.control_socket()?;
    match args.action {
        Action::List(args) => {
            let body = answered(client::request(&socket, Method::GET, "/v1/registrations")?)?;
            if args.json {
                return Ok(String::from_utf8(body.to_vec())? + "\n");
            }
            Ok(table(&serde_json::from_slice::<Vec<Registration>>(&body)?))
        }
        Action::Register(args) => {
            let body = answered(client::post(&socket, "/v1/registrations", &Held::from(args))?)?;
            told("registered", &body)
        }
        Action::Move(MoveArgs { who: Who { address, network }, from, to }) => {
            let request = Move { network, address, from: from.to_string(), to: to.to_string() };
            told("moved", &answered(client::post(&socket, "/v1/registrations/move", &request)?)?)
        }
        Action::Unregister(args) => {
            let request = Held::from(args);
            answered(client::post(&socket, "/v1/registrations/unregister", &request)?)?;
            Ok(format!("unregistered: nobody holds {}\n", request.address))
        }
        Action::Apply(ApplyArgs { file: Some(file) }) => {
            let input = File::open(&file).with_context(|| file.display().to_string())?;
            apply(BufReader::with_capacity(READ, input), &socket)
        }
        Action::Apply(ApplyArgs { file: None }) => {
            apply(BufReader::with_capacity(READ, std::io::stdin()), &socket)
        }
    }
}

impl From<HeldArgs> for Held {
    fn from(HeldArgs { who: Who { address, network }, locator }: HeldArgs) -> Self {
        Self { network, address, locator: locator.to_string() }
    }
}

/// Lines that are sent together at most.
const TOGETHER: usize = 4096;

/// Bytes that are read at once: lines that have come by then are sent together.
const READ: usize = 1 << 18;

/// Makes the changes of `input`, line by line. What is denied is told on standard error, as it comes; the rest holds all the same.
fn apply<R: Read>(mut input: BufReader<R>, socket: &Path) -> Result<String> {
    let (mut changed, mut denied, mut number) = (0, 0, 0);
    let (mut line, mut updates, mut numbers) = (String::new(), Vec::new(), Vec::new());
    loop {
        line.clear();
        let ended = input.read_line(&mut line)? == 0;
        if !ended {
            number += 1;
            if let Some(update) = update(&line).with_context(|| format!("line {number}: {}", line.trim()))? {
                updates.push(update);
                numbers.push(number);
            }
        }
        if updates.len() >= TOGETHER || !input.buffer().contains(&b'\n') && !updates.is_empty() {
            let body = answered(client::post(socket, "/v1/registrations/bulk", &updates)?)?;
            let done: Updated = serde_json::from_slice(&body)?;
            for DeniedUpdate { at, denial } in &done.denied {
                eprintln!("line {}: {}", numbers.get(*at).unwrap_or(&number), denial.error);
            }
            (changed, denied) = (changed + done.changed, denied + done.denied.len());
            updates.clear();
            numbers.clear();
        }
        if ended {
            break;
        }
    }
    if denied > 0 {
        bail!("{changed} changed, {denied} denied");
    }
    Ok(format!("{changed} changed\n"))
}

/// The change that a line asks for; `None` of an empty line or a comment.
fn update(line: &str) -> Result<Option<Update>> {
    let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
    let network = |name: &str| (name != "-").then(|| name.to_owned());
    Ok(Some(match words[..] {
        [] => return Ok(None),
        ["move", name, address, from, to] => Update::Move(Move {
            network: network(name),
            address: address.parse()?,
            from: from.to_owned(),
            to: to.to_owned(),
        }),
        [verb @ ("register" | "unregister"), name, address, locator] => {
            let (network, address) = (network(name), address.parse()?);
            let held = Held { network, address, locator: locator.to_owned() };
            if verb == "register" { Update::Register(held) } else { Update::Unregister(held) }
        }
        _ => bail!("not a change: see `vhost-ila mapping apply --help`"),
    }))
}

/// The body of an answer that is no denial.
fn answered((status, body): (StatusCode, Bytes)) -> Result<Bytes> {
    if status == StatusCode::OK {
        return Ok(body);
    }
    let denial = serde_json::from_slice::<Denial>(&body).map(|denial| denial.error);
    bail!("{}", denial.unwrap_or_else(|_| format!("the daemon answers {status}")))
}

fn told(what: &str, body: &[u8]) -> Result<String> {
    let Registration { address, locator, epoch, .. } = serde_json::from_slice(body)?;
    Ok(format!("{what}: {locator} holds {address}, epoch {epoch}\n"))
}

fn table(registrations: &[Registration]) -> String {
    let mut table = Table::new(["network", "address", "holder", "epoch", "by"]);
    for Registration { network, address, locator, epoch, by, .. } in registrations {
        let network = network.clone().unwrap_or_else(|| "-".into());
        let epoch = if *epoch == 0 { "-".into() } else { epoch.to_string() };
        table.row([network, address.to_string(), locator.clone(), epoch, by.clone()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_change_a_comment_or_refused() {
        let held = |network: Option<&str>| Held {
            network: network.map(str::to_owned),
            address: "10.1.0.7".parse().unwrap(),
            locator: "2001:db8:0:3::/64".into(),
        };
        let of = |line| update(line).unwrap();
        assert_eq!(
            of("register blue 10.1.0.7 2001:db8:0:3::/64 # vm7\n"),
            Some(Update::Register(held(Some("blue"))))
        );
        assert_eq!(of("unregister - 10.1.0.7 2001:db8:0:3::/64"), Some(Update::Unregister(held(None))));
        let Some(Update::Move(moved)) = of("move blue 10.1.0.7 2001:db8:0:3::/64 2001:db8:0:4::/64") else {
            panic!("a move")
        };
        assert_eq!((&*moved.from, &*moved.to), ("2001:db8:0:3::/64", "2001:db8:0:4::/64"));
        assert_eq!((of(""), of("  # nothing\n")), (None, None));
        for refused in [
            "register blue 10.1.0.7",
            "move blue 10.1.0.7 a",
            "forget blue 10.1.0.7 x",
            "register blue 10.1.0 x",
        ] {
            assert!(update(refused).is_err(), "{refused}");
        }
    }
}
