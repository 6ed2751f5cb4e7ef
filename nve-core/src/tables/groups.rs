//! Who on this host listens to which group, as it was published last.
//!
//! What must stay true: a list is made whole by whoever hears the reports ([`crate::gateway::group`]) and never changed; readers pin one
//! for a packet. A list names ports and says nothing about their networks: the walk judges each port it finds here.
//!
//! ```text
//!   reports ──> Snooper ──changed networks anew, the others shared──> Groups ──Nve::publish_groups──> workers
//! ```

use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::Arc;

use crate::addr::{DomainId, Identifier, Key, Vnid};
use crate::pipeline::PortId;

/// The listeners of one network, by the group's key.
pub type Listeners = HashMap<Key, Box<[PortId]>>;

/// The listeners of all networks of this host.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    networks: HashMap<(DomainId, Vnid), Arc<Listeners>>,
}

impl Groups {
    /// Replaces the listeners of one network, by its domain and number there.
    pub fn set(&mut self, network: (DomainId, Vnid), listeners: Listeners) {
        if listeners.is_empty() {
            self.networks.remove(&network);
        } else {
            self.networks.insert(network, Arc::new(listeners));
        }
    }

    /// The ports that listen to `group` (type 2 or 4), in order.
    #[inline]
    pub fn ports(&self, group: Key) -> &[PortId] {
        let listeners = group.vnid().and_then(|vnid| self.networks.get(&(group.domain(), vnid)));
        listeners.and_then(|listeners| listeners.get(&group)).map_or(&[], |ports| ports)
    }

    /// Every group that somebody listens to.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &[PortId])> {
        self.networks.values().flat_map(|listeners| listeners.iter().map(|(group, ports)| (*group, &**ports)))
    }
}

/// The identifier of a group that may leave its link or host (reading notes, section 1): an IPv4 group by type 2, an IPv6 group by type 4.
/// `None`: it is no group, has no encoding, or stays inside a node by its scope (0 and 1: RFC 4291, section 2.7).
pub fn group_in(vnid: Vnid, address: IpAddr) -> Option<Identifier> {
    match address {
        IpAddr::V4(group) => group.is_multicast().then(|| Identifier::ipv4(vnid, group)),
        IpAddr::V6(group) if group.octets()[1] & 0xf < 2 => None,
        IpAddr::V6(group) => Identifier::multicast(vnid, group).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(text: &str) -> Option<u64> {
        let vnid = Vnid::new(1).expect("a VNID");
        group_in(vnid, text.parse().expect("an address")).map(Identifier::bits)
    }

    #[test]
    fn groups_have_the_drafts_types() {
        assert_eq!(identifier("224.0.0.251"), Some(0x4000_0001_e000_00fb));
        assert_eq!(identifier("239.255.255.255"), Some(0x4000_0001_efff_ffff));
        assert_eq!(identifier("ff02::fb"), Some(0x8000_0001_2000_00fb));
        assert_eq!(identifier("ff05::fff:ffff"), Some(0x8000_0001_5fff_ffff));
    }

    #[test]
    fn what_is_no_group_or_stays_in_a_node_has_none() {
        for none in ["10.1.0.1", "240.0.0.1", "255.255.255.255", "2001:db8::1"] {
            assert_eq!(identifier(none), None, "{none}");
        }
        for none in ["ff01::fb", "ff00::1", "ff02::1:ff00:1", "ff12::1", "ff32::1", "ff02::1000:0"] {
            assert_eq!(identifier(none), None, "{none}");
        }
    }
}
