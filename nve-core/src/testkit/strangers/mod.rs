//! Tenants of several virtual networks that try to be heard in each other's: a matrix of everybody against everybody.
//!
//! What must stay true:
//!
//! * Whatever a tenant says bears its [`Mark`], so that whoever hears it can judge without knowing what was tried.
//! * The control is in the same run: pairs of one network get honest packets, and each of them must arrive.
//! * Bytes are made from numbers by [`super::frames`]; nothing of `crate::addr` or of the data path is used to make one.
//!
//! ```text
//!   Neighbourhood ──> Strangers: pair after pair ──> Try {speaker, towards, way, bytes}
//!                        same network: honest            │
//!                        another: by_tenant.rs,          ├──> in_memory.rs: NVEs in this process, 10^6 tries in seconds
//!                                 by_fabric.rs           └──> tests/e2e: rings of a daemon
//! ```

mod by_fabric;
mod by_tenant;
mod in_memory;
mod wire;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

use super::dice::Dice;
use super::frames;
use crate::gateway::GATEWAY_MAC;

pub use in_memory::{InMemory, Tally};

/// A tenant: one NIC.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Of its attachment.
    pub name: String,
    /// Index of its network.
    pub network: usize,
    /// Index of its host.
    pub host: usize,
    /// Its card's; other networks may have the same.
    pub mac: EthernetAddress,
    /// Its IPv4 address; other networks have the same.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, in its network's /96.
    pub ipv6: Ipv6Addr,
}

/// Everybody, and the numbers that a hostile tenant is taken to know.
#[derive(Clone, Debug)]
pub struct Neighbourhood {
    /// The SIR prefix.
    pub sir: Ipv6Addr,
    /// Each host's locator prefix.
    pub locators: Vec<Ipv6Addr>,
    /// VNID and /96 of each network.
    pub networks: Vec<(u32, Ipv6Addr)>,
    /// Networks, hosts and tenants are called by their index.
    pub tenants: Vec<Tenant>,
}

/// Who said it, inside the bytes of what is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Index of the network.
    pub network: usize,
    /// Index of the tenant.
    pub tenant: usize,
    /// In an honest packet.
    pub honest: bool,
}

const MAGIC: &[u8; 6] = b"STRANG";

impl Mark {
    /// Bytes of a mark.
    pub const LEN: usize = 8;

    fn bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d, e, f] = *MAGIC;
        [a, b, c, d, e, f, self.network as u8, self.tenant as u8 | u8::from(self.honest) << 7]
    }

    /// The first mark in a frame or packet.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let found = bytes.windows(Self::LEN).find(|window| window.starts_with(MAGIC))?;
        let (network, tenant) = (usize::from(found[6]), usize::from(found[7] & 0x7f));
        Some(Self { network, tenant, honest: found[7] & 0x80 != 0 })
    }
}

/// How a try begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The speaker's own port: an Ethernet frame.
    Port,
    /// The link of the host of `towards`: an IPv6 packet.
    Fabric,
}

/// One thing said.
#[derive(Clone, Debug)]
pub struct Try {
    /// What it is.
    pub kind: &'static str,
    /// Index of the tenant that says it, or that the fabric says it for.
    pub speaker: usize,
    /// Index of the tenant it is for.
    pub towards: usize,
    /// Where it enters.
    pub way: Way,
    /// It must be delivered to `towards`, and to no other. Of all others: to nobody of another network.
    pub honest: bool,
    /// What enters there.
    pub bytes: Vec<u8>,
}

/// The source of tries; the same seed makes the same ones.
#[derive(Clone, Debug)]
pub struct Strangers {
    place: Neighbourhood,
    dice: Dice,
    made: usize,
}

impl Strangers {
    /// # Panics
    /// If there are fewer than two networks.
    pub fn new(place: Neighbourhood, seed: u64) -> Self {
        assert!(place.networks.len() > 1, "nobody is a stranger in one network");
        Self { place, dice: Dice::new(seed), made: 0 }
    }

    /// Who is in it.
    pub fn place(&self) -> &Neighbourhood {
        &self.place
    }

    /// The next try: pairs in turn, what is tried by chance.
    pub fn next_try(&mut self) -> Try {
        let count = self.place.tenants.len();
        let (speaker, towards) = (self.made / count % count, self.made % count);
        self.made += 1;
        let one_network = self.tenant(speaker).network == self.tenant(towards).network;
        if one_network && speaker != towards {
            return self.honest(speaker, towards);
        }
        // Whoever is paired with itself talks to nobody in particular.
        let forged = !one_network && self.dice.chance(400);
        let way = if forged { Way::Fabric } else { Way::Port };
        let (kind, bytes) = match way {
            Way::Port => self.by_tenant(speaker, towards),
            Way::Fabric => self.by_fabric(speaker, towards),
        };
        Try { kind, speaker, towards, way, honest: false, bytes }
    }

    fn honest(&mut self, speaker: usize, towards: usize) -> Try {
        let (from, to) = (self.tenant(speaker).clone(), self.tenant(towards).clone());
        let payload = self.payload(speaker, true);
        let (source, destination): (IpAddr, IpAddr) = match self.dice.chance(500) {
            true => (from.ipv4.into(), to.ipv4.into()),
            false => (from.ipv6.into(), to.ipv6.into()),
        };
        let packet = wire::plain(&mut self.dice, source, destination, &payload);
        let bytes = frames::ethernet(from.mac, GATEWAY_MAC, &packet);
        Try { kind: "honest", speaker, towards, way: Way::Port, honest: true, bytes }
    }

    fn tenant(&self, index: usize) -> &Tenant {
        &self.place.tenants[index]
    }

    /// The speaker's mark and a few bytes.
    fn payload(&mut self, speaker: usize, honest: bool) -> Vec<u8> {
        let mark = Mark { network: self.tenant(speaker).network, tenant: speaker, honest };
        let more = self.dice.roll() as usize % 24;
        [&mark.bytes()[..], &self.dice.bytes(more)].concat()
    }

    /// Another tenant of `of`'s network.
    fn mate(&mut self, of: usize) -> Tenant {
        let network = self.tenant(of).network;
        let mates: Vec<usize> = (0..self.place.tenants.len())
            .filter(|index| *index != of && self.tenant(*index).network == network)
            .collect();
        let chosen = mates.get(self.dice.roll() as usize % mates.len().max(1)).copied().unwrap_or(of);
        self.tenant(chosen).clone()
    }
}
