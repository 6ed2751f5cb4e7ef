//! What is wrong with a config, item by item.

use std::fmt;

use super::Place;

/// One offending item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where it is written.
    pub place: Place,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  remedy: {}", self.place, self.what, self.remedy)
    }
}

/// A config refused whole: at least one problem, in the order of the files and lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(Vec<Problem>);

impl Refused {
    /// Refused for one reason.
    pub(super) fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }
    /// `Ok` if there is nothing wrong.
    pub(super) fn unless_empty(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }
    /// Every problem found.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}
