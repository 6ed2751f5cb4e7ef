//! From the wire, after classification: is it for here, may its source reach it, and in which form (reading notes, section 5).
//!
//! ```text
//!   Arrived (our locator)   local? ──> source judged ──> hop given back ──> IPv6 or IPv4 of the tenant
//!                           a group: group.rs
//!   Routed (SIR or VNET)    local: the same, one hop spent.   Elsewhere: one hop spent, L:I, back to the fabric (router role)
//! ```
//!
//! What must stay true: what enters from the uplink and leaves to it again costs a hop, so that nothing loops; ICMPv6 errors are judged by
//! what they quote, everything else by its source; those from outside before anything else happens with them.

use core::net::Ipv6Addr;

use super::enter::{self, Whence};
use super::look_up::{Distant, Receiving, Wanted, from_wire};
use super::rewrite6::on_the_wire;
use super::triangle::{self, Triangle};
use super::walk::{Stop, Walk};
use super::{Fate, Origin, Question, Rewritten, Scratch};
use super::{deliver, departure, group, judge, peer, quote, rewrite4, rewrite6};
use crate::DropReason;
use crate::packet::Frame;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::policy::{Endpoint, Realm};

/// A packet from the wire on its way on.
#[derive(Clone, Copy)]
pub(crate) struct Arriving<'a> {
    pub(crate) question: &'a Question,
    pub(crate) frame: &'a Frame<'a>,
    pub(crate) header: Ipv6<'a>,
    /// What it will have.
    pub(crate) hop_limit: u8,
    pub(crate) whence: Whence,
}

impl Arriving<'_> {
    /// Whether it is an ICMPv6 error, which is judged by what it quotes.
    pub(crate) fn is_error(&self) -> bool {
        self.question.is_icmpv6_error(self.frame, 0)
    }
}

/// A packet to our locator.
#[inline(always)]
pub(crate) fn arrived(
    walk: &mut Walk<'_>,
    question: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let header = Ipv6::read(frame, 0)?;
    match from_wire(walk, question, frame)? {
        Wanted::Here(receiving) => {
            let hop_limit = deliver::give_back_spent_hop(walk.world, header.hop_limit());
            let arriving = Arriving { question, frame, header, hop_limit, whence: Whence::Fabric };
            to_attachment(walk, &receiving, arriving, scratch)
        }
        Wanted::Task(task) => {
            let hop_limit = deliver::give_back_spent_hop(walk.world, header.hop_limit());
            let arriving = Arriving { question, frame, header, hop_limit, whence: Whence::Fabric };
            enter::to_task(walk, &task, arriving, scratch)
        }
        Wanted::There(distant) => departure::straggler(walk, &distant, (question, frame, header), scratch),
        Wanted::Many(many) => group::arrived(walk, question, &many, frame, scratch),
    }
}

/// A packet to a SIR address or a tenant's own that the fabric routed to us (the smallest ILA router, draft, section 4.6).
#[inline]
pub(crate) fn routed(
    walk: &mut Walk<'_>,
    question: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let header = Ipv6::read(frame, 0)?;
    let hop_limit = header.hop_limit().checked_sub(1).filter(|left| *left > 0).ok_or(DropReason::HopLimit)?;
    let arriving = Arriving { question, frame, header, hop_limit, whence: Whence::Fabric };
    let wanted = from_wire(walk, question, frame)?;
    if question.origin == Origin::Outside && arriving.is_error() {
        judge_error_from_outside(walk, &wanted, &arriving)?;
    }
    match wanted {
        Wanted::Here(receiving) => to_attachment(walk, &receiving, arriving, scratch),
        Wanted::Task(task) => enter::to_task(walk, &task, arriving, scratch),
        Wanted::There(distant) => pass_on(walk, &distant, arriving, scratch),
        // Whoever sends to a group names each host.
        Wanted::Many(_) => Err(DropReason::Multicast.into()),
    }
}

/// Nobody behind the gateway can tell where an error came from: it is judged here, whoever it is for.
#[cold]
fn judge_error_from_outside(
    walk: &Walk<'_>,
    wanted: &Wanted<'_>,
    arriving: &Arriving<'_>,
) -> Result<(), Stop> {
    let own = match wanted {
        Wanted::Here(receiving) => receiving.endpoint(),
        Wanted::Task(task) => task.endpoint(),
        Wanted::There(distant) => distant.endpoint(walk),
        Wanted::Many(_) => return Err(DropReason::Multicast.into()),
    };
    quote::outside::judge(walk, &own, arriving)
}

/// Judges the source, or what an error quotes, and delivers.
#[inline]
fn to_attachment(
    walk: &mut Walk<'_>,
    receiving: &Receiving<'_>,
    arriving: Arriving<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let Arriving { question, frame, header, hop_limit, .. } = arriving;
    if header.hop_limit() == 0 {
        return Err(DropReason::HopLimit.into());
    }
    if question.is_icmpv6_error(frame, 0) {
        return quote::from_wire(walk, &quote::Reader::Tenant(*receiving), arriving, scratch);
    }
    let source = header.source();
    match judge::source(walk, source, receiving.network_id, receiving.key.type_number()) {
        Ok(_admission) => {}
        Err(refused) => return enter::from_elsewhere(walk, receiving, arriving, refused, scratch),
    }
    match (receiving.key.type_number(), receiving.network.ipv6) {
        (2, _) => rewrite4::to_tenant(walk, receiving, arriving, scratch),
        (3, Some(vnet)) => {
            let destination = vnet.address(receiving.key.low());
            let shown = deliver::Readdressed { header, destination, hop_limit };
            rewrite6::to_tenant(walk, receiving, shown, (frame, 0), scratch)
        }
        _ => Err(DropReason::NoMapping.into()),
    }
}

/// Judges the source, or what an error quotes, of a packet for another host, and notes who should have sent it there at once.
#[cold]
pub(crate) fn may_pass(walk: &mut Walk<'_>, distant: &Distant, arriving: Arriving<'_>) -> Result<(), Stop> {
    // What still comes for a guest that has moved was sent to our locator: rules are about who it is for.
    enter::judge_passing(walk, &distant.endpoint(walk), &arriving)?;
    let source = Endpoint::called(walk.world, arriving.header.source()).ok();
    if !arriving.is_error()
        && let Some(source) = source.and_then(|source| source.key)
    {
        triangle::note(walk, Triangle { source, destination: distant.key });
    }
    Ok(())
}

/// Back to the fabric, with the locator it lacked, or a later one.
#[cold]
pub(crate) fn pass_on(
    walk: &mut Walk<'_>,
    distant: &Distant,
    arriving: Arriving<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    may_pass(walk, distant, arriving)?;
    let Arriving { frame, header, hop_limit, .. } = arriving;
    let locator = walk.world.locator(distant.locator).ok_or(DropReason::NoMapping)?;
    let wire = on_the_wire(locator, distant.key.identifier(), distant.neutral);
    if !wire.is_neutral() {
        deliver::unmodified_to_uplink(&frame.offload)?;
    }
    let shown = deliver::Readdressed { header, destination: wire.ipv6(), hop_limit };
    deliver::write_ipv6(scratch, 0, shown);
    let tail = HEADER_LEN..header.total_len();
    let packet = Rewritten { head: 0..HEADER_LEN, tail, offload: frame.offload, more: false };
    peer::twist(walk, (locator, distant.key), frame, packet, scratch).map(Fate::Uplink)
}

/// Whether `source` may reach `to` because both are of one network.
pub(crate) fn judge_same_network(walk: &Walk<'_>, to: &Endpoint, source: Ipv6Addr) -> Result<(), DropReason> {
    let (Realm::Network(network), Some(key)) = (to.realm, to.key) else {
        return Err(DropReason::IllegalSource);
    };
    judge::source(walk, source, network, key.type_number()).map(|_| ())
}
