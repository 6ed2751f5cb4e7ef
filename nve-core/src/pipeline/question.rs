//! What is asked about a packet: where its headers are, and the key of its destination. Parse only; nothing is decided here.

use super::Origin;
use crate::DropReason;

/// A classified packet: small and `Copy`, so that a batch of them can be held while table lines are fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    pub(crate) origin: Origin,
    pub(crate) form: Form,
}

/// What kind of packet it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Refused(DropReason),
}
