//! Whether what a driver was given is valid: the virtio-net header describes the frame (virtio 1.2, section 5.1.6.4), the frame is a
//! whole packet, and its checksums are what header and negotiation make of them. It shares no code with the daemon.

use anyhow::{Context, Result, bail, ensure};
use virtio_bindings::virtio_net as net;

use super::checksum::sum;
use super::header::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM};
use super::{Frame, bits};

/// VIRTIO_NET_HDR_F_DATA_VALID.
const DATA_VALID: u8 = 2;
/// VIRTIO_NET_HDR_GSO_ECN.
const GSO_ECN: u8 = 0x80;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// An IP packet's layout.
struct Packet<'a> {
    /// From the Ethernet header on, without padding.
    frame: &'a [u8],
    version: u8,
    protocol: u8,
    /// Where the transport header begins.
    transport: usize,
    fragment: bool,
}

/// Judges `frame` as a driver that negotiated `features` on a link of `mtu` bytes (of IPv4, of IPv6) would; frames that are not IP must
/// need nothing.
///
/// # Errors
///
/// Says what is not valid.
pub fn judge(frame: &Frame, features: u64, mtu: [usize; 2]) -> Result<()> {
    let header = frame.header;
    let accepts = |feature: u32| features & bits(&[feature]) != 0;
    ensure!(header.flags & !(NEEDS_CSUM | DATA_VALID) == 0, "unknown flags");
    ensure!(header.flags != NEEDS_CSUM | DATA_VALID, "both to be summed and summed");
    if header.flags != 0 {
        ensure!(accepts(net::VIRTIO_NET_F_GUEST_CSUM), "checksums were not negotiated");
    }
    if !accepts(net::VIRTIO_NET_F_MRG_RXBUF) {
        ensure!(header.num_buffers == 1, "{} buffers that were not negotiated", header.num_buffers);
    }
    let Some(packet) = parse(&frame.bytes)? else {
        ensure!(header.flags == 0 && header.gso_type == 0, "something to do in a frame that is not IP");
        return Ok(());
    };
    let l3 = packet.frame.len() - ETHERNET;
    let mtu = mtu[usize::from(packet.version == 6)];
    if header.gso_type == 0 {
        ensure!(l3 <= mtu, "{l3} bytes on a link of {mtu}");
    } else {
        large(frame, &packet, features, mtu).context("a super-packet")?;
    }
    if header.flags & NEEDS_CSUM != 0 {
        partial(frame, &packet).context("a partial checksum")
    } else {
        ensure!(header.gso_type == 0, "a super-packet's checksum is always partial");
        // With DATA_VALID a driver does not look. That it could is more than is asked.
        whole(&packet)
    }
}

/// A super-packet fits its type, and its segments fit the link.
fn large(frame: &Frame, packet: &Packet<'_>, features: u64, mtu: usize) -> Result<()> {
    let header = frame.header;
    let accepts = |feature: u32| features & bits(&[feature]) != 0;
    if header.gso_type & GSO_ECN != 0 {
        ensure!(accepts(net::VIRTIO_NET_F_GUEST_ECN), "ECN was not negotiated");
    }
    let (version, feature) = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => (4, net::VIRTIO_NET_F_GUEST_TSO4),
        GSO_TCPV6 => (6, net::VIRTIO_NET_F_GUEST_TSO6),
        other => bail!("type {other}"),
    };
    ensure!(accepts(feature), "was not negotiated");
    ensure!(packet.version == version && packet.protocol == TCP && !packet.fragment, "of another protocol");
    let data = packet.transport + tcp_header(packet)?;
    ensure!(usize::from(header.hdr_len) == data, "hdr_len {} for {data} bytes of headers", header.hdr_len);
    // One without payload is a packet that fits one segment; drivers take it for what it is.
    ensure!(header.gso_size > 0 && data <= packet.frame.len(), "without headers or size");
    let segment = data - ETHERNET + usize::from(header.gso_size).min(packet.frame.len() - data);
    ensure!(segment <= mtu, "segments of {segment} bytes on a link of {mtu}");
    Ok(())
}

/// The header points to the checksum of the packet's own transport, which holds the sum of the pseudo-header.
fn partial(frame: &Frame, packet: &Packet<'_>) -> Result<()> {
    let (start, offset) = (usize::from(frame.header.csum_start), usize::from(frame.header.csum_offset));
    ensure!(start == packet.transport && !packet.fragment, "begins at {start}, not at {}", packet.transport);
    let field = match packet.protocol {
        TCP => 16,
        UDP => 6,
        other => bail!("of protocol {other}"),
    };
    ensure!(offset == field, "at {offset}, not {field}");
    let at = start + offset;
    let there = packet.frame.get(at..at + 2).context("beyond the frame")?;
    let seed = sum(&[], pseudo_header(packet));
    ensure!(there == seed.to_be_bytes(), "holds {there:02x?}, not {seed:04x}");
    Ok(())
}

/// The transport's checksum is right, where there is one.
fn whole(packet: &Packet<'_>) -> Result<()> {
    let transport = &packet.frame[packet.transport..];
    let absent = packet.protocol == UDP && packet.version == 4 && transport.get(6..8) == Some(&[0, 0]);
    if packet.fragment || absent || ![TCP, UDP].contains(&packet.protocol) {
        return Ok(());
    }
    ensure!(sum(transport, pseudo_header(packet)) == 0xffff, "a wrong checksum");
    Ok(())
}

/// The sum of the pseudo-header, not folded.
fn pseudo_header(packet: &Packet<'_>) -> u32 {
    let addresses =
        if packet.version == 4 { ETHERNET + 12..ETHERNET + 20 } else { ETHERNET + 8..ETHERNET + 40 };
    let length = packet.frame.len() - packet.transport;
    u32::from(sum(&packet.frame[addresses], length as u32 + u32::from(packet.protocol)))
}

fn tcp_header(packet: &Packet<'_>) -> Result<usize> {
    let words = packet.frame.get(packet.transport + 12).context("no TCP header")? >> 4;
    ensure!(words >= 5, "a TCP header of {words} words");
    Ok(usize::from(words) * 4)
}

/// Finds the parts of an IP packet; nothing if the frame is not IP.
fn parse(frame: &[u8]) -> Result<Option<Packet<'_>>> {
    let ip = frame.get(ETHERNET..).context("no whole Ethernet header")?;
    let word = |at: usize| ip.get(at..at + 2).map(|b| usize::from(b[0]) << 8 | usize::from(b[1]));
    let (version, protocol, header, length, fragment) = match frame[12..14] {
        [8, 0] => {
            let first = *ip.first().context("an empty packet")?;
            let header = usize::from(first & 15) * 4;
            ensure!(first >> 4 == 4 && header >= 20 && header <= ip.len(), "a bad IPv4 header");
            ensure!(sum(&ip[..header], 0) == 0xffff, "a wrong IPv4 header checksum");
            let fragment = word(6).context("cut off")? & 0x3fff != 0;
            (4, ip[9], header, word(2).context("cut off")?, fragment)
        }
        [0x86, 0xdd] => {
            ensure!(ip.len() >= 40 && ip[0] >> 4 == 6, "a bad IPv6 header");
            (6, ip[6], 40, 40 + word(4).context("cut off")?, ip[6] == 44)
        }
        _ => return Ok(None),
    };
    ensure!(length == ip.len(), "an IP packet of {length} bytes in {}", ip.len());
    Ok(Some(Packet { frame, version, protocol, transport: ETHERNET + header, fragment }))
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::header::NetHeader;
    use super::*;

    /// TCP over IPv4 with 100 bytes of payload and a partial checksum.
    fn good() -> Frame {
        let mut bytes = vec![0; 154];
        bytes[12] = 8;
        bytes[14..24].copy_from_slice(&[0x45, 0, 0, 140, 0, 0, 0, 0, 64, 6]);
        let checksum = !sum(&bytes[14..34], 0);
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        bytes[46] = 0x50;
        bytes[50..52].copy_from_slice(&sum(&[], 126).to_be_bytes());
        let header = NetHeader {
            flags: 1,
            gso_type: 1,
            hdr_len: 54,
            gso_size: 50,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 1,
        };
        Frame { header, bytes }
    }

    fn verdict(change: impl FnOnce(&mut Frame)) -> Result<()> {
        let mut frame = good();
        change(&mut frame);
        judge(&frame, Options::offloads().features, [1500; 2])
    }

    #[test]
    fn a_good_super_packet_passes_and_every_lie_about_it_is_found() {
        verdict(|_| {}).unwrap();
        type Lie = (&'static str, fn(&mut Frame));
        let lies: [Lie; 11] = [
            ("flags", |f| f.header.flags = 5),
            ("not partial", |f| f.header.flags = 0),
            ("type", |f| f.header.gso_type = 4),
            ("ECN", |f| f.header.gso_type = 0x81),
            ("hdr_len", |f| f.header.hdr_len = 53),
            ("no size", |f| f.header.gso_size = 0),
            ("start", |f| f.header.csum_start = 36),
            ("offset", |f| f.header.csum_offset = 6),
            ("seed", |f| f.bytes[50] ^= 1),
            ("IP checksum", |f| f.bytes[24] ^= 1),
            ("length", |f| f.bytes.push(0)),
        ];
        for (lie, change) in lies {
            verdict(change).expect_err(lie);
        }
        judge(&good(), 0, [1500; 2]).expect_err("nothing was negotiated");
        judge(&good(), Options::offloads().features, [80; 2]).expect_err("too large for the link");
    }
}
