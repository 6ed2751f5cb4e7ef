//! Requests and answers about who holds an identifier (draft, section 4.7).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::authority::{Claimant, Denied};

/// That an identifier lives at a locator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Registration {
    /// Its virtual network; null for a task.
    pub network: Option<String>,
    /// The tenant's address, or the task's SIR address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its identifier, 16 hexadecimal digits, C = 0.
    pub identifier: String,
    /// The locator of the host that holds it, a /64.
    pub locator: String,
    /// Milliseconds since 1970 when it came there; later registrations of one identifier always have higher ones. Zero where the
    /// configuration says it, and no registry.
    pub epoch: u64,
    /// `config`: an attachment or mapping of this host's configuration says so. `request`: somebody registered or moved it.
    pub by: String,
}

/// Have nobody's identifier be held, or somebody's not any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Its virtual network; without one it is a task's.
    #[serde(default)]
    pub network: Option<String>,
    /// The tenant's address, or the task's SIR address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The locator of the host that is, or was, its holder.
    pub locator: String,
}

/// Have an identifier change its holder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Its virtual network; without one it is a task's.
    #[serde(default)]
    pub network: Option<String>,
    /// The tenant's address, or the task's SIR address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The locator that holds it now: whoever does not know it has no say.
    pub from: String,
    /// The locator that will.
    pub to: String,
}

/// One change of a bulk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// An identifier that nobody holds.
    Register(Held),
    /// To another holder.
    Move(Move),
    /// Nobody holds it any more.
    Unregister(Held),
}

/// What came of a bulk.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Updated {
    /// So many changes hold.
    pub changed: usize,
    /// The others, each of which has changed nothing.
    pub denied: Vec<DeniedUpdate>,
}

/// A change of a bulk that was denied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeniedUpdate {
    /// Its place in the bulk, from zero.
    pub at: usize,
    /// Why.
    #[serde(flatten)]
    pub denial: Denial,
}

/// Why nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Denial {
    /// In words.
    pub error: String,
    /// The locator of whoever holds it, where that is why.
    pub holder: Option<String>,
}

impl Claimant {
    /// As the API writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Request => "request",
        }
    }
}

impl Denial {
    /// About the object of this name.
    pub(crate) fn new(object: &str, denied: &Denied) -> Self {
        let holder = denied.holder().map(|holder| holder.locator.to_string());
        Self { error: format!("{object}: {denied}"), holder }
    }
}
