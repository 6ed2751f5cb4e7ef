//! IPv6 to IPv4 (RFC 7915 section 5).

use crate::{AddressMap, Config, Packet, Reason, Refusal, Translated};

/// Translates `packet` into `out`.
///
/// `identification` is used for a packet without a Fragment Header; give each packet to the same destination
/// another one (a per-worker counter will do). `out` should have [`crate::HEAD_SCRATCH_LEN`] bytes, for ICMP errors
/// [`crate::SCRATCH_LEN`]; [`Refusal::NeedWhole`] asks for the larger one.
///
/// # Errors
///
/// [`Refusal`] says why not, and which ICMPv6 error the sender is owed.
pub fn translate<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    identification: u16,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    let _ = (packet, map, config, identification, out);
    Err(Refusal::Silent(Reason::NotForUs))
}
