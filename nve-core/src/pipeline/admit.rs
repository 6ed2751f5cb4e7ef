//! Admission of what a tenant sends: the source MAC and address are the attachment's, or lent to it (docs/decisions/0013).
//!
//! ```text
//!   port ──> Sender (attachment, network) ──MAC──> Bearer ──address──> Admitted
//!                                                    └─ not its own ──> held as shared, or the longest prefix leads back to it
//! ```
//!
//! What must stay true: [`Admitted`] and [`AdmittedTask`] are only made here, and nothing goes on to anybody without one.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Deref;

use smoltcp::wire::EthernetAddress;

use super::walk::Walk;
use super::{Nve, Origin, Question};
use crate::DropReason;
use crate::addr::{Key, Vnet};
use crate::gateway::GATEWAY_LINK_LOCAL;
use crate::packet::Frame;
use crate::policy::{Attachment, Holder, Network};
use crate::setup::task_identifier;
use crate::tables::Target;

/// The attachment a frame comes from; nothing in the frame is checked yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'w> {
    pub(crate) attachment: &'w Attachment,
    pub(crate) network: &'w Network,
}

/// A sender whose frame bears one of its MACs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bearer<'w> {
    pub(crate) sender: Sender<'w>,
    /// Its own, or a virtual one that is listed.
    pub(crate) mac: &'w EthernetAddress,
}

/// Proof that a packet comes from an attachment under its MAC and one of its addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted<'w>(Sender<'w>);

impl<'w> Sender<'w> {
    /// Whoever is behind the question's port.
    #[inline]
    pub(crate) fn of(walk: &Walk<'w>, question: &Question) -> Result<Self, DropReason> {
        let Origin::Port(port) = question.origin else { return Err(DropReason::NoAttachment) };
        let attachment = walk.world.attachment(port).ok_or(DropReason::NoAttachment)?;
        let network = walk.world.network(attachment.network).ok_or(DropReason::NoAttachment)?;
        Ok(Self { attachment, network })
    }

    /// Checks the source MAC.
    #[inline]
    pub(crate) fn bearing(self, frame: &Frame<'_>) -> Result<Bearer<'w>, DropReason> {
        match frame.head.get(6..12) {
            Some(mac) if mac == self.attachment.mac.as_bytes() => {
                Ok(Bearer { sender: self, mac: &self.attachment.mac })
            }
            other => self.bearing_virtual(other),
        }
    }

    #[cold]
    fn bearing_virtual(self, given: Option<&[u8]>) -> Result<Bearer<'w>, DropReason> {
        let mac = self.attachment.macs.iter().find(|mac| given == Some(mac.as_bytes()));
        mac.map(|mac| Bearer { sender: self, mac }).ok_or(DropReason::SpoofedMac)
    }
}

impl<'w> Bearer<'w> {
    /// Checks an IPv4 source.
    #[inline]
    pub(crate) fn admit4(self, nve: &Nve, source: Ipv4Addr) -> Result<Admitted<'w>, DropReason> {
        self.admit(nve, Some(self.sender.network.keys4.of(source.to_bits())))
    }

    /// Checks an IPv6 source.
    #[inline]
    pub(crate) fn admit6(self, nve: &Nve, source: Ipv6Addr) -> Result<Admitted<'w>, DropReason> {
        let Sender { network, .. } = self.sender;
        let of_network = |vnet: &Vnet| vnet.contains(source);
        self.admit(nve, network.ipv6.filter(of_network).map(|_| network.keys6.of(source.to_bits() as u32)))
    }

    /// Checks the IPv6 source of a packet to a group, and says which source its receivers see. An ordinary host writes to the groups of its
    /// link from its link-local address (RFC 6724, rule 2), which says nothing of its network and has no form on the wire: the
    /// attachment's first own one takes its place.
    pub(crate) fn admit6_to_group(
        self,
        nve: &Nve,
        source: Ipv6Addr,
    ) -> Result<(Admitted<'w>, Ipv6Addr), DropReason> {
        if !source.is_unicast_link_local() || source == GATEWAY_LINK_LOCAL {
            return self.admit6(nve, source).map(|admitted| (admitted, source));
        }
        let own = self.sender.attachment.addresses.iter().find_map(|address| match address {
            IpAddr::V6(own) => Some(*own),
            IpAddr::V4(_) => None,
        });
        let own = own.ok_or(DropReason::SpoofedAddress)?;
        self.admit6(nve, own).map(|admitted| (admitted, own))
    }

    #[inline]
    fn admit(self, nve: &Nve, source: Option<Key>) -> Result<Admitted<'w>, DropReason> {
        match source {
            Some(key) if self.sender.attachment.holds(key) => Ok(Admitted(self.sender)),
            Some(key) => self.admit_beyond(nve, key),
            None => Err(DropReason::SpoofedAddress),
        }
    }

    /// What is none of the addresses it holds is admitted if it is one that it waits for, and its guest has come; a shared one that it holds,
    /// or takes because nobody does; or if it is nobody's own and the longest prefix of it leads back here.
    #[cold]
    pub(crate) fn admit_beyond(self, nve: &Nve, source: Key) -> Result<Admitted<'w>, DropReason> {
        let Sender { attachment, network } = self.sender;
        let (port, further) = (attachment.port, network.further());
        if attachment.awaits(source) {
            return nve.admit_awaited(attachment).map(|()| Admitted(self.sender));
        }
        if let Some(shared) = further.shared(source) {
            if !shared.lists(port) {
                return Err(DropReason::SpoofedAddress);
            }
            let holder = shared.take_unheld(Holder { port, mac: *self.mac });
            return if holder.port == port { Ok(Admitted(self.sender)) } else { Err(DropReason::NotHolder) };
        }
        let leads_back = || further.by_prefix(source) == Some(Target::Local(port));
        if nve.table.get(source).is_none() && leads_back() {
            return Ok(Admitted(self.sender));
        }
        Err(DropReason::SpoofedAddress)
    }
}

/// Proof that a packet comes from a task under one of its own addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmittedTask<'w> {
    attachment: &'w Attachment,
    key: Key,
}

impl<'w> AdmittedTask<'w> {
    /// Checks MAC and source address of a frame from a task.
    pub(crate) fn of(
        walk: &Walk<'w>,
        question: &Question,
        frame: &Frame<'_>,
        source: Ipv6Addr,
    ) -> Result<Self, DropReason> {
        let Origin::Port(port) = question.origin else { return Err(DropReason::NoAttachment) };
        let attachment = walk.world.attachment(port).filter(|attachment| attachment.is_task());
        let attachment = attachment.ok_or(DropReason::NoAttachment)?;
        if frame.head.get(6..12) != Some(attachment.mac.as_bytes()) {
            return Err(DropReason::SpoofedMac);
        }
        let domain = &attachment.sir_domain;
        let key = task_identifier(domain.sir(), source).and_then(|identifier| domain.key(identifier));
        let key = key.filter(|key| attachment.holds(*key));
        Ok(Self { attachment, key: key.ok_or(DropReason::SpoofedAddress)? })
    }
    /// Who it is.
    pub(crate) fn attachment(&self) -> &'w Attachment {
        self.attachment
    }
    /// Of the source address.
    pub(crate) fn key(&self) -> Key {
        self.key
    }
}

impl<'w> Deref for Bearer<'w> {
    type Target = Sender<'w>;
    #[inline]
    fn deref(&self) -> &Sender<'w> {
        &self.sender
    }
}

impl<'w> Deref for Admitted<'w> {
    type Target = Sender<'w>;
    #[inline]
    fn deref(&self) -> &Sender<'w> {
        &self.0
    }
}
