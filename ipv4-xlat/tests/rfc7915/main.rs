//! The rules of RFC 7915 and its neighbours, a test each; `docs/rfc7915.md` says which holds which.

mod addresses;
mod checksums;
mod extension_v6_to_v4;
mod fragment_v4_to_v6;
mod generated;
mod header_v4_to_v6;
mod header_v6_to_v4;
mod icmp_v4_to_v6;
mod icmp_v6_to_v4;
mod lab;
mod multipart;
mod offload;
mod quotes;
mod vectors;
mod whole;
