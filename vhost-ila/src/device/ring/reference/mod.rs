//! `virtio-queue` as the reference: the same operations on two copies of the same memory, one walked by us and one by the crate,
//! must give the same buffers, used rings, indices and signals. One harness for tests, for fuzzing, and for [`generated`] runs.
//!
//! ```text
//!   script ─> pair/drive.rs: what a driver does, in both copies (pair.rs) ─┬─> ours:   transmit.rs, receive.rs, control.rs
//!             (they are made once a thread, and reset)                     └─> theirs: found.rs
//!   both come to the same: frames, memory byte by byte, signals, dirty pages, faults by name ─> the next step, until the script ends
//! ```
//!
//! Packed rings, which the crate does not walk, are held to the text in packed.rs.
//!
//! What must stay true:
//!
//! * Nothing is judged by code of ours that is tested here: good chains are the crate's, and faults, which the crate has no names for,
//!   those of a plain walk in found.rs that must agree with the crate on which chains are good.
//! * Where ours is stricter than the crate it is said in [`found`]; everywhere else a difference is a bug of one of the two.
//! * A ring that broke is set up again, as a front-end does it, and the script goes on.

mod control;
mod found;
mod generated;
mod packed;
mod pair;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

pub use control::control;
pub use generated::{INPUT, generated, input};
pub use packed::packed;
pub use receive::receive;
pub use transmit::transmit;

use super::layout::reads;

/// How many descriptors were read, by this thread.
#[must_use]
pub fn descriptor_reads() -> u64 {
    reads::so_far()
}

/// Runs the ring that the first byte chooses, by the others.
///
/// # Panics
/// Where ours and the reference differ.
pub fn any(bytes: &[u8]) {
    let Some((kind, script)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => transmit(script),
        1 => receive(script),
        _ => control(script),
    }
}
