//! The thread: frames and the time to the desks, what they say to the workers.
//!
//! What must stay true: it ends when [`Thread`] is dropped, and only then; whatever serving a frame does, the next frame is served.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nve_core::counters::Cell;
use nve_core::pipeline::{MAX_PORTS, PortId};
use nve_core::punt::{Desks, Outbox, Punted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::bell::Bell;
use super::queue::{Parcel, ThreadEnd};
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
        let clerk = Clerk { end, desks, quit: Arc::clone(&quit), counters: Arc::clone(&counters) };
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
            self.tick();
            if count < BATCH {
                self.sleep();
            }
        }
    }

    fn serve(&mut self, parcel: &Parcel) {
        let Parcel { port, desk, ref frame, .. } = *parcel;
        let desks = &mut self.desks;
        let done = contained(|| {
            let mut out = Outbox::default();
            desks.take(crate::epoch::now(), &Punted { port, desk, frame }, &mut out);
            out
        });
        match done {
            Ok(out) => self.send(out),
            Err(said) => {
                self.panicked(format_args!("desk {} on a frame of port {}", desk.name(), port.0), &said);
                // What it left half done is that attachment's.
                self.desks.forget(port);
            }
        }
        self.counters.served.add(1);
        self.end.served(port);
    }

    fn tick(&mut self) {
        let desks = &mut self.desks;
        let done = contained(|| {
            let mut out = Outbox::default();
            desks.tick(crate::epoch::now(), &mut out);
            out
        });
        match done {
            Ok(out) => self.send(out),
            Err(said) => {
                self.panicked(format_args!("what was due"), &said);
                // Whose it was is not known, and it would be due again.
                (0..MAX_PORTS as u16).for_each(|port| self.desks.forget(PortId(port)));
            }
        }
    }

    fn send(&self, out: Outbox) {
        for (port, frame) in out.frames {
            let sent = self.end.answer(port, frame);
            self.counters.answers.add(u64::from(sent));
            self.counters.lost_answers.add(u64::from(!sent));
        }
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
        let _ = poll(&mut [PollFd::new(&*self.end.bell, PollFlags::IN)], Some(&limit));
    }
}
