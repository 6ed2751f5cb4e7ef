//! Guests that move between hosts: attachments that wait for theirs, and what becomes of packets for those that left (docs/decisions/0017).
//!
//! What must stay true: an attachment that waits has addresses only, and they may be mapped to the host where the guest still is.

use core::time::Duration;
use std::collections::BTreeSet;

use super::Attachment;
use super::check::{SetupError, refuse};

/// How long packets for an identifier that has left are treated as [`Moves::stragglers`] says, unless the operator says so.
pub const GRACE: Duration = Duration::from_secs(10);

/// What becomes, for a time, of packets for an identifier that has moved away from this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stragglers {
    /// They follow it, one hop spent, and their sender's host is redirected.
    #[default]
    Forward,
    /// They are dropped, and their sender's host is redirected.
    Redirect,
    /// They are dropped.
    Drop,
}

/// Guests that come and go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moves {
    /// Names of attachments that wait for a guest that still runs elsewhere.
    pub standby: BTreeSet<String>,
    /// What becomes of packets for guests that have left.
    pub stragglers: Stragglers,
    /// For how long.
    pub grace: Duration,
}

impl Default for Moves {
    fn default() -> Self {
        Self::NONE
    }
}

impl Moves {
    /// Nobody waits, and what has left is followed as usual.
    pub const NONE: Self = Self { standby: BTreeSet::new(), stragglers: Stragglers::Forward, grace: GRACE };

    /// Whether the attachment of this name waits.
    pub(crate) fn waits(&self, attachment: &str) -> bool {
        self.standby.contains(attachment)
    }
}

/// Checks an attachment that waits.
pub(super) fn check_waiting(object: &str, attachment: &Attachment) -> Result<(), SetupError> {
    let what = match (attachment.prefixes.is_empty(), attachment.shared.is_empty()) {
        (true, true) => return Ok(()),
        (false, _) => "prefixes",
        (true, false) => "shared addresses",
    };
    let reason = format!("it is on standby and has {what}, which do not move with a guest");
    Err(refuse(object, reason, format!("give it its {what} when the guest is here, without standby")))
}
