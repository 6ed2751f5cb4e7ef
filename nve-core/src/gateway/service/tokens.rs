//! Session tokens (IMDSv2): given to whoever asks by PUT, good for one attachment and a time.
//!
//! What must stay true: nothing is kept of a token. It says when it ends, and a hash under this process's secret says for whom.

use core::time::Duration;
use std::hash::{BuildHasher, RandomState};

/// Seconds a token may live, as in EC2.
const LONGEST: u64 = 21_600;

/// The secret: two keys of SipHash, made of the system's randomness.
#[derive(Default)]
pub(super) struct Tokens([RandomState; 2]);

impl Tokens {
    /// A token for the attachment `name` of network `vni`, good for `seconds` from `now`; `None` if that is no number from 1 to 21600.
    pub(super) fn give(&self, name: &str, vni: u32, seconds: &str, now: Duration) -> Option<String> {
        let seconds = seconds.parse::<u64>().ok().filter(|seconds| (1..=LONGEST).contains(seconds))?;
        let end = now.as_secs() + seconds;
        Some(format!("{end:x}.{}", self.seal(name, vni, end)))
    }

    /// Whether `token` was given to this attachment and is good at `now`.
    pub(super) fn are_good(&self, token: &str, name: &str, vni: u32, now: Duration) -> bool {
        let parts =
            token.split_once('.').and_then(|(end, seal)| Some((u64::from_str_radix(end, 16).ok()?, seal)));
        parts.is_some_and(|(end, seal)| end > now.as_secs() && seal == self.seal(name, vni, end))
    }

    fn seal(&self, name: &str, vni: u32, end: u64) -> String {
        let [a, b] = self.0.each_ref().map(|key| key.hash_one((name, vni, end)));
        format!("{a:016x}{b:016x}")
    }
}
