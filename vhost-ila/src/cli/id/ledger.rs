//! The last identifier that a registrar gave out, on disk.
//!
//! ```text
//!   STATE/registrar-0x0000ab     "00032a5f1\n": 9 hexadecimal digits
//!   open: lock STATE/lock ──> read ──> issue, issue ... ──> remember: write beside, fsync, rename, fsync STATE ──> drop: unlock
//! ```
//!
//! What must stay true: nobody else issues between reading and remembering; a file that cannot be understood is never taken for a fresh
//! start; after a crash at any point the file holds the old counter or the new one, and what was not remembered was not printed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nve_core::addr::Identifier;
use nve_core::task_id::{Counter, Registrar};

use crate::private;

/// One registrar's, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Ledger {
    registrar: Registrar,
    path: PathBuf,
    last: Option<Counter>,
    /// The state directory.
    directory: File,
    /// Holds the lock. Not the directory itself, which whoever may read it could lock.
    _lock: File,
}

impl Ledger {
    /// Waits for whoever has it, and reads it. The directory is made if it is not there.
    ///
    /// # Errors
    /// It cannot be read, holds something else, or others may write the directory.
    pub(super) fn open(state: &Path, registrar: Registrar) -> Result<Self> {
        let at = || format!("the state directory {}", state.display());
        private::directory(state).with_context(at)?;
        let directory = File::open(state).with_context(at)?;
        let name = state.join("lock");
        let lock = private::file(&name).with_context(at)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                log::info!("waiting for another process that holds the lock of {}", name.display());
                lock.lock().with_context(at)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(at),
        }
        let path = state.join(format!("registrar-{registrar}"));
        let last = match fs::read_to_string(&path) {
            Ok(text) => Some(read(&text).with_context(|| unreadable(&path))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| unreadable(&path)),
        };
        Ok(Self { registrar, path, last, directory, _lock: lock })
    }

    /// The next identifier at `now`, a time since 1970.
    ///
    /// # Errors
    /// There is none left.
    pub(super) fn issue(&mut self, now: Duration) -> Result<Identifier> {
        let (identifier, counter) = self.registrar.issue(self.last, now)?;
        self.last = Some(counter);
        Ok(identifier)
    }

    /// Makes what was issued outlive us, and a loss of power.
    ///
    /// # Errors
    /// It cannot be written: nothing that was issued may be used.
    pub(super) fn remember(&self) -> Result<()> {
        let Some(last) = self.last else { return Ok(()) };
        let write = || {
            let beside = self.path.with_extension("new");
            let mut file = File::create(&beside)?;
            writeln!(file, "{:09x}", last.get())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            self.directory.sync_all()
        };
        write().with_context(|| {
            format!("{} cannot be written, so no identifier is given out", self.path.display())
        })
    }
}

fn read(text: &str) -> Result<Counter> {
    let counter = u64::from_str_radix(text.trim_end(), 16).ok().and_then(Counter::new);
    match counter {
        Some(counter) => Ok(counter),
        None => bail!("{text:?} is no counter of 9 hexadecimal digits"),
    }
}

fn unreadable(path: &Path) -> String {
    format!(
        "{} cannot be read, and identifiers could repeat without it; restore it, or give this host another registrar number",
        path.display()
    )
}
