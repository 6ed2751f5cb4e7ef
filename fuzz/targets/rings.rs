//! A guest's rings: ours and `virtio-queue`, side by side on the same bytes (a first byte below 0x80 says which ring); and its virtio-net
//! headers.

#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use vhost_ila::device::net_header::{self, NetHeader, SenderOffloads};
use vhost_ila::device::ring::reference;

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0x80.., rest)) => header(rest),
        _ => reference::any(bytes),
    }
    tell(reference::descriptor_reads());
});

/// Tells the scoreboard how many descriptors were read, every hundred thousand.
fn tell(reads: u64) {
    thread_local! {
        static TOLD: Cell<u64> = const { Cell::new(0) };
    }
    if reads >= TOLD.get() + 100_000 {
        TOLD.set(reads);
        eprintln!("counted: {reads} descriptor reads");
    }
}

/// What a receiver is shown, made from any bytes of a sender, describes the frame (virtio 1.2, 5.1.6).
fn header(bytes: &[u8]) {
    let Some((header, frame)) = bytes.split_first_chunk::<{ net_header::READ_LEN }>() else { return };
    let Ok(offload) = NetHeader::from_bytes(header).offload(SenderOffloads::ALL, 14, frame.len()) else {
        return;
    };
    let shown = NetHeader::for_frame(&offload, frame, || &[], true).to_bytes();
    let [bytes @ .., buffers, zero] = shown;
    let shown = NetHeader::from_bytes(&bytes);
    let sum = usize::from(shown.csum_start) + usize::from(shown.csum_offset) + 2;
    assert!(shown.flags & 1 == 0 || (shown.csum_start >= 14 && sum <= frame.len()), "{shown:?}");
    assert!(shown.gso_type == 0 || (shown.flags & 1 != 0 && shown.gso_size > 0), "{shown:?}");
    assert!(shown.flags & !3 == 0 && matches!(shown.gso_type & !0x80, 0 | 1 | 4 | 5), "{shown:?}");
    assert_eq!([buffers, zero], [1, 0]);
}
