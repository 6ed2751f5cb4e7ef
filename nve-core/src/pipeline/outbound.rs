//! The sender's half of a way to the fabric: who sends, gone once more; whom to is looked up for each packet.
//!
//! ```text
//!   shortcut (neighbour.rs)   admitted ──> looked up ──> translated              twice the same sender ──> its half is kept
//!   here                      the same sender ──> ask ──> look ──> leave         rewritten where it is
//!
//!   what was copied:     room for what IPv6 adds │ Ethernet │ IPv4 │ transport ...
//!   what it becomes:     Ethernet of the link │      IPv6      │ transport ...
//! ```
//!
//! What must stay true: what is kept of a sender (its Ethernet header, its address, how that is called on the wire) was concluded by the
//! shortcut, and holds as long as the world has not changed: the mapping table has no say in it. Where a packet goes is looked up each time,
//! and what differs from packet to packet is judged by the translation itself. So what is decided here, the walk would decide, byte for
//! byte (a property test holds it); whatever else is left to it, as it was.

use core::net::Ipv4Addr;

use ipv4_xlat::Config;
use ipv4_xlat::v4_to_v6::{Between, Usual};

use super::question::DHCP4;
use super::rewrite4::InNetwork;
use super::rewrite6::on_the_wire;
use super::{PortId, deliver};
use crate::addr::{Identifier, Key, Keys, Vnid};
use crate::packet::ipv6::HEADER_LEN as IPV6_LEN;
use crate::packet::{ETHERNET_LEN, HEAD_LEN, protocol};
use crate::policy::{IPV6_MINIMUM, Peers4, World};
use crate::tables::{MappingTable, Place, Target};

/// Bytes of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Where the transport header is, in a frame.
const TRANSPORT: usize = ETHERNET_LEN + IPV4_LEN;

/// Bytes that are needed in front of a frame that leaves: what IPv6 adds to it.
pub const ROOM: usize = IPV6_LEN - IPV4_LEN;

/// A frame's first bytes, and the room in front of them.
pub type Roomy = [u8; ROOM + HEAD_LEN];

/// What is kept of a port.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Half {
    /// Who sent the last packet to the fabric that took the shortcut.
    last: [u8; 4],
    /// How often the world had changed when it was kept.
    changes: u64,
    kept: Option<Outbound>,
}

/// A port's half of the ways to the fabric, for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Outbound {
    ethernet: [u8; ETHERNET_LEN],
    source: [u8; 4],
    /// Whom its frames are for, and with which keys.
    peers: Peers4,
    keys: Keys,
    vnid: Vnid,
    /// From the source to whomever: both sums have the destination's own address in them, so it makes no difference to what it means.
    between: Between,
    config: Config,
}

/// A frame that may leave: where it goes is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    key: Key,
    /// Which bucket is looked at next.
    bucket: u32,
    target: Option<Target>,
    usual: Usual,
}

impl Half {
    /// The shortcut sent a frame with this head to the fabric. The second time in a row from the same address, this half is kept.
    #[inline(always)]
    pub(crate) fn note(&mut self, (changes, world): (u64, &World), port: PortId, head: &[u8]) {
        let Some(source) = head.get(ETHERNET_LEN + 12..).and_then(|rest| rest.first_chunk::<4>()) else {
            return;
        };
        let again = self.last == *source;
        self.last = *source;
        if again && !(self.changes == changes && self.kept.is_some_and(|kept| kept.source == *source)) {
            (self.changes, self.kept) = (changes, Outbound::of(world, port, head));
        }
    }

    /// What is kept, if it holds.
    #[inline]
    pub(crate) fn outbound(&self, changes: u64) -> Option<Outbound> {
        self.kept.filter(|_| self.changes == changes)
    }
}

impl Outbound {
    /// Of a frame that the shortcut sent to the fabric: its sender is admitted.
    #[inline(never)]
    fn of(world: &World, port: PortId, head: &[u8]) -> Option<Self> {
        let ethernet = *head.first_chunk()?;
        let source = *head.get(ETHERNET_LEN + 12..)?.first_chunk()?;
        let destination: [u8; 4] = *head.get(ETHERNET_LEN + 16..)?.first_chunk()?;
        let network = world.network(world.attachment(port)?.network)?;
        let map = InNetwork::new(network, None);
        let between = Between::of(Ipv4Addr::from(source), Ipv4Addr::from(destination), &map)?;
        let (peers, keys, vnid, config) =
            (network.peers4(), network.keys4, network.vnid, network.translation);
        Some(Self { ethernet, source, peers, keys, vnid, between, config })
    }

    /// A frame of `len` bytes that begins with `head`, with nothing left to finish, if it may leave by this half.
    #[inline(always)]
    pub(crate) fn ask(&self, table: &MappingTable, head: &[u8; HEAD_LEN], len: usize) -> Option<Asked> {
        let header = head.get(ETHERNET_LEN..)?.first_chunk::<IPV4_LEN>()?;
        if head.first_chunk() != Some(&self.ethernet) || header[12..16] != self.source {
            return None;
        }
        let usual = Usual::of(header, len.saturating_sub(ETHERNET_LEN), &self.config)?;
        // What is too small for any path's MTU to matter.
        if usual.total_len() + ROOM > usize::from(IPV6_MINIMUM) {
            return None;
        }
        let [.., a, b] = *head.get(TRANSPORT..)?.first_chunk::<4>()?;
        let checksum = head.get(TRANSPORT + usual.checksum_at()..)?.first_chunk::<2>()?;
        let is_udp = header[9] == protocol::UDP;
        // A server that the gateway alone may be; a checksum that is not there.
        if is_udp && ([a, b] == DHCP4 || *checksum == [0, 0]) {
            return None;
        }
        let destination = u32::from_be_bytes(*header.last_chunk()?);
        if !self.peers.have(destination) {
            return None;
        }
        let key = self.keys.of(destination);
        Some(Asked { key, bucket: table.bucket_of(key), target: None, usual })
    }

    /// Rewrites the frame where it is, whose `asked` this is: the IPv6 packet begins behind room for a link's header; how many bytes it
    /// has. `None`: it goes another way, and is as it was.
    #[inline(always)]
    pub(crate) fn leave(
        &self,
        (table, world): (&MappingTable, &World),
        asked: &Asked,
        bytes: &mut Roomy,
    ) -> Option<usize> {
        let target = asked.target.or_else(|| match table.look(asked.bucket, asked.key) {
            Place::Found(target) => Some(target),
            Place::Behind(_) | Place::Nowhere => table.get(asked.key),
        })?;
        let Target::Remote(locator, Some(neutral)) = target else { return None };
        let identifier = Identifier::ipv4(self.vnid, Ipv4Addr::from_bits(asked.key.low()));
        let wire = on_the_wire(world.locator(locator)?, identifier, Some(neutral));
        let between = self.between.sent_to(wire.ipv6());
        let usual = asked.usual;
        let field = bytes.get_mut(ROOM + TRANSPORT + usual.checksum_at()..)?.first_chunk_mut::<2>()?;
        *field = usual.checksum(&between, *field)?;
        let usual = usual.with_hop_limit(deliver::give_back_hop(world, usual.hop_limit()));
        usual.write_header(&between, bytes.get_mut(ETHERNET_LEN..)?.first_chunk_mut()?);
        Some(usual.total_len() + ROOM)
    }
}

impl Asked {
    /// Address of the table line that is looked at first, for a prefetch.
    #[inline]
    pub(crate) fn slot(&self, table: &MappingTable) -> usize {
        table.address_of(self.bucket)
    }

    /// Looks at that line, which has come. If it does not tell: address of the next one, for a prefetch.
    #[inline(always)]
    pub(crate) fn look(&mut self, table: &MappingTable) -> Option<usize> {
        match table.look(self.bucket, self.key) {
            Place::Found(target) => {
                self.target = Some(target);
                None
            }
            Place::Behind(bucket) => {
                self.bucket = bucket;
                Some(table.address_of(bucket))
            }
            Place::Nowhere => None,
        }
    }
}
