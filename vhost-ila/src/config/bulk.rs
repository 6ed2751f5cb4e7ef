//! `[mappings]`: the file that says where addresses live by the million.
//!
//! What must stay true: it is read line by line and never whole; one wrong line refuses it all, by file and line; so does one too long,
//! no part of which is read as a line of its own.
//!
//! ```text
//! # network  address   locator
//! blue       10.1.0.2  2001:db8:0:2::/64
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;

use nve_core::addr::Locator;
use nve_core::setup::{Bulk, BulkReader, Setup, SetupError};

use super::raw::RawMappings;
use super::value::Judge;
use super::{Place, Problem, Refused};

/// Bytes of a line that is no longer than most, for a guess how many there are.
const USUAL_LINE: u64 = 32;
/// Bytes of the longest line that is read, its end included.
const LONGEST_LINE: u64 = 1024;

/// Which file, and for how many identifiers there shall be room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MappingsFile {
    path: PathBuf,
    /// Identifiers that later files may have.
    pub(super) room: usize,
    /// Where it is named.
    place: Place,
}

pub(super) fn section(judge: &mut Judge<'_>, raw: &RawMappings) -> Option<MappingsFile> {
    let path = judge.path("mappings.file", &raw.file)?;
    let place = judge.place(raw.file.span());
    // Beside the file that names it.
    let path = place.file.parent().map_or(path.clone(), |directory| directory.join(path));
    let room = match &raw.room {
        None => 0,
        Some(room) => {
            usize::try_from(*room.get_ref()).ok().filter(|room| *room <= 1 << 28).or_else(|| {
                let what = format!("mappings.room: {} is no number of addresses", room.get_ref());
                judge.refuse(
                    room.span(),
                    what,
                    "write how many the file may ever have, at most 268435456".into(),
                );
                None
            })?
        }
    };
    Some(MappingsFile { path, room, place })
}

/// One line that says something.
struct Line<'a> {
    network: &'a str,
    address: IpAddr,
    locator: Locator,
}

impl MappingsFile {
    /// Its list, for the networks of `setup`; `refused` says where something of `setup` is wrong.
    pub(super) fn read(
        &self,
        setup: &Setup,
        refused: impl FnOnce(&SetupError) -> Refused,
    ) -> Result<Bulk, Refused> {
        let mut reader = BulkReader::new(setup, self.guess()).map_err(|error| refused(&error))?;
        self.lines(|line| {
            reader.add(line.network, line.address, line.locator).map_err(|error| said(&error))
        })?;
        reader.finish().map_err(|twice| {
            let object = format!("mapping {} in {}", twice.address, twice.network);
            let remedy = "an address has one holder: keep one line";
            let what = format!("{object}: it is there twice");
            Refused::one(Problem { place: self.place_of(&object), what, remedy: remedy.into() })
        })
    }

    /// `error`, where it is about a line of this file.
    pub(super) fn refused(&self, error: &SetupError) -> Option<Refused> {
        let place = self.last_place_of(&error.object)?;
        let (what, remedy) = said(error);
        Some(Refused::one(Problem { place, what, remedy }))
    }

    fn guess(&self) -> usize {
        let bytes = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        usize::try_from(bytes / USUAL_LINE).unwrap_or(0)
    }

    fn place_of(&self, object: &str) -> Place {
        self.last_place_of(object).unwrap_or_else(|| self.place.clone())
    }

    /// The last line about `object`: of two, the second is the offender.
    fn last_place_of(&self, object: &str) -> Option<Place> {
        let (mut number, mut found) = (0, None);
        let all = self.numbered_lines(|at, line| {
            number = at;
            if format!("mapping {} in {}", line.address, line.network) == object {
                found = Some(number);
            }
            Ok(())
        });
        all.ok()?;
        found.map(|line| Place { file: self.path.clone(), line })
    }

    fn lines(&self, mut each: impl FnMut(Line<'_>) -> Result<(), (String, String)>) -> Result<(), Refused> {
        self.numbered_lines(|_, line| each(line))
    }

    /// Calls `each` with every line that says something, and its number, until one is refused: what is wrong, and the remedy.
    fn numbered_lines(
        &self,
        mut each: impl FnMut(usize, Line<'_>) -> Result<(), (String, String)>,
    ) -> Result<(), Refused> {
        let unreadable = |error: std::io::Error| {
            let what = format!("mappings.file: {} cannot be read: {error}", self.path.display());
            let remedy = "name a file that this user may read".into();
            Refused::one(Problem { place: self.place.clone(), what, remedy })
        };
        let mut file = BufReader::with_capacity(1 << 18, File::open(&self.path).map_err(unreadable)?);
        let (mut bytes, mut number) = (Vec::new(), 0);
        loop {
            bytes.clear();
            let read = std::io::Read::take(&mut file, LONGEST_LINE).read_until(b'\n', &mut bytes);
            if read.map_err(unreadable)? == 0 {
                return Ok(());
            }
            number += 1;
            let is_cut = bytes.len() as u64 == LONGEST_LINE && bytes.last() != Some(&b'\n');
            let outcome = match if is_cut { Err(too_long()) } else { parse(&bytes) } {
                Ok(None) => continue,
                Ok(Some(line)) => each(number, line),
                Err(wrong) => Err(wrong),
            };
            outcome.map_err(|(what, remedy)| {
                let place = Place { file: self.path.clone(), line: number };
                Refused::one(Problem { place, what, remedy })
            })?;
        }
    }
}

fn said(error: &SetupError) -> (String, String) {
    (format!("{}: {}", error.object, error.reason), error.remedy.clone())
}

/// Of a line whose rest would be taken for the next.
fn too_long() -> (String, String) {
    let remedy = format!("keep lines, comments too, shorter than {LONGEST_LINE} bytes");
    (format!("this line has {LONGEST_LINE} bytes or more"), remedy)
}

/// What a line says; `None`: nothing, or a comment. Else what is wrong with it, and the remedy.
fn parse(bytes: &[u8]) -> Result<Option<Line<'_>>, (String, String)> {
    let remedy = || "write: NETWORK ADDRESS LOCATOR, such as blue 10.1.0.2 2001:db8:0:2::/64".to_owned();
    let text = std::str::from_utf8(bytes).map_err(|_| ("this is no text".to_owned(), remedy()))?;
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    let mut words = text.split_ascii_whitespace();
    let Some(network) = words.next() else { return Ok(None) };
    let (Some(address), Some(locator), None) = (words.next(), words.next(), words.next()) else {
        return Err(("a mapping is three words".into(), remedy()));
    };
    let wrong = |word: &str, error: &dyn std::fmt::Display| (format!("\"{word}\": {error}"), remedy());
    let address = address.parse().map_err(|error| wrong(address, &error))?;
    let locator = locator.parse().map_err(|error| wrong(locator, &error))?;
    Ok(Some(Line { network, address, locator }))
}
