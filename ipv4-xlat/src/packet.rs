//! A packet as the caller holds it, and a translated one as the caller sends it.
//!
//! The payload stays where it is. `Translated` says: send `scratch[..head_len]`, then the original's `tail`.
//! Only an IPv4 packet that may be fragmented (DF = 0) and is too large for IPv6 becomes several pieces; they
//! are cut by [`Translated::pieces`] when they are sent, and the usual single piece costs nothing extra.

use core::ops::Range;

use crate::offload::Offload;

/// An IP packet whose first bytes have been copied out of the sender's reach.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The first bytes, starting at the IP header. Bytes beyond `len` are ignored.
    pub head: &'a [u8],
    /// Bytes the whole packet has, `head` included. What the IP header does not count is never passed on.
    pub len: usize,
    /// What the sender left to be done by hardware.
    pub offload: Offload,
}

impl<'a> Packet<'a> {
    /// A packet that is entirely in `bytes`, with nothing left to hardware.
    pub const fn whole(bytes: &'a [u8]) -> Self {
        Packet { head: bytes, len: bytes.len(), offload: Offload::NONE }
    }
}

/// A translated packet: `scratch[..head_len]` followed by bytes `tail` of the original packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Bytes of the scratch buffer that are the new packet's beginning.
    pub head_len: usize,
    /// What follows, as offsets into the original packet. Empty for ICMP errors, which are built entirely in scratch.
    pub tail: Range<usize>,
    /// The offload metadata of the new packet, `csum_start` and the seed's addresses already moved.
    pub offload: Offload,
    /// Set when the packet does not fit and must leave as several fragments.
    pub(crate) split: Option<Split>,
}

/// How an IPv6 packet with a Fragment Header in scratch is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// Payload bytes per fragment, a multiple of 8.
    pub(crate) step: u16,
    /// Offset of the first piece in the original datagram, in bytes.
    pub(crate) offset: u16,
    /// M flag of the last piece: set when the input was itself a fragment with more to come.
    pub(crate) more: bool,
}

impl Translated {
    pub(crate) const fn one(head_len: usize, tail: Range<usize>, offload: Offload) -> Self {
        Translated { head_len, tail, offload, split: None }
    }

    /// True unless the packet must leave as several fragments; then use [`Translated::pieces`].
    #[inline]
    pub const fn is_one_piece(&self) -> bool {
        self.split.is_none()
    }

    /// Bytes of the translated packet, before it is cut into pieces.
    #[inline]
    pub const fn total_len(&self) -> usize {
        self.head_len + self.tail.end.saturating_sub(self.tail.start)
    }

    /// The pieces to send, in order; one, unless the packet must be fragmented.
    ///
    /// The caller may first rewrite the addresses in the produced header: cutting changes only the Payload Length
    /// and the Fragment Header.
    #[inline]
    pub const fn pieces(&self) -> Pieces {
        let tail_len = self.tail.end.saturating_sub(self.tail.start);
        Pieces {
            head_len: self.head_len,
            tail_start: self.tail.start,
            tail_len,
            split: self.split,
            done: 0,
            finished: false,
        }
    }
}

/// One packet to send: `scratch[..head_len]` followed by bytes `tail` of the original packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the scratch buffer that are this piece's beginning.
    pub head_len: usize,
    /// What follows, as offsets into the original packet.
    pub tail: Range<usize>,
}

/// Hands out the pieces of a translated packet; see [`Translated::pieces`].
#[derive(Clone, Debug)]
pub struct Pieces {
    head_len: usize,
    tail_start: usize,
    tail_len: usize,
    split: Option<Split>,
    /// Fragment payload bytes already handed out.
    done: usize,
    finished: bool,
}

/// IPv6 header and Fragment Header: what every fragment begins with.
const FRAGMENT_HEAD: usize = 48;

impl Pieces {
    /// Writes the next piece's header into `scratch`, the buffer `translate` filled, and says what to send.
    /// Each piece overwrites the one before: send or copy it first. `None` when all pieces were handed out, or
    /// when `scratch` is not the buffer that was translated into (too short).
    #[inline]
    pub fn next(&mut self, scratch: &mut [u8]) -> Option<Piece> {
        if self.finished {
            return None;
        }
        let Some(split) = self.split else {
            self.finished = true;
            return Some(Piece {
                head_len: self.head_len,
                tail: self.tail_start..self.tail_start + self.tail_len,
            });
        };
        self.next_fragment(split, scratch)
    }

    #[cold]
    fn next_fragment(&mut self, split: Split, scratch: &mut [u8]) -> Option<Piece> {
        let in_scratch = self.head_len.saturating_sub(FRAGMENT_HEAD);
        let payload = in_scratch + self.tail_len;
        let len = usize::from(split.step).min(payload - self.done);
        let last = self.done + len == payload;

        let header = scratch.first_chunk_mut::<FRAGMENT_HEAD>()?;
        let [p0, p1] = u16::try_from(8 + len).ok()?.to_be_bytes();
        (header[4], header[5]) = (p0, p1);
        let offset = u16::try_from(usize::from(split.offset) + self.done).ok()?;
        let [o0, o1] = (offset & !7 | u16::from(!last || split.more)).to_be_bytes();
        (header[42], header[43]) = (o0, o1);

        // The transport header copied to scratch leaves with the first piece; `step` is never shorter than it.
        let own = if self.done == 0 { in_scratch.min(len) } else { 0 };
        let start = self.tail_start + (self.done + own) - in_scratch;
        self.done += len;
        self.finished = last;
        Some(Piece { head_len: FRAGMENT_HEAD + own, tail: start..start + (len - own) })
    }
}
