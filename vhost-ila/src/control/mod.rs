//! The control API: HTTP and JSON on a Unix socket, for the `vhost-ila` command and for any script.
//!
//! What must stay true:
//!
//! * Only our own user reaches it: the socket is restricted before it has its name.
//! * Nothing here can hold up a worker: it reads counters that workers wrote, and what it changes it changes through [`Running`].
//! * `docs/openapi.yaml` is what this module says it is (a test compares them).
//!
//! ```text
//!   vhost-ila show ── client.rs ──┐
//!   curl --unix-socket ───────────┴─> api.rs ──> running.rs ──> Nve (counters, mappings, apply)
//!   SIGHUP ──────────────────────────────────────^        └───> Devices (connected? features? apply)
//!                                     answer.rs: the JSON of every answer, both ways
//! ```

pub mod answer;
mod api;
pub mod client;
mod registry;
mod running;
mod socket;
#[cfg(test)]
mod tests;

pub use api::{Description, router};
pub use registry::Registry;
pub use running::{Devices, Running};
pub use socket::Socket;
