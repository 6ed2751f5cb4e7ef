//! The small things a decision needs beside the mapping table: networks, attachments, locators; and what may pass between realms.
//!
//! What must stay true: a [`World`] never changes. It is made whole from a checked setup, swapped whole, and pinned by each worker for a
//! batch; numbers in it ([`NetworkId`], [`crate::pipeline::PortId`], [`LocatorId`]) keep their meaning over a swap or are not reused.

mod alias;
mod attachment;
mod crossing;
mod domains;
mod further;
mod path;
mod peer;
mod prefixes;
mod realm;
mod several;
mod shared;
mod translation;
mod world;

pub(crate) use alias::Aliases;
pub(crate) use attachment::Away;
pub use attachment::{Attachment, TASK_MAC};
pub use crossing::Admission;
pub(crate) use crossing::{Rules, Shown, Traffic, Unruled};
pub(crate) use domains::numbered;
pub(crate) use further::Further;
pub(crate) use path::{IPV6_MINIMUM, Reach};
pub(crate) use peer::{Peers, Twist};
pub use realm::Realm;
pub(crate) use realm::{Endpoint, Nobody};
pub(crate) use several::{Flow, Several};
pub(crate) use shared::{Cell, Holder, Shared};
pub use world::{LocatorId, Network, NetworkId, World};
pub(crate) use world::{Numbers, Peers4, key_in};
