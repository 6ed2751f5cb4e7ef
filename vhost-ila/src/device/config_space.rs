//! `struct virtio_net_config` (virtio 1.2, 5.1.4): what the guest reads about its NIC.
//!
//! ```text
//!   0 mac[6]   6 status   8 max_virtqueue_pairs   10 mtu
//! ```

/// Bytes served; a front-end that asks beyond gets none.
pub const LEN: usize = 12;
/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

/// The whole space; integers little endian. `pairs`: queue pairs, 1 without MQ.
#[must_use]
pub fn bytes(mac: [u8; 6], pairs: u8, mtu: u16) -> [u8; LEN] {
    let [m0, m1, m2, m3, m4, m5] = mac;
    let [s0, s1] = LINK_UP.to_le_bytes();
    let [p0, p1] = u16::from(pairs).to_le_bytes();
    let [t0, t1] = mtu.to_le_bytes();
    [m0, m1, m2, m3, m4, m5, s0, s1, p0, p1, t0, t1]
}

/// Bytes `offset .. offset + size` of the space; zeros behind its end (front-ends read the struct of their own, longer, version).
/// None if the range lies outside of what a virtio configuration space can be (4096 - 256 bytes).
#[must_use]
pub fn read(space: &[u8; LEN], offset: u32, size: u32) -> Option<Vec<u8>> {
    const LIMIT: u32 = 0x1000 - 0x100;
    let end = offset.checked_add(size).filter(|end| *end <= LIMIT)?;
    Some((offset..end).map(|at| space.get(at as usize).copied().unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_reads_its_mac_pairs_and_mtu() {
        let space = bytes([2, 0, 0, 0, 0, 9], 8, 1480);
        assert_eq!(read(&space, 0, 6).unwrap(), [2, 0, 0, 0, 0, 9]);
        assert_eq!(read(&space, 8, 2).unwrap(), [8, 0]);
        assert_eq!(read(&space, 10, 4).unwrap(), [0xc8, 0x05, 0, 0]);
        assert_eq!(read(&space, u32::MAX, 2), None);
        assert_eq!(read(&space, 0, 4000), None);
    }
}
