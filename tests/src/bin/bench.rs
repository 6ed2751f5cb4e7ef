//! Rounds of measurements beside the peers. `cargo xtask bench` runs it, with hugepages, and says what it is to do as JSON.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use vhost_ila_tests::bench::backend::Who;
use vhost_ila_tests::bench::case::{CASES, Case, Peer};
use vhost_ila_tests::bench::figures::{Latency, Measured, Spread};
use vhost_ila_tests::bench::front::FrontEnd;
use vhost_ila_tests::bench::generator::Generator;
use vhost_ila_tests::bench::guests;
use vhost_ila_tests::bench::machine::{self, Disturbance};
use vhost_ila_tests::bench::report;
use vhost_ila_tests::bench::results::{BackEnd, Measurement, Results};
use vhost_ila_tests::sandbox;
use vhost_ila_tests::testpmd::Pages;

/// Between the start of traffic and of measuring.
const SETTLE: Duration = Duration::from_secs(1);

/// Percent of a measurement's time that may be others'.
const DISTURBED: f64 = 1.0;

/// Where testpmd's packets lie as a back-end.
const PAGES: Pages = Pages::Huge(256);

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
    latency: bool,
    /// How often a disturbed measurement is made again.
    again: usize,
    /// Where results are kept, if they are.
    record: Option<PathBuf>,
    commit: String,
}

fn main() -> Result<()> {
    sandbox::entered()?;
    let plan = env::args().nth(1).context("run it by cargo xtask bench")?;
    let plan: Plan = serde_json::from_str(&plan)?;
    let evidence = sandbox::evidence("bench")?;
    println!("{}", machine::facts());
    let mut failed = Vec::new();
    for case in chosen(&plan.cases)? {
        // What the other cases came to is worth having.
        if let Err(error) = measured(case, &plan, &evidence) {
            println!("  {error:#}");
            failed.push(case.name());
        }
    }
    println!("{}", evidence.display());
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// A case of either kind.
#[derive(Clone, Copy)]
enum Chosen {
    /// Rings of a front-end.
    Rings(&'static Case),
    /// Guests.
    Guests(&'static str),
}

impl Chosen {
    fn name(self) -> &'static str {
        match self {
            Chosen::Rings(case) => case.name,
            Chosen::Guests(name) => name,
        }
    }
}

fn chosen(names: &[String]) -> Result<Vec<Chosen>> {
    let all: Vec<Chosen> = CASES.iter().map(Chosen::Rings).chain(guests::CASES.map(Chosen::Guests)).collect();
    if names.is_empty() {
        return Ok(all);
    }
    let known = || all.iter().map(|case| case.name()).collect::<Vec<_>>().join(", ");
    let named = |name: &String| {
        let case = all.iter().find(|case| case.name() == name);
        case.copied().with_context(|| format!("no case {name}; there are {}", known()))
    };
    names.iter().map(named).collect()
}

/// Measures a case, and keeps what came of it.
fn measured(case: Chosen, plan: &Plan, evidence: &Path) -> Result<()> {
    match case {
        Chosen::Rings(case) => {
            println!("{}: {}", case.name, case.title);
            let measurement = run(case, plan, evidence)?;
            keep(plan, evidence, |results| results.put(measurement.clone()))
        }
        Chosen::Guests(name) => {
            println!("{name}: between guests");
            let between = guests::run(name, plan.rounds, &plan.commit)?;
            keep(plan, evidence, |results| results.put_guests(between.clone()))
        }
    }
}

/// The rounds of a case.
fn run(case: &'static Case, plan: &Plan, evidence: &Path) -> Result<Measurement> {
    let mut back_ends: Vec<(Who, BackEnd)> =
        who(case, plan)?.into_iter().map(|who| (who.clone(), fresh(&who))).collect();
    for round in 1..=plan.rounds {
        for (who, back_end) in &mut back_ends {
            let place = place(evidence, case, &back_end.name, round)?;
            let once = || throughput(who.case(case), who, plan.seconds, &place);
            let measured = undisturbed(plan.again, once, |measured| measured.waited);
            let measured = measured.with_context(|| format!("round {round}: {}", back_end.name))?;
            println!("  {round} {:<10} {}", back_end.name, line(&measured));
            back_end.rounds.push(measured);
        }
    }
    if plan.latency && case.is_timed() {
        latencies(case, plan, &mut back_ends, evidence)?;
    }
    let measurement = Measurement {
        case: case.name.into(),
        command: format!(
            "cargo xtask bench {} --rounds {} --seconds {}{}{}",
            case.name,
            plan.rounds,
            plan.seconds,
            if plan.latency { " --latency" } else { "" },
            if plan.again > 0 { format!(" --again {}", plan.again) } else { String::new() }
        ),
        commit: plan.commit.clone(),
        machine: machine::facts(),
        back_ends: back_ends.into_iter().map(|(_, back_end)| back_end).collect(),
    };
    print!("{}", report::summary(&measurement));
    Ok(measurement)
}

/// Rounds at half of what the slowest carries.
fn latencies(case: &Case, plan: &Plan, back_ends: &mut [(Who, BackEnd)], evidence: &Path) -> Result<()> {
    let medians = back_ends
        .iter()
        .filter_map(|(_, back_end)| Spread::of(back_end.rounds.iter().map(|round| round.mpps)));
    let half = medians.map(|spread| spread.median).fold(f64::INFINITY, f64::min) / 2.0;
    for round in 1..=plan.rounds {
        for (who, back_end) in &mut *back_ends {
            let place = place(evidence, case, &format!("{}-latency", back_end.name), round)?;
            let once = || latency(case, who, half, plan.seconds, &place);
            let ([median, p99], arrived, waited) = undisturbed(plan.again, once, |measured| measured.2)
                .with_context(|| format!("latency, round {round}: {}", back_end.name))?;
            let arrived = arrived / 1e6;
            println!(
                "  {round} {:<10} median {median:.2} us, p99 {p99:.2} us; {half:.2} Mpps sent, {arrived:.2} arrived, {waited:.1} % waited",
                back_end.name
            );
            let latency =
                back_end.latency.get_or_insert_with(|| Latency { mpps: half, ..Latency::default() });
            latency.median.push(median);
            latency.p99.push(p99);
            latency.waited.push(waited);
        }
    }
    Ok(())
}

/// This program first, then its other builds, then the peers.
fn who(case: &Case, plan: &Plan) -> Result<Vec<Who>> {
    let mut who = vec![Who::Ours("vhost-ila".into(), who_is_ours()?)];
    for (number, also) in (1..).zip(&plan.also) {
        ensure!(also.is_file(), "{} is no program", also.display());
        who.push(Who::Ours(format!("also {number}"), also.clone()));
    }
    if case.without.is_some() {
        who.push(Who::Without(who_is_ours()?));
    }
    let wanted =
        |peer: &Peer| *peer != Peer::Without && (plan.against.is_empty() || plan.against.contains(peer));
    who.extend(case.peers().into_iter().filter(wanted).map(Who::Peer));
    Ok(who)
}

/// The build that is measured.
fn who_is_ours() -> Result<PathBuf> {
    Ok(PathBuf::from(env::var_os("VHOST_ILA_BINARY").context("run it by cargo xtask bench")?))
}

fn fresh(who: &Who) -> BackEnd {
    let peer = match who {
        Who::Ours(..) => None,
        Who::Without(_) => Some(Peer::Without),
        Who::Peer(peer) => Some(*peer),
    };
    BackEnd { name: who.name(), peer, rounds: Vec::new(), latency: None }
}

fn place(evidence: &Path, case: &Case, name: &str, round: usize) -> Result<PathBuf> {
    let place = evidence.join(format!("{}-{}-{round}", case.name, name.replace(' ', "-")));
    fs::create_dir_all(&place)?;
    Ok(place)
}

/// What comes of measuring `once`; again, at most `again` times, as long as others had a core for more than [`DISTURBED`] percent of the
/// time, and then the least disturbed. What was measured has no say in that.
fn undisturbed<T>(
    again: usize,
    mut once: impl FnMut() -> Result<T>,
    waited: impl Fn(&T) -> f64,
) -> Result<T> {
    let mut best = once()?;
    for _ in 0..again {
        if waited(&best) <= DISTURBED {
            break;
        }
        println!("    again: {:.1} % waited", waited(&best));
        let other = once()?;
        if waited(&other) < waited(&best) {
            best = other;
        }
    }
    Ok(best)
}

/// One back-end, once, as fast as it goes.
fn throughput(case: &'static Case, who: &Who, seconds: f64, evidence: &Path) -> Result<Measured> {
    let mut back_end = who.start(case, PAGES, evidence)?;
    let mut front_end = FrontEnd::start(case, back_end.sockets(), evidence)?;
    front_end.wait_until_it_flows()?;
    sleep(SETTLE);
    let disturbance = Disturbance::begin([back_end.id(), front_end.id()])?;
    front_end.begin()?;
    back_end.begin()?;
    sleep(Duration::from_secs_f64(seconds));
    let (mpps, bytes) = front_end.end(who.arrives_as(case))?;
    let worked = back_end.end()?;
    let (stolen, waited) = disturbance.end()?;
    let per_poll = worked.per_poll.map_or_else(|| back_end.bursts(), |per_poll| Ok(Some(per_poll)))?;
    front_end.finish()?;
    let (longest, updates) = (worked.longest, worked.updates);
    Ok(Measured { cycles: worked.cycles, per_poll, mpps, bytes, longest, updates, stolen, waited })
}

/// One back-end, once, at `mpps`: median and 99th percentile in microseconds, how many arrived a second, and percent waited.
fn latency(case: &Case, who: &Who, mpps: f64, seconds: f64, evidence: &Path) -> Result<([f64; 2], f64, f64)> {
    let back_end = who.start(case, PAGES, evidence)?;
    let mut generator = Generator::start(case, back_end.sockets(), true)?;
    // Everything is learned and warm before.
    sleep(SETTLE / 2);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
    generator.send_at((mpps * 1e6) as u64);
    sleep(SETTLE / 2);
    let disturbance = Disturbance::begin([back_end.id(), std::process::id()])?;
    let (micros, arrived) = generator.latency_in(Duration::from_secs_f64(seconds))?;
    let (_, waited) = disturbance.end()?;
    generator.finish()?;
    Ok((micros, arrived, waited))
}

/// Beside the logs always, and where results are kept if they shall be.
fn keep(plan: &Plan, evidence: &Path, put: impl Fn(&mut Results)) -> Result<()> {
    for directory in [Some(evidence), plan.record.as_deref()].into_iter().flatten() {
        let mut results = Results::read(&directory.join("results.json"))?;
        put(&mut results);
        results.write(directory)?;
    }
    Ok(())
}

fn line(measured: &Measured) -> String {
    let per_poll =
        measured.per_poll.map_or(String::new(), |per_poll| format!(", {per_poll:.1} packets a poll"));
    let longest =
        measured.longest.map_or(String::new(), |micros| format!(", {micros:.1} us the longest batch"));
    let updates = measured.updates.map_or(String::new(), |rate| format!(", {rate:.0} updates a second"));
    format!(
        "{:.1} cycles/packet, {:.2} Mpps, {:.2} GB/s{per_poll}{longest}{updates}, {} ticks stolen, {:.1} % waited",
        measured.cycles, measured.mpps, measured.bytes, measured.stolen, measured.waited
    )
}
