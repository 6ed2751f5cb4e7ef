//! The little of an IPv4 header that the walk reads before translation; `ipv4-xlat` checks the rest.
//!
//! What must stay true: lengths come from the header and are bounded by the frame's.

use core::net::Ipv4Addr;

use super::{Frame, Unread};
use crate::DropReason;

/// A header whose version and lengths are right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4<'a> {
    bytes: &'a [u8; 20],
}

impl<'a> Ipv4<'a> {
    /// The header at `offset` of `frame`.
    #[inline]
    pub(crate) fn read(frame: &Frame<'a>, offset: usize) -> Result<Self, Unread> {
        let room = frame.len.saturating_sub(offset);
        let Some(bytes) = frame.head.get(offset..).and_then(|rest| rest.first_chunk::<20>()) else {
            return Err(if frame.is_whole() {
                Unread::Refused(DropReason::Malformed)
            } else {
                Unread::BeyondHead
            });
        };
        let header = Self { bytes };
        let fits = header.header_len() >= 20
            && header.total_len() >= header.header_len()
            && header.total_len() <= room;
        if bytes[0] >> 4 != 4 || !fits {
            return Err(Unread::Refused(DropReason::Malformed));
        }
        Ok(header)
    }
    /// The fixed part.
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8; 20] {
        self.bytes
    }
    #[inline]
    pub(crate) fn header_len(self) -> usize {
        usize::from(self.bytes[0] & 0xf) * 4
    }
    #[inline]
    pub(crate) fn total_len(self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[2], self.bytes[3]]))
    }
    #[inline]
    pub(crate) fn protocol(self) -> u8 {
        self.bytes[9]
    }
    /// Whether the transport header is in it: no fragment, or the first.
    #[inline]
    pub(crate) fn has_transport(self) -> bool {
        self.bytes[6] & 0x1f == 0 && self.bytes[7] == 0
    }
    #[inline]
    pub(crate) fn source(self) -> Ipv4Addr {
        Ipv4Addr::new(self.bytes[12], self.bytes[13], self.bytes[14], self.bytes[15])
    }
    #[inline]
    pub(crate) fn destination(self) -> Ipv4Addr {
        Ipv4Addr::new(self.bytes[16], self.bytes[17], self.bytes[18], self.bytes[19])
    }
}
