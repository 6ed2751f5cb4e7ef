//! Frames to the slow path and answers back, over queues that nobody waits at.
//!
//! What must stay true: no more than [`SHARE`] frames of one attachment wait or are served at once, so the queue is as long as the
//! attachments' shares together and no attachment can fill another's; no more than [`ANSWERS_EACH`] answers for one attachment wait, and
//! one beyond that, or beyond a full queue, is lost, which is counted.

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
const ANSWERS: usize = 8192;

/// Answers for one attachment that may wait at once, at all workers together: one frame can bring many, and the queue has a length.
const ANSWERS_EACH: u16 = 128;

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

/// How many of an attachment's there may be at once, and how many there are by port number.
#[derive(Debug)]
struct Shares {
    most: u16,
    taken: Box<[AtomicU16]>,
}

impl Shares {
    fn new(most: u16) -> Self {
        Self { most, taken: (0..MAX_PORTS).map(|_| AtomicU16::new(0)).collect() }
    }

    fn take(&self, port: PortId) -> bool {
        let Some(share) = self.taken.get(usize::from(port.0)) else { return false };
        let more = |taken: u16| (taken < self.most).then_some(taken + 1);
        share.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, port: PortId) {
        if let Some(share) = self.taken.get(usize::from(port.0)) {
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
    answer_shares: Arc<Shares>,
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
        if let Some((port, _)) = answer {
            self.answer_shares.give_back(port);
        }
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
    answer_shares: Arc<Shares>,
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
        // Before it is sent: the worker may give it back at once.
        if !self.answer_shares.take(port) {
            return false;
        }
        let sent = answers.try_send((port, frame)).is_ok();
        if !sent {
            self.answer_shares.give_back(port);
        }
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
    let (shares, answer_shares) = (Arc::new(Shares::new(SHARE)), Arc::new(Shares::new(ANSWERS_EACH)));
    let bell = Arc::new(Bell::new()?);
    let mut near = Vec::new();
    let mut far = Vec::new();
    for worker in 0..workers {
        let answered = Arc::new(Bell::new()?);
        let (answer, answers) = sync_channel(ANSWERS);
        far.push((answer, Arc::clone(&answered)));
        let (frames, shares, bell) = (sender.clone(), Arc::clone(&shares), Arc::clone(&bell));
        let answer_shares = Arc::clone(&answer_shares);
        near.push(WorkerEnd { worker, frames, shares, bell, answers, answer_shares, answered, more: false });
    }
    Ok((near, ThreadEnd { frames, shares, bell, workers: far, answer_shares, brought_by: Vec::new() }))
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

    fn answers(far: &ThreadEnd, port: PortId) -> usize {
        (0..1000).filter(|_| far.answer(port, Vec::new())).count()
    }

    #[test]
    fn answers_of_one_attachment_leave_the_others_room() {
        let (mut near, far) = ends(1).unwrap();
        assert_eq!(answers(&far, A), usize::from(ANSWERS_EACH));
        assert_eq!(answers(&far, B), usize::from(ANSWERS_EACH));
        // One counts until it is taken.
        assert_eq!((near[0].answer(), answers(&far, A)), (Some((A, Vec::new())), 1));
        assert_eq!(std::iter::from_fn(|| near[0].answer()).count(), 2 * usize::from(ANSWERS_EACH));
        assert_eq!(answers(&far, A), usize::from(ANSWERS_EACH));
    }

    #[test]
    fn answers_that_nobody_takes_are_lost_and_told() {
        let (mut near, far) = ends(1).unwrap();
        assert_eq!((0..100).map(|port| answers(&far, PortId(port))).sum::<usize>(), ANSWERS);
        assert_eq!(std::iter::from_fn(|| near[0].answer()).count(), ANSWERS);
        // What was lost has used up nothing.
        assert_eq!(answers(&far, PortId(99)), usize::from(ANSWERS_EACH));
        assert!(near[0].answer().is_some());
    }
}
