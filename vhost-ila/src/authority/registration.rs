//! Who holds which identifier, and the rules by which that changes (draft, section 4.7 and appendix B.1).
//!
//! ```text
//!   register(L1)              nobody ──────────────> L1, epoch e1      held already: denied, the holder named
//!   move_to(from L1, to L2)   L1, e1 ──────────────> L2, e2 > e1       from is not the holder: denied
//!   unregister(L1)            L1 ──────────────────> nobody            not the holder: denied
//!   settle(L1, what it says)  every identifier of this host's attachments is L1's, and no other by the configuration; all or nothing
//!   unsettle                  what settle changed is as it was, epochs and all: the configuration did not come in force
//! ```
//!
//! What must stay true: an identifier has one holder; of two registrations of one identifier, the later has the higher epoch, also when
//! the first was unregistered in between.

use std::fmt;

use nve_core::addr::{Locator, SirAddress};

/// That an identifier lives at a locator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Who, in which domain.
    pub identifier: SirAddress,
    /// The host that holds it.
    pub locator: Locator,
    /// Milliseconds since 1970 when it came there, or more where the clock was behind: later registrations have higher ones. Zero where
    /// the configuration says it.
    pub epoch: u64,
    /// Who said so.
    pub by: Claimant,
}

/// Who said where an identifier lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimant {
    /// The configuration: an attachment of this host, or a mapping.
    Config,
    /// Somebody, by the control API.
    Request,
}

/// A change that is asked for among others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Update {
    /// Of which identifier.
    pub identifier: SirAddress,
    /// What.
    pub wish: Wish,
    /// Milliseconds since 1970.
    pub now: u64,
}

/// One of the three changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// As [`Authority::register`].
    Register(Locator),
    /// As [`Authority::move_to`], from one to the other.
    Move(Locator, Locator),
    /// As [`Authority::unregister`].
    Unregister(Locator),
}

/// Why a change was denied. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// It has a holder: a duplicate.
    #[error("it is registered already: {} holds it{}", .0.locator, Since(.0))]
    Held(Registration),
    /// Whoever asked is not the holder.
    #[error("{} holds it{}, and only the holder gives it up", .0.locator, Since(.0))]
    NotHolder(Registration),
    /// Nobody holds it.
    #[error("nobody has registered it")]
    Unknown,
    /// The configuration says where it lives, and only the configuration changes that.
    #[error("the configuration of this host says that {} has it: change it there", .0.locator)]
    Configured(Registration),
    /// This host has no registry, and its configuration does not name the identifier either.
    #[error(
        "this host keeps no registry: write kind = \"embedded\" under [authority], and restart the daemon"
    )]
    NoRegistry,
    /// This host has a file of mappings in the place of a registry, and it does not name the identifier.
    #[error(
        "a file of mappings says where addresses live, and this host keeps no registry beside it: add a line there, and reload"
    )]
    ListedOnly,
    /// The store cannot be read or written.
    #[error("the registry fails: {0}")]
    Unavailable(String),
}

/// Why a registry does not agree with a configuration. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsettled {
    /// These hold what the configuration gives to others.
    #[error("{} identifiers are registered elsewhere", .0.len())]
    Elsewhere(Vec<Registration>),
    /// The store cannot be read or written.
    #[error(transparent)]
    Failed(#[from] Denied),
}

impl Denied {
    /// Who has it.
    pub fn holder(&self) -> Option<Registration> {
        match self {
            Self::Held(holder) | Self::NotHolder(holder) | Self::Configured(holder) => Some(*holder),
            Self::Unknown | Self::NoRegistry | Self::ListedOnly | Self::Unavailable(_) => None,
        }
    }
}

struct Since<'a>(&'a Registration);

impl fmt::Display for Since<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.epoch {
            0 => Ok(()),
            epoch => write!(f, " (epoch {epoch})"),
        }
    }
}

/// A database of who holds what, in all domains of a host (the draft's NVA). The data path never waits for one.
pub trait Authority: Send + Sync {
    /// Who holds `identifier`.
    ///
    /// # Errors
    /// [`Denied::Unavailable`].
    fn holder(&self, identifier: SirAddress) -> Result<Option<Registration>, Denied>;

    /// `locator` becomes the holder of `identifier`, which nobody holds. `now`: milliseconds since 1970.
    ///
    /// # Errors
    /// Somebody does hold it, even if that is `locator`.
    fn register(&self, identifier: SirAddress, locator: Locator, now: u64) -> Result<Registration, Denied>;

    /// `to` becomes the holder in the place of `from`, by whose word this is. `now`: as for [`Self::register`].
    ///
    /// # Errors
    /// `from` is not the holder.
    fn move_to(
        &self,
        identifier: SirAddress,
        from: Locator,
        to: Locator,
        now: u64,
    ) -> Result<Registration, Denied>;

    /// Nobody holds `identifier` any more; `locator` did.
    ///
    /// # Errors
    /// It did not.
    fn unregister(&self, identifier: SirAddress, locator: Locator) -> Result<(), Denied>;

    /// All there are, by identifier.
    ///
    /// # Errors
    /// [`Denied::Unavailable`].
    fn registrations(&self) -> Result<Vec<Registration>, Denied>;
}
