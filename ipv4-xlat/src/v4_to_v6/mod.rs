//! IPv4 to IPv6 (RFC 7915 section 4).

use crate::{AddressMap, Config, Packet, Reason, Refusal, Translated};

/// Translates `packet` into `out`.
///
/// `out` should have [`crate::HEAD_SCRATCH_LEN`] bytes, for ICMP errors [`crate::SCRATCH_LEN`];
/// [`Refusal::NeedWhole`] asks for the larger one.
///
/// # Errors
///
/// [`Refusal`] says why not, and which ICMPv4 error the sender is owed.
pub fn translate<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    let _ = (packet, map, config, out);
    Err(Refusal::Silent(Reason::NotForUs))
}
