//! The message: 112 bytes, fixed, network byte order (docs/redirect.md).
//!
//! ```text
//!    0 magic "ILAR" │  4 version 1 │  5 kind 1 │  6 key
//!    8 sender's locator            16 recipient's locator          the upper 64 bits of each
//!   24 SIR prefix                  32 identifier, C = 0
//!   40 new locator                 48 epoch
//!   56 sequence                    64 time, microseconds since 1970
//!   72 lifetime, seconds │ 76 zero
//!   80 HMAC-SHA-256 over bytes 0 to 79
//! ```
//!
//! What must stay true: sender, recipient and domain are under the MAC, so that no message means anything to another host.

use core::net::Ipv6Addr;
use core::time::Duration;

use super::key::{Key, KeyId, Keys, MAC_LEN};
use super::outcome::Outcome;
use crate::addr::{Identifier, Locator, SirPrefix};

/// Bytes of a message, all that its UDP datagram carries.
pub const LEN: usize = SIGNED + MAC_LEN;

/// Bytes under the MAC.
const SIGNED: usize = 80;
const MAGIC: [u8; 4] = *b"ILAR";
const VERSION: u8 = 1;
const REDIRECT: u8 = 1;

/// "`identifier` of the domain `sir` lives at `locator`."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Who says it.
    pub sender: Locator,
    /// Whom it is for.
    pub recipient: Locator,
    /// The domain.
    pub sir: SirPrefix,
    /// Who.
    pub identifier: Identifier,
    /// Where.
    pub locator: Locator,
    /// Of the mapping.
    pub epoch: u64,
    /// Higher than that of the sender's last message, also over its restarts.
    pub sequence: u64,
    /// When it was sent, since 1970, to the microsecond.
    pub time: Duration,
    /// How long it counts, to the second; not zero.
    pub lifetime: Duration,
}

impl Message {
    /// The message under `key`.
    pub fn seal(&self, key: &Key) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut writer = Writer { bytes: &mut bytes, at: 0 };
        writer.put(MAGIC);
        writer.put([VERSION, REDIRECT]);
        writer.put(key.id().0.to_be_bytes());
        let (sender, recipient) = (self.sender.upper(), self.recipient.upper());
        let words = [sender, recipient, self.sir.upper(), self.identifier.bits(), self.locator.upper()];
        words.into_iter().for_each(|word| writer.put(word.to_be_bytes()));
        let time = u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX);
        [self.epoch, self.sequence, time].into_iter().for_each(|word| writer.put(word.to_be_bytes()));
        let lifetime = u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX);
        writer.put(lifetime.to_be_bytes());
        let mac = key.sign(&bytes[..SIGNED]);
        bytes[SIGNED..].copy_from_slice(&mac);
        bytes
    }
}

struct Writer<'a> {
    bytes: &'a mut [u8; LEN],
    at: usize,
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&field);
        self.at += N;
    }
}

/// A datagram of the right length, version and kind; nothing else is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a>(&'a [u8; LEN]);

/// A message whose MAC is that of a key we have.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a>(&'a [u8; LEN]);

impl<'a> Sealed<'a> {
    /// Looks at what says what it is.
    ///
    /// # Errors
    /// [`Outcome::Malformed`], [`Outcome::OtherVersion`].
    pub fn read(datagram: &'a [u8]) -> Result<Self, Outcome> {
        let [magic @ .., version, kind] = datagram.first_chunk::<6>().ok_or(Outcome::Malformed)?;
        if *magic != MAGIC {
            return Err(Outcome::Malformed);
        }
        if (*version, *kind) != (VERSION, REDIRECT) {
            return Err(Outcome::OtherVersion);
        }
        datagram.try_into().map(Self).map_err(|_| Outcome::Malformed)
    }

    /// Verifies the MAC.
    ///
    /// # Errors
    /// [`Outcome::UnknownKey`], [`Outcome::BadMac`].
    pub fn open(self, keys: &Keys) -> Result<Opened<'a>, Outcome> {
        let id = KeyId(u16::from_be_bytes([self.0[6], self.0[7]]));
        let key = keys.get(id).ok_or(Outcome::UnknownKey)?;
        let (signed, mac) = self.0.split_at(SIGNED);
        if key.verify(signed, mac) { Ok(Opened(self.0)) } else { Err(Outcome::BadMac) }
    }
}

impl Opened<'_> {
    /// What it says.
    ///
    /// # Errors
    /// [`Outcome::Malformed`], [`Outcome::BadLocator`], [`Outcome::UnknownIdentifier`]: whoever has the key wrote what cannot be.
    pub fn message(&self) -> Result<Message, Outcome> {
        let word = |at: usize| {
            let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<8>());
            u64::from_be_bytes(bytes.copied().unwrap_or_default())
        };
        let prefix = |at: usize| Ipv6Addr::from_bits(u128::from(word(at)) << 64);
        let locator = |at: usize| Locator::new(prefix(at));
        let lifetime = word(72);
        if lifetime as u32 != 0 || lifetime == 0 {
            return Err(Outcome::Malformed);
        }
        Ok(Message {
            sender: locator(8).map_err(|_| Outcome::Malformed)?,
            recipient: locator(16).map_err(|_| Outcome::Malformed)?,
            sir: SirPrefix::new(prefix(24)).map_err(|_| Outcome::Malformed)?,
            identifier: Identifier::from_bits(word(32)).map_err(|_| Outcome::UnknownIdentifier)?,
            locator: locator(40).map_err(|_| Outcome::BadLocator)?,
            epoch: word(48),
            sequence: word(56),
            time: Duration::from_micros(word(64)),
            lifetime: Duration::from_secs(lifetime >> 32),
        })
    }
}
