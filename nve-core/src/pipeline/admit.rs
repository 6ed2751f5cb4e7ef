//! Admission of what a tenant sends: the source MAC and address are the attachment's.
//!
//! ```text
//!   port ──> Sender (attachment, network) ──MAC──> Bearer ──address──> Admitted
//! ```
//!
//! What must stay true: [`Admitted`] is only made here, and nothing goes on to a peer without one.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Deref;

use super::walk::Walk;
use super::{Origin, Question};
use crate::DropReason;
use crate::addr::Identifier;
use crate::gateway::GATEWAY_LINK_LOCAL;
use crate::packet::Frame;
use crate::policy::{Attachment, Network};

/// The attachment a frame comes from; nothing in the frame is checked yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'w> {
    pub(crate) attachment: &'w Attachment,
    pub(crate) network: &'w Network,
}

/// A sender whose frame bears its MAC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bearer<'w>(Sender<'w>);

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
            Some(mac) if mac == self.attachment.mac.as_bytes() => Ok(Bearer(self)),
            _ => Err(DropReason::SpoofedMac),
        }
    }
}

impl<'w> Bearer<'w> {
    /// Checks an IPv4 source.
    #[inline]
    pub(crate) fn admit4(self, source: Ipv4Addr) -> Result<Admitted<'w>, DropReason> {
        self.admit(Some(Identifier::ipv4(self.0.network.vnid, source)))
    }

    /// Checks an IPv6 source.
    #[inline]
    pub(crate) fn admit6(self, source: Ipv6Addr) -> Result<Admitted<'w>, DropReason> {
        let vnet = self.0.network.ipv6;
        self.admit(vnet.and_then(|vnet| Identifier::ipv6_address(self.0.network.vnid, vnet, source).ok()))
    }

    /// Checks the IPv6 source of a packet to a group, and says which source its receivers see. An ordinary host writes to the groups of its
    /// link from its link-local address (RFC 6724, rule 2), which says nothing of its network and has no form on the wire: the
    /// attachment's first own one takes its place.
    pub(crate) fn admit6_to_group(self, source: Ipv6Addr) -> Result<(Admitted<'w>, Ipv6Addr), DropReason> {
        if !source.is_unicast_link_local() || source == GATEWAY_LINK_LOCAL {
            return self.admit6(source).map(|admitted| (admitted, source));
        }
        let own = self.0.attachment.addresses.iter().find_map(|address| match address {
            IpAddr::V6(own) => Some(*own),
            IpAddr::V4(_) => None,
        });
        let own = own.ok_or(DropReason::SpoofedAddress)?;
        self.admit6(own).map(|admitted| (admitted, own))
    }

    #[inline]
    fn admit(self, source: Option<Identifier>) -> Result<Admitted<'w>, DropReason> {
        match source {
            Some(identifier) if self.0.attachment.holds(identifier) => Ok(Admitted(self.0)),
            _ => Err(DropReason::SpoofedAddress),
        }
    }
}

impl<'w> Deref for Bearer<'w> {
    type Target = Sender<'w>;
    #[inline]
    fn deref(&self) -> &Sender<'w> {
        &self.0
    }
}

impl<'w> Deref for Admitted<'w> {
    type Target = Sender<'w>;
    #[inline]
    fn deref(&self) -> &Sender<'w> {
        &self.0
    }
}
