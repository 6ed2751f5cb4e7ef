//! The host's side of DNS forwarding: a connected UDP socket for each question at each server.
//!
//! What must stay true: the sockets are the daemon's, in its network namespace, and as many as `nve_core::gateway::dns` has attempts that are
//! listened to; each is bound to a port that the kernel draws at random (RFC 5452, 9.2), connected so that the kernel drops what does not come from its server,
//! and closed with its question. Nothing here waits.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nve_core::gateway::dns::{Errand, Heard, Random, Token};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

/// Sockets looked at in one turn.
const EVENTS: usize = 64;
/// Datagrams taken from one socket in one turn; the rest comes in the next.
const DATAGRAMS: usize = 8;
/// Longer than any answer that a tenant can be given; what is cut off here is told to be cut off there.
const LONGEST: usize = 65_535;

/// Identifications of questions: a keyed hash (SipHash, the key from the kernel) of a counter, so that those seen tell nothing of the next.
#[must_use]
pub fn random() -> Random {
    let keys = RandomState::new();
    let mut count = 0_u64;
    Box::new(move || {
        count += 1;
        keys.hash_one(count) as u16
    })
}

/// The sockets of the questions that are outstanding.
#[derive(Debug)]
pub(super) struct Resolvers {
    epoll: OwnedFd,
    open: HashMap<Token, UdpSocket>,
}

impl Resolvers {
    /// None are open.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, open: HashMap::new() })
    }

    /// Does it; what could not be done is news as well.
    pub(super) fn perform(&mut self, errand: Errand) -> Option<(Token, Heard)> {
        match errand {
            Errand::Send { token, server, message } => {
                let sent = self.send(token, server, &message);
                sent.is_err().then_some((token, Heard::Unreachable))
            }
            Errand::Close(token) => {
                // Closing takes it out of the epoll set.
                self.open.remove(&token);
                None
            }
        }
    }

    fn send(&mut self, token: Token, server: SocketAddr, message: &[u8]) -> io::Result<()> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(server)?;
        socket.send(message)?;
        let data = epoll::EventData::new_u64(token.0);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        self.open.insert(token, socket);
        Ok(())
    }

    /// What has come since the last look, as far as one turn goes.
    pub(super) fn news(&self) -> Vec<(Token, Heard)> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let mut events = Vec::with_capacity(EVENTS);
        // Not to wait is never interrupted.
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)).is_err() {
            return Vec::new();
        }
        if events.is_empty() {
            return Vec::new();
        }
        let mut news = Vec::new();
        let mut buffer = vec![0; LONGEST];
        for event in events {
            let token = Token(event.data.u64());
            let Some(socket) = self.open.get(&token) else { continue };
            for _ in 0..DATAGRAMS {
                match socket.recv_from(&mut buffer) {
                    Ok((len, from)) => {
                        let message = buffer.get(..len).unwrap_or_default().to_vec();
                        news.push((token, Heard::Datagram(from, message)));
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    // The server's host says that nobody listens there, or a router that there is no way.
                    Err(_) => {
                        news.push((token, Heard::Unreachable));
                        break;
                    }
                }
            }
        }
        news
    }
}

/// Readable when there are news.
impl AsFd for Resolvers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const ONE: Token = Token(1);
    const TWO: Token = Token(2);

    fn server(address: &str) -> UdpSocket {
        let server = UdpSocket::bind((address, 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        server
    }

    fn send(resolvers: &mut Resolvers, token: Token, server: SocketAddr) -> Option<(Token, Heard)> {
        resolvers.perform(Errand::Send { token, server, message: b"question".to_vec() })
    }

    /// The next news, which must come.
    fn news(resolvers: &Resolvers) -> Vec<(Token, Heard)> {
        let start = Instant::now();
        loop {
            let news = resolvers.news();
            if !news.is_empty() || start.elapsed() > Duration::from_secs(10) {
                return news;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn each_question_has_a_port_of_its_own_and_hears_its_server_alone() {
        for address in ["127.0.0.1", "::1"] {
            let (server, stranger) = (server(address), server(address));
            let mut resolvers = Resolvers::new().unwrap();
            let to = server.local_addr().unwrap();
            assert_eq!((send(&mut resolvers, ONE, to), send(&mut resolvers, TWO, to)), (None, None));
            let mut buffer = [0; 64];
            let (_, one) = server.recv_from(&mut buffer).unwrap();
            let (len, two) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"question");
            assert_ne!(one.port(), two.port());
            stranger.send_to(b"forged", one).unwrap();
            server.send_to(b"answer", two).unwrap();
            assert_eq!(news(&resolvers), [(TWO, Heard::Datagram(to, b"answer".to_vec()))]);
            resolvers.perform(Errand::Close(ONE));
            resolvers.perform(Errand::Close(TWO));
            assert!(resolvers.open.is_empty() && resolvers.news().is_empty());
        }
    }

    #[test]
    fn a_server_where_nobody_listens_is_told() {
        let gone = server("127.0.0.1").local_addr().unwrap();
        let mut resolvers = Resolvers::new().unwrap();
        assert_eq!(send(&mut resolvers, ONE, gone), None);
        assert_eq!(news(&resolvers), [(ONE, Heard::Unreachable)]);
    }

    #[test]
    fn identifications_do_not_repeat_soon() {
        let mut random = random();
        let seen: std::collections::HashSet<u16> = (0..1000).map(|_| random()).collect();
        assert!(seen.len() > 950, "{} of 1000", seen.len());
    }
}
