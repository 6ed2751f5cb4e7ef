//! A judge at every link: whatever crosses the fabric must verify, in every scenario, asked for or not.
//!
//! What must stay true: the judge knows the plan and the bytes, and nothing the NVEs computed. With C = 1, or without an ILA
//! destination, the transport checksum verifies as it is. With C = 0 it verifies once the destination is what the endpoint will see
//! (reading notes, section 2; draft, sections 4.4.1 and 4.4.2).

use core::net::{IpAddr, Ipv6Addr};

use super::checksum::{self, Verdict};
use super::dissect::Dissected;
use super::nic;
use crate::packet::{ChecksumState, Offload};

/// How many packets verified, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// C = 1, as they are.
    pub neutral: usize,
    /// C = 0, with the endpoint's address put back.
    pub unmodified: usize,
    /// No ILA destination.
    pub plain: usize,
    /// Left to the receiver's card: the seed agrees with the addresses.
    pub partial: usize,
    /// Fragments, and what has no checksum.
    pub unverifiable: usize,
}

/// What the judge knows: the plan's prefixes, as plain numbers.
pub(super) struct Audit {
    pub(super) locators: Vec<u64>,
    pub(super) sir: u64,
    /// VNID and /96.
    pub(super) networks: Vec<(u32, u128)>,
    pub(super) verified: Verified,
    /// A test sends bad checksums on purpose, and looks for itself.
    pub(super) lenient: bool,
}

impl Audit {
    /// Judges one packet on a link.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn judge(&mut self, bytes: &[u8], offload: Offload) -> Result<(), String> {
        let view = Dissected::of_ip(bytes).ok_or("not an IP packet")?;
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (view.source, view.destination) else {
            return Err(format!("IPv4 on the fabric: {view:?}"));
        };
        if view.total_len != bytes.len() {
            return Err(format!("{} bytes, but the header says {}", bytes.len(), view.total_len));
        }
        let upper = |address: Ipv6Addr| (address.to_bits() >> 64) as u64;
        let c = |address: Ipv6Addr| address.to_bits() >> 60 & 1 == 1;
        // Type 0 under a locator is a host's own address, and may speak.
        let is_ila =
            |address: Ipv6Addr| self.locators.contains(&upper(address)) && address.to_bits() >> 60 & 0xf != 0;
        if is_ila(source) || upper(source) == self.sir && c(source) {
            return Err(format!("{source} is no legal source"));
        }
        let seen =
            if is_ila(destination) && !c(destination) { self.endpoint(destination)? } else { destination };
        if let ChecksumState::Partial { .. } = offload.checksum {
            self.verified.partial += 1;
            if seen != destination {
                return Err(format!("a partial checksum towards {destination}: a card would re-seed it"));
            }
            return nic::check_seed(&view, offload);
        }
        let count = match (is_ila(destination), c(destination)) {
            (true, true) => &mut self.verified.neutral,
            (true, false) => &mut self.verified.unmodified,
            _ => &mut self.verified.plain,
        };
        match checksum::verify(&view, source.into(), seen.into()) {
            Verdict::Good => *count += 1,
            Verdict::Unverifiable | Verdict::Absent => self.verified.unverifiable += 1,
            Verdict::Bad if self.lenient => {}
            Verdict::Bad => return Err(format!("bad checksum for {source} -> {seen}: {view:?}")),
        }
        Ok(())
    }

    /// The address that the endpoint behind `L:I` (C = 0) sees as its own, were it IPv6.
    fn endpoint(&self, destination: Ipv6Addr) -> Result<Ipv6Addr, String> {
        let identifier = destination.to_bits() as u64;
        let vnid = (identifier >> 32) as u32 & 0x0fff_ffff;
        match identifier >> 61 {
            1 | 2 => Ok(Ipv6Addr::from_bits(u128::from(self.sir) << 64 | u128::from(identifier))),
            3 => {
                let network = self.networks.iter().find(|(number, _)| *number == vnid);
                let (_, prefix) = network.ok_or_else(|| format!("{destination}: no network {vnid}"))?;
                Ok(Ipv6Addr::from_bits(prefix | u128::from(identifier as u32)))
            }
            // ff0S::, the scope from the nibble before the group.
            4 => {
                let (scope, group) = (identifier >> 28 & 0xf, identifier & 0xfff_ffff);
                Ok(Ipv6Addr::from_bits(u128::from(0xff00 | scope) << 112 | u128::from(group)))
            }
            other => Err(format!("{destination}: identifier type {other}")),
        }
    }
}
