//! What a packed ring writes, marked in the dirty log.
//!
//! What must stay true: what is written is marked before the driver is shown it.

use super::layout::Layout;
use super::place::Place;
use crate::device::dirty_log::{LogSpec, RingLog};
use crate::device::ring::RingFault;

/// Where a packed ring marks what it writes.
#[derive(Debug)]
pub(super) struct PackedLog {
    /// Its descriptors, and buffers.
    pub(super) ring: RingLog,
    /// The device area, where the front-end may have its "used ring" logged elsewhere.
    pub(super) wish: RingLog,
}

impl PackedLog {
    pub(super) fn new(spec: &LogSpec, layout: &Layout) -> Result<Self, RingFault> {
        let (descriptors, len) = layout.descriptor_range();
        // What SET_VRING_ADDR says is where the device area lies: front-ends know no other used ring.
        let own = LogSpec { used: None, ..spec.clone() };
        let ring = RingLog::new(&own, &layout.memory, descriptors, len)?;
        let (device, len) = layout.device_range();
        Ok(Self { ring, wish: RingLog::new(spec, &layout.memory, device, len)? })
    }

    pub(super) fn wrote_descriptors(&mut self, first: Place, count: u16, size: u16) {
        let offset = first.offset(size);
        // Up to the ring's end, and from its beginning again.
        let straight = count.min(size - offset);
        self.ring.wrote_used(16 * u64::from(offset), 16 * u64::from(straight));
        if count > straight {
            self.ring.wrote_used(0, 16 * u64::from(count - straight));
        }
    }
}
