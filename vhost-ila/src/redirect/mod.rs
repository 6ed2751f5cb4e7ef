//! Redirects on this machine: the socket of the control address, and the thread behind it (docs/redirect.md).
//!
//! What must stay true:
//!
//! * **A worker never waits for it**: it notes a triangle in a bounded queue, and what finds no room is told the next time.
//! * It decides nothing: `nve_core::redirect` says whom to tell what, and what to believe.
//! * Without `[redirect]` there is no socket, and the walk notes nothing.
//!
//! ```text
//!   worker ── Notes::note ──> bounded queue ──> thread: Teller ──> ┐
//!   Nve: a guest has come ──────────────────────> thread: Herald ──┤
//!   reload ── Service::apply ──> socket, policy (swapped whole)    ├── UDP socket at L::1
//!   mapping table <── Nve::learn ── thread: Listener <──────────── ┘
//! ```

mod service;
mod thread;

pub use service::{Prepared, RedirectReport, Service};
pub use thread::Notes;

use nve_core::redirect::Policy;

/// `[redirect]` of the config.
#[derive(Clone, Debug)]
pub struct RedirectConfig {
    /// What is told and believed.
    pub policy: Policy,
    /// UDP, at both ends.
    pub port: u16,
}
