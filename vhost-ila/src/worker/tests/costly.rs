//! Frames that cost more than they look like: what one turn leaves comes in the next, in order and once.

use super::*;

/// A super-packet of TCP from vm`from` to vm`to`, behind its virtio-net header, that asks for segments of 16 bytes.
fn super_packet(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1];
    for field in [54u16, 16, 34, 16, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend([0x02, 0x49, 0x4c, 0x41, 0x00, 0x01]);
    bytes.extend(mac(from));
    bytes.extend([0x08, 0x00]);
    let len = (40 + payload.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, from, 10, 1, 0, to];
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum =
        |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let fold = |sum: u32| ((sum & 0xffff) + (sum >> 16)) as u16;
    let checksum = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    // The pseudo-header's, for the device to go on from.
    let seed = fold(sum(&ip[12..]) + 6 + u32::from(len - 20));
    let mut tcp = [0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0];
    tcp[16..18].copy_from_slice(&seed.to_be_bytes());
    bytes.extend(ip);
    bytes.extend(tcp);
    bytes.extend(payload);
    bytes
}

#[test]
fn what_a_turn_leaves_comes_in_the_next_in_order_and_once() {
    const FRAMES: u8 = 60;
    let lab = Lab::new(2);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    for number in 0..FRAMES {
        // A hundred segments, should somebody have to cut it; the receiver takes it whole.
        let bytes = super_packet(1, 2, &[number; 1600]);
        let gpa = TX_DATA + BUFFER * u64::from(number);
        a.ram.write(gpa, &bytes);
        a.tx.offer(&a.ram, &[Buffer { gpa, len: bytes.len() as u32, writable: false }]);
    }
    a.kick();
    let mut frames = Vec::new();
    until("all arrived", || {
        frames.extend(b.take());
        frames.len() >= usize::from(FRAMES)
    });
    let numbers: Vec<u8> = frames.iter().map(|frame| frame[frame.len() - 1]).collect();
    assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>());
    assert!(frames.iter().all(|frame| frame.len() == 54 + 1600));
    assert_eq!(a.tx.take_used(&a.ram).len(), usize::from(FRAMES), "given back");
    let turns: u64 = lab.daemon.workers()[0].turns.iter().sum();
    assert!(turns >= u64::from(FRAMES) / 5, "{turns} turns for {FRAMES} frames of a hundred segments");
}
