//! What hardware was to do, done in software: completing a partial checksum, cutting a super-packet into segments.
//!
//! ```text
//!   Again(Checksum)  ──> complete_checksum(frame)          ──> walk again, offload cleared
//!   Again(Segments)  ──> Segments::new(frame) ──next──> segment, checksum complete ──> walk again, each
//! ```
//!
//! What must stay true: total over any bytes; a super-packet becomes at most [`MOST_SEGMENTS`], so that one frame of a hostile guest is
//! not the work of 65,000. Addresses are not read: the checksum is made from the seed in its field (virtio 1.2, section 5.1.6.2.1: the pseudo-header's
//! sum over the whole length), so the result is for the addresses the sender saw.

use core::ops::Range;

use ipv4_xlat::checksum::{Delta, Sum};

use super::{ChecksumState, GsoKind, Offload};
use crate::DropReason;

/// Completes the partial checksum of the frame `bytes`, whose IP header is at `ip_at` (14 behind Ethernet, 0 from the uplink), and
/// gives back what is left to do: never a partial checksum. Without a partial checksum nothing changes.
///
/// # Errors
/// [`DropReason::BadOffload`] where offsets point outside of the packet, or it is a super-packet.
pub fn complete_checksum(bytes: &mut [u8], ip_at: usize, offload: Offload) -> Result<Offload, DropReason> {
    let ChecksumState::Partial { start, offset } = offload.checksum else { return Ok(offload) };
    if offload.gso.is_some() {
        return Err(DropReason::BadOffload);
    }
    let packet = ip_packet(bytes, ip_at).ok_or(DropReason::BadOffload)?;
    let l4 = bytes.get_mut(packet).and_then(|packet| packet.get_mut(usize::from(start)..));
    write_checksum(l4.ok_or(DropReason::BadOffload)?, usize::from(offset)).ok_or(DropReason::BadOffload)?;
    Ok(Offload { checksum: ChecksumState::InPacket, gso: None })
}

/// Sums `l4`, seed included, and stores the complement at `field`.
fn write_checksum(l4: &mut [u8], field: usize) -> Option<()> {
    let checksum = match (Sum::ZERO.bytes(l4).checksum(), field) {
        // A UDP checksum of zero means that there is none (RFC 768).
        (0, UDP_FIELD) => 0xffff,
        (checksum, _) => checksum,
    };
    *l4.get_mut(field..)?.first_chunk_mut::<2>()? = checksum.to_be_bytes();
    Some(())
}

/// The most segments of one super-packet: 64 KiB in pieces of 48 bytes, the smallest segment size Linux agrees to (`TCP_MIN_SND_MSS`).
pub const MOST_SEGMENTS: usize = 1366;

/// The most bytes of IP, extension and TCP headers of a super-packet: they are copied before every segment.
pub const LONGEST_HEADERS: usize = 256;

/// Where UDP and TCP keep their checksum.
const UDP_FIELD: usize = 6;
const TCP_FIELD: usize = 16;

/// TCP flags, in the header's byte 13.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The bytes of the IP packet at `ip_at`, by its own length field.
fn ip_packet(bytes: &[u8], ip_at: usize) -> Option<Range<usize>> {
    let header = bytes.get(ip_at..)?;
    let len = match header.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes(*header.get(2..)?.first_chunk()?)),
        6 => 40 + usize::from(u16::from_be_bytes(*header.get(4..)?.first_chunk()?)),
        _ => return None,
    };
    (len <= header.len()).then_some(ip_at..ip_at + len)
}

/// A super-packet on its way to become ordinary ones.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    /// The frame up to the end of the super-packet.
    bytes: &'a [u8],
    ip_at: usize,
    /// From the start of `bytes`.
    l4: usize,
    /// From the start of `bytes`.
    payload: usize,
    size: usize,
    is_tcp: bool,
    /// Payload bytes handed out.
    done: usize,
    count: u16,
}

impl<'a> Segments<'a> {
    /// The segments of the whole frame `bytes`, whose IP header is at `ip_at`.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] where `offload` does not describe a super-packet that these bytes can be, or it would be more than
    /// [`MOST_SEGMENTS`], or has more than [`LONGEST_HEADERS`].
    pub fn new(bytes: &'a [u8], ip_at: usize, offload: Offload) -> Result<Self, DropReason> {
        Self::read(bytes, ip_at, offload).ok_or(DropReason::BadOffload)
    }

    fn read(bytes: &'a [u8], ip_at: usize, offload: Offload) -> Option<Self> {
        let (gso, ChecksumState::Partial { start, offset }) = (offload.gso?, offload.checksum) else {
            return None;
        };
        let packet = ip_packet(bytes, ip_at)?;
        let (bytes, l4) = (bytes.get(..packet.end)?, ip_at + usize::from(start));
        let is_tcp = !matches!(gso.kind, GsoKind::UdpL4);
        let (field, header) =
            if is_tcp { (TCP_FIELD, usize::from(bytes.get(l4 + 12)? >> 4) * 4) } else { (UDP_FIELD, 8) };
        let payload = l4 + header;
        let smallest = if is_tcp { 20 } else { 8 };
        if usize::from(offset) != field || header < smallest || payload > bytes.len() || gso.size == 0 {
            return None;
        }
        let header_behind_ip = usize::from(start) >= if bytes.get(ip_at)? >> 4 == 4 { 20 } else { 40 };
        let size = usize::from(gso.size);
        if payload - ip_at > LONGEST_HEADERS || (bytes.len() - payload).div_ceil(size) > MOST_SEGMENTS {
            return None;
        }
        header_behind_ip.then_some(Self { bytes, ip_at, l4, payload, size, is_tcp, done: 0, count: 0 })
    }

    /// Writes the next segment, a whole frame like the original, to the start of `out`, and gives back its length. `None`: there is
    /// none left, or `out` is too small (the super-packet's length always suffices).
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let total = self.bytes.len() - self.payload;
        let first = self.count == 0;
        if self.done >= total && !first {
            return None;
        }
        let len = self.size.min(total - self.done);
        let last = self.done + len >= total;
        let frame = out.get_mut(..self.payload + len)?;
        let (head, body) = frame.split_at_mut(self.payload);
        head.copy_from_slice(self.bytes.get(..self.payload)?);
        let from = self.payload + self.done;
        body.copy_from_slice(self.bytes.get(from..from + len)?);

        self.write_ip(frame)?;
        let l4 = frame.get_mut(self.l4..)?;
        let (old_len, new_len) = (self.bytes.len() - self.l4, l4.len());
        if self.is_tcp {
            self.write_tcp(l4, first, last)?
        } else {
            write_udp(l4)?
        };
        let field = if self.is_tcp { TCP_FIELD } else { UDP_FIELD };
        let seed = l4.get_mut(field..)?.first_chunk_mut::<2>()?;
        let lengths = Delta::between(Sum::ZERO.dword(old_len as u32), Sum::ZERO.dword(new_len as u32));
        *seed = lengths.apply_to_seed(u16::from_be_bytes(*seed)).to_be_bytes();
        write_checksum(l4, field)?;

        self.done += len;
        self.count = self.count.wrapping_add(1);
        Some(self.payload + len)
    }

    /// Lengths, and for IPv4 the identification and header checksum.
    fn write_ip(&self, frame: &mut [u8]) -> Option<()> {
        let len = u16::try_from(frame.len() - self.ip_at).ok()?;
        let header = frame.get_mut(self.ip_at..self.l4)?;
        if header.first()? >> 4 == 6 {
            *header.get_mut(4..)?.first_chunk_mut::<2>()? = (len - 40).to_be_bytes();
            return Some(());
        }
        *header.get_mut(2..)?.first_chunk_mut::<2>()? = len.to_be_bytes();
        let identification = header.get_mut(4..)?.first_chunk_mut::<2>()?;
        *identification = u16::from_be_bytes(*identification).wrapping_add(self.count).to_be_bytes();
        header.get_mut(10..12)?.fill(0);
        let checksum = Sum::ZERO.bytes(header).checksum();
        *header.get_mut(10..)?.first_chunk_mut::<2>()? = checksum.to_be_bytes();
        Some(())
    }

    /// The sequence number; FIN and PSH belong to the last segment, CWR to the first (RFC 3168, section 6.1.2).
    fn write_tcp(&self, l4: &mut [u8], first: bool, last: bool) -> Option<()> {
        let sequence = l4.get_mut(4..)?.first_chunk_mut::<4>()?;
        *sequence = u32::from_be_bytes(*sequence).wrapping_add(self.done as u32).to_be_bytes();
        let flags = l4.get_mut(13)?;
        if !last {
            *flags &= !FIN_PSH;
        }
        if !first {
            *flags &= !CWR;
        }
        Some(())
    }
}

fn write_udp(l4: &mut [u8]) -> Option<()> {
    let len = u16::try_from(l4.len()).ok()?;
    *l4.get_mut(4..)?.first_chunk_mut::<2>()? = len.to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests;
