//! A TUN device of the host's kernel: raw IP packets behind a virtio-net header (`IFF_VNET_HDR`), so that super-packets and
//! partial checksums cross in one piece.
//!
//! What must stay true: one system call per packet and direction, from and to where the bytes already are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::Uplink;
use crate::device::memory::Payload;
use crate::device::net_header::{LEN, NetHeader, READ_LEN};

/// Most pieces of one packet that go into one `writev`: header, head and the tail's.
const PIECES: usize = 1024;

/// An open TUN device; the interface disappears with it unless it was made persistent.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Opens (or makes) interface `name`, sets its MTU and brings it up.
    ///
    /// # Errors
    /// The system's: no /dev/net/tun, no CAP_NET_ADMIN, a name that is no TUN's.
    pub fn open(name: &str, mtu: u16) -> io::Result<Self> {
        let step = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"))
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(step("/dev/net/tun"))?;
        let mut request = interface_request(name)?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        ioctl(&file, libc::TUNSETIFF, (&raw mut request).cast()).map_err(step("TUNSETIFF"))?;
        let mut header_len = LEN as libc::c_int;
        ioctl(&file, libc::TUNSETVNETHDRSZ, (&raw mut header_len).cast()).map_err(step("TUNSETVNETHDRSZ"))?;
        // What the kernel may leave to us; we finish in software what the receiving guest cannot.
        let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        // The argument of this one is the value itself, not a pointer to it.
        ioctl(&file, libc::TUNSETOFFLOAD, std::ptr::without_provenance_mut(offloads as usize))
            .map_err(step("TUNSETOFFLOAD"))?;

        let control = control_socket()?;
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_mtu = i32::from(mtu);
        ioctl(&control, libc::SIOCSIFMTU, (&raw mut request).cast()).map_err(step("setting the MTU"))?;
        let mut request = interface_request(name)?;
        ioctl(&control, libc::SIOCGIFFLAGS, (&raw mut request).cast()).map_err(step("reading the flags"))?;
        // SAFETY: SIOCGIFFLAGS has filled the flags member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        ioctl(&control, libc::SIOCSIFFLAGS, (&raw mut request).cast()).map_err(step("bringing it up"))?;
        Ok(Self { file })
    }
}

impl Uplink for Tun {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn receive(&mut self, packet: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        let mut header = [0; LEN];
        let parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: LEN },
            libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() },
        ];
        // SAFETY: both parts are exclusively borrowed buffers of the stated lengths.
        let read = unsafe { libc::readv(self.file.as_raw_fd(), parts.as_ptr(), 2) };
        match usize::try_from(read) {
            Ok(n) => {
                let [h @ .., _, _] = header;
                let header: [u8; READ_LEN] = h;
                Ok(Some((n.saturating_sub(LEN), NetHeader::from_bytes(&header))))
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                // The interface was deleted; the descriptor never comes back to life.
                e if e.raw_os_error() == Some(libc::EBADFD) => {
                    Err(io::Error::new(io::ErrorKind::NotConnected, e))
                }
                e => Err(e),
            },
        }
    }

    fn send(&mut self, header: NetHeader, head: &[u8], tail: Payload<'_>) -> io::Result<()> {
        let header = header.to_bytes();
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES];
        parts[0] = libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: LEN };
        parts[1] = libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() };
        let mut count = 2;
        let mut total = LEN + head.len();
        tail.runs(|at, len| {
            if let Some(part) = parts.get_mut(count) {
                *part = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: len };
                count += 1;
                total += len;
            }
        });
        if total != LEN + head.len() + tail.len() {
            // Scattered over more pieces than a system call takes; no driver does that.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: every part is readable for its length until the call returns: header and head are borrowed, the tail's runs
        // are as `Payload::runs` promises. writev only reads them.
        let written = unsafe { libc::writev(self.file.as_raw_fd(), parts.as_ptr(), count as libc::c_int) };
        match usize::try_from(written) {
            Ok(n) if n == total => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

fn ioctl(fd: &impl AsRawFd, request: libc::Ioctl, argument: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: each caller passes the argument its request asks for: a valid ifreq or int, or a plain value.
    if unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: zeros are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.bytes().any(|b| b == 0 || b == b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no interface name")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: a fresh descriptor, owned by nobody else.
    unsafe {
        match libc::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) {
            fd if fd < 0 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}
