//! ICMP errors in parts (RFC 4884): a quoted datagram, then an extension structure that is carried opaquely.
//!
//! ICMPv4 counts the datagram part in 32-bit words (octet 5 of the message), ICMPv6 in 64-bit words (octet 4). With
//! an extension the datagram part has at least 128 bytes and is padded with zeros.

use crate::refusal::Reason;

/// The shortest datagram part before an extension (RFC 4884 section 5).
const DATAGRAM_MIN: usize = 128;

/// An ICMP error's body, taken apart.
pub(crate) struct Multipart<'a> {
    /// The quoted packet, perhaps with padding behind it.
    pub(crate) datagram: &'a [u8],
    /// The extension structure; empty when there is none.
    pub(crate) extension: &'a [u8],
}

impl<'a> Multipart<'a> {
    /// Takes `body` apart where the length attribute, in bytes, says. 0 means there is no extension. Real routers send
    /// less than 128; that is taken at its word.
    pub(crate) fn split(body: &'a [u8], datagram_len: usize) -> Result<Self, Reason> {
        if datagram_len == 0 {
            return Ok(Multipart { datagram: body, extension: &[] });
        }
        let (datagram, extension) = body.split_at_checked(datagram_len).ok_or(Reason::MultipartLength)?;
        Ok(Multipart { datagram, extension })
    }
}

/// An ICMP error's body, put together.
pub(crate) struct Joined {
    /// Bytes of the body.
    pub(crate) len: usize,
    /// The datagram part's length in units; 0 without an extension.
    pub(crate) length_attribute: u8,
}

/// Puts `extension` behind the translated datagram in `body[..datagram_len]`, `unit` bytes being what the length
/// attribute counts. `body` is all the room there is: the datagram is cut for the extension's sake, and an extension
/// that leaves no room for 128 bytes of datagram is left out whole.
pub(crate) fn join(body: &mut [u8], datagram_len: usize, extension: &[u8], unit: usize) -> Joined {
    let without = Joined { len: datagram_len.min(body.len()), length_attribute: 0 };
    if extension.is_empty() {
        return without;
    }
    // The attribute is one octet.
    let room = body.len().saturating_sub(extension.len()).min(usize::from(u8::MAX) * unit) / unit * unit;
    if room < DATAGRAM_MIN {
        return without;
    }
    let len = datagram_len.next_multiple_of(unit).max(DATAGRAM_MIN).min(room);
    let (Some((datagram, rest)), Ok(length_attribute)) =
        (body.split_at_mut_checked(len), u8::try_from(len / unit))
    else {
        return without;
    };
    if let Some(padding) = datagram.get_mut(datagram_len..) {
        padding.fill(0);
    }
    let Some(behind) = rest.get_mut(..extension.len()) else { return without };
    behind.copy_from_slice(extension);
    Joined { len: len + extension.len(), length_attribute }
}
