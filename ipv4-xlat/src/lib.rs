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
//!
//! ```
//! use ipv4_xlat::address::{rfc6052::Prefix, siit::Siit};
//! use ipv4_xlat::{Config, Packet, SCRATCH_LEN, Settings, v4_to_v6};
//!
//! // A UDP datagram without data from 192.0.2.33 to 198.51.100.7.
//! let packet = [
//!     0x45, 0, 0, 28, 0x12, 0x34, 0x40, 0, 64, 17, 0x3c, 0x41, 192, 0, 2, 33, 198, 51, 100, 7, // IPv4
//!     0x13, 0x88, 0, 53, 0, 8, 0x63, 0x5a, // UDP
//! ];
//! let map = Siit { pool6: Some(Prefix::WELL_KNOWN), ..Siit::default() };
//! let config = Config::new(Settings::default())?;
//! let mut scratch = [0; SCRATCH_LEN];
//! let translated = v4_to_v6::translate(&Packet::whole(&packet), &map, &config, &mut scratch).expect("is sound");
//! let mut pieces = translated.pieces();
//! while let Some(piece) = pieces.next(&mut scratch) {
//!     let sent = [&scratch[..piece.head_len], &packet[piece.tail]].concat();
//!     assert_eq!((sent[0] >> 4, sent.len()), (6, 48));
//! }
//! # Ok::<(), ipv4_xlat::ConfigError>(())
//! ```
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
pub use offload::{ChecksumState, Gso, GsoKind, IpVersion, Offload, Transport, UDP_MAX_SEGMENTS};
pub use packet::{Packet, Piece, Pieces, Translated};
pub use refusal::{IcmpError, Icmpv4Error, Icmpv6Error, Reason, Refusal};

/// Scratch that any translation but an ICMP error fits in: IPv6 header 40, Fragment Header 8, TCP 20, rounded up.
pub const HEAD_SCRATCH_LEN: usize = 128;

/// Scratch that every translation fits in: a translated or generated ICMPv6 error is at most the IPv6 minimum MTU.
pub const SCRATCH_LEN: usize = 1280;

/// The first bytes of a packet that suffice for every packet but ICMP errors, checksums that must be computed,
/// and headers with more than the usual options.
pub const USUAL_HEAD_LEN: usize = 128;
