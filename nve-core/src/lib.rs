//! The decisions of an ILA network virtualization edge (draft-herbert-nvo3-ila-02), free of I/O, threads and clocks.
//!
//! What must stay true:
//!
//! * A packet's fate is **returned, not performed**: [`pipeline::Fate`] is a closed enum, the shell carries it out.
//! * Time is an argument (a [`core::time::Duration`] since an epoch the caller chose); nothing here reads a clock.
//! * Total over any bytes: no input from a tenant, a peer or the fabric panics, loops or allocates.
//! * A check that must not be skipped returns a value that the next step demands ([`addr`], `pipeline::Admitted`).
//!
//! ```text
//!   shell (vhost-ila, replay, testkit)                     nve-core
//!   ─────────────────────────────────                      ────────────────────────────────────────
//!   Setup (checked config) ───────────── Nve::apply ─────> World (small, swapped whole) + mapping table
//!   Frame {head copied once, len, offload} ── Walker ────> classify > answer > admit > look up > rewrite
//!   Fate {Local | Uplink | Reply | Drop | Again} <──────── new head in Scratch, tail = range of the original
//!   Fate::Punt(desk) ── slow thread, frame by frame ─────> punt::Desks (state that guests can grow, capped) ──> frames
//! ```
#![forbid(unsafe_code)]

pub mod addr;
pub mod counters;
pub mod drop_reason;
pub mod gateway;
pub mod link;
pub mod packet;
pub mod pipeline;
pub mod policy;
pub mod punt;
pub mod redirect;
pub mod setup;
pub mod tables;
pub mod task_id;

#[cfg(feature = "testkit")]
pub mod testkit;

pub use drop_reason::DropReason;
