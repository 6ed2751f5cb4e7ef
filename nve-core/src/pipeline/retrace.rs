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

use super::neighbour::{self, IPV4_LEN};
use super::question::{DHCP4, DHCP6, Form, refuse_server};
use super::rewrite4::InNetwork;
use super::{Fate, Nve, Origin, PortId, Question, Rewritten, Scratch};
use crate::addr::Key;
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::{HEADER_LEN as IPV6_LEN, Ipv6};
use crate::packet::{ETHERNET_LEN, Frame, IpVersion, Offload, Transport, protocol};
use crate::policy::{NetworkId, World};

/// Behind an Ethernet header, both addresses of an IP header.
const ADDRESSES4: usize = ETHERNET_LEN + 12;
const ADDRESSES6: usize = ETHERNET_LEN + 8;

/// The frames that go a way: what they begin with, and have in common.
type Ethernet = [u8; ETHERNET_LEN];

/// A way that was gone: from one port, to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    /// When it was kept: how often worker, world and table had changed. Zero: never.
    era: u64,
    /// Whom the last packet went to that took the shortcut.
    last: Option<Key>,
    ethernet: Ethernet,
    between: Addresses,
    way: Way,
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
        if let Some((ethernet, between, way)) = gone(world, question, frame, (scratch, fate)) {
            *self = Self { era, last: self.last, ethernet, between, way };
        }
    }

    /// Decides a frame of `len` bytes that begins with `head`, from the port that this way begins at, if it goes this way. What goes to an
    /// attachment is rewritten where it is: its fate has no head in the scratch buffer, and all of the frame for its tail.
    #[inline(always)]
    pub(crate) fn retrace(
        &self,
        nve: &Nve,
        (era, world, identification): (u64, &World, &mut u16),
        head: &mut [u8],
        (len, offload): (usize, Offload),
        (scratch, fate): (&mut Scratch, &mut Fate),
    ) -> Option<()> {
        let ethernet = head.first_chunk::<ETHERNET_LEN>()?;
        if self.era != era || *ethernet != self.ethernet || offload.gso.is_some() {
            return None;
        }
        let frame = Frame { head, len, offload };
        match &self.between {
            Addresses::V4(between) => {
                if frame.head.get(ADDRESSES4..)?.first_chunk()? != between {
                    return None;
                }
                let header = Ipv4::read(&frame, ETHERNET_LEN).ok()?;
                if header.protocol() == protocol::UDP {
                    refuse_server(&frame, ETHERNET_LEN + IPV4_LEN, DHCP4).ok()?;
                }
                if !neighbour::is_plain4(header, &frame) {
                    return None;
                }
                match &self.way {
                    Way::Local(port, ethernet) => {
                        if !nve.plainly_takes(*port, &offload) {
                            return None;
                        }
                        let (onward, total) = (
                            neighbour::Onward4::of(world, identification, header, &frame)?,
                            header.total_len(),
                        );
                        onward.write(head.get_mut(ETHERNET_LEN..)?.first_chunk_mut()?);
                        *head.first_chunk_mut()? = *ethernet;
                        *fate = whole(*port, ETHERNET_LEN + total, offload);
                    }
                    Way::Uplink4(network, between) => {
                        let network = world.network(*network)?;
                        *fate = neighbour::ipv4_to_the_fabric((world, network), between, &frame, scratch)?;
                    }
                    Way::Uplink6(_) => return None,
                }
            }
            Addresses::V6(between) => {
                if frame.head.get(ADDRESSES6..)?.first_chunk()? != between {
                    return None;
                }
                let header = Ipv6::read(&frame, ETHERNET_LEN).ok()?;
                let (protocol, total) = (header.next_header(), header.total_len());
                let shortest = match protocol {
                    protocol::UDP => {
                        refuse_server(&frame, ETHERNET_LEN + IPV6_LEN, DHCP6).ok()?;
                        8
                    }
                    protocol::TCP => 20,
                    _ => return None,
                };
                let len = total - IPV6_LEN;
                let transport =
                    Transport { version: IpVersion::V6, protocol, start: IPV6_LEN, len, fragment: false };
                if len < shortest
                    || !(offload.is_none() || offload.describes(&transport))
                    || header.hop_limit() == 0
                {
                    return None;
                }
                match &self.way {
                    Way::Local(port, ethernet) => {
                        if !nve.plainly_takes(*port, &offload) || total > usize::from(world.uplink_mtu) {
                            return None;
                        }
                        *head.first_chunk_mut()? = *ethernet;
                        *fate = whole(*port, ETHERNET_LEN + total, offload);
                    }
                    Way::Uplink6(to) => {
                        *fate = neighbour::ipv6_to_the_fabric(world, header, *to, &frame, scratch)?
                    }
                    Way::Uplink4(..) => return None,
                }
            }
        }
        Some(())
    }
}

/// A frame of `len` bytes that was rewritten where it is.
#[inline(always)]
fn whole(port: PortId, len: usize, offload: Offload) -> Fate {
    Fate::Local(port, Rewritten { head: 0..0, tail: 0..len, offload, more: false })
}

/// The way that the shortcut took with `frame`.
fn gone(
    world: &World,
    question: &Question,
    frame: &Frame<'_>,
    (scratch, fate): (&Scratch, &Fate),
) -> Option<(Ethernet, Addresses, Way)> {
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
    Some((ethernet, between, way))
}
