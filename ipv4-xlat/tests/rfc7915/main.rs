//! The rules of RFC 7915 and its neighbours, a test each; `docs/rfc7915.md` says which holds which.

mod header_v4_to_v6;
mod lab;
mod quotes;
