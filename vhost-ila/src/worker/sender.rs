//! What a guest brings to the worker: frames by its transmit rings, commands by its control queue.
//!
//! What must stay true: a ring that broke is left alone until the front-end sets it up again.

use super::delivery::{Outlets, signal_driver, tell_fault};
use super::run::Towards;
use crate::device::control_queue::ControlQueue;
use crate::device::cpu;
use crate::device::handover::{Role, TransmitQueue};
use crate::device::ring::RingFault;

/// A running transmit ring.
#[derive(Debug)]
pub(super) struct Sender {
    /// Whose.
    pub(super) port: u16,
    pub(super) queue: Box<TransmitQueue>,
    /// What epoll calls its kick.
    pub(super) token: u64,
    /// Turns in a row that found nothing; saturating.
    pub(super) quiet: u16,
    /// The attachment that most of its last frames went to, and rings: whose buffers are fetched while the next are looked at.
    pub(super) towards: Towards,
}

impl Sender {
    /// Asks for what a look at it and a delivery to where its frames went last will read of ours: with many rings it is not in the cache.
    #[inline]
    pub(super) fn fetch(&self, out: &Outlets) {
        cpu::prefetch_all(&*self.queue);
        out.fetch(self.towards);
    }

    /// Its turn is next: asks for what a look at it reads, and where they are `many` for what giving back writes.
    #[inline]
    pub(super) fn expect(&self, many: bool) {
        self.queue.ring.expect();
        if many {
            self.queue.ring.expect_to_publish();
            self.queue.status.expect(Role::Transmit(self.queue.pair));
        }
    }
}

/// A ring that is looked at when it is kicked.
pub(super) trait Kicked {
    /// Why it is left alone.
    fn fault(&self) -> Option<RingFault>;

    /// Asks the driver for kicks; whether there is work already.
    fn ask(&mut self) -> Result<bool, RingFault>;

    /// Stops using it, by name.
    fn breaks(&mut self, out: &mut Outlets, fault: RingFault);

    /// Asks for kicks before the worker sleeps; whether there is work already.
    fn want_kicks(&mut self, out: &mut Outlets) -> bool {
        if self.fault().is_some() {
            return false;
        }
        self.ask().unwrap_or_else(|fault| {
            self.breaks(out, fault);
            false
        })
    }
}

impl Kicked for Sender {
    fn fault(&self) -> Option<RingFault> {
        self.queue.fault
    }

    fn ask(&mut self) -> Result<bool, RingFault> {
        self.queue.ring.want_kicks()
    }

    #[cold]
    fn breaks(&mut self, out: &mut Outlets, fault: RingFault) {
        let role = Role::Transmit(self.queue.pair);
        self.queue.fault = Some(fault);
        tell_fault(&mut out.notifier, &self.queue.events, (self.port, &self.queue.status, role), fault);
    }
}

/// A running control queue.
#[derive(Debug)]
pub(super) struct Commander {
    /// Whose.
    pub(super) port: u16,
    pub(super) queue: Box<ControlQueue>,
}

impl Commander {
    /// Serves a few commands; how many there were.
    pub(super) fn serve(&mut self, out: &mut Outlets) -> usize {
        if self.queue.fault.is_some() {
            return 0;
        }
        let before = self.queue.pairs;
        let (served, end) = self.queue.serve();
        if self.queue.pairs != before {
            out.use_pairs(self.port, self.queue.pairs);
        }
        if served > 0 {
            // After the change it asked for: what the driver does next may count on it.
            let signal = self.queue.ring.publish();
            let whose = (&*self.queue.status, Role::Control);
            signal_driver(&mut out.notifier, &self.queue.events, whose, served as u64, signal);
            out.counters.signals.add(u64::from(signal));
        }
        if let Err(fault) = end {
            self.breaks(out, fault);
        }
        served
    }

    /// Tells the receivers what holds, as this queue comes to run.
    pub(super) fn begin(&self, out: &mut Outlets) {
        if self.queue.powers.multiqueue {
            out.use_pairs(self.port, self.queue.pairs);
        }
    }
}

impl Kicked for Commander {
    fn fault(&self) -> Option<RingFault> {
        self.queue.fault
    }

    fn ask(&mut self) -> Result<bool, RingFault> {
        self.queue.ring.want_kicks()
    }

    #[cold]
    fn breaks(&mut self, out: &mut Outlets, fault: RingFault) {
        self.queue.fault = Some(fault);
        let whose = (self.port, &*self.queue.status, Role::Control);
        tell_fault(&mut out.notifier, &self.queue.events, whose, fault);
    }
}
