//! Where the text is: the files behind a config PATH, and which line a byte is on.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Problem, Refused};

/// The file that owns `[host]` and `[uplink]` in a config directory.
pub(super) const HOST_FILE: &str = "host.toml";

/// One file, read whole.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// May hold `[host]` and `[uplink]`: the only file, or `host.toml`.
    pub(super) owns_host: bool,
}

impl Source {
    /// The place of the byte at `offset`.
    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().iter().take(offset);
        Place { file: self.path.clone(), line: 1 + before.filter(|&&byte| byte == b'\n').count() }
    }
}

/// A line of a config file, counted from 1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The file, as it was reached from the given PATH.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Reads `path`: a file, or every `*.toml` of a directory in the order of their names, [`HOST_FILE`] first.
pub(super) fn read(path: &Path) -> Result<Vec<Source>, Refused> {
    let unreadable = |path: &Path, error: std::io::Error| {
        Refused::one(Problem {
            place: Place { file: path.to_owned(), line: 1 },
            what: format!("cannot be read: {error}"),
            remedy: "give --config a file, or a directory with host.toml in it, that this user may read"
                .into(),
        })
    };
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
        return Ok(vec![Source { path: path.to_owned(), text, owns_host: true }]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, error))? {
        let file = entry.map_err(|error| unreadable(path, error))?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort_by_key(|file| (file.file_name() != Some(HOST_FILE.as_ref()), file.clone()));
    if files.first().is_none_or(|file| file.file_name() != Some(HOST_FILE.as_ref())) {
        return Err(Refused::one(Problem {
            place: Place { file: path.join(HOST_FILE), line: 1 },
            what: "is missing: it owns [host] and [uplink] of a config directory".into(),
            remedy: format!("create {HOST_FILE} in {}, or give --config a single file", path.display()),
        }));
    }
    let mut sources = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, error))?;
        let owns_host = file.file_name() == Some(HOST_FILE.as_ref());
        sources.push(Source { path: file, text, owns_host });
    }
    Ok(sources)
}
