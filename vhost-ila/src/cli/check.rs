//! `check`: the config alone, or also the host it would run on.

use std::path::Path;

use anyhow::Result;

use crate::config::Config;

/// `check ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also check that this host's kernel is set up as the config needs it
    #[arg(long)]
    pub host: bool,
}

/// Runs the command; what was found in order.
///
/// # Errors
/// Every problem of the config, by file and line.
pub fn run(args: Args, path: &Path) -> Result<String> {
    let (_config, summary) = config(path)?;
    anyhow::ensure!(!args.host, "check --host is not there yet");
    Ok(summary)
}

/// Checks the config; one line that says what is in it.
///
/// # Errors
/// Every problem of the config, by file and line.
fn config(path: &Path) -> Result<(Config, String)> {
    let config = Config::load(path)?;
    let setup = config.setup.setup();
    let summary = format!(
        "{}: host {}, {}, {}, {}\n",
        path.display(),
        setup.host.name,
        count(setup.networks.len(), "network"),
        count(setup.attachments.len(), "attachment"),
        count(setup.mappings.len(), "mapping"),
    );
    Ok((config, summary))
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
