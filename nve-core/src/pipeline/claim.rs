//! A shared address goes to the attachment that says it has it (docs/decisions/0013); an attachment that waits for its guest is told by the
//! guest that it has come (docs/decisions/0017).
//!
//! ```text
//!   gateway/claim.rs: gratuitous ARP, unsolicited NA, listed, its MAC ──> a token, if the holder changes ──> one store
//! ```
//!
//! What must stay true: a claim moves an address of the claimant's own network between attachments that list it, and nothing else; what
//! repeats what is so already costs nothing.

use core::net::IpAddr;

use super::admit::{Bearer, Sender};
use super::nve::Nve;
use super::walk::Walk;
use crate::DropReason;
use crate::gateway::{Claim, FurtherAddresses, Protocol};
use crate::policy::{Holder, key_in};
use crate::tables::Target;

/// What the asker may use beside its own addresses, and what belongs to others.
pub(super) struct Lent<'w> {
    pub(super) nve: &'w Nve,
    pub(super) bearer: Bearer<'w>,
}

impl Lent<'_> {
    /// Whether somebody else, here or on another host, has `address`: by himself, or in a prefix; or it is shared, and not with the asker.
    pub(super) fn is_anothers(&self, address: IpAddr) -> bool {
        let Sender { attachment, network } = self.bearer.sender;
        let Some(key) = key_in(network, address) else { return false };
        if let Some(several) = self.nve.world.load().several(key) {
            // Others who have it on other hosts are no duplicates.
            return several.here() != Some(attachment.port);
        }
        match self.nve.table.get(key) {
            Some(target) => target != Target::Local(attachment.port),
            None => match network.further().shared(key) {
                Some(shared) => !shared.lists(attachment.port),
                None => {
                    let target = network.further().by_prefix(key);
                    target.is_some_and(|target| target != Target::Local(attachment.port))
                }
            },
        }
    }
}

impl FurtherAddresses for Lent<'_> {
    fn may_speak(&self, address: IpAddr) -> Result<(), DropReason> {
        let key = key_in(self.bearer.sender.network, address).ok_or(DropReason::SpoofedAddress)?;
        self.bearer.admit_beyond(self.nve, key).map(|_| ())
    }

    fn is_behind(&self, address: IpAddr) -> bool {
        let Sender { attachment, network } = self.bearer.sender;
        let Some(key) = key_in(network, address) else { return false };
        let own = Some(Target::Local(attachment.port));
        self.nve.table.get(key).is_none() && network.further().find(key) == own
    }
}

/// Carries out `claim` of the attachment of `bearer`.
///
/// # Errors
/// Another holds the address and the claim does not override, or the claimant moves addresses more often than it may.
#[cold]
pub(super) fn settle(walk: &mut Walk<'_>, bearer: Bearer<'_>, claim: Claim) -> Result<(), DropReason> {
    let Sender { attachment, network } = bearer.sender;
    let key = key_in(network, claim.address).ok_or(DropReason::SpoofedAddress)?;
    if attachment.awaits(key) {
        return walk.nve.admit_awaited(attachment);
    }
    if attachment.holds(key) {
        return Ok(());
    }
    let shared = network.further().shared(key).filter(|shared| shared.lists(attachment.port));
    let shared = shared.ok_or(DropReason::SpoofedAddress)?;
    let claimant = Holder { port: attachment.port, mac: *bearer.mac };
    match shared.holder() {
        Some(holder) if holder == claimant => return Ok(()),
        Some(holder) if holder.port != claimant.port && !claim.overrides => {
            return Err(DropReason::NotHolder);
        }
        _ => {}
    }
    let limits = walk.limits.get_mut(usize::from(attachment.port.0)).ok_or(DropReason::NoAttachment)?;
    limits.take(Protocol::Claim, walk.now)?;
    if !claim.overrides && shared.holder().is_none() {
        // Another worker's guest may have been faster.
        let holder = shared.take_unheld(claimant);
        return if holder.port == claimant.port { Ok(()) } else { Err(DropReason::NotHolder) };
    }
    shared.move_to(claimant);
    Ok(())
}
