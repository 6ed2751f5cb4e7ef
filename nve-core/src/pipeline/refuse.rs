//! The ICMP error that a refused packet's sender is owed, if its allowance has one left.
//!
//! What must stay true: whoever gets an error sent the packet it quotes; tenants, and whoever is outside, see the VN's gateway as its source,
//! tasks and the fabric our control address. Nobody outside is told a locator.

use core::net::Ipv6Addr;

use ipv4_xlat::IcmpError;
use ipv4_xlat::generated::{icmpv4_error, icmpv6_error};

use super::deliver::{IPV4, IPV6};
use super::walk::Walk;
use super::{Fate, Origin, Rewritten, Scratch};
use crate::DropReason;
use crate::addr::Key;
use crate::gateway::{GATEWAY_MAC, Protocol};
use crate::packet::ipv6::Ipv6;
use crate::packet::{ETHERNET_LEN, Frame};
use crate::policy::{Endpoint, Realm};

/// Whether an error to `origin` would be within its allowance.
#[cold]
pub(crate) fn may_answer(walk: &Walk<'_>, origin: Origin) -> bool {
    let limits = match origin {
        Origin::Port(port) => walk.limits.get(usize::from(port.0)),
        Origin::Uplink => Some(&*walk.uplink_limits),
        Origin::Outside => Some(&*walk.outside_limits),
    };
    limits.is_some_and(|limits| limits.would_grant(Protocol::IcmpError, walk.now))
}

/// The error as a reply, or a plain drop where none may or can be sent.
#[cold]
pub(crate) fn owed(
    walk: &mut Walk<'_>,
    (origin, key): (Origin, Option<Key>),
    reason: DropReason,
    error: &IcmpError,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Fate {
    let reply = match origin {
        Origin::Port(_) => to_tenant(walk, origin, error, frame, scratch),
        Origin::Uplink | Origin::Outside => to_fabric(walk, (origin, key), error, frame, scratch),
    };
    match reply {
        Some(reply) => Fate::Reply(reply, Some(reason)),
        None => Fate::Drop(reason),
    }
}

fn to_tenant(
    walk: &mut Walk<'_>,
    origin: Origin,
    error: &IcmpError,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Option<Rewritten> {
    let Origin::Port(port) = origin else { return None };
    let attachment = walk.world.attachment(port)?;
    let (gateway4, gateway6) = match walk.world.network(attachment.network) {
        Some(network) => (network.gateway4, network.gateway6),
        // A task has no gateway: the host itself speaks.
        None => (None, Some(attachment.sir_domain.locator().control_address())),
    };
    walk.limits.get_mut(usize::from(port.0))?.take(Protocol::IcmpError, walk.now).ok()?;
    let original = frame.head.get(ETHERNET_LEN..)?;
    let identification = walk.next_identification();
    let (ethernet, out) = scratch.head.split_first_chunk_mut::<ETHERNET_LEN>()?;
    let (len, ether_type) = match error {
        IcmpError::V4(error) => (icmpv4_error(error, gateway4?, identification, original, out).ok()?, IPV4),
        IcmpError::V6(error) => (icmpv6_error(error, gateway6?, original, out).ok()?, IPV6),
    };
    // Where it came from: one of the attachment's MACs, or nothing would be owed.
    ethernet[..6].copy_from_slice(frame.head.get(6..12)?);
    ethernet[6..12].copy_from_slice(GATEWAY_MAC.as_bytes());
    ethernet[12..].copy_from_slice(&ether_type);
    Some(Rewritten::whole(0..ETHERNET_LEN + len))
}

fn to_fabric(
    walk: &mut Walk<'_>,
    (origin, key): (Origin, Option<Key>),
    error: &IcmpError,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Option<Rewritten> {
    let IcmpError::V6(error) = error else { return None };
    let outside = origin == Origin::Outside;
    let limits = if outside { &mut *walk.outside_limits } else { &mut *walk.uplink_limits };
    limits.take(Protocol::IcmpError, walk.now).ok()?;
    let source = Ipv6::quoted(frame.head)?.source();
    let from = match Endpoint::called(walk.world, source) {
        Ok(source) if source.realm == Realm::Outside => gateway_of(walk, key?)?,
        _ => control_address(walk, key)?,
    };
    let len = icmpv6_error(error, from, frame.head, &mut scratch.head).ok()?;
    Some(Rewritten::whole(0..len))
}

/// This host's own address in the domain that the packet was for; in the host's own where that is not known.
fn control_address(walk: &Walk<'_>, key: Option<Key>) -> Option<Ipv6Addr> {
    let domain = key.map_or_else(|| walk.world.domains().first(), |key| walk.world.domain(key.domain()));
    domain.map(|domain| domain.locator().control_address())
}

/// The gateway of a tenant's network, as other realms would call it; a task has none.
fn gateway_of(walk: &Walk<'_>, tenant: Key) -> Option<Ipv6Addr> {
    let (_, network) = walk.world.network_of(tenant)?;
    match tenant.type_number() {
        2 => network.gateway4.map(|gateway| network.sir_address(gateway)),
        _ => network.gateway6,
    }
}
