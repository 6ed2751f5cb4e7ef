//! The thread: triangles and arrivals out, datagrams in, and what has ended.
//!
//! What must stay true: it serves a bounded part of each before it looks at the others; whatever one note or datagram does, the next is
//! served.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nve_core::pipeline::{Nve, Triangle};
use nve_core::redirect::{At, Datagram, Herald, LEN, Listener, Outcome, Teller};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::service::{Bound, Current, Shared};
use crate::contained::contained;
use crate::punt::Bell;

/// Triangles that may wait.
pub(super) const QUEUE: usize = 256;
/// Of each kind, between two looks at the others.
const BATCH: usize = 64;
/// What others learn wakes nobody: its end is looked for so often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// A worker's end of the queue.
#[derive(Clone, Debug)]
pub struct Notes {
    triangles: SyncSender<Triangle>,
    bell: Arc<Bell>,
}

impl Notes {
    pub(super) fn new(triangles: SyncSender<Triangle>, bell: Arc<Bell>) -> Self {
        Self { triangles, bell }
    }

    /// Never blocks.
    #[cold]
    pub fn note(&self, triangle: Triangle) {
        // No room: the pair is noted again in half a second.
        if self.triangles.try_send(triangle).is_ok() {
            self.bell.ring();
        }
    }
}

pub(super) struct Thread {
    nve: Arc<Nve>,
    shared: Arc<Shared>,
    inbox: Receiver<Triangle>,
    listener: Listener,
    teller: Teller,
    herald: Herald,
    panics: u64,
}

impl Thread {
    pub(super) fn new(nve: Arc<Nve>, shared: Arc<Shared>, inbox: Receiver<Triangle>) -> Self {
        let unix = at().unix;
        let (listener, teller) = (Listener::new(Arc::clone(&nve), unix), Teller::new(Arc::clone(&nve), unix));
        let herald = Herald::new(Arc::clone(&nve));
        Self { nve, shared, inbox, listener, teller, herald, panics: 0 }
    }

    pub(super) fn run(mut self) {
        loop {
            self.shared.bell.hush();
            if self.shared.quit.load(Ordering::Acquire) {
                return;
            }
            let current = self.shared.current.load_full();
            let served =
                contained(|| self.triangles(&current) + self.datagrams(&current) + self.arrivals(&current));
            let served = served.unwrap_or_else(|said| {
                self.panicked(&said);
                BATCH
            });
            if self.nve.sweep(crate::epoch::now()) == 0 && served == 0 {
                self.sleep(&current);
            }
        }
    }

    /// A batch of what workers noted; how much it was.
    fn triangles(&mut self, current: &Current) -> usize {
        let mut count = 0;
        while count < BATCH
            && let Ok(triangle) = self.inbox.try_recv()
        {
            count += 1;
            let datagram = self.teller.tell(&current.policy, at(), triangle);
            let outcome = datagram.map_or_else(|why| why, |datagram| send(current, &datagram));
            self.shared.tally.count(outcome);
        }
        count
    }

    /// Guests that have come, and a batch of what their old hosts are told; how much that was.
    fn arrivals(&mut self, current: &Current) -> usize {
        for arrival in self.herald.arrivals(at()) {
            let from = arrival.identifiers.iter().find_map(|arrived| arrived.from);
            let from = from.map_or_else(|| "nowhere".to_owned(), |from| from.to_string());
            log::info!("attachment {}: its guest has come, from {from}", arrival.attachment);
        }
        let mut count = 0;
        while count < BATCH
            && let Some(datagram) = self.herald.next(&mut self.teller, &current.policy, at())
        {
            count += 1;
            let outcome = datagram.map_or_else(|why| why, |datagram| send(current, &datagram));
            self.shared.tally.count(outcome);
        }
        count
    }

    /// A batch of what came; how much it was.
    fn datagrams(&mut self, current: &Current) -> usize {
        current.sockets.iter().map(|bound| self.datagrams_at(bound, current)).sum()
    }

    fn datagrams_at(&mut self, bound: &Bound, current: &Current) -> usize {
        // One byte more, so that what is too long shows.
        let mut bytes = [0; LEN + 1];
        let mut count = 0;
        while count < BATCH
            && let Ok((len, from)) = bound.socket.recv_from(&mut bytes)
        {
            count += 1;
            let from = match from {
                SocketAddr::V6(from) => *from.ip(),
                SocketAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            };
            let outcome = self.listener.hear(&current.policy, at(), from, &bytes[..len]);
            self.shared.tally.count(outcome);
        }
        count
    }

    /// Told the first time and then ever more seldom.
    fn panicked(&mut self, said: &str) {
        self.panics += 1;
        if self.panics.is_power_of_two() {
            log::error!("redirects panicked ({} times): {said}", self.panics);
        }
    }

    fn sleep(&self, current: &Current) {
        let due = self.nve.sweep_due().into_iter().chain(self.herald.due()).min();
        let due = due.map(|due| due.saturating_sub(crate::epoch::now()));
        let limit = due.unwrap_or(LONGEST_SLEEP).clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let bell = PollFd::new(&*self.shared.bell, PollFlags::IN);
        let sockets = current.sockets.iter().map(|bound| PollFd::new(&*bound.socket, PollFlags::IN));
        let mut all: Vec<_> = std::iter::once(bell).chain(sockets).collect();
        // A signal that interrupts is a wake like any other.
        let _ = poll(&mut all, Some(&limit));
    }
}

/// From the control address that the message says is its sender's.
fn send(current: &Current, datagram: &Datagram) -> Outcome {
    let bound = current.sockets.iter().find(|bound| bound.at.0 == datagram.from);
    let sent = bound.is_some_and(|Bound { socket, at: (_, port) }| {
        socket.send_to(&datagram.bytes, (datagram.to, *port)).is_ok_and(|len| len == LEN)
    });
    if sent { Outcome::Sent } else { Outcome::NotSent }
}

/// Now. A clock before 1970 refuses everything as stale.
fn at() -> At {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    At { now: crate::epoch::now(), unix }
}
