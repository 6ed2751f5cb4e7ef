//! A TUN device of the host's kernel: raw IP packets behind a virtio-net header (`IFF_VNET_HDR`), so that super-packets and
//! partial checksums cross in one piece. The uplink is one, and so is the NIC of each task.
//!
//! What must stay true: one system call per packet and direction, from and to where the bytes already are; a descriptor that was
//! passed to us ([`Tun::adopt`]) is one of the same kind as those we open ourselves, by the kernel's word, and never waited for,
//! whatever becomes of its O_NONBLOCK.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nve_core::pipeline::Receiver;
use rustix::fs::{FileType, OFlags};
use rustix::io::FdFlags;

use super::ioctl::{about, control_socket, empty, ioctl, name_and_flags};
use super::{SendOnly, Uplink};
use crate::device::memory::Payload;
use crate::device::net_header::{LEN, NetHeader, READ_LEN};

/// Most pieces of one packet that go into one `pwritev2`: header, head and the tail's.
const PIECES: usize = 1024;

/// What each of ours is: IP packets, no other header than virtio-net's, one queue.
const KIND: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Whatever of the flags that TUNGETIFF tells says what is read from a TUN and who else reads. Not IFF_NO_PI: there, the same bit is
/// IFF_NOFILTER and always set. Packets of a TUN without it begin with another header, and are dropped as malformed.
const TELLING: libc::c_int =
    libc::IFF_TUN | libc::IFF_TAP | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE | libc::IFF_DETACH_QUEUE;

/// `/dev/net/tun` (Documentation/admin-guide/devices.txt).
const DEVICE: (u32, u32) = (10, 200);

/// A descriptor that is no task's NIC.
#[derive(Debug, thiserror::Error)]
pub enum WrongDescriptor {
    /// Some other file.
    #[error("the descriptor is not of /dev/net/tun but of {0}")]
    Other(&'static str),
    /// TUNSETIFF was never called, or its interface is gone.
    #[error("the descriptor has no interface")]
    NoInterface,
    /// It carries other things than we read.
    #[error(
        "{interface} has the TUN flags {flags:#06x}; wanted is a TUN (no TAP) with IFF_VNET_HDR, IFF_NO_PI and one queue"
    )]
    Flags {
        /// Its interface.
        interface: String,
        /// As TUNGETIFF tells them.
        flags: libc::c_int,
    },
    /// The kernel refuses.
    #[error("the descriptor cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// An open TUN device; the interface disappears with it unless it was made persistent.
#[derive(Debug)]
pub struct Tun {
    file: OwnedFd,
    /// Of each read and write: whether to wait is said with the call, where others can change what the open file says.
    flags: libc::c_int,
    /// Its kernel takes and gives super-packets of UDP.
    uso: bool,
}

/// TUN_F_USO4 and TUN_F_USO6 of linux/if_tun.h, of use together only; since Linux 6.2.
const USO: libc::c_uint = 0x20 | 0x40;

impl Tun {
    /// Opens (or makes) interface `name`, sets its MTU and brings it up.
    ///
    /// # Errors
    /// The system's: no /dev/net/tun, no CAP_NET_ADMIN, a name that is no TUN's.
    pub fn open(name: &str, mtu: u16) -> io::Result<Self> {
        let tun = Self::make(name)?;
        let control = control_socket()?;
        let mut request = about(name)?;
        request.ifr_ifru.ifru_mtu = i32::from(mtu);
        ioctl(&control, libc::SIOCSIFMTU, (&raw mut request).cast()).map_err(step("setting the MTU"))?;
        let mut request = about(name)?;
        ioctl(&control, libc::SIOCGIFFLAGS, (&raw mut request).cast()).map_err(step("reading the flags"))?;
        let (_, flags) = name_and_flags(&request);
        request.ifr_ifru.ifru_flags = (flags | libc::IFF_UP) as libc::c_short;
        ioctl(&control, libc::SIOCSIFFLAGS, (&raw mut request).cast()).map_err(step("bringing it up"))?;
        Ok(tun)
    }

    /// Opens (or makes) interface `name` in the present network namespace, and leaves it as it is; for a `%d` in it the kernel chooses a
    /// number.
    ///
    /// # Errors
    /// As [`Tun::open`].
    pub fn make(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(step("/dev/net/tun"))?;
        let mut request = about(name)?;
        request.ifr_ifru.ifru_flags = KIND as libc::c_short;
        ioctl(&file, libc::TUNSETIFF, (&raw mut request).cast()).map_err(step("TUNSETIFF"))?;
        let mut tun = Self { file: file.into(), flags: 0, uso: false };
        tun.agree()?;
        Ok(tun)
    }

    /// Takes a descriptor that somebody else opened, if it is a TUN such as [`Tun::make`] makes.
    ///
    /// # Errors
    /// It is none; it is closed.
    pub fn adopt(file: OwnedFd) -> Result<Self, WrongDescriptor> {
        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if device == DEVICE => {}
            FileType::CharacterDevice => return Err(WrongDescriptor::Other("another device")),
            FileType::Socket => return Err(WrongDescriptor::Other("a socket")),
            FileType::Fifo => return Err(WrongDescriptor::Other("a pipe")),
            _ => return Err(WrongDescriptor::Other("a file")),
        }
        // O_NONBLOCK belongs to the open file: whoever passed it could take it away again and, with a small TUNSETSNDBUF, hold up the
        // worker in a write too. The kernel's TUN heeds RWF_NOWAIT in both directions (tun_chr_read_iter, tun_chr_write_iter).
        let mut tun = Self { file, flags: libc::RWF_NOWAIT, uso: false };
        let (interface, flags) = tun.identity().map_err(|_| WrongDescriptor::NoInterface)?;
        if flags & TELLING != KIND & TELLING {
            return Err(WrongDescriptor::Flags { interface, flags });
        }
        let flags = rustix::fs::fcntl_getfl(&tun.file).map_err(io::Error::from)?;
        rustix::fs::fcntl_setfl(&tun.file, flags | OFlags::NONBLOCK).map_err(io::Error::from)?;
        rustix::io::fcntl_setfd(&tun.file, FdFlags::CLOEXEC).map_err(io::Error::from)?;
        tun.agree()?;
        Ok(tun)
    }

    /// The interface's name, as it is now and where it is now.
    ///
    /// # Errors
    /// The system's: it has none any more.
    pub fn interface(&self) -> io::Result<String> {
        self.identity().map(|(name, _)| name)
    }

    fn identity(&self) -> io::Result<(String, libc::c_int)> {
        let mut answer = empty();
        ioctl(&self.file, libc::TUNGETIFF, (&raw mut answer).cast()).map_err(step("TUNGETIFF"))?;
        Ok(name_and_flags(&answer))
    }

    /// Settles what stands before each packet, and what the kernel may leave to us.
    fn agree(&mut self) -> io::Result<()> {
        let mut header_len = LEN as libc::c_int;
        ioctl(&self.file, libc::TUNSETVNETHDRSZ, (&raw mut header_len).cast())
            .map_err(step("TUNSETVNETHDRSZ"))?;
        let mut little_endian: libc::c_int = 1;
        ioctl(&self.file, libc::TUNSETVNETLE, (&raw mut little_endian).cast())
            .map_err(step("TUNSETVNETLE"))?;
        // We finish in software what the receiver cannot.
        let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        let settle = |offloads: libc::c_uint| {
            // The argument of this one is the value itself, not a pointer to it.
            ioctl(&self.file, libc::TUNSETOFFLOAD, std::ptr::without_provenance_mut(offloads as usize))
        };
        self.uso = match settle(offloads | USO) {
            // A kernel refuses what it does not know, and then takes none of UDP from us either.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => settle(offloads).map(|()| false),
            settled => settled.map(|()| true),
        }
        .map_err(step("TUNSETOFFLOAD"))?;
        Ok(())
    }
}

/// Names what was tried in an error.
fn step(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_owned();
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
impl Uplink for Tun {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn takes(&self) -> Receiver {
        Receiver { uso: self.uso, ..Receiver::KERNEL }
    }

    fn receive(&mut self, packet: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        let mut header = [0; LEN];
        let parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: LEN },
            libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() },
        ];
        // SAFETY: both parts are exclusively borrowed buffers of the stated lengths.
        let read = unsafe { libc::preadv2(self.file.as_raw_fd(), parts.as_ptr(), 2, -1, self.flags) };
        match usize::try_from(read) {
            Ok(n) => {
                let [h @ .., _, _] = header;
                let header: [u8; READ_LEN] = h;
                Ok(Some((n.saturating_sub(LEN), NetHeader::from_bytes(&header))))
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                e => Err(gone(e)),
            },
        }
    }

    // The kernel takes packets from several threads: one write is one packet, and a queue has a lock of its own.
    fn beside(&self) -> io::Result<Box<dyn Uplink>> {
        Ok(Box::new(SendOnly(Self { file: self.file.try_clone()?, ..*self })))
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
        // are as `Payload::runs` promises. pwritev2 only reads them.
        let written = unsafe {
            libc::pwritev2(self.file.as_raw_fd(), parts.as_ptr(), count as libc::c_int, -1, self.flags)
        };
        match usize::try_from(written) {
            Ok(n) if n == total => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(_) => Err(gone(io::Error::last_os_error())),
        }
    }
}

/// `NotConnected` where the interface was deleted, or the kernel has no RWF_NOWAIT for it: the descriptor never comes back to life.
fn gone(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EBADFD | libc::EOPNOTSUPP) => io::Error::new(io::ErrorKind::NotConnected, error),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_that_was_passed_to_us_is_waited_for_though_it_may_block() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.send(&[0; 100]).is_ok() {}
        // Whoever passed it says so afterwards; the flag is the open file's.
        ours.set_nonblocking(false).unwrap();
        let mut tun = Tun { file: ours.into(), flags: libc::RWF_NOWAIT, uso: false };
        let (told, hears) = mpsc::channel();
        std::thread::spawn(move || {
            let mut send = || tun.send(NetHeader::default(), &[0; 40], Payload::own(&[1; 60]));
            let full = send().map_err(|e| e.kind());
            let nothing = tun.receive(&mut [0; 100]).map(|packet| packet.is_none());
            told.send((full, nothing.map_err(|e| e.kind()))).unwrap();
        });
        let (full, nothing) = hears.recv_timeout(Duration::from_secs(10)).expect("it waited");
        assert_eq!(full, Err(io::ErrorKind::WouldBlock));
        assert_eq!(nothing, Ok(true));
        drop(theirs);
    }

    #[test]
    fn what_the_kernel_will_never_read_without_waiting_is_given_up() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let mut waits = Tun { file: file.try_clone().unwrap().into(), flags: 0, uso: false };
        assert!(waits.receive(&mut [0; 2000]).unwrap().is_some(), "it can be read");
        let mut never = Tun { file: file.into(), flags: libc::RWF_NOWAIT, uso: false };
        assert_eq!(never.receive(&mut [0; 2000]).unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
}
