//! The small things a decision needs beside the mapping table: networks, attachments, locators; and what may cross between networks.
//!
//! What must stay true: a [`World`] never changes. It is made whole from a checked setup, swapped whole, and pinned by each worker for a
//! batch; numbers in it ([`NetworkId`], [`crate::pipeline::PortId`], [`LocatorId`]) keep their meaning over a swap or are not reused.

mod crossing;
mod further;
mod path;
mod prefixes;
mod shared;
mod world;

pub use crossing::{Admission, Crossing};
pub(crate) use further::Further;
pub(crate) use path::{IPV6_MINIMUM, Reach};
pub(crate) use shared::{Cell, Holder, Shared};
pub use world::{Attachment, LocatorId, Network, NetworkId, World};
pub(crate) use world::{Numbers, identifier_in};
