//! What the generator sends: UDP over IPv4 or IPv6 with right checksums, whose last two bytes are a number.
//!
//! The number says when a frame was sent; it stands last so that it is found behind whatever a back-end puts before the frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use vm_memory::{Bytes, VolatileSlice};

use crate::bench::case::Family;
use crate::ringpeer::checksum::sum;

/// Where things stand in an Ethernet frame.
const IP: usize = 14;
const IPV4_CHECKSUM: usize = IP + 10;
const IPV4_DESTINATION: usize = IP + 16;

/// UDP's protocol number.
const UDP: u8 = 17;

/// A frame that can be sent with another number, and to another destination.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    udp_checksum: usize,
    /// One's complement sums of all that a checksum covers, with the number and (IPv4) the destination zero.
    udp_sum: u32,
    ip_sum: u32,
    destination: u32,
}

/// Who sends to whom: MAC addresses, then addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) macs: [[u8; 6]; 2],
    pub(super) ipv4: [Ipv4Addr; 2],
    pub(super) ipv6: [Ipv6Addr; 2],
    /// The UDP port it comes from.
    pub(super) port: u16,
}

impl Frame {
    /// A frame of `length` bytes, which must have room for the headers and the number.
    pub(super) fn new(family: Family, ends: &Ends, length: usize) -> Result<Frame> {
        let [from, to] = ends.macs;
        let ip = match family {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        anyhow::ensure!(length >= IP + ip + 10, "{length} bytes are too few");
        let udp_length = u16::try_from(length - IP - ip)?;
        let mut udp: Vec<u8> = [ends.port, 9, udp_length, 0].into_iter().flat_map(u16::to_be_bytes).collect();
        udp.resize(usize::from(udp_length), 0);
        let mut header = match family {
            Family::V4 => {
                let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0];
                header[2..4].copy_from_slice(&u16::try_from(length - IP)?.to_be_bytes());
                header.extend(ends.ipv4.iter().flat_map(Ipv4Addr::octets));
                header
            }
            Family::V6 => {
                let mut header = vec![0x60, 0, 0, 0, 0, 0, UDP, 64];
                header[4..6].copy_from_slice(&udp_length.to_be_bytes());
                header.extend(ends.ipv6.iter().flat_map(Ipv6Addr::octets));
                header
            }
        };
        let addresses = header.len() - 2 * if family == Family::V4 { 4 } else { 16 };
        let pseudo = u32::from(sum(&header[addresses..], u32::from(UDP) + u32::from(udp_length)));
        let whole = sum(&udp, pseudo);
        udp[6..8].copy_from_slice(&(!whole).to_be_bytes());
        let destination = u32::from(ends.ipv4[1]);
        let without = |sum: u16| {
            u32::from(sum) + u32::from(!(destination >> 16) as u16) + u32::from(!destination as u16)
        };
        let (mut udp_sum, mut ip_sum) = (u32::from(whole), 0);
        if family == Family::V4 {
            udp_sum = without(whole);
            let whole = sum(&header, 0);
            ip_sum = without(whole);
            header[10..12].copy_from_slice(&(!whole).to_be_bytes());
        }
        let kind: [u8; 2] = if family == Family::V4 { [8, 0] } else { [0x86, 0xdd] };
        let bytes = [&to[..], &from, &kind, &header, &udp].concat();
        Ok(Frame { bytes, udp_checksum: IP + ip + 6, udp_sum, ip_sum, destination })
    }

    /// Gives the frame at `at` the number `number` and, if there is one, the IPv4 destination `to`.
    pub(super) fn patch(&self, at: &VolatileSlice<'_>, number: u16, to: Option<u32>) {
        let be = |value: u16, offset: usize| drop(at.write_obj(value.to_be(), offset));
        let is_v4 = self.ip_sum != 0;
        let address = to.unwrap_or(self.destination);
        let words = if is_v4 { (address >> 16) + (address & 0xffff) } else { 0 };
        if to.is_some() {
            be((address >> 16) as u16, IPV4_DESTINATION);
            be(address as u16, IPV4_DESTINATION + 2);
            be(!folded(self.ip_sum + words), IPV4_CHECKSUM);
        }
        be(number, self.bytes.len() - 2);
        let checksum = !folded(self.udp_sum + words + u32::from(number));
        // Zero would say that there is none.
        be(if checksum == 0 { 0xffff } else { checksum }, self.udp_checksum);
    }
}

/// The number at the end of a received frame of `length` bytes.
pub(super) fn number(at: &VolatileSlice<'_>, length: usize) -> u16 {
    length.checked_sub(2).and_then(|offset| at.read_obj::<u16>(offset).ok()).map_or(0, u16::from_be)
}

fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends {
        macs: [[2, 0, 0, 0, 0, 1], [2, 0x49, 0x4c, 0x41, 0, 1]],
        ipv4: [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2)],
        ipv6: [
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
        ],
        port: 1024,
    };

    /// Whether both checksums of a frame are right.
    fn is_right(bytes: &[u8], family: Family) -> bool {
        let (ip, addresses) = if family == Family::V4 { (20, 26..34) } else { (40, 22..54) };
        let udp = &bytes[IP + ip..];
        let pseudo = u32::from(sum(&bytes[addresses], u32::from(UDP) + udp.len() as u32));
        (family == Family::V6 || sum(&bytes[IP..IP + 20], 0) == 0xffff) && sum(udp, pseudo) == 0xffff
    }

    #[test]
    fn checksums_are_right_whatever_is_patched() {
        for family in [Family::V4, Family::V6] {
            let frame = Frame::new(family, &ENDS, 64).unwrap();
            assert!(is_right(&frame.bytes, family), "{:02x?}", frame.bytes);
            for number in [0, 1, 0x7fff, 0xfffe, 0xffff] {
                let mut bytes = frame.bytes.clone();
                let to = (family == Family::V4).then_some(0x0a10_0000 + u32::from(number) * 7);
                frame.patch(&VolatileSlice::from(&mut bytes[..]), number, to);
                assert!(is_right(&bytes, family), "{number}: {bytes:02x?}");
                assert_eq!(super::number(&VolatileSlice::from(&mut bytes[..]), 64), number);
                assert_eq!(to.is_none(), bytes[30..34] == frame.bytes[30..34]);
            }
        }
        let mut wrong = Frame::new(Family::V4, &ENDS, 64).unwrap().bytes;
        wrong[50] ^= 1;
        assert!(!is_right(&wrong, Family::V4));
    }
}
