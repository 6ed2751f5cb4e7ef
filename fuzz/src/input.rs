//! How a target reads its input: a few bytes of circumstances, then the packet.

use nve_core::packet::{ChecksumState, Gso, GsoKind, Offload};

/// Bytes before the packet in an input of `frames`.
pub const FRAME_PREFIX: usize = 8;

/// What surrounds a frame: who sends it, and what it leaves to others.
pub struct Circumstances {
    /// Number of the guest.
    pub from: usize,
    /// Whether the host maps addresses checksum-neutrally.
    pub neutral: bool,
    /// Whether the guests take every offload.
    pub offloads: bool,
    /// The virtio-net header's content, legal or not.
    pub offload: Offload,
}

/// The circumstances and the frame; `None` if the input is too short to have both.
pub fn frame(input: &[u8]) -> Option<(Circumstances, Vec<u8>)> {
    let (&[flags, kind, start, offset, size_high, size_low, from, _], frame) =
        input.split_first_chunk::<FRAME_PREFIX>()?;
    let checksum = match flags & 3 {
        0 | 1 => ChecksumState::InPacket,
        2 => ChecksumState::Verified,
        _ => ChecksumState::Partial { start: start.into(), offset: offset.into() },
    };
    let ecn = flags & 4 != 0;
    let kind = match kind % 8 {
        1 => Some(GsoKind::TcpV4 { ecn }),
        2 => Some(GsoKind::TcpV6 { ecn }),
        3 => Some(GsoKind::UdpL4),
        _ => None,
    };
    let gso = kind.map(|kind| Gso { kind, size: u16::from_be_bytes([size_high, size_low]) });
    let mut frame = frame.to_vec();
    if flags & 8 != 0 {
        mend(frame.get_mut(14..)?);
    }
    let circumstances = Circumstances {
        from: usize::from(from) % 3,
        neutral: flags & 16 == 0,
        offloads: flags & 32 != 0,
        offload: Offload { checksum, gso },
    };
    Some((circumstances, frame))
}

/// Makes lengths and the IPv4 header checksum right, so that mutations reach what is behind those checks.
pub fn mend(packet: &mut [u8]) {
    let Ok(len) = u16::try_from(packet.len()) else { return };
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if len >= 20 => {
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[10..12].fill(0);
            let header = usize::from(packet[0] & 15) * 4;
            let sum = nve_core::testkit::checksum::sum(packet.get(..header).unwrap_or(&[]));
            packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
        }
        Some(6) if len >= 40 => packet[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
        _ => {}
    }
}
