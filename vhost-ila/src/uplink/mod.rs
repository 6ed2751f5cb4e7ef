//! The way to the fabric, and to each host task: raw IPv6 packets in and out, with offload metadata.
//!
//! What must stay true: neither direction ever blocks; a packet that cannot leave now is refused, and the worker counts it.
//! Uplinks are wrapped, not flagged: what captures or spoils packets is an [`Uplink`] around another.

mod ioctl;
mod none;
mod tun;

use std::io;
use std::os::fd::BorrowedFd;

pub use none::NoUplink;
pub use tun::{Tun, WrongDescriptor};

use nve_core::pipeline::Receiver;

use crate::config::UplinkConfig;
use crate::device::memory::Payload;
use crate::device::net_header::NetHeader;

/// Bytes of the largest packet.
pub const MAX_PACKET: usize = 65535 + 40;

/// A way to the fabric, or to a host task.
pub trait Uplink: Send {
    /// What becomes readable when [`Self::receive`] has something; None if it never has.
    fn readable(&self) -> Option<BorrowedFd<'_>>;

    /// What it takes unfinished: by default what every kernel does that has TUNs with offloads.
    fn takes(&self) -> Receiver {
        Receiver::KERNEL
    }

    /// Reads one packet into `packet`; its length and what the sender left to finish (offsets from the IP header). None: nothing
    /// is there now.
    ///
    /// # Errors
    /// The system's; the packet, if there was one, is lost. `NotConnected`: the uplink is gone for good.
    fn receive(&mut self, packet: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>>;

    /// Sends `head` and `tail` as one packet; offsets in `header` count from the IP header.
    ///
    /// # Errors
    /// The system's; `WouldBlock` where the uplink is full. The packet is lost either way.
    fn send(&mut self, header: NetHeader, head: &[u8], tail: Payload<'_>) -> io::Result<()>;

    /// The same way for one worker more, which sends and receives nothing.
    ///
    /// # Errors
    /// The system's. `Unsupported`: one worker only can use it.
    fn beside(&self) -> io::Result<Box<dyn Uplink>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A way that another worker reads.
#[derive(Debug)]
struct SendOnly<U>(U);

impl<U: Uplink> Uplink for SendOnly<U> {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn takes(&self) -> Receiver {
        self.0.takes()
    }

    fn receive(&mut self, _: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        Ok(None)
    }

    fn send(&mut self, header: NetHeader, head: &[u8], tail: Payload<'_>) -> io::Result<()> {
        self.0.send(header, head, tail)
    }

    fn beside(&self) -> io::Result<Box<dyn Uplink>> {
        self.0.beside()
    }
}

/// Opens the uplink that is configured.
///
/// # Errors
/// The system's, in words that say what was tried.
pub fn open(config: &UplinkConfig) -> io::Result<Box<dyn Uplink>> {
    match config {
        UplinkConfig::Tun { name, mtu } => Ok(Box::new(Tun::open(name, *mtu)?)),
        // Packets of the vhost-user kind go by rings, never through here.
        UplinkConfig::VhostUser { .. } | UplinkConfig::None { .. } => Ok(Box::new(NoUplink)),
    }
}
