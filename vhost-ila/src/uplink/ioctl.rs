//! The requests of `ioctl` that make and configure a TUN interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// One request; the kernel reads, and for some writes, what `argument` points to.
pub(super) fn ioctl(fd: &impl AsRawFd, request: libc::Ioctl, argument: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: each caller passes the argument its request asks for: a valid ifreq or int, or a plain value.
    if unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A request about the interface `name`.
pub(super) fn about(name: &str) -> io::Result<libc::ifreq> {
    let mut request = empty();
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.bytes().any(|b| b == 0 || b == b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no interface name")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// A request that the kernel fills in.
pub(super) fn empty() -> libc::ifreq {
    // SAFETY: zeros are a valid ifreq.
    unsafe { std::mem::zeroed() }
}

/// The name and the flags of an answer to TUNGETIFF or SIOCGIFFLAGS.
pub(super) fn name_and_flags(answer: &libc::ifreq) -> (String, libc::c_int) {
    let name = answer.ifr_name.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned()).collect();
    // SAFETY: the flags are plain bits, zeroed by `empty` or written by the kernel.
    let flags = unsafe { answer.ifr_ifru.ifru_flags };
    (String::from_utf8(name).unwrap_or_default(), libc::c_int::from(flags.cast_unsigned()))
}

/// Any socket: what requests about interfaces go through.
pub(super) fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: a fresh descriptor, owned by nobody else.
    unsafe {
        match libc::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) {
            fd if fd < 0 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}
