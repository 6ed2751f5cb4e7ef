//! Stateless IPv4/IPv6 translation (RFC 7915) as functions over bytes.
//!
//! ```text
//!   head (copied headers) ─┐                         ┌─> head in the caller's scratch
//!   len, offload ──────────┼─> v4_to_v6::translate ──┼─> tail: a range of the original packet
//!   AddressMap, Config ────┘   v6_to_v4::translate   └─> offload, moved and re-seeded
//!                                    │
//!                                    └─> Refusal: Silent | Icmp | NeedWhole | NeedSegments
//! ```
//!
//! What stays true:
//!
//! * **Stateless.** The result depends on the packet, the [`Config`], the [`AddressMap`] and, for IPv6 to
//!   IPv4, one identification value the caller hands in. Nothing is remembered between packets.
//! * **Payload is not touched.** A result is new headers in scratch plus "the original from offset N".
//!   Bytes behind the transport header are read only to complete a checksum or to carry an ICMP error's
//!   quoted packet; then the caller is asked for the whole packet by [`Refusal::NeedWhole`].
//! * **Total.** Any bytes, any lengths: no panic, no overread, no loop without a bound.
//! * **Wrong stays wrong.** A bad TCP, UDP or echo checksum is carried over just as bad, never repaired.
//! * **Errors know the answer.** A refusal carries the ICMP error owed to the sender, if one is owed;
//!   [`generated`] turns it into a packet.
//! * `no_std`, no allocation, no `unsafe`, no clock, no dependency.
//!
//! The two directions are twins: `v4_to_v6/X.rs` and `v6_to_v4/X.rs` do the same step and can be diffed.
//! `docs/rfc7915.md` lists every rule with the test that holds it.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod checksum;
mod config;
pub mod generated;
pub mod limit;
pub mod mtu;
mod multipart;
mod offload;
mod packet;
mod refusal;
mod transport;
pub mod v4_to_v6;
pub mod v6_to_v4;
mod wire;

pub use address::{AddressMap, Role};
pub use config::{
    Config, ConfigError, FragmentedIcmp, HopChange, LowestIpv6Mtu, Settings, TrafficClass, ZeroUdpChecksum,
};
pub use offload::{ChecksumState, Gso, GsoKind, Offload};
pub use packet::{Packet, Piece, Pieces, Translated};
pub use refusal::{IcmpError, Icmpv4Error, Icmpv6Error, Reason, Refusal};

/// Scratch that any translation but an ICMP error fits in: IPv6 header 40, Fragment Header 8, TCP 20, rounded up.
pub const HEAD_SCRATCH_LEN: usize = 128;

/// Scratch that every translation fits in: a translated or generated ICMPv6 error is at most the IPv6 minimum MTU.
pub const SCRATCH_LEN: usize = 1280;

/// The first bytes of a packet that suffice for every packet but ICMP errors, checksums that must be computed,
/// and headers with more than the usual options.
pub const USUAL_HEAD_LEN: usize = 128;
