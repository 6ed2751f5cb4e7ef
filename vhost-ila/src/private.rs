//! Files and directories that nobody else has a say in: sockets' directories, and what must survive a restart.
//!
//! What must stay true: what is made here is our user's alone from its first moment; a directory in which others may put a file of their
//! own in the place of ours is refused by name.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// That only our user, or root, puts files into `directory`.
///
/// # Errors
/// It is missing, open to others, or another's: by its name, and with what to do.
pub(crate) fn trusted(directory: &Path) -> io::Result<()> {
    let metadata = fs::metadata(directory)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", directory.display())))?;
    // Whoever may write the directory may put a file of their own in our place (sticky: only over their own). Its owner may always.
    let mode = metadata.mode();
    let why = if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        "can be written by others: chmod go-w it"
    } else if !is_ours(metadata.uid()) {
        "belongs to another user: chown it, or choose another directory"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}", directory.display())))
}

/// Whether `user` is root, who may do everything anyway, or this process's.
pub(crate) fn is_ours(user: u32) -> bool {
    [0, rustix::process::geteuid().as_raw()].contains(&user)
}

/// `directory`, made with mode 0700 if it is missing.
///
/// # Errors
/// As [`trusted`], or it cannot be made.
pub(crate) fn directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    trusted(directory)
}

/// The file at `path` in such a directory, for reading and writing; made if it is missing. Nobody else may open it from now on, and so
/// hold its lock.
///
/// # Errors
/// It cannot be opened, is a link, or is another user's: a sticky directory may have been given either before us.
pub(crate) fn file(path: &Path) -> io::Result<File> {
    let mut how = OpenOptions::new();
    let file = how
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let facts = file.metadata()?;
    if !is_ours(facts.uid()) {
        let what = format!("{} belongs to another user", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    if facts.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_made_is_our_own_alone_and_what_was_open_is_closed() {
        let above = tempfile::tempdir().unwrap();
        let state = above.path().join("a/state");
        directory(&state).unwrap();
        assert_eq!((mode(&state), mode(&above.path().join("a"))), (0o700, 0o700));
        let path = state.join("registry");
        file(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        // As an earlier version left it.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        file(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        std::os::unix::fs::symlink(&path, state.join("link")).unwrap();
        assert!(file(&state.join("link")).is_err());
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused_by_name() {
        let state = tempfile::tempdir().unwrap();
        for (mode, taken) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(state.path(), Permissions::from_mode(mode)).unwrap();
            let answer = directory(state.path());
            assert_eq!(answer.is_ok(), taken, "{mode:o}");
            assert!(answer.is_ok() || answer.unwrap_err().to_string().contains("chmod go-w"));
        }
    }
}
