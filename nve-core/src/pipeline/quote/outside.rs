//! ICMPv6 errors that came from outside, through the gateway (design, section 5, "Isolation").
//!
//! What must stay true: judged at the gateway, because nobody behind it can tell where they came from. They are about a packet that their
//! receiver may have sent outside, and went there as it is: none speaks for a host of the fabric, so none is of a path between hosts.

use super::{BEFORE_QUOTE, DEFINED, is_judgeable};
use crate::DropReason;
use crate::packet::ipv6::Ipv6;
use crate::pipeline::walk::{Stop, Walk};
use crate::pipeline::wire::Arriving;
use crate::pipeline::{Again, traffic};
use crate::policy::{Endpoint, Realm};

/// Whether `own`, whom the error is for, may have sent outside what it quotes.
#[cold]
pub(crate) fn judge(walk: &Walk<'_>, own: &Endpoint, arriving: &Arriving<'_>) -> Result<(), Stop> {
    let Arriving { question, frame, .. } = arriving;
    if !is_judgeable(question) {
        return Err(DropReason::QuotedPacket.into());
    }
    let message = usize::from(question.l4)..question.ip_len as usize;
    let Some(error) = frame.head.get(message) else { return Err(Stop::Again(Again::Whole)) };
    let defined = error.first().is_some_and(|kind| DEFINED.contains(kind));
    let packet = error.get(BEFORE_QUOTE..).filter(|_| defined).ok_or(DropReason::QuotedPacket)?;
    let quoted = Ipv6::quoted(packet).ok_or(DropReason::QuotedPacket)?;
    let to = Endpoint::called(walk.world, quoted.destination()).ok();
    let to = to.filter(|to| to.realm == Realm::Outside && quoted.source() == own.address);
    let to = to.ok_or(DropReason::QuotedPacket)?;
    let admitted = walk.world.rules.judge(own, &to, traffic::of_quoted(packet)?);
    admitted.map(|_| ()).map_err(|_| DropReason::QuotedPacket.into())
}
