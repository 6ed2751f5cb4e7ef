//! IPv4 to IPv6 (RFC 7915 section 4).
//!
//! ```text
//!   straight.rs  what most packets need, and nothing else
//!   header.rs    read and check, addresses, protocol, TTL      options.rs  source routes
//!   fragment.rs  Fragment Header, too big: split or signal
//!   icmp.rs      echo, and errors by table                     quote.rs    the packet an error is about
//! ```
//!
//! A packet without options, fragmentation, ICMP or offload takes the straight line: one header checksum, two address
//! lookups, one incremental checksum.

mod fragment;
mod header;
mod icmp;
mod options;
mod quote;
mod straight;

pub use straight::{Between, Usual, translate_between};

use crate::checksum::{Sum, pseudo_v6};
use crate::offload::{self, ChecksumState, Gso, GsoKind, IpVersion, Offload, Transport};
use crate::refusal::{IcmpError, Reason, Refusal};
use crate::transport::{self, Copied};
use crate::wire::{ipv6, protocol};
use crate::{
    AddressMap, Config, FragmentedIcmp, HEAD_SCRATCH_LEN, Packet, Translated, ZeroUdpChecksum, generated,
};
use fragment::Fit;
use header::{Input, Output};

/// Translates `packet` into `out`.
///
/// `out` should have [`crate::HEAD_SCRATCH_LEN`] bytes, for ICMP errors [`crate::SCRATCH_LEN`];
/// [`Refusal::NeedWhole`] asks for the larger one.
///
/// # Errors
///
/// [`Refusal`] says why not, and which ICMPv4 error the sender is owed. The error is already withheld where none may
/// be sent (RFC 1122 3.2.2).
#[inline]
pub fn translate<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    match straight::translate(packet, map, config, out) {
        Some(translated) => Ok(translated),
        None => general(packet, map, config, out),
    }
}

/// Any packet.
#[inline(never)]
fn general<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    match attempt(packet, map, config, out) {
        Err(Refusal::Icmp(reason, error)) => Err(withhold(packet, reason, error)),
        result => result,
    }
}

#[cold]
fn withhold(packet: &Packet<'_>, reason: Reason, error: IcmpError) -> Refusal {
    match generated::may_answer_v4(packet.head) {
        Ok(()) => Refusal::Icmp(reason, error),
        Err(_) => Refusal::Silent(reason),
    }
}

#[inline]
fn attempt<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    let input = Input::read(packet)?;
    let fragment = input.ip.is_fragment();
    let icmp_error = input.ip.protocol() == protocol::ICMP && icmp::is_error(&input)?;
    let output = header::translate(&input, map, config, icmp_error)?;
    if fragment {
        fragment::check(&input)?;
        if input.ip.protocol() == protocol::ICMP && config.fragmented_icmp == FragmentedIcmp::Drop {
            return Err(Reason::FragmentedIcmp.into());
        }
    }
    if packet.offload != Offload::NONE {
        let transport = Transport {
            version: IpVersion::V4,
            protocol: input.ip.protocol(),
            start: input.l4_offset,
            len: input.l4_len,
            fragment,
        };
        if !packet.offload.describes(&transport) {
            return Err(Reason::BadOffload.into());
        }
    }
    if icmp_error {
        return icmp::translate_error(&input, &output, map, config, out);
    }
    translate_plain(&input, &output, config, &packet.offload, out)
}

/// Everything but ICMP errors: headers to scratch, the rest stays where it is.
#[inline]
fn translate_plain(
    input: &Input<'_>,
    output: &Output,
    config: &Config,
    offload: &Offload,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    let out = out.first_chunk_mut::<HEAD_SCRATCH_LEN>().ok_or(Refusal::NeedWhole)?;
    let fragment = input.ip.is_fragment();

    // Fragment Headers only where there are fragments (RFC 7915 4.1): on those received, on those made here.
    let fragment_len = if fragment { ipv6::FRAGMENT_LEN } else { 0 };
    let segment = offload::segment_len(offload, input.l4, input.l4_len);
    let len = ipv6::HEADER_LEN + fragment_len + segment;
    let split = if len <= fragment::limit(config) {
        None
    } else {
        match fragment::fit(input, config, len, fragment)? {
            Fit::Whole => None,
            Fit::Split(_) if offload.gso.is_some() => return Err(Refusal::NeedSegments),
            Fit::Split(split) => Some(split),
        }
    };

    let with_header = fragment || split.is_some();
    let l4_out = if with_header { ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN } else { ipv6::HEADER_LEN };
    let copied = write_transport(input, output, config, offload, out, l4_out)?;
    let payload_len =
        u16::try_from(l4_out - ipv6::HEADER_LEN + input.l4_len).map_err(|_| Reason::ResultTooLong);
    let payload_len = match (payload_len, split) {
        (Ok(len), _) => len,
        // Written anew for each piece.
        (Err(_), Some(_)) => 0,
        (Err(reason), None) => return Err(reason.into()),
    };
    if let Some(header) = out.first_chunk_mut::<{ ipv6::HEADER_LEN }>() {
        let next_header = if with_header { protocol::FRAGMENT } else { output.next_header };
        output.emit(payload_len, next_header, header);
    }
    if with_header {
        write_fragment(input, output, out);
    }

    let checksum = offload::moved(offload, l4_out as u16, output.next_header, input.l4, fragment);
    let mut moved = Offload { checksum, gso: offload.gso.map(gso_v6) };
    if split.is_some() {
        finish_before_split(input, output, offload, copied, out)?;
        moved = Offload::NONE;
    }
    let tail = input.l4_offset + copied..input.l4_offset + input.l4_len;
    Ok(Translated { head_len: l4_out + copied, tail, offload: moved, split })
}

/// Copies the transport header to `out[at..]`, its checksum carried over. Returns how many bytes that were.
#[inline]
fn write_transport(
    input: &Input<'_>,
    output: &Output,
    config: &Config,
    offload: &Offload,
    out: &mut [u8; HEAD_SCRATCH_LEN],
    at: usize,
) -> Result<usize, Refusal> {
    let Some(out) = out.get_mut(at..).and_then(|out| out.first_chunk_mut::<{ transport::COPIED }>()) else {
        return Err(Refusal::NeedWhole);
    };
    if input.ip.fragment_offset() != 0 {
        return Ok(0);
    }
    if input.ip.more_fragments() && !transport::header_is_whole(input.ip.protocol(), input.l4, input.l4_len) {
        return Err(input.short());
    }
    if input.ip.protocol() == protocol::ICMP {
        return icmp::translate_echo(input, output, out);
    }
    match transport::copy(input.ip.protocol(), input.l4, output.delta, offload, out) {
        Some(Copied::Done(copied)) => Ok(copied),
        Some(Copied::ZeroUdp) => zero_udp(input, output, config, out),
        None => Err(input.short()),
    }
}

/// A UDP datagram without checksum, which IPv6 does not allow without further ado (RFC 7915 4.5).
#[cold]
fn zero_udp(
    input: &Input<'_>,
    output: &Output,
    config: &Config,
    out: &mut [u8; transport::COPIED],
) -> Result<usize, Refusal> {
    match config.zero_udp_checksum {
        ZeroUdpChecksum::Forward => Ok(8),
        ZeroUdpChecksum::Compute if !input.ip.is_fragment() => {
            if !input.is_whole() {
                return Err(Refusal::NeedWhole);
            }
            // UDP's own length decides what is summed, if it makes sense; the pseudo-header takes the same number.
            let stated = usize::from(u16::from_be_bytes([out[4], out[5]]));
            let covered = input.l4.get(..stated).filter(|_| stated >= 8).ok_or(Reason::ZeroUdpChecksum)?;
            let pseudo = pseudo_v6(output.source, output.destination, stated as u32, protocol::UDP);
            let field = match pseudo.bytes(covered).checksum() {
                0 => 0xffff,
                computed => computed,
            };
            out[6..8].copy_from_slice(&field.to_be_bytes());
            Ok(8)
        }
        _ => Err(transport::zero_udp(input.ip.is_fragment()).into()),
    }
}

#[cold]
fn write_fragment(input: &Input<'_>, output: &Output, out: &mut [u8; HEAD_SCRATCH_LEN]) {
    let behind =
        out.get_mut(ipv6::HEADER_LEN..).and_then(|out| out.first_chunk_mut::<{ ipv6::FRAGMENT_LEN }>());
    if let Some(behind) = behind {
        fragment::header(input, output.next_header).emit(behind);
    }
}

/// A packet that leaves in pieces must carry a finished checksum: hardware cannot complete it across fragments.
#[cold]
fn finish_before_split(
    input: &Input<'_>,
    output: &Output,
    offload: &Offload,
    copied: usize,
    out: &mut [u8; HEAD_SCRATCH_LEN],
) -> Result<(), Refusal> {
    let ChecksumState::Partial { offset, .. } = offload.checksum else { return Ok(()) };
    if !input.is_whole() {
        return Err(Refusal::NeedWhole);
    }
    let l4_out = ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN;
    let header = out.get(l4_out..l4_out + copied).unwrap_or(&[]);
    let payload = input.l4.get(copied..).unwrap_or(&[]);
    let checksum = Sum::ZERO.bytes(header).bytes(payload).checksum();
    let checksum = if checksum == 0 && output.next_header == protocol::UDP { 0xffff } else { checksum };
    let at = l4_out + usize::from(offset);
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(())
}

const fn gso_v6(gso: Gso) -> Gso {
    let kind = match gso.kind {
        GsoKind::TcpV4 { ecn } => GsoKind::TcpV6 { ecn },
        other => other,
    };
    Gso { kind, size: gso.size }
}
