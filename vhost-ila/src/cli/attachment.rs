//! `attachment`: a guest has come, or has gone, said by whoever moves it (docs/migration.md).

use anyhow::{Result, bail};
use axum::http::{Method, StatusCode};
use clap::Subcommand;
use nve_core::addr::Locator;

use crate::authority::StaticFile;
use crate::control::answer::{Moved, Refusal};
use crate::control::client;

/// `attachment ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Its guest is here, though it has not said so
    Activate(NameArgs),
    /// Its guest has gone to another host, though that has not said so
    Moved(MovedArgs),
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// The attachment
    name: String,
}

#[derive(Debug, clap::Args)]
struct MovedArgs {
    /// The attachment
    name: String,
    /// The locator of the host that has its guest now, a /64
    #[arg(long, value_name = "PREFIX")]
    to: Locator,
}

/// Tells the daemon of the config at `config`.
///
/// # Errors
/// There is no such attachment, its guest cannot be there, or no daemon answers.
pub fn run(args: &Args, config: &StaticFile) -> Result<String> {
    let path = match &args.action {
        Action::Activate(NameArgs { name }) => format!("/v1/attachments/{name}/activate"),
        Action::Moved(MovedArgs { name, to }) => format!("/v1/attachments/{name}/moved?to={to}"),
    };
    let (status, body) = client::request(&config.control_socket()?, Method::POST, &path)?;
    if status != StatusCode::OK {
        let refusal = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error);
        bail!("{}", refusal.unwrap_or_else(|_| format!("the daemon answers {status}")));
    }
    let Moved { attachment, presence, changed, locator } = serde_json::from_slice(&body)?;
    let already = if changed { "" } else { ", as it was" };
    Ok(format!("{attachment}: {presence}{already}; its guest is at {locator}\n"))
}
