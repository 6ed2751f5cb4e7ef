//! A world in memory: several NVEs, guests and a fabric in virtual time, for whole scenarios without sockets, threads or clocks.
//!
//! What must stay true:
//!
//! * **It repeats.** All chance comes from [`Plan::new`]'s seed; nothing reads a clock; the same seed gives the same packets.
//! * **It is no accomplice.** Whatever judges a packet here ([`dissect`], [`checksum`], [`nic`], the audit of every link and of
//!   every guest's device) shares no code with the data path.
//! * **It judges everything.** Each packet on a link and each frame to a guest must verify, or the test fails there and then; a
//!   scenario need not ask. A failing test leaves `target/testkit/NAME.pcapng`: one interface per guest and per link.
//!
//! It panics where a test should fail; nothing outside tests may use it.
//!
//! ```text
//!   guest/   smoltcp ── device ──ring── host.rs: CarryOut + Walker ── TUN, kernel hop, card ── fabric.rs ── ... the same back
//!                                    │                                              │
//!                              guest/inspect.rs                                 audit.rs          recorder.rs sees all of it
//! ```
//!
//! A scenario reads as a script:
//!
//! ```
//! use nve_core::testkit::{GuestPlan, Plan};
//!
//! let mut world = Plan::new(1)
//!     .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
//!     .host("hv1")
//!     .host("hv2")
//!     .guest(GuestPlan::new("vm1", "hv1", "blue", &["10.1.0.1", "2001:db8:b1:e::1"]))
//!     .guest(GuestPlan::new("vm2", "hv2", "blue", &["10.1.0.2", "2001:db8:b1:e::2"]))
//!     .start();
//! assert_eq!(world.pings("vm1", "2001:db8:b1:e::2", 3, 56), 3);
//! ```

mod audit;
pub mod checksum;
mod control;
mod dice;
pub mod dissect;
mod fabric;
pub mod frames;
mod guest;
mod host;
pub mod nic;
mod plan;
mod recorder;
pub mod strangers;
mod traffic;
mod world;

pub use audit::Verified;
pub use dice::Dice;
pub use fabric::{Filter, Link, Verdict};
pub use guest::{Guest, Lease, Sends};
pub use plan::{GuestPlan, Plan, plain_network};
pub use recorder::{Direction, Record};
pub use traffic::TransferError;
pub use world::World;
