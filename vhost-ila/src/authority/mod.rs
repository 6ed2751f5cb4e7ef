//! Where mappings come from.
//!
//! What must stay true: the data path never waits for an authority; it forwards with what it was given last. What the config says
//! of an identifier, no registry says otherwise: it is asked first.
//!
//! ```text
//!   StaticFile: the config's text ──> Config ──> Configured ─┐
//!                                                            ├─ Authority: who holds what ──> Nve (setup, learned mappings)
//!   control API, attachments ───────> Embedded (on disk) ────┘
//! ```

mod configured;
mod embedded;
mod registration;

use std::fmt;
use std::path::PathBuf;

use crate::config::{CONTROL_SOCKET, Config, PLUG_SOCKET, Refused};

pub use configured::Configured;
pub use embedded::{Embedded, Settled};
pub use registration::{Authority, Claimant, Denied, Registration, Unsettled, Update, Wish};

/// Mappings written by hand, or by a tool, into the config; read again on reload.
#[derive(Clone, Debug)]
pub struct StaticFile {
    path: PathBuf,
    runtime: Option<PathBuf>,
}

impl StaticFile {
    /// The config at `path`, a file or a directory; sockets under `runtime` if given, whatever the config says.
    pub fn new(path: PathBuf, runtime: Option<PathBuf>) -> Self {
        Self { path, runtime }
    }

    /// Reads it anew.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(&self) -> Result<Config, Refused> {
        Config::load_with(&self.path, self.runtime.as_deref())
    }

    /// Where a daemon of this config listens, even while the config is being edited and would be refused.
    ///
    /// # Errors
    /// The config cannot be read, or is no TOML.
    pub fn control_socket(&self) -> Result<PathBuf, Refused> {
        Ok(self.runtime()?.join(CONTROL_SOCKET))
    }

    /// Where it takes the NICs of tasks.
    ///
    /// # Errors
    /// As [`Self::control_socket`].
    pub fn plug_socket(&self) -> Result<PathBuf, Refused> {
        Ok(self.runtime()?.join(PLUG_SOCKET))
    }

    fn runtime(&self) -> Result<PathBuf, Refused> {
        match &self.runtime {
            Some(runtime) => Ok(runtime.clone()),
            None => Config::runtime_of(&self.path),
        }
    }
}

impl fmt::Display for StaticFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
