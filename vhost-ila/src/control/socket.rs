//! The control socket in the file system.
//!
//! What must stay true: it is made as the devices' sockets are (our own user's from its first moment, never taken from a live daemon),
//! and goes away with the daemon that made it.

use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A listening control socket; its name is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Another daemon listens there, or the directory cannot be written.
    pub fn listen(path: &Path) -> io::Result<(Self, UnixListener)> {
        let listener = crate::device::server::listen(path)?;
        Ok((Self { path: path.to_owned() }, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
