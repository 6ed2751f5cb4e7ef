//! Who listens to what: IGMPv1 to v3 and MLDv1 and v2, as one snooping querier for each attachment (docs/decisions/0011).
//!
//! What must stay true:
//!
//! * **A report speaks for its attachment alone.** It is never passed on, and what it changes is where copies to its own network's groups go.
//! * **Nothing malformed is half believed**: a message is read to its end before any of it counts; then it is refused by name.
//! * **What a guest can grow is capped** ([`GROUPS_PER_ATTACHMENT`], [`GROUPS_PER_NETWORK`]), and what it changes is published at most
//!   every [`PUBLISH_INTERVAL`], whole networks at a time.
//! * Nobody but the gateway asks: a tenant's query is dropped (`rogue-querier`).
//!
//! ```text
//!   report ──worker: check──> Fate::Punt(Desk::Group) ──slow path──> Snooper::take ──┐
//!                                                       the time ──> Snooper::tick ──┴──> Groups (published), queries for attachments
//!
//!   igmp.rs, mld.rs   read a report, write a query: twins       records.rs   what both say of one group
//!   snooper.rs        per (attachment, group) a timer; per attachment the next query
//! ```

use core::net::IpAddr;
use core::time::Duration;

mod igmp;
mod mld;
mod records;
mod snooper;
#[cfg(all(test, feature = "testkit"))]
mod tests;

pub use snooper::Snooper;

use super::GatewayContext;
use crate::DropReason;
use crate::packet::ETHERNET_LEN;
use crate::packet::protocol::ICMPV6;

/// Groups that one attachment may listen to; more are not heard.
pub const GROUPS_PER_ATTACHMENT: usize = 64;
/// Groups that the attachments of one network may listen to on this host.
pub const GROUPS_PER_NETWORK: usize = 1024;
/// At least this long between two publications of what has changed.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// Between two general queries (RFC 3376, 8.2; RFC 3810, 9.2).
const QUERY_INTERVAL: Duration = Duration::from_secs(125);
/// The longest that an answer to one may take (8.3; 9.3).
const RESPONSE_INTERVAL: Duration = Duration::from_secs(10);
/// Queries that may be lost (8.1; 9.1).
const ROBUSTNESS: u8 = 2;
/// Between the queries of an attachment that has just come up (8.6; 9.6).
const STARTUP_INTERVAL: Duration = Duration::from_secs(31);
/// Between the queries about a group that was left, and the longest that an answer may take (8.8; 9.8).
const LAST_LISTENER_INTERVAL: Duration = Duration::from_secs(1);
/// How long a report counts (8.4; 9.4).
const LISTENER_INTERVAL: Duration =
    Duration::from_secs(QUERY_INTERVAL.as_secs() * ROBUSTNESS as u64 + RESPONSE_INTERVAL.as_secs());

/// What a host says of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// It listens, to some source at least: sources are not told apart.
    Listens(IpAddr),
    /// It does not any more.
    Leaves(IpAddr),
}

/// Reads the report in the Ethernet frame `frame`, which is whole, and hands over what it says, group by group.
///
/// # Errors
/// [`DropReason::BadReport`] or [`DropReason::RogueQuerier`]; nothing was handed over then.
pub(crate) fn read(frame: &[u8], heard: &mut dyn FnMut(Said)) -> Result<(), DropReason> {
    let packet = frame.get(ETHERNET_LEN..).ok_or(DropReason::BadReport)?;
    match packet.first().map(|first| first >> 4) {
        Some(4) => igmp::read(packet)?.for_each(&mut *heard),
        Some(6) => mld::read(packet)?.for_each(heard),
        _ => return Err(DropReason::BadReport),
    }
    Ok(())
}

/// Whether the IPv6 packet at the start of `head`, whose tail may be missing, is MLD to a group: what looks like it is judged as it.
pub(super) fn is_mld(head: &[u8]) -> bool {
    let to_group = head.get(24) == Some(&0xff);
    let at = match head.get(6) {
        Some(&0) if head.get(40) == Some(&ICMPV6) => {
            40 + (usize::from(head.get(41).copied().unwrap_or(0)) + 1) * 8
        }
        Some(&ICMPV6) => 40,
        _ => return false,
    };
    to_group && matches!(head.get(at), Some(130..=132 | 143))
}

/// Whether the report in `frame` may be heard: it is well-formed, and from an address that the asker has, may have on its link, or from none
/// (RFC 3376, 4.2.13; RFC 3590).
pub(super) fn check(ctx: &GatewayContext<'_>, frame: &[u8]) -> Result<(), DropReason> {
    read(frame, &mut |_| {})?;
    let packet = frame.get(ETHERNET_LEN..).unwrap_or_default();
    let source = match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(12..16).and_then(<[u8]>::first_chunk::<4>).map(|octets| IpAddr::from(*octets)),
        _ => packet.get(8..24).and_then(<[u8]>::first_chunk::<16>).map(|octets| IpAddr::from(*octets)),
    };
    match source.ok_or(DropReason::BadReport)? {
        source if source.is_unspecified() => Ok(()),
        IpAddr::V4(source) => ctx.may_speak(source),
        IpAddr::V6(source) => ctx.may_speak6(source),
    }
}

/// Which groups a query is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum About {
    /// All of them.
    All,
    /// One, that was left.
    One(IpAddr),
}
