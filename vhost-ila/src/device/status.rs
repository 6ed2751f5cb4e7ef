//! What an operator sees of an attachment's device; written by its control thread and the worker, read by anyone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use nve_core::counters::Cell;

use super::cpu;
use super::dirty_log::PagesMarked;
use super::features::Offer;
use super::handover::Role;
use super::journal::Journal;
use super::ring::RingFault;

/// Live state of one attachment.
#[derive(Debug)]
pub struct Status {
    offer: Offer,
    connected: AtomicBool,
    connections: AtomicU64,
    features: AtomicU64,
    protocol: AtomicU64,
    logging: AtomicBool,
    pages_marked: PagesMarked,
    /// Receive and transmit of each pair in turn, then the control queue.
    rings: Vec<RingStatus>,
    /// How often each feature was used that is no ring's.
    pub uses: Uses,
    last_fault: Mutex<Option<String>>,
    refused: AtomicU64,
    panics: AtomicU64,
    /// Its share of the log.
    pub journal: Journal,
}

/// Live state of one ring. Its cells have one writer: whoever has the ring. Two workers' rings share no cache line.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct RingStatus {
    running: AtomicBool,
    enabled: AtomicBool,
    size: AtomicU64,
    fault: AtomicU8,
    /// Frames taken from it, or written to it; the worker's cell.
    pub frames: Cell,
    /// Interrupts sent; the worker's cell.
    pub signals: Cell,
    /// Times buffers were given back and the driver wanted no interrupt; the worker's cell.
    pub signals_spared: Cell,
    /// How often each feature of frames was used.
    pub uses: Uses,
}

/// One [`Cell`] per name, with what it counts.
macro_rules! uses {
    ($($doc:literal $name:ident,)+) => {
        /// How often each feature was used, all front-ends together.
        #[derive(Default, Debug)]
        pub struct Uses {
            $(#[doc = $doc] pub $name: Cell,)+
        }

        impl Uses {
            /// Each counter's name and meaning.
            pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $doc),)+];

            fn add_to(&self, report: &mut BTreeMap<&'static str, u64>) {
                $(*report.entry(stringify!($name)).or_default() += self.$name.get();)+
            }
        }
    };
}

uses! {
    // Each ring's.
    "Frames taken with a partial checksum." partial_checksums_taken,
    "TCP super-packets over IPv4 taken." tso4_taken,
    "TCP super-packets over IPv6 taken." tso6_taken,
    "Super-packets with CWR taken." ecn_taken,
    "UDP super-packets taken." uso_taken,
    "Frames given with a partial checksum." partial_checksums_given,
    "Frames given as verified (DATA_VALID)." verified_checksums_given,
    "TCP super-packets over IPv4 given whole." tso4_given,
    "TCP super-packets over IPv6 given whole." tso6_given,
    "Super-packets with CWR given whole." ecn_given,
    "UDP super-packets given whole." uso_given,
    "Frames written into more than one receive buffer." merged_frames,
    "Chains that came by an indirect table, either direction." indirect_chains,
    // The worker's that has the control queue.
    "Commands answered on the control queue." control_commands,
    "Of these, answered with an error." control_commands_refused,
    "Announcements that the guest acknowledged." announcements_acknowledged,
    // The control thread's.
    "Reads of the configuration space." configuration_reads,
    "Answers to GET_QUEUE_NUM." queue_numbers_told,
    "RESET_DEVICE carried out." device_resets,
    "Single memory regions added and removed." regions_changed,
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

    /// Buffers were given back; `signalled`: the driver wanted an interrupt for it.
    #[inline]
    pub(crate) fn gave_back(&self, frames: u64, signalled: bool) {
        self.frames.add(frames);
        if signalled { self.signals.add(1) } else { self.signals_spared.add(1) }
    }

    fn report(&self, role: Role) -> RingReport {
        RingReport {
            role,
            running: self.running.load(Relaxed),
            enabled: self.enabled.load(Relaxed),
            size: self.size.load(Relaxed),
            fault: self.fault().map(|f| f.to_string()),
            frames: self.frames.get(),
            signals: self.signals.get(),
            signals_spared: self.signals_spared.get(),
        }
    }
}

impl Status {
    /// Of a device that makes `offer`.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            connected: AtomicBool::default(),
            connections: AtomicU64::default(),
            features: AtomicU64::default(),
            protocol: AtomicU64::default(),
            rings: (0..=2 * usize::from(offer.pairs())).map(|_| RingStatus::default()).collect(),
            uses: Uses::default(),
            last_fault: Mutex::default(),
            logging: AtomicBool::default(),
            pages_marked: PagesMarked::default(),
            refused: AtomicU64::default(),
            panics: AtomicU64::default(),
            journal: Journal::default(),
        }
    }

    /// The ring of that role.
    #[inline]
    #[must_use]
    pub fn ring(&self, role: Role) -> Option<&RingStatus> {
        match role {
            Role::Receive(pair) => self.rings.get(2 * usize::from(pair)),
            Role::Transmit(pair) => self.rings.get(2 * usize::from(pair) + 1),
            Role::Control => self.rings.last(),
        }
    }

    /// Asks for what the worker counts of that ring as it gives buffers back.
    #[inline]
    pub(crate) fn expect(&self, role: Role) {
        if let Some(ring) = self.ring(role) {
            cpu::prefetch_to_write(std::ptr::from_ref(&ring.frames) as usize);
        }
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
        self.nothing_runs();
    }

    /// No ring is set up any more.
    pub(crate) fn nothing_runs(&self) {
        self.rings.iter().for_each(|ring| ring.set_state(false, false, 0));
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
        let pairs = (0..self.offer.pairs()).flat_map(|pair| [Role::Receive(pair), Role::Transmit(pair)]);
        let roles = pairs.chain([Role::Control]);
        let mut uses = BTreeMap::new();
        self.rings.iter().map(|ring| &ring.uses).chain([&self.uses]).for_each(|each| each.add_to(&mut uses));
        AttachmentReport {
            name: name.to_owned(),
            connected: self.connected.load(Relaxed),
            connections: self.connections.load(Relaxed),
            refused: self.refused.load(Relaxed),
            panics: self.panics.load(Relaxed),
            logging: self.logging.load(Relaxed),
            pages_marked: self.pages_marked.get(),
            offer: self.offer,
            features: self.features.load(Relaxed),
            protocol_features: self.protocol.load(Relaxed),
            rings: roles.zip(&self.rings).map(|(role, ring)| ring.report(role)).collect(),
            uses,
            last_fault: self.last_fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// An attachment's device at one moment.
#[derive(Clone, Debug)]
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
    /// What front-ends may accept.
    pub offer: Offer,
    /// virtio features accepted by the guest; bits.
    pub features: u64,
    /// vhost-user protocol features accepted by the front-end; bits.
    pub protocol_features: u64,
    /// Whether the pages we write are marked for the front-end, which migrates its guest (VHOST_F_LOG_ALL).
    pub logging: bool,
    /// Pages marked so far that were not marked before, of 4096 bytes.
    pub pages_marked: u64,
    /// Receive and transmit of each pair in turn, then the control queue.
    pub rings: Vec<RingReport>,
    /// How often each feature was used, by the names of [`Uses::ALL`].
    pub uses: BTreeMap<&'static str, u64>,
    /// Why the last connection ended, or why a message was refused.
    pub last_fault: Option<String>,
}

/// A ring at one moment.
#[derive(Clone, Debug)]
pub struct RingReport {
    /// Which one.
    pub role: Role,
    /// Handed to the worker.
    pub running: bool,
    /// SET_VRING_ENABLE(1), or enabled from the start.
    pub enabled: bool,
    /// Entries.
    pub size: u64,
    /// What it died of, until it is set up again.
    pub fault: Option<String>,
    /// Frames taken from it, or written to it.
    pub frames: u64,
    /// Interrupts sent to the guest.
    pub signals: u64,
    /// Times buffers were given back and the driver wanted no interrupt.
    pub signals_spared: u64,
}
