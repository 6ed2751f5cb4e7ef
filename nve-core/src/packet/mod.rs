//! Packets as the core sees them: a head that was copied once, and a tail that stays where it is.
//!
//! What must stay true: every check runs on [`Frame::head`], which no guest can change any more; the core never sees the tail
//! unless it asks for the whole frame ([`crate::pipeline::Again::Whole`]).

pub mod finish;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
mod offload;

pub use ipv4_xlat::{ChecksumState, Gso, GsoKind, Offload};
pub(crate) use ipv4_xlat::{IpVersion, Transport};
pub(crate) use offload::largest_segment;

/// Bytes of a frame the shell copies before the first look. TCP, UDP and echo with usual headers never need more.
pub const HEAD_LEN: usize = 128;

/// The largest frame: 64 KiB of IP behind an Ethernet header.
pub const MAX_FRAME: usize = 65535 + 14;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;

/// One frame (Ethernet, from an attachment) or packet (IPv6, from the uplink).
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The first bytes: at least `min(len, HEAD_LEN)`, or all `len` of them.
    pub head: &'a [u8],
    /// Bytes of the whole frame.
    pub len: usize,
    /// What the sender left for others to finish; offsets count from the start of the IP header.
    pub offload: Offload,
}

impl<'a> Frame<'a> {
    /// A frame that is here whole, with nothing left to finish.
    pub const fn whole(bytes: &'a [u8]) -> Self {
        Self { head: bytes, len: bytes.len(), offload: Offload::NONE }
    }
    /// Whether `head` is all of it.
    #[inline]
    pub const fn is_whole(&self) -> bool {
        self.head.len() >= self.len
    }
}

/// Transport protocol numbers the walk tells apart.
pub(crate) mod protocol {
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const SCTP: u8 = 132;
}

/// Why headers could not be read to their end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unread {
    /// They go on behind [`Frame::head`]; the whole frame tells more.
    BeyondHead,
    /// They cannot be.
    Refused(crate::DropReason),
}
