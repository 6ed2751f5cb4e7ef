//! One packet to many, copy after copy.
//!
//! ```text
//!   first:  who is there? ──> does one of them lack an offload? ──yes──> Again: finished once, for all
//!             │ nobody             │ no                                  (a completed packet suits every receiver)
//!             drop                 allowance ──> copy 1, more ──next──> copy 2, more ──next──> ... ──next──> None
//!                                                  └─ in fragments where it must be: pieces of copy 1, then copy 2
//! ```
//!
//! What must stay true:
//!
//! * Every copy is built from the frame, by the functions that build the only copy of any other packet.
//! * The lists are those of the pinned world and of the groups pinned at the first copy, so the walk ends after as many steps as they have
//!   entries (and each copy has pieces).
//! * The allowance is counted in copies: a copy is what it costs others. Whoever has some left may send to all of its network at once and
//!   owes the rest.

use core::net::Ipv6Addr;
use std::sync::Arc;

use ipv4_xlat::checksum::{Delta, Sum};

use super::deliver;
use super::group::{Group, Listening, WIRE_HOP_LIMIT, to_listener};
use super::look_up::Recipient;
use super::rewrite4;
use super::rewrite6::{on_the_wire, path_mtu};
use super::walk::{Pending, Stop, Walk};
use super::{Again, Fate, Origin, Question, Rewritten, Scratch};
use crate::DropReason;
use crate::addr::{ChecksumMode, IlaAddress, Key, Kind, Locator, Neutral};
use crate::gateway::Protocol;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::{ChecksumState, ETHERNET_LEN, Frame, Offload, largest_segment, protocol};
use crate::policy::LocatorId;
use crate::tables::Target;

/// Extension headers that fit before a transport checksum that must be written anew.
const LONGEST_HEAD: usize = 1024;

/// Who still gets a copy of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copies {
    question: Question,
    group: Key,
    /// Of an IPv6 packet, as every receiver sees it.
    source: Ipv6Addr,
    /// How many entries of the lists have been looked at.
    at: usize,
}

/// Where a copy goes.
#[derive(Clone, Copy, Debug)]
enum Towards<'w> {
    Here(Listening<'w>),
    Host(LocatorId),
}

impl Copies {
    /// The next one who gets a copy: attachments that are up, then other hosts if it comes from here.
    fn next<'w>(&mut self, walk: &Walk<'w>, group: &Group<'w>) -> Option<Towards<'w>> {
        let ports = group.ports(walk.groups);
        while let Some(port) = ports.get(self.at) {
            self.at += 1;
            let wanted = self.question.origin != Origin::Port(*port) && walk.nve.receiver(*port).up;
            if let Some(listening) = Listening::at(walk.world, group, *port).filter(|_| wanted) {
                return Some(Towards::Here(listening));
            }
        }
        if self.question.origin == Origin::Uplink {
            return None;
        }
        let host = group.hosts().get(self.at - ports.len())?;
        self.at += 1;
        Some(Towards::Host(*host))
    }

    /// How many copies there will be.
    ///
    /// # Errors
    /// What must be finished in software before, because one of the receivers cannot.
    fn survey(mut self, walk: &Walk<'_>, group: &Group<'_>, offload: &Offload) -> Result<u32, Stop> {
        let mut count = 0;
        while let Some(towards) = self.next(walk, group) {
            count += 1;
            match towards {
                Towards::Here(listening) => deliver::to_port(walk, &listening, offload)?,
                Towards::Host(_) if !is_neutral(walk, group) => deliver::unmodified_to_uplink(offload)?,
                Towards::Host(_) => deliver::to_uplink(walk.nve, offload).map_err(Stop::Again)?,
            }
        }
        Ok(count)
    }
}

/// The first copy of an admitted packet to `group`. `source` is what receivers of an IPv6 packet see.
///
/// # Errors
/// [`DropReason::NoListener`] if nobody gets one; [`DropReason::GroupRate`] if the sender had too many; else why the last one failed.
pub(crate) fn first(
    walk: &mut Walk<'_>,
    question: &Question,
    group: &Group<'_>,
    source: Ipv6Addr,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let current = walk.nve.groups.load();
    if !Arc::ptr_eq(&current, walk.groups) {
        *walk.groups = Arc::clone(&current);
    }
    drop(current);
    let copies = Copies { question: *question, group: group.key(), source, at: 0 };
    // Before anything that costs: who had too much is not even looked at.
    let sender = match question.origin {
        Origin::Port(port) => walk.limits.get_mut(usize::from(port.0)),
        Origin::Uplink | Origin::Outside => None,
    };
    if sender.is_some_and(|limits| !limits.would_grant(Protocol::Group, walk.now)) {
        return Err(DropReason::GroupRate.into());
    }
    let count = copies.survey(walk, group, &frame.offload)?;
    if count == 0 {
        // To look at everybody was work, too.
        pay(walk, question, 1);
        return Err(DropReason::NoListener.into());
    }
    *walk.pending = Some(Pending::many(question.origin, copies));
    let mut lost = (DropReason::NoListener, 0);
    loop {
        match step(walk, frame, scratch) {
            Ok(Some(fate)) => {
                pay(walk, question, count);
                if let Some(pending) = walk.pending {
                    pending.lost = lost;
                }
                return Ok(fate);
            }
            Ok(None) => {
                // They were tried, all of them.
                pay(walk, question, count);
                return Err(lost.0.into());
            }
            Err(Stop::Again(again)) => {
                *walk.pending = None;
                return Err(Stop::Again(again));
            }
            Err(Stop::Drop(reason) | Stop::Owed(reason, _)) => lost = (reason, lost.1 + 1),
        }
    }
}

/// The sender pays for all copies, and for one that is as large as several packets of the fabric as for those; what comes from the uplink
/// was paid for there, and is limited copy by copy.
fn pay(walk: &mut Walk<'_>, question: &Question, count: u32) {
    let packets = question.ip_len.div_ceil(u32::from(walk.world.uplink_mtu).max(1)).max(1);
    if let Origin::Port(port) = question.origin
        && let Some(limits) = walk.limits.get_mut(usize::from(port.0))
    {
        limits.owe(Protocol::Group, walk.now, count.saturating_mul(packets));
    }
}

/// The next copy of the packet whose last one is complete.
///
/// # Errors
/// Why there is none for its receiver; the next may still get one.
pub(crate) fn step(
    walk: &mut Walk<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Option<Fate>, Stop> {
    let copies = walk.pending.as_ref().and_then(|pending| pending.copies);
    let group = copies.and_then(|copies| Group::of(walk.world, copies.group));
    let Some((mut copies, group)) = copies.zip(group) else { return Ok(None) };
    let towards = copies.next(walk, &group);
    if let Some(pending) = walk.pending {
        pending.copies = Some(copies);
        // Of a copy that failed behind its first piece.
        pending.pieces = None;
    }
    let Some(towards) = towards else {
        *walk.pending = None;
        return Ok(None);
    };
    let mut fate = match towards {
        Towards::Here(listening) if copies.question.origin == Origin::Uplink => {
            let port = usize::from(listening.attachment().port.0);
            let limits = walk.limits.get_mut(port).ok_or(DropReason::NoAttachment)?;
            limits.take(Protocol::GroupHeard, walk.now).map_err(|_| DropReason::GroupRate)?;
            to_listener(walk, &listening, &copies.question, frame, scratch)?
        }
        towards if group.key().type_number() == 2 => copy4(walk, &group, towards, frame, scratch)?,
        towards => copy6(walk, &copies, &group, towards, frame, scratch)?,
    };
    if let Fate::Local(_, rewritten) | Fate::Uplink(rewritten) = &mut fate {
        rewritten.more = true;
    }
    Ok(Some(fate))
}

/// An IPv4 packet from a tenant.
fn copy4(
    walk: &mut Walk<'_>,
    group: &Group<'_>,
    towards: Towards<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    match towards {
        Towards::Here(listening) => {
            rewrite4::copy_to_neighbour(walk, &listening, group.hop_limit(), frame, scratch)
        }
        Towards::Host(host) => {
            let wire = wire_address(walk, group, host)?;
            let mtu = path_mtu(walk, Target::Remote(host, None), frame.len);
            rewrite4::copy_to_host(walk, group.network(), (wire, mtu, WIRE_HOP_LIMIT), frame, scratch)
        }
    }
}

/// An IPv6 packet from a tenant.
fn copy6(
    walk: &mut Walk<'_>,
    copies: &Copies,
    group: &Group<'_>,
    towards: Towards<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let question = &copies.question;
    let header = Ipv6::read(frame, ETHERNET_LEN)?;
    let uplink = walk.world.uplink_mtu;
    let (at, mtu, destination, hop_limit) = match towards {
        Towards::Here(_) => (ETHERNET_LEN, uplink, header.destination(), group.hop_limit()),
        Towards::Host(host) => {
            let mtu = path_mtu(walk, Target::Remote(host, None), question.ip_len as usize);
            let wire = wire_address(walk, group, host)?;
            (0, mtu, wire.ipv6(), deliver::give_back_hop(walk.world, WIRE_HOP_LIMIT))
        }
    };
    let (l4, total) = (usize::from(question.l4), question.ip_len as usize);
    if largest_segment(&frame.offload, l4, total, 5) > usize::from(mtu) {
        return Err(DropReason::TooBig.into());
    }
    deliver::write_ipv6(scratch, at, deliver::Readdressed { header, destination, hop_limit });
    let mut head = HEADER_LEN;
    if copies.source != header.source() {
        head = write_source(copies, header, frame, at, scratch)?;
    }
    let tail = ETHERNET_LEN + head..ETHERNET_LEN + header.total_len();
    let rewritten = Rewritten { head: 0..at + head, tail, offload: frame.offload, more: true };
    match towards {
        Towards::Here(listening) => {
            deliver::to_port(walk, &listening, &frame.offload)?;
            deliver::write_ethernet(scratch, 0, &listening, deliver::IPV6);
            Ok(Fate::Local(listening.attachment().port, rewritten))
        }
        Towards::Host(_) => Ok(Fate::Uplink(rewritten)),
    }
}

/// Writes another source into the header at `at`, and behind it what lies before the transport checksum, and that; how many bytes of the
/// packet are in the scratch buffer then.
fn write_source(
    copies: &Copies,
    header: Ipv6<'_>,
    frame: &Frame<'_>,
    at: usize,
    scratch: &mut Scratch,
) -> Result<usize, Stop> {
    let question = &copies.question;
    let packet = scratch.head.get_mut(at..).unwrap_or_default();
    if let Some(source) = packet.get_mut(8..24) {
        source.copy_from_slice(&copies.source.octets());
    }
    if !question.has_transport {
        return Ok(HEADER_LEN);
    }
    let field = match question.protocol {
        protocol::UDP => 6,
        protocol::ICMPV6 => 2,
        // Whether and where it has a checksum over the addresses is not known.
        _ => return Err(DropReason::LinkLocal.into()),
    };
    let end = usize::from(question.l4) + field + 2;
    if end > LONGEST_HEAD || end > header.total_len() {
        return Err(DropReason::ExtensionHeader.into());
    }
    let behind = frame.head.get(ETHERNET_LEN + HEADER_LEN..ETHERNET_LEN + end).ok_or(Again::Whole);
    let behind = behind.map_err(Stop::Again)?;
    let Some(out) = packet.get_mut(HEADER_LEN..end) else { return Err(DropReason::Malformed.into()) };
    out.copy_from_slice(behind);
    let Some(checksum) = out.last_chunk_mut::<2>() else { return Err(DropReason::Malformed.into()) };
    let delta = Delta::between(Sum::ZERO.ipv6(header.source()), Sum::ZERO.ipv6(copies.source));
    let before = u16::from_be_bytes(*checksum);
    let after = match (frame.offload.checksum, before) {
        (ChecksumState::Partial { .. }, seed) => delta.apply_to_seed(seed),
        // No checksum (RFC 6936), which the receiver judges.
        (_, 0) if question.protocol == protocol::UDP => 0,
        (_, sum) => match delta.apply(sum) {
            0 if question.protocol == protocol::UDP => 0xffff,
            sum => sum,
        },
    };
    *checksum = after.to_be_bytes();
    Ok(end)
}

/// `L:(VNI:group)`.
fn wire_address(walk: &Walk<'_>, group: &Group<'_>, host: LocatorId) -> Result<IlaAddress, DropReason> {
    let locator = walk.world.locator(host).ok_or(DropReason::NoMapping)?;
    let neutral = is_neutral(walk, group).then(|| neutral_to(group, locator));
    Ok(on_the_wire(locator, group.key().identifier(), neutral))
}

/// Whether it goes with C = 1, which does not depend on the host.
fn is_neutral(walk: &Walk<'_>, group: &Group<'_>) -> bool {
    walk.world.checksum == ChecksumMode::Neutral && group.key().identifier().has_neutral_form()
}

fn neutral_to(group: &Group<'_>, locator: Locator) -> Neutral {
    match group.key().kind() {
        Kind::Multicast(vnid, scope, _) => Neutral::multicast(locator, vnid, scope),
        _ => Neutral::sir(locator, group.network().sir_domain.sir()),
    }
}
