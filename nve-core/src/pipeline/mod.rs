//! The walk: what happens to a packet, on one screen.
//!
//! ```text
//!            from a tenant (tenant.rs)                                from the uplink (wire.rs)
//!   take     shell copies the head once                               shell reads the packet
//!   classify packet/: Ethernet, IP, transport, offload                packet/: IPv6, transport
//!   answer   gateway/: ARP, NDP, RS, DHCP, echo                       our locator, SIR or VNET? type legal? C reversed?
//!   admit    MAC and address are the attachment's -> Admitted         identifier local? source's VN may reach it?
//!   look up  identifier -> mapping, policy                            ICMPv6 errors: judged by what they quote
//!   rewrite  new head in Scratch, tail = range of the original        new head in Scratch
//!   deliver  shell: one copy                                          shell: one copy
//! ```

use core::ops::Range;

use crate::DropReason;
use crate::packet::Offload;

mod carry_out;
mod nve;
mod question;
mod walker;

pub use carry_out::{CarryOut, Outcome};
pub use nve::{ApplyError, MappingLine, Nve, Receiver};
pub use question::Question;
pub use walker::Walker;

/// Attachments one host serves at most.
pub const MAX_PORTS: usize = 4096;

/// An attachment's number on this host: dense, stable while the attachment's name is configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortId(pub u16);

/// Where a packet comes from; also said of where it went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// An attachment: Ethernet frames.
    Port(PortId),
    /// The fabric: IPv6 packets.
    Uplink,
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
    /// Dropped and counted.
    Drop(DropReason),
    /// The shell must do something first and bring the result through the same door.
    Again(Again),
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
    /// More pieces of the same packet follow (fragmentation): ask `Walker::next_piece` until it has none.
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
    pub head: [u8; 2048],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { head: [0; 2048] }
    }
}
