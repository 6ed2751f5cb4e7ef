//! From the wire to an attachment whose packet is not of its own network: the egress edge (docs/decisions/0014; draft, section 4.2.2).
//!
//! What must stay true: a source of another realm is judged by rules, here as at the other edge; it is registered, and on another host
//! unless the packet went around on this one; an IPv4 tenant sees an address that it can answer, or nothing.

use core::net::Ipv6Addr;

use ipv4_xlat::HopChange;

use super::look_up::{Receiving, ToTask, Wanted, asks_router, from_wire, target};
use super::walk::{Stop, Walk};
use super::wire::{self, Arriving};
use super::{Fate, Scratch, deliver, quote, rewrite4, rewrite6, traffic};
use crate::DropReason;
use crate::addr::Key;
use crate::policy::{Endpoint, Nobody, Realm, Unruled};
use crate::tables::Target;

/// Where a packet comes from that is addressed to our locator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whence {
    /// The uplink.
    Fabric,
    /// An attachment of this host (`around.rs`).
    Here,
}

/// A packet that went around, to whom it is for.
pub(crate) fn here(walk: &mut Walk<'_>, arriving: Arriving<'_>, scratch: &mut Scratch) -> Result<Fate, Stop> {
    match from_wire(walk, arriving.question, arriving.frame)? {
        Wanted::Here(receiving) if arriving.is_error() => {
            quote::from_wire(walk, &quote::Reader::Tenant(receiving), arriving, scratch)
        }
        Wanted::Here(receiving) => from_elsewhere(walk, &receiving, arriving, DropReason::NoMapping, scratch),
        Wanted::Task(task) => to_task(walk, &task, arriving, scratch),
        Wanted::There(_) | Wanted::Many(_) => Err(DropReason::NotLocal.into()),
    }
}

/// To a tenant from somebody who is not of its network; `refused` says why he is not, if that is all there is to say.
#[cold]
pub(crate) fn from_elsewhere(
    walk: &mut Walk<'_>,
    receiving: &Receiving<'_>,
    arriving: Arriving<'_>,
    refused: DropReason,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let to = receiving.endpoint();
    let from = judge(walk, &arriving, &to, refused)?;
    let network = receiving.network;
    match (receiving.key.type_number(), network.ipv6) {
        (2, _) => {
            network.shown_here(from.address).ok_or(DropReason::NoAlias)?;
            let both_ipv4 = from.key.is_some_and(|key| key.type_number() == 2);
            if both_ipv4 {
                return rewrite4::to_tenant(walk, receiving, arriving, scratch);
            }
            let config = walk.world.apart_along(walk.world.uplink_mtu).with_hop_change(HopChange::Keep);
            rewrite4::to_tenant_by(walk, receiving, arriving, &config, scratch)
        }
        (3, Some(_)) => {
            let Arriving { frame, header, hop_limit, .. } = arriving;
            let shown = deliver::Readdressed { header, destination: to.address, hop_limit };
            rewrite6::to_tenant(walk, receiving, shown, (frame, 0), scratch)
        }
        _ => Err(DropReason::NoMapping.into()),
    }
}

/// To a task, from whomever.
#[cold]
pub(crate) fn to_task(
    walk: &mut Walk<'_>,
    task: &ToTask<'_>,
    arriving: Arriving<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    if arriving.header.hop_limit() == 0 {
        return Err(DropReason::HopLimit.into());
    }
    if arriving.is_error() {
        return quote::from_wire(walk, &quote::Reader::Task(*task), arriving, scratch);
    }
    let to = task.endpoint();
    judge(walk, &arriving, &to, DropReason::IllegalSource)?;
    let Arriving { frame, header, hop_limit, .. } = arriving;
    let shown = deliver::Readdressed { header, destination: to.address, hop_limit };
    rewrite6::to_tenant(walk, task, shown, (frame, 0), scratch)
}

/// Whether a packet to `to`, here or on another host, may come from its source, and who that is.
pub(crate) fn judge(
    walk: &Walk<'_>,
    arriving: &Arriving<'_>,
    to: &Endpoint,
    refused: DropReason,
) -> Result<Endpoint, Stop> {
    let from = source(walk, arriving.header.source())?;
    if from.realm == to.realm && !matches!(to.realm, Realm::Tasks(_)) {
        return Err(refused.into());
    }
    let traffic = traffic::of_ipv6(arriving.question, arriving.frame, 0)?;
    let admitted = walk.world.rules.judge(&from, to, traffic);
    admitted.map_err(|unruled| match (unruled, from.realm) {
        (Unruled::Domain, _) => DropReason::ForeignDomain,
        (Unruled::Fragment, _) => DropReason::CrossingFragment,
        (Unruled::Denied, _) => DropReason::OutsideDenied,
        (Unruled::NoRule, Realm::Outside) => DropReason::OutsideSource,
        (Unruled::NoRule, _) => DropReason::ForeignNetwork,
    })?;
    match from.key {
        Some(key) if !is_registered(walk, key, arriving.whence) => Err(DropReason::UnregisteredSource.into()),
        _ => Ok(from),
    }
}

/// Who a source address is.
fn source(walk: &Walk<'_>, source: Ipv6Addr) -> Result<Endpoint, DropReason> {
    Endpoint::called(walk.world, source).map_err(|nobody| match nobody {
        // Well-formed, and of a network that is not known here.
        Nobody::Network => DropReason::ForeignNetwork,
        Nobody::Locator | Nobody::Identifier | Nobody::NotUnicast => DropReason::IllegalSource,
    })
}

/// Whether a packet that came from there may have `key` as its source's.
pub(crate) fn is_registered(walk: &Walk<'_>, key: Key, whence: Whence) -> bool {
    match (target(walk, key), whence) {
        (Some(Target::Remote(..)), Whence::Fabric) | (Some(Target::Local(_)), Whence::Here) => true,
        (None, Whence::Fabric) => asks_router(walk.world, key),
        // One that others have, too.
        (_, Whence::Here) => walk.world.several(key).is_some_and(|several| several.here().is_some()),
        _ => false,
    }
}

/// A packet that goes on to another host: whether both ends may talk.
pub(crate) fn judge_passing(
    walk: &Walk<'_>,
    distant: &Endpoint,
    arriving: &Arriving<'_>,
) -> Result<(), Stop> {
    if arriving.is_error() {
        return quote::passes_through(walk, arriving.question, distant, arriving.frame);
    }
    wire::judge_same_network(walk, distant, arriving.header.source())
        .or_else(|refused| judge(walk, arriving, distant, refused).map(|_| ()))
}
