//! Who may be on the other end of an attachment's socket.
//!
//! What must stay true: a peer is judged by what the kernel says of it (SO_PEERCRED), before a byte of it is read; root, our own user
//! and the attachment's `user` are let in, nobody else.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::net::UnixStream;

/// A peer that is turned away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stranger {
    /// Its user is none of those allowed.
    #[error("process {pid} of user {uid} refused: allowed are {}; set `user` to let another in", allowed(.user))]
    User {
        /// Its process, as our namespace knows it; 0 if it does not.
        pid: i32,
        /// Its effective user when it connected (or listened).
        uid: u32,
        /// The attachment's.
        user: Option<u32>,
    },
    /// The kernel does not say who it is.
    #[error("who is at the other end cannot be told: {0}")]
    Unknown(io::Error),
}

fn allowed(user: &Option<u32>) -> String {
    let own = rustix::process::geteuid().as_raw();
    let mut users: Vec<u32> = [0, own].into_iter().chain(*user).collect();
    users.sort_unstable();
    users.dedup();
    let users: Vec<String> = users.iter().map(ToString::to_string).collect();
    format!("user {}", users.join(", "))
}

/// Lets `stream`'s peer in, or says why not.
///
/// # Errors
/// It is a [`Stranger`].
pub(crate) fn admit(stream: &UnixStream, user: Option<u32>) -> Result<(), Stranger> {
    let peer =
        rustix::net::sockopt::socket_peercred(stream).map_err(|e| Stranger::Unknown(io::Error::from(e)))?;
    let uid = peer.uid.as_raw();
    if uid == 0 || uid == rustix::process::geteuid().as_raw() || Some(uid) == user {
        return Ok(());
    }
    Err(Stranger::User { pid: rustix::process::Pid::as_raw(Some(peer.pid)), uid, user })
}

/// The number of the user called `name`, or with the number `name`; None if the system knows none of that name.
#[must_use]
pub fn user_id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        // -1 means "nobody in particular" to chown.
        return (number != u32::MAX).then_some(number);
    }
    let name = CString::new(name).ok()?;
    by_name(&name)
}

/// Asks the system's user database, whatever it is made of.
fn by_name(name: &CStr) -> Option<u32> {
    // Room for one entry; glibc suggests 1024, directories of companies have longer ones.
    let mut room = vec![0u8; 1 << 16];
    // SAFETY: zeroed is a valid passwd (integers and null pointers).
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is to a live object, `room` of the length given; only `pw_uid`, which is no pointer, is used after.
    let rc = unsafe {
        libc::getpwnam_r(name.as_ptr(), &raw mut entry, room.as_mut_ptr().cast(), room.len(), &raw mut found)
    };
    (rc == 0 && !found.is_null()).then_some(entry.pw_uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_and_by_number() {
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(user_id("12345"), Some(12345));
        for wrong in ["", "no-such-user-here", "4294967295", "-1", "a\0b"] {
            assert_eq!(user_id(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn our_own_user_is_let_in() {
        let (one, _other) = UnixStream::pair().unwrap();
        admit(&one, None).unwrap();
    }

    #[test]
    fn a_refusal_names_who_it_was_and_who_would_do() {
        let stranger = Stranger::User { pid: 7, uid: 1234, user: Some(107) };
        let text = stranger.to_string();
        assert!(text.contains("process 7 of user 1234") && text.contains("107"), "{text}");
    }
}
