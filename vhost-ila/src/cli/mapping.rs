//! `mapping`: who holds an identifier, asked of and told to the registry of the running daemon.

use std::net::IpAddr;

use anyhow::{Result, bail};
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use clap::Subcommand;
use nve_core::addr::Locator;

use super::table::Table;
use crate::authority::StaticFile;
use crate::control::answer::{Denial, Held, Move, Registration};
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
    }
}

impl From<HeldArgs> for Held {
    fn from(HeldArgs { who: Who { address, network }, locator }: HeldArgs) -> Self {
        Self { network, address, locator: locator.to_string() }
    }
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
