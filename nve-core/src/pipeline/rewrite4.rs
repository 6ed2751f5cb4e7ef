//! IPv4 between tenants of one VN (scenario 10): translated to IPv6 at the ingress, back at the egress (RFC 7915).
//!
//! ```text
//!   VA1, VA2 ──from_tenant──> SIR:(VNI1:VA1), L2:(VNI1:VA2) ──from_wire──> VA1, VA2
//!
//!   scratch:  │ IPv6 head: from 0 │ ... │ Ethernet and IPv4 head: from FRAME_AT │
//! ```
//!
//! What must stay true: the transport checksum is made for `SIR:(VNI:VA1), SIR:(VNI:VA2)`, which the checksum-neutral `L2` equals;
//! on one host the IPv6 head is built all the same and translated back, so that what IPv6 cannot carry is lost there too (plain
//! packets, which lose nothing, took the shortcut of `neighbour.rs` before).

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use ipv4_xlat::{
    AddressMap, Config, Packet, Piece, Refusal, Role, SCRATCH_LEN, Translated, v4_to_v6, v6_to_v4,
};

use super::admit::Admitted;
use super::around;
use super::deliver;
use super::group::{Group, Listening};
use super::leave;
use super::look_up::{Receiving, Recipient, Tenant, Way, ipv4_of, peer};
use super::quote;
use super::rewrite6::{on_the_wire, path_mtu};
use super::walk::{Pending, Stop, Walk};
use super::wire::Arriving;
use super::{Again, Fate, Origin, PortId, Question, Rewritten, Scratch};
use crate::DropReason;
use crate::addr::{Identifier, IlaAddress, Key, SirPrefix, Vnid};
use crate::packet::ipv4::Ipv4;
use crate::packet::{ETHERNET_LEN, Frame};
use crate::policy::{Network, World};
use crate::tables::Target;

/// Where frames with translated IPv4 are built; the IPv6 head before it is their source.
const FRAME_AT: usize = 1400;

/// What translation adds to a packet at most: the longer header, and a Fragment header.
pub(super) const GROWTH: usize = 28;

/// Transport bytes that translation reads of anything but ICMP errors: a TCP header without options.
const LONGEST_TRANSPORT: usize = 20;

/// VA <-> SIR:(VNI:VA) of one VN; and what its tenants are shown of endpoints elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InNetwork<'n> {
    sir: SirPrefix,
    vnid: Vnid,
    network: &'n Network,
    /// The packet's destination, as judged; on the wire it still bears a locator.
    destination: Option<Ipv4Addr>,
}

impl<'n> InNetwork<'n> {
    #[inline]
    pub(crate) fn new(network: &'n Network, destination: Option<Ipv4Addr>) -> Self {
        Self { sir: network.sir_domain.sir(), vnid: network.vnid, network, destination }
    }

    #[cold]
    fn elsewhere(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        self.network.shown_here(address)
    }
}

impl AddressMap for InNetwork<'_> {
    #[inline]
    fn v4_to_v6(&self, address: Ipv4Addr, _: Role) -> Option<Ipv6Addr> {
        Some(self.sir.address(Identifier::ipv4(self.vnid, address)).ipv6())
    }

    #[inline]
    fn v6_to_v4(&self, address: Ipv6Addr, role: Role) -> Option<Ipv4Addr> {
        if let (Role::Destination, Some(destination)) = (role, self.destination) {
            return Some(destination);
        }
        let bits = address.to_bits();
        let candidate = Ipv4Addr::from_bits(bits as u32);
        let expected = self.sir.address(Identifier::ipv4(self.vnid, candidate)).ipv6();
        if expected.to_bits() == bits { Some(candidate) } else { self.elsewhere(address) }
    }
}

/// From a tenant to its peer, here or on another host.
#[inline]
pub(crate) fn from_tenant(
    walk: &mut Walk<'_>,
    admitted: &Admitted<'_>,
    question: &Question,
    header: Ipv4<'_>,
    (frame, scratch, fate): (&Frame<'_>, &mut Scratch, &mut Fate),
) -> Result<(), Stop> {
    let (key, target) = match peer(walk, admitted, (question, frame), header.source().into())? {
        (key, Way::Known(target)) => (key, target),
        (_, Way::Router) => {
            *fate = to_router(walk, admitted, frame, scratch)?;
            return Ok(());
        }
        (_, Way::Alias) => {
            *fate = leave::ipv4(walk, admitted, question, (header, frame), scratch)?;
            return Ok(());
        }
    };
    match target {
        Target::Remote(locator, neutral) => {
            let mtu = path_mtu(walk, target, header.total_len() + GROWTH);
            let narrow;
            let config = if mtu == walk.world.uplink_mtu {
                &admitted.network.translation
            } else {
                narrow = admitted.network.translation_along(mtu);
                &narrow
            };
            let translated = to_v6(admitted.network, config, frame, scratch)?;
            let locator = walk.world.locator(locator).ok_or(DropReason::NoMapping)?;
            let wire = on_the_wire(locator, key.identifier(), neutral);
            if !wire.is_neutral() {
                deliver::unmodified_to_uplink(&translated.offload)?;
            }
            deliver::redirect_ipv6(scratch, wire.ipv6(), |hops| deliver::give_back_hop(walk.world, hops));
            *fate = to_uplink(walk, admitted.attachment.port, translated, scratch)?;
        }
        Target::Local(port) => {
            let receiving = Receiving::at(walk, port, key)?;
            *fate = to_neighbour(walk, admitted.attachment.port, &receiving, frame, scratch)?;
        }
    }
    Ok(())
}

/// To the router, between SIR addresses: the checksum is made for them.
#[cold]
fn to_router(
    walk: &mut Walk<'_>,
    admitted: &Admitted<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let translated = to_v6(admitted.network, &admitted.network.translation, frame, scratch)?;
    let hop_limit = scratch.head.get(7).copied().unwrap_or_default();
    deliver::set_hop_limit(scratch, deliver::give_back_hop(walk.world, hop_limit));
    to_uplink(walk, admitted.attachment.port, translated, scratch)
}

/// The packet in a frame.
#[inline]
pub(super) fn packet_of<'f>(frame: &Frame<'f>) -> Packet<'f> {
    Packet {
        head: frame.head.get(ETHERNET_LEN..).unwrap_or_default(),
        len: frame.len.saturating_sub(ETHERNET_LEN),
        offload: frame.offload,
    }
}

/// The frame's packet as IPv6 between SIR addresses, at the start of the scratch buffer.
#[inline]
fn to_v6(
    network: &Network,
    config: &Config,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Translated, Stop> {
    let map = InNetwork::new(network, None);
    Ok(v4_to_v6::translate(&packet_of(frame), &map, config, &mut scratch.head)?)
}

/// To a neighbour on this host, through IPv6 and back.
pub(crate) fn to_neighbour(
    walk: &mut Walk<'_>,
    sender: PortId,
    receiving: &Receiving<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let port = receiving.attachment.port;
    let translated = to_v6(receiving.network, &receiving.network.translation, frame, scratch)?;
    if quote::is_error(&scratch.head) {
        quote::admit_translated(walk, receiving, scratch.head.get(..translated.head_len))?;
    }
    if !translated.is_one_piece() {
        let (sender, to) = (Origin::Port(sender), Origin::Port(port));
        *walk.pending = Some(Pending::one(sender, to, translated.pieces()));
        let piece = next_local_piece(walk, port, frame, scratch)?.ok_or(DropReason::Malformed)?;
        return Ok(Fate::Local(port, piece));
    }
    let tail = behind_ethernet(translated.tail);
    let head_len = translated.head_len;
    let rewritten = back_to_v4(walk, receiving, head_len, tail, translated.offload, frame, scratch)?;
    Ok(Fate::Local(port, rewritten))
}

/// The same bytes, counted from the frame's Ethernet header.
#[inline]
pub(super) fn behind_ethernet(tail: Range<usize>) -> Range<usize> {
    tail.start + ETHERNET_LEN..tail.end + ETHERNET_LEN
}

#[inline]
pub(super) fn to_uplink(
    walk: &mut Walk<'_>,
    sender: PortId,
    translated: Translated,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    if translated.is_one_piece() {
        let Translated { head_len, tail, offload, .. } = translated;
        let tail = behind_ethernet(tail);
        return Ok(Fate::Uplink(Rewritten { head: 0..head_len, tail, offload, more: false }));
    }
    *walk.pending = Some(Pending::one(Origin::Port(sender), Origin::Uplink, translated.pieces()));
    next_piece_of_pending(walk, scratch).map(Fate::Uplink).ok_or(Stop::Drop(DropReason::Malformed))
}

fn piece_of_pending(walk: &mut Walk<'_>, scratch: &mut Scratch) -> Option<Piece> {
    walk.pending.as_mut()?.pieces.as_mut()?.next(&mut scratch.head)
}

/// The next fragment of the IPv6 packet in the scratch buffer.
pub(super) fn next_piece_of_pending(walk: &mut Walk<'_>, scratch: &mut Scratch) -> Option<Rewritten> {
    let piece = piece_of_pending(walk, scratch)?;
    let tail = behind_ethernet(piece.tail);
    Some(Rewritten { head: 0..piece.head_len, tail, offload: Default::default(), more: true })
}

/// The next fragment of the IPv6 packet in the scratch buffer, as IPv4 for the attachment of `port`.
fn next_local_piece(
    walk: &mut Walk<'_>,
    port: PortId,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Option<Rewritten>, Stop> {
    let Some(piece) = piece_of_pending(walk, scratch) else { return Ok(None) };
    let key = scratch_destination(walk.world, port, scratch).ok_or(DropReason::NoMapping)?;
    let tail = behind_ethernet(piece.tail);
    let (len, none) = (piece.head_len, Default::default());
    let for_many = walk.pending.as_ref().is_some_and(|pending| pending.copies.is_some());
    let mut rewritten = if for_many {
        let group = Group::of(walk.world, key).ok_or(DropReason::NoListener)?;
        let listening = Listening::at(walk.world, &group, port).ok_or(DropReason::NoListener)?;
        back_to_v4(walk, &listening, len, tail, none, frame, scratch)?
    } else {
        let receiving = Receiving::at(walk, port, key)?;
        back_to_v4(walk, &receiving, len, tail, none, frame, scratch)?
    };
    rewritten.more = true;
    Ok(Some(rewritten))
}

/// The key of the destination of the IPv6 header in the scratch buffer, which was made for the attachment of `port`.
fn scratch_destination(world: &World, port: PortId, scratch: &Scratch) -> Option<Key> {
    let low = scratch.head.get(32..)?.first_chunk::<8>()?;
    let identifier = Identifier::from_bits(u64::from_be_bytes(*low)).ok()?;
    world.attachment(port)?.sir_domain.key(identifier)
}

/// The next piece of the packet, or of the copy, whose last one said that more follow. `None`: there is none, or no more.
///
/// # Errors
/// Why the rest of them is dropped.
pub(crate) fn next_piece(
    walk: &mut Walk<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Option<Fate>, DropReason> {
    let to = walk.pending.as_ref().and_then(|pending| pending.pieces.as_ref().map(|_| pending.to));
    let Some(to) = to else { return Ok(None) };
    let goes_around = walk.pending.as_ref().is_some_and(|pending| pending.around);
    let piece = match to {
        Origin::Uplink if goes_around => around::next_piece(walk, frame, scratch),
        Origin::Uplink | Origin::Outside => Ok(next_piece_of_pending(walk, scratch).map(Fate::Uplink)),
        Origin::Port(port) => {
            let piece = next_local_piece(walk, port, frame, scratch);
            piece.map(|piece| piece.map(|piece| Fate::Local(port, piece)))
        }
    };
    if !matches!(piece, Ok(Some(_)))
        && let Some(pending) = walk.pending
    {
        pending.pieces = None;
    }
    piece.map_err(|stop| match stop {
        Stop::Drop(reason) | Stop::Owed(reason, _) => reason,
        // What the first piece did not need, no other needs.
        Stop::Again(_) => DropReason::Untranslatable,
    })
}

/// A copy of an IPv4 packet for a listener on this host, through IPv6 and back.
pub(crate) fn copy_to_neighbour(
    walk: &mut Walk<'_>,
    listening: &Listening<'_>,
    hop_limit: u8,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let port = listening.attachment().port;
    let network = listening.network();
    let translated = to_v6(network, &network.translation, frame, scratch)?;
    if quote::is_error(&scratch.head) {
        return Err(DropReason::QuotedPacket.into());
    }
    deliver::set_hop_limit(scratch, hop_limit);
    if !translated.is_one_piece() {
        begin_pieces(walk, Origin::Port(port), &translated);
        let piece = next_local_piece(walk, port, frame, scratch)?.ok_or(DropReason::Malformed)?;
        return Ok(Fate::Local(port, piece));
    }
    let Translated { head_len, offload, .. } = translated;
    let tail = behind_ethernet(translated.tail);
    back_to_v4(walk, listening, head_len, tail, offload, frame, scratch)
        .map(|rewritten| Fate::Local(port, rewritten))
}

/// A copy of an IPv4 packet for the listeners of another host: its address on the wire, what the path carries, and the hop limit there.
pub(crate) fn copy_to_host(
    walk: &mut Walk<'_>,
    network: &Network,
    (wire, mtu, hop_limit): (IlaAddress, u16, u8),
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let config = network.translation_along(mtu);
    let translated = to_v6(network, &config, frame, scratch)?;
    if quote::is_error(&scratch.head) {
        return Err(DropReason::QuotedPacket.into());
    }
    if !wire.is_neutral() {
        deliver::unmodified_to_uplink(&translated.offload)?;
    }
    deliver::redirect_ipv6(scratch, wire.ipv6(), |_| deliver::give_back_hop(walk.world, hop_limit));
    if !translated.is_one_piece() {
        begin_pieces(walk, Origin::Uplink, &translated);
        return next_piece_of_pending(walk, scratch)
            .map(Fate::Uplink)
            .ok_or(Stop::Drop(DropReason::Malformed));
    }
    let Translated { head_len, tail, offload, .. } = translated;
    let rewritten = Rewritten { head: 0..head_len, tail: behind_ethernet(tail), offload, more: true };
    Ok(Fate::Uplink(rewritten))
}

/// The copy under way goes to `to` in pieces.
fn begin_pieces(walk: &mut Walk<'_>, to: Origin, translated: &Translated) {
    if let Some(pending) = walk.pending {
        (pending.pieces, pending.to) = (Some(translated.pieces()), to);
    }
}

/// The IPv6 packet `scratch[..head_len]`, then `tail` of the frame, as IPv4 for `receiving`.
#[inline]
fn back_to_v4<'w>(
    walk: &mut Walk<'_>,
    receiving: &impl Tenant<'w>,
    head_len: usize,
    tail: Range<usize>,
    offload: crate::packet::Offload,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Rewritten, Stop> {
    let map = InNetwork::new(receiving.network(), None);
    let identification = walk.next_identification();
    let (v6, v4) = scratch.head.split_at_mut(FRAME_AT);
    let out = v4.get_mut(ETHERNET_LEN..).unwrap_or_default();
    let len = head_len + tail.len();
    let config = &receiving.network().translation;
    let packet = Packet { head: v6.get(..head_len).unwrap_or_default(), len, offload };
    let mut back = v6_to_v4::translate(&packet, &map, config, identification, out);
    if back == Err(Refusal::NeedWhole) {
        // More of the payload than the first translation copied: bring all there is of it.
        let have = append_payload(v6, head_len, &tail, frame).ok_or(Stop::Again(Again::Whole))?;
        let packet = Packet { head: v6.get(..have).unwrap_or_default(), len, offload };
        back = v6_to_v4::translate(&packet, &map, config, identification, out);
    }
    let back = match back {
        Err(Refusal::NeedWhole) if frame.is_whole() => return Err(DropReason::Untranslatable.into()),
        back => back?,
    };
    deliver::to_port(walk, receiving, &back.offload)?;
    deliver::write_ethernet(scratch, FRAME_AT, receiving, deliver::IPV4);
    let mut end = FRAME_AT + ETHERNET_LEN + back.head_len;
    // What lies between the new head and the frame's bytes is still in the scratch buffer's IPv6 part.
    let kept = back.tail.start.min(head_len)..back.tail.end.min(head_len);
    if end + kept.len() <= scratch.head.len() {
        scratch.head.copy_within(kept.clone(), end);
        end += kept.len();
    }
    let from = |at: usize| tail.start + at.saturating_sub(head_len);
    let rest = from(back.tail.start).min(tail.end)..from(back.tail.end).min(tail.end);
    Ok(Rewritten { head: FRAME_AT..end, tail: rest, offload: back.offload, more: false })
}

/// Copies `tail` of the frame behind `head_len` in `v6`; the bytes there are then, or `None` where the frame's head lacks them.
#[cold]
fn append_payload(v6: &mut [u8], head_len: usize, tail: &Range<usize>, frame: &Frame<'_>) -> Option<usize> {
    if frame.is_whole() {
        let room = v6.len().saturating_sub(head_len).min(tail.len());
        let bytes = frame.head.get(tail.start..tail.start + room)?;
        v6.get_mut(head_len..head_len + room)?.copy_from_slice(bytes);
        return Some(head_len + room);
    }
    None
}

/// A packet from the wire, judged, to an attachment's IPv4 address.
#[inline]
pub(crate) fn to_tenant<'w>(
    walk: &mut Walk<'_>,
    receiving: &impl Tenant<'w>,
    arriving: Arriving<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    to_tenant_by(walk, receiving, arriving, &receiving.network().translation, scratch)
}

/// The same, translated by `config`.
#[inline]
pub(crate) fn to_tenant_by<'w>(
    walk: &mut Walk<'_>,
    receiving: &impl Tenant<'w>,
    arriving: Arriving<'_>,
    config: &Config,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let Arriving { question, frame, .. } = arriving;
    // One copy of the headers, because the hop limit and, with C = 0, the checksum's destination differ from the wire's.
    let all = frame.head.len().min(FRAME_AT);
    let headers = (usize::from(question.l4) + LONGEST_TRANSPORT).min(all);
    copy_head(receiving, headers, arriving, scratch)?;
    match from_scratch(walk, receiving, headers, (frame, config), scratch) {
        Err(Stop::Again(Again::Whole)) if headers < all => {
            copy_head(receiving, all, arriving, scratch)?;
            from_scratch(walk, receiving, all, (frame, config), scratch)
        }
        fate => fate,
    }
}

/// Copies the first `len` bytes of the packet to the scratch buffer, addressed as endpoints are called.
#[inline]
fn copy_head<'w>(
    receiving: &impl Tenant<'w>,
    len: usize,
    arriving: Arriving<'_>,
    scratch: &mut Scratch,
) -> Result<(), DropReason> {
    match (scratch.head.get_mut(..len), arriving.frame.head.get(..len)) {
        (Some(to), Some(from)) => to.copy_from_slice(from),
        _ => return Err(DropReason::Malformed),
    }
    let destination = receiving.network().sir_domain.address(receiving.key().identifier());
    deliver::redirect_ipv6(scratch, destination, |_| arriving.hop_limit);
    Ok(())
}

/// The IPv6 packet whose first `len` bytes, addressed as endpoints are called, are in the scratch buffer.
#[inline]
pub(crate) fn from_scratch<'w>(
    walk: &mut Walk<'_>,
    receiving: &impl Tenant<'w>,
    len: usize,
    (frame, config): (&Frame<'_>, &Config),
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let map = InNetwork::new(receiving.network(), Some(ipv4_of(receiving.key())));
    let identification = walk.next_identification();
    let (v6, v4) = scratch.head.split_at_mut(FRAME_AT);
    let packet = Packet { head: v6.get(..len).unwrap_or_default(), len: frame.len, offload: frame.offload };
    let out = v4.get_mut(ETHERNET_LEN..).unwrap_or_default();
    let back = v6_to_v4::translate(&packet, &map, config, identification, out);
    let back = match back {
        // An error of that size would have been cut by whoever sent it (RFC 4443, section 2.4 (c)).
        Err(Refusal::NeedWhole) if len >= frame.head.len().min(FRAME_AT) && frame.is_whole() => {
            return Err(DropReason::Malformed.into());
        }
        back => back?,
    };
    deliver::to_port(walk, receiving, &back.offload)?;
    deliver::write_ethernet(scratch, FRAME_AT, receiving, deliver::IPV4);
    let head = FRAME_AT..FRAME_AT + ETHERNET_LEN + back.head_len;
    Ok(Fate::Local(
        receiving.attachment().port,
        Rewritten { head, tail: back.tail, offload: back.offload, more: false },
    ))
}

const _: () = assert!(FRAME_AT >= SCRATCH_LEN && Scratch::LEN >= FRAME_AT + ETHERNET_LEN + SCRATCH_LEN);
