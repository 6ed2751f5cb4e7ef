//! What the configuration says, as an authority: it knows, and changes for nobody.

use nve_core::addr::{Locator, SirAddress};
use nve_core::setup::{CheckedSetup, Said};

use super::{Authority, Claimant, Denied, Registration};

/// The attachments and mappings of one configuration.
#[derive(Debug)]
pub struct Configured {
    /// By identifier.
    registrations: Vec<Registration>,
}

impl Configured {
    /// Those of `setup`.
    pub fn new(setup: &CheckedSetup) -> Self {
        let residences = setup.residences().into_iter();
        let said = residences.map(|Said { identifier, locator, .. }| Registration {
            identifier,
            locator,
            epoch: 0,
            by: Claimant::Config,
        });
        let mut registrations: Vec<_> = said.collect();
        registrations.sort_unstable_by_key(|known| known.identifier);
        Self { registrations }
    }

    fn find(&self, identifier: SirAddress) -> Option<Registration> {
        let at = self.registrations.binary_search_by_key(&identifier, |known| known.identifier).ok()?;
        self.registrations.get(at).copied()
    }

    fn deny(&self, identifier: SirAddress) -> Denied {
        self.find(identifier).map_or(Denied::NoRegistry, Denied::Configured)
    }
}

impl Authority for Configured {
    fn holder(&self, identifier: SirAddress) -> Result<Option<Registration>, Denied> {
        Ok(self.find(identifier))
    }
    fn register(&self, identifier: SirAddress, _: Locator, _: u64) -> Result<Registration, Denied> {
        Err(self.deny(identifier))
    }
    fn move_to(
        &self,
        identifier: SirAddress,
        _: Locator,
        _: Locator,
        _: u64,
    ) -> Result<Registration, Denied> {
        Err(self.deny(identifier))
    }
    fn unregister(&self, identifier: SirAddress, _: Locator) -> Result<(), Denied> {
        Err(self.deny(identifier))
    }
    fn registrations(&self) -> Result<Vec<Registration>, Denied> {
        Ok(self.registrations.clone())
    }
}
