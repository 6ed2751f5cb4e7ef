//! What the operator wrote, refused whole or checked.
//!
//! What must stay true:
//!
//! * A [`Config`] exists only if every file was read, every key is known, every value is legal, and the objects fit together.
//! * A refusal names every offending item it could find by file and line, with a remedy; the caller's running state is untouched,
//!   because nothing here has a side effect.
//!
//! ```text
//!   PATH (a file, or a directory of *.toml)
//!     source.rs   bytes, and where each byte is: file and line
//!     raw.rs      RawFile: shape and spelling checked by serde, every value with its span
//!     merge.rs    one RawConfig: what host.toml owns, what is written twice
//!     check.rs    Config: each value parsed into its witness type, then nve-core's check across objects
//! ```

use std::path::PathBuf;
use std::time::Duration;

/// One vhost-user socket to serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceConfig {
    /// Name of the attachment; the same as in the core's setup.
    pub name: String,
    /// Absolute path of the socket.
    pub socket: PathBuf,
    /// Who listens.
    pub mode: SocketMode,
    /// The guest's MAC, as its virtio configuration space shows it.
    pub mac: [u8; 6],
}

/// Which end of a vhost-user socket listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SocketMode {
    /// We listen, the front-end connects.
    #[default]
    Server,
    /// The front-end listens, we connect and connect again.
    Client,
}

/// The way to the fabric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UplinkConfig {
    /// A TUN device of the host's kernel.
    Tun {
        /// Interface name, at most 15 bytes.
        name: String,
        /// Bytes of the largest IPv6 packet, 1280..=65535.
        mtu: u16,
    },
    /// No uplink: attachments of this host reach each other only.
    None {
        /// As for a TUN; it decides what tenants are told.
        mtu: u16,
    },
}

/// How the workers poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerConfig {
    /// How long an idle worker spins before it sleeps; zero never spins.
    pub spin: Duration,
}
