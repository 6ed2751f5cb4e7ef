//! The network between the hosts: links, routers in a row, routes; what it does to packets is asked for, and seeded.
//!
//! What must stay true: the fabric knows nothing of ILA. It routes by longest prefix, spends one hop per router, and speaks of
//! trouble in ICMPv6 only (RFC 4443), quoting what it got.
//!
//! ```text
//!   hv1 ──link hv1── router 1 ── ... ── router n ──link hv2── hv2         the same routers, in this order, between any two hosts
//! ```

use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use super::dice::Dice;
use super::dissect::{Dissected, protocol};
use super::frames::{self, Header};
use super::nic;
use crate::packet::Offload;

/// A host's place in a world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct HostId(pub(super) usize);

/// How much later than others a late packet arrives.
const LATE: Duration = Duration::from_micros(200);

/// One host's link.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bytes of the largest IPv6 packet.
    pub mtu: usize,
    /// One way.
    pub delay: Duration,
    /// Packets of 1000 that take 200 microseconds longer, by chance: others overtake them.
    pub late_per_mille: u16,
    /// Packets lost of 1000, by chance, in each direction.
    pub loss_per_mille: u16,
}

impl Default for Link {
    fn default() -> Self {
        Self { mtu: 1500, delay: Duration::from_micros(50), late_per_mille: 0, loss_per_mille: 0 }
    }
}

/// What a filter says about a packet on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Let it pass.
    Pass,
    /// Lose it.
    Lose,
}

/// Sees every packet at the first router; the first argument counts the packets so far.
pub type Filter = Box<dyn FnMut(usize, &Dissected<'_>) -> Verdict>;

/// A packet on its way between hosts.
#[derive(Clone, Debug)]
pub(super) struct Crossing {
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
}

/// Where a packet ended up.
#[derive(Clone, Debug)]
pub(super) enum Passage {
    /// At a host's card, so much later.
    Arrives(HostId, Duration, Crossing),
    /// Nowhere; why.
    Lost(&'static str),
}

pub(super) struct Fabric {
    pub(super) links: Vec<Link>,
    pub(super) routers: Vec<Ipv6Addr>,
    /// Upper bits, length, where to.
    routes: Vec<(Ipv6Addr, u8, HostId)>,
    pub(super) filter: Option<Filter>,
    seen: usize,
}

impl Fabric {
    pub(super) fn new(routers: usize) -> Self {
        let router = |n: usize| Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, n as u16 + 1);
        Self {
            links: Vec::new(),
            routers: (0..routers).map(router).collect(),
            routes: Vec::new(),
            filter: None,
            seen: 0,
        }
    }

    pub(super) fn attach(&mut self, link: Link) -> HostId {
        self.links.push(link);
        HostId(self.links.len() - 1)
    }
    /// Sends `prefix/len` to `host`, instead of wherever it went.
    pub(super) fn route(&mut self, prefix: Ipv6Addr, len: u8, host: HostId) {
        self.unroute(prefix, len);
        self.routes.push((prefix, len, host));
        self.routes.sort_by_key(|(_, len, _)| core::cmp::Reverse(*len));
    }
    pub(super) fn unroute(&mut self, prefix: Ipv6Addr, len: u8) {
        self.routes.retain(|(p, l, _)| (*p, *l) != (prefix, len));
    }
    fn lookup(&self, destination: IpAddr) -> Option<HostId> {
        let IpAddr::V6(destination) = destination else { return None };
        let matches = |(prefix, len, _): &&(Ipv6Addr, u8, HostId)| {
            let shift = 128 - u32::from(*len);
            (prefix.to_bits() ^ destination.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        };
        self.routes.iter().find(matches).map(|(_, _, host)| *host)
    }

    /// Carries one packet from `from`'s card to another's, and what routers say about it. The answer comes first.
    pub(super) fn carry(&mut self, dice: &mut Dice, from: HostId, crossing: Crossing) -> Vec<Passage> {
        let mut passages = Vec::new();
        let passage = match self.pass(dice, from, crossing) {
            Ok(passage) => passage,
            Err(trouble) => {
                let back = trouble.message().map(|message| self.deliver(dice, Duration::ZERO, message));
                passages.extend(back);
                Passage::Lost(trouble.what)
            }
        };
        passages.push(passage);
        passages
    }

    fn pass(&mut self, dice: &mut Dice, from: HostId, mut crossing: Crossing) -> Result<Passage, Trouble> {
        let link = self.links[from.0];
        if dice.chance(link.loss_per_mille) {
            return Ok(Passage::Lost("lost on the sender's link"));
        }
        if let (Some(filter), Some(view)) = (&mut self.filter, Dissected::of_ip(&crossing.bytes)) {
            let number = self.seen;
            self.seen += 1;
            if filter(number, &view) == Verdict::Lose {
                return Ok(Passage::Lost("lost by the filter"));
            }
        }
        let view = Dissected::of_ip(&crossing.bytes).ok_or(Trouble::silent("no IP packet"))?;
        let to = self.lookup(view.destination);
        // The last router is the one that knows the receiver's link. As Linux does, each complains of the packet as it got it.
        for (left, router) in (0..self.routers.len()).rev().zip(&self.routers) {
            if crossing.bytes[7] <= 1 {
                return Err(Trouble::new(*router, crossing.bytes, 3, 0, 0, "hop limit used up"));
            }
            if left == 0 {
                self.fits(*router, to, &crossing)?;
            }
            crossing.bytes[7] -= 1;
        }
        let to = to.ok_or(Trouble::silent("no route"))?;
        Ok(self.deliver_to(dice, to, link.delay, crossing))
    }

    /// Whether `router` can send it on to `to`.
    fn fits(&self, router: Ipv6Addr, to: Option<HostId>, crossing: &Crossing) -> Result<(), Trouble> {
        let about = || crossing.bytes.clone();
        let Some(to) = to else { return Err(Trouble::new(router, about(), 1, 0, 0, "no route")) };
        let mtu = self.links[to.0].mtu;
        if nic::largest_packet(&crossing.bytes, crossing.offload) > mtu {
            return Err(Trouble::new(router, about(), 2, 0, mtu as u32, "too big"));
        }
        Ok(())
    }

    /// From the routers to whom it is addressed to.
    fn deliver(&mut self, dice: &mut Dice, so_far: Duration, bytes: Vec<u8>) -> Passage {
        let destination = Dissected::of_ip(&bytes).map(|view| view.destination);
        match destination.and_then(|destination| self.lookup(destination)) {
            Some(to) => self.deliver_to(dice, to, so_far, Crossing { bytes, offload: Offload::NONE }),
            None => Passage::Lost("no route for an ICMPv6 error"),
        }
    }

    fn deliver_to(&mut self, dice: &mut Dice, to: HostId, so_far: Duration, crossing: Crossing) -> Passage {
        let link = self.links[to.0];
        if dice.chance(link.loss_per_mille) {
            return Passage::Lost("lost on the receiver's link");
        }
        let late = if dice.chance(link.late_per_mille) { LATE } else { Duration::ZERO };
        Passage::Arrives(to, so_far + link.delay + late, crossing)
    }
}

/// Why a router (or a host's kernel, which is one too) could not send a packet on.
pub(super) struct Trouble {
    router: Ipv6Addr,
    about: Vec<u8>,
    kind: u8,
    code: u8,
    word: u32,
    pub(super) what: &'static str,
}

impl Trouble {
    pub(super) fn new(
        router: Ipv6Addr,
        about: Vec<u8>,
        kind: u8,
        code: u8,
        word: u32,
        what: &'static str,
    ) -> Self {
        Self { router, about, kind, code, word, what }
    }

    /// Nobody says anything.
    fn silent(what: &'static str) -> Self {
        Self::new(Ipv6Addr::UNSPECIFIED, Vec::new(), 0, 0, 0, what)
    }

    /// The ICMPv6 error to send, unless one must not be (RFC 4443, 2.4 (e)).
    pub(super) fn message(&self) -> Option<Vec<u8>> {
        let view = Dissected::of_ip(&self.about)?;
        if view.icmp_error().is_some() || view.fragment_offset != 0 && self.kind != 2 {
            return None;
        }
        let quoted = self.about.len().min(1280 - 48);
        let mut transport = vec![self.kind, self.code, 0, 0];
        transport.extend(self.word.to_be_bytes());
        transport.extend(&self.about[..quoted]);
        Some(frames::ip(Header::default(), self.router.into(), view.source, protocol::ICMPV6, transport))
    }
}
