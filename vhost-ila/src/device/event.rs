//! Event descriptors that came from a front-end, and how to signal one without ever blocking on it.
//!
//! What must stay true:
//!
//! * Only real eventfds are accepted ([`PeerEvent::new`] asks the kernel what the descriptor is), close-on-exec.
//! * We never read a peer's kick: it is watched edge-triggered, so nothing it does to the counter or to O_NONBLOCK (which it shares
//!   with us) can block or starve us.
//! * We never write to a peer's call with `write(2)`: a peer that fills the counter and clears O_NONBLOCK between any check of
//!   ours and the write would stop the worker, and every tenant with it. [`Notifier`] lets the kernel signal instead: a zero-byte
//!   read of /dev/null through Linux AIO with the eventfd as its completion notifier (`IOCB_FLAG_RESFD`). That path adds to the
//!   counter inside the kernel and saturates instead of waiting. One system call signals any number of eventfds.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

/// An eventfd passed by a front-end.
#[derive(Debug)]
pub struct PeerEvent(OwnedFd);

impl PeerEvent {
    /// Takes a descriptor received over the socket.
    ///
    /// # Errors
    /// `InvalidInput` if it is anything but an eventfd.
    pub fn new(file: File) -> io::Result<Self> {
        let fd = OwnedFd::from(file);
        close_on_exec(&fd)?;
        // The kernel's own name for the file behind a descriptor; no path in any file system reads like this.
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if link.as_os_str() != "anon_inode:[eventfd]" {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an eventfd"));
        }
        Ok(Self(fd))
    }
}

impl AsFd for PeerEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PeerEvent {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Sets FD_CLOEXEC: descriptors received over a socket do not have it.
pub(crate) fn close_on_exec(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: F_SETFD on a descriptor we own changes a flag of the descriptor and touches no memory.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Eventfds one system call signals.
const BATCH: usize = 64;
/// `IOCB_CMD_PREAD` and `IOCB_FLAG_RESFD` of linux/aio_abi.h.
const PREAD: u16 = 0;
const RESFD: u32 = 1;

/// `struct iocb` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    notify: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
struct Completion([u64; 4]);

/// Signals peers' eventfds without blocking, many with one system call.
#[derive(Debug)]
pub struct Notifier {
    context: libc::c_ulong,
    null: File,
    queued: Vec<ControlBlock>,
    sent: u64,
}

impl Notifier {
    /// # Errors
    /// The system's, where it has no AIO (`CONFIG_AIO`) or its contexts are used up (`fs.aio-max-nr`).
    pub fn new() -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: io_setup writes the new context's handle into `context` or fails.
        let rc = unsafe { libc::syscall(libc::SYS_io_setup, 2 * BATCH, &raw mut context) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { context, null, queued: Vec::with_capacity(BATCH), sent: 0 })
    }

    /// Remembers to signal `event` at the next [`Self::flush`]; the caller keeps it open until then.
    #[inline]
    pub fn queue(&mut self, event: BorrowedFd<'_>) {
        if self.queued.len() == BATCH {
            self.flush();
        }
        self.queued.push(ControlBlock {
            opcode: PREAD,
            file: self.null.as_raw_fd().cast_unsigned(),
            flags: RESFD,
            notify: event.as_raw_fd().cast_unsigned(),
            ..ControlBlock::default()
        });
    }

    /// Signals all that were queued, in their order.
    #[inline]
    pub fn flush(&mut self) {
        if !self.queued.is_empty() {
            self.submit();
        }
    }

    #[inline(never)]
    fn submit(&mut self) {
        let mut blocks = [ptr::null_mut::<ControlBlock>(); BATCH];
        for (slot, block) in blocks.iter_mut().zip(&mut self.queued) {
            *slot = block;
        }
        let count = self.queued.len();
        let mut done = 0;
        // Each round submits at least one, skips a refused one, or makes room; so at most two rounds per queued event.
        for _ in 0..2 * count {
            if done >= count {
                break;
            }
            // SAFETY: blocks[done..count] point to initialised control blocks in `queued`, which outlives the call; they name a
            // buffer of zero bytes, so the kernel writes nothing.
            let rc = unsafe {
                libc::syscall(libc::SYS_io_submit, self.context, count - done, blocks.as_mut_ptr().add(done))
            };
            match usize::try_from(rc) {
                Ok(n) if n > 0 => done += n,
                // The completion ring is full.
                _ if io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) => self.reap(),
                // Refused: cannot be for an open eventfd, and must not hold up the others.
                _ => done += 1,
            }
        }
        self.sent += count as u64;
        self.queued.clear();
    }

    /// How many signals were sent since the start.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Throws completions away; they carry nothing.
    fn reap(&mut self) {
        let mut events = [Completion::default(); 2 * BATCH];
        let mut at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `events` has room for as many completions as the call may write.
        unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                0,
                events.len(),
                events.as_mut_ptr(),
                &raw mut at_once,
            );
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        // SAFETY: the context came from io_setup and is destroyed once.
        unsafe {
            libc::syscall(libc::SYS_io_destroy, self.context);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::FromRawFd;

    use super::*;

    fn eventfd(flags: i32) -> File {
        // SAFETY: eventfd returns a fresh descriptor that nothing else owns.
        unsafe { File::from_raw_fd(libc::eventfd(0, flags)) }
    }

    fn count(file: &File) -> u64 {
        let mut bytes = [0; 8];
        (&*file).read_exact(&mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn only_an_eventfd_is_an_event() {
        assert!(PeerEvent::new(eventfd(0)).is_ok());
        assert!(PeerEvent::new(File::open("/dev/zero").unwrap()).is_err());
        assert!(PeerEvent::new(tempfile::tempfile().unwrap()).is_err());
    }

    #[test]
    fn a_saturated_blocking_call_eventfd_does_not_block_the_notifier() {
        let file = eventfd(0);
        io::Write::write_all(&mut &file, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let peer = PeerEvent::new(file.try_clone().unwrap()).unwrap();
        let mut notifier = Notifier::new().unwrap();
        for _ in 0..3 {
            notifier.queue(peer.as_fd());
            notifier.flush();
        }
        assert_eq!(count(&file), u64::MAX);
    }

    #[test]
    fn many_signals_outlast_the_completion_ring() {
        let file = eventfd(libc::EFD_NONBLOCK);
        let peer = PeerEvent::new(file.try_clone().unwrap()).unwrap();
        let mut notifier = Notifier::new().unwrap();
        for _ in 0..1000 {
            notifier.queue(peer.as_fd());
        }
        notifier.flush();
        assert_eq!(count(&file), 1000);
        assert_eq!(notifier.sent(), 1000);
    }
}
