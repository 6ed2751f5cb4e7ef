//! Developer chores: everything that is not the product and would otherwise be a shell script that grew.
//!
//! ```text
//! cargo xtask fetch [SET...]   unpack Debian packages into target/tools, installing nothing
//! cargo xtask demo             two guests on two hosts talk through ILA; target/demo has the evidence
//! cargo xtask scenarios        the draft's reference network: thirteen scenarios and their replies, judged by a script of its own
//! cargo xtask test [FILTER]    format, lints, unit tests, fuzz smoke, end to end
//! cargo xtask lint             the rules that neither rustc nor clippy knows
//! cargo xtask fuzz [TARGET]    some seconds of each fuzz target, on stable
//! cargo xtask sanitize         the device's tests and fuzz targets under AddressSanitizer
//! cargo xtask bench [CASE]     cycles per packet, packets a second and latency beside DPDK and Open vSwitch
//! cargo xtask instructions     instructions of a packet: translated, walked, and from ring to ring
//! cargo xtask bare             the README's commands in a bare Debian
//! cargo xtask sandbox bash     a shell where the tests run
//! ```
//!
//! What must stay true: no command installs a package, starts a service, or leaves a namespace, a mount or a changed
//! sysctl behind; all that is written lies under cargo's target directory.

mod bare;
mod bench;
mod build;
mod demo;
mod e2e;
mod fetch;
mod fuzz;
mod instructions;
mod lanes;
mod lint;
mod reference;
mod sandbox;
mod sanitize;
mod scenarios;
mod scoreboard;
mod test;
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
        /// The sets to bring; all but `dpdk` and `bare` when none is named
        #[arg(value_enum)]
        sets: Vec<fetch::Set>,
    },
    /// Two guests on two hosts talk IPv4 and IPv6 through ILA; target/demo keeps the evidence
    Demo,
    /// The draft's reference network: thirteen scenarios and their replies, judged by a script of its own; target/scenarios
    /// keeps the captures
    Scenarios {
        /// How checksums stay right on the wire
        #[arg(long, value_enum, default_value = "neutral")]
        checksum: scenarios::Checksum,
        /// Judge the captures of the last run again, and run nothing
        #[arg(long)]
        again: bool,
    },
    /// Everything that can fail: format, clippy, lint, cargo test, 30 s of each fuzz target, end to end
    Test {
        /// Run only end-to-end tests and fuzz targets whose name contains one of these words
        filters: Vec<String>,
        /// The checks of docs/hostile.md at full scale, soaks, ten minutes a fuzz target: hours
        #[arg(long)]
        long: bool,
        /// Where fuzzing and the checks' random numbers start
        #[arg(long, default_value_t = 1)]
        seed: u32,
        /// Write what the checks came to into docs/hostile.md
        #[arg(long)]
        record: bool,
    },
    /// The README's two commands in a Debian 12 that has nothing but Rust and build-essential; needs root
    Bare,
    /// Cycles per packet and packets a second beside the peers, under the same front-end; needs root, for hugepages
    Bench(bench::Plan),
    /// Instructions of a packet, counted by callgrind: translated, walked, and from ring to ring
    Instructions,
    /// Run a program (`bash`) where the demo and the tests run: own network, mounts and processes
    Sandbox {
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true)]
        program: Vec<std::path::PathBuf>,
    },
    /// The rules that neither rustc nor clippy knows
    Lint,
    /// The device's tests and fuzz targets under AddressSanitizer
    Sanitize {
        /// How long each target runs
        #[arg(long, default_value_t = 30)]
        seconds: u32,
        /// Where fuzzing starts
        #[arg(long, default_value_t = 1)]
        seed: u32,
    },
    /// Run the fuzz targets whose name contains one of these words, or all
    Fuzz {
        /// Words
        targets: Vec<String>,
        /// How long each runs
        #[arg(long, default_value_t = 30)]
        seconds: u32,
        /// Where fuzzing starts
        #[arg(long, default_value_t = 1)]
        seed: u32,
    },
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Fetch { sets } => fetch::run(&sets),
        Chore::Demo => demo::run(),
        Chore::Scenarios { checksum, again } => scenarios::run(checksum, again),
        Chore::Test { filters, long, seed, record } => test::run(&filters, e2e::Scale { long, seed }, record),
        Chore::Bare => bare::command(),
        Chore::Sanitize { seconds, seed } => sanitize::run(seconds, seed),
        Chore::Bench(plan) => bench::command(plan),
        Chore::Sandbox { program } => sandbox::run(&program),
        Chore::Instructions => instructions::run(),
        Chore::Lint => lint::command(),
        Chore::Fuzz { targets, seconds, seed } => {
            let ran = fuzz::run(&targets, fuzz::Length::Seconds(seconds), seed)?;
            let findings = ran.iter().filter(|ran| !ran.survived).count();
            anyhow::ensure!(findings == 0, "{findings} targets found something");
            Ok(())
        }
    }
}
