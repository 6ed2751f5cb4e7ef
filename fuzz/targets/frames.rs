//! Any frame of a guest, with any offload metadata, on a host in either checksum mode.
#![no_main]

use std::sync::{LazyLock, Mutex, PoisonError};

use libfuzzer_sys::fuzz_target;
use nve_core::addr::ChecksumMode;
use vhost_ila_fuzz::{Site, input};

/// By checksum mode and by what the guests take.
static SITES: LazyLock<[Mutex<Site>; 4]> = LazyLock::new(|| {
    [0, 1, 2, 3].map(|n| {
        let checksum = if n & 1 == 0 { ChecksumMode::Unmodified } else { ChecksumMode::Neutral };
        Mutex::new(Site::new(checksum, n & 2 != 0))
    })
});

fuzz_target!(|data: &[u8]| {
    let Some((circumstances, frame)) = input::frame(data) else { return };
    let number = usize::from(circumstances.neutral) + 2 * usize::from(circumstances.offloads);
    let mut site = SITES[number].lock().unwrap_or_else(PoisonError::into_inner);
    site.frame_from_guest(circumstances.from, &frame, circumstances.offload);
});
