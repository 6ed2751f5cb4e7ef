//! The way of the last packet, gone once more: two peers seldom say one thing only.
//!
//! ```text
//!   shortcut (neighbour.rs)   admitted ──> looked up ──> receiver  ──> rewritten        twice the same two ──> kept
//!   here                      the same two, nothing changed since  ──> rewritten
//! ```
//!
//! What must stay true: what is kept of a way (who sends, with which MAC, to whom, where that lives) was concluded by the shortcut, and holds for
//! frames with the same Ethernet header and the same addresses, as long as neither the world nor the mapping table has changed
//! ([`Trace::era`]). Whatever differs from packet to packet is judged anew, by the shortcut's own functions. So what is decided here, the
//! shortcut would decide, byte for byte (a property test holds it); whatever else is left to it.

use core::net::Ipv6Addr;

use ipv4_xlat::v4_to_v6::Between;

use super::flow::flow_of_plain;
use super::neighbour::{self, IPV4_LEN, Onward4};
use super::question::{DHCP4, DHCP6, Form};
use super::rewrite4::InNetwork;
use super::{Fate, Nve, Origin, PortId, Question, Rewritten, Scratch};
use crate::addr::Key;
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::{HEADER_LEN as IPV6_LEN, Ipv6};
use crate::packet::{ETHERNET_LEN, Frame, HEAD_LEN, Offload, protocol};
use crate::policy::{NetworkId, World};

/// Behind an Ethernet header, both addresses of an IP header.
const ADDRESSES4: usize = ETHERNET_LEN + 12;
const ADDRESSES6: usize = ETHERNET_LEN + 8;
/// The same of a transport header.
const TRANSPORT4: usize = ETHERNET_LEN + IPV4_LEN;
const TRANSPORT6: usize = ETHERNET_LEN + IPV6_LEN;

type Ethernet = [u8; ETHERNET_LEN];

/// A way that was gone: from one port, to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    /// When it was kept: how often worker, world and table had changed. Zero: never.
    era: u64,
    /// Whom the last packet went to that took the shortcut.
    last: Option<Key>,
    frames: Frames,
    way: Way,
}

/// The frames that go a way: what they have in common.
#[derive(Clone, Copy, Debug, Default)]
struct Frames {
    ethernet: Ethernet,
    between: Addresses,
}

/// Of an IP header, source first.
#[derive(Clone, Copy, Debug)]
enum Addresses {
    V4([u8; 8]),
    V6([u8; 32]),
}

/// Where it leads.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// To the attachment of this port, behind this Ethernet header.
    Local(PortId, Ethernet),
    /// To the fabric: from this network, between these addresses.
    Uplink4(NetworkId, Between),
    /// To the fabric: to this address.
    Uplink6(Ipv6Addr),
}

impl Default for Addresses {
    fn default() -> Self {
        Self::V4([0; 8])
    }
}

impl Default for Way {
    fn default() -> Self {
        Self::Uplink6(Ipv6Addr::UNSPECIFIED)
    }
}

impl Frames {
    /// Bytes of the packet in a frame of `len` bytes that begins with `head`, if it is one of these and plain.
    #[inline(always)]
    fn packet(&self, head: &[u8; HEAD_LEN], len: usize, offload: &Offload) -> Option<usize> {
        if *head.first_chunk::<ETHERNET_LEN>()? != self.ethernet {
            return None;
        }
        let room = len.saturating_sub(ETHERNET_LEN);
        // What is behind the end of a short frame is of another one, and nobody asks for it: lengths are looked at first.
        let word = |at: usize| head.get(at..)?.first_chunk::<2>().copied();
        match &self.between {
            Addresses::V4(between) => {
                if head.get(ADDRESSES4..)?.first_chunk()? != between {
                    return None;
                }
                let header = head.get(ETHERNET_LEN..)?.first_chunk::<IPV4_LEN>()?;
                let total = neighbour::plain4(header, room, offload, |at| word(TRANSPORT4 + at))?;
                let rogue = header[9] == protocol::UDP && word(TRANSPORT4 + 2)? == DHCP4;
                (!rogue).then_some(total)
            }
            Addresses::V6(between) => {
                if head.get(ADDRESSES6..)?.first_chunk()? != between {
                    return None;
                }
                let header = head.get(ETHERNET_LEN..)?.first_chunk::<IPV6_LEN>()?;
                let total = neighbour::plain6(header, room, offload)?;
                let rogue = header[6] == protocol::UDP && word(TRANSPORT6 + 2)? == DHCP6;
                (!rogue).then_some(total)
            }
        }
    }
}

/// The kept way from a port to an attachment of this host, for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    frames: Frames,
    to: PortId,
    ethernet: Ethernet,
    mtu: u16,
}

impl Track {
    /// The port that it leads to, which takes frames with nothing left to finish.
    #[inline]
    #[must_use]
    pub fn to(&self) -> PortId {
        self.to
    }

    /// What tells the flows of frames apart that go this way: those for which it is the same have the same ([`super::flow_of_plain`]).
    #[inline]
    #[must_use]
    pub fn conversation(&self, head: &[u8; HEAD_LEN]) -> u64 {
        let (protocol, ports) = match self.frames.between {
            Addresses::V4(_) => (ETHERNET_LEN + 9, TRANSPORT4),
            Addresses::V6(_) => (ETHERNET_LEN + 6, TRANSPORT6),
        };
        let ports = head
            .get(ports..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |ports| u32::from_ne_bytes(*ports));
        u64::from(head[protocol]) << 32 | u64::from(ports)
    }

    /// [`super::flow_of_plain`] of a frame that goes this way and begins so, rewritten or not.
    #[must_use]
    pub fn flow(&self, head: &[u8; HEAD_LEN]) -> u32 {
        flow_of_plain(Origin::Port(self.to), &Frame::whole(head))
    }

    /// Rewrites a frame of `len` bytes that begins with `head` where it is, if it goes this way; how many bytes of it go on. If it does not,
    /// nothing is written.
    #[inline(always)]
    pub(crate) fn go(
        &self,
        identification: &mut u16,
        head: &mut [u8; HEAD_LEN],
        (len, offload): (usize, &Offload),
    ) -> Option<usize> {
        let total = self.frames.packet(head, len, offload)?;
        match self.frames.between {
            Addresses::V4(_) => {
                if !neighbour::fits4(self.mtu, total) {
                    return None;
                }
                let header = head.get_mut(ETHERNET_LEN..)?.first_chunk_mut()?;
                Onward4::of(identification, header, total).write(header);
            }
            Addresses::V6(_) => {
                if total > usize::from(self.mtu) {
                    return None;
                }
            }
        }
        *head.first_chunk_mut()? = self.ethernet;
        Some(ETHERNET_LEN + total)
    }
}

impl Trace {
    /// The shortcut took a frame of `port` to `fate`. The second time in a row that it was to the same peer, the way is kept.
    #[inline(always)]
    pub(crate) fn note(
        &mut self,
        (era, world): (u64, &World),
        question: &Question,
        frame: &Frame<'_>,
        (scratch, fate): (&Scratch, &Fate),
    ) {
        if self.last == question.key {
            self.keep((era, world), question, frame, (scratch, fate));
        }
        self.last = question.key;
    }

    #[inline(never)]
    fn keep(
        &mut self,
        (era, world): (u64, &World),
        question: &Question,
        frame: &Frame<'_>,
        (scratch, fate): (&Scratch, &Fate),
    ) {
        self.era = 0;
        if let Some((frames, way)) = gone(world, question, frame, (scratch, fate)) {
            *self = Self { era, last: self.last, frames, way };
        }
    }

    /// This way, if it leads to an attachment that takes a packet with `offload`.
    #[inline(always)]
    pub(crate) fn track(&self, nve: &Nve, (era, world): (u64, &World), offload: &Offload) -> Option<Track> {
        let Way::Local(to, ethernet) = self.way else { return None };
        if self.era != era || !nve.plainly_takes(to, offload) {
            return None;
        }
        Some(Track { frames: self.frames, to, ethernet, mtu: world.uplink_mtu })
    }

    /// Decides a frame of `len` bytes that begins with `head`, from the port that this way begins at, if it goes this way. What goes to an
    /// attachment is rewritten where it is: its fate has no head in the scratch buffer, and all of the frame for its tail.
    #[inline(always)]
    pub(crate) fn retrace(
        &self,
        nve: &Nve,
        (era, world, identification): (u64, &World, &mut u16),
        head: &mut [u8; HEAD_LEN],
        (len, offload): (usize, Offload),
        (scratch, fate): (&mut Scratch, &mut Fate),
    ) -> Option<()> {
        if self.era != era || offload.gso.is_some() {
            return None;
        }
        if let Way::Local(to, _) = self.way {
            let len = self.track(nve, (era, world), &offload)?.go(identification, head, (len, &offload))?;
            *fate = Fate::Local(to, Rewritten { head: 0..0, tail: 0..len, offload, more: false });
            return Some(());
        }
        self.frames.packet(head, len, &offload)?;
        let frame = Frame { head: head.get(..len.min(HEAD_LEN))?, len, offload };
        *fate = match &self.way {
            Way::Uplink4(network, between) => {
                let network = world.network(*network)?;
                neighbour::ipv4_to_the_fabric((world, network), between, &frame, scratch)?
            }
            Way::Uplink6(to) => {
                let header = Ipv6::read(&frame, ETHERNET_LEN).ok()?;
                neighbour::ipv6_to_the_fabric(world, header, *to, &frame, scratch)?
            }
            Way::Local(..) => return None,
        };
        Some(())
    }
}

/// The way that the shortcut took with `frame`.
fn gone(
    world: &World,
    question: &Question,
    frame: &Frame<'_>,
    (scratch, fate): (&Scratch, &Fate),
) -> Option<(Frames, Way)> {
    let ethernet = *frame.head.first_chunk::<ETHERNET_LEN>()?;
    let between = match question.form {
        Form::Peer4 => Addresses::V4(*frame.head.get(ADDRESSES4..)?.first_chunk()?),
        Form::Peer6 => Addresses::V6(*frame.head.get(ADDRESSES6..)?.first_chunk()?),
        _ => return None,
    };
    let destination = || scratch.head.get(24..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
    let way = match fate {
        Fate::Local(port, _) => Way::Local(*port, *scratch.head.first_chunk()?),
        Fate::Uplink(_) if question.form == Form::Peer4 => {
            let Origin::Port(port) = question.origin else { return None };
            let id = world.attachment(port)?.network;
            let header = Ipv4::read(frame, ETHERNET_LEN).ok()?;
            let map = InNetwork::new(world.network(id)?, None);
            let between = Between::of(header.source(), header.destination(), &map)?;
            Way::Uplink4(id, between.sent_to(destination()?))
        }
        Fate::Uplink(_) => Way::Uplink6(destination()?),
        _ => return None,
    };
    Some((Frames { ethernet, between }, way))
}
