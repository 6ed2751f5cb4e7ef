//! Hosts of the fabric that say and expect something else than the draft of checksums: those of the Linux kernel (docs/linux-ila.md).
//!
//! ```text
//!   neutral           L:I, C = 1                    as every host of ours
//!   unmodified        L:I, C = 0                    the same, the other mode
//!   neutral-map-auto  L:I, C = 0, low word adjusted
//!   adj-transport     L:I, C = 0, the transport's checksum changed
//! ```
//!
//! What must stay true: a mode is the operator's word about one locator; nothing in a packet tells it, so nothing else is treated so.

use ipv4_xlat::checksum::{Delta, Sum};

use super::World;
use crate::addr::{ChecksumMode, Domain, IlaAddress, Key, Locator, Neutral, PeerChecksum};
use crate::setup::Setup;

/// The peers of a setup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    /// By locator.
    peers: Box<[(Locator, PeerChecksum)]>,
    /// Some of them are [`Twist`]ed.
    twisted: bool,
}

/// What becomes of a packet besides, where its destination has C = 0, on its way to such a peer or behind the way from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Twist {
    /// The low word of the identifier is adjusted, or was.
    LowWord(Neutral),
    /// The transport's checksum changes so.
    Transport(Delta),
}

impl Peers {
    pub(crate) fn build(setup: &Setup) -> Self {
        let mut peers: Vec<_> = setup.peers.iter().map(|peer| (peer.locator, peer.checksum)).collect();
        peers.sort_unstable_by_key(|(locator, _)| *locator);
        let twisted = peers.iter().any(|(_, checksum)| is_twisted(*checksum));
        Self { peers: peers.into(), twisted }
    }

    /// What the operator says of the host at `locator`.
    pub(crate) fn checksum(&self, locator: Locator) -> Option<PeerChecksum> {
        let at = self.peers.binary_search_by_key(&locator, |(locator, _)| *locator).ok()?;
        self.peers.get(at).map(|(_, checksum)| *checksum)
    }
}

/// Whether the draft does not know it.
pub(crate) const fn is_twisted(checksum: PeerChecksum) -> bool {
    matches!(checksum, PeerChecksum::NeutralAuto | PeerChecksum::AdjTransport)
}

impl World {
    /// Whether packets to tasks at `locator` go with C = 1, where their identifiers have such a form.
    pub(crate) fn adjusts_towards(&self, locator: Locator) -> bool {
        match self.peers.checksum(locator) {
            None => self.checksum == ChecksumMode::Neutral,
            Some(checksum) => checksum == PeerChecksum::Neutral,
        }
    }
    /// Whether any host at all is spoken to in a way of its own.
    #[inline]
    pub(crate) fn has_twisted_peers(&self) -> bool {
        self.peers.twisted
    }
    /// What is done to packets to the host at `locator`, which is in `domain`.
    #[cold]
    pub(crate) fn twist_to(&self, locator: Locator, domain: &Domain) -> Option<Twist> {
        match self.peers.checksum(locator)? {
            PeerChecksum::Neutral | PeerChecksum::Unmodified => None,
            PeerChecksum::NeutralAuto => Some(Twist::LowWord(Neutral::without_c(locator, domain.sir()))),
            PeerChecksum::AdjTransport => {
                // From the locator to the SIR prefix, although the address changes the other way: the kernel's sign since 4.8, when
                // neutral-map was put right (`get_csum_diff` serves both). So no such checksum verifies on the wire, and only
                // the same again, the other way, undoes it.
                Some(Twist::Transport(Delta::between(sum(locator.upper()), sum(domain.sir().upper()))))
            }
        }
    }
    /// Where packets to `key` at `locator` go that have C = 0.
    pub(crate) fn unadjusted(&self, locator: Locator, key: Key) -> IlaAddress {
        let twist = self.domain(key.domain()).and_then(|domain| self.twist_to(locator, domain));
        let twisted = match twist {
            Some(Twist::LowWord(neutral)) if key.type_number() == 1 => {
                locator.neutral_without_c(key.identifier(), neutral)
            }
            _ => None,
        };
        twisted.unwrap_or(locator.unmodified(key.identifier()))
    }
    /// What packets from the host at `locator` to ours in `domain` need to be as their sender made them.
    #[cold]
    pub(crate) fn twist_from(&self, locator: Locator, domain: &Domain) -> Option<Twist> {
        match self.peers.checksum(locator)? {
            PeerChecksum::Neutral | PeerChecksum::Unmodified => None,
            PeerChecksum::NeutralAuto => {
                Some(Twist::LowWord(Neutral::without_c(domain.locator(), domain.sir())))
            }
            PeerChecksum::AdjTransport => Some(Twist::Transport(Delta::between(
                sum(domain.sir().upper()),
                sum(domain.locator().upper()),
            ))),
        }
    }
}

/// Of 64 bits of an address.
const fn sum(upper: u64) -> Sum {
    Sum::ZERO.dword((upper >> 32) as u32).dword(upper as u32)
}
