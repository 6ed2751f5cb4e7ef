//! The worker's loop: turns while there is work, then a spin, then sleep.
//!
//! What must stay true: before it sleeps, every transmit ring has been asked for kicks and looked at once more after that, so no
//! frame waits for a kick that never comes; requests of control threads are served between turns, when no batch is open.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Event, Events};
use nve_core::pipeline::{Nve, PortId};

use super::batch::Batch;
use super::counters::WorkerCounters;
use super::delivery::Outlets;
use crate::device::cpu;
use crate::device::event::Notifier;
use crate::device::handover::{Queue, Request, Side, WorkerInbox};
use crate::device::memory::poisoned_mappings;
use crate::device::ring::RingFault;
use crate::uplink::Uplink;

/// Turns between two looks at an uplink that had nothing last time: a look is a system call.
const UPLINK_PAUSE: u32 = 16;

/// Requests of control threads served between two turns, so that front-ends that never stop asking do not stop the packets.
const REQUESTS: usize = 16;

/// A worker and all it owns.
pub(super) struct Worker {
    out: Outlets,
    batch: Batch,
    inbox: WorkerInbox,
    poll: Poll,
    spin: Duration,
    start: Instant,
    /// Ports with a transmit ring.
    senders: Vec<u16>,
    /// The last look at the uplink found something.
    uplink_busy: bool,
    /// Turns since that look.
    uplink_skipped: u32,
    /// It failed and is looked at no more.
    uplink_lost: bool,
    poisoned: u64,
}

impl Worker {
    pub(super) fn new(
        nve: Arc<Nve>,
        inbox: WorkerInbox,
        uplink: Box<dyn Uplink>,
        spin: Duration,
        counters: Arc<WorkerCounters>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.watch(inbox.wake(), Events::EPOLLIN)?;
        if let Some(fd) = uplink.readable() {
            poll.watch(&fd, Events::EPOLLIN)?;
        }
        Ok(Self {
            out: Outlets::new(nve, uplink, Notifier::new()?, counters),
            batch: Batch::new(),
            inbox,
            poll,
            spin,
            start: crate::epoch::epoch(),
            senders: Vec::new(),
            uplink_busy: true,
            uplink_skipped: 0,
            uplink_lost: false,
            poisoned: poisoned_mappings(),
        })
    }

    /// Serves until asked to quit.
    pub(super) fn run(mut self) {
        let mut idle_since = None;
        loop {
            for _ in 0..REQUESTS {
                let Some(request) = self.inbox.take() else { break };
                if !self.serve(request) {
                    return;
                }
            }
            if self.turn() {
                idle_since = None;
                continue;
            }
            if !self.spin.is_zero() && idle_since.get_or_insert_with(Instant::now).elapsed() < self.spin {
                std::hint::spin_loop();
                continue;
            }
            idle_since = None;
            self.sleep();
        }
    }

    /// Looks at everything once; whether there was anything.
    fn turn(&mut self) -> bool {
        let begin = cpu::cycles();
        self.out.walker.begin(self.start.elapsed());
        let mut packets = 0;
        let mut busy = 0;
        for at in 0..self.senders.len() {
            let count = self.batch.transmit(&mut self.out, self.senders[at]);
            packets += count as u64;
            busy += u64::from(count > 0);
        }
        let mut polls = self.senders.len() as u64;
        self.uplink_skipped += 1;
        if !self.uplink_lost && (self.uplink_busy || self.uplink_skipped >= UPLINK_PAUSE) {
            polls += 1;
            let count = self.receive();
            self.uplink_busy = count > 0;
            self.uplink_skipped = 0;
            packets += count as u64;
            busy += u64::from(count > 0);
        }
        self.out.publish();
        self.out.notifier.flush();
        if poisoned_mappings() != self.poisoned {
            self.quarantine();
        }
        let counters = &self.out.counters;
        counters.polls.add(polls);
        if packets == 0 {
            return false;
        }
        counters.busy_polls.add(busy);
        counters.packets.add(packets);
        counters.busy_cycles.add(cpu::cycles().wrapping_sub(begin));
        true
    }

    /// One batch of the uplink. One that fails (its interface was removed) is given up: it would wake us for ever.
    fn receive(&mut self) -> usize {
        self.batch.receive(&mut self.out).unwrap_or_else(|e| {
            log::error!("the uplink is lost, restart to open it again: {e}");
            self.uplink_lost = true;
            self.out.counters.uplink_lost.store(true, Ordering::Relaxed);
            if let Some(fd) = self.out.uplink.readable() {
                self.poll.forget(&fd);
            }
            0
        })
    }

    /// Waits for a kick, a packet or a request.
    fn sleep(&mut self) {
        let mut work = false;
        for at in 0..self.senders.len() {
            let index = self.senders[at];
            let port = self.out.ports.get_mut(usize::from(index));
            let Some(queue) = port.and_then(|p| p.transmit.as_deref_mut()).filter(|q| q.fault.is_none())
            else {
                continue;
            };
            match queue.ring.want_kicks() {
                Ok(more) => work |= more,
                Err(fault) => self.out.break_transmit(index, fault),
            }
        }
        // Before a request can close what a fault has queued.
        self.out.notifier.flush();
        if !work {
            self.out.counters.sleeps.add(1);
            self.poll.wait();
        }
        for index in &self.senders {
            let port = self.out.ports.get_mut(usize::from(*index));
            if let Some(queue) = port.and_then(|p| p.transmit.as_deref_mut()) {
                queue.ring.refuse_kicks();
            }
        }
        // Whatever woke us, everything is looked at.
        self.uplink_busy = true;
    }

    /// Stops the rings whose memory was cut off.
    #[cold]
    fn quarantine(&mut self) {
        self.poisoned = poisoned_mappings();
        for index in 0..self.out.ports.len() {
            let port = &self.out.ports[index];
            let receive =
                port.receive.as_ref().is_some_and(|q| q.fault.is_none() && q.ring.memory_is_poisoned());
            let transmit =
                port.transmit.as_ref().is_some_and(|q| q.fault.is_none() && q.ring.memory_is_poisoned());
            if receive {
                self.out.break_receive(index as u16, RingFault::Memory);
            }
            if transmit {
                self.out.break_transmit(index as u16, RingFault::Memory);
            }
        }
        self.out.notifier.flush();
    }

    /// False: it is time to end.
    fn serve(&mut self, request: Request) -> bool {
        // A requester that has gone meanwhile needs no answer.
        match request {
            Request::Start(port, queue, answer) => {
                let _ = answer.send(self.start(port, queue));
            }
            Request::Stop(port, side, answer) => {
                let queue = self.stop(port, side);
                self.batch.clear();
                let _ = answer.send(queue);
            }
            Request::Quit => return false,
        }
        true
    }

    fn start(&mut self, port: PortId, queue: Queue) -> io::Result<()> {
        // The control thread stops a ring before it starts it anew; were it to forget, the old one must not stay in epoll.
        let side = match &queue {
            Queue::Receive(_) => Side::Receive,
            Queue::Transmit(_) => Side::Transmit,
        };
        drop(self.stop(port, side));
        match queue {
            Queue::Receive(queue) => self.out.admit(port).receive = Some(queue),
            Queue::Transmit(mut queue) => {
                if let Some(kick) = &queue.events.kick {
                    self.poll.watch(kick, Events::EPOLLIN | Events::EPOLLET)?;
                }
                queue.ring.refuse_kicks();
                self.out.admit(port).transmit = Some(queue);
                self.senders.push(port.0);
            }
        }
        Ok(())
    }

    fn stop(&mut self, port: PortId, side: Side) -> Option<Queue> {
        let slot = self.out.ports.get_mut(usize::from(port.0))?;
        match side {
            Side::Receive => slot.receive.take().map(Queue::Receive),
            Side::Transmit => {
                let queue = slot.transmit.take()?;
                self.senders.retain(|index| *index != port.0);
                if let Some(kick) = &queue.events.kick {
                    self.poll.forget(kick);
                }
                Some(Queue::Transmit(queue))
            }
        }
    }
}

/// An epoll set. What is ready is not asked: after a wake everything is looked at.
struct Poll(i32);

impl Poll {
    fn new() -> io::Result<Self> {
        epoll::create(true).map(Self)
    }

    fn watch(&self, fd: &impl AsRawFd, events: Events) -> io::Result<()> {
        epoll::ctl(self.0, ControlOptions::EPOLL_CTL_ADD, fd.as_raw_fd(), Event::new(events, 0))
    }

    fn forget(&self, fd: &impl AsRawFd) {
        // It is in the set since it was watched; were it not, there is nothing to forget.
        let _ =
            epoll::ctl(self.0, ControlOptions::EPOLL_CTL_DEL, fd.as_raw_fd(), Event::new(Events::empty(), 0));
    }

    fn wait(&self) {
        let mut events = [Event::new(Events::empty(), 0); 16];
        // A signal that interrupts is a wake like any other.
        let _ = epoll::wait(self.0, -1, &mut events);
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let _ = epoll::close(self.0);
    }
}
