//! A tenant that asks one that answers, all the time, in a thread of its own, while daemons and front-ends are killed around it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vhost_ila_tests::cloud_hypervisor::CloudHypervisor;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::neighbours::{datagram, is_between};
use vhost_ila_tests::site::Vm;

use super::PAYLOAD;

/// Questions that are sent in a turn.
const BURST: u32 = 16;

/// The conversation, until it is dropped.
pub(super) struct Asker {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    recoveries: Arc<Mutex<Vec<Duration>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Asker {
    /// `nic`, which is `from`'s and active, begins to ask `to`. It reconnects when its daemon is gone.
    pub(super) fn begin(nic: CloudHypervisor, from: Vm, to: Vm) -> Asker {
        let (stop, answers, recoveries) = (Arc::default(), Arc::default(), Arc::default());
        let mut asker = Asker { stop, answers, recoveries, thread: None };
        let (stop, answers, recoveries) =
            (asker.stop.clone(), asker.answers.clone(), asker.recoveries.clone());
        asker.thread = Some(thread::spawn(move || ask(nic, [from, to], &stop, &answers, &recoveries)));
        asker
    }

    /// The time from each of its reconnects to the first answer to what was asked after it; waits until there are `count`.
    pub(super) fn recoveries(&self, count: usize) -> Result<Vec<Duration>> {
        wait_for("an answer after a reconnect", Duration::from_secs(20), || {
            self.must_run()?;
            let recoveries = self.recoveries.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((recoveries.len() >= count).then(|| recoveries.clone()))
        })
    }

    /// Waits for `count` more answers; how long they took.
    pub(super) fn must_be_answered(&self, count: u64) -> Result<Duration> {
        let start = Instant::now();
        let goal = self.answers.load(Ordering::Acquire) + count;
        wait_for(&format!("{count} answers"), Duration::from_secs(20), || {
            self.must_run()?;
            Ok((self.answers.load(Ordering::Acquire) >= goal).then(|| start.elapsed()))
        })
    }

    fn must_run(&self) -> Result<()> {
        ensure!(!self.thread.as_ref().is_none_or(JoinHandle::is_finished), "the asker has ended");
        Ok(())
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("a thread").expect("no panic").expect("no failure");
        }
    }
}

fn ask(
    mut nic: CloudHypervisor,
    [from, to]: [Vm; 2],
    stop: &AtomicBool,
    answers: &AtomicU64,
    recoveries: &Mutex<Vec<Duration>>,
) -> Result<()> {
    let mut sent: u32 = 0;
    // When it had reconnected, and the first number asked since.
    let mut awaited: Option<(Instant, u32)> = None;
    while !stop.load(Ordering::Relaxed) {
        if nic.hung_up()? {
            nic.reconnect()?;
            awaited = Some((Instant::now(), sent));
        }
        let pair = nic.pairs().first_mut().context("a queue pair")?;
        for _ in 0..BURST {
            if pair.try_send(&datagram(&from, &to, &sent.to_be_bytes())?)? {
                sent = sent.wrapping_add(1);
            }
        }
        while let Some(frame) = pair.receive(Duration::ZERO)? {
            let frame = frame.bytes;
            if !is_between(&frame, &to, &from) {
                continue;
            }
            let number = frame.get(PAYLOAD..).and_then(<[u8]>::first_chunk).copied();
            let number = u32::from_be_bytes(number.context("an answer without its payload")?);
            ensure!(number < sent && frame.len() == PAYLOAD + 4, "altered: {frame:02x?}");
            answers.fetch_add(1, Ordering::Release);
            if let Some((since, _)) = awaited.take_if(|(_, first)| number >= *first) {
                recoveries.lock().unwrap_or_else(PoisonError::into_inner).push(since.elapsed());
            }
        }
        // The machine has other things to do.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
