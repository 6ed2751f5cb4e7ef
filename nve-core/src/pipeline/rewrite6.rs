//! IPv6 between tenants of one VN (scenario 9): the destination's upper bits change, and the hop limit; nothing else.
//!
//! ```text
//!   VNET:VA1, VNET:VA2 ──from_tenant──> VNET:VA1, L2:(VNI1:VAX2) ──from_wire──> VNET:VA1, VNET:VA2
//! ```
//!
//! What must stay true: on one host a packet passes the same checks and limits as through the wire; only its hop limit may differ.

use core::net::Ipv6Addr;

use ipv4_xlat::{IcmpError, Icmpv6Error};

use super::admit::Admitted;
use super::deliver;
use super::look_up::{Receiving, Recipient, Way, peer};
use super::quote;
use super::walk::{Stop, Walk};
use super::{Again, Fate, Question, Rewritten, Scratch};
use crate::DropReason;
use crate::addr::{Identifier, IlaAddress, Locator, Neutral};
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::{ETHERNET_LEN, Frame, largest_segment};
use crate::policy::IPV6_MINIMUM;
use crate::tables::Target;

/// From a tenant to its peer, here or on another host.
#[inline]
pub(crate) fn from_tenant(
    walk: &mut Walk<'_>,
    admitted: &Admitted<'_>,
    question: &Question,
    header: Ipv6<'_>,
    (frame, scratch, fate): (&Frame<'_>, &mut Scratch, &mut Fate),
) -> Result<(), Stop> {
    let source = header.source();
    let (key, target) = match peer(walk, admitted, (question, frame), source.into())? {
        (key, Way::Known(target)) => (key, target),
        (_, Way::Router) => {
            *fate = to_router(walk, question, header, frame, scratch)?;
            return Ok(());
        }
        // Aliases are IPv4.
        (_, Way::Alias) => return Err(DropReason::NoMapping.into()),
    };
    fits_path(path_mtu(walk, target, question.ip_len as usize), question, frame, source)?;
    if header.hop_limit() == 0 {
        return Err(DropReason::HopLimit.into());
    }
    let payload = ETHERNET_LEN + HEADER_LEN..ETHERNET_LEN + header.total_len();
    match target {
        Target::Remote(locator, neutral) => {
            let locator = walk.world.locator(locator).ok_or(DropReason::NoMapping)?;
            let wire = on_the_wire(locator, key.identifier(), neutral);
            if !wire.is_neutral() {
                deliver::unmodified_to_uplink(&frame.offload)?;
            }
            let hop_limit = deliver::give_back_hop(walk.world, header.hop_limit());
            let shown = deliver::Readdressed { header, destination: wire.ipv6(), hop_limit };
            deliver::write_ipv6(scratch, 0, shown);
            let offload = frame.offload;
            *fate = Fate::Uplink(Rewritten { head: 0..HEADER_LEN, tail: payload, offload, more: false });
        }
        Target::Local(port) => {
            let receiving = Receiving::at(walk, port, key)?;
            if question.is_icmpv6_error(frame, ETHERNET_LEN) {
                quote::admit_from_neighbour(walk, &receiving, question, frame)?;
            }
            let (destination, hop_limit) = (header.destination(), header.hop_limit());
            let shown = deliver::Readdressed { header, destination, hop_limit };
            *fate = to_tenant(walk, &receiving, shown, (frame, ETHERNET_LEN), scratch)?;
        }
    }
    Ok(())
}

/// To the router, as the receiver calls itself: nothing changes, so checksums and offloads are right as they are.
#[cold]
fn to_router(
    walk: &Walk<'_>,
    question: &Question,
    header: Ipv6<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    fits_path(walk.world.uplink_mtu, question, frame, header.source())?;
    if header.hop_limit() == 0 {
        return Err(DropReason::HopLimit.into());
    }
    let hop_limit = deliver::give_back_hop(walk.world, header.hop_limit());
    deliver::write_ipv6(
        scratch,
        0,
        deliver::Readdressed { header, destination: header.destination(), hop_limit },
    );
    let tail = ETHERNET_LEN + HEADER_LEN..ETHERNET_LEN + header.total_len();
    Ok(Fate::Uplink(Rewritten { head: 0..HEADER_LEN, tail, offload: frame.offload, more: false }))
}

/// To an attachment: `shown` behind an Ethernet header. The packet starts at `offset` of `frame`.
#[inline]
pub(crate) fn to_tenant<'w>(
    walk: &Walk<'_>,
    receiving: &impl Recipient<'w>,
    shown: deliver::Readdressed<'_>,
    (frame, offset): (&Frame<'_>, usize),
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    deliver::to_port(walk, receiving, &frame.offload)?;
    deliver::write_ethernet(scratch, 0, receiving, deliver::IPV6);
    deliver::write_ipv6(scratch, ETHERNET_LEN, shown);
    let rewritten = Rewritten {
        head: 0..ETHERNET_LEN + HEADER_LEN,
        tail: offset + HEADER_LEN..offset + shown.header.total_len(),
        offload: frame.offload,
        more: false,
    };
    Ok(Fate::Local(receiving.attachment().port, rewritten))
}

/// `L:I`, neutral where the mapping has an adjustment.
#[inline]
pub(crate) fn on_the_wire(locator: Locator, identifier: Identifier, neutral: Option<Neutral>) -> IlaAddress {
    match neutral {
        Some(neutral) => locator.neutral(identifier, neutral),
        None => locator.unmodified(identifier),
    }
}

/// Bytes of the largest IPv6 packet for `target`, if one of `len` bytes may be too large at all. On this host it is the uplink's.
#[inline]
pub(crate) fn path_mtu(walk: &Walk<'_>, target: Target, len: usize) -> u16 {
    let uplink = walk.world.uplink_mtu;
    match target {
        Target::Remote(locator, _) if len > usize::from(IPV6_MINIMUM) => {
            walk.world.reach(locator).map_or(uplink, |reach| reach.path.mtu(walk.now, uplink))
        }
        _ => uplink,
    }
}

/// Nothing larger than the path's MTU leaves, nor is delivered on this host: a super-packet is judged by its segments.
#[inline]
pub(crate) fn fits_path(
    mtu: u16,
    question: &Question,
    frame: &Frame<'_>,
    source: Ipv6Addr,
) -> Result<(), Stop> {
    let (l4, total) = (usize::from(question.l4), question.ip_len as usize);
    if total <= usize::from(mtu) {
        return Ok(());
    }
    let tcp_words = frame.head.get(ETHERNET_LEN + l4 + 12);
    let Some(tcp_words) = tcp_words.map(|byte| byte >> 4).or(frame.offload.gso.is_none().then_some(0)) else {
        return Err(Stop::Again(Again::Whole));
    };
    if largest_segment(&frame.offload, l4, total, tcp_words) <= usize::from(mtu) {
        return Ok(());
    }
    let error = Icmpv6Error::packet_too_big(source, u32::from(mtu));
    Err(Stop::Owed(DropReason::TooBig, IcmpError::V6(error)))
}
