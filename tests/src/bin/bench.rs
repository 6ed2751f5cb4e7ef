//! Rounds of measurements beside the peers. `cargo xtask bench` runs it, with hugepages, and says what it is to do as JSON.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use vhost_ila_tests::bench::backend::Who;
use vhost_ila_tests::bench::case::{CASES, Case, Figure, Peer};
use vhost_ila_tests::bench::figures::{Measured, Spread};
use vhost_ila_tests::bench::front::{Swap, measured};
use vhost_ila_tests::bench::machine;
use vhost_ila_tests::sandbox;

/// Between the start of traffic and of measuring.
const SETTLE: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Deserialize)]
struct Plan {
    /// Names of cases; none means all.
    cases: Vec<String>,
    rounds: usize,
    seconds: f64,
    /// Which peers; none means all that a case names.
    against: Vec<Peer>,
    /// Other builds of this program.
    also: Vec<PathBuf>,
}

fn main() -> Result<()> {
    sandbox::entered()?;
    let plan = env::args().nth(1).context("run it by cargo xtask bench")?;
    let plan: Plan = serde_json::from_str(&plan)?;
    let evidence = sandbox::evidence("bench")?;
    println!("{}", machine::facts());
    for case in chosen(&plan.cases)? {
        run(case, &plan, &evidence).with_context(|| format!("case {}", case.name))?;
    }
    println!("{}", evidence.display());
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let known = || CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| Case::named(name).with_context(|| format!("no case {name}; there are {}", known())))
        .collect()
}

/// The rounds of a case.
fn run(case: &Case, plan: &Plan, evidence: &Path) -> Result<()> {
    println!("{}: {}", case.name, case.title);
    let who = who(case, plan)?;
    let mut rounds: Vec<Vec<Measured>> = vec![Vec::new(); who.len()];
    for round in 1..=plan.rounds {
        for (who, measured) in who.iter().zip(&mut rounds) {
            let name = who.name();
            let place = evidence.join(format!("{}-{}-{round}", case.name, name.replace('/', "_")));
            fs::create_dir_all(&place)?;
            let figures =
                measure(case, who, plan.seconds, &place).with_context(|| format!("round {round}: {name}"))?;
            println!("  {round} {name:<12} {}", line(&figures));
            measured.push(figures);
        }
    }
    for (who, measured) in who.iter().zip(&rounds) {
        let spread = |figure| Spread::of(measured.iter().map(|measured| measured.figure(figure)));
        let of = |figure| spread(figure).map_or(String::new(), |spread| shown(&spread));
        println!(
            "  {:<14} {} cycles/packet, {} Mpps, {} GB/s",
            who.name(),
            of(Figure::Cycles),
            of(Figure::Mpps),
            of(Figure::Bytes)
        );
    }
    let (first, others) = who
        .iter()
        .zip(&rounds)
        .collect::<Vec<_>>()
        .split_first()
        .map(|(first, others)| (*first, others.to_vec()))
        .context("nobody")?;
    for (other, measured) in others {
        let ratio = |figure| {
            Spread::of_ratios(first.1, measured, figure).map_or(String::new(), |spread| shown(&spread))
        };
        println!(
            "  {} / {}: cycles {}, Mpps {}",
            first.0.name(),
            other.name(),
            ratio(Figure::Cycles),
            ratio(Figure::Mpps)
        );
    }
    Ok(())
}

/// This program first, then its other builds, then the peers.
fn who(case: &Case, plan: &Plan) -> Result<Vec<Who>> {
    let ours = PathBuf::from(env::var_os("VHOST_ILA_BINARY").context("run it by cargo xtask bench")?);
    let mut who = vec![Who::Ours("vhost-ila".into(), ours)];
    for (number, also) in (1..).zip(&plan.also) {
        ensure!(also.is_file(), "{} is no program", also.display());
        who.push(Who::Ours(format!("also {number}"), also.clone()));
    }
    let wanted = |peer: &Peer| plan.against.is_empty() || plan.against.contains(peer);
    who.extend(case.peers().into_iter().filter(wanted).map(Who::Peer));
    Ok(who)
}

/// One back-end, once.
fn measure(case: &Case, who: &Who, seconds: f64, evidence: &Path) -> Result<Measured> {
    let mut back_end = who.start(case, evidence)?;
    let mut front_end = Swap::start(case, back_end.sockets(), evidence)?;
    sleep(SETTLE);
    let stolen = machine::stolen()?;
    front_end.begin()?;
    back_end.begin()?;
    sleep(Duration::from_secs_f64(seconds));
    let delivered = front_end.end()?;
    let worked = back_end.end()?;
    let stolen = machine::stolen()? - stolen;
    let per_poll = worked.per_poll.map_or_else(|| back_end.bursts(), |per_poll| Ok(Some(per_poll)))?;
    front_end.finish()?;
    Ok(measured(delivered, worked.cycles, per_poll, stolen))
}

fn line(measured: &Measured) -> String {
    let per_poll =
        measured.per_poll.map_or(String::new(), |per_poll| format!(", {per_poll:.1} packets a poll"));
    format!(
        "{:.1} cycles/packet, {:.2} Mpps, {:.2} GB/s{per_poll}, {} ticks stolen",
        measured.cycles, measured.mpps, measured.bytes, measured.stolen
    )
}

fn shown(spread: &Spread) -> String {
    format!("{:.2} ({:.2} .. {:.2})", spread.median, spread.least, spread.most)
}
