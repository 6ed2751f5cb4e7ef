//! Everything that touches the machine; what happens to a packet is decided in `nve-core`.

pub mod authority;
pub mod cli;
pub mod config;
mod contained;
pub mod control;
pub mod device;
mod epoch;
mod private;
pub mod punt;
pub mod redirect;
pub mod replay;
pub mod task;
pub mod uplink;
pub mod worker;
