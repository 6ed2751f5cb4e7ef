//! What an operator sees of a task's NIC.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// A task's NIC: written by control and, when its TUN goes away, by the worker.
#[derive(Debug, Default)]
pub struct Status {
    plugs: AtomicU64,
    now: Mutex<Now>,
}

#[derive(Clone, Debug, Default)]
struct Now {
    interface: Option<String>,
    last_fault: Option<String>,
}

impl Status {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker is about to have it.
    pub(super) fn plugged(&self, interface: &str) {
        self.plugs.fetch_add(1, Relaxed);
        self.now().interface = Some(interface.to_owned());
    }

    /// The worker has it no more, as somebody wanted.
    pub(super) fn unplugged(&self) {
        self.now().interface = None;
    }

    /// The worker has it no more, for this reason.
    pub fn lost(&self, fault: String) {
        let mut now = self.now();
        now.interface = None;
        now.last_fault = Some(fault);
    }

    /// A descriptor was refused.
    pub(super) fn refused(&self, fault: String) {
        self.now().last_fault = Some(fault);
    }

    /// A copy for `show attachments`.
    #[must_use]
    pub fn report(&self, name: &str) -> Report {
        let Now { interface, last_fault } = self.now().clone();
        Report { name: name.to_owned(), plugs: self.plugs.load(Relaxed), interface, last_fault }
    }
}

/// A task's NIC at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The attachment's name.
    pub name: String,
    /// The interface's name in its namespace when it was plugged in; none while none is.
    pub interface: Option<String>,
    /// How often one was plugged in.
    pub plugs: u64,
    /// Why the last one went, or was refused.
    pub last_fault: Option<String>,
}
