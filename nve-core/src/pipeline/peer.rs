//! To and from hosts whose ILA is the Linux kernel's, in checksum modes that the draft does not know (policy/peer.rs, docs/linux-ila.md).
//!
//! ```text
//!   to L3:T     as with C = 0, finished in software ──twist──> low word adjusted, or checksum changed ──> fabric
//!   from SIR:T  whose mapping names that host: ──as_sent──> identifier put back ──> wire.rs, enter.rs ──> checksum put back
//! ```
//!
//! What must stay true: the sender of a packet is who its source's mapping says; a packet whose source has none is treated as any other,
//! and dropped for that. Only tasks live there; nothing in a network takes these branches.

use core::ops::Range;

use ipv4_xlat::checksum::Delta;

use super::look_up::target;
use super::question::restore;
use super::walk::{Stop, Walk};
use super::{Again, Fate, Question, Rewritten, Scratch, wire};
use crate::DropReason;
use crate::addr::{Domain, Identifier, Key, Locator};
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::{ChecksumState, ETHERNET_LEN, Frame, protocol};
use crate::policy::Twist;
use crate::tables::Target;

/// Next header of a fragment.
const FRAGMENT: u8 = 44;

/// Gives the packet `rewritten`, which is made for `key` with C = 0 and has nothing left to finish, the form that the host at
/// `locator` takes. Its IPv6 header is where its head starts.
///
/// # Errors
/// [`DropReason::PeerChecksum`] where that mode has no form of it; [`Again`] where more of the packet is needed.
#[inline]
pub(crate) fn twist(
    walk: &mut Walk<'_>,
    (locator, key): (Locator, Key),
    frame: &Frame<'_>,
    rewritten: Rewritten,
    scratch: &mut Scratch,
) -> Result<Rewritten, Stop> {
    if !walk.world.has_twisted_peers() {
        return Ok(rewritten);
    }
    let twist = walk.world.domain(key.domain()).and_then(|domain| walk.world.twist_to(locator, domain));
    let Some(twist) = twist else { return Ok(rewritten) };
    let twisted = twist_to(twist, (locator, key), frame, rewritten, scratch);
    if twisted.is_err() {
        // Nor does the rest of it go.
        *walk.pending = None;
    }
    twisted
}

#[cold]
fn twist_to(
    twist: Twist,
    (locator, key): (Locator, Key),
    frame: &Frame<'_>,
    rewritten: Rewritten,
    scratch: &mut Scratch,
) -> Result<Rewritten, Stop> {
    let ip_at = rewritten.head.start;
    match twist {
        Twist::LowWord(neutral) if key.type_number() == 1 => {
            let wire =
                locator.neutral_without_c(key.identifier(), neutral).ok_or(DropReason::PeerChecksum)?;
            let at = ip_at + 24..ip_at + HEADER_LEN;
            scratch.head.get_mut(at).ok_or(DropReason::Malformed)?.copy_from_slice(&wire.ipv6().octets());
            Ok(rewritten)
        }
        Twist::Transport(delta) if key.type_number() == 1 => {
            change_checksum(delta, ip_at, frame, rewritten, scratch)
        }
        _ => Err(DropReason::PeerChecksum.into()),
    }
}

/// A packet to a task of ours, where some hosts send them so.
#[cold]
pub(crate) fn arrived(
    walk: &mut Walk<'_>,
    question: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let header = Ipv6::read(frame, 0)?;
    let Some((twist, domain)) = of_sender(walk, question, header) else {
        return wire::arrived(walk, question, frame, scratch);
    };
    let question = as_sent(twist, &domain, question)?;
    let fate = wire::arrived(walk, &question, frame, scratch)?;
    match (twist, fate) {
        (Twist::Transport(delta), Fate::Local(port, packet)) => {
            let ip_at = packet.head.start + ETHERNET_LEN;
            change_checksum(delta, ip_at, frame, packet, scratch).map(|packet| Fate::Local(port, packet))
        }
        // To where the task has moved.
        (Twist::Transport(delta), Fate::Uplink(packet)) => {
            change_checksum(delta, packet.head.start, frame, packet, scratch).map(Fate::Uplink)
        }
        (_, fate) => Ok(fate),
    }
}

/// What the sender of a packet with C = 0 did to it besides: by where its source's mapping says that it lives. A sender of another domain
/// than the packet is for has done nothing that counts.
fn of_sender(walk: &Walk<'_>, question: &Question, header: Ipv6<'_>) -> Option<(Twist, Domain)> {
    let source = header.source().to_bits();
    let (upper, low) = ((source >> 64) as u64, source as u64);
    let domain = *walk.world.domain(question.key?.domain())?;
    if upper != domain.sir().upper() || header.destination().to_bits() as u64 & Identifier::C_BIT != 0 {
        return None;
    }
    let identifier = Identifier::from_bits(low).ok().filter(|identifier| identifier.type_number() == 1)?;
    match target(walk, domain.key(identifier)?)? {
        Target::Remote(locator, _) => {
            walk.world.twist_from(walk.world.locator(locator)?, &domain).map(|twist| (twist, domain))
        }
        Target::Local(_) => None,
    }
}

/// The question, its identifier as the sender meant it.
///
/// # Errors
/// [`DropReason::PeerChecksum`] of a fragment whose datagram's checksum was changed.
fn as_sent(twist: Twist, domain: &Domain, question: &Question) -> Result<Question, DropReason> {
    match (twist, question.key) {
        (Twist::LowWord(neutral), Some(wire)) => {
            let identifier = restore(wire.identifier(), wire.bits() as u16, neutral)?;
            Ok(Question { key: domain.key(identifier), ..*question })
        }
        (Twist::Transport(_), _) if question.fragment => Err(DropReason::PeerChecksum),
        _ => Ok(*question),
    }
}

/// The identifier that we sent to `locator`, in `domain`, as `wire`, C = 0: what an error quotes.
pub(crate) fn sent_as(
    walk: &Walk<'_>,
    (locator, domain): (Locator, &Domain),
    wire: Identifier,
) -> Option<Identifier> {
    if wire.type_number() != 1 || !walk.world.has_twisted_peers() {
        return Some(wire);
    }
    let Some(Twist::LowWord(neutral)) = walk.world.twist_to(locator, domain) else { return Some(wire) };
    let identifier = restore(wire, wire.bits() as u16, neutral).ok()?;
    // 0x0000 is never sent so, and 0xffff looks like it.
    match identifier.bits() as u16 {
        0 => Identifier::from_bits(identifier.bits() | 0xffff).ok(),
        _ => Some(identifier),
    }
}

/// Changes the transport checksum as the kernel does, of TCP, UDP and ICMPv6 right behind the IPv6 header at `ip_at`: behind extension
/// headers it does not look, and neither is anything changed here. The head grows to hold it.
fn change_checksum(
    delta: Delta,
    ip_at: usize,
    frame: &Frame<'_>,
    mut rewritten: Rewritten,
    scratch: &mut Scratch,
) -> Result<Rewritten, Stop> {
    let protocol = scratch.head.get(ip_at + 6).copied().ok_or(DropReason::Malformed)?;
    let field = match protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::ICMPV6 => 2,
        // No edge knows a datagram's checksum by its fragments.
        FRAGMENT => return Err(DropReason::PeerChecksum.into()),
        _ => return Ok(rewritten),
    };
    let end = ip_at + HEADER_LEN + field + 2;
    if end > rewritten.head.end {
        let more = end - rewritten.head.end;
        let from: Range<usize> = rewritten.tail.start..rewritten.tail.start + more;
        if from.end > rewritten.tail.end {
            return Err(DropReason::Malformed.into());
        }
        let bytes = frame.head.get(from.clone()).ok_or(Stop::Again(Again::Whole))?;
        let room = scratch.head.get_mut(rewritten.head.end..end).ok_or(DropReason::Malformed)?;
        room.copy_from_slice(bytes);
        (rewritten.head.end, rewritten.tail.start) = (end, from.end);
    }
    let checksum = scratch.head.get_mut(end - 2..end).and_then(|field| field.first_chunk_mut::<2>());
    let checksum = checksum.ok_or(DropReason::Malformed)?;
    let before = u16::from_be_bytes(*checksum);
    let after = match (rewritten.offload.checksum, before) {
        (ChecksumState::Partial { .. }, seed) => delta.apply_to_seed(seed),
        // None: it says so, and goes on saying so.
        (_, 0) if protocol == protocol::UDP => 0,
        (_, sum) => match delta.apply(sum) {
            0 if protocol == protocol::UDP => 0xffff,
            sum => sum,
        },
    };
    *checksum = after.to_be_bytes();
    Ok(rewritten)
}

#[cfg(all(test, feature = "testkit"))]
mod tests;
