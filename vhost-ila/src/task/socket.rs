//! The plug socket: one thread that takes descriptors, one at a time.
//!
//! What must stay true: only root and our own user are heard (SO_PEERCRED), before a byte is read; whoever is heard has
//! [`PATIENCE`], and a mistake in one request costs that request.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::message::{self, Answer};
use super::{PlugError, Tasks};
use crate::contained::contained;
use crate::device::peer;
use crate::device::server::listen;
use crate::uplink::{Tun, WrongDescriptor};

/// A request must come, and its answer be taken, in this time.
const PATIENCE: Duration = Duration::from_secs(3);
/// After an `accept` that fails: there may be no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// What a request is refused for.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Stranger(#[from] peer::Stranger),
    #[error("{0}")]
    Garbled(#[from] message::Garbled),
    #[error("{0}")]
    Descriptor(#[from] WrongDescriptor),
    #[error("{0}")]
    Plug(#[from] PlugError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A served plug socket; it ends, and its name goes, when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    /// Listens at `path` for the NICs of `tasks`.
    ///
    /// # Errors
    /// The socket cannot be made: see [`listen`].
    pub fn serve(path: &Path, tasks: Arc<Tasks>) -> io::Result<Self> {
        let listener = listen(path)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let thread = std::thread::Builder::new().name("plug".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || run(&listener, &stop, &tasks)
        })?;
        Ok(Self { path: path.to_owned(), stop, thread: Some(thread) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Ours and non-blocking: it cannot fail for anything but a full counter, which wakes as well.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It contains the panics of its requests.
            let _ = thread.join();
        }
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn run(listener: &UnixListener, stop: &OwnedFd, tasks: &Tasks) {
    loop {
        let mut waiting = [PollFd::new(stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        // An interrupted wait is a look like any other.
        let _ = poll(&mut waiting, None);
        if let [end, _] = &waiting
            && !end.revents().is_empty()
        {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(said) = contained(|| serve(&stream, tasks)) {
                    log::error!("plug: a mistake of ours, please report it: {said}");
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => {
                log::warn!("plug: {e}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn serve(stream: &UnixStream, tasks: &Tasks) {
    let answer = match take(stream, tasks) {
        Ok(()) => Answer::Plugged,
        Err(refused) => {
            log::warn!("plug: {refused}");
            Answer::Refused(refused.to_string())
        }
    };
    // Who does not wait for the answer does not want it.
    let _ = message::answer(stream, &answer);
}

fn take(stream: &UnixStream, tasks: &Tasks) -> Result<(), Refused> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    peer::admit(stream, None)?;
    let (request, descriptor) = message::asked(stream)?;
    let name = &request.plug;
    let tun = Tun::adopt(descriptor).inspect_err(|wrong| tasks.refused(name, &wrong.to_string()))?;
    let interface = tun.interface()?;
    let holder = if request.hold { Some(stream.try_clone()?) } else { None };
    tasks.plug(name, Box::new(tun), &interface, holder)?;
    log::info!("{name}: {interface} is plugged in");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufReader, Write as _};
    use std::os::fd::{AsFd as _, BorrowedFd};

    use nve_core::addr::ChecksumMode;
    use nve_core::pipeline::Nve;
    use nve_core::setup::{Host, Setup};

    use super::*;
    use crate::device::handover;
    use crate::task::message::{Garbled, Request, answered, ask};

    /// A served socket in a directory of its own, without a worker behind it.
    fn served() -> (tempfile::TempDir, Socket, Arc<Tasks>) {
        let host = Host {
            name: "hv1".into(),
            locator: "2001:db8:0:1::/64".parse().unwrap(),
            sir: "2001:db8:51::/64".parse().unwrap(),
            checksum: ChecksumMode::Neutral,
            uplink_mtu: 1500,
            unknown: Default::default(),
        };
        let setup = Setup::of(host);
        let nve = Nve::new(setup.check().unwrap(), 16);
        let (link, _) = handover::links(1).unwrap();
        let tasks = Arc::new(Tasks::new(nve, link));
        tasks.apply(&["web".to_owned()]);
        let directory = tempfile::tempdir().unwrap();
        let socket = Socket::serve(&directory.path().join("plug.sock"), Arc::clone(&tasks)).unwrap();
        (directory, socket, tasks)
    }

    fn refusal(socket: &Socket, descriptor: BorrowedFd<'_>) -> String {
        let stream = UnixStream::connect(&socket.path).unwrap();
        ask(&stream, &Request { plug: "web".into(), hold: true }, descriptor).unwrap();
        match answered(&mut BufReader::new(stream)).unwrap() {
            Answer::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_tun_is_refused_by_name_and_closed() {
        let (directory, socket, tasks) = served();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (reader, _writer) = io::pipe().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let null = File::open("/dev/null").unwrap();
        let before = open();
        for (descriptor, what) in [
            (reader.as_fd(), "a pipe"),
            (one.as_fd(), "a socket"),
            (file.as_fd(), "a file"),
            (null.as_fd(), "another device"),
        ] {
            let why = refusal(&socket, descriptor);
            assert!(why.contains("not of /dev/net/tun") && why.contains(what), "{why}");
            assert_eq!(tasks.report()[0].last_fault.as_ref(), Some(&why), "and an operator sees it");
        }
        // Other tests of this process open files of their own; fewer than came here in all.
        for _ in 0..200 {
            refusal(&socket, null.as_fd());
        }
        assert!(open() < before + 100, "{before} became {}", open());
        // One that was never made an interface of; where there is no such device, this cannot be tried.
        if let Ok(tun) = File::options().read(true).write(true).open("/dev/net/tun") {
            let why = refusal(&socket, tun.as_fd());
            assert!(why.contains("no interface"), "{why}");
        }
    }

    #[test]
    fn a_request_that_is_none_is_refused_and_the_next_is_heard() {
        let (_directory, socket, _tasks) = served();
        for (garbage, what) in [(&b"{}\n"[..], "no descriptor"), (b"\n", "no descriptor")] {
            let mut stream = UnixStream::connect(&socket.path).unwrap();
            stream.write_all(garbage).unwrap();
            let answer = answered(&mut BufReader::new(stream)).unwrap();
            assert!(matches!(&answer, Answer::Refused(why) if why.contains(what)), "{answer:?}");
        }
        // One that hangs up at once, and one that says nothing: the first costs nothing, the second its time.
        drop(UnixStream::connect(&socket.path).unwrap());
        let silent = UnixStream::connect(&socket.path).unwrap();
        let answer = answered(&mut BufReader::new(silent)).unwrap();
        assert!(matches!(&answer, Answer::Refused(_)), "{answer:?}");
        let null = File::open("/dev/null").unwrap();
        assert!(refusal(&socket, null.as_fd()).contains("another device"));
    }

    #[test]
    fn descriptors_beyond_the_one_that_is_asked_for_are_refused() {
        use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;
        let (_directory, socket, _tasks) = served();
        let null = File::open("/dev/null").unwrap();
        for count in [2, 4, 5, 100] {
            let stream = UnixStream::connect(&socket.path).unwrap();
            let line = b"{\"plug\":\"web\",\"hold\":false}\n";
            let descriptors = vec![std::os::fd::AsRawFd::as_raw_fd(&null); count];
            stream.send_with_fds(&[&line[..]], &descriptors).unwrap();
            let answer = answered(&mut BufReader::new(stream)).unwrap();
            assert!(
                matches!(&answer, Answer::Refused(why) if why.contains("several")),
                "{count}: {answer:?}"
            );
        }
    }

    #[test]
    fn the_socket_is_our_users_alone_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let (directory, socket, _tasks) = served();
        let path = directory.path().join("plug.sock");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let waiting = UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        assert!(matches!(
            answered(&mut BufReader::new(waiting)),
            Ok(Answer::Refused(_)) | Err(Garbled::Ended | Garbled::Io(_))
        ));
    }
}
