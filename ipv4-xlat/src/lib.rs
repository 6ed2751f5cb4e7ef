//! Stateless IPv4/IPv6 translation (RFC 7915) as functions over bytes.
#![no_std]
#![forbid(unsafe_code)]
