//! Rounds of TCP and of pings.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::stage::{By, Family, Stage, To, has_vhost_net};
use super::{Between, Way};
use crate::bench::figures::Spread;
use crate::bench::machine;

/// Seconds of one iperf3.
const SECONDS: u32 = 2;
/// Bursts of a round, which the two carry in turns: the machine's own speed changes within seconds by more than they differ.
const BURSTS: usize = 10;
/// Pings of a burst.
const BURST: usize = 20;
/// Seconds between two pings of a burst.
const PAUSE: &str = "0.01";
/// A worker that does not sleep between two packets of a conversation.
const SPIN: &str = "50us";
/// Of a ping's time between two guests of one host, to that by the bridge.
const PING_REACH: f64 = 1.05;

/// One round of a way: what [`By::Us`] came to and what [`By::Linux`] did. It is told who goes first.
type Round<'a> = &'a mut dyn FnMut(&mut Stage, [By; 2]) -> Result<[f64; 2]>;

/// Measures `case`, one of [`super::CASES`], in so many rounds.
///
/// # Errors
///
/// Fails when something does not come up, or a guest's program does.
pub fn run(case: &str, rounds: usize, commit: &str) -> Result<Between> {
    let mut stage = Stage::start(&format!("bench/{case}"))?;
    let ways = if case == "ping" { pings(&mut stage, rounds)? } else { transfers(&mut stage, rounds)? };
    let accel = stage.accel;
    stage.end()?;
    Ok(Between {
        case: case.to_owned(),
        command: format!("cargo xtask bench {case} --rounds {rounds}"),
        commit: commit.to_owned(),
        machine: format!(
            "{}; guests: Debian's kernel 6.1, QEMU 10 ({accel:?}), taps served by {}",
            machine::facts(),
            if has_vhost_net() { "vhost-net" } else { "QEMU itself (there is no vhost-net)" }
        ),
        unit: if case == "ping" { "milliseconds" } else { "gigabits a second" }.to_owned(),
        ways,
    })
}

/// Every end, family and direction.
fn transfers(stage: &mut Stage, rounds: usize) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    for (to, place, against) in PLACES {
        for (family, spoken) in FAMILIES {
            for (direction, reverse) in [("there", ""), ("back", " -R")] {
                let mut both = |stage: &mut Stage, order: [By; 2]| {
                    let mut figures = [0.0; 2];
                    for by in order {
                        let target = stage.target(by, to, family)?;
                        let command = format!("iperf3 -c {target} -t {SECONDS} -i 0 -J{reverse}");
                        figures[by as usize] = transfer(stage, &command)?;
                    }
                    Ok(figures)
                };
                let name = format!("{place}, {spoken}, {direction}");
                ways.push(way(stage, rounds, (name, against, Some(1.0)), &mut both)?);
            }
        }
    }
    Ok(ways)
}

/// Every end and family with a worker that never spins, and one again with one that does.
fn pings(stage: &mut Stage, rounds: usize) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    for (to, place, against) in PLACES {
        for (family, spoken) in FAMILIES {
            let reach = (to == To::Neighbour).then_some(PING_REACH);
            let name = format!("{place}, {spoken}, spin 0 (the default)");
            let mut both = |stage: &mut Stage, order| pings_in_turns(stage, order, to, family);
            ways.push(way(stage, rounds, (name, against, reach), &mut both)?);
        }
    }
    stage.spin(SPIN)?;
    for (to, place, against) in PLACES {
        let name = format!("{place}, IPv4, spin {SPIN}");
        let mut both = |stage: &mut Stage, order| pings_in_turns(stage, order, to, Family::V4);
        ways.push(way(stage, rounds, (name, against, None), &mut both)?);
    }
    Ok(ways)
}

const PLACES: [(To, &str, &str); 2] =
    [(To::Neighbour, "one host", "tap and bridge"), (To::OtherHost, "two hosts", "tap, bridge and VXLAN")];
const FAMILIES: [(Family, &str); 2] = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];

/// The rounds of a way. Who goes first changes from round to round.
fn way(
    stage: &mut Stage,
    rounds: usize,
    (name, against, reach): (String, &str, Option<f64>),
    both: Round<'_>,
) -> Result<Way> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let order = if round % 2 == 0 { [By::Us, By::Linux] } else { [By::Linux, By::Us] };
        let [us, linux] = both(stage, order).with_context(|| format!("{name}, round {round}"))?;
        ours.push(us);
        theirs.push(linux);
    }
    let way = Way { name, against: against.to_owned(), reach, ours, theirs };
    let shown = |values: &[f64]| crate::bench::report::shown(Spread::of(values.iter().copied()), 3);
    println!(
        "  {:<40} ours {}, theirs {}, ratio {}",
        way.name,
        shown(&way.ours),
        shown(&way.theirs),
        crate::bench::report::shown(way.ratio(), 2)
    );
    Ok(way)
}

/// Gigabits a second that arrived.
fn transfer(stage: &mut Stage, command: &str) -> Result<f64> {
    let said = stage.sender().run_within(command, Duration::from_secs(30))?;
    let said: Value = serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("no speed in {said}"))? / 1e9)
}

/// The medians of all bursts of each, in milliseconds.
fn pings_in_turns(stage: &mut Stage, order: [By; 2], to: To, family: Family) -> Result<[f64; 2]> {
    let targets = order.map(|by| stage.target(by, to, family).map(|target| (by, target)));
    let mut times = [const { Vec::new() }; 2];
    let targets = targets.into_iter().collect::<Result<Vec<_>>>()?;
    for _ in 0..BURSTS {
        for (by, target) in &targets {
            times[*by as usize].extend(burst(stage, target).with_context(|| format!("{by:?}"))?);
        }
    }
    let [ours, theirs] = times.map(|times| Spread::of(times).map(|spread| spread.median));
    Ok([ours.context("no times")?, theirs.context("no times")?])
}

/// [`BURST`] pings behind one that wakes all who were idle; their times in milliseconds.
fn burst(stage: &mut Stage, target: &str) -> Result<Vec<f64>> {
    let command = format!(
        "ping -c {} -i {PAUSE} {target} | sed -n 's/.*time=\\([0-9.]*\\) ms/\\1/p' | tr '\\n' ' '; echo",
        BURST + 1
    );
    let said = stage.sender().run(&command)?;
    let times = said.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    ensure!(times.len() > BURST - 2, "{} of {} pings were answered", times.len(), BURST + 1);
    Ok(times.into_iter().skip(1).collect())
}
