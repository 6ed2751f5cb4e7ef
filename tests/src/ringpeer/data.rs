//! Data of TCP and UDP as drivers send it: whole, with a partial checksum, or as a super-packet; and the judge of how it came.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};

use super::Frame;
use super::checksum::sum;
use super::header::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, LENGTH, NEEDS_CSUM, NetHeader};
use crate::site::Vm;

const ETHERNET: usize = 14;
/// Bytes of a TCP header with the options that Linux sends with data, and of one of UDP.
const TCP: usize = 32;
const UDP: usize = 8;
/// VIRTIO_NET_HDR_GSO_ECN in [`NetHeader::gso_type`].
const GSO_ECN: u8 = 0x80;
/// ACK and PSH, CWR.
const FLAGS: u8 = 0x18;
const CWR: u8 = 0x80;
const SEQUENCE: u32 = 0x0100_0000;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What the driver leaves to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The checksum is partial.
    pub checksum: bool,
    /// Payload bytes of each segment, of a super-packet.
    pub segments: Option<u16>,
    /// It carries CWR, and says so if it is a super-packet.
    pub ecn: bool,
    /// It is UDP, and a super-packet of that is cut into datagrams.
    pub datagrams: bool,
}

impl Left {
    /// Protocol number, bytes of the header, and where in it the checksum is.
    fn transport(self) -> (u8, usize, usize) {
        if self.datagrams { (17, UDP, 6) } else { (6, TCP, 16) }
    }
}

/// Data of one connection, on its way.
#[derive(Clone, Debug)]
pub struct Data {
    /// As the driver sends it.
    pub frame: Frame,
    family: Family,
    left: Left,
    payload: Vec<u8>,
}

/// How data came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// In so many frames.
    pub frames: usize,
    /// With the checksum partial.
    pub partial: bool,
    /// As the super-packet it was.
    pub whole: bool,
}

/// `length` bytes from `from`'s port `port` to `to`, through the gateway.
///
/// # Errors
///
/// Fails when a machine's addresses are not of the form they have, or the data is too long for a packet.
pub fn data(from: &Vm, to: &Vm, family: Family, port: u16, length: usize, left: Left) -> Result<Data> {
    let payload: Vec<u8> = (0..length).map(|at| ((at * 131) >> 3) as u8).collect();
    let (protocol, header_len, field) = left.transport();
    let segment = u16::try_from(header_len + length)?;
    let mut bytes = vec![0x02, 0x49, 0x4c, 0x41, 0, 1];
    bytes.extend(mac(from)?);
    bytes.extend(match family {
        Family::V4 => ipv4(from, to, protocol, segment)?,
        Family::V6 => ipv6(from, to, protocol, segment)?,
    });
    let l4 = bytes.len();
    let flags = FLAGS | if left.ecn { CWR } else { 0 };
    bytes.extend([port, 5001].map(u16::to_be_bytes).concat());
    if left.datagrams {
        bytes.extend([segment, 0].map(u16::to_be_bytes).concat());
    } else {
        bytes.extend([SEQUENCE, 1].map(u32::to_be_bytes).concat());
        bytes.extend([0x80, flags, 0x10, 0, 0, 0, 0, 0]);
        // Nothing, nothing, a time stamp.
        bytes.extend([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 5]);
    }
    bytes.extend(&payload);
    let pseudo = pseudo(&bytes, family, protocol, usize::from(segment));
    let checksum = if left.checksum { pseudo } else { !sum(&bytes[l4..], u32::from(pseudo)) };
    bytes[l4 + field..l4 + field + 2].copy_from_slice(&checksum.to_be_bytes());
    let mut header = NetHeader::default();
    if left.checksum {
        header = NetHeader { flags: NEEDS_CSUM, csum_start: l4 as u16, csum_offset: field as u16, ..header };
    }
    if let Some(size) = left.segments {
        let kind = match (left.datagrams, family) {
            (true, _) => GSO_UDP_L4,
            (false, Family::V4) => GSO_TCPV4,
            (false, Family::V6) => GSO_TCPV6,
        };
        header.gso_type = kind | if left.ecn { GSO_ECN } else { 0 };
        (header.gso_size, header.hdr_len) = (size, (l4 + header_len) as u16);
    }
    Ok(Data { frame: Frame { header, bytes }, family, left, payload })
}

impl Data {
    /// Whether `frames` are all of it; the gateway's own frames are passed over.
    ///
    /// # Errors
    ///
    /// Fails when something of it is wrong: an offset, a checksum, a byte of the payload.
    pub fn is_in(&self, frames: &[Frame]) -> Result<Option<Came>> {
        let l4 = ETHERNET + if self.family == Family::V4 { 20 } else { 40 };
        let mut came = Came::default();
        let mut payload = vec![0; self.payload.len()];
        let mut have = 0;
        for frame in frames.iter().filter(|frame| self.is_of_it(frame, l4)) {
            let Frame { header, bytes } = frame;
            came.frames += 1;
            came.whole |= header.gso_type != 0;
            came.partial |= header.flags & NEEDS_CSUM != 0;
            self.check(header, bytes, l4)?;
            let sequence = u32::from_be_bytes(bytes[l4 + 4..l4 + 8].try_into()?);
            // Datagrams come in their order: they are one batch's.
            let at = if self.left.datagrams { have } else { sequence.wrapping_sub(SEQUENCE) as usize };
            let data = &bytes[l4 + self.left.transport().1..];
            let place = payload.get_mut(at..at + data.len()).context("a segment beyond the data")?;
            place.copy_from_slice(data);
            have += data.len();
        }
        if have < self.payload.len() {
            return Ok(None);
        }
        ensure!(payload == self.payload, "the payload came altered");
        Ok(Some(came))
    }

    fn is_of_it(&self, frame: &Frame, l4: usize) -> bool {
        let ether_type: &[u8] = if self.family == Family::V4 { &[8, 0] } else { &[0x86, 0xdd] };
        let sent = &self.frame.bytes;
        frame.bytes.get(12..14) == Some(ether_type)
            && frame.bytes.len() > l4 + self.left.transport().1
            && frame.bytes.get(l4..l4 + 4) == sent.get(l4..l4 + 4)
    }

    /// The header's fields, and the checksum they leave or do not.
    fn check(&self, header: &NetHeader, bytes: &[u8], l4: usize) -> Result<()> {
        let (protocol, header_len, field) = self.left.transport();
        let pseudo = pseudo(bytes, self.family, protocol, bytes.len() - l4);
        let found = u16::from_be_bytes([bytes[l4 + field], bytes[l4 + field + 1]]);
        if self.left.datagrams {
            let said = usize::from(u16::from_be_bytes([bytes[l4 + 4], bytes[l4 + 5]]));
            ensure!(said == bytes.len() - l4, "a datagram of {} bytes says {said}", bytes.len() - l4);
        }
        if header.flags & NEEDS_CSUM == 0 {
            ensure!(header.gso_type == 0, "a super-packet whose checksum is complete");
            ensure!(sum(&bytes[l4..], u32::from(pseudo)) == 0xffff, "a wrong checksum");
            return Ok(());
        }
        let places = (usize::from(header.csum_start), header.csum_offset);
        ensure!(places == (l4, field as u16), "the checksum is said to be at {places:?}");
        ensure!(found == pseudo, "the partial checksum is {found:#x}, of these addresses {pseudo:#x}");
        if header.gso_type != 0 {
            let NetHeader { gso_type, gso_size, .. } = self.frame.header;
            ensure!((header.gso_type, header.gso_size) == (gso_type, gso_size), "{header:?}");
            ensure!(usize::from(header.hdr_len) == l4 + header_len, "{header:?}");
        }
        Ok(())
    }
}

/// Bytes of a receive buffer that takes the largest frame, for drivers that cannot merge buffers.
pub const LARGEST: u32 = LENGTH as u32 + ETHERNET as u32 + 65_535;

fn ipv4(from: &Vm, to: &Vm, protocol: u8, segment: u16) -> Result<Vec<u8>> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    header[2..4].copy_from_slice(&(segment + 20).to_be_bytes());
    for address in [from.ipv4, to.ipv4] {
        header.extend(address.parse::<Ipv4Addr>()?.octets());
    }
    let checksum = !sum(&header, 0);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Ok([vec![8, 0], header].concat())
}

fn ipv6(from: &Vm, to: &Vm, protocol: u8, segment: u16) -> Result<Vec<u8>> {
    let mut header = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64];
    header[6..8].copy_from_slice(&segment.to_be_bytes());
    for address in [from.ipv6, to.ipv6] {
        header.extend(address.parse::<Ipv6Addr>()?.octets());
    }
    Ok(header)
}

/// The sum over the pseudo-header of a frame whose transport part has `length` bytes.
fn pseudo(bytes: &[u8], family: Family, protocol: u8, length: usize) -> u16 {
    let addresses =
        if family == Family::V4 { ETHERNET + 12..ETHERNET + 20 } else { ETHERNET + 8..ETHERNET + 40 };
    sum(&bytes[addresses], length as u32 + u32::from(protocol))
}

fn mac(vm: &Vm) -> Result<Vec<u8>> {
    Ok(vm.mac.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{VM1, VM2};

    const LEFT: Left = Left { checksum: true, segments: Some(1400), ecn: true, datagrams: false };
    const DATAGRAMS: Left = Left { ecn: false, datagrams: true, ..LEFT };

    #[test]
    fn what_is_sent_is_in_itself() {
        for family in [Family::V4, Family::V6] {
            for left in [LEFT, DATAGRAMS, Left::default(), Left { checksum: true, ..Left::default() }] {
                let data = data(&VM1, &VM2, family, 7, 1200, left).unwrap();
                let came = data.is_in(std::slice::from_ref(&data.frame)).unwrap();
                let whole = left.segments.is_some();
                assert_eq!(came, Some(Came { frames: 1, partial: left.checksum, whole }));
            }
        }
    }

    #[test]
    fn an_altered_byte_a_wrong_checksum_and_a_missing_frame_are_found() {
        let whole = data(&VM1, &VM2, Family::V4, 7, 1200, Left::default()).unwrap();
        assert_eq!(whole.is_in(&[]).unwrap(), None);
        let mut frame = whole.frame.clone();
        frame.bytes[100] ^= 1;
        assert!(whole.is_in(&[frame]).is_err());
        let partial = data(&VM1, &VM2, Family::V6, 7, 1200, LEFT).unwrap();
        for spoil in [|f: &mut Frame| f.bytes[100] ^= 1, |f: &mut Frame| f.header.csum_start += 2] {
            let mut frame = partial.frame.clone();
            spoil(&mut frame);
            assert!(partial.is_in(&[frame]).is_err());
        }
    }
}
