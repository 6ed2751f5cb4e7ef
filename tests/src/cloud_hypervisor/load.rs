//! Two front-ends that send to each other as fast as their rings take it, in a thread of their own, while their daemon is killed
//! and started again.
//!
//! What must stay true: a direction flows again when a frame comes that was sent *after* both front-ends had reconnected; frames
//! that lay in a ring meanwhile do not count.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::CloudHypervisor;
use crate::process::wait_for;
use crate::ringpeer::neighbours::{datagram, is_between};
use crate::site::Vm;

/// Frames that each side offers in a turn.
const BURST: u32 = 32;

/// The longest that both directions may take from the reconnect on (scoreboard, check 22).
pub const GOAL: Duration = Duration::from_secs(1);

/// Where the number of a frame lies: behind Ethernet, IPv4 without options and UDP.
const PAYLOAD: usize = 42;

/// Flows of each direction, by source port, so that several queue pairs have something to do.
const FLOWS: u32 = 16;

/// The traffic, until it is ended.
pub struct Load {
    stop: Arc<AtomicBool>,
    crossed: Arc<AtomicU64>,
    recoveries: Arc<Mutex<Vec<Duration>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// One side.
struct End {
    nic: CloudHypervisor,
    vm: Vm,
    sent: u32,
    /// Since both sides had reconnected: the first number sent after it, until one of those arrives.
    awaited: Option<u32>,
    turn: usize,
}

impl Load {
    /// Begins to send between two NICs whose guests have activated them.
    pub fn begin(ends: [(CloudHypervisor, Vm); 2]) -> Load {
        let load =
            Load { stop: Arc::default(), crossed: Arc::default(), recoveries: Arc::default(), thread: None };
        let ends = ends.map(|(nic, vm)| End { nic, vm, sent: 0, awaited: None, turn: 0 });
        let (stop, crossed, recoveries) = (load.stop.clone(), load.crossed.clone(), load.recoveries.clone());
        let thread = thread::spawn(move || turns(ends, &stop, &crossed, &recoveries));
        Load { thread: Some(thread), ..load }
    }

    /// Waits until `count` reconnects have been recovered from; the time of each, in order.
    ///
    /// # Errors
    ///
    /// Fails when one took longer than [`GOAL`], or the traffic ended.
    pub fn must_have_recovered(&self, count: usize) -> Result<Vec<Duration>> {
        wait_for("both directions to flow again", Duration::from_secs(20), || {
            self.must_run()?;
            let recoveries = self.recoveries.lock().unwrap_or_else(PoisonError::into_inner);
            for (number, took) in recoveries.iter().enumerate() {
                ensure!(*took < GOAL, "recovery {number}: both directions flowed only after {took:?}");
            }
            Ok((recoveries.len() >= count).then(|| recoveries.clone()))
        })
    }

    /// Waits until `count` more frames have crossed.
    ///
    /// # Errors
    ///
    /// Fails when they do not within ten seconds.
    pub fn must_cross(&self, count: u64) -> Result<()> {
        let goal = self.crossed.load(Ordering::Acquire) + count;
        wait_for(&format!("{count} frames to cross"), Duration::from_secs(10), || {
            self.must_run()?;
            Ok((self.crossed.load(Ordering::Acquire) >= goal).then_some(()))
        })
    }

    fn must_run(&self) -> Result<()> {
        ensure!(!self.thread.as_ref().is_none_or(JoinHandle::is_finished), "the traffic ended");
        Ok(())
    }

    /// Ends it; how many frames crossed.
    ///
    /// # Errors
    ///
    /// Fails when a frame was altered or a front-end failed, ever.
    pub fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("ended already")?;
        thread.join().map_err(|_| anyhow::anyhow!("the traffic's thread panicked"))??;
        Ok(self.crossed.load(Ordering::Acquire))
    }
}

fn turns(
    mut ends: [End; 2],
    stop: &AtomicBool,
    crossed: &AtomicU64,
    recoveries: &Mutex<Vec<Duration>>,
) -> Result<()> {
    let mut reconnected: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut any = false;
        for end in &mut ends {
            if end.nic.hung_up()? {
                end.nic.reconnect()?;
                any = true;
            }
        }
        if any {
            // The one that was asked first may have been hung up on meanwhile: then this is done again.
            reconnected = Some(Instant::now());
            ends.iter_mut().for_each(|end| end.awaited = Some(end.sent));
        }
        let [one, two] = &mut ends;
        one.send(&two.vm)?;
        two.send(&one.vm)?;
        let came = two.receive(one)? + one.receive(two)?;
        crossed.fetch_add(came, Ordering::Release);
        if let Some(since) = reconnected {
            if ends.iter().all(|end| end.awaited.is_none()) {
                recoveries.lock().unwrap_or_else(PoisonError::into_inner).push(since.elapsed());
                reconnected = None;
            } else if since.elapsed() > 5 * GOAL {
                let dead = ends.iter().filter(|end| end.awaited.is_some()).map(|end| end.vm.name);
                bail!("nothing comes from {:?} after a reconnect", dead.collect::<Vec<_>>());
            }
        }
        // The machine has other things to do.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl End {
    /// Offers a burst, a frame to each pair in turn; what finds no room is not sent.
    fn send(&mut self, to: &Vm) -> Result<()> {
        for _ in 0..BURST {
            let number = self.sent;
            let mut frame = datagram(&self.vm, to, &number.to_be_bytes())?;
            let port = 1024 + u16::try_from(number % FLOWS)?;
            frame[34..36].copy_from_slice(&port.to_be_bytes());
            self.turn += 1;
            let pairs = self.nic.pairs();
            let pair = self.turn % pairs.len();
            if pairs[pair].try_send(&frame)? {
                self.sent = number.wrapping_add(1);
            }
        }
        Ok(())
    }

    /// Takes all that has come from `from`; how much it was.
    fn receive(&mut self, from: &mut End) -> Result<u64> {
        let mut count = 0;
        for pair in self.nic.pairs() {
            while let Some(frame) = pair.receive(Duration::ZERO)? {
                let frame = frame.bytes;
                if !is_between(&frame, &from.vm, &self.vm) {
                    continue;
                }
                let number = frame.get(PAYLOAD..).and_then(<[u8]>::first_chunk).copied();
                let number = u32::from_be_bytes(number.context("a frame without its payload")?);
                ensure!(number < from.sent && frame.len() == PAYLOAD + 4, "altered: {frame:02x?}");
                from.awaited = from.awaited.filter(|awaited| number < *awaited);
                count += 1;
            }
        }
        Ok(count)
    }
}
