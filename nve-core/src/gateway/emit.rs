//! Writing a reply: bytes appended to a buffer that may be too short.
//!
//! What must stay true: nothing is written past the buffer; once something did not fit, [`Emit::finish`] says `None`, so that
//! no reply is ever cut short.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{
    EthernetAddress, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket, checksum,
};

use super::GATEWAY_MAC;

/// The hop limit of replies that no rule of a protocol fixes at 255.
pub(super) const HOP_LIMIT: u8 = 64;

/// A reply being written.
pub(super) struct Emit<'o> {
    out: &'o mut [u8],
    len: usize,
    short: bool,
}

impl<'o> Emit<'o> {
    /// Starts with the Ethernet header of a frame from the gateway.
    pub(super) fn ethernet(out: &'o mut [u8], to: EthernetAddress, protocol: EthernetProtocol) -> Self {
        let mut emit = Self { out, len: 0, short: false };
        emit.put(to.as_bytes());
        emit.put(GATEWAY_MAC.as_bytes());
        emit.put(&u16::from(protocol).to_be_bytes());
        emit
    }

    /// A whole frame with one UDP datagram; both addresses are of one family.
    pub(super) fn datagram(
        out: &'o mut [u8],
        mac: EthernetAddress,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> Option<usize> {
        let udp_len = u16::try_from(8 + payload.len()).ok()?;
        let mut emit = match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut emit = Self::ethernet(out, mac, EthernetProtocol::Ipv4);
                emit.ipv4(source, destination, IpProtocol::Udp, 0, udp_len.checked_add(20)?);
                emit
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut emit = Self::ethernet(out, mac, EthernetProtocol::Ipv6);
                emit.ipv6(source, destination, IpProtocol::Udp, HOP_LIMIT, udp_len);
                emit
            }
            _ => return None,
        };
        let udp_at = emit.len();
        emit.put(&from.port().to_be_bytes());
        emit.put(&to.port().to_be_bytes());
        emit.put(&udp_len.to_be_bytes());
        emit.put(&[0, 0]);
        emit.put(payload);
        if let Ok(mut udp) = UdpPacket::new_checked(emit.from(udp_at)) {
            udp.fill_checksum(&from.ip().into(), &to.ip().into());
        }
        emit.finish()
    }

    /// Starts with nothing.
    pub(super) fn at(out: &'o mut [u8]) -> Self {
        Self { out, len: 0, short: false }
    }

    /// Appends.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.out.get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.short = true,
        }
    }

    /// Appends `n` zero bytes.
    pub(super) fn zeros(&mut self, n: usize) {
        for _ in 0..n {
            self.put(&[0]);
        }
    }

    /// Bytes written so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes from `at` on, for lengths and checksums that are known only at the end. Empty if `at` was never reached.
    pub(super) fn from(&mut self, at: usize) -> &mut [u8] {
        self.out.get_mut(at..self.len).unwrap_or_default()
    }

    /// Overwrites two bytes at `at`, big-endian; ignored if they were not written yet.
    pub(super) fn patch(&mut self, at: usize, value: u16) {
        if let Some(field) = self.from(at).get_mut(..2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Appends an IPv4 header (DF, identification 0: RFC 6864, 4.1) for a packet of `len` bytes, header included.
    pub(super) fn ipv4(&mut self, from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, tos: u8, len: u16) {
        let mut header = [0; 20];
        let mut ip = Ipv4Packet::new_unchecked(&mut header[..]);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_dscp(tos >> 2);
        ip.set_ecn(tos & 3);
        ip.set_total_len(len);
        ip.set_dont_frag(true);
        ip.set_hop_limit(HOP_LIMIT);
        ip.set_next_header(protocol);
        ip.set_src_addr(from);
        ip.set_dst_addr(to);
        ip.fill_checksum();
        self.put(&header);
    }

    /// Appends an IPv6 header for `len` bytes after it.
    pub(super) fn ipv6(
        &mut self,
        from: Ipv6Addr,
        to: Ipv6Addr,
        protocol: IpProtocol,
        hop_limit: u8,
        len: u16,
    ) {
        let mut header = [0; 40];
        let mut ip = Ipv6Packet::new_unchecked(&mut header[..]);
        ip.set_version(6);
        ip.set_payload_len(len);
        ip.set_next_header(protocol);
        ip.set_hop_limit(hop_limit);
        ip.set_src_addr(from);
        ip.set_dst_addr(to);
        self.put(&header);
    }

    /// Completes an IPv6 packet whose header began at `ip_at`: the payload length, then the transport checksum at `field` bytes
    /// into the payload (RFC 8200, 8.1).
    pub(super) fn close_ipv6(&mut self, ip_at: usize, protocol: IpProtocol, field: usize) {
        let payload_at = ip_at + 40;
        let len = self.len.saturating_sub(payload_at);
        self.patch(ip_at + 4, u16::try_from(len).unwrap_or(0));
        self.patch(payload_at + field, 0);
        let Some((header, payload)) = self.from(ip_at).split_first_chunk::<40>() else { return };
        let ip = Ipv6Packet::new_unchecked(&header[..]);
        let pseudo =
            checksum::pseudo_header_v6(&ip.src_addr(), &ip.dst_addr(), protocol, payload.len() as u32);
        let sum = !checksum::combine(&[pseudo, checksum::data(payload)]);
        let sum = if sum == 0 && protocol == IpProtocol::Udp { 0xffff } else { sum };
        self.patch(payload_at + field, sum);
    }

    /// Bytes written, or `None` if they did not all fit.
    pub(super) fn finish(self) -> Option<usize> {
        (!self.short).then_some(self.len)
    }
}
