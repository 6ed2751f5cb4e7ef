//! Any packet of the fabric.
#![no_main]

use std::sync::{LazyLock, Mutex, PoisonError};

use libfuzzer_sys::fuzz_target;
use nve_core::addr::ChecksumMode;
use vhost_ila_fuzz::{Site, input};

static SITE: LazyLock<Mutex<Site>> = LazyLock::new(|| Mutex::new(Site::new(ChecksumMode::Neutral, true)));

fuzz_target!(|data: &[u8]| {
    let Some((flags, packet)) = data.split_first() else { return };
    let mut packet = packet.to_vec();
    if flags & 1 != 0 {
        input::mend(&mut packet);
    }
    SITE.lock().unwrap_or_else(PoisonError::into_inner).packet_from_fabric(&packet);
});
