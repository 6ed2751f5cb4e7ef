//! The reference network of the draft, and its thirteen scenarios with their replies. `cargo xtask scenarios` runs it.
//!
//! Nothing printed is a constant: addresses come from the captures of guests, tasks and the fabric; what they must be is said by
//! `tests/oracle/scenarios.py`, which shares nothing with the program under test. Any difference ends the run with a non-zero exit status
//! and the names of the scenarios that it is in.

#![forbid(unsafe_code)]

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use vhost_ila_tests::reference::table::Judgement;
use vhost_ila_tests::reference::{self, Reference};
use vhost_ila_tests::sandbox;
use vhost_ila_tests::site::Checksum;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => modes("neutral").and_then(|modes| run("scenarios", modes)),
        [name, word] => modes(word).and_then(|modes| run(name, modes)),
        // What an earlier run has kept is judged once more.
        [name, word, "again"] => modes(word).and_then(|modes| judge_again(name, modes)),
        _ => Err(anyhow::anyhow!("scenarios NAME neutral|unmodified|both [again]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("scenarios: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn modes(word: &str) -> Result<&'static [Checksum]> {
    Ok(match word {
        "neutral" => &[Checksum::Neutral],
        "unmodified" => &[Checksum::Unmodified],
        "both" => &[Checksum::Neutral, Checksum::Unmodified],
        other => bail!("a mode is one of neutral, unmodified, both; not {other}"),
    })
}

fn run(name: &str, modes: &[Checksum]) -> Result<()> {
    let start = Instant::now();
    let step = |what: &str| println!("[{:6.1} s] {what}", start.elapsed().as_secs_f32());
    let mut network = Reference::start(name, modes[0])?;
    step("five hosts with a daemon each, four guests with their addresses: all are up");
    let mut differing = Vec::new();
    for mode in modes {
        network.switch(*mode)?;
        let judgement = network.go_through(*mode)?;
        step(&format!("checksums {}: every scenario was gone through, and judged", mode.word()));
        differing.extend(show(&judgement, *mode, &network.site.evidence.join(mode.word())));
    }
    verdict(&differing)
}

fn judge_again(name: &str, modes: &[Checksum]) -> Result<()> {
    let mut differing = Vec::new();
    for mode in modes {
        let directory = sandbox::target()?.join(name).join(mode.word());
        differing.extend(show(&reference::judge(&directory)?, *mode, &directory));
    }
    verdict(&differing)
}

/// Prints the table, and returns the scenarios that differ.
fn show(judgement: &Judgement, mode: Checksum, directory: &Path) -> Vec<String> {
    println!("{}", judgement.table());
    println!(
        "captures: {}/fabric.pcapng, and NAME.pcap or NAME.pcapng of each endpoint",
        directory.display()
    );
    judgement.differing().iter().map(|scenario| format!("{scenario} ({})", mode.word())).collect()
}

fn verdict(differing: &[String]) -> Result<()> {
    ensure!(differing.is_empty(), "not as the script says: {}", differing.join(", "));
    println!("\nscenarios: passed");
    Ok(())
}
