//! Many NICs with several pairs of rings each, of which every one sends to the next; and, where a case is about that, two more that are
//! sent to and do not take it.
//!
//! ```text
//!   talkers     1 ──> 2 ──> 3 ──> ... ──> 1       every pair sends; 32 frames for each pair of a NIC are under way; what arrives is counted
//!   others      x1 ──> x2,  x3 ──> x4             as many as there are descriptors for; not counted
//! ```
//!
//! What must stay true: a NIC's frames are of several flows, so that they come to all rings of the next; 32 in a row are of one, as a
//! guest's are.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};

use super::frames::{Ends, Frame};
use super::nic::{Nic, Region, Shape};
use super::{BURST, LOST, Shared, add, tenant_way};
use crate::bench::case::{Beside, Case};

/// Entries of a ring: QEMU's.
const ENTRIES: u16 = 256;

/// Flows of a pair.
const FLOWS: usize = 4;

/// A NIC whose frames are counted where they arrive.
struct Talker {
    under_way: usize,
    /// Since when nothing has arrived.
    silent: Instant,
    /// The pair that sends next.
    next: usize,
}

/// The thread.
pub(super) fn drive(shared: &Shared, case: &Case, sockets: &[PathBuf], huge: bool) -> Result<()> {
    let start = Instant::now();
    let shape = |number: usize| {
        let pairs = if number < case.ports { case.pairs } else { 1 };
        Shape { pairs, entries: ENTRIES, pages: number * 7 % 101 }
    };
    let regions: Vec<Region> =
        (0..sockets.len()).map(|number| Region::new(shape(number), huge)).collect::<Result<_>>()?;
    let mut nics = Vec::new();
    for (number, (region, socket)) in regions.iter().zip(sockets).enumerate() {
        let frames = frames(case, number)?;
        nics.push(Nic::attach(region, socket, &frames).with_context(|| format!("{}", socket.display()))?);
    }
    let (talking, others) = nics.split_at_mut(case.ports);
    let mut talkers: Vec<Talker> =
        talking.iter().map(|_| Talker { under_way: 0, silent: start, next: 0 }).collect();
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (from, talker) in talkers.iter_mut().enumerate() {
            talker.receive(&mut talking[(from + 1) % case.ports], now, shared)?;
            talker.send(&mut talking[from])?;
        }
        for (number, two) in others.chunks_exact_mut(2).enumerate() {
            let [from, to] = two else { continue };
            from.only()?.send(BURST, |_| ())?;
            let most = match (case.beside, number) {
                (Beside::Stalled, 0) => 0,
                (Beside::Stalled, _) => 1,
                _ => 64,
            };
            to.only()?.receive_at_most(most, |_, _| ())?;
        }
    }
    Ok(())
}

impl Talker {
    fn receive(&mut self, to: &mut Nic<'_>, now: Instant, shared: &Shared) -> Result<()> {
        let (mut arrived, mut last) = (0, 0);
        let full = BURST * to.pairs.len();
        for pair in &mut to.pairs {
            arrived += pair.receive(|_, length| last = length as u64)?;
        }
        if arrived > 0 {
            shared.length.store(last, Ordering::Relaxed);
            add(&shared.arrived, arrived as u64);
            self.under_way = self.under_way.saturating_sub(arrived);
            self.silent = now;
        } else if self.under_way >= full && now - self.silent > LOST {
            add(&shared.lost, self.under_way as u64);
            self.under_way = 0;
            self.silent = now;
        }
        Ok(())
    }

    /// One burst of each pair, as long as there is room under way.
    fn send(&mut self, from: &mut Nic<'_>) -> Result<()> {
        let count = from.pairs.len();
        for _ in 0..count {
            let room = (BURST * count).saturating_sub(self.under_way).min(BURST);
            let Some(pair) = from.pairs.get_mut(self.next).filter(|_| room > 0) else { break };
            self.under_way += pair.send(room, |_| ())?;
            self.next = (self.next + 1) % count;
        }
        Ok(())
    }
}

/// What the pairs of a NIC send: to the next of its kind.
fn frames(case: &Case, number: usize) -> Result<Vec<Vec<Vec<u8>>>> {
    let to = match number.checked_sub(case.ports) {
        None => (number + 1) % case.ports,
        Some(other) => case.ports + (other ^ 1),
    };
    let tenant = |number: usize| u8::try_from(number + 1).context("so many tenants");
    let ends = tenant_way(tenant(number)?, tenant(to)?);
    let flow = |number: usize| -> Result<Vec<u8>> {
        let ends = Ends { port: ends.port + u16::try_from(number)?, ..ends };
        Ok(Frame::new(case.family, &ends, case.frame_bytes() as usize)?.bytes)
    };
    let of_pair = |pair: usize| (pair * FLOWS..(pair + 1) * FLOWS).map(flow).collect();
    (0..if number < case.ports { case.pairs } else { 1 }).map(of_pair).collect()
}
