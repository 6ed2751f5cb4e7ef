//! A front-end that never is the limit, and that knows when it sent what: two NICs of ours, polled by one thread on core 1.
//!
//! ```text
//!   NIC a ──tx──> back-end ──> rx── NIC b       neighbours: both ways; to the wire: this way only
//!
//!   window: 256 frames of each way are under way; as many as arrive are sent         (throughput, and what it costs)
//!   rate:   so many a second, each with a number; when that number arrives is looked up when it was sent    (latency)
//! ```
//!
//! It sends no frame that it has to read first, which is why it is faster than a front-end that answers. All back-ends meet the same.
//!
//! What must stay true: the thread makes no system call and takes no lock while it runs, but for reading the clock (no call either) and the
//! kicks that a back-end asks for; what it reports are cells that it alone writes.

mod fleet;
mod frames;
mod nic;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::case::{Case, Load, To};
use super::machine;
use frames::{Ends, Frame, number};
use nic::{Nic, Pair, Region, Shape};

use crate::process::wait_for;

/// Frames of each way that are under way, as long as none is lost.
const WINDOW: usize = 256;

/// Frames sent at once, at most.
const BURST: usize = 32;

/// After so long without any arriving, those under way are given up.
const LOST: Duration = Duration::from_millis(20);

/// A latency's unit, and how many of them are told apart.
const STEP_NANOS: u64 = 50;
const STEPS: usize = 20_000;

/// The virtual gateway's address, which every tenant sends to.
const GATEWAY: [u8; 6] = [0x02, 0x49, 0x4c, 0x41, 0, 1];

/// The UDP port that frames come from.
const FIRST_PORT: u16 = 1024;

/// Where the destinations begin when there are many.
pub const FIRST_DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 16, 0, 0);

/// What the thread is told and what it tells.
struct Shared {
    stop: AtomicBool,
    /// Frames a second, all ways together; 0 for a window.
    rate: AtomicU64,
    arrived: AtomicU64,
    lost: AtomicU64,
    /// Bytes of the frame that arrived last.
    length: AtomicU64,
    latencies: Vec<AtomicU64>,
}

/// The running generator. It stops when dropped.
pub struct Generator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
    before: (u64, Instant),
}

impl Generator {
    /// Attaches to `sockets` and sends what `case` says, a window full. `huge`: on huge pages, of which it needs eight, and alone on core 1.
    ///
    /// # Errors
    ///
    /// Fails when the thread cannot be started; what fails in it is said by [`Generator::end`].
    pub fn start(case: &Case, sockets: &[PathBuf], huge: bool) -> Result<Generator> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            length: AtomicU64::new(0),
            latencies: (0..STEPS).map(|_| AtomicU64::new(0)).collect(),
        });
        let (told, case_, sockets) = (shared.clone(), *case, sockets.to_vec());
        let thread = thread::Builder::new().name("generator".into()).spawn(move || {
            if huge {
                machine::leave_core_0()?;
            }
            match case_.load {
                Load::Fleet => fleet::drive(&told, &case_, &sockets, huge),
                Load::Swap | Load::Generator => drive(&told, &case_, &sockets, huge),
            }
        })?;
        Ok(Generator { shared, thread: Some(thread), before: (0, Instant::now()) })
    }

    /// Returns as soon as frames arrive: many NICs take their time to be attached.
    ///
    /// # Errors
    ///
    /// Fails when none does within a minute, or the generator has ended.
    pub fn wait_until_it_flows(&mut self) -> Result<()> {
        wait_for("frames to arrive", Duration::from_secs(60), || {
            self.must_run()?;
            Ok((self.shared.arrived.load(Ordering::Relaxed) > 0).then_some(()))
        })
    }

    /// Arrivals are counted from here.
    ///
    /// # Errors
    ///
    /// Fails when the generator has ended.
    pub fn begin(&mut self) -> Result<()> {
        self.must_run()?;
        self.before = (self.shared.arrived.load(Ordering::Relaxed), Instant::now());
        Ok(())
    }

    /// What arrived since [`Generator::begin`]: packets a second, and the length of the last of them.
    ///
    /// # Errors
    ///
    /// Fails when hardly anything arrived, or the generator has ended.
    pub fn end(&mut self) -> Result<(f64, f64)> {
        self.must_run()?;
        let (before, start) = self.before;
        let arrived = self.shared.arrived.load(Ordering::Relaxed) - before;
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds is far below 2^52")]
        let pps = arrived as f64 / start.elapsed().as_secs_f64();
        ensure!(
            pps > 1_000.0,
            "{pps:.0} packets a second arrive, {} were lost",
            self.shared.lost.load(Ordering::Relaxed)
        );
        #[expect(clippy::cast_precision_loss, reason = "a frame's length")]
        let length = self.shared.length.load(Ordering::Relaxed) as f64;
        Ok((pps, length))
    }

    /// How many frames have been given up so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// From now on `pps` frames a second, all ways together, are sent.
    pub fn send_at(&self, pps: u64) {
        self.shared.rate.store(pps, Ordering::Relaxed);
    }

    /// The median and the 99th percentile of latencies of what arrives in `time`, in microseconds, and how many arrived a second.
    ///
    /// # Errors
    ///
    /// As [`Generator::end`].
    pub fn latency_in(&mut self, time: Duration) -> Result<([f64; 2], f64)> {
        let counts = || -> Vec<u64> {
            self.shared.latencies.iter().map(|count| count.load(Ordering::Relaxed)).collect()
        };
        let before = counts();
        thread::sleep(time);
        let since: Vec<u64> = counts().iter().zip(&before).map(|(after, before)| after - before).collect();
        self.must_run()?;
        let all: u64 = since.iter().sum();
        ensure!(all > 100, "only {all} packets arrived");
        let within = |share: u64| {
            let mut left = all * share / 100;
            let step = since.iter().position(|count| {
                left = left.saturating_sub(*count);
                left == 0
            });
            let nanos = (step.unwrap_or(STEPS) as u64 + 1) * STEP_NANOS;
            Duration::from_nanos(nanos).as_secs_f64() * 1e6
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds is far below 2^52")]
        Ok(([within(50), within(99)], all as f64 / time.as_secs_f64()))
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// Fails when a back-end hung up or misused a ring.
    pub fn finish(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), joined)
    }

    fn must_run(&mut self) -> Result<()> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            self.thread.take().map_or(Ok(()), joined)?;
            anyhow::bail!("the generator has ended");
        }
        Ok(())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Who drops it has an error of its own to tell.
            drop(joined(thread));
        }
    }
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("the generator's thread panicked"))?.context("the generator")
}

/// One way, from a NIC to the other.
struct Way {
    frame: Frame,
    under_way: usize,
    /// Since when nothing has arrived.
    silent: Instant,
    /// The next frame's number, and when each of the last 65536 was sent, in nanoseconds.
    next: u16,
    sent_at: Vec<u64>,
    /// What the next destination is made of.
    dice: u64,
}

/// The thread, with two NICs.
fn drive(shared: &Shared, case: &Case, sockets: &[PathBuf], huge: bool) -> Result<()> {
    let start = Instant::now();
    let ends = ends(case.to);
    let way = |number: usize| -> Result<Way> {
        let frame = Frame::new(case.family, &ends[number], case.frame_bytes() as usize)?;
        Ok(Way { frame, under_way: 0, silent: start, next: 0, sent_at: vec![0; 1 << 16], dice: 1 })
    };
    let mut ways = vec![way(0)?];
    if case.to == To::Neighbour {
        ways.push(way(1)?);
    }
    let regions = [Region::new(Shape::SINGLE, huge)?, Region::new(Shape::SINGLE, huge)?];
    let attach = |number: usize| {
        let frame: Vec<_> = ways.get(number).map(|way| vec![way.frame.bytes.clone()]).into_iter().collect();
        let socket = sockets.get(number).context("two sockets")?;
        Nic::attach(&regions[number], socket, &frame).with_context(|| format!("{}", socket.display()))
    };
    let mut nics = [attach(0)?, attach(1)?];
    let mut pace = Pace::new(start);
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let rate = shared.rate.load(Ordering::Relaxed);
        let due = pace.due(now, rate, ways.len());
        for (number, way) in ways.iter_mut().enumerate() {
            let [first, second] = &mut nics;
            let (from, to) = if number == 0 { (first, second) } else { (second, first) };
            let (from, to) = (from.only()?, to.only()?);
            if rate == 0 {
                way.exchange(from, to, case, now, shared)?;
            } else {
                way.send_and_time(from, to, due, case, start, shared)?;
            }
        }
    }
    Ok(())
}

impl Way {
    /// As many as have arrived are sent.
    fn exchange(
        &mut self,
        from: &mut Pair<'_>,
        to: &mut Pair<'_>,
        case: &Case,
        now: Instant,
        shared: &Shared,
    ) -> Result<()> {
        let mut last = 0;
        let arrived = to.receive(|_, length| last = length as u64)?;
        if arrived > 0 {
            shared.length.store(last, Ordering::Relaxed);
            add(&shared.arrived, arrived as u64);
            self.under_way = self.under_way.saturating_sub(arrived);
            self.silent = now;
        } else if self.under_way == WINDOW && now - self.silent > LOST {
            add(&shared.lost, WINDOW as u64);
            self.under_way = 0;
            self.silent = now;
        }
        let room = (WINDOW - self.under_way).min(BURST);
        let (frame, dice) = (&self.frame, &mut self.dice);
        self.under_way += match case.destinations {
            1 => from.send(room, |_| ())?,
            many => from.send(room, |at| frame.patch(at, 0, Some(destination(dice, many))))?,
        };
        Ok(())
    }

    /// As many as are due are sent, with a number each; what arrives is timed.
    fn send_and_time(
        &mut self,
        from: &mut Pair<'_>,
        to: &mut Pair<'_>,
        due: usize,
        case: &Case,
        start: Instant,
        shared: &Shared,
    ) -> Result<()> {
        let nanos = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = nanos();
        let Way { frame, next, sent_at, dice, .. } = self;
        from.send(due, |at| {
            let to = (case.destinations > 1).then(|| destination(dice, case.destinations));
            frame.patch(at, *next, to);
            sent_at[usize::from(*next)] = now;
            *next = next.wrapping_add(1);
        })?;
        let now = nanos();
        let arrived = to.receive(|at, length| {
            let took = now.saturating_sub(sent_at[usize::from(number(at, length))]);
            let step = usize::try_from(took / STEP_NANOS).unwrap_or(usize::MAX).min(STEPS - 1);
            add(&shared.latencies[step], 1);
        })?;
        add(&shared.arrived, arrived as u64);
        Ok(())
    }
}

/// How many frames are due on each way.
struct Pace {
    rate: u64,
    since: Instant,
    sent: u64,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { rate: 0, since: now, sent: 0 }
    }

    fn due(&mut self, now: Instant, rate: u64, ways: usize) -> usize {
        if rate != self.rate {
            *self = Pace { rate, since: now, sent: 0 };
        }
        let nanos = u64::try_from((now - self.since).as_nanos()).unwrap_or(u64::MAX);
        let due = (u128::from(nanos) * u128::from(rate) / ways as u128 / 1_000_000_000) as u64 - self.sent;
        if due > BURST as u64 {
            // The thread was held up: what was due then is not made up for, which would be a load of its own.
            *self = Pace { rate, since: now, sent: 0 };
            return BURST;
        }
        self.sent += due;
        due as usize
    }
}

/// One of the destinations, each as likely as another.
fn destination(dice: &mut u64, many: u32) -> u32 {
    *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    u32::from(FIRST_DESTINATION) + (((*dice >> 32) * u64::from(many)) >> 32) as u32
}

/// To a cell that only this thread writes.
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// From one tenant of a number to another.
fn tenant_way(from: u8, to: u8) -> Ends {
    let tenant = |number: u8| [2, 0, 0, 0, 0, number];
    let ipv4 = |number: u8| Ipv4Addr::new(10, 1, 0, number);
    // As the configuration writes it: decimal digits, read as hexadecimal.
    let ipv6 = |number: u8| {
        let digits = u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
        Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, digits)
    };
    Ends {
        macs: [tenant(from), GATEWAY],
        ipv4: [ipv4(from), ipv4(to)],
        ipv6: [ipv6(from), ipv6(to)],
        port: FIRST_PORT,
    }
}

/// The tenants of both ways.
fn ends(to: To) -> [Ends; 2] {
    let first = tenant_way(1, 2);
    match to {
        To::Neighbour => [first, tenant_way(2, 1)],
        To::Wire => [Ends { ipv4: [first.ipv4[0], FIRST_DESTINATION], ..first }, tenant_way(2, 1)],
    }
}
