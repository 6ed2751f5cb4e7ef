//! How rings, and tasks' NICs, move between control threads and the workers: by value, one owner at a time.
//!
//! Pair `p` of port `n` goes to worker `(n + p) mod N`, so a guest with several pairs uses several workers; a receive ring is started and
//! stopped by that worker, and written to by all (`worker/homes.rs`). Tasks' NICs are read by the first.
//!
//! What must stay true: [`WorkerLink::start`] and [`WorkerLink::stop`] return only when the worker has done it, so what the
//! control thread does next (unmapping memory, answering the front-end) finds nobody using the old state: no worker holds a ring, or has
//! one of its descriptors left to signal.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use nve_core::pipeline::PortId;
use vmm_sys_util::eventfd::EventFd;

use super::control_queue::ControlQueue;
use super::event::PeerEvent;
use super::features::Accepted;
use super::net_header::SenderOffloads;
use super::ring::{ReceiveRing, RingFault, TransmitRing};
use super::status::Status;
use crate::task::Nic;

/// The descriptors of one ring.
#[derive(Debug, Default)]
pub struct Events {
    /// The guest made buffers available.
    pub kick: Option<PeerEvent>,
    /// We finished buffers.
    pub call: Option<PeerEvent>,
    /// The ring is broken.
    pub error: Option<PeerEvent>,
}

/// Which ring of an attachment (virtio 1.2, 5.1.2); pairs count from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The guest receives by it.
    Receive(u8),
    /// The guest sends by it.
    Transmit(u8),
    /// The guest commands by it.
    Control,
}

impl Role {
    /// What vhost-user's ring `index` is on a device that offers `pairs` and whose front-end accepted `features`: receive and transmit
    /// in turn, and behind the last pair the control queue, which without MQ is the one pair there is.
    #[must_use]
    pub fn of(index: usize, pairs: u8, features: Accepted) -> Option<Self> {
        let pair = u8::try_from(index / 2).ok()?;
        let last = if features.multiqueue() { pairs } else { 1 };
        if features.control_queue() && index == 2 * usize::from(last) {
            return Some(Self::Control);
        }
        if pair >= pairs {
            return None;
        }
        Some(if index.is_multiple_of(2) { Self::Receive(pair) } else { Self::Transmit(pair) })
    }
}

/// A running transmit ring and what belongs to it.
#[derive(Debug)]
pub struct TransmitQueue {
    /// Its pair.
    pub pair: u8,
    /// The ring.
    pub ring: TransmitRing,
    /// Its descriptors.
    pub events: Events,
    /// What headers may ask for.
    pub allowed: SenderOffloads,
    /// SET_VRING_ENABLE: a disabled transmit ring is emptied and what it held is dropped.
    pub enabled: bool,
    /// Set once it is broken; it is then left alone.
    pub fault: Option<RingFault>,
    /// Where that is shown.
    pub status: Arc<Status>,
}

/// A running receive ring and what belongs to it.
#[derive(Debug)]
pub struct ReceiveQueue {
    /// Its pair.
    pub pair: u8,
    /// The ring.
    pub ring: ReceiveRing,
    /// Its descriptors.
    pub events: Events,
    /// The guest accepts DATA_VALID.
    pub verified: bool,
    /// Set once it is broken; it is then left alone.
    pub fault: Option<RingFault>,
    /// Where that is shown.
    pub status: Arc<Status>,
}

/// One ring on its way.
#[derive(Debug)]
pub enum Queue {
    /// A receive ring.
    Receive(Box<ReceiveQueue>),
    /// A transmit ring.
    Transmit(Box<TransmitQueue>),
    /// The control queue.
    Control(Box<ControlQueue>),
}

impl Queue {
    /// Which one it is.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Receive(q) => Role::Receive(q.pair),
            Self::Transmit(q) => Role::Transmit(q.pair),
            Self::Control(_) => Role::Control,
        }
    }

    /// Where another owner of the ring goes on.
    #[must_use]
    pub fn base(&self) -> u32 {
        match self {
            Self::Receive(q) => q.ring.base(),
            Self::Transmit(q) => q.ring.base(),
            Self::Control(q) => q.ring.base(),
        }
    }

    /// Its descriptors.
    #[must_use]
    pub fn events(&self) -> &Events {
        match self {
            Self::Receive(q) => &q.events,
            Self::Transmit(q) => &q.events,
            Self::Control(q) => &q.events,
        }
    }

    /// Its descriptors, the ring itself gone.
    #[must_use]
    pub fn into_events(self) -> Events {
        match self {
            Self::Receive(q) => q.events,
            Self::Transmit(q) => q.events,
            Self::Control(q) => q.events,
        }
    }
}

/// What the worker is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Serve a ring; the answer says whether its kick could be watched.
    Start(PortId, Queue, Sender<io::Result<()>>),
    /// Give a ring back.
    Stop(PortId, Role, Sender<Option<Queue>>),
    /// Serve a task's NIC; the answer says whether it could be watched.
    Plug(PortId, Nic, Sender<io::Result<()>>),
    /// Let go of a task's NIC; the answer says whether there was one.
    Unplug(PortId, Sender<bool>),
    /// Answer when nothing is left of the turns before: no descriptor to be signalled.
    Pass(Sender<()>),
    /// End.
    Quit,
}

/// The control side's end of all workers.
#[derive(Clone, Debug)]
pub struct WorkerLink(Arc<[Line]>);

/// The way to one worker.
#[derive(Debug)]
struct Line {
    requests: Sender<Request>,
    pending: Arc<AtomicBool>,
    wake: Arc<EventFd>,
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerInbox {
    requests: Receiver<Request>,
    pending: Arc<AtomicBool>,
    wake: Arc<EventFd>,
}

/// The ends of so many workers, in their order.
///
/// # Errors
/// The system's, where no eventfd can be made.
pub fn links(workers: u16) -> io::Result<(WorkerLink, Vec<WorkerInbox>)> {
    let ends = (0..workers).map(|_| line()).collect::<io::Result<Vec<_>>>()?;
    let (lines, inboxes): (Vec<_>, _) = ends.into_iter().unzip();
    Ok((WorkerLink(lines.into()), inboxes))
}

fn line() -> io::Result<(Line, WorkerInbox)> {
    let (sender, receiver) = channel();
    let pending = Arc::new(AtomicBool::new(false));
    let wake = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
    let line = Line { requests: sender, pending: Arc::clone(&pending), wake: Arc::clone(&wake) };
    let inbox = WorkerInbox { requests: receiver, pending, wake };
    Ok((line, inbox))
}

fn worker_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the worker has ended")
}

impl Line {
    fn send(&self, request: Request) -> io::Result<()> {
        self.requests.send(request).map_err(|_| worker_gone())?;
        // In this order: whoever is woken finds it. Woken first, the worker would take our processor, find nothing, and be woken by the same
        // counter again and again until we have the processor back to say what it is.
        self.pending.store(true, Ordering::Release);
        self.wake.write(1)
    }

    /// Sends the request that `what` makes of a way to answer, and waits for the answer.
    fn ask<A>(&self, what: impl FnOnce(Sender<A>) -> Request) -> io::Result<A> {
        let (sender, receiver) = channel();
        self.send(what(sender))?;
        receiver.recv().map_err(|_| worker_gone())
    }
}

impl WorkerLink {
    /// Whose ring that is.
    fn of(&self, port: PortId, role: Role) -> io::Result<&Line> {
        let pair = match role {
            Role::Receive(pair) | Role::Transmit(pair) => pair,
            Role::Control => 0,
        };
        let index = (usize::from(port.0) + usize::from(pair)).checked_rem(self.0.len());
        index.and_then(|index| self.0.get(index)).ok_or_else(worker_gone)
    }

    /// The worker that reads what no ring brings, and the others.
    fn first(&self) -> io::Result<(&Line, &[Line])> {
        self.0.split_first().ok_or_else(worker_gone)
    }

    /// Hands a ring to its worker; returns when it serves it.
    ///
    /// # Errors
    /// The kick descriptor cannot be watched, or the worker has ended.
    pub fn start(&self, port: PortId, queue: Queue) -> io::Result<()> {
        self.of(port, queue.role())?.ask(|answer| Request::Start(port, queue, answer))?
    }

    /// Takes a ring back; returns when every worker has let go of it. None if nobody had it.
    ///
    /// # Errors
    /// A worker has ended.
    pub fn stop(&self, port: PortId, role: Role) -> io::Result<Option<Queue>> {
        let queue = self.of(port, role)?.ask(|answer| Request::Stop(port, role, answer))?;
        if matches!(role, Role::Receive(_)) && self.0.len() > 1 {
            // Any of them may have written to it last. They pass at the same time.
            let asked = self.0.iter().map(|line| {
                let (sender, receiver) = channel();
                line.send(Request::Pass(sender)).map(|()| receiver)
            });
            for passed in asked.collect::<io::Result<Vec<_>>>()? {
                passed.recv().map_err(|_| worker_gone())?;
            }
        }
        Ok(queue)
    }

    /// Hands a task's NIC to the workers; returns when they serve it.
    ///
    /// # Errors
    /// It cannot be watched, or a worker has ended; nobody serves it then.
    pub fn plug(&self, port: PortId, nic: Nic) -> io::Result<()> {
        let (first, others) = self.first()?;
        let plugged = others.iter().try_for_each(|line| {
            let nic = Nic { tun: nic.tun.beside()?, mac: nic.mac, status: Arc::clone(&nic.status) };
            line.ask(|answer| Request::Plug(port, nic, answer))?
        });
        let plugged = plugged.and_then(|()| first.ask(|answer| Request::Plug(port, nic, answer))?);
        if plugged.is_err() {
            // What is left of it; the error is the news.
            let _ = self.unplug(port);
        }
        plugged
    }

    /// Has the workers close a task's NIC; returns when they have, and says whether there was one.
    ///
    /// # Errors
    /// A worker has ended.
    pub fn unplug(&self, port: PortId) -> io::Result<bool> {
        let mut had = false;
        for line in &*self.0 {
            had |= line.ask(|answer| Request::Unplug(port, answer))?;
        }
        Ok(had)
    }

    /// Asks the workers to end.
    pub fn quit(&self) {
        for line in &*self.0 {
            // It may have ended already.
            let _ = line.send(Request::Quit);
        }
    }
}

impl WorkerInbox {
    /// To be watched edge-triggered: a request is a new edge, behind [`Self::take`] having something. It is never read; one that comes late wakes
    /// for nothing, once.
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Whether there may be a request: to be asked before sleeping, as the edge may have been seen for another reason.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The next request, if any; one relaxed load when there is none.
    #[inline]
    pub fn take(&mut self) -> Option<Request> {
        if !self.pending.load(Ordering::Relaxed) { None } else { self.next() }
    }

    #[cold]
    fn next(&mut self) -> Option<Request> {
        self.requests.try_recv().ok().or_else(|| {
            // Whoever said so before this has sent before, and whoever says so after it is heard then.
            self.pending.swap(false, Ordering::AcqRel);
            let late = self.requests.try_recv().ok();
            if late.is_some() {
                // There may be more behind it.
                self.pending.store(true, Ordering::Relaxed);
            }
            late
        })
    }
}

impl Events {
    /// Where the driver is told that buffers were finished.
    #[must_use]
    pub fn call(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.call.as_ref().map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use epoll::{ControlOptions, Event, Events as Ready};

    use super::super::features::Offer;
    use super::*;

    #[test]
    fn the_control_queue_comes_behind_all_pairs_or_behind_the_first_without_mq() {
        let offer = Offer::new(4, &[]);
        let (control, multiqueue) = (1 << 17, 1 << 22);
        let role = |index, bits: u64| Role::of(index, 4, Accepted::new(1u64 << 32 | bits, offer).unwrap());
        assert_eq!(role(8, control | multiqueue), Some(Role::Control));
        assert_eq!(role(2, control | multiqueue), Some(Role::Receive(1)));
        assert_eq!(role(2, control), Some(Role::Control));
        assert_eq!(role(7, multiqueue), Some(Role::Transmit(3)));
        assert_eq!(role(8, multiqueue), None, "who serves the control queue itself has none here");
        assert_eq!(role(usize::MAX, multiqueue), None);
    }

    #[test]
    fn whoever_a_request_wakes_finds_it_and_is_woken_no_more() {
        let (link, mut inboxes) = links(1).unwrap();
        let mut inbox = inboxes.remove(0);
        let set = epoll::create(true).unwrap();
        let edges = Event::new(Ready::EPOLLIN | Ready::EPOLLET, 0);
        let wake = inbox.wake().as_raw_fd();
        epoll::ctl(set, ControlOptions::EPOLL_CTL_ADD, wake, edges).unwrap();
        let wakes =
            |milliseconds| epoll::wait(set, milliseconds, &mut [Event::new(Ready::empty(), 0)]).unwrap();
        for round in 0..400 {
            let sender = std::thread::spawn({
                let link = link.clone();
                move || link.quit()
            });
            if round % 2 == 0 {
                assert_eq!(wakes(30_000), 1, "round {round}");
                assert!(inbox.take().is_some(), "round {round}: it was woken for nothing");
            } else {
                // Awake for another reason; the wake is late.
                while inbox.take().is_none() {}
            }
            sender.join().unwrap();
            let _late = wakes(0);
            assert!(inbox.take().is_none());
            assert_eq!(wakes(0), 0, "round {round}: the worker would never sleep again");
        }
        epoll::close(set).unwrap();
    }
}
