//! Measurements, their medians, and ratios of rounds.

use serde::{Deserialize, Serialize};

use super::case::Figure;

/// What one back-end did in one round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Busy cycles of the back-end for each packet it took.
    pub cycles: f64,
    /// Packets it found when it found any.
    pub per_poll: Option<f64>,
    /// Million packets a second that came back to the front-end, both directions.
    pub mpps: f64,
    /// Gigabytes of frames a second in them.
    pub bytes: f64,
    /// Microseconds of the longest batch, where the back-end says so and kept its core, to a fifth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<f64>,
    /// Mappings that changed a second meanwhile, where any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<f64>,
    /// Ticks that the hypervisor took from the machine meanwhile.
    pub stolen: u64,
    /// Percent of the time in which either end waited while others had its core: both ends' added.
    pub waited: f64,
}

/// How long packets took at half load, by rounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Million packets a second that were sent.
    pub mpps: f64,
    /// Microseconds within which half of the packets arrived.
    pub median: Vec<f64>,
    /// Microseconds within which 99 of 100 packets arrived.
    pub p99: Vec<f64>,
    /// As [`Measured::waited`].
    pub waited: Vec<f64>,
}

impl Measured {
    /// One of its figures.
    pub fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Cycles => self.cycles,
            Figure::Mpps => self.mpps,
            Figure::Bytes => self.bytes,
            Figure::Longest => self.longest.unwrap_or(f64::NAN),
        }
    }
}

/// The middle of some values and their ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The median; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// The spread of `values`; nothing of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len() % 2 == 1 { upper } else { values[middle - 1] };
        Some(Spread { least: values[0], median: (lower + upper) / 2.0, most: *values.last()? })
    }

    /// The spread of the ratios of `ours` to `theirs`, round by round.
    pub fn of_ratios(ours: &[Measured], theirs: &[Measured], figure: Figure) -> Option<Spread> {
        Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours.figure(figure) / theirs.figure(figure)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mpps: f64) -> Measured {
        Measured {
            cycles: 1.0,
            per_poll: None,
            mpps,
            bytes: 0.0,
            longest: None,
            updates: None,
            stolen: 0,
            waited: 0.0,
        }
    }

    #[test]
    fn the_median_lies_in_the_middle_of_any_number() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { least: 1.0, median: 2.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { least: 1.0, median: 2.5, most: 4.0 }));
    }

    #[test]
    fn a_ratio_is_of_rounds_and_not_of_medians() {
        let ours = [1.0, 2.0, 30.0].map(measured);
        let theirs = [1.0, 4.0, 10.0].map(measured);
        let ratio = Spread::of_ratios(&ours, &theirs, Figure::Mpps).unwrap();
        assert!((ratio.median - 1.0).abs() < 1e-9, "{ratio:?}, where the medians' is 0.5");
    }
}
