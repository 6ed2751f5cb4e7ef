//! Scripts from a seed: as many descriptor reads as are asked for, the same ones for the same seed.

use super::{any, descriptor_reads};

/// Bytes of one script.
pub const INPUT: usize = 4096;

/// Script number `number` of `seed`: what [`any`] was given, for a run that repeats it alone.
#[must_use]
pub fn input(seed: u64, number: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03);
    let words = (0..INPUT / 8).flat_map(|_| splitmix(&mut state).to_le_bytes());
    let mut bytes: Vec<u8> = words.collect();
    bytes[0] = (number % 3) as u8;
    bytes
}

/// Runs scripts of `seed` until `reads` descriptors were read; how many were, and in how many scripts. `trying` is told each number.
///
/// # Panics
/// Where ours and the reference differ.
pub fn generated(seed: u64, reads: u64, mut trying: impl FnMut(u64)) -> (u64, u64) {
    let before = descriptor_reads();
    for number in 0.. {
        let done = descriptor_reads() - before;
        if done >= reads {
            return (done, number);
        }
        trying(number);
        any(&input(seed, number));
    }
    unreachable!("numbers do not end")
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
