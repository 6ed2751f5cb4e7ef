//! One TCP connection of an attachment to the metadata service: a request is read, answered, and the connection closed.
//!
//! What must stay true: it ends within [`LONGEST`] of its first packet, whatever the guest sends or leaves out, so that half-open and slow
//! connections cost their attachment a place for that long and nobody else anything.

use core::time::Duration;
use std::sync::Arc;

use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::http::{self, LONGEST_HEAD, Reply};

/// How long a connection lasts at most.
pub(super) const LONGEST: Duration = Duration::from_secs(20);

/// Bytes of a socket's buffers: what a guest may have on the way, and we.
const RECEIVE: usize = 2048;
const SEND: usize = 8 * 1024;

/// A socket that waits for a guest on HTTP's port.
pub(super) fn listener() -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; RECEIVE]), SocketBuffer::new(vec![0; SEND]));
    // A new socket, and a port that is not 0.
    let listens = socket.listen(80);
    debug_assert!(listens.is_ok());
    socket.set_nagle_enabled(false);
    socket
}

/// What has become of one since its first packet.
pub(super) struct Connection {
    since: Duration,
    doing: Doing,
}

enum Doing {
    Reading(Vec<u8>),
    Writing { parts: [Arc<[u8]>; 2], at: usize },
    Closing,
}

impl Connection {
    pub(super) fn new(now: Duration) -> Self {
        Self { since: now, doing: Doing::Reading(Vec::new()) }
    }

    /// When it ends in any case.
    pub(super) fn end(&self) -> Duration {
        self.since + LONGEST
    }

    /// Moves on as far as the socket lets it; false when the socket can be let go.
    pub(super) fn go_on(
        &mut self,
        now: Duration,
        socket: &mut Socket<'_>,
        answer: impl FnOnce(&http::Asked) -> Reply,
    ) -> bool {
        if now >= self.end() {
            // The guest is told when its socket is polled.
            socket.abort();
            return false;
        }
        if let Doing::Reading(head) = &mut self.doing
            && let Some(reply) = read(head, socket, answer)
        {
            let (head, body) = reply.parts();
            self.doing = Doing::Writing { parts: [head.into(), body], at: 0 };
        }
        if let Doing::Writing { parts: [head, body], at } = &mut self.doing {
            while *at < head.len() + body.len() && socket.can_send() {
                let rest = match head.get(*at..) {
                    Some(rest) if !rest.is_empty() => rest,
                    _ => body.get(*at - head.len()..).unwrap_or_default(),
                };
                match socket.send_slice(rest) {
                    Ok(0) | Err(_) => break,
                    Ok(sent) => *at += sent,
                }
            }
            if *at >= head.len() + body.len() {
                socket.close();
                self.doing = Doing::Closing;
            }
        }
        // What the guest says behind its request is not read, but must not keep its end from closing.
        if matches!(self.doing, Doing::Closing) {
            while socket.can_recv() && socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|n| n > 0) {}
        }
        let gave_up = matches!(self.doing, Doing::Reading(_)) && socket.state() == State::CloseWait;
        if gave_up {
            socket.close();
            self.doing = Doing::Closing;
        }
        // All is said and acknowledged. A guest that asks again about the end is told that there is nothing any more.
        !matches!(socket.state(), State::Closed | State::TimeWait)
    }
}

/// Takes what there is of a request; the answer once it is whole.
fn read(
    head: &mut Vec<u8>,
    socket: &mut Socket<'_>,
    answer: impl FnOnce(&http::Asked) -> Reply,
) -> Option<Reply> {
    while socket.can_recv() && head.len() < LONGEST_HEAD {
        let taken = socket.recv(|bytes| {
            let taken = bytes.len().min(LONGEST_HEAD - head.len());
            head.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            (taken, taken)
        });
        if !taken.is_ok_and(|taken| taken > 0) {
            break;
        }
    }
    match http::read(head) {
        Ok(None) => None,
        Ok(Some(asked)) => Some(answer(&asked)),
        Err(reply) => Some(reply),
    }
}
