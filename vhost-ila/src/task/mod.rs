//! Host tasks: network namespaces whose NIC is a TUN device that somebody else opened (draft, section 5: T1 to T4).
//!
//! What must stay true:
//!
//! * The daemon enters no namespace. `vhost-ila plug` makes the TUN, puts it there and passes the descriptor (SCM_RIGHTS).
//! * A descriptor is believed for what the kernel says of it ([`crate::uplink::Tun::adopt`]); another is refused by name and closed.
//! * To the walk a task is an attachment like any: what is read from its TUN gets an Ethernet header from its own MAC to the gateway's, and
//!   what is written to it loses its own.
//! * A TUN that goes away (its namespace was deleted) closes its attachment, named in its status, and no other.
//!
//! ```text
//!   vhost-ila plug                                          daemon
//!   make a TUN ──> its namespace: address, route, up
//!   message.rs: request + descriptor ─── plug.sock ───────> socket.rs: who asks? is it a TUN?
//!   answer  <──────────────────────────────────────────────    │
//!   --hold: the connection stays; when it ends without a        v
//!   word the daemon has, and the next is asked the same      tasks.rs: by name ── device/handover.rs ──> worker/task.rs
//! ```

pub mod message;
mod socket;
mod status;
mod tasks;

pub use socket::Socket;
pub use status::{Report, Status};
pub use tasks::{PlugError, Tasks};

use std::sync::Arc;

use crate::uplink::Uplink;

/// A task's NIC on its way to the worker.
pub struct Nic {
    /// The open TUN: IP packets.
    pub tun: Box<dyn Uplink>,
    /// Its attachment's MAC, which stands before what is read from it.
    pub mac: [u8; 6],
    /// Where the worker says that it is gone.
    pub status: Arc<Status>,
}

impl std::fmt::Debug for Nic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nic").field("status", &self.status).finish_non_exhaustive()
    }
}
