//! The walk: what happens to a packet, on one screen.
//!
//! ```text
//!            from a tenant                                            from the uplink
//!   take     shell copies the head once                               shell reads the packet
//!   classify question.rs: Ethernet, IP, transport, offload            question.rs: our locator, SIR or VNET? type legal? C reversed
//!   answer   answer.rs: ARP, NDP, RS, DHCP, echo by gateway/
//!   admit    admit.rs: MAC and address are the attachment's           judge.rs: may the source's VN reach it?
//!   look up  look_up.rs: identifier -> mapping                        look_up.rs: identifier local?   quote.rs: ICMPv6 errors
//!   rewrite  rewrite6.rs, rewrite4.rs (neighbour.rs, retrace.rs, outbound.rs)  rewrite6.rs, rewrite4.rs (homeward.rs); wire.rs: router role
//!   deliver  deliver.rs: what the receiver takes; shell: one copy     deliver.rs; shell: one copy
//!   cross    leave.rs: to and from another realm, from a task         enter.rs; around.rs: on this host, as through the wire
//!   copy     group.rs, copies.rs: to many of its network              group.rs, copies.rs
//!   steer    flow.rs: which conversation; shell: which ring           flow.rs
//! ```
//!
//! claim.rs moves a shared address to whoever says that it has it; presence.rs knows which attachments wait for a guest that still runs
//! elsewhere. From nowhere, by time alone: announce.rs, what the gateway says unasked ([`Walker::tick`]).
//!
//! What must stay true: a fate is returned and not performed; whatever goes to a peer carries an `Admitted`, whatever goes to an
//! attachment a `Receiving`; a refusal (`walk.rs`: `Stop`) knows its answer, and `refuse.rs` makes it.

use core::ops::Range;

use crate::DropReason;
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::Ipv6;
use crate::packet::{ETHERNET_LEN, Frame, Offload};

mod admit;
mod announce;
mod answer;
mod around;
mod carry_out;
mod choice;
mod claim;
mod copies;
mod deliver;
mod departure;
mod enter;
mod flow;
mod group;
mod homeward;
mod judge;
mod learned;
mod leave;
mod look_up;
mod neighbour;
mod nve;
mod outbound;
mod peer;
mod presence;
mod question;
mod quote;
mod refuse;
mod retrace;
mod rewrite4;
mod rewrite6;
mod traffic;
mod trial;
mod triangle;
mod walk;
mod walker;
mod wire;
mod worlds;

pub use carry_out::{CarryOut, Outcome};
pub use flow::flow_of_plain;
pub use learned::{Learned, Lesson, NotLearned, Residence, Source};
pub use nve::{ApplyError, GroupLine, MappingLine, Nve, PathLine, Receiver};
pub use outbound::{Asked, Outbound, ROOM, Roomy};
pub use presence::{Arrival, Arrived, Presence};
pub use question::Question;
pub use retrace::Track;
pub use trial::Trial;
pub use triangle::Triangle;
pub use walker::Walker;

use admit::Sender;
use question::Form;
use walk::{Stop, Walk};

/// The walk after classification; every step that refuses ends it. The fate is written where it stays: one that travels in results is
/// put together in small pieces and copied in large ones, which waits for the cache.
#[inline]
fn decide(
    walk: &mut Walk<'_>,
    q: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
    fate: &mut Fate,
) -> Result<(), Stop> {
    match q.form {
        Form::Peer4 => {
            let header = Ipv4::read(frame, ETHERNET_LEN)?;
            let admitted = Sender::of(walk, q)?.bearing(frame)?.admit4(walk.nve, header.source())?;
            return rewrite4::from_tenant(walk, &admitted, q, header, (frame, scratch, fate));
        }
        Form::Peer6 => {
            let header = Ipv6::read(frame, ETHERNET_LEN)?;
            let admitted = Sender::of(walk, q)?.bearing(frame)?.admit6(walk.nve, header.source())?;
            return rewrite6::from_tenant(walk, &admitted, q, header, (frame, scratch, fate));
        }
        Form::Refused(reason) => return Err(Stop::Drop(reason)),
        Form::Incomplete => return Err(Stop::Again(Again::Whole)),
        Form::Task => *fate = leave::from_task(walk, q, frame, scratch)?,
        Form::Arrived => *fate = wire::arrived(walk, q, frame, scratch)?,
        Form::ArrivedTwisted => *fate = peer::arrived(walk, q, frame, scratch)?,
        Form::Routed => *fate = wire::routed(walk, q, frame, scratch)?,
        Form::Gateway | Form::Elsewhere4 | Form::Elsewhere6 | Form::Options6 => {
            *fate = answer::answer(walk, q, frame, scratch)?;
        }
    }
    Ok(())
}

/// Attachments one host serves at most.
pub const MAX_PORTS: usize = 4096;

/// An attachment's number on this host: dense, stable while the attachment's name is configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortId(pub u16);

impl PortId {
    /// No attachment: the device by which the fabric is reached, where the uplink is one with rings. It comes behind all attachments.
    pub const FABRIC: Self = Self(MAX_PORTS as u16);
}

/// Where a packet comes from; also said of where it went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// An attachment: Ethernet frames.
    Port(PortId),
    /// The fabric: IPv6 packets.
    Uplink,
    /// The outside, through the gateway: IPv6 packets of whoever is on the Internet.
    Outside,
}

impl Origin {
    /// Where the IP header of its packets starts.
    #[inline]
    pub const fn ip_offset(self) -> usize {
        match self {
            Self::Port(_) => ETHERNET_LEN,
            Self::Uplink | Self::Outside => 0,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// To an attachment of this host, as an Ethernet frame.
    Local(PortId, Rewritten),
    /// To the fabric, as an IPv6 packet.
    Uplink(Rewritten),
    /// An answer to where the packet came from (ARP, ND, DHCP, ICMP): whole in the scratch buffer. The reason, where the packet
    /// itself was also dropped (an ICMP error), is counted already.
    Reply(Rewritten, Option<DropReason>),
    /// To the slow path, whole as it is and with nothing left to finish: the gateway cannot answer it from the packet alone. Its source
    /// is the attachment's own, and its attachment's allowance for it is paid.
    Punt(Desk),
    /// Dropped and counted.
    Drop(DropReason),
    /// The shell must do something first and bring the result through the same door.
    Again(Again),
}

/// Who serves what is punted: see [`crate::punt`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Desk {
    /// The gateway's own TCP/IP stack, one for each attachment.
    Service,
    /// Who listens to which groups.
    Group,
    /// Questions of DNS, which resolvers on the host's side answer.
    Dns,
}

impl Desk {
    /// The name in captures and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Group => "group",
            Self::Dns => "dns",
        }
    }
}

/// What the shell must do before the walk can go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// Bring the whole frame in `head`. Never asked of a frame that was whole.
    Whole,
    /// Complete the partial checksum in software (the receiver, or a C = 0 destination, cannot), then bring it again.
    Checksum,
    /// Segment in software and bring each segment, checksums complete.
    Segments,
}

/// New head in the scratch buffer, then bytes of the original from `tail`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewritten {
    /// Where the new head lies in [`Scratch::head`].
    pub head: Range<usize>,
    /// Which bytes of the original frame follow it untouched (offsets count from the frame's first byte).
    pub tail: Range<usize>,
    /// Offload metadata for the receiver; offsets count from the start of the IP header.
    pub offload: Offload,
    /// More may follow of the same packet, fragments or copies to others: ask `Walker::next_copy` until it has none.
    pub more: bool,
}

impl Rewritten {
    /// A packet that is whole in the scratch buffer, with nothing left to finish.
    pub const fn whole(head: Range<usize>) -> Self {
        Self { head, tail: 0..0, offload: Offload::NONE, more: false }
    }
    /// Bytes of the packet as it leaves.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
    /// Whether nothing leaves; never true of a fate.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where new heads are built; reused from packet to packet and never cleared. One per packet in flight.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// [`Rewritten::head`] points into it.
    pub head: [u8; Scratch::LEN],
}

impl Scratch {
    /// Room for an ICMP error in both families at once.
    pub const LEN: usize = 2816;
}

impl Default for Scratch {
    fn default() -> Self {
        Self { head: [0; Self::LEN] }
    }
}

#[cfg(all(test, feature = "testkit"))]
mod tests;
