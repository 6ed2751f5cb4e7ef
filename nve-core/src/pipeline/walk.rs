//! What the steps of one walk share, and how a step ends it early.
//!
//! What must stay true: a step that refuses knows the answer: silence, an ICMP error owed, or what the shell must do first.

use core::time::Duration;
use std::sync::Arc;

use ipv4_xlat::{IcmpError, Pieces, Reason, Refusal};

use super::copies::Copies;
use super::triangle::Triangles;
use super::{Again, Nve, Origin};
use crate::DropReason;
use crate::gateway::Limits;
use crate::packet::Unread;
use crate::policy::World;
use crate::tables::Groups;

/// One worker's state, borrowed for one packet.
pub(crate) struct Walk<'a> {
    pub(crate) nve: &'a Nve,
    pub(crate) world: &'a World,
    pub(crate) now: Duration,
    /// By port number.
    pub(crate) limits: &'a mut [Limits],
    /// Of errors sent to the fabric.
    pub(crate) uplink_limits: &'a mut Limits,
    /// Of errors sent to the outside.
    pub(crate) outside_limits: &'a mut Limits,
    /// Of the next packet that needs one.
    pub(crate) identification: &'a mut u16,
    /// Who listens to what, as of the last packet to a group.
    pub(crate) groups: &'a mut Arc<Groups>,
    /// The first bytes of a packet that goes around on this host.
    pub(crate) turned: &'a mut Box<[u8]>,
    /// Of the packet that is being sent in several.
    pub(crate) pending: &'a mut Option<Pending>,
    /// Whom to tell of the straight line.
    pub(super) triangles: &'a mut Triangles,
}

/// A packet that has not been sent to its last piece, or to its last receiver.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Where it came from.
    pub(crate) sender: Origin,
    /// What is left of the copy under way.
    pub(crate) pieces: Option<Pieces>,
    /// Where that goes.
    pub(crate) to: Origin,
    /// Its pieces go around on this host instead of to the uplink.
    pub(crate) around: bool,
    /// Who else gets a copy, where it is for many.
    pub(crate) copies: Option<Copies>,
    /// Copies that could not be made before the first that could, and why.
    pub(crate) lost: (DropReason, u32),
}

impl Pending {
    /// A packet in pieces for one receiver.
    pub(crate) fn one(sender: Origin, to: Origin, pieces: Pieces) -> Self {
        let lost = (DropReason::NoListener, 0);
        Self { sender, pieces: Some(pieces), to, around: false, copies: None, lost }
    }
    /// A packet for many.
    pub(crate) fn many(sender: Origin, copies: Copies) -> Self {
        let lost = (DropReason::NoListener, 0);
        Self { sender, pieces: None, to: Origin::Uplink, around: false, copies: Some(copies), lost }
    }
}

impl Walk<'_> {
    /// An identification that the last 65535 packets did not have.
    #[inline]
    pub(crate) fn next_identification(&mut self) -> u16 {
        *self.identification = self.identification.wrapping_add(1);
        *self.identification
    }
}

/// The walk ends here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Dropped.
    Drop(DropReason),
    /// Dropped, and its sender is owed an ICMP error, allowance permitting.
    Owed(DropReason, IcmpError),
    /// The shell must do something first.
    Again(Again),
}

impl From<DropReason> for Stop {
    #[inline]
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl From<Unread> for Stop {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::BeyondHead => Self::Again(Again::Whole),
            Unread::Refused(reason) => Self::Drop(reason),
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Silent(reason) => Self::Drop(untranslated(reason)),
            Refusal::Icmp(reason, error) => Self::Owed(untranslated(reason), error),
            Refusal::NeedWhole => Self::Again(Again::Whole),
            Refusal::NeedSegments => Self::Again(Again::Segments),
        }
    }
}

/// A translator's reason by its name here; what an operator cannot act upon differently shares one.
fn untranslated(reason: Reason) -> DropReason {
    match reason {
        Reason::Truncated | Reason::WrongVersion | Reason::HeaderLength | Reason::Jumbogram => {
            DropReason::Malformed
        }
        Reason::ShortTransport => DropReason::Malformed,
        Reason::HeaderChecksum | Reason::IcmpChecksum => DropReason::BadChecksum,
        Reason::ExtensionChain | Reason::ExtensionBehindFragment => DropReason::ExtensionHeader,
        Reason::SourceRoute | Reason::SegmentsLeft => DropReason::ExtensionHeader,
        Reason::FragmentAlignment | Reason::FragmentBeyondEnd => DropReason::BadFragment,
        Reason::IllegalSource => DropReason::SpoofedAddress,
        Reason::UnmappedSource => DropReason::IllegalSource,
        Reason::UnmappedQuote | Reason::BadQuote | Reason::QuotedError => DropReason::QuotedPacket,
        Reason::HopLimit => DropReason::HopLimit,
        Reason::PacketTooBig | Reason::ResultTooLong => DropReason::TooBig,
        Reason::BadOffload => DropReason::BadOffload,
        Reason::ForbiddenProtocol
        | Reason::NotForUs
        | Reason::FragmentedIcmp
        | Reason::UntranslatableIcmp
        | Reason::MultipartLength
        | Reason::ZeroUdpChecksum
        | Reason::ZeroUdpChecksumFragment => DropReason::Untranslatable,
    }
}
