//! IPv4 to IPv6: any bytes, any settings, any metadata.
#![no_main]

mod translation;

use ipv4_xlat::v4_to_v6;
use translation::{Case, stated_len, sum, transport};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(mut case) = Case::new(data) else { return };
    if case.mend {
        mend(&mut case.packet);
    }
    case.judge(|packet, out| v4_to_v6::translate(packet, &case.map, &case.config, out));
});

/// Makes the version, the header checksum and an ICMP checksum right.
fn mend(packet: &mut [u8]) {
    if packet.len() < 20 {
        return;
    }
    packet[0] = 0x40 | packet[0] & 15;
    let header_len = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
    packet[10..12].fill(0);
    let checksum = !sum(&packet[..header_len]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let end = stated_len(packet).unwrap_or(0).min(packet.len());
    if let (Some((at, 1)), true) = (transport(packet), end >= header_len + 4) {
        packet[at + 2..at + 4].fill(0);
        let checksum = !sum(&packet[at..end]);
        packet[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    }
}
