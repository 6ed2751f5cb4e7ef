//! Addresses that several attachments of this host may have, one at a time (VRRP, and whatever else moves an address by saying so).
//!
//! ```text
//!   gratuitous ARP, unsolicited NA ──> pipeline/claim.rs ──swap──> │ MAC: 48 │ port: 16 │ <──load── admit.rs: may it be a source?
//!                                                                                          <──load── look_up.rs: who receives, at which MAC?
//! ```
//!
//! What must stay true: holder and MAC change in one store, so there is never more than one holder; a holder counts only while the world
//! in force lists it; the word outlives a reload.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use smoltcp::wire::EthernetAddress;

use crate::addr::Key;
use crate::pipeline::PortId;

/// Nobody's word: no attachment has that port number.
const NOBODY: u64 = u64::MAX;

/// Who holds a shared address, and where its frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) port: PortId,
    /// The MAC it was claimed with.
    pub(crate) mac: EthernetAddress,
}

impl Holder {
    fn pack(self) -> u64 {
        let mac = self.mac.0.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        mac << 16 | u64::from(self.port.0)
    }
    fn unpack(word: u64) -> Option<Self> {
        let [a, b, c, d, e, f, ..] = word.to_be_bytes();
        let port = PortId(word as u16);
        (word != NOBODY).then_some(Self { port, mac: EthernetAddress([a, b, c, d, e, f]) })
    }
}

/// The word of one shared address; shared by all workers and by the worlds before and after a reload.
#[derive(Debug)]
pub(crate) struct Cell(AtomicU64);

impl Default for Cell {
    fn default() -> Self {
        Self(AtomicU64::new(NOBODY))
    }
}

impl Cell {
    /// Who holds it, and where: for [`Cell::restored`].
    pub(crate) fn word(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// The same cell, with the holder that it had when it was `word`, unless another has claimed it since.
    pub(crate) fn restored(self: Arc<Self>, word: u64) -> Arc<Self> {
        let _ = self.0.compare_exchange(NOBODY, word, Relaxed, Relaxed);
        self
    }
}

/// One shared address of a network.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) key: Key,
    /// Who may hold it.
    listed: Box<[PortId]>,
    cell: Arc<Cell>,
}

impl Shared {
    /// The address of `key`, which `listed` may hold.
    pub(crate) fn new(key: Key, listed: impl IntoIterator<Item = PortId>, cell: Arc<Cell>) -> Self {
        Self { key, listed: listed.into_iter().collect(), cell }
    }

    /// Who may hold it.
    pub(crate) fn listed(&self) -> &[PortId] {
        &self.listed
    }

    /// Whether the attachment of `port` may hold it.
    pub(crate) fn lists(&self, port: PortId) -> bool {
        self.listed.contains(&port)
    }

    /// Who holds it now.
    pub(crate) fn holder(&self) -> Option<Holder> {
        Holder::unpack(self.cell.0.load(Relaxed)).filter(|holder| self.lists(holder.port))
    }

    /// Makes `claimant`, which is listed, the holder; says who was.
    pub(crate) fn move_to(&self, claimant: Holder) -> Option<Holder> {
        debug_assert!(self.lists(claimant.port));
        Holder::unpack(self.cell.0.swap(claimant.pack(), Relaxed)).filter(|holder| self.lists(holder.port))
    }

    /// Makes `user`, which is listed, the holder if there is none; says who is now.
    pub(crate) fn take_unheld(&self, user: Holder) -> Holder {
        debug_assert!(self.lists(user.port));
        let word = self.cell.0.load(Relaxed);
        match Holder::unpack(word).filter(|holder| self.lists(holder.port)) {
            Some(holder) => holder,
            // Another may have been faster, and then is the holder.
            None => match self.cell.0.compare_exchange(word, user.pack(), Relaxed, Relaxed) {
                Ok(_) => user,
                Err(now) => Holder::unpack(now).unwrap_or(user),
            },
        }
    }

    /// Its word, for the next world. A holder that is not listed any more is forgotten, so that it is not one again when it is.
    pub(crate) fn keep_if_listed(&self) -> Arc<Cell> {
        let word = self.cell.0.load(Relaxed);
        if Holder::unpack(word).is_some_and(|holder| !self.lists(holder.port)) {
            // Whoever claims it meanwhile is listed, and stays.
            let _ = self.cell.0.compare_exchange(word, NOBODY, Relaxed, Relaxed);
        }
        Arc::clone(&self.cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Holder = Holder { port: PortId(3), mac: EthernetAddress([0x52, 0x54, 0, 0, 0, 3]) };
    const B: Holder = Holder { port: PortId(4095), mac: EthernetAddress([0, 0, 0x5e, 0, 1, 0xff]) };

    fn shared(listed: &[Holder], cell: &Arc<Cell>) -> Shared {
        let key = Key::from_bits(0x4000_03e9_0a01_0064).unwrap();
        Shared::new(key, listed.iter().map(|holder| holder.port), Arc::clone(cell))
    }

    #[test]
    fn a_shared_address_has_one_holder_or_none() {
        let shared = shared(&[A, B], &Arc::default());
        assert_eq!(shared.holder(), None);
        assert_eq!(shared.take_unheld(A), A);
        assert_eq!(shared.take_unheld(B), A, "use takes it from nobody");
        assert_eq!(shared.move_to(B), Some(A));
        assert_eq!(shared.holder(), Some(B));
    }

    #[test]
    fn a_holder_outlives_a_reload_only_while_it_is_listed() {
        let cell = Arc::default();
        shared(&[A, B], &cell).move_to(B);
        assert_eq!(shared(&[B], &cell).holder(), Some(B));
        let without = shared(&[A], &cell);
        assert_eq!(without.holder(), None);
        let cell = without.keep_if_listed();
        assert_eq!(shared(&[A, B], &cell).holder(), None, "it does not come back");
        assert_eq!(without.take_unheld(A), A);
    }
}
