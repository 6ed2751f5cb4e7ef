//! The decisions of an ILA network virtualization edge.
#![forbid(unsafe_code)]
