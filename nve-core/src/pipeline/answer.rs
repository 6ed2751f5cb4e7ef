//! What a tenant sends to no peer of its VN: the gateway's business, for many (`group.rs`), or a drop by name (design, section 5, "Isolation").
//!
//! What must stay true: from a tenant, nothing reaches a locator; what leaves its network does so through `leave.rs`.

use super::admit::{Bearer, Sender};
use super::claim::{self, Lent};
use super::leave::{self, Leaving};
use super::look_up::unreachable;
use super::question::Form;
use super::walk::{Stop, Walk};
use super::{Fate, Question, Scratch, group};
use crate::DropReason;
use crate::gateway::{self, Answer, GatewayContext};
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::Ipv6;
use crate::packet::{ETHERNET_LEN, Frame};

/// Lets the gateway answer, or names the drop.
#[cold]
pub(crate) fn answer(
    walk: &mut Walk<'_>,
    question: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let sender = Sender::of(walk, question)?;
    let bearer = sender.bearing(frame)?;
    let port = sender.attachment.port;
    let lent = Lent { nve: walk.nve, bearer };
    let held_by_another = |address| lent.is_anothers(address);
    let context = GatewayContext::new(sender.attachment, sender.network, &held_by_another);
    let context = context.with_further(*bearer.mac, &lent);
    let limits = walk.limits.get_mut(usize::from(port.0)).ok_or(DropReason::NoAttachment)?;
    match gateway::answer(&context, limits, walk.now, frame, &mut scratch.head) {
        Answer::Reply(reply) => Ok(Fate::Reply(reply, None)),
        Answer::Drop(reason) => Err(reason.into()),
        Answer::Owed(reason, error) => Err(Stop::Owed(reason, error)),
        Answer::Claim(claim) => {
            claim::settle(walk, bearer, claim)?;
            // Heard; nobody answers an announcement.
            Err(if claim.address.is_ipv4() { DropReason::ArpUnanswered } else { DropReason::NdUnanswered }
                .into())
        }
        Answer::Again(again) => Err(Stop::Again(again)),
        Answer::Punt(desk) => Ok(Fate::Punt(desk)),
        Answer::LetGo => elsewhere(walk, bearer, question, frame, scratch),
    }
}

/// What becomes of a packet that the gateway let go: it is for many, or goes nowhere.
fn elsewhere(
    walk: &mut Walk<'_>,
    bearer: Bearer<'_>,
    question: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    match question.form {
        Form::Elsewhere4 => {
            let header = Ipv4::read(frame, ETHERNET_LEN)?;
            let (source, destination) = (header.source(), header.destination());
            let to_many = group::from_tenant4(walk, bearer, question, (source, destination), frame, scratch);
            match to_many {
                Some(fate) => fate,
                None => elsewhere4(walk, bearer, question, (header, frame), scratch),
            }
        }
        Form::Elsewhere6 => {
            let header = Ipv6::read(frame, ETHERNET_LEN)?;
            if header.destination().is_multicast() {
                return group::from_tenant6(walk, bearer, question, header, frame, scratch);
            }
            elsewhere6(walk, bearer, question, (header, frame), scratch)
        }
        Form::Options6 => Err(DropReason::ExtensionHeader.into()),
        // ARP is always the gateway's; neighbour discovery that is not is hidden behind extension headers.
        _ => Err(DropReason::NdUnanswered.into()),
    }
}

/// What becomes of an IPv4 packet to nobody of its network.
fn elsewhere4(
    walk: &mut Walk<'_>,
    bearer: Bearer<'_>,
    question: &Question,
    (header, frame): (Ipv4<'_>, &Frame<'_>),
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let destination = header.destination();
    let first = destination.octets()[0];
    // Before the source is looked at: a guest without an address yet may send these.
    if first == 0 || first >= 224 {
        return Err(DropReason::Broadcast.into());
    }
    let admitted = bearer.admit4(walk.nve, header.source())?;
    if admitted.network.ipv4.is_some_and(|prefix| prefix.contains_addr(&destination)) {
        return Err(DropReason::Broadcast.into());
    }
    if destination.is_loopback() || destination.is_link_local() {
        return Err(DropReason::LinkLocal.into());
    }
    leave::ipv4(walk, &admitted, question, (header, frame), scratch)
}

/// What becomes of an IPv6 packet to nobody of its network.
fn elsewhere6(
    walk: &mut Walk<'_>,
    bearer: Bearer<'_>,
    question: &Question,
    (header, frame): (Ipv6<'_>, &Frame<'_>),
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let (source, destination) = (header.source(), header.destination());
    if destination.is_unicast_link_local() || destination.is_loopback() || destination.is_unspecified() {
        return Err(DropReason::LinkLocal.into());
    }
    let admitted = bearer.admit6(walk.nve, source)?;
    // The subnet-router anycast address: nobody's.
    if admitted.network.ipv6.is_some_and(|vnet| vnet.contains(destination)) {
        return Err(unreachable(source.into()));
    }
    let leaving = Leaving::tenant(&admitted, source);
    leave::ipv6(walk, leaving, question, header, frame, scratch)
}
