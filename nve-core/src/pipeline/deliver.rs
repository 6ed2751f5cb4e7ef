//! The last step: what the receiver can take, and the bytes that go before the payload.
//!
//! What must stay true: nothing reaches an attachment but through [`to_port`], which saw its [`Recipient`]; what its driver did not
//! negotiate is finished in software first.

use core::net::Ipv6Addr;

use super::look_up::Recipient;
use super::walk::{Stop, Walk};
use super::{Again, Nve, PortId, Receiver, Scratch};
use crate::DropReason;
use crate::gateway::GATEWAY_MAC;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::{ChecksumState, ETHERNET_LEN, Offload};
use crate::policy::World;

/// EtherTypes written here.
pub(crate) const IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const IPV6: [u8; 2] = [0x86, 0xdd];

/// Whether the guest behind `recipient` takes a packet with `offload` as it is.
#[inline]
pub(crate) fn to_port<'w>(
    walk: &Walk<'_>,
    recipient: &impl Recipient<'w>,
    offload: &Offload,
) -> Result<(), Stop> {
    takes(walk.nve.receiver(recipient.attachment().port), offload)
}

/// Whether `receiver` does.
#[inline]
pub(crate) fn takes(receiver: Receiver, offload: &Offload) -> Result<(), Stop> {
    if !receiver.up {
        return Err(DropReason::ReceiverDown.into());
    }
    receiver.takes(offload).map_err(Stop::Again)
}

/// Whether the fabric takes a packet with `offload`, which is of the packet as it leaves, or of the tenant's that it is made of.
#[inline]
pub(crate) fn to_uplink(nve: &Nve, offload: &Offload) -> Result<(), Again> {
    if *offload == Offload::NONE {
        return Ok(());
    }
    let receiver = nve.receiver(PortId::FABRIC);
    if !receiver.up {
        // Nothing is finished for nobody: the shell drops it.
        return Ok(());
    }
    // Whatever leaves is IPv6.
    Receiver { tso4: receiver.tso6, ..receiver }.takes(offload)
}

/// Whether the fabric may be given a packet with `offload` as it is: with C = 0 a network card would re-seed it from the wire's
/// addresses (reading notes, section 2), so everything is finished before.
#[inline]
pub(crate) fn unmodified_to_uplink(offload: &Offload) -> Result<(), Stop> {
    if offload.gso.is_some() {
        Err(Stop::Again(Again::Segments))
    } else if is_partial(offload) {
        Err(Stop::Again(Again::Checksum))
    } else {
        Ok(())
    }
}

#[inline]
fn is_partial(offload: &Offload) -> bool {
    matches!(offload.checksum, ChecksumState::Partial { .. })
}

/// Writes the Ethernet header of a frame to `recipient` at `at`.
#[inline]
pub(crate) fn write_ethernet<'w>(
    scratch: &mut Scratch,
    at: usize,
    recipient: &impl Recipient<'w>,
    ether_type: [u8; 2],
) {
    if let Some(header) = scratch.head.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<ETHERNET_LEN>()) {
        put_ethernet(header, recipient.mac(), ether_type);
    }
}

/// The Ethernet header of a frame from the gateway.
#[inline]
pub(crate) fn put_ethernet(header: &mut [u8; ETHERNET_LEN], to: [u8; 6], ether_type: [u8; 2]) {
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(GATEWAY_MAC.as_bytes());
    header[12..].copy_from_slice(&ether_type);
}

/// An IPv6 header, with another destination and hop limit.
#[derive(Clone, Copy)]
pub(crate) struct Readdressed<'a> {
    pub(crate) header: Ipv6<'a>,
    pub(crate) destination: Ipv6Addr,
    pub(crate) hop_limit: u8,
}

/// Writes `shown` at `at`.
#[inline]
pub(crate) fn write_ipv6(scratch: &mut Scratch, at: usize, shown: Readdressed<'_>) {
    if let Some(out) = scratch.head.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<HEADER_LEN>()) {
        *out = *shown.header.bytes();
        out[7] = shown.hop_limit;
        out[24..].copy_from_slice(&shown.destination.octets());
    }
}

/// Rewrites destination and hop limit of the IPv6 header at the start of the scratch buffer.
#[inline]
pub(crate) fn redirect_ipv6(scratch: &mut Scratch, destination: Ipv6Addr, hop_limit: impl Fn(u8) -> u8) {
    if let Some(header) = scratch.head.first_chunk_mut::<HEADER_LEN>() {
        header[7] = hop_limit(header[7]);
        header[24..].copy_from_slice(&destination.octets());
    }
}

/// Sets the hop limit of the IPv6 header at the start of the scratch buffer.
pub(crate) fn set_hop_limit(scratch: &mut Scratch, hop_limit: u8) {
    if let Some(header) = scratch.head.first_chunk_mut::<HEADER_LEN>() {
        header[7] = hop_limit;
    }
}

/// Gives back, before the uplink, the hops that this host's own forwarding will spend behind it (design, section 5, "Hop count"). What leaves the
/// host never has 255: no tenant is to seem to be on the fabric's link (RFC 5082).
#[inline]
pub(crate) fn give_back_hop(world: &World, hop_limit: u8) -> u8 {
    hop_limit.saturating_add(world.uplink_hops).min(254 + world.uplink_hops)
}

/// Gives back, behind the uplink, the hops that this host's own forwarding has spent. Never 255: whoever on the fabric sends with 255
/// must not seem to be on the tenant's link (RFC 5082).
#[inline]
pub(crate) fn give_back_spent_hop(world: &World, hop_limit: u8) -> u8 {
    hop_limit.saturating_add(world.uplink_hops).min(254)
}
