//! `check`: the config alone, or also the host it would run on.
//!
//! What must stay true: it changes nothing, and every remedy is a command that can be pasted as it is.
//!
//! ```text
//!   kernel.rs    facts: interfaces, addresses, routes and rules (netlink), settings (/proc), firewall (nft)
//!   needs.rs     facts + config -> one finding per need of the design's section 5, "The host"
//!   firewall.rs  what a ruleset says about conntrack and reverse paths
//! ```

mod firewall;
mod kernel;
mod needs;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use anyhow::Result;
use nve_core::setup::{Crossing, Realm};

use super::Answer;
use crate::authority::StaticFile;
use crate::config::{Config, UplinkConfig};
use needs::{Finding, Site, Verdict};

/// `check ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also check that this host's kernel is set up as the config needs it
    #[arg(long)]
    host: bool,
}

/// Runs the command; what was found, and whether all is well.
///
/// # Errors
/// Every problem of the config, by file and line; or the kernel does not answer.
pub fn run(args: Args, source: &StaticFile) -> Result<Answer> {
    let config = source.read()?;
    let mut text = summary(source, &config);
    text.extend(unbounded_outside(&config));
    let mut well = true;
    if args.host {
        match Site::new(&config) {
            Some(site) => {
                let findings = needs::verify(&site, &kernel::facts()?);
                well = !findings.iter().any(|finding| matches!(finding.verdict, Verdict::Unmet { .. }));
                findings.iter().for_each(|finding| report(finding, &mut text));
            }
            None => text.push_str(nothing_needed(&config)),
        }
    }
    Ok(Answer { text, well })
}

/// Why nothing is asked of the kernel, where there is no TUN.
fn nothing_needed(config: &Config) -> &'static str {
    match config.uplink {
        UplinkConfig::VhostUser { .. } => {
            "the uplink goes by no kernel: no TUN, forwarding, route, rule or firewall of this host matters\n\
             to it; whoever attaches to its socket routes the locator to our link-local address (`vhost-ila show uplink`)\n"
        }
        UplinkConfig::Tun { .. } | UplinkConfig::None { .. } => {
            "no uplink: nothing is needed of this host's network\n"
        }
    }
}

/// One line that says what is in the config.
fn summary(source: &StaticFile, config: &Config) -> String {
    let setup = config.setup.setup();
    let uplink = match &config.uplink {
        UplinkConfig::Tun { name, mtu } => format!("uplink {name} of {mtu} bytes"),
        UplinkConfig::VhostUser { device, mtu, .. } => {
            format!("uplink {} of {mtu} bytes", device.socket.display())
        }
        UplinkConfig::None { .. } => "no uplink".into(),
    };
    format!(
        "{source}: host {}, {uplink}, {}, {}, {}\n",
        setup.host.name,
        count(setup.networks.len(), "network"),
        count(setup.attachments.len(), "attachment"),
        count(setup.mappings.len() + setup.bulk.len(), "mapping"),
    )
}

/// What is said where there is an outside, and nothing tells it from hosts and networks that this config does not name.
fn unbounded_outside(config: &Config) -> Option<String> {
    let setup = config.setup.setup();
    let crosses = |crossing: &Crossing| crossing.from == Realm::Outside || crossing.to == Realm::Outside;
    let used = setup.crossings.iter().find(|crossing| crosses(crossing)).map(|crossing| &*crossing.name);
    let used = used.or(config.gateway.as_ref().map(|_| "[gateway]"))?;
    setup.fabric.is_empty().then(|| {
        format!(
            "warning: {used} is about the outside, and [host] has no fabric: every host and network that this config does not name \
             counts as outside\n         list in fabric the prefixes of all locators, of all networks' /96s and of the hosts' own addresses,\n         \
             and SIR prefixes of domains that this host does not serve\n"
        )
    })
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn report(finding: &Finding, text: &mut String) {
    let (word, found, remedy) = match &finding.verdict {
        Verdict::Met => ("ok", "", [].as_slice()),
        Verdict::Unmet { found, remedy } => ("FAIL", found.as_str(), remedy.as_slice()),
        Verdict::Unknown { why, remedy } => ("?", why.as_str(), remedy.as_slice()),
    };
    let separator = if found.is_empty() { "" } else { ": " };
    let _ = writeln!(text, "{word:<5} {}{separator}{found}", finding.need);
    for command in remedy {
        let _ = writeln!(text, "      {command}");
    }
}
