//! What guests have of it: the speed of TCP and the time of a ping between machines, by this program and by Linux's own bridge and VXLAN.
//!
//! ```text
//!   hv1 ┌ vm1 eth0 ── vhost-ila ── eth0 vm3 ┐    fabric    hv2 ┌ vhost-ila ── eth0 vm2 ┐
//!       └     eth1 ── tap br0 tap ── eth1   ┘ ── veths ──      └ br0 tap ──── eth1     ┘
//!                     TUN ila0 | vxlan0 (the way out)
//! ```
//!
//! What must stay true: both ways are the same machines, kernels, cards (virtio-net, whose offloads are all on) and links of the fabric,
//! at the same time, but one is used at a time; every figure is of the guests' own programs, Debian's iperf3 and busybox's ping.

mod measure;
mod stage;

use serde::{Deserialize, Serialize};

use super::figures::Spread;

pub use measure::run;

/// The cases' names.
pub const CASES: [&str; 2] = ["tcp", "ping"];

/// One case's rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Between {
    /// One of [`CASES`].
    pub case: String,
    /// What was run.
    pub command: String,
    /// The commit of this program.
    pub commit: String,
    /// Processor and kernel, and how guests ran.
    pub machine: String,
    /// What the figures are.
    pub unit: String,
    /// From where to where.
    pub ways: Vec<Way>,
}

/// One way from a machine to another, with the figures of each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Way {
    /// For people.
    pub name: String,
    /// With what it is compared.
    pub against: String,
    /// What is to be reached: at least this ratio for speeds, at most for times. Nothing where nothing was asked.
    pub reach: Option<f64>,
    /// Of this program.
    pub ours: Vec<f64>,
    /// Of the other, the same round at the same place.
    pub theirs: Vec<f64>,
}

impl Way {
    /// The spread of the ratios, round by round.
    pub fn ratio(&self) -> Option<Spread> {
        Spread::of(self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs))
    }
}

impl Between {
    /// Whether a small figure is a good one.
    fn is_time(&self) -> bool {
        self.case == "ping"
    }

    /// Its table.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "\n### {}\n\n{} Figures are {}. `{}`, commit {}; {}.\n\n| way | vhost-ila | Linux | | ratio (least .. most) | reach | |\n|---|---|---|---|---|---|---|\n",
            self.case,
            self.title(),
            self.unit,
            self.command,
            self.commit,
            self.machine
        );
        for way in &self.ways {
            text += &self.line(way);
        }
        text
    }

    fn title(&self) -> &'static str {
        if self.is_time() {
            "Between two guests, median of 200 pings a round, in bursts of 20 that the two carry in turns; what `spin` says keeps the worker from sleeping so long."
        } else {
            "One connection between two guests, iperf3 for two seconds a round, each way."
        }
    }

    fn line(&self, way: &Way) -> String {
        let shown = |values: &[f64]| super::report::shown(Spread::of(values.iter().copied()), 2);
        let Some(ratio) = way.ratio() else { return String::new() };
        let (reach, verdict) = match way.reach {
            None => (String::new(), ""),
            Some(reach) => {
                let (sign, reached) = if self.is_time() {
                    ("<=", ratio.median <= reach)
                } else {
                    (">=", ratio.median >= reach)
                };
                (format!("{sign} {reach:.2}"), if reached { "reached" } else { "missed" })
            }
        };
        format!(
            "| {} | {} | {} | {} | **{:.2}** ({:.2} .. {:.2}) | {reach} | {verdict} |\n",
            way.name,
            shown(&way.ours),
            shown(&way.theirs),
            way.against,
            ratio.median,
            ratio.least,
            ratio.most
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_to_be_higher_and_times_lower() {
        let way = |ours: f64| Way {
            name: "there".into(),
            against: "bridge".into(),
            reach: Some(1.0),
            ours: vec![ours; 3],
            theirs: vec![2.0; 3],
        };
        let verdict = |case: &str, ours| {
            let [command, commit, machine, unit] = [const { String::new() }; 4];
            let between =
                Between { case: case.into(), command, commit, machine, unit, ways: vec![way(ours)] };
            between.markdown().trim_end().rsplit('|').nth(1).unwrap().trim().to_owned()
        };
        assert_eq!([verdict("tcp", 3.0), verdict("tcp", 1.0)], ["reached", "missed"]);
        assert_eq!([verdict("ping", 3.0), verdict("ping", 1.0)], ["missed", "reached"]);
    }
}
