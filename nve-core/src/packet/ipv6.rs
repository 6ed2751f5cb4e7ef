//! IPv6 headers in transit: the fixed header, and the chain behind it up to the transport header.
//!
//! What must stay true: the walk along the chain is bounded; hop-by-hop options and routing headers with segments left are refused
//! (they make routers work, or send packets where no policy looked); a first fragment has its transport header (RFC 7112).

use core::net::Ipv6Addr;

use super::{Frame, Unread, protocol};
use crate::DropReason;

/// Bytes of the fixed header.
pub(crate) const HEADER_LEN: usize = 40;

/// Extension headers accepted before the transport header.
const LONGEST_CHAIN: usize = 8;

/// A fixed header whose version and length are right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv6<'a> {
    bytes: &'a [u8; HEADER_LEN],
}

impl<'a> Ipv6<'a> {
    /// The header at `offset` of `frame`.
    #[inline]
    pub(crate) fn read(frame: &Frame<'a>, offset: usize) -> Result<Self, Unread> {
        let room = frame.len.saturating_sub(offset);
        let Some(bytes) = frame.head.get(offset..).and_then(|rest| rest.first_chunk()) else {
            return Err(if frame.is_whole() {
                Unread::Refused(DropReason::Malformed)
            } else {
                Unread::BeyondHead
            });
        };
        let header = Self { bytes };
        if bytes[0] >> 4 != 6 || header.total_len() > room {
            return Err(Unread::Refused(DropReason::Malformed));
        }
        Ok(header)
    }
    /// The header at the start of `bytes`, nothing checked.
    #[inline]
    pub(crate) fn quoted(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| Self { bytes })
    }
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8; HEADER_LEN] {
        self.bytes
    }
    /// Header and payload, in bytes.
    #[inline]
    pub(crate) fn total_len(self) -> usize {
        HEADER_LEN + usize::from(u16::from_be_bytes([self.bytes[4], self.bytes[5]]))
    }
    #[inline]
    pub(crate) fn next_header(self) -> u8 {
        self.bytes[6]
    }
    #[inline]
    pub(crate) fn hop_limit(self) -> u8 {
        self.bytes[7]
    }
    #[inline]
    pub(crate) fn source(self) -> Ipv6Addr {
        address(self.bytes, 8)
    }
    #[inline]
    pub(crate) fn destination(self) -> Ipv6Addr {
        address(self.bytes, 24)
    }
}

/// The address at `offset` of a fixed header (8 or 24).
#[inline]
fn address(header: &[u8; HEADER_LEN], offset: usize) -> Ipv6Addr {
    match header.get(offset..).and_then(|rest| rest.first_chunk::<16>()) {
        Some(octets) => Ipv6Addr::from_bits(u128::from_be_bytes(*octets)),
        None => Ipv6Addr::UNSPECIFIED,
    }
}

/// What the chain of a packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    /// The protocol behind the last extension header.
    pub(crate) protocol: u8,
    /// Where its header starts, from the start of the IPv6 header.
    pub(crate) l4: usize,
    /// There is a Fragment Header that is not that of an atomic fragment.
    pub(crate) fragment: bool,
    /// The transport header is in this packet: no fragment, or a first one.
    pub(crate) has_transport: bool,
}

impl Chain {
    /// The chain of the packet whose `header` lies at `offset` of `frame`.
    #[inline]
    pub(crate) fn read(frame: &Frame<'_>, offset: usize, header: Ipv6<'_>) -> Result<Self, Unread> {
        match header.next_header() {
            protocol @ (protocol::TCP | protocol::UDP | protocol::ICMPV6) => {
                Ok(Self { protocol, l4: HEADER_LEN, fragment: false, has_transport: true })
            }
            _ => Self::read_extensions(frame, offset, header),
        }
    }

    #[cold]
    fn read_extensions(frame: &Frame<'_>, offset: usize, header: Ipv6<'_>) -> Result<Self, Unread> {
        let total = header.total_len();
        let mut chain =
            Self { protocol: header.next_header(), l4: HEADER_LEN, fragment: false, has_transport: true };
        let mut fragment_seen = false;
        for _ in 0..LONGEST_CHAIN {
            let len = match chain.protocol {
                0 => return Err(Unread::Refused(DropReason::ExtensionHeader)),
                43 | 44 | 60 | 135 | 139 | 140 => 8,
                _ => return Ok(chain),
            };
            if chain.l4 + len > total {
                return Err(Unread::Refused(DropReason::Malformed));
            }
            let Some(fields) = frame.head.get(offset + chain.l4..).and_then(|rest| rest.first_chunk::<8>())
            else {
                return Err(if frame.is_whole() {
                    Unread::Refused(DropReason::Malformed)
                } else {
                    Unread::BeyondHead
                });
            };
            let mut len = (usize::from(fields[1]) + 1) * 8;
            match chain.protocol {
                43 if fields[3] != 0 => return Err(Unread::Refused(DropReason::ExtensionHeader)),
                44 if fragment_seen => return Err(Unread::Refused(DropReason::BadFragment)),
                44 => {
                    fragment_seen = true;
                    len = 8;
                    let payload = total - chain.l4 - len;
                    chain.read_fragment(u16::from_be_bytes([fields[2], fields[3]]), payload)?;
                }
                _ => {}
            }
            chain.protocol = fields[0];
            chain.l4 += len;
            if chain.l4 > total {
                return Err(Unread::Refused(DropReason::Malformed));
            }
            if !chain.has_transport {
                return Ok(chain);
            }
        }
        Err(Unread::Refused(DropReason::ExtensionHeader))
    }

    /// `field` is offset (13 bits), reserved (2), M; `payload` the bytes behind the Fragment Header.
    fn read_fragment(&mut self, field: u16, payload: usize) -> Result<(), Unread> {
        let (offset, more) = (usize::from(field & !7), field & 1 != 0);
        let unaligned = more && !payload.is_multiple_of(8);
        if unaligned || offset + payload > 65535 || (payload == 0 && (more || offset > 0)) {
            return Err(Unread::Refused(DropReason::BadFragment));
        }
        self.fragment = more || offset > 0;
        self.has_transport = offset == 0;
        Ok(())
    }
}
