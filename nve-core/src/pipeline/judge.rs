//! May this source reach this network? Asked of every packet from the wire (reading notes, section 5, check 5).
//!
//! What must stay true: C = 1, or an identifier under a locator, is never a legal source; the source's network equals the
//! destination's or a crossing admits it; the source is registered, and on another host. Where the mappings here are not all there are (`unknown = "router"`), one without a
//! mapping is another host's.

use core::net::Ipv6Addr;

use super::look_up::{asks_router, endpoint, target};
use super::walk::Walk;
use crate::DropReason;
use crate::addr::Identifier;
use crate::policy::{Admission, NetworkId};
use crate::tables::Target;

/// Judges the source of a packet to `network`, whose identifier must be of this type.
#[inline]
pub(crate) fn source(
    walk: &Walk<'_>,
    source: Ipv6Addr,
    network: NetworkId,
    source_type: u8,
) -> Result<Admission, DropReason> {
    // A locator, C = 1 and types other than 2 under SIR have no endpoint; nor has an address outside the domain.
    let Some((source_network, key)) = endpoint(walk, source) else {
        return Err(foreign_or_illegal(walk, source));
    };
    let admission = Admission::inside(source_network, network).ok_or(DropReason::ForeignNetwork)?;
    if key.type_number() != source_type {
        return Err(DropReason::IllegalSource);
    }
    match target(walk, key) {
        Some(Target::Remote(..)) => Ok(admission),
        None if asks_router(walk.world, key) => Ok(admission),
        _ => Err(DropReason::UnregisteredSource),
    }
}

/// A well-formed source of a network we do not know is foreign; everything else is no source at all.
#[cold]
fn foreign_or_illegal(walk: &Walk<'_>, source: Ipv6Addr) -> DropReason {
    let (upper, low) = ((source.to_bits() >> 64) as u64, source.to_bits() as u64);
    match Identifier::from_bits(low) {
        Ok(identifier) if walk.world.domain_called(upper).is_some() && identifier.type_number() == 2 => {
            DropReason::ForeignNetwork
        }
        _ => DropReason::IllegalSource,
    }
}
