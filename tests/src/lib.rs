//! The end-to-end harness: hosts, a fabric and guests that are as real as one machine allows.
//!
//! ```text
//!   sandbox: own user (unless root), network, mount and PID namespace, made by `cargo xtask`
//!   ┌───────────────────────────────────────────────────────────────────────────────┐
//!   │  QEMU vm1 ──vhost-user──> vhost-ila         vhost-ila <──vhost-user── QEMU vm2│
//!   │                              │ TUN ila0        │ TUN ila0                     │
//!   │  namespace hv1 ──────────────┴── veth ─┐   ┌─ veth ──┴────────── namespace hv2│
//!   │                                     namespace fabric: routes, and is captured │
//!   └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A guest is QEMU with Debian's kernel ([`guest`]) where its own stack is what is tested, and a front-end in the test's process
//! ([`ringpeer`]) where exact frames, or hostile ones, are; a host that is none of ours is QEMU too ([`linux_ila`]). What the wire must then carry is said by [`oracle`].
//!
//! What must stay true:
//! * Nothing leaks: every process is in the sandbox's PID namespace and dies with it; namespaces, interfaces and mounts
//!   exist only there. [`sandbox::entered`] refuses to work anywhere else.
//! * Nothing is installed: foreign programs come from [`tools`], unpacked by `cargo xtask fetch`.
//! * What a test asserts comes from outside the daemon: guests' own output, captures of the fabric, tshark, scapy.
//!   The daemon's counters are asked only about drops.
//! * Every wait has a limit.
//!
//! A test of hostile input reports to the [`scoreboard`], which also tells it its seed and its size.

#![forbid(unsafe_code)]

pub mod alike;
pub mod bench;
pub mod capture;
pub mod cloud_hypervisor;
pub mod daemon;
pub mod dice;
pub mod fabric;
pub mod guest;
pub mod initramfs;
pub mod linux_ila;
pub mod namespace;
pub mod notation;
pub mod oracle;
pub mod process;
pub mod reference;
pub mod resolver;
pub mod ringpeer;
pub mod sandbox;
pub mod scoreboard;
pub mod site;
pub mod stage;
pub mod task;
pub mod testpmd;
pub mod tools;
pub mod traffic;
