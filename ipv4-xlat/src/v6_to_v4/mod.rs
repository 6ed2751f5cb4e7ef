//! IPv6 to IPv4 (RFC 7915 section 5).
//!
//! ```text
//!   straight.rs  what most packets need, and nothing else
//!   header.rs    read and check, addresses, protocol, Hop Limit   extension.rs  extension headers
//!   fragment.rs  Fragment Header, too big: signal
//!   icmp.rs      echo, and errors by table                        quote.rs      the packet an error is about
//! ```
//!
//! A packet without extension headers, ICMP or offload takes the straight line: two address lookups, one incremental
//! checksum, one header checksum.

mod extension;
mod fragment;
mod header;
mod icmp;
mod quote;
mod straight;

pub use straight::{Between, translate_between};

use crate::offload::{self, Gso, GsoKind, IpVersion, Offload, Transport};
use crate::refusal::{IcmpError, Reason, Refusal};
use crate::transport::{self, Copied};
use crate::wire::{ipv4, protocol};
use crate::{
    AddressMap, Config, FragmentedIcmp, HEAD_SCRATCH_LEN, Packet, Translated, ZeroUdpChecksum, generated,
};
use header::{Input, Output};

/// Translates `packet` into `out`.
///
/// `identification` is used for a packet without a Fragment Header; give each packet to the same destination
/// another one (a per-worker counter will do). `out` should have [`crate::HEAD_SCRATCH_LEN`] bytes, for ICMP errors
/// [`crate::SCRATCH_LEN`]; [`Refusal::NeedWhole`] asks for the larger one.
///
/// # Errors
///
/// [`Refusal`] says why not, and which ICMPv6 error the sender is owed. The error is already withheld where none may
/// be sent (RFC 4443 2.4(e)).
#[inline]
pub fn translate<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    identification: u16,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    match straight::translate(packet, map, config, identification, out) {
        Some(translated) => Ok(translated),
        None => general(packet, map, config, identification, out),
    }
}

/// Any packet.
#[inline(never)]
fn general<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    identification: u16,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    match attempt(packet, map, config, identification, out) {
        Err(Refusal::Icmp(reason, error)) => Err(withhold(packet, reason, error)),
        result => result,
    }
}

#[cold]
fn withhold(packet: &Packet<'_>, reason: Reason, error: IcmpError) -> Refusal {
    let IcmpError::V6(about) = error else { return Refusal::Silent(reason) };
    match generated::may_answer_v6(&about, packet.head) {
        Ok(()) => Refusal::Icmp(reason, error),
        Err(_) => Refusal::Silent(reason),
    }
}

#[inline]
fn attempt<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    identification: u16,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    let input = Input::read(packet)?;
    let fragment = input.is_fragment();
    let icmp_error = input.chain.next_header == protocol::ICMPV6 && icmp::is_error(&input)?;
    let output = header::translate(&input, map, config, identification, icmp_error)?;
    if fragment {
        fragment::check(&input)?;
        if input.chain.next_header == protocol::ICMPV6 && config.fragmented_icmp == FragmentedIcmp::Drop {
            return Err(Reason::FragmentedIcmp.into());
        }
    }
    if packet.offload != Offload::NONE {
        let transport = Transport {
            version: IpVersion::V6,
            protocol: input.chain.next_header,
            start: input.l4_offset,
            len: input.l4_len,
            fragment: input.chain.fragment.is_some(),
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

    let segment = offload::segment_len(offload, input.l4, input.l4_len);
    let len = ipv4::HEADER_LEN + segment;
    if len > config.mtu4 as usize {
        fragment::too_big(input, config, len)?;
    }
    let Ok(total_len) = u16::try_from(ipv4::HEADER_LEN + input.l4_len) else {
        return Err(if offload.gso.is_some() { Refusal::NeedSegments } else { Reason::ResultTooLong.into() });
    };

    let copied = write_transport(input, output, config, offload, out)?;
    if let Some(header) = out.first_chunk_mut::<{ ipv4::HEADER_LEN }>() {
        output.emit(total_len, len, input.chain.fragment, header);
    }
    let l4_out = ipv4::HEADER_LEN as u16;
    let checksum = offload::moved(offload, l4_out, output.protocol, input.l4, input.is_fragment());
    let moved = Offload { checksum, gso: offload.gso.map(gso_v4) };
    let tail = input.l4_offset + copied..input.l4_offset + input.l4_len;
    Ok(Translated::one(ipv4::HEADER_LEN + copied, tail, moved))
}

/// Copies the transport header behind the IPv4 header, its checksum carried over. Returns how many bytes that were.
#[inline]
fn write_transport(
    input: &Input<'_>,
    output: &Output,
    config: &Config,
    offload: &Offload,
    out: &mut [u8; HEAD_SCRATCH_LEN],
) -> Result<usize, Refusal> {
    let behind =
        out.get_mut(ipv4::HEADER_LEN..).and_then(|out| out.first_chunk_mut::<{ transport::COPIED }>());
    let Some(out) = behind else { return Err(Refusal::NeedWhole) };
    if input.fragment_offset() != 0 {
        return Ok(0);
    }
    let next_header = input.chain.next_header;
    if input.is_fragment() && !transport::header_is_whole(next_header, input.l4, input.l4_len) {
        return Err(input.short());
    }
    if next_header == protocol::ICMPV6 {
        return icmp::translate_echo(input, out);
    }
    match transport::copy(next_header, input.l4, output.delta, offload, out) {
        Some(Copied::Done(copied)) => Ok(copied),
        // RFC 8200 8.1 forbids it, RFC 6936 allows it to tunnels; either way there is no sum to carry over.
        Some(Copied::ZeroUdp) if config.zero_udp_checksum == ZeroUdpChecksum::Forward => Ok(8),
        Some(Copied::ZeroUdp) => Err(transport::zero_udp(input.is_fragment()).into()),
        None => Err(input.short()),
    }
}

const fn gso_v4(gso: Gso) -> Gso {
    let kind = match gso.kind {
        GsoKind::TcpV6 { ecn } => GsoKind::TcpV4 { ecn },
        other => other,
    };
    Gso { kind, size: gso.size }
}
