//! `check`: the config alone, or also the host it would run on.

use anyhow::Result;

use crate::authority::StaticFile;
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
pub fn run(args: Args, config: &StaticFile) -> Result<String> {
    let (_config, summary) = self::config(config)?;
    anyhow::ensure!(!args.host, "check --host is not there yet");
    Ok(summary)
}

/// Checks the config; one line that says what is in it.
///
/// # Errors
/// Every problem of the config, by file and line.
fn config(source: &StaticFile) -> Result<(Config, String)> {
    let config = source.read()?;
    let setup = config.setup.setup();
    let summary = format!(
        "{}: host {}, {}, {}, {}\n",
        source,
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
