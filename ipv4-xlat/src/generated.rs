//! ICMP errors we originate.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{Icmpv4Error, Icmpv6Error};

/// Why no ICMP error is sent about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// It is an ICMP error itself, or might be one.
    AboutError,
    /// It is not the first fragment of its datagram.
    AboutFragment,
    /// It was sent to many.
    AboutMulticast,
    /// Its source is not one host.
    IllegalSource,
    /// It has no complete IP header.
    Malformed,
    /// The buffer is shorter than the error.
    NoRoom,
}

/// Builds the ICMPv4 error `error`, sent by `from`, about `original` (as received, its first bytes suffice), into
/// `out`. Returns the packet's length, at most 576; give `out` that much.
///
/// # Errors
///
/// [`NotSent`] when RFC 1122 3.2.2 or RFC 1812 4.3.2.7 forbids an answer.
pub fn icmpv4_error(
    error: &Icmpv4Error,
    from: Ipv4Addr,
    identification: u16,
    original: &[u8],
    out: &mut [u8],
) -> Result<usize, NotSent> {
    let _ = (error, from, identification, original, out);
    Err(NotSent::Malformed)
}

/// Builds the ICMPv6 error `error`, sent by `from`, about `original` (as received, its first bytes suffice), into
/// `out`. Returns the packet's length, at most 1280; give `out` that much.
///
/// # Errors
///
/// [`NotSent`] when RFC 4443 2.4(e) forbids an answer.
pub fn icmpv6_error(
    error: &Icmpv6Error,
    from: Ipv6Addr,
    original: &[u8],
    out: &mut [u8],
) -> Result<usize, NotSent> {
    let _ = (error, from, original, out);
    Err(NotSent::Malformed)
}
