//! End-to-end tests, one file each, run by `cargo xtask test [FILTER]`.
//!
//! They are `ignore`d because they need a sandbox with hosts, guests and unpacked tools; what `cargo test` runs needs
//! neither root nor QEMU.

mod bytes_on_the_wire;
mod the_bench_itself;
