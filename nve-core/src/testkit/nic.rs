//! What a network card, or a kernel in its place, does with the work that was left to it.
//!
//! What must stay true: as a card does, this computes from the addresses **in the packet it is given**, and never trusts the seed; but
//! it insists that the seed agrees, because other cards only add to it. Nothing here is shared with `crate::packet::finish`.

use super::checksum;
use super::dissect::{Dissected, protocol};
use super::frames::{self, flags};
use crate::packet::{ChecksumState, Gso, GsoKind, Offload};

/// Why a card would corrupt what it was given.
pub type Complaint = String;

/// The packets that reach the wire: one, or one for each segment, all checksums complete.
///
/// # Errors
/// The metadata does not describe the packet, or its seed is not the sum of its addresses.
pub fn finish(packet: &[u8], offload: Offload) -> Result<Vec<Vec<u8>>, Complaint> {
    let view = Dissected::of_ip(packet).ok_or("not an IP packet")?;
    let ChecksumState::Partial { .. } = offload.checksum else {
        return match offload.gso {
            None => Ok(vec![packet.to_vec()]),
            Some(gso) => Err(format!("{gso:?} without a partial checksum")),
        };
    };
    check_seed(&view, offload)?;
    match offload.gso {
        None => Ok(vec![complete(packet.to_vec(), &view)]),
        Some(gso) => segment(packet, &view, gso),
    }
}

/// Whether the metadata points at the checksum field, and the field holds the pseudo-header's sum.
///
/// # Errors
/// What is wrong.
pub fn check_seed(view: &Dissected<'_>, offload: Offload) -> Result<(), Complaint> {
    let ChecksumState::Partial { start, offset } = offload.checksum else { return Ok(()) };
    let field = match view.protocol {
        protocol::TCP | protocol::UDP => checksum::field_of(view.protocol).unwrap_or_default(),
        other => return Err(format!("partial checksum on protocol {other}")),
    };
    if (usize::from(start), usize::from(offset)) != (view.transport_at, field) || view.is_fragment() {
        return Err(format!("csum_start {start}, csum_offset {offset} do not point at the field: {view:?}"));
    }
    let seed = checksum::sum(view.transport.get(field..field + 2).ok_or("no room for a checksum")?);
    let expected =
        checksum::pseudo_header(view.source, view.destination, view.protocol, view.transport.len());
    // The two zeros of one's complement are one number.
    if seed % 0xffff != expected % 0xffff {
        return Err(format!("seed {seed:#06x}, but the addresses sum up to {expected:#06x}: {view:?}"));
    }
    Ok(())
}

/// Completes a partial checksum over the packet as it is, a super-packet included, as a receiving stack may assume it done.
pub fn complete_in_place(packet: &mut [u8], offload: Offload) {
    if let (ChecksumState::Partial { .. }, Some(view)) = (offload.checksum, Dissected::of_ip(packet)) {
        let completed = complete(packet.to_vec(), &view);
        packet.copy_from_slice(&completed);
    }
}

fn complete(mut packet: Vec<u8>, view: &Dissected<'_>) -> Vec<u8> {
    let at = view.transport_at + checksum::field_of(view.protocol).unwrap_or_default();
    packet[at..at + 2].fill(0);
    let end = view.total_len.min(packet.len());
    let value =
        checksum::compute(view.source, view.destination, view.protocol, &packet[view.transport_at..end]);
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
    packet
}

fn segment(packet: &[u8], view: &Dissected<'_>, gso: Gso) -> Result<Vec<Vec<u8>>, Complaint> {
    let size = usize::from(gso.size);
    match (gso.kind, view.version, view.protocol) {
        (GsoKind::TcpV4 { .. }, 4, protocol::TCP) | (GsoKind::TcpV6 { .. }, 6, protocol::TCP) => {}
        (GsoKind::UdpL4, _, protocol::UDP) => {}
        _ => return Err(format!("{gso:?} does not describe {view:?}")),
    }
    if size == 0 {
        return Err("segments of no bytes".to_owned());
    }
    let payload = view.payload();
    let headers = &packet[..view.total_len - payload.len()];
    let pieces = payload.chunks(size).count();
    let cut = |(index, piece): (usize, &[u8])| {
        let mut bytes = [headers, piece].concat();
        let transport = view.transport_at;
        match view.version {
            4 => {
                let total = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&total.to_be_bytes());
                let identification = view.identification.unwrap_or_default() as u16;
                bytes[4..6].copy_from_slice(&identification.wrapping_add(index as u16).to_be_bytes());
                frames::seal_ipv4(&mut bytes);
            }
            _ => {
                let length = (bytes.len() - 40) as u16;
                bytes[4..6].copy_from_slice(&length.to_be_bytes());
            }
        }
        if view.protocol == protocol::TCP {
            let first =
                u32::from_be_bytes(bytes[transport + 4..transport + 8].try_into().unwrap_or_default());
            let sequence = first.wrapping_add((index * size) as u32);
            bytes[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
            if index + 1 < pieces {
                bytes[transport + 13] &= !(flags::FIN | flags::PSH);
            }
            if index > 0 {
                bytes[transport + 13] &= !flags::CWR;
            }
        } else {
            let length = (bytes.len() - transport) as u16;
            bytes[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
        }
        complete(bytes, view)
    };
    Ok(payload.chunks(size).enumerate().map(cut).collect())
}

/// Bytes of the largest IP packet that it stands for.
pub fn largest_packet(packet: &[u8], offload: Offload) -> usize {
    let Some(Gso { size, .. }) = offload.gso else { return packet.len() };
    let payload = Dissected::of_ip(packet).map_or(0, |view| view.payload().len());
    packet.len() - payload + payload.min(usize::from(size))
}
