//! The control socket in the file system.
//!
//! What must stay true: it is mode 0600 before anyone can connect to it by its name; a live daemon's socket is never taken over;
//! it goes away with the daemon that made it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
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
        if UnixStream::connect(path).is_ok() {
            let message = format!("{}: another vhost-ila listens here", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        let private = path.with_extension(format!("sock.{}", std::process::id()));
        let _ = fs::remove_file(&private);
        let listener = UnixListener::bind(&private)?;
        fs::set_permissions(&private, Permissions::from_mode(0o600))?;
        fs::rename(&private, path)?;
        listener.set_nonblocking(true)?;
        Ok((Self { path: path.to_owned() }, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
