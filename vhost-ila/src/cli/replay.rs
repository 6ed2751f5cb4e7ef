//! `replay`: where did my packet go, asked of a capture.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use nve_core::pipeline::Origin;

use crate::authority::StaticFile;
use crate::replay::replay;

/// `replay ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the packets come from: an attachment (Ethernet), or "uplink" (raw IPv6)
    #[arg(long, value_name = "ATTACHMENT|uplink")]
    from: String,
    /// The capture to read, pcap or pcapng
    input: PathBuf,
    /// The capture to write, pcapng: what was delivered where, and what was dropped and why
    output: PathBuf,
}

/// Runs the command; how many packets went where.
///
/// # Errors
/// The config is refused, the origin does not exist, or a capture cannot be read or written.
pub fn run(args: Args, config: &StaticFile) -> Result<String> {
    let Args { from, input, output } = args;
    let nve = super::run::core_of(&config.read()?);
    let origin = match from.as_str() {
        "uplink" => Origin::Uplink,
        "outside" => Origin::Outside,
        name => Origin::Port(nve.port(name).with_context(|| {
            format!(
                "there is no attachment {name}; \"uplink\" is the fabric, \"outside\" what comes to a gateway"
            )
        })?),
    };
    if let (Ok(read), Ok(written)) = (input.canonicalize(), output.canonicalize())
        && read == written
    {
        bail!("{} cannot be both read and written", input.display());
    }
    Ok(replay(&nve, origin, &input, &output)?.to_string())
}
