//! The Ethernet link to the fabric, where the uplink is one (docs/decisions/0020-vhost-user-uplink.md): our station on it, and one
//! neighbour, the next hop, to which everything goes (RFC 4861, the host's part).
//!
//! What must stay true:
//!
//! * Frames to other stations never reach the walk, and neighbour discovery never does: it ends here.
//! * A MAC is believed of the next hop alone, and only by a message that came through no router.
//! * Nothing here allocates or waits; time is an argument.
//!
//! ```text
//!   Down ──up──> Asking ──advertised──> Known ──30 s──> Probing ──advertised──> Known
//!                  ^  a solicitation a second   └───────── three unanswered ──────> Asking
//! ```

use core::net::Ipv6Addr;
use core::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use crate::DropReason;
use crate::addr::Locator;
use crate::packet::ETHERNET_LEN;

#[cfg(test)]
mod tests;

/// Bytes of the longest frame that is written here: neighbour discovery with one link-layer address.
pub const ANSWER_LEN: usize = ETHERNET_LEN + 40 + 24 + 8;

/// RFC 4861, section 10: RETRANS_TIMER, REACHABLE_TIME, DELAY_FIRST_PROBE_TIME, MAX_UNICAST_SOLICIT.
const RETRANS: Duration = Duration::from_secs(1);
const REACHABLE: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_secs(5);
const PROBES: u8 = 3;

/// Every neighbour discovery message has it (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Who on the link takes what goes to the fabric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// The station with this MAC.
    Station(EthernetAddress),
    /// The router with this address, whose MAC is asked for.
    Router(Ipv6Addr),
}

/// What a frame from the link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// An IPv6 packet to our station, behind the Ethernet header: for the walk.
    Packet,
    /// Neighbour discovery, or what pretends to be: for [`Link::hear`].
    Discovery,
    /// To be dropped.
    Refused(DropReason),
}

/// How well the next hop's MAC is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nobody is attached to the link.
    Down { known: bool },
    /// It was configured.
    Fixed,
    /// It is not known, and asked for again at `due`.
    Asking { due: Duration },
    /// It is known, and taken to be so until `probe`.
    Known { probe: Duration },
    /// It is used, and doubted: asked of itself again at `due`, so many times more.
    Probing { due: Duration, left: u8 },
}

/// Our station.
#[derive(Clone, Debug)]
pub struct Link {
    mac: EthernetAddress,
    link_local: Ipv6Addr,
    /// One in each SIR domain.
    locators: Box<[Locator]>,
    next_hop: NextHop,
    state: State,
    /// What stands before every packet: the next hop's MAC, ours, IPv6.
    header: [u8; ETHERNET_LEN],
}

/// The MAC of a host that was given none: locally administered, and of the locator's last 40 bits, in which hosts of one fabric differ.
#[must_use]
pub fn default_mac(locator: Locator) -> EthernetAddress {
    let [_, _, _, rest @ ..] = locator.upper().to_be_bytes();
    let [a, b, c, d, e] = rest;
    EthernetAddress([0x02, a, b, c, d, e])
}

/// The link-local address of the station with `mac` (RFC 4291, appendix A).
#[must_use]
pub fn link_local(mac: EthernetAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let words = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    let [w, x, y, z] = words;
    Ipv6Addr::new(0xfe80, 0, 0, 0, w, x, y, z)
}

/// RFC 4291, 2.7.1, and its MAC (RFC 2464, section 7).
fn solicited_node(target: Ipv6Addr) -> (Ipv6Addr, EthernetAddress) {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    (group, EthernetAddress([0x33, 0x33, 0xff, a, b, c]))
}

impl Link {
    /// A station of the host that has `locators`, to which nobody is attached yet.
    #[must_use]
    pub fn new(mac: EthernetAddress, locators: impl IntoIterator<Item = Locator>, next_hop: NextHop) -> Self {
        let mut header = [0; ETHERNET_LEN];
        header[6..12].copy_from_slice(mac.as_bytes());
        header[12..].copy_from_slice(&[0x86, 0xdd]);
        let mut link = Self {
            mac,
            link_local: link_local(mac),
            locators: locators.into_iter().collect(),
            next_hop,
            state: State::Down { known: false },
            header,
        };
        if let NextHop::Station(mac) = next_hop {
            link.header[..6].copy_from_slice(mac.as_bytes());
            link.state = State::Fixed;
        }
        link
    }

    /// What stands before a packet to the next hop; `None` while its MAC is not known.
    #[inline]
    #[must_use]
    pub fn header(&self) -> Option<&[u8; ETHERNET_LEN]> {
        match self.state {
            State::Fixed | State::Known { .. } | State::Probing { .. } => Some(&self.header),
            State::Down { .. } | State::Asking { .. } => None,
        }
    }

    /// Somebody is attached to the link from now on. A MAC that was known before is used, and asked about at once.
    pub fn up(&mut self, now: Duration) {
        self.state = match self.state {
            State::Down { known: true } => State::Probing { due: now, left: PROBES },
            State::Down { known: false } => State::Asking { due: now },
            state => state,
        };
    }

    /// Nobody is attached to the link any more.
    pub fn down(&mut self) {
        self.state = match self.state {
            State::Known { .. } | State::Probing { .. } => State::Down { known: true },
            State::Asking { .. } => State::Down { known: false },
            state => state,
        };
    }

    /// What the frame is whose first bytes these are: 55 tell, if it has as many.
    #[inline]
    #[must_use]
    pub fn take(&self, head: &[u8]) -> Taken {
        if let Some(h) = head.first_chunk::<{ ETHERNET_LEN + 40 }>()
            && h[..6] == self.header[6..12]
            && h[12..14] == self.header[12..]
            // Neither link-local nor a group.
            && h[38] < 0xfe
            && !(h[20] == 58 && h[21] == HOP_LIMIT)
        {
            return Taken::Packet;
        }
        self.unusual(head)
    }

    #[cold]
    fn unusual(&self, head: &[u8]) -> Taken {
        let Ok(frame) = EthernetFrame::new_checked(head) else {
            return Taken::Refused(DropReason::Malformed);
        };
        let (to, ours) = (frame.dst_addr(), frame.dst_addr() == self.mac);
        if !ours && !matches!(to.0, [0x33, 0x33, ..]) {
            return Taken::Refused(DropReason::ForeignMac);
        }
        if frame.ethertype() != EthernetProtocol::Ipv6 {
            return Taken::Refused(DropReason::EtherType);
        }
        let Some((header, payload)) = frame.payload().split_first_chunk::<40>() else {
            return Taken::Refused(DropReason::Malformed);
        };
        match payload.first() {
            Some(133..=137) if header[6] == 58 => Taken::Discovery,
            _ if ours => Taken::Packet,
            _ => Taken::Refused(DropReason::ForeignMac),
        }
    }

    /// Takes note of neighbour discovery in `frame`, all of it; an answer is written to `out`, so many bytes of an Ethernet frame.
    ///
    /// # Errors
    /// Nothing came of it; why.
    #[cold]
    pub fn hear(&mut self, now: Duration, frame: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        let frame = EthernetFrame::new_checked(frame).map_err(|_| DropReason::Malformed)?;
        let ip = Ipv6Packet::new_checked(frame.payload()).map_err(|_| DropReason::Malformed)?;
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        if ip.hop_limit() != HOP_LIMIT {
            return Err(DropReason::NdHopLimit);
        }
        let message = Icmpv6Packet::new_checked(ip.payload()).map_err(|_| DropReason::Malformed)?;
        if !message.verify_checksum(&source, &destination) {
            return Err(DropReason::BadChecksum);
        }
        let message = NdiscRepr::parse(&message).map_err(|_| DropReason::Malformed)?;
        match message {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                let asker = lladdr.map(station).transpose()?.unwrap_or(frame.src_addr());
                if source.is_multicast() || asker.is_multicast() {
                    return Err(DropReason::Malformed);
                }
                if NextHop::Router(source) == self.next_hop && lladdr.is_some() {
                    self.learn(asker, now + DELAY);
                }
                self.answer(target_addr, (source, asker), out).map(Some)
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                if NextHop::Router(target_addr) != self.next_hop {
                    return Err(DropReason::NdUnanswered);
                }
                self.advertised(now, flags, lladdr.map(station).transpose()?)
            }
            _ => Err(DropReason::NdUnanswered),
        }
    }

    /// The next hop says which MAC it has.
    fn advertised(
        &mut self,
        now: Duration,
        flags: NdiscNeighborFlags,
        mac: Option<EthernetAddress>,
    ) -> Result<Option<usize>, DropReason> {
        let known = self.header().and_then(|header| header.first_chunk().copied().map(EthernetAddress));
        let mac = mac.or(known).ok_or(DropReason::NdUnanswered)?;
        // RFC 4861, 7.2.5: another than is known, without saying that it is to be believed instead.
        if known.is_some_and(|known| known != mac) && !flags.contains(NdiscNeighborFlags::OVERRIDE) {
            return Err(DropReason::NdUnanswered);
        }
        let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
        self.learn(mac, now + if solicited { REACHABLE } else { DELAY });
        Ok(None)
    }

    fn learn(&mut self, mac: EthernetAddress, probe: Duration) {
        if !matches!(self.state, State::Fixed | State::Down { .. }) {
            self.header[..6].copy_from_slice(mac.as_bytes());
            self.state = State::Known { probe };
        }
    }

    /// Answers for our link-local address and for the locators, whoever asks. Not for SIR prefixes and networks' /96s: those are every
    /// host's, and whoever routes them here does so by an address that is ours alone.
    fn answer(
        &self,
        target: Ipv6Addr,
        (asker, mac): (Ipv6Addr, EthernetAddress),
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let upper = (target.to_bits() >> 64) as u64;
        if target != self.link_local && self.locators.iter().all(|locator| locator.upper() != upper) {
            return Err(DropReason::NdUnanswered);
        }
        let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
        // RFC 4861, 7.2.4: to all nodes where the asker has no address yet.
        let (to, mac, flags) = if asker.is_unspecified() {
            (ALL_NODES, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), flags)
        } else {
            (asker, mac, flags | NdiscNeighborFlags::SOLICITED)
        };
        let lladdr = Some(self.mac.into());
        let message = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr };
        self.emit(mac, (target, to), message, out).ok_or(DropReason::GatewayNoRoom)
    }

    /// What there is to ask at `now`, an Ethernet frame of so many bytes in `out`.
    #[inline]
    pub fn tick(&mut self, now: Duration, out: &mut [u8]) -> Option<usize> {
        if self.until_tick(now)?.is_zero() { self.ask(now, out) } else { None }
    }

    /// How long from `now` until [`Link::tick`] may have something; `None`: until something else happens.
    #[inline]
    #[must_use]
    pub fn until_tick(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Down { .. } | State::Fixed => None,
            State::Asking { due } | State::Known { probe: due } | State::Probing { due, .. } => {
                Some(due.saturating_sub(now))
            }
        }
    }

    #[cold]
    fn ask(&mut self, now: Duration, out: &mut [u8]) -> Option<usize> {
        let NextHop::Router(target) = self.next_hop else { return None };
        let due = now + RETRANS;
        self.state = match self.state {
            State::Known { .. } => State::Probing { due, left: PROBES - 1 },
            State::Probing { left: left @ 1.., .. } => State::Probing { due, left: left - 1 },
            _ => State::Asking { due },
        };
        let (to, mac) = match self.header() {
            Some(header) => (target, EthernetAddress(*header.first_chunk()?)),
            None => solicited_node(target),
        };
        let message = NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(self.mac.into()) };
        self.emit(mac, (self.link_local, to), message, out)
    }

    fn emit(
        &self,
        mac: EthernetAddress,
        (src_addr, dst_addr): (Ipv6Addr, Ipv6Addr),
        message: NdiscRepr<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        let message = Icmpv6Repr::Ndisc(message);
        let payload_len = message.buffer_len();
        let len = ETHERNET_LEN + 40 + payload_len;
        let (ethernet, rest) = out.get_mut(..len)?.split_at_mut_checked(ETHERNET_LEN)?;
        let (header, payload) = rest.split_at_mut_checked(40)?;
        let frame = EthernetRepr { src_addr: self.mac, dst_addr: mac, ethertype: EthernetProtocol::Ipv6 };
        frame.emit(&mut EthernetFrame::new_unchecked(ethernet));
        let next_header = IpProtocol::Icmpv6;
        let ip = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
        ip.emit(&mut Ipv6Packet::new_unchecked(header));
        let checksums = ChecksumCapabilities::default();
        message.emit(&src_addr, &dst_addr, &mut Icmpv6Packet::new_unchecked(payload), &checksums);
        Some(len)
    }
}

/// The MAC that an option names, which must be one station's.
fn station(named: RawHardwareAddress) -> Result<EthernetAddress, DropReason> {
    let mac = named.as_bytes().first_chunk().copied().map(EthernetAddress);
    mac.filter(|mac| mac.is_unicast() && mac.0 != [0; 6]).ok_or(DropReason::Malformed)
}
