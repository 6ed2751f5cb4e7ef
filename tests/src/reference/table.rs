//! What the script found, and the table of it. Every address in it was read from a capture.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::scenario::SCENARIOS;

/// How many differences of a row are printed.
const SHOWN: usize = 4;

/// The judgement of one run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Judgement {
    /// The scenarios and replies that were run, in the draft's order.
    pub rows: Vec<Row>,
    /// What was captured and belongs to none of them.
    pub other: Vec<String>,
    /// What the daemons have dropped so far, by host and reason: where to look when something is missing.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

/// A scenario or its reply.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// `8`, or `8r` for the reply.
    pub scenario: String,
    /// The draft's name of the sender.
    pub from: String,
    /// That of the receiver.
    pub to: String,
    /// `sender`, `wire` and `receiver`: source and destination, each an address and how the draft writes it. A place where the packet
    /// was not seen is missing.
    pub places: BTreeMap<String, [[String; 2]; 2]>,
    /// Packets that were compared, at all three places, by protocol.
    pub packets: BTreeMap<String, u32>,
    /// Whom `traceroute` named on the way, afterwards; of replies nobody.
    #[serde(default)]
    pub hops: Vec<String>,
    /// What differs.
    pub complaints: Vec<String>,
}

impl Judgement {
    /// The row of a scenario.
    ///
    /// # Errors
    ///
    /// Fails when the script does not know it.
    pub fn row(&mut self, number: &str) -> Result<&mut Row> {
        let row = self.rows.iter_mut().find(|row| row.scenario == number);
        row.with_context(|| format!("the script has no scenario {number}"))
    }

    /// Adds what went wrong to the row of a scenario, if something did.
    ///
    /// # Errors
    ///
    /// As [`Judgement::row`].
    pub fn complain(&mut self, number: &str, done: Result<()>) -> Result<()> {
        let row = self.row(number)?;
        row.complaints.extend(done.err().map(|error| format!("{error:#}")));
        Ok(())
    }

    /// The scenarios of which something differs, and `other` for what belongs to none.
    pub fn differing(&self) -> Vec<String> {
        let rows = self.rows.iter().filter(|row| !row.complaints.is_empty());
        let rows = rows.map(|row| row.scenario.clone());
        rows.chain((!self.other.is_empty()).then(|| "other".into())).collect()
    }

    /// The table as it is printed.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for scenario in &SCENARIOS {
            let number = scenario.number.to_string();
            let rows = self.rows.iter().filter(|row| row.scenario.trim_end_matches('r') == number);
            let rows: Vec<&Row> = rows.collect();
            writeln!(text, "\n{number}: {}", scenario.title).ok();
            rows.into_iter().for_each(|row| row.print(&mut text));
        }
        for complaint in &self.other {
            writeln!(text, "\nof no scenario: {complaint}").ok();
        }
        if !self.differing().is_empty() {
            let drops = self.drops.iter().map(|(reason, number)| format!("{reason} {number}"));
            writeln!(text, "\ndropped so far: {}", drops.collect::<Vec<_>>().join(", ")).ok();
        }
        text
    }
}

impl Row {
    fn print(&self, text: &mut String) {
        let packets = self.packets.iter().map(|(protocol, number)| format!("{number} {protocol}"));
        let packets = packets.collect::<Vec<_>>().join(", ");
        let verdict = if self.complaints.is_empty() { "as the script says" } else { "DIFFERS" };
        writeln!(text, "  {:3} {} -> {}: {packets}; {verdict}", self.scenario, self.from, self.to).ok();
        for place in ["sender", "wire", "receiver"] {
            match self.places.get(place) {
                Some([[source, from], [destination, to]]) => {
                    writeln!(text, "      {place:8} {source:>34} -> {destination:<34}  {from}, {to}").ok()
                }
                None => writeln!(text, "      {place:8} {:>34}", "not seen").ok(),
            };
        }
        if !self.hops.is_empty() {
            writeln!(text, "      hops     {}", self.hops.join(", ")).ok();
        }
        for complaint in self.complaints.iter().take(SHOWN) {
            writeln!(text, "      {}", complaint.replace('\n', "\n      ")).ok();
        }
        if self.complaints.len() > SHOWN {
            writeln!(text, "      and {} more, in summary.json", self.complaints.len() - SHOWN).ok();
        }
    }
}
