//! No way to the fabric: for benches and for labs whose attachments all live on one host.

use std::io;
use std::os::fd::BorrowedFd;

use super::Uplink;
use crate::device::memory::Payload;
use crate::device::net_header::NetHeader;

/// Receives nothing and takes nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoUplink;

impl Uplink for NoUplink {
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn receive(&mut self, _packet: &mut [u8]) -> io::Result<Option<(usize, NetHeader)>> {
        Ok(None)
    }

    fn send(&mut self, _header: NetHeader, _head: &[u8], _tail: Payload<'_>) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn beside(&self) -> io::Result<Box<dyn Uplink>> {
        Ok(Box::new(Self))
    }
}
