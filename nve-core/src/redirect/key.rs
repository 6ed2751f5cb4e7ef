//! Keys: secrets that hosts share, by number, so that one can take another's place while both are known.
//!
//! What must stay true: a secret has 32 bytes or more, is never printed, and is compared in constant time.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of an HMAC-SHA-256 (RFC 2104, RFC 6234).
pub(super) const MAC_LEN: usize = 32;

/// A key's number, the same on all hosts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(pub u16);

/// A secret is shorter than [`Key::SHORTEST`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the secret has {0} bytes; a key has 32 or more")]
pub struct KeyTooShort(pub usize);

/// A secret and its number.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    keyed: Hmac<Sha256>,
}

impl Key {
    /// Bytes of a secret at least: as many as the hash has (RFC 2104, section 3).
    pub const SHORTEST: usize = 32;

    /// The key of `secret`.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(id: KeyId, secret: &[u8]) -> Result<Self, KeyTooShort> {
        let too_short = KeyTooShort(secret.len());
        if secret.len() < Self::SHORTEST {
            return Err(too_short);
        }
        Ok(Self { id, keyed: Hmac::new_from_slice(secret).map_err(|_| too_short)? })
    }

    /// Its number.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> [u8; MAC_LEN] {
        self.keyed.clone().chain_update(bytes).finalize().into_bytes().into()
    }

    /// In constant time.
    pub(super) fn verify(&self, bytes: &[u8], mac: &[u8]) -> bool {
        self.keyed.clone().chain_update(bytes).verify_slice(mac).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Keys with different numbers: the first signs, each is believed.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// These keys; of two with one number the first counts.
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }
    /// What is signed with.
    pub fn first(&self) -> Option<&Key> {
        self.0.first()
    }
    /// The key of this number.
    pub fn get(&self, id: KeyId) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
    /// All numbers, in order.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.iter().map(Key::id)
    }
}
