//! Globally unique identifiers without a registry (draft, appendix A.1), as RFC 4193, section 3.2.2, makes Global IDs.
//!
//! ```text
//!   │ NTP seconds: 32 │ fraction: 32 │ EUI-64: 64 │ ──SHA-1──> │ 100 bits not kept │ identifier: the low 60 bits │
//! ```

use core::time::Duration;

use sha1::{Digest as _, Sha1};

use super::usable;
use crate::addr::Identifier;

/// Bits of a locally unique identifier.
const BITS: i32 = 60;

/// Time of day in the 64-bit NTP format (RFC 5905, section 6): seconds since 1900, 32 bits before and 32 behind the point. It begins
/// anew in February 2036, as NTP does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NtpTime(u64);

impl NtpTime {
    /// Seconds from 1900 to 1970.
    const UNIX_EPOCH: u64 = 2_208_988_800;

    /// From a time since 1970.
    pub fn from_unix(since_1970: Duration) -> Self {
        let seconds = since_1970.as_secs().wrapping_add(Self::UNIX_EPOCH);
        let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
        Self(seconds << 32 | fraction)
    }
    /// The next moment that the format can tell, about 0.23 ns later.
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
    /// The 64 bits, host byte order.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// An EUI-64 of the host, as transmitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Eui64(pub [u8; 8]);

impl Eui64 {
    /// Of a 48-bit MAC address: `fffe` in the middle, the universal/local bit inverted (RFC 4291, appendix A).
    pub const fn from_mac([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

/// The identifier of this moment on this host. `None` for the one moment in 32768 whose identifier no neutral form could carry: ask for
/// [`NtpTime::next`].
pub fn from_time_and_host(time: NtpTime, host: Eui64) -> Option<Identifier> {
    let digest: [u8; 20] =
        Sha1::new().chain_update(time.get().to_be_bytes()).chain_update(host.0).finalize().into();
    let [.., a, b, c, d, e, f, g, h] = digest;
    usable(u64::from_be_bytes([a, b, c, d, e, f, g, h]) & ((1 << BITS) - 1))
}

/// The probability that any two of `identifiers` made this way are the same: `1 - exp(-N^2 / 2^61)` (draft, appendix A.1). The 32768th
/// part that is never used does not show in it.
pub fn collision_probability(identifiers: u64) -> f64 {
    let n = identifiers as f64;
    // Not 1 - exp(): of less than 10^-16 nothing would be left.
    -(-(n * n) / 2f64.powi(BITS + 1)).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Eui64 = Eui64::from_mac([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);

    /// Computed by:
    ///
    /// ```python
    /// import hashlib
    /// host = bytes.fromhex("505400fffe123456")
    /// for seconds, nanos in (0, 0), (1456790400, 500000000), (1763900000, 123456789), (2085978496, 999999999):
    ///     ntp = ((seconds + 2208988800) % 2**32 << 32) + nanos * 2**32 // 10**9
    ///     digest = hashlib.sha1(ntp.to_bytes(8, "big") + host).digest()
    ///     print(f"{ntp:016x} {int.from_bytes(digest, 'big') % 2**60:015x}")
    /// ```
    #[test]
    fn identifiers_are_the_low_60_bits_of_the_digest_of_time_and_host() {
        let golden = [
            (Duration::new(0, 0), 0x83aa_7e80_0000_0000, 0x398_4693_a951_f870),
            (Duration::new(1_456_790_400, 500_000_000), 0xda7f_5a00_8000_0000, 0x295_5b92_ce07_adc1),
            (Duration::new(1_763_900_000, 123_456_789), 0xeccd_78e0_1f9a_dd37, 0xaf1_62a3_a6b7_1d4c),
            // Behind the end of NTP's first era.
            (Duration::new(2_085_978_496, 999_999_999), 0x0000_0000_ffff_fffb, 0x74d_f3da_1e92_1fed),
        ];
        for (unix, ntp, bits) in golden {
            let time = NtpTime::from_unix(unix);
            assert_eq!(time.get(), ntp, "{unix:?}");
            assert_eq!(from_time_and_host(time, HOST), Identifier::local(bits).ok(), "{unix:?}");
        }
    }

    /// RFC 4291, appendix A, example.
    #[test]
    fn an_eui_64_is_made_of_a_mac() {
        let mac = [0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
        assert_eq!(Eui64::from_mac(mac).0, [0x36, 0x56, 0x78, 0xff, 0xfe, 0x9a, 0xbc, 0xde]);
    }

    #[test]
    fn what_no_neutral_form_could_carry_is_not_given_out() {
        let (mut time, mut refused) = (NtpTime::from_unix(Duration::from_secs(1_763_900_000)), 0);
        for _ in 0..200_000 {
            match from_time_and_host(time, HOST) {
                Some(identifier) => assert!(!matches!(identifier.bits() as u16, 0 | 0xffff)),
                None => refused += 1,
            }
            time = time.next();
        }
        assert!((1..30).contains(&refused), "{refused} of 200000, where 6 are likely");
    }

    /// The draft's own table.
    #[test]
    fn the_probability_of_a_collision_is_the_drafts() {
        for (identifiers, told) in
            [(1_000, "4.3368e-13"), (10_000, "4.3368e-11"), (100_000, "4.3368e-9"), (1_000_000, "4.3368e-7")]
        {
            assert_eq!(format!("{:.4e}", collision_probability(identifiers)), told);
        }
        assert_eq!(collision_probability(0), 0.0);
        assert_eq!(collision_probability(u64::MAX), 1.0);
    }
}
