//! The slow path's thread: what the gateway cannot answer from a packet alone (`nve_core::punt`, docs/decisions/0012-punt.md).
//!
//! What must stay true:
//!
//! * **A worker never waits for it**: it copies the frame into a queue and goes on. A full queue drops the frame, by name.
//! * **Each attachment has a share of the queue** ([`SHARE`]), and nobody else's frames take any of it. Of the answers it has a share, too.
//! * **One owner**: [`Thread`], which the daemon holds, ends it. A panic while it serves a frame is counted and told by the name of the desk;
//!   the attachment whose frame it was loses what was kept for it, and nobody else anything.
//! * It decides nothing: [`Serve`] is `nve_core::punt::Desks`.
//!
//! ```text
//!   worker ── WorkerEnd::punt ── share left? ──> channel ──> thread.rs: Desks::take, Desks::tick
//!      ^                          │ no                            │
//!      │                          Drop(PuntFull)                  │
//!      └── WorkerEnd::answer <── bounded queue of the worker that brought the port's last frame (it or the share full: counted)
//! ```
//!
//! With several workers: whoever brings an attachment's frame gets its answers, retransmissions included, until another brings one. So no
//! table says which worker owns a port, and an answer never crosses workers that do not know it.

mod bell;
mod queue;
mod resolvers;
mod thread;

pub(crate) use bell::Bell;
pub use queue::{SHARE, ThreadEnd, WorkerEnd, ends};
pub use resolvers::random;
pub use thread::{PuntReport, Serve, Thread};
