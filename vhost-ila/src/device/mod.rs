//! The virtio-net devices: one vhost-user connection each, served to a front-end that may be hostile and a guest that surely is.
//!
//! What must stay true:
//!
//! * What is advertised is carried ([`features`]); nothing else is.
//! * One attachment's fault costs that attachment: its connection is closed or its ring stopped, named in its [`status`],
//!   and nobody else's worker waits, panics or dies for it.
//! * Rings and memory change hands, they are not shared: before a control message that changes either is answered, the worker has
//!   given the old state back ([`handover`]).
//! * `unsafe` lives here and in `uplink/`, nowhere else; guest memory is only touched in `memory/` and `ring/`.
//!
//! ```text
//!   server.rs      a socket, and one front-end after another
//!   peer.rs        who may be at the other end
//!   connection.rs    one front-end: messages until it goes away, then everything of it is undone
//!   arrival.rs         waits for a whole message, and for room for its answer
//!   early_enable.rs    the one message QEMU sends before the dispatcher takes it
//!   handler.rs       what each message does (decision 0001: on the `vhost` crate's dispatcher)
//!   session.rs       what they have set up
//!      │ a ring's parts come together                          │ any change: ask for it back, wait
//!      ▼                                                       ▲
//!   handover.rs ────────────── ring + events, by value ────────────── worker/
//!   ring/ over memory/, marking pages in dirty_log.rs        net_header.rs <-> the core's Offload
//!                                                          control_queue.rs: what the guest commands
//! ```

mod arrival;
pub mod config_space;
pub mod connection;
pub mod control_queue;
pub mod cpu;
pub mod dirty_log;
mod early_enable;
pub mod event;
pub mod features;
#[cfg(any(test, fuzzing))]
pub mod guest;
pub mod handler;
pub mod handover;
mod journal;
pub mod memory;
pub mod net_header;
pub mod peer;
pub mod ring;
pub mod server;
pub mod session;
pub mod status;
