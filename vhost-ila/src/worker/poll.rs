//! The worker's loop: turns while there is work, then a spin, then sleep.
//!
//! What must stay true: before it sleeps, every transmit ring has been asked for kicks and looked at once more after that, so no
//! frame waits for a kick that never comes; an attachment whose frames cost more than its neighbours' sits turns out ([`Turns`]);
//! requests of control threads are served between turns, when no batch is open.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Event, Events};
use nve_core::pipeline::PortId;

use super::batch::Batch;
use super::clock::Clock;
use super::delivery::Outlets;
use super::run::Towards;
use super::sender::{Commander, Kicked, Sender};
use super::senders::{self, Senders};
use super::task::{Look, TaskNic};
use super::threads::Seat;
use super::turns::Turns;
use crate::device::cpu;
use crate::device::event::{Notifier, PeerEvent};
use crate::device::handover::{Queue, Request, Role, WorkerInbox};
use crate::device::memory::poisoned_mappings;
use crate::device::ring::RingFault;
use crate::redirect::Notes;
use crate::task::Nic;

/// Turns between two looks at control queues: a command may wait, frames may not.
const COMMAND_PAUSE: u32 = 16;

/// How far ahead a ring's own state is asked for, where there are many: the next one's is used already.
const SOON: usize = 2;

/// Transmit rings whose state, frames and buffers a core keeps in its cache, about.
const MANY: usize = 8;

/// Nobody wakes a worker when a reload gives the gateway something to say: it looks.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Requests of control threads served between two turns, so that front-ends that never stop asking do not stop the packets.
const REQUESTS: usize = 16;

/// A worker and all it owns.
pub(super) struct Worker {
    out: Outlets,
    /// It reads what no ring brings.
    is_first: bool,
    batch: Batch,
    inbox: WorkerInbox,
    /// Of packets that took the triangle.
    notes: Notes,
    poll: Poll,
    spin: Duration,
    clock: Clock,
    /// The running transmit rings, of all ports.
    senders: Senders,
    /// Which of those may go.
    turns: Turns,
    /// The running control queues, of all ports.
    commanders: Vec<Commander>,
    /// Turns until those are looked at.
    commands_in: u32,
    /// Ports whose NIC is a task's.
    tasks: Vec<u16>,
    /// When to look at the uplink.
    uplink: Look,
    /// It failed and is looked at no more.
    uplink_lost: bool,
    /// When to look at the gateway's TUN, if there is one.
    outside: Look,
    poisoned: u64,
}

impl Worker {
    pub(super) fn new(seat: Seat) -> io::Result<Self> {
        let Seat { nve, place, inbox, ways, homes, punts, notes, spin, counters } = seat;
        let poll = Poll::new()?;
        poll.watch(inbox.wake(), Events::EPOLLIN | Events::EPOLLET)?;
        poll.watch(&punts, Events::EPOLLIN | Events::EPOLLET)?;
        for (way, token) in [(Some(&ways.uplink), UPLINK), (ways.outside.as_ref(), OUTSIDE)] {
            if let Some(fd) = way.and_then(|way| way.readable()) {
                poll.watch_as(&fd, Events::EPOLLIN, token)?;
            }
        }
        Ok(Self {
            out: Outlets::new(nve, place, ways, homes, (punts, Notifier::new()?), counters),
            is_first: place.0 == 0,
            batch: Batch::new(),
            inbox,
            notes,
            poll,
            spin,
            clock: Clock::new(crate::epoch::epoch()),
            senders: Senders::default(),
            turns: Turns::default(),
            commanders: Vec::new(),
            commands_in: 0,
            tasks: Vec::new(),
            uplink: Look::NOW,
            uplink_lost: false,
            outside: Look::NOW,
            poisoned: poisoned_mappings(),
        })
    }

    /// How many transmit rings rest.
    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        self.senders.resting()
    }

    /// Waits, if it has nothing to do.
    #[cfg(test)]
    pub(super) fn doze(&mut self) {
        self.sleep();
    }

    /// Gives back the receive rings that it has.
    #[cfg(test)]
    pub(super) fn let_go(&mut self) {
        self.out.let_go();
    }

    /// What it spent.
    #[cfg(test)]
    pub(super) fn report(&self) -> super::counters::WorkerReport {
        self.out.counters.report()
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
    pub(super) fn turn(&mut self) -> bool {
        let begin = cpu::cycles();
        let now = self.clock.at(begin);
        self.out.begin(now);
        // What came from the fabric and the slow path is nobody's turn.
        self.out.tolls.of_batch();
        let mut packets = 0;
        let mut busy = 0;
        let mut last = begin;
        if self.senders.must_hear() {
            self.hear(Duration::ZERO);
            // Nobody's turn.
            last = cpu::cycles();
        }
        let mut quiet = 0;
        let senders = self.senders.looked_at();
        self.batch.many = senders.len() > MANY;
        for at in 0..senders.len() {
            let (before, rest) = senders.split_at_mut(at);
            let Some((sender, behind)) = rest.split_first_mut() else { break };
            if let Some(soon) = behind.get(SOON).filter(|_| self.batch.many) {
                soon.fetch(&self.out);
            }
            if !self.turns.may_go(sender.port) {
                continue;
            }
            let next = behind.first_mut().or(before.first_mut());
            let count = self.batch.transmit(&mut self.out, sender, next);
            self.out.end_batch();
            if count == 0 {
                sender.quiet = sender.quiet.saturating_add(1);
                quiet = quiet.max(sender.quiet);
            } else {
                sender.quiet = 0;
                packets += count as u64;
                busy += 1;
                let then = std::mem::replace(&mut last, cpu::cycles());
                let others = self.out.tolls.of_batch();
                self.turns.spent(sender.port, cpu::between(then, last).saturating_sub(others));
            }
        }
        // Guests begin to work while the rest is looked at, some of which is system calls.
        self.out.notifier.flush();
        if self.senders.may_rest(quiet) {
            self.senders.rest(&mut self.out);
        }
        if !self.tasks.is_empty() {
            let (count, found) = self.receive_from_tasks(&mut last);
            packets += count;
            busy += found;
        }
        let waiting = self.turns.settle(last);
        let commands = self.commands();
        self.batch.announce(&mut self.out);
        let answers = self.batch.answers(&mut self.out);
        self.out.ask();
        let mut polls = self.senders.looked_at().len() as u64;
        if !self.uplink_lost && self.uplink.is_due() {
            polls += 1;
            let count = self.receive();
            self.uplink.found(count);
            packets += count as u64;
            busy += u64::from(count > 0);
        }
        if self.out.outside.is_some() && self.outside.is_due() {
            polls += 1;
            let count = self.receive_from_outside();
            self.outside.found(count);
            packets += count as u64;
            busy += u64::from(count > 0);
        }
        while let Some(triangle) = self.out.walker.next_triangle() {
            self.notes.note(triangle);
        }
        self.out.let_go();
        self.out.notifier.flush();
        if poisoned_mappings() != self.poisoned {
            self.quarantine();
        }
        let counters = &self.out.counters;
        counters.polls.add(polls);
        if packets == 0 {
            return commands > 0 || answers > 0 || waiting;
        }
        counters.busy_polls.add(busy);
        counters.packets.add(packets);
        let end = cpu::cycles();
        counters.busy_cycles.add(cpu::between(begin, end));
        counters.took(self.clock.at(end).saturating_sub(now));
        true
    }

    /// Every control queue, once in a while; how many commands there were.
    fn commands(&mut self) -> usize {
        if self.commands_in > 0 {
            self.commands_in -= 1;
            return 0;
        }
        self.commands_in = COMMAND_PAUSE;
        let out = &mut self.out;
        let commands: usize = self.commanders.iter_mut().map(|commander| commander.serve(out)).sum();
        if commands > 0 {
            self.commands_in = 0;
        }
        commands
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

    /// One batch from outside. A TUN that fails is given up as the uplink is.
    #[cold]
    fn receive_from_outside(&mut self) -> usize {
        self.batch.receive_from_outside(&mut self.out).unwrap_or_else(|e| {
            log::error!("the gateway's TUN is lost, restart to open it again: {e}");
            if let Some(fd) = self.out.outside.as_ref().and_then(|tun| tun.readable()) {
                self.poll.forget(&fd);
            }
            self.out.outside = None;
            self.out.counters.gateway_lost.store(true, Ordering::Relaxed);
            0
        })
    }

    /// One batch of every task that may go and is due: how many packets there were, and of how many tasks.
    #[cold]
    fn receive_from_tasks(&mut self, last: &mut u64) -> (u64, u64) {
        let (mut packets, mut busy, mut at) = (0, 0, 0);
        while let Some(port) = self.tasks.get(at).copied() {
            at += 1;
            let task = self.out.ports.get_mut(usize::from(port)).and_then(|slot| slot.task.as_mut());
            if !task.is_some_and(|task| task.look.is_due()) || !self.turns.may_go(port) {
                continue;
            }
            self.out.counters.polls.add(1);
            let count = match self.batch.receive_from_task(&mut self.out, port) {
                Ok(count) => count,
                Err(e) => {
                    let lost = self.out.lose_task(PortId(port), &e);
                    self.forget_task(port, lost);
                    at -= 1;
                    continue;
                }
            };
            self.out.end_batch();
            if let Some(task) = self.out.ports.get_mut(usize::from(port)).and_then(|slot| slot.task.as_mut())
            {
                task.look.found(count);
            }
            if count > 0 {
                packets += count as u64;
                busy += 1;
                let then = std::mem::replace(last, cpu::cycles());
                let others = self.out.tolls.of_batch();
                self.turns.spent(port, cpu::between(then, *last).saturating_sub(others));
            }
        }
        (packets, busy)
    }

    fn plug(&mut self, port: PortId, nic: Nic) -> io::Result<()> {
        self.unplug(port);
        if !self.is_first {
            self.out.reach(port, nic);
            return Ok(());
        }
        if let Some(fd) = nic.tun.readable() {
            self.poll.watch_as(&fd, Events::EPOLLIN, TASKS | u64::from(port.0))?;
        }
        self.out.plug(port, nic);
        self.turns.admit(port.0);
        self.tasks.push(port.0);
        Ok(())
    }

    fn unplug(&mut self, port: PortId) -> bool {
        let task = self.out.unplug(port);
        let had = task.is_some();
        self.forget_task(port.0, task);
        had
    }

    /// Stops looking at the NIC of `port`, and closes it.
    fn forget_task(&mut self, port: u16, task: Option<Box<TaskNic>>) {
        self.tasks.retain(|task| *task != port);
        if let Some(fd) = task.as_deref().and_then(|task| task.tun.readable()) {
            self.poll.forget(&fd);
        }
    }

    /// Waits for a kick, a packet or a request.
    fn sleep(&mut self) {
        let mut work = self.inbox.is_pending();
        // Those at rest were asked when they came to it.
        for sender in self.senders.looked_at() {
            work |= sender.want_kicks(&mut self.out);
        }
        for commander in &mut self.commanders {
            work |= commander.want_kicks(&mut self.out);
        }
        // Before a request can close what a fault has queued.
        self.out.notifier.flush();
        if !work {
            self.out.counters.sleeps.add(1);
            let limit = self.out.until_tick().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            // Rounded up, so that what is waited for is due afterwards.
            self.hear(limit + Duration::from_millis(1));
        }
        self.senders.looked_at().iter_mut().for_each(|sender| sender.queue.ring.refuse_kicks());
        self.commands_in = 0;
    }

    /// Waits so long for something to happen: the rings that rested and were kicked, and the TUNs that have something, are to be looked at.
    fn hear(&mut self, limit: Duration) {
        self.poll.wait(limit, |token| match token {
            UPLINK => self.uplink = Look::NOW,
            OUTSIDE => self.outside = Look::NOW,
            token if token & TASKS != 0 => self.out.look_at_task((token & !TASKS) as u16),
            kicked => self.senders.wake(kicked),
        });
    }

    /// Stops the rings whose memory was cut off.
    #[cold]
    fn quarantine(&mut self) {
        self.poisoned = poisoned_mappings();
        for index in 0..self.out.ports.len() {
            self.out.take(index as u16);
            let Some(port) = self.out.ports.get_mut(index) else { break };
            let poisoned: Vec<u8> = port
                .receivers
                .all()
                .filter(|ring| ring.queue.fault.is_none() && ring.queue.ring.memory_is_poisoned())
                .map(|ring| ring.queue.pair)
                .collect();
            for pair in poisoned {
                self.out.break_receive(index as u16, pair, RingFault::Memory);
            }
            self.out.end_batch();
        }
        for sender in self.senders.all() {
            if sender.queue.fault.is_none() && sender.queue.ring.memory_is_poisoned() {
                sender.breaks(&mut self.out, RingFault::Memory);
            }
        }
        for commander in &mut self.commanders {
            if commander.queue.fault.is_none() && commander.queue.ring.memory_is_poisoned() {
                commander.breaks(&mut self.out, RingFault::Memory);
            }
        }
        self.out.notifier.flush();
    }

    /// False: it is time to end.
    fn serve(&mut self, request: Request) -> bool {
        // A requester that has gone meanwhile needs no answer.
        match request {
            Request::Start(port, queue, answer) => {
                let started = self.start(port, queue);
                // Before whoever hears of it asks another worker.
                self.out.end_batch();
                let _ = answer.send(started);
            }
            Request::Stop(port, role, answer) => {
                let queue = self.stop(port, role);
                self.batch.clear();
                self.out.end_batch();
                let _ = answer.send(queue);
            }
            Request::Plug(port, nic, answer) => {
                let _ = answer.send(self.plug(port, nic));
            }
            Request::Unplug(port, answer) => {
                let _ = answer.send(self.unplug(port));
            }
            Request::Pass(answer) => {
                self.out.notifier.flush();
                let _ = answer.send(());
            }
            Request::Quit => return false,
        }
        true
    }

    pub(super) fn start(&mut self, port: PortId, queue: Queue) -> io::Result<()> {
        // The control thread stops a ring before it starts it anew; were it to forget, the old one must not stay in epoll.
        drop(self.stop(port, queue.role()));
        self.out.take(port.0);
        match queue {
            Queue::Receive(queue) => {
                self.out.admit(port).receivers.add(queue);
                self.out.attached(port, self.clock.at(cpu::cycles()));
            }
            Queue::Transmit(mut queue) => {
                let token = senders::token(port, queue.pair);
                self.watch(queue.events.kick.as_ref(), token)?;
                queue.ring.refuse_kicks();
                self.out.admit(port).receivers.joined();
                // The fabric is nobody's turn.
                if port != PortId::FABRIC {
                    self.turns.admit(port.0);
                }
                self.senders.add(Sender {
                    port: port.0,
                    token: senders::token(port, queue.pair),
                    queue,
                    quiet: 0,
                    towards: Towards::default(),
                });
            }
            Queue::Control(queue) => {
                self.watch(queue.events.kick.as_ref(), NO_TOKEN)?;
                self.out.admit(port).receivers.joined();
                let commander = Commander { port: port.0, queue };
                commander.begin(&mut self.out);
                self.commanders.push(commander);
                self.commands_in = 0;
            }
        }
        Ok(())
    }

    /// Wakes for what is kicked, from now on.
    fn watch(&self, kick: Option<&PeerEvent>, token: u64) -> io::Result<()> {
        let events = Events::EPOLLIN | Events::EPOLLET;
        kick.map_or(Ok(()), |kick| self.poll.watch_as(kick, events, token))
    }

    pub(super) fn stop(&mut self, port: PortId, role: Role) -> Option<Queue> {
        self.out.take(port.0);
        let queue = self.take(port, role)?;
        if let Queue::Transmit(_) | Queue::Control(_) = &queue
            && let Some(kick) = &queue.events().kick
        {
            self.poll.forget(kick);
        }
        let receivers = &mut self.out.ports.get_mut(usize::from(port.0))?.receivers;
        if !matches!(queue, Queue::Receive(_)) {
            receivers.left();
        }
        if receivers.is_silent() {
            // Nothing of the guest is left, nor of what it commanded.
            receivers.use_pairs(None);
        }
        self.out.attached(port, self.clock.at(cpu::cycles()));
        Some(queue)
    }

    /// The ring out of its place.
    fn take(&mut self, port: PortId, role: Role) -> Option<Queue> {
        match role {
            Role::Receive(pair) => {
                let slot = self.out.ports.get_mut(usize::from(port.0))?;
                slot.receivers.remove(pair).map(Queue::Receive)
            }
            Role::Transmit(pair) => {
                self.senders.remove(port, pair).map(|sender| Queue::Transmit(sender.queue))
            }
            Role::Control => {
                let at = self.commanders.iter().position(|c| c.port == port.0)?;
                Some(Queue::Control(self.commanders.remove(at).queue))
            }
        }
    }
}

/// What an epoll set calls descriptors that nobody tells apart: those looked at after every sleep.
const NO_TOKEN: u64 = 0;
/// The uplink's descriptor, and the gateway's TUN's.
const UPLINK: u64 = 1;
const OUTSIDE: u64 = 2;
/// With a port's number, the TUN of a task. The kicks of transmit rings have tokens of another bit ([`senders::token`]).
const TASKS: u64 = 1 << 33;

/// An epoll set. What costs a system call to look at has a token, and is looked at after a sleep if it was what ended it; so have
/// rings at rest.
struct Poll(i32);

impl Poll {
    fn new() -> io::Result<Self> {
        epoll::create(true).map(Self)
    }

    fn watch(&self, fd: &impl AsRawFd, events: Events) -> io::Result<()> {
        self.watch_as(fd, events, NO_TOKEN)
    }

    fn watch_as(&self, fd: &impl AsRawFd, events: Events, token: u64) -> io::Result<()> {
        epoll::ctl(self.0, ControlOptions::EPOLL_CTL_ADD, fd.as_raw_fd(), Event::new(events, token))
    }

    fn forget(&self, fd: &impl AsRawFd) {
        // It is in the set since it was watched; were it not, there is nothing to forget.
        let _ =
            epoll::ctl(self.0, ControlOptions::EPOLL_CTL_DEL, fd.as_raw_fd(), Event::new(Events::empty(), 0));
    }

    /// Waits for events, so many whole milliseconds; the tokens of what is ready. What does not fit is still ready the next time.
    fn wait(&self, limit: Duration, ready: impl FnMut(u64)) {
        let mut events = [Event::new(Events::empty(), 0); 64];
        // A signal that interrupts is a wake like any other.
        let count = epoll::wait(self.0, limit.as_millis() as i32, &mut events).unwrap_or(0);
        events.iter().take(count).map(|event| event.data).filter(|token| *token != NO_TOKEN).for_each(ready);
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let _ = epoll::close(self.0);
    }
}
