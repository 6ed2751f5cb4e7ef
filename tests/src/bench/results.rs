//! What was measured, as it is kept: `results.json`, of which the table and the plot are made.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::case::{CASES, Case, Peer};
use super::figures::{Latency, Measured};
use super::guests::{self, Between};

/// All cases that have been measured, in the order of [`CASES`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// One for each case at most.
    pub cases: Vec<Measurement>,
    /// What guests measured, one for each of [`guests::CASES`] at most.
    #[serde(default)]
    pub guests: Vec<Between>,
}

/// A case's rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The case's name.
    pub case: String,
    /// What was run.
    pub command: String,
    /// The commit of this program.
    pub commit: String,
    /// Processor and kernel.
    pub machine: String,
    /// This program first.
    pub back_ends: Vec<BackEnd>,
}

/// One of those compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackEnd {
    /// For people.
    pub name: String,
    /// Who it is; nothing for builds of this program.
    pub peer: Option<Peer>,
    /// Its rounds, the same round of all at the same place.
    pub rounds: Vec<Measured>,
    /// At half load, where that was measured.
    pub latency: Option<Latency>,
}

impl Measurement {
    /// The case.
    pub fn case(&self) -> Option<&'static Case> {
        Case::named(&self.case)
    }

    /// This program as it is.
    pub fn ours(&self) -> Option<&BackEnd> {
        self.back_ends.first()
    }

    /// The peer, if it was measured.
    pub fn of(&self, peer: Peer) -> Option<&BackEnd> {
        self.back_ends.iter().find(|back_end| back_end.peer == Some(peer))
    }
}

impl Results {
    /// Those in the file; none if there is no file.
    ///
    /// # Errors
    ///
    /// Fails when it is not such a file.
    pub fn read(file: &Path) -> Result<Results> {
        if !file.exists() {
            return Ok(Results::default());
        }
        serde_json::from_slice(&fs::read(file)?).with_context(|| format!("{}", file.display()))
    }

    /// Takes `measurement` in, in place of an older one of that case.
    pub fn put(&mut self, measurement: Measurement) {
        self.cases.retain(|other| other.case != measurement.case);
        self.cases.push(measurement);
        self.cases.sort_by_key(|one| CASES.iter().position(|case| case.name == one.case));
    }

    /// The same of what guests measured.
    pub fn put_guests(&mut self, between: Between) {
        self.guests.retain(|other| other.case != between.case);
        self.guests.push(between);
        self.guests.sort_by_key(|one| guests::CASES.iter().position(|case| *case == one.case));
    }

    /// Writes `results.json`, `results.md` and `results.svg` into `directory`.
    ///
    /// # Errors
    ///
    /// Fails when they cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("results.json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(directory.join("results.md"), super::report::markdown(self))?;
        fs::write(directory.join("results.svg"), super::plot::svg(self))?;
        Ok(())
    }
}
