//! Messages as bytes: what a front-end that obeys nobody sends.

use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Request codes of vhost-user (the specification's "Front-end message types").
pub mod request {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_CONFIG: u32 = 24;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
}

/// A connection without a protocol.
pub struct Connection(UnixStream);

impl Connection {
    /// Connects to `socket`.
    ///
    /// # Errors
    ///
    /// Fails when nobody listens within ten seconds.
    pub fn to(socket: &Path) -> Result<Connection> {
        let stream = super::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Connection(stream))
    }

    /// Agrees on VIRTIO_F_VERSION_1 and on protocol features, so that every message may follow.
    ///
    /// # Errors
    ///
    /// As [`Connection::say`].
    pub fn negotiate(&self) -> Result<()> {
        self.say(request::SET_OWNER, &[], &[])?;
        self.say(request::SET_FEATURES, &(1u64 << 32 | 1 << 30).to_le_bytes(), &[])?;
        // CONFIGURE_MEM_SLOTS and CONFIG.
        self.say(request::SET_PROTOCOL_FEATURES, &(1u64 << 15 | 1 << 9).to_le_bytes(), &[])
    }

    /// As [`Connection::negotiate`], with these protocol features.
    ///
    /// # Errors
    ///
    /// As [`Connection::say`].
    pub fn negotiate_with(&self, protocol: u64) -> Result<()> {
        self.negotiate()?;
        self.say(request::SET_PROTOCOL_FEATURES, &protocol.to_le_bytes(), &[])
    }

    /// Sends a well-formed header of version 1, then `body`, with `files` beside them.
    ///
    /// # Errors
    ///
    /// Fails when the other side has hung up.
    pub fn say(&self, request: u32, body: &[u8], files: &[RawFd]) -> Result<()> {
        self.say_bytes(&message(request, 1, u32::try_from(body.len())?, body), files)
    }

    /// Sends bytes with `files` beside them.
    ///
    /// # Errors
    ///
    /// As [`Connection::say`].
    pub fn say_bytes(&self, bytes: &[u8], files: &[RawFd]) -> Result<()> {
        self.0.send_with_fds(&[bytes], files)?;
        Ok(())
    }

    /// Whether the other side hangs up within five seconds; what it says before is skipped.
    pub fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 256];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A message with any header: request code, flags, the size it claims, and what follows.
pub fn message(request: u32, flags: u32, size: u32, body: &[u8]) -> Vec<u8> {
    [request, flags, size].into_iter().flat_map(u32::to_le_bytes).chain(body.iter().copied()).collect()
}

/// The body of SET_MEM_TABLE: (guest address, bytes, user address, offset in the file) of each region.
pub fn memory_table(regions: &[[u64; 4]]) -> Vec<u8> {
    let count = u64::try_from(regions.len()).unwrap_or(u64::MAX);
    count
        .to_le_bytes()
        .into_iter()
        .chain(regions.iter().flatten().flat_map(|word| word.to_le_bytes()))
        .collect()
}

/// The body of the messages that carry a ring's index and a number.
pub fn vring_state(index: u32, number: u32) -> Vec<u8> {
    [index, number].into_iter().flat_map(u32::to_le_bytes).collect()
}
