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
/// Pings of a round, and the seconds between two.
const PINGS: usize = 200;
const PAUSE: &str = "0.01";
/// A worker that does not sleep between two packets of a conversation.
const SPIN: &str = "50us";
/// Of a ping's time between two guests of one host, to that by the bridge.
const PING_REACH: f64 = 1.05;

/// What is measured on a way, by one who carries it.
type Measure<'a> = &'a mut dyn FnMut(&mut Stage, By) -> Result<f64>;

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
                let mut measure = |stage: &mut Stage, by| {
                    let target = stage.target(by, to, family)?;
                    transfer(stage, &format!("iperf3 -c {target} -t {SECONDS} -i 0 -J{reverse}"))
                };
                let name = format!("{place}, {spoken}, {direction}");
                ways.push(way(stage, rounds, (name, against, Some(1.0)), &mut measure)?);
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
            ways.push(way(stage, rounds, (name, against, reach), &mut |stage, by| {
                ping(stage, by, to, family)
            })?);
        }
    }
    stage.spin(SPIN)?;
    for (to, place, against) in PLACES {
        let name = format!("{place}, IPv4, spin {SPIN}");
        let mut measure = |stage: &mut Stage, by| ping(stage, by, to, Family::V4);
        ways.push(way(stage, rounds, (name, against, None), &mut measure)?);
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
    measure: Measure<'_>,
) -> Result<Way> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let order = if round % 2 == 0 { [By::Us, By::Linux] } else { [By::Linux, By::Us] };
        for by in order {
            let figure = measure(stage, by).with_context(|| format!("{name}, round {round}: {by:?}"))?;
            if by == By::Us { &mut ours } else { &mut theirs }.push(figure);
        }
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

/// The median of [`PINGS`], in milliseconds.
fn ping(stage: &mut Stage, by: By, to: To, family: Family) -> Result<f64> {
    let target = stage.target(by, to, family)?;
    // Whoever was silent meanwhile is looked for first.
    let command = format!(
        "ping -c 3 -i 0.05 {target} >/dev/null; ping -c {PINGS} -i {PAUSE} {target} | sed -n 's/.*time=\\([0-9.]*\\) ms/\\1/p' | tr '\\n' ' '; echo"
    );
    let said = stage.sender().run(&command)?;
    let times = said.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    ensure!(times.len() >= PINGS - 2, "{} of {PINGS} pings were answered", times.len());
    Ok(Spread::of(times).context("no times")?.median)
}
