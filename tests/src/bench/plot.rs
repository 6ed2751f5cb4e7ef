//! The plot: for each case a bar for each back-end, from nothing to the median, with a whisker from the least to the most.

use std::fmt::Write as _;

use super::case::Figure;
use super::figures::Spread;
use super::results::Results;

/// Pixels.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 15.0;
const GAP: f64 = 12.0;
const TITLE: f64 = 44.0;

/// `results.svg`: two panels, one below the other.
pub fn svg(results: &Results) -> String {
    let cycles = panel(results, Figure::Cycles, "busy cycles for each packet: fewer are better", 0.0);
    let mpps = panel(
        results,
        Figure::Mpps,
        "million packets a second, each case by itself: more are better",
        cycles.1,
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}{}</svg>\n",
        mpps.1 + GAP,
        cycles.0,
        mpps.0
    )
}

/// The elements of a figure's panel that begins `top` pixels down, and where it ends.
fn panel(results: &Results, figure: Figure, title: &str, top: f64) -> (String, f64) {
    let mut text = format!("<text x=\"10\" y=\"{:.0}\" font-size=\"15\">{title}</text>\n", top + 26.0);
    let mut y = top + TITLE;
    for measurement in &results.cases {
        let bars: Vec<(&str, bool, Spread)> = measurement
            .back_ends
            .iter()
            .filter_map(|back_end| {
                let spread = Spread::of(back_end.rounds.iter().map(|round| round.figure(figure)))?;
                Some((back_end.name.as_str(), back_end.peer.is_none(), spread))
            })
            .collect();
        // The cases' figures are of different sizes: each has a scale of its own.
        let most = bars.iter().map(|(_, _, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
        let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
        for (number, (name, ours, spread)) in bars.iter().enumerate() {
            if number == 0 {
                let _ = writeln!(text, "<text x=\"10\" y=\"{:.1}\">{}</text>", y + 12.0, measurement.case);
            }
            let colour = if *ours { "#2b6cb0" } else { "#a0aec0" };
            let middle = y + BAR / 2.0;
            let _ = writeln!(
                text,
                "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                LEFT - 6.0,
                y + 12.0
            );
            let width = x(spread.median) - LEFT;
            let _ = writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
            );
            let (least, most) = (x(spread.least), x(spread.most));
            let _ = writeln!(
                text,
                "<path d=\"M{least:.1} {middle:.1}H{most:.1}M{least:.1} {:.1}v8M{most:.1} {:.1}v8\" stroke=\"black\"/>",
                middle - 4.0,
                middle - 4.0
            );
            let digits = if figure == Figure::Cycles { 0 } else { 2 };
            let _ = writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\">{:.digits$}</text>",
                most + 6.0,
                y + 12.0,
                spread.median
            );
            y += BAR + 2.0;
        }
        y += GAP;
    }
    (text, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Measured;
    use crate::bench::results::{BackEnd, Measurement};

    #[test]
    fn every_back_end_has_a_bar_in_both_panels() {
        let measured = |cycles| Measured {
            cycles,
            per_poll: None,
            mpps: 2.0,
            bytes: 0.1,
            longest: None,
            updates: None,
            stolen: 0,
            waited: 0.0,
        };
        let back_end = |name: &str| BackEnd {
            name: name.into(),
            peer: None,
            rounds: [100.0, 200.0, 400.0].map(measured).to_vec(),
            latency: None,
        };
        let mut results = Results::default();
        results.put(Measurement {
            case: "v4-64".into(),
            command: String::new(),
            commit: String::new(),
            machine: String::new(),
            back_ends: vec![back_end("one"), back_end("two")],
        });
        let svg = svg(&results);
        assert_eq!(svg.matches("fill=\"#2b6cb0\"").count(), 4);
        // The median is half of the most, and so is its bar.
        assert!(svg.contains("width=\"280.0\""), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
