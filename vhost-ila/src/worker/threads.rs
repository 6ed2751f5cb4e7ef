//! The workers' threads: made together, ended together.
//!
//! What must stay true: each worker is made by its own thread, so what it writes comes from that thread's part of the heap; those that were
//! made end when another cannot be; that one has ended is told at once, whichever it was and however it ended.

use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nve_core::pipeline::Nve;
use tokio::sync::Notify;

use super::counters::{WorkerCounters, WorkerReport};
use super::homes::Homes;
use super::poll::Worker;
use super::{TellsItsEnd, Ways};
use crate::device::handover::{self, WorkerInbox, WorkerLink};
use crate::punt::WorkerEnd;
use crate::redirect::Notes;

/// The running workers.
pub(super) struct Threads {
    pub(super) link: WorkerLink,
    counters: Vec<Arc<WorkerCounters>>,
    running: Mutex<Vec<JoinHandle<()>>>,
    /// Some worker has.
    pub(super) ended: Arc<Notify>,
}

/// What one worker is made of.
pub(super) struct Seat {
    pub(super) nve: Arc<Nve>,
    /// Which one it is, of how many.
    pub(super) place: (u16, u16),
    pub(super) inbox: WorkerInbox,
    pub(super) ways: Ways,
    /// Receive rings that others have, too.
    pub(super) homes: Homes,
    pub(super) punts: WorkerEnd,
    pub(super) notes: Notes,
    pub(super) spin: Duration,
    pub(super) counters: Arc<WorkerCounters>,
}

impl Threads {
    /// Starts a worker for each of `punts`. The first reads the uplink and has the gateway's TUN.
    ///
    /// # Errors
    /// The system's; none is left running then. `Unsupported`: the uplink cannot be shared.
    pub(super) fn start(
        nve: &Arc<Nve>,
        mut ways: Ways,
        (punts, notes): (Vec<WorkerEnd>, &Notes),
        spin: Duration,
    ) -> io::Result<Self> {
        let count = u16::try_from(punts.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        if count > 1 && ways.link.is_some() {
            let what = "a vhost-user uplink is served by one worker";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let homes = Homes::of(count);
        let (link, inboxes) = handover::links(count)?;
        let ended = Arc::new(Notify::new());
        let mut all = Self { link, counters: Vec::new(), running: Mutex::default(), ended };
        for ((index, inbox), punts) in (0..).zip(inboxes).zip(punts) {
            let others = if index + 1 < count { Some(ways.beside()?) } else { None };
            let (nve, homes, notes) = (Arc::clone(nve), homes.clone(), notes.clone());
            let counters = Arc::new(WorkerCounters::default());
            all.counters.push(Arc::clone(&counters));
            all.seat(Seat { nve, place: (index, count), inbox, ways, homes, punts, notes, spin, counters })?;
            let Some(others) = others else { break };
            ways = others;
        }
        Ok(all)
    }

    fn seat(&self, seat: Seat) -> io::Result<()> {
        let (told, made) = channel();
        let tells = TellsItsEnd(Arc::clone(&self.ended));
        let work = move || {
            let _tells = tells;
            match Worker::new(seat) {
                Ok(worker) => {
                    // Whoever asked waits for it.
                    let _ = told.send(Ok(()));
                    worker.run();
                }
                Err(e) => drop(told.send(Err(e))),
            }
        };
        let name = format!("worker{}", self.counters.len() - 1);
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        made.recv().map_err(|_| io::Error::other("a worker ended before it began"))?
    }

    /// What each spent.
    pub(super) fn report(&self) -> Vec<WorkerReport> {
        self.counters.iter().map(|counters| counters.report()).collect()
    }

    /// Whether all still run.
    pub(super) fn are_running(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        !running.is_empty() && running.iter().all(|thread| !thread.is_finished())
    }

    /// Ends them.
    pub(super) fn stop(&self) {
        self.link.quit();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in running.drain(..) {
            if thread.join().is_err() {
                log::error!("a worker panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}
