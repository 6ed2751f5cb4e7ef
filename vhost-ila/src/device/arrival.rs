//! Waiting for a front-end's next message, and for no other reason than that.
//!
//! What must stay true:
//!
//! * An idle connection may be idle for ever. From the first byte of a message on, its last must come within [`PATIENCE`], and so
//!   must the room for our answer: a peer that sends halves, or reads no replies, loses its connection and not our thread.
//! * The dispatcher behind us reads with blocking calls and tries again where it should give up, so it is only called when all it
//!   will read is in the socket ([`Next::Message`]) or nothing more can come ([`Next::End`]), and when what it will write fits.
//! * More descriptors than the dispatcher receives (32) are refused before it looks: it would lose its place in the stream.
//!
//! ```text
//!   epoll, edge-triggered: bytes, room, hang-up ──> header and descriptors (peeked) ──> all there? ──> Message
//!                              ^                                                         │ no
//!                              └─────────────── what is left of PATIENCE ────────────────┘
//! ```

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Event, Events};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use super::server::Epoll;

/// From the first byte of a message to its last, and until there is room for the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of request, flags and size.
pub(super) const HEADER: usize = 12;
/// Largest payload of a message; what claims more is refused by its header.
const MAX_PAYLOAD: u32 = 4096;
/// Descriptors the dispatcher takes beside one message.
const MAX_DESCRIPTORS: usize = 32;
/// The most that Linux passes at once (`SCM_MAX_FD`).
const KERNEL_DESCRIPTORS: usize = 253;

/// Request, flags and size of the payload, as they lie in the socket; nothing is judged yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) request: u32,
    pub(super) flags: u32,
    pub(super) size: u32,
}

impl Header {
    pub(super) fn from_bytes(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let [request, flags, size] = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
        Self { request, flags, size }
    }

    /// Bytes the dispatcher will want: a payload beyond the limit is refused unread.
    fn wanted(self) -> u64 {
        let payload = if self.size <= MAX_PAYLOAD { self.size } else { 0 };
        HEADER as u64 + u64::from(payload)
    }
}

/// What there is to do.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// A whole message is in the socket.
    Message(Header),
    /// The peer is gone, perhaps in the middle of a message; the dispatcher says which.
    End,
}

/// What a front-end may not do, before a message is even looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("half a message, and not the rest within {} s", .0.as_secs_f32())]
    Half(Duration),
    #[error("our answers are not read: no room for the next within {} s", .0.as_secs_f32())]
    Unread(Duration),
    #[error("more than {MAX_DESCRIPTORS} descriptors beside a message")]
    Descriptors,
    #[error("a header in pieces, with descriptors between them")]
    Pieces,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The messages of one connection.
pub(super) struct Arrivals {
    stream: UnixStream,
    epoll: Epoll,
    patience: Duration,
    gone: bool,
}

impl Arrivals {
    /// # Errors
    /// The system's.
    pub(super) fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        // Should ever a read of the dispatcher's find less than was there: it fails, and does not wait.
        set_socket_timeout(&stream, Timeout::Recv, Some(patience))?;
        let epoll = Epoll::new()?;
        let events = Events::EPOLLIN | Events::EPOLLOUT | Events::EPOLLRDHUP | Events::EPOLLET;
        epoll::ctl(epoll.0, ControlOptions::EPOLL_CTL_ADD, stream.as_raw_fd(), Event::new(events, 0))?;
        Ok(Self { stream, epoll, patience, gone: false })
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// What the connection is to be closed for.
    pub(super) fn next(&mut self) -> Result<Next, Refused> {
        let mut begun = None;
        loop {
            let queued = rustix::io::ioctl_fionread(&self.stream).map_err(io::Error::from)?;
            let header = if queued >= HEADER as u64 { Some(self.header()?) } else { None };
            let whole = header.filter(|header| queued >= header.wanted());
            if let Some(header) = whole
                && self.has_room()?
            {
                return Ok(Next::Message(header));
            }
            if self.gone {
                return Ok(Next::End);
            }
            let mut left = None;
            if queued > 0 {
                let waited = begun.get_or_insert_with(Instant::now).elapsed();
                if waited >= self.patience {
                    let late = if whole.is_some() { Refused::Unread } else { Refused::Half };
                    return Err(late(self.patience));
                }
                left = Some(self.patience - waited);
            }
            self.wait(left)?;
        }
    }

    /// Looks at the header without taking it, and counts the descriptors that come with it.
    fn header(&self) -> Result<Header, Refused> {
        let mut bytes = [0; HEADER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let seen =
            rustix::net::recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
                .map_err(io::Error::from)?;
        let passed = ancillary.drain().map(|message| match message {
            // Copies, closed here; the dispatcher receives them anew.
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
            _ => 0,
        });
        if passed.sum::<usize>() > MAX_DESCRIPTORS || seen.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Refused::Descriptors);
        }
        if seen.bytes < HEADER {
            return Err(Refused::Pieces);
        }
        Ok(Header::from_bytes(bytes))
    }

    /// Whether an answer fits without waiting: a Unix socket counts as writable while less than a quarter of its buffer is
    /// taken, and no answer is as long as the rest.
    fn has_room(&self) -> io::Result<bool> {
        let mut room = [PollFd::new(&self.stream, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut room, Some(&at_once)))? > 0)
    }

    /// Waits for something to change, at most `limit`.
    fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        // Rounded up, so that the last millisecond is slept and not spun.
        let millis =
            limit.map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).saturating_add(1));
        let mut events = [Event::new(Events::empty(), 0)];
        match epoll::wait(self.epoll.0, millis, &mut events) {
            Ok(0) => Ok(()),
            Ok(_) => {
                let [event] = events;
                let over = Events::EPOLLRDHUP | Events::EPOLLHUP | Events::EPOLLERR;
                self.gone |= Events::from_bits_truncate(event.events).intersects(over);
                Ok(())
            }
            Err(e) if e.raw_os_error() == Some(Errno::INTR.raw_os_error()) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn message(size: u32, payload: usize) -> Vec<u8> {
        let header = [3, 1, size].map(u32::to_ne_bytes).concat();
        [header, vec![0; payload]].concat()
    }

    fn pair(patience: Duration) -> (UnixStream, Arrivals, UnixStream) {
        let (front_end, stream) = UnixStream::pair().unwrap();
        let arrivals = Arrivals::new(stream.try_clone().unwrap(), patience).unwrap();
        (front_end, arrivals, stream)
    }

    #[test]
    fn a_message_that_comes_in_pieces_is_waited_for_and_one_that_does_not_end_is_not() {
        let (mut front_end, mut arrivals, mut stream) = pair(Duration::from_secs(20));
        let bytes = message(8, 8);
        let sender = std::thread::spawn(move || {
            for byte in bytes {
                front_end.write_all(&[byte]).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            front_end
        });
        assert!(matches!(arrivals.next().unwrap(), Next::Message(Header { request: 3, flags: 1, size: 8 })));
        stream.read_exact(&mut [0; 20]).unwrap();
        drop(sender.join().unwrap());
        assert_eq!(arrivals.next().unwrap(), Next::End);

        for half in [&message(8, 8)[..1], &message(8, 8)[..11], &message(8, 8)[..19]] {
            let (mut front_end, mut arrivals, _stream) = pair(SHORT);
            front_end.write_all(half).unwrap();
            let begin = Instant::now();
            assert!(matches!(arrivals.next(), Err(Refused::Half(_))));
            assert!(begin.elapsed() >= SHORT);
        }
    }

    #[test]
    fn silence_is_no_offence() {
        let (mut front_end, mut arrivals, _stream) = pair(SHORT);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(4 * SHORT);
            front_end.write_all(&message(0, 0)).unwrap();
            front_end
        });
        assert!(matches!(arrivals.next().unwrap(), Next::Message(_)));
        drop(sender.join().unwrap());
    }

    #[test]
    fn a_peer_that_reads_no_answers_is_given_up_before_one_would_block() {
        let (mut front_end, mut arrivals, mut stream) = pair(SHORT);
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 256]).is_ok() {}
        front_end.write_all(&message(0, 0)).unwrap();
        assert!(matches!(arrivals.next(), Err(Refused::Unread(_))));
    }

    #[test]
    fn a_payload_beyond_the_limit_is_not_waited_for() {
        let (mut front_end, mut arrivals, _stream) = pair(Duration::from_secs(20));
        front_end.write_all(&message(u32::MAX, 0)).unwrap();
        assert!(matches!(arrivals.next().unwrap(), Next::Message(Header { size: u32::MAX, .. })));
    }

    #[test]
    fn more_descriptors_than_the_dispatcher_takes_are_refused_and_none_stays_open() {
        let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        for (count, taken) in [(1, true), (32, true), (33, false), (253, false)] {
            let (front_end, mut arrivals, _stream) = pair(SHORT);
            let descriptors = vec![event.as_raw_fd(); count];
            front_end.send_with_fds(&[&message(0, 0)[..]], &descriptors).unwrap();
            assert_eq!(arrivals.next().is_ok(), taken, "{count}");
        }
        let (mut front_end, mut arrivals, _stream) = pair(SHORT);
        front_end.send_with_fds(&[&message(0, 0)[..5]], &[event.as_raw_fd()]).unwrap();
        front_end.write_all(&message(0, 0)[5..]).unwrap();
        assert!(matches!(arrivals.next(), Err(Refused::Pieces)));
    }
}
