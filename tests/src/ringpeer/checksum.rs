//! The checksum of the Internet protocols (RFC 1071).

/// The one's complement sum of `bytes`, as big-endian words, and `more`; 0xffff where a right checksum is part of it.
pub fn sum(bytes: &[u8], more: u32) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut total = words.sum::<u32>() + more;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
