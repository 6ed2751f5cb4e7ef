//! Developer chores: everything that is not the product and would otherwise be a shell script that grew.
//!
//! ```text
//! cargo xtask fetch [SET...]   unpack Debian packages into target/tools, installing nothing
//! cargo xtask demo             two guests on two hosts talk through ILA; target/demo has the evidence
//! cargo xtask test [FILTER]    format, lints, unit tests, fuzz smoke, end to end
//! cargo xtask lint             the rules that neither rustc nor clippy knows
//! ```
//!
//! What must stay true: no command installs a package, starts a service, or leaves a namespace, a mount or a changed
//! sysctl behind; all that is written lies under cargo's target directory.

mod build;
mod demo;
mod e2e;
mod fetch;
mod sandbox;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer chores of vhost-ila")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Unpack Debian packages (QEMU, guest kernels, tshark, scapy, DPDK) into target/tools; installs nothing
    Fetch {
        /// The sets to bring; all but `dpdk` when none is named
        #[arg(value_enum)]
        sets: Vec<fetch::Set>,
    },
    /// Two guests on two hosts talk IPv4 and IPv6 through ILA; target/demo keeps the evidence
    Demo,
    /// Run tests
    Test {
        /// Run only end-to-end tests whose name contains one of these words
        filters: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Fetch { sets } => fetch::run(&sets),
        Chore::Demo => demo::run(),
        Chore::Test { filters } => e2e::run(&filters).map(drop),
    }
}
