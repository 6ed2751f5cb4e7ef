//! The tables: ratios and what they shall be, then each back-end's figures.

use std::fmt::Write as _;

use super::case::{CASES, Figure, Peer, Row};
use super::figures::Spread;
use super::results::{BackEnd, Measurement, Results};

const HEAD: &str = "# Beside DPDK and Open vSwitch

Written by `cargo xtask bench`; what was measured is in [results.json](results.json), and [results.svg](results.svg) shows it. One back-end at a
time works on core 0, a front-end on core 1; the rounds of all of a case are interleaved. A ratio is the median of the rounds' own ratios, with the
least and the most. Cycles are those of turns that moved packets, by the back-end's own count (`show counters --json`, testpmd
`--record-core-cycles`, OVS `pmd-stats-show`), so that idle polling costs nothing. Packets a second are those that arrived at the front-end. The latency is
the 99th percentile at half the rate that the slowest of the case carries, the same rate for all; a row of cycles counts only where it is no worse than the
peer's. How a case is made up: [README](README.md).

![cycles for each packet, and packets a second](results.svg)
";

/// `results.md`.
pub fn markdown(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    let machines: Vec<&str> = results.cases.iter().map(|one| one.machine.as_str()).collect();
    if let Some(machine) = machines.first() {
        let _ = writeln!(text, "\nThe machine: {machine}.");
    }
    text += "\n## What was to be reached\n\n";
    text += "| case | against | figure | ratio (least .. most) | reach | stretch | p99 at half load: ours, theirs | |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    for measurement in &results.cases {
        let Some(case) = measurement.case() else { continue };
        for row in case.rows {
            text += &line(measurement, row);
        }
    }
    let missing: Vec<&str> = CASES
        .iter()
        .map(|case| case.name)
        .filter(|name| results.cases.iter().all(|one| one.case != *name))
        .collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "\nNot measured yet: {}.", missing.join(", "));
    }
    text += "\n## What each did\n";
    results.cases.iter().for_each(|measurement| text += &each(measurement));
    if !results.guests.is_empty() {
        text += "\n## Between guests, beside Linux's bridge and VXLAN\n";
        results.guests.iter().for_each(|between| text += &between.markdown());
    }
    text
}

/// A row of the first table; nothing where the peer was not measured.
fn line(measurement: &Measurement, row: &Row) -> String {
    let (Some(ours), Some(theirs)) = (measurement.ours(), measurement.of(row.against)) else {
        return String::new();
    };
    let Some(ratio) = Spread::of_ratios(&ours.rounds, &theirs.rounds, row.figure) else {
        return String::new();
    };
    let (sign, figure) = match row.figure {
        Figure::Cycles => ("<=", "cycles"),
        Figure::Mpps => (">=", "Mpps"),
        Figure::Bytes => (">=", "bytes/s"),
        Figure::Longest => ("<=", "longest batch"),
    };
    let within =
        |limit: f64| if row.figure.is_cost() { ratio.median <= limit } else { ratio.median >= limit };
    let latencies = [p99(ours), p99(theirs)];
    let (timed, verdict) = match (row.figure, latencies) {
        // Nobody else's latency to be compared with.
        _ if row.against == Peer::Without => (String::new(), ""),
        (Figure::Cycles, [Some(ours), Some(theirs)]) => {
            let latency = if ours.median <= theirs.median { "" } else { ", but slower" };
            (format!("{:.1} us, {:.1} us", ours.median, theirs.median), latency)
        }
        (Figure::Cycles, _) => ("not measured".to_owned(), ", latency open"),
        _ => (String::new(), ""),
    };
    let verdict = match (within(row.reach), within(row.stretch)) {
        (_, true) => format!("stretch{verdict}"),
        (true, _) => format!("reached{verdict}"),
        _ => "missed".to_owned(),
    };
    format!(
        "| {} | {} | {figure} | **{:.2}** ({:.2} .. {:.2}) | {sign} {:.2} | {:.2} | {timed} | {verdict} |\n",
        measurement.case, theirs.name, ratio.median, ratio.least, ratio.most, row.reach, row.stretch
    )
}

/// A case's own table.
fn each(measurement: &Measurement) -> String {
    let title = measurement.case().map_or("", |case| case.title);
    let mut text = format!(
        "\n### {}\n\n{title}. `{}`, commit {}.\n\n| back-end | cycles/packet | packets/poll | Mpps | GB/s | p99, us | longest batch, us | updates/s | rounds | stolen | waited, % |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        measurement.case, measurement.command, measurement.commit
    );
    for back_end in &measurement.back_ends {
        let of = |figure, digits| {
            let spread = Spread::of(back_end.rounds.iter().map(|round| round.figure(figure)));
            shown(spread, digits)
        };
        let per_poll = shown(Spread::of(back_end.rounds.iter().filter_map(|round| round.per_poll)), 1);
        let longest = shown(Spread::of(back_end.rounds.iter().filter_map(|round| round.longest)), 1);
        let updates = shown(Spread::of(back_end.rounds.iter().filter_map(|round| round.updates)), 0);
        let stolen: u64 = back_end.rounds.iter().map(|round| round.stolen).sum();
        let waited = shown(Spread::of(back_end.rounds.iter().map(|round| round.waited)), 1);
        let latency = match (&back_end.latency, p99(back_end)) {
            (Some(latency), spread @ Some(_)) => format!("{} at {:.2} Mpps", shown(spread, 1), latency.mpps),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {per_poll} | {} | {} | {latency} | {longest} | {updates} | {} | {stolen} | {waited} |",
            back_end.name,
            of(Figure::Cycles, 0),
            of(Figure::Mpps, 2),
            of(Figure::Bytes, 2),
            back_end.rounds.len()
        );
    }
    text
}

/// A spread in a table, or on a terminal.
pub fn shown(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread { least, median, most }) = spread else { return String::new() };
    format!("{median:.digits$} ({least:.digits$} .. {most:.digits$})")
}

/// The spread of a back-end's latencies in microseconds.
pub(super) fn p99(back_end: &BackEnd) -> Option<Spread> {
    Spread::of(back_end.latency.iter().flat_map(|latency| latency.p99.iter().copied()))
}

/// What a terminal is told of a case.
pub fn summary(measurement: &Measurement) -> String {
    let mut text = String::new();
    for back_end in &measurement.back_ends {
        let of = |figure, digits| {
            shown(Spread::of(back_end.rounds.iter().map(|round| round.figure(figure))), digits)
        };
        let (cycles, mpps, bytes) = (of(Figure::Cycles, 1), of(Figure::Mpps, 2), of(Figure::Bytes, 2));
        let _ = write!(text, "  {:<10} {cycles} cycles/packet, {mpps} Mpps, {bytes} GB/s", back_end.name);
        let latency =
            p99(back_end).map_or(String::new(), |spread| format!(", p99 {} us", shown(Some(spread), 1)));
        let _ = writeln!(text, "{latency}");
    }
    let Some((ours, others)) = measurement.back_ends.split_first() else { return text };
    for other in others {
        let longest = Spread::of_ratios(&ours.rounds, &other.rounds, Figure::Longest);
        let longest = longest.filter(|spread| spread.median.is_finite());
        let longest =
            longest.map_or(String::new(), |spread| format!(", longest batch {}", shown(Some(spread), 2)));
        let of = |figure| shown(Spread::of_ratios(&ours.rounds, &other.rounds, figure), 2);
        let (cycles, mpps) = (of(Figure::Cycles), of(Figure::Mpps));
        let _ = writeln!(text, "  {} / {}: cycles {cycles}, Mpps {mpps}{longest}", ours.name, other.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{Latency, Measured};

    fn back_end(name: &str, peer: Option<Peer>, cycles: f64, p99: f64) -> BackEnd {
        let measured = Measured {
            cycles,
            per_poll: Some(32.0),
            mpps: 5.0,
            bytes: 0.3,
            longest: None,
            updates: None,
            stolen: 1,
            waited: 0.0,
        };
        let latency =
            Latency { mpps: 2.5, median: vec![p99 / 2.0; 3], p99: vec![p99; 3], waited: vec![0.0; 3] };
        BackEnd { name: name.into(), peer, rounds: vec![measured; 3], latency: Some(latency) }
    }

    fn results(cycles: f64, p99: f64) -> Results {
        let back_ends = vec![
            back_end("vhost-ila", None, cycles, p99),
            back_end("testpmd", Some(Peer::Testpmd), 200.0, 20.0),
        ];
        let mut results = Results::default();
        results.put(Measurement {
            case: "v4-64".into(),
            command: "cargo xtask bench v4-64".into(),
            commit: "0123456".into(),
            machine: "a machine".into(),
            back_ends,
        });
        results
    }

    #[test]
    fn a_row_of_cycles_counts_only_with_the_latency() {
        let cycles = |cycles, p99| {
            let text = markdown(&results(cycles, p99));
            text.lines().find(|line| line.starts_with("| v4-64 | testpmd | cycles")).unwrap().to_owned()
        };
        assert!(cycles(130.0, 19.0).ends_with("| reached |"), "{}", cycles(130.0, 19.0));
        assert!(cycles(100.0, 19.0).ends_with("| stretch |"));
        assert!(cycles(150.0, 19.0).ends_with("| missed |"));
        assert!(cycles(130.0, 21.0).ends_with("| reached, but slower |"));
    }

    #[test]
    fn a_peer_that_was_not_measured_has_no_row() {
        assert!(!markdown(&results(1.0, 1.0)).contains("OVS-DPDK |"));
    }

    #[test]
    fn a_case_measured_again_takes_its_place() {
        let mut all = results(130.0, 1.0);
        all.put(results(140.0, 1.0).cases.remove(0));
        assert_eq!(all.cases.len(), 1);
        assert!((all.cases[0].back_ends[0].rounds[0].cycles - 140.0).abs() < 1e-9);
    }
}
