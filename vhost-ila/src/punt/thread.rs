//! The thread: frames and the time to the desks, what they say to the workers.
//!
//! What must stay true: it ends when [`Thread`] is dropped, and only then; whatever serving a frame does, the next frame is served.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nve_core::counters::Cell;
use nve_core::gateway::dns::{Errand, Heard, Token};
use nve_core::pipeline::{MAX_PORTS, PortId};
use nve_core::punt::{Desks, Outbox, Punted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::bell::Bell;
use super::queue::{Parcel, ThreadEnd};
use super::resolvers::Resolvers;
use crate::contained::contained;

/// Frames served between two looks at the time.
const BATCH: usize = 64;
/// Whatever is due, the thread sleeps that long between two times it has nothing else to do.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// A reload that removes attachments wakes nobody: their state is let go of at the next look.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// What serves: [`Desks`], or a test's double that stalls or panics.
pub trait Serve: Send + 'static {
    /// As [`Desks::take`].
    fn take(&mut self, now: Duration, punted: &Punted<'_>, out: &mut Outbox);
    /// As [`Desks::tick`].
    fn tick(&mut self, now: Duration, out: &mut Outbox);
    /// As [`Desks::heard`].
    fn heard(&mut self, now: Duration, token: Token, heard: Heard, out: &mut Outbox);
    /// As [`Desks::until_tick`].
    fn until_tick(&self, now: Duration) -> Option<Duration>;
    /// As [`Desks::forget`].
    fn forget(&mut self, port: PortId);
}

impl Serve for Desks {
    fn take(&mut self, now: Duration, punted: &Punted<'_>, out: &mut Outbox) {
        Self::take(self, now, punted, out);
    }
    fn tick(&mut self, now: Duration, out: &mut Outbox) {
        Self::tick(self, now, out);
    }
    fn heard(&mut self, now: Duration, token: Token, heard: Heard, out: &mut Outbox) {
        Self::heard(self, now, token, heard, out);
    }
    fn until_tick(&self, now: Duration) -> Option<Duration> {
        Self::until_tick(self, now)
    }
    fn forget(&mut self, port: PortId) {
        Self::forget(self, port);
    }
}

/// What the thread did; it alone writes them.
#[derive(Default, Debug)]
struct Counters {
    served: Cell,
    answers: Cell,
    lost_answers: Cell,
    panics: Cell,
}

/// The slow path at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub struct PuntReport {
    /// Frames served.
    pub served: u64,
    /// Frames sent to attachments.
    pub answers: u64,
    /// Frames that a worker's queue had no room for.
    pub lost_answers: u64,
    /// Times that serving ended in a panic, which is a bug.
    pub panics: u64,
}

/// The running thread; ends when dropped.
#[derive(Debug)]
pub struct Thread {
    handle: Option<JoinHandle<()>>,
    quit: Arc<AtomicBool>,
    bell: Arc<Bell>,
    counters: Arc<Counters>,
}

impl Thread {
    /// Starts it.
    ///
    /// # Errors
    /// The system's.
    pub fn start(end: ThreadEnd, desks: impl Serve) -> io::Result<Self> {
        let quit = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(Counters::default());
        let bell = Arc::clone(&end.bell);
        let resolvers = Resolvers::new()?;
        let clerk = Clerk { end, desks, resolvers, quit: Arc::clone(&quit), counters: Arc::clone(&counters) };
        let handle = std::thread::Builder::new().name("punt".to_owned()).spawn(move || clerk.run())?;
        Ok(Self { handle: Some(handle), quit, bell, counters })
    }

    /// What it has done.
    #[must_use]
    pub fn report(&self) -> PuntReport {
        let Counters { served, answers, lost_answers, panics } = &*self.counters;
        PuntReport {
            served: served.get(),
            answers: answers.get(),
            lost_answers: lost_answers.get(),
            panics: panics.get(),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Release);
        self.bell.ring();
        if self.handle.take().is_some_and(|handle| handle.join().is_err()) {
            log::error!("the slow path's thread panicked outside of its desks");
        }
    }
}

struct Clerk<D> {
    end: ThreadEnd,
    desks: D,
    resolvers: Resolvers,
    quit: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

impl<D: Serve> Clerk<D> {
    fn run(mut self) {
        loop {
            self.end.bell.hush();
            if self.quit.load(Ordering::Acquire) {
                return;
            }
            let mut count = 0;
            while count < BATCH
                && let Some(parcel) = self.end.next()
            {
                self.serve(&parcel);
                count += 1;
            }
            self.hear();
            self.tick();
            if count < BATCH {
                self.sleep();
            }
        }
    }

    fn serve(&mut self, parcel: &Parcel) {
        let Parcel { port, desk, ref frame, .. } = *parcel;
        let what = format_args!("desk {} on a frame of port {}", desk.name(), port.0);
        let served =
            self.contained(what, |desks, now, out| desks.take(now, &Punted { port, desk, frame }, out));
        match served {
            Some(out) => self.send(out),
            // What it left half done is that attachment's.
            None => self.desks.forget(port),
        }
        self.counters.served.add(1);
        self.end.served(port);
    }

    /// What the sockets of the host's side have got.
    fn hear(&mut self) {
        for (token, heard) in self.resolvers.news() {
            let out = self.heard(token, heard);
            self.send(out);
        }
    }

    fn heard(&mut self, token: Token, heard: Heard) -> Outbox {
        let what = format_args!("what a resolver said");
        let out = self.contained(what, |desks, now, out| desks.heard(now, token, heard, out));
        out.unwrap_or_else(|| self.forget_everything())
    }

    fn tick(&mut self) {
        let out = self.contained(format_args!("what was due"), |desks, now, out| desks.tick(now, out));
        let out = out.unwrap_or_else(|| self.forget_everything());
        self.send(out);
    }

    /// Whose it was is not known, and it would be due again.
    fn forget_everything(&mut self) -> Outbox {
        (0..MAX_PORTS as u16).for_each(|port| self.desks.forget(PortId(port)));
        Outbox::default()
    }

    /// Has the desks do something; `None` if they panicked.
    fn contained(
        &mut self,
        what: std::fmt::Arguments<'_>,
        work: impl FnOnce(&mut D, Duration, &mut Outbox),
    ) -> Option<Outbox> {
        let desks = &mut self.desks;
        let done = contained(|| {
            let mut out = Outbox::default();
            work(desks, crate::epoch::now(), &mut out);
            out
        });
        done.map_err(|said| self.panicked(what, &said)).ok()
    }

    fn send(&mut self, out: Outbox) {
        let mut errands = VecDeque::new();
        self.deliver(out, &mut errands);
        // A socket that cannot be made leads to the next server, of which there are a few.
        while let Some(errand) = errands.pop_front() {
            if let Some((token, heard)) = self.resolvers.perform(errand) {
                let out = self.heard(token, heard);
                self.deliver(out, &mut errands);
            }
        }
    }

    fn deliver(&self, out: Outbox, errands: &mut VecDeque<Errand>) {
        for (port, frame) in out.frames {
            let sent = self.end.answer(port, frame);
            self.counters.answers.add(u64::from(sent));
            self.counters.lost_answers.add(u64::from(!sent));
        }
        errands.extend(out.errands);
    }

    /// Told the first time and then ever more seldom: a guest may have found how to cause it.
    fn panicked(&self, what: std::fmt::Arguments<'_>, said: &str) {
        self.counters.panics.add(1);
        let times = self.counters.panics.get();
        if times.is_power_of_two() {
            log::error!("the slow path panicked ({times} times) serving {what}: {said}");
        }
    }

    fn sleep(&self) {
        let due = self.desks.until_tick(crate::epoch::now()).unwrap_or(LONGEST_SLEEP);
        let limit = due.clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        // A signal that interrupts is a wake like any other.
        let (bell, resolvers) =
            (PollFd::new(&*self.end.bell, PollFlags::IN), PollFd::new(&self.resolvers, PollFlags::IN));
        let _ = poll(&mut [bell, resolvers], Some(&limit));
    }
}
