//! Addresses on the wire in the draft's notation, read by code that shares nothing with the program under test.
//!
//! ```text
//! bits    0            64  67  68           96            128
//! type 2  prefix       │2│C│ VNID (28)     │ VADDR (32)    │   SIR:(VNI:10.1.0.1)  L2:(VNI:10.1.0.2)
//! type 3  locator      │3│C│ VNID (28)     │ VADDR6L (32)  │   L2:(VNI:VNET...::2)
//! ```
//!
//! With C = 1 the low 16 bits hold an adjustment, which is reversed here (draft, section 4.4.1, with the erratum that the
//! adjustment is old words minus new words).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};

use crate::site::Network;

/// What is needed to read an address.
#[derive(Clone, Debug)]
pub struct Reader {
    sir: [u16; 4],
    locators: Vec<[u16; 4]>,
    networks: Vec<(u32, Ipv6Addr)>,
}

impl Reader {
    /// A reader for one domain. Prefixes are `ADDRESS/LENGTH`; locators are numbered from 1.
    ///
    /// # Errors
    ///
    /// Fails on a prefix that does not parse.
    pub fn new(sir: &str, locators: &[String], networks: &[Network]) -> Result<Reader> {
        let locators = locators.iter().map(|locator| upper(prefix(locator)?)).collect::<Result<_>>()?;
        let networks = networks.iter().map(|network| Ok((network.vni, prefix(network.ipv6)?)));
        Ok(Reader { sir: upper(prefix(sir)?)?, locators, networks: networks.collect::<Result<_>>()? })
    }

    /// The notation for `address`: `10.1.0.1`, `SIR:(1001:10.1.0.1)`, `L2:(1001:2001:db8:b1:e::2) C=1` and so on.
    ///
    /// # Errors
    ///
    /// Fails on what is no address, and on an ILA address of a type, locator or network that the site does not have.
    pub fn read(&self, address: &str) -> Result<String> {
        if address.parse::<Ipv4Addr>().is_ok() {
            return Ok(address.to_owned());
        }
        let address: Ipv6Addr = address.parse().with_context(|| format!("not an address: {address}"))?;
        let words = address.segments();
        if let Some(number) = self.locators.iter().position(|locator| words[..4] == *locator) {
            return Ok(format!("L{}:{}", number + 1, self.identifier(address)?));
        }
        if words[..4] == self.sir {
            ensure!(words[4] & 0x1000 == 0, "{address}: a SIR address with C = 1");
            return Ok(format!("SIR:{}", self.identifier(address)?));
        }
        let vnet = self.networks.iter().find(|(_, vnet)| vnet.segments()[..6] == words[..6]);
        Ok(vnet.map_or_else(
            || address.to_string(),
            |(vni, _)| format!("VNET({vni}):{:x}:{:x}", words[6], words[7]),
        ))
    }

    fn identifier(&self, address: Ipv6Addr) -> Result<String> {
        let mut words = address.segments();
        let (kind, neutral) = (words[4] >> 13, words[4] & 0x1000 != 0);
        let vni = u32::from(words[4] & 0x0fff) << 16 | u32::from(words[5]);
        let vnet = self.networks.iter().find(|network| network.0 == vni).map(|network| network.1.segments());
        let vnet = vnet.with_context(|| format!("{address}: no network {vni}"))?;
        // What the words were before the destination became an ILA address.
        let old = match kind {
            2 => [self.sir[0], self.sir[1], self.sir[2], self.sir[3], words[4] & !0x1000, words[5]],
            3 => [vnet[0], vnet[1], vnet[2], vnet[3], vnet[4], vnet[5]],
            _ => anyhow::bail!("{address}: type {kind} is not expected here"),
        };
        let wire = words[7];
        if neutral {
            let changed = words[..6].iter().fold(0, |sum, word| add(sum, *word));
            let were = old.iter().fold(0, |sum, word| add(sum, *word));
            words[7] = add(add(wire, changed), !were);
            // One's complement has two zeros; only 0x0000 is sent with C = 1.
            words[7] = if words[7] == 0xffff { 0 } else { words[7] };
        }
        let [a, b] = words[6].to_be_bytes();
        let [c, d] = words[7].to_be_bytes();
        let tenant = match kind {
            2 => Ipv4Addr::new(a, b, c, d).to_string(),
            _ => format!("{:x}:{:x}", words[6], words[7]),
        };
        let mut text = format!("({vni}:{tenant})");
        if neutral {
            write!(text, " C=1 low word {wire:#06x}")?;
        }
        Ok(text)
    }
}

fn prefix(text: &str) -> Result<Ipv6Addr> {
    let (address, _length) = text.split_once('/').with_context(|| format!("not a prefix: {text}"))?;
    Ok(address.parse()?)
}

fn upper(address: Ipv6Addr) -> Result<[u16; 4]> {
    address.segments()[..4].try_into().context("an IPv6 address has eight words")
}

/// One's complement addition.
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{BLUE, RED};

    fn reader() -> Reader {
        let locators = ["2001:db8:0:1::/64".to_owned(), "2001:db8:0:2::/64".to_owned()];
        Reader::new("2001:db8:51::/64", &locators, &[BLUE, RED]).unwrap()
    }

    #[test]
    fn endpoints_addresses_read_as_what_they_are() {
        assert_eq!(reader().read("10.1.0.1").unwrap(), "10.1.0.1");
        assert_eq!(reader().read("2001:db8:51:0:4000:3e9:a01:1").unwrap(), "SIR:(1001:10.1.0.1)");
        assert_eq!(reader().read("2001:db8:b1:e::1").unwrap(), "VNET(1001):0:1");
        assert_eq!(reader().read("2001:db8:b1:e:0:1:0:1").unwrap(), "VNET(1002):0:1");
        assert_eq!(reader().read("2001:db8:9::1").unwrap(), "2001:db8:9::1");
    }

    #[test]
    fn an_unmodified_destination_carries_the_tenants_low_word() {
        assert_eq!(reader().read("2001:db8:0:2:4000:3e9:a01:2").unwrap(), "L2:(1001:10.1.0.2)");
    }

    #[test]
    fn a_neutral_destination_sums_to_the_same_as_the_endpoints_view() {
        // The endpoint's 2001:db8:51:0:4000:3e9:a01:2 loses 0x51 and gains 0x2 (locator) and 0x1000 (C bit):
        // 0x0002 + 0x0051 - 0x0002 - 0x1000 = 0xf050 in one's complement.
        let read = reader().read("2001:db8:0:2:5000:3e9:a01:f050").unwrap();
        assert_eq!(read, "L2:(1001:10.1.0.2) C=1 low word 0xf050");
    }

    #[test]
    fn foreign_types_and_networks_are_refused() {
        reader().read("2001:db8:0:2:a000:3e9:a01:2").unwrap_err();
        reader().read("2001:db8:0:2:4000:3ff:a01:2").unwrap_err();
        reader().read("2001:db8:51:0:5000:3e9:a01:1").unwrap_err();
    }
}
