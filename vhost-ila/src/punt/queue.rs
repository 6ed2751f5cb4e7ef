//! Frames to the slow path and answers back, over queues that nobody waits at.
//!
//! What must stay true: no more than [`SHARE`] frames of one attachment wait or are served at once, so the queue is as long as the
//! attachments' shares together and no attachment can fill another's; a full queue of answers loses the answer, which is counted.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use nve_core::DropReason;
use nve_core::pipeline::{Desk, MAX_PORTS, PortId};

use super::bell::Bell;

/// Frames of one attachment that may wait at once; each is no longer than the MTU it was told.
pub const SHARE: u16 = 32;

/// Answers that may wait for one worker.
const ANSWERS: usize = 1024;

/// A frame on its way to a desk.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) worker: u16,
    pub(super) port: PortId,
    pub(super) desk: Desk,
    pub(super) frame: Vec<u8>,
}

/// An Ethernet frame on its way to an attachment.
type Answer = (PortId, Vec<u8>);

/// By port number, how many frames wait or are being served.
#[derive(Debug)]
struct Shares(Box<[AtomicU16]>);

impl Shares {
    fn take(&self, port: PortId) -> bool {
        let Some(share) = self.0.get(usize::from(port.0)) else { return false };
        let more = |waiting: u16| (waiting < SHARE).then_some(waiting + 1);
        share.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, port: PortId) {
        if let Some(share) = self.0.get(usize::from(port.0)) {
            share.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct WorkerEnd {
    worker: u16,
    frames: Sender<Parcel>,
    shares: Arc<Shares>,
    /// Wakes the thread.
    bell: Arc<Bell>,
    answers: Receiver<Answer>,
    /// Rings for answers.
    answered: Arc<Bell>,
    /// There may be more answers than were taken when it rang.
    more: bool,
}

impl WorkerEnd {
    /// Hands a copy of `frame` to the thread; never blocks.
    ///
    /// # Errors
    /// [`DropReason::PuntFull`] if the attachment's share is used up, or the thread has ended.
    pub fn punt(&self, port: PortId, desk: Desk, frame: &[u8]) -> Result<(), DropReason> {
        if !self.shares.take(port) {
            return Err(DropReason::PuntFull);
        }
        let parcel = Parcel { worker: self.worker, port, desk, frame: frame.to_vec() };
        // A thread that has ended gives no share back, so this is said as often as there are shares.
        self.frames.send(parcel).map_err(|_| DropReason::PuntFull)?;
        self.bell.ring();
        Ok(())
    }

    /// The next answer, if any; one relaxed load when there is none. `None` also ends a turn: the rest comes in the next.
    #[inline]
    pub fn answer(&mut self) -> Option<Answer> {
        if self.more || self.answered.rang() { self.take() } else { None }
    }

    #[cold]
    fn take(&mut self) -> Option<Answer> {
        if !self.more {
            self.answered.hush();
        }
        let answer = self.answers.try_recv().ok();
        self.more = answer.is_some();
        answer
    }
}

/// To be watched edge-triggered.
impl AsRawFd for WorkerEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.answered.as_raw_fd()
    }
}

/// The thread's end.
#[derive(Debug)]
pub struct ThreadEnd {
    frames: Receiver<Parcel>,
    shares: Arc<Shares>,
    pub(super) bell: Arc<Bell>,
    workers: Vec<(SyncSender<Answer>, Arc<Bell>)>,
    /// By port number, the worker that brought its last frame.
    brought_by: Vec<u16>,
}

impl ThreadEnd {
    /// The next frame; it counts as waiting until [`Self::served`].
    pub(super) fn next(&mut self) -> Option<Parcel> {
        let parcel = self.frames.try_recv().ok()?;
        let index = usize::from(parcel.port.0);
        if self.brought_by.len() <= index {
            self.brought_by.resize(index + 1, 0);
        }
        self.brought_by[index] = parcel.worker;
        Some(parcel)
    }

    /// A frame of this attachment has been served.
    pub(super) fn served(&self, port: PortId) {
        self.shares.give_back(port);
    }

    /// Sends an answer; whether there was room for it.
    pub(super) fn answer(&self, port: PortId, frame: Vec<u8>) -> bool {
        let worker = self.brought_by.get(usize::from(port.0)).copied().unwrap_or(0);
        let Some((answers, bell)) = self.workers.get(usize::from(worker)) else { return false };
        let sent = answers.try_send((port, frame)).is_ok();
        bell.ring();
        sent
    }
}

/// The ends for `workers` workers, in their order, and the thread's.
///
/// # Errors
/// The system's, where no eventfd can be made.
pub fn ends(workers: u16) -> io::Result<(Vec<WorkerEnd>, ThreadEnd)> {
    let (sender, frames) = channel();
    let shares = Arc::new(Shares((0..MAX_PORTS).map(|_| AtomicU16::new(0)).collect()));
    let bell = Arc::new(Bell::new()?);
    let mut near = Vec::new();
    let mut far = Vec::new();
    for worker in 0..workers {
        let answered = Arc::new(Bell::new()?);
        let (answer, answers) = sync_channel(ANSWERS);
        far.push((answer, Arc::clone(&answered)));
        let (frames, shares, bell) = (sender.clone(), Arc::clone(&shares), Arc::clone(&bell));
        near.push(WorkerEnd { worker, frames, shares, bell, answers, answered, more: false });
    }
    Ok((near, ThreadEnd { frames, shares, bell, workers: far, brought_by: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortId = PortId(0);
    const B: PortId = PortId(4000);

    fn flood(end: &WorkerEnd, port: PortId) -> usize {
        (0..1000).filter(|_| end.punt(port, Desk::Service, b"frame").is_ok()).count()
    }

    #[test]
    fn a_flood_of_one_attachment_leaves_the_others_share_whole() {
        let (mut near, mut far) = ends(1).unwrap();
        let near = near.remove(0);
        assert_eq!(flood(&near, A), usize::from(SHARE));
        assert_eq!(near.punt(A, Desk::Service, b"frame"), Err(DropReason::PuntFull));
        assert_eq!(flood(&near, B), usize::from(SHARE));
        // A frame counts as waiting until it is served.
        let parcel = far.next().unwrap();
        assert_eq!((parcel.port, flood(&near, A)), (A, 0));
        far.served(A);
        assert_eq!(flood(&near, A), 1);
    }

    #[test]
    fn answers_go_to_the_worker_that_brought_the_last_frame() {
        let (mut near, mut far) = ends(2).unwrap();
        for bringer in [0, 1, 0] {
            near[bringer].punt(A, Desk::Service, b"frame").unwrap();
            assert_eq!(far.next().unwrap().port, A);
            assert!(far.answer(A, b"answer".to_vec()));
            assert_eq!(near[bringer].answer(), Some((A, b"answer".to_vec())));
            assert!(near.iter_mut().all(|end| end.answer().is_none()));
        }
    }

    #[test]
    fn answers_that_nobody_takes_are_lost_and_told() {
        let (mut near, far) = ends(1).unwrap();
        assert_eq!((0..2000).filter(|_| far.answer(A, Vec::new())).count(), ANSWERS);
        assert_eq!(std::iter::from_fn(|| near[0].answer()).count(), ANSWERS);
        assert!(far.answer(A, Vec::new()));
        assert!(near[0].answer().is_some());
    }
}
