//! `reload`: the running daemon reads its config again, as on SIGHUP, and the answer says what came of it.

use anyhow::{Result, bail};
use axum::http::{Method, StatusCode};

use crate::authority::StaticFile;
use crate::control::answer::{Refusal, Reloaded};
use crate::control::client;

/// Asks the daemon of the config at `config`.
///
/// # Errors
/// The daemon refuses the config, or none answers. What ran before still runs.
pub fn run(config: &StaticFile) -> Result<String> {
    let socket = config.control_socket()?;
    let (status, body) = client::request(&socket, Method::POST, "/v1/reload")?;
    if status == StatusCode::OK {
        let now: Reloaded = serde_json::from_slice(&body)?;
        let Reloaded { networks, attachments, mappings } = now;
        return Ok(format!(
            "reloaded: {networks} networks, {attachments} attachments, {mappings} mappings\n"
        ));
    }
    let refusal = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error);
    bail!("the daemon refuses, what ran before still runs:\n{}", refusal.unwrap_or(status.to_string()))
}
