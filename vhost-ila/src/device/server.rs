//! An attachment's socket: one front-end after another, as the side that listens or the side that connects.
//!
//! What must stay true:
//!
//! * A socket we listen on can be used by our own user only, from its first moment: it is made under a private name, restricted
//!   to 0600, and then moved to its own name, which also replaces a dead one atomically.
//! * A socket somebody listens on is never taken over, and a file that is no socket never removed.
//! * Who connects (or listens, where we connect) is judged before a byte of it is read ([`peer`]).
//! * One control thread per attachment. Whatever a front-end does, the thread comes back to wait for the next one, until
//!   [`Stop`] is set: a mistake of ours that panics ends the connection, and is counted and named in the status.
//! * A front-end that comes and goes, or fails, again and again, costs a bounded share of a processor and of the log.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Event, Events};
use nve_core::pipeline::{Nve, PortId};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::AsRawFd;
use vmm_sys_util::eventfd::EventFd;

use super::connection;
use super::handover::WorkerLink;
use super::peer;
use super::session::Session;
use super::status::Status;
use crate::config::{DeviceConfig, SocketMode};
use crate::contained::contained;
use crate::private;

/// How long to wait before connecting again, at most; front-ends give up on us after a minute.
const RETRY: Duration = Duration::from_millis(250);

/// The pause after a connection that was refused, failed, or lasted no longer than this: fifty a second are served.
const PACE: Duration = Duration::from_millis(20);

/// Connections that may wait to be served, one after the other: what a flood leaves behind is gone within a second.
const BACKLOG: i32 = 32;

/// The pause after a panic: whoever knows how to cause one is not to keep us at it.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// Ends a control thread, wherever it waits.
#[derive(Debug)]
pub struct Stop {
    set: AtomicBool,
    wake: EventFd,
    connection: Mutex<Option<UnixStream>>,
}

/// Forgets the connection when it is over.
#[derive(Debug)]
pub struct StopGuard<'a>(&'a Stop);

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self { set: AtomicBool::new(false), wake, connection: Mutex::new(None) })
    }

    /// Whether it was set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Remembers the connection, to be shut down when the thread is to end.
    pub(super) fn guard(&self, stream: &UnixStream) -> io::Result<StopGuard<'_>> {
        let clone = stream.try_clone()?;
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_set() {
            return Err(io::Error::other("stopping"));
        }
        *slot = Some(clone);
        Ok(StopGuard(self))
    }

    fn set(&self) {
        let slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        self.set.store(true, Ordering::Release);
        // Ours and non-blocking: it cannot fail for anything but a full counter, which wakes as well.
        let _ = self.wake.write(1);
        if let Some(stream) = slot.as_ref() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        *self.0.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A running control thread.
#[derive(Debug)]
pub struct Server {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    socket: Option<PathBuf>,
    /// Where its state is shown.
    pub status: Arc<Status>,
}

impl Server {
    /// Listens (or begins to connect) and serves from then on.
    ///
    /// # Errors
    /// The socket cannot be made: the directory is missing or open to others, or somebody listens there.
    pub fn start(config: &DeviceConfig, port: PortId, nve: Arc<Nve>, worker: WorkerLink) -> io::Result<Self> {
        Self::start_with(config, port, nve, worker, connection::serve)
    }

    /// As [`Server::start`], each connection served by `serve`.
    pub(crate) fn start_with(
        config: &DeviceConfig,
        port: PortId,
        nve: Arc<Nve>,
        worker: WorkerLink,
        serve: Serve,
    ) -> io::Result<Self> {
        let status = Arc::new(Status::new(config.offer));
        let stop = Arc::new(Stop::new()?);
        let listener = match config.mode {
            SocketMode::Server => {
                let listener = listen_for(&config.socket, config.user)?;
                rustix::net::listen(&listener, BACKLOG)?;
                Some(listener)
            }
            SocketMode::Client => None,
        };
        let socket = listener.is_some().then(|| config.socket.clone());
        let control = Control {
            config: config.clone(),
            port,
            nve,
            worker,
            status: Arc::clone(&status),
            stop: Arc::clone(&stop),
            serve,
        };
        let thread = std::thread::Builder::new()
            .name(format!("dev:{}", config.name))
            .spawn(move || control.run(listener.as_ref()))?;
        Ok(Self { stop, thread: Some(thread), socket, status })
    }

    /// Ends the connection and the thread, and removes the socket.
    pub fn stop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // It contains the panics of its connections; another's would have dropped all it held while unwinding.
            let _ = thread.join();
        }
        if let Some(socket) = self.socket.take() {
            // Somebody may have removed it already.
            let _ = fs::remove_file(socket);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves one connection to its end, as [`connection::serve`] does.
pub(crate) type Serve = fn(UnixStream, Session, &Stop) -> Result<(), String>;

struct Control {
    config: DeviceConfig,
    port: PortId,
    nve: Arc<Nve>,
    worker: WorkerLink,
    status: Arc<Status>,
    stop: Arc<Stop>,
    serve: Serve,
}

impl Control {
    fn run(&self, listener: Option<&UnixListener>) {
        while !self.stop.is_set() {
            let next = match listener {
                Some(listener) => self.accept(listener),
                None => self.connect(),
            };
            match next {
                Ok(Some(stream)) => self.serve(stream),
                Ok(None) => {}
                Err(error) => {
                    self.failed(format_args!("{error}"));
                    self.wait(None, RETRY);
                }
            }
        }
    }

    /// One front-end, from its first look to the pause after it.
    fn serve(&self, stream: UnixStream) {
        let begun = Instant::now();
        if let Err(stranger) = peer::admit(&stream, self.config.user) {
            self.status.refused();
            self.failed(format_args!("{stranger}"));
            return self.wait(None, PACE);
        }
        self.status.connected();
        let name = &self.config.name;
        self.status.journal.write(log::Level::Debug, name, format_args!("a front-end is connected"));
        let session = Session::new(
            Arc::clone(&self.nve),
            self.port,
            &self.config,
            self.worker.clone(),
            Arc::clone(&self.status),
        );
        // Nothing of what the closure uses is seen again but the status and the stop, whose every state is a good one.
        match contained(|| (self.serve)(stream, session, &self.stop)) {
            Ok(Ok(())) if begun.elapsed() < PACE => self.wait(None, PACE),
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                self.failed(format_args!("connection closed: {reason}"));
                self.wait(None, PACE);
            }
            Err(said) => {
                self.status.panicked();
                self.failed(format_args!("connection closed: a mistake of ours, please report it: {said}"));
                self.wait(None, PANIC_PAUSE);
            }
        }
    }

    /// Names a fault in the status, and in the log as far as this attachment's share goes.
    fn failed(&self, fault: std::fmt::Arguments<'_>) {
        self.status.journal.write(log::Level::Warn, &self.config.name, fault);
        self.status.set_last_fault(fault.to_string());
    }

    fn accept(&self, listener: &UnixListener) -> io::Result<Option<UnixStream>> {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                Ok(Some(stream))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.wait(Some(listener), Duration::MAX);
                Ok(None)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn connect(&self) -> io::Result<Option<UnixStream>> {
        match connect(&self.config.socket) {
            Ok(stream) => Ok(Some(stream)),
            // Not there yet, just gone, or busy with others: what a client waits for.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
                ) =>
            {
                self.wait(None, RETRY);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Waits for the listener (if given), for `stop`, or for time to pass.
    fn wait(&self, listener: Option<&UnixListener>, limit: Duration) {
        let millis = i32::try_from(limit.as_millis()).unwrap_or(-1);
        if self.wait_on(listener, millis).is_err() {
            std::thread::sleep(RETRY);
        }
    }

    fn wait_on(&self, listener: Option<&UnixListener>, millis: i32) -> io::Result<()> {
        let poll = Epoll::new()?;
        let readable = Event::new(Events::EPOLLIN, 0);
        epoll::ctl(poll.0, ControlOptions::EPOLL_CTL_ADD, self.stop.wake.as_raw_fd(), readable)?;
        if let Some(listener) = listener {
            epoll::ctl(poll.0, ControlOptions::EPOLL_CTL_ADD, listener.as_raw_fd(), readable)?;
        }
        match epoll::wait(poll.0, millis, &mut [readable]) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            _ => Ok(()),
        }
    }
}

/// An epoll descriptor, closed on drop.
pub(super) struct Epoll(pub(super) i32);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        epoll::create(true).map(Self)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // Nothing is buffered, so nothing can be lost.
        let _ = epoll::close(self.0);
    }
}

/// Connects to `path` without waiting: `WouldBlock` where whoever listens there leaves those before us unaccepted. A connect that
/// waits could not be stopped, and a front-end would hold up every reload and the end of the daemon.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Listens on `path`, as the module says; non-blocking.
///
/// # Errors
/// The directory is missing or open to others, or somebody listens there.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    listen_for(path, None)
}

/// As [`listen`], on a socket that belongs to `user`.
fn listen_for(path: &Path, user: Option<u32>) -> io::Result<UnixListener> {
    let refuse = |why: String| io::Error::new(io::ErrorKind::AddrInUse, why);
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private::trusted(directory)?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(refuse(format!("{} exists and is not a socket", path.display())));
        }
        if connect(path).map_or_else(|e| e.kind() == io::ErrorKind::WouldBlock, |_| true) {
            return Err(refuse(format!("somebody listens on {}", path.display())));
        }
    }
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = PathBuf::from(private);
    match fs::remove_file(&private) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&private)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", private.display())))?;
    let placed = fs::set_permissions(&private, fs::Permissions::from_mode(0o600))
        .and_then(|()| give_to(&private, user))
        .and_then(|()| fs::rename(&private, path))
        .and_then(|()| listener.set_nonblocking(true));
    if let Err(e) = placed {
        // Best effort: the reason for failing is the better news.
        let _ = fs::remove_file(&private);
        return Err(e);
    }
    Ok(listener)
}

/// Makes `user`, if any, the owner of the socket at `path`.
fn give_to(path: &Path, user: Option<u32>) -> io::Result<()> {
    let Some(user) = user.filter(|user| *user != rustix::process::geteuid().as_raw()) else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(user), None).map_err(|e| {
        let why = format!("the socket cannot be given to user {user}: {e}; run as root, or as that user");
        io::Error::new(e.kind(), why)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        drop(UnixListener::bind(&path).unwrap());
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(listen(&path).is_ok());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no private name is left behind");
    }

    #[test]
    fn connecting_to_a_full_queue_comes_back_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send((connect(&path).map(drop), listen(&path).map(drop))));
        let (connected, listening) = receiver.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(listening.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(12345), None).is_err() {
            // Only root can give a directory away.
            return;
        }
        let refused = listen(&dir.path().join("vm.sock")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_file_that_is_no_socket_and_a_directory_open_to_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        fs::write(&path, "precious").unwrap();
        assert!(listen(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(listen(&dir.path().join("b")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
