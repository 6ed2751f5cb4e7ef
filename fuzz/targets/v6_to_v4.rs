//! IPv6 to IPv4: any bytes, any settings, any metadata.
#![no_main]

mod translation;

use ipv4_xlat::v6_to_v4;
use translation::{Case, stated_len, sum, transport};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(mut case) = Case::new(data) else { return };
    if case.mend {
        mend(&mut case.packet);
    }
    case.judge(|packet, out| v6_to_v4::translate(packet, &case.map, &case.config, 7, out));
});

/// Makes the version and an ICMPv6 checksum right.
fn mend(packet: &mut [u8]) {
    if packet.len() < 40 {
        return;
    }
    packet[0] = 0x60 | packet[0] & 15;
    let end = stated_len(packet).unwrap_or(0).min(packet.len());
    if let (Some((at, 58)), true) = (transport(packet), end >= 44) {
        packet[at + 2..at + 4].fill(0);
        let len = ((end - at) as u32).to_be_bytes();
        let checksum = !sum(&[&packet[8..40], &len, &[0, 0, 0, 58], &packet[at..end]].concat());
        packet[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    }
}
