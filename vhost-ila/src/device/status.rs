//! What an operator sees of an attachment's device; written by its control thread and the worker, read by anyone.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use nve_core::counters::Cell;
use serde::Serialize;

use super::dirty_log::PagesMarked;
use super::journal::Journal;
use super::ring::RingFault;

/// The two rings of the one queue pair, by vhost-user index.
pub const RINGS: usize = 2;

/// Live state of one attachment.
#[derive(Default, Debug)]
pub struct Status {
    connected: AtomicBool,
    connections: AtomicU64,
    features: AtomicU64,
    protocol: AtomicU64,
    logging: AtomicBool,
    pages_marked: PagesMarked,
    rings: [RingStatus; RINGS],
    last_fault: Mutex<Option<String>>,
    refused: AtomicU64,
    panics: AtomicU64,
    /// Its share of the log.
    pub journal: Journal,
}

/// Live state of one ring.
#[derive(Default, Debug)]
pub struct RingStatus {
    running: AtomicBool,
    enabled: AtomicBool,
    size: AtomicU64,
    fault: AtomicU8,
    /// Interrupts sent; the worker's cell.
    pub signals: Cell,
}

impl RingStatus {
    /// The worker found the ring broken; stays until the ring is set up again.
    pub fn set_fault(&self, fault: Option<RingFault>) {
        self.fault.store(fault.map_or(0, |f| f as u8), Relaxed);
    }

    /// The control thread's view.
    pub(crate) fn set_state(&self, running: bool, enabled: bool, size: u16) {
        self.running.store(running, Relaxed);
        self.enabled.store(enabled, Relaxed);
        self.size.store(u64::from(size), Relaxed);
    }

    /// The fault the ring died of, if any.
    #[must_use]
    pub fn fault(&self) -> Option<RingFault> {
        let code = self.fault.load(Relaxed);
        RingFault::ALL.into_iter().find(|f| *f as u8 == code)
    }
}

impl Status {
    /// Ring `index`; 0 is the guest's receive ring.
    #[must_use]
    pub fn ring(&self, index: usize) -> Option<&RingStatus> {
        self.rings.get(index)
    }

    pub(crate) fn connected(&self) {
        self.connected.store(true, Relaxed);
        self.connections.fetch_add(1, Relaxed);
    }

    /// Somebody who may not use the socket was turned away.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Serving a connection panicked.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.connected.store(false, Relaxed);
        self.features.store(0, Relaxed);
        self.protocol.store(0, Relaxed);
        self.logging.store(false, Relaxed);
        for ring in &self.rings {
            ring.set_state(false, false, 0);
        }
    }

    pub(crate) fn set_features(&self, virtio: u64) {
        self.features.store(virtio, Relaxed);
    }

    pub(crate) fn set_protocol(&self, protocol: u64) {
        self.protocol.store(protocol, Relaxed);
    }

    /// VHOST_F_LOG_ALL was set or taken away.
    pub(crate) fn set_logging(&self, on: bool) {
        self.logging.store(on, Relaxed);
    }

    /// The counter of marked pages, for a dirty log.
    pub(crate) fn pages_marked(&self) -> PagesMarked {
        self.pages_marked.clone()
    }

    /// Why the last connection ended, or could not be made.
    pub(crate) fn set_last_fault(&self, fault: String) {
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// A copy for `show attachments`.
    #[must_use]
    pub fn report(&self, name: &str) -> AttachmentReport {
        let ring = |r: &RingStatus| RingReport {
            running: r.running.load(Relaxed),
            enabled: r.enabled.load(Relaxed),
            size: r.size.load(Relaxed),
            fault: r.fault().map(|f| f.to_string()),
            signals: r.signals.get(),
        };
        let [receive, transmit] = &self.rings;
        AttachmentReport {
            name: name.to_owned(),
            connected: self.connected.load(Relaxed),
            connections: self.connections.load(Relaxed),
            refused: self.refused.load(Relaxed),
            panics: self.panics.load(Relaxed),
            features: self.features.load(Relaxed),
            protocol_features: self.protocol.load(Relaxed),
            logging: self.logging.load(Relaxed),
            pages_marked: self.pages_marked.get(),
            receive: ring(receive),
            transmit: ring(transmit),
            last_fault: self.last_fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// An attachment's device at one moment.
#[derive(Clone, Serialize, Debug)]
pub struct AttachmentReport {
    /// Its name.
    pub name: String,
    /// Whether a front-end is connected.
    pub connected: bool,
    /// How many front-ends there were so far.
    pub connections: u64,
    /// How many were turned away, for the user they run as.
    pub refused: u64,
    /// How many connections ended by a mistake of ours.
    pub panics: u64,
    /// virtio features accepted by the guest; bits.
    pub features: u64,
    /// vhost-user protocol features accepted by the front-end; bits.
    pub protocol_features: u64,
    /// Whether the pages we write are marked for the front-end, which migrates its guest (VHOST_F_LOG_ALL).
    pub logging: bool,
    /// Pages marked so far that were not marked before, of 4096 bytes.
    pub pages_marked: u64,
    /// The guest's receive ring.
    pub receive: RingReport,
    /// The guest's transmit ring.
    pub transmit: RingReport,
    /// Why the last connection ended, or why a message was refused.
    pub last_fault: Option<String>,
}

/// A ring at one moment.
#[derive(Clone, Serialize, Debug)]
pub struct RingReport {
    /// Handed to the worker.
    pub running: bool,
    /// SET_VRING_ENABLE(1), or enabled from the start.
    pub enabled: bool,
    /// Entries.
    pub size: u64,
    /// What it died of, until it is set up again.
    pub fault: Option<String>,
    /// Interrupts sent to the guest.
    pub signals: u64,
}
