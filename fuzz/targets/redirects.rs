//! Any datagram at the control address, under a good MAC too: learned is only what is signed, and what may be.
#![no_main]

use std::net::Ipv6Addr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use nve_core::addr::{ChecksumMode, Locator};
use nve_core::pipeline::{Nve, Source};
use nve_core::redirect::{At, Key, KeyId, Keys, LEN, Listener, Outcome, Policy};
use sha2::Sha256;
use vhost_ila_fuzz::{LOCATOR, SIR};

const SECRET: [u8; 32] = [7; 32];
const UNIX: Duration = Duration::from_secs(1_800_000_000);
const SIGNED: usize = LEN - 32;

struct Ears {
    nve: Arc<Nve>,
    listener: Listener,
    policy: Policy,
    now: Duration,
    /// Addresses that live here.
    own: usize,
}

/// Addresses that live here, by name of their attachment.
fn own(nve: &Nve) -> usize {
    nve.mappings().iter().filter(|line| line.attachment.is_some()).count()
}

static EARS: LazyLock<Mutex<Ears>> = LazyLock::new(|| {
    let nve = vhost_ila_fuzz::nve(ChecksumMode::Neutral);
    let listener = Listener::new(Arc::clone(&nve), UNIX - Duration::from_secs(60));
    let keys = [1, 2].map(|id| Key::new(KeyId(id), &SECRET).expect("long enough"));
    let policy = Policy {
        keys: Keys::new(keys.into()),
        accept: true,
        lifetime: Duration::from_secs(5),
        ..Policy::default()
    };
    let own = own(&nve);
    Mutex::new(Ears { nve, listener, policy, now: Duration::ZERO, own })
});

fn mac(bytes: &[u8]) -> Vec<u8> {
    let keyed = Hmac::<Sha256>::new_from_slice(&SECRET).expect("any length");
    keyed.chain_update(bytes).finalize().into_bytes().to_vec()
}

fn upper(prefix: &str) -> u64 {
    prefix.parse::<Locator>().expect("a /64").upper()
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, datagram)) = data.split_first() else { return };
    let mut datagram = datagram.to_vec();
    if flags & 1 != 0 && datagram.len() == LEN {
        let mac = mac(&datagram[..SIGNED]);
        datagram[SIGNED..].copy_from_slice(&mac);
    }
    let mut ears = EARS.lock().unwrap_or_else(PoisonError::into_inner);
    let ears = &mut *ears;
    // Fast enough that the allowances last, and that what is learned ends.
    ears.now += Duration::from_millis(1);
    let at = At { now: ears.now, unix: UNIX };
    let sender =
        datagram.get(8..16).and_then(|word| word.first_chunk()).map_or(0, |word| u64::from_be_bytes(*word));
    let from = Ipv6Addr::from_bits(u128::from(sender) << 64 | 1);
    let outcome = ears.listener.hear(&ears.policy, at, from, &datagram);
    if matches!(outcome, Outcome::Learned | Outcome::Moved | Outcome::Renewed) {
        assert!(
            datagram.len() == LEN && mac(&datagram[..SIGNED]) == datagram[SIGNED..],
            "learned without its MAC"
        );
        let lines = ears.nve.mappings();
        let learned = lines.iter().filter(|line| line.source == Source::Redirect);
        // Only the host that a guest has moved to takes it from its attachment.
        let is_the_holders_word = datagram[8..16] == datagram[40..48];
        let left = own(&ears.nve);
        assert!(left == ears.own || (left + 1 == ears.own && is_the_holders_word), "{outcome:?}");
        ears.own = left;
        let (here, sir) = (upper(LOCATOR), upper(SIR));
        for line in learned {
            assert!(line.attachment.is_none() && line.until.is_some(), "{line:?}");
            assert!(![here, sir].contains(&line.locator.upper()), "{line:?}");
        }
    }
    ears.nve.sweep(ears.now);
});
