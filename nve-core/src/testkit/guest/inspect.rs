//! What a guest's driver would insist on before it takes a frame: asked of every frame, in every scenario.

use core::net::IpAddr;

use smoltcp::wire::EthernetAddress;

use super::Guest;
use crate::gateway::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, METADATA4, METADATA6};
use crate::packet::{ChecksumState, Gso, GsoKind, Offload};
use crate::testkit::checksum::{self, Verdict};
use crate::testkit::dissect::{Dissected, protocol};
use crate::testkit::nic;

impl Guest {
    /// Judges a frame before the guest gets it: from the gateway's MAC and this guest's network, to
    /// this guest or a group, with whole headers and good checksums,
    /// and with no more left to do than the guest agreed to.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::testkit) fn inspect(
        &self,
        frame: &[u8],
        offload: Offload,
        lenient: bool,
    ) -> Result<(), String> {
        let (Some(destination), Some(source)) = (frame.get(..6), frame.get(6..12)) else {
            return Err(format!("a frame of {} bytes", frame.len()));
        };
        let bears = |mac: &EthernetAddress| destination == mac.as_bytes();
        if !self.lent.macs.iter().chain([&self.mac]).any(bears)
            && destination.first().is_some_and(|first| first & 1 == 0)
        {
            return Err(format!("a frame for {destination:02x?}"));
        }
        if source != GATEWAY_MAC.as_bytes() {
            return Err(format!("a frame from {source:02x?}, which is not the gateway"));
        }
        let Some(view) = Dissected::of_frame(frame) else { return Ok(()) };
        if !view.header_checksum_good || view.total_len + 14 != frame.len() {
            return Err(format!("an IP header that is wrong in a frame of {}: {view:?}", frame.len()));
        }
        self.inspect_addresses(&view)?;
        self.inspect_offload(&view, offload)?;
        let partial = matches!(offload.checksum, ChecksumState::Partial { .. });
        let bad = checksum::verify(&view, view.source, view.destination) == Verdict::Bad;
        if bad && !partial && !lenient {
            return Err(format!("a bad checksum: {view:?}"));
        }
        // IPv6 may use what the told MTU keeps free for translating IPv4.
        let limit = usize::from(self.device.mtu) + if view.version == 6 { 20 } else { 0 };
        if nic::largest_packet(frame.get(14..).unwrap_or_default(), offload) > limit {
            return Err(format!("larger than the MTU {}: {view:?}", self.device.mtu));
        }
        Ok(())
    }

    /// Isolation, seen from the receiving end: for this guest, and from its own network.
    fn inspect_addresses(&self, view: &Dissected<'_>) -> Result<(), String> {
        let its = self.addresses.contains(&view.destination) || self.lent.destination(view.destination);
        let (for_it, from_its_own) = match (view.destination, view.source) {
            (IpAddr::V4(to), IpAddr::V4(from)) => (
                its || to.is_broadcast()
                    || to.is_multicast()
                    || self.network.0.is_some_and(|prefix| prefix.broadcast() == Some(to)),
                self.network.0.is_some_and(|prefix| prefix.contains_addr(&from)),
            ),
            (IpAddr::V6(to), IpAddr::V6(from)) => (
                its || to.is_multicast() || to.is_unicast_link_local(),
                self.network.1.is_some_and(|vnet| vnet.contains(from)) || from == GATEWAY_LINK_LOCAL,
            ),
            _ => (false, false),
        };
        let from_service = [IpAddr::from(METADATA4), METADATA6.into()].contains(&view.source);
        let from_its_own = from_its_own || from_service || self.lent.source(view.source);
        if for_it && from_its_own { Ok(()) } else { Err(format!("not for this guest: {view:?}")) }
    }

    fn inspect_offload(&self, view: &Dissected<'_>, offload: Offload) -> Result<(), String> {
        let agreed = match (offload.gso, view.version) {
            (None, _) => true,
            (Some(Gso { kind: GsoKind::TcpV4 { ecn }, .. }), 4) => {
                self.receives.tso4 && (self.receives.ecn || !ecn)
            }
            (Some(Gso { kind: GsoKind::TcpV6 { ecn }, .. }), 6) => {
                self.receives.tso6 && (self.receives.ecn || !ecn)
            }
            (Some(Gso { kind: GsoKind::UdpL4, .. }), _) => {
                self.receives.uso && view.protocol == protocol::UDP
            }
            _ => false,
        };
        let partial = matches!(offload.checksum, ChecksumState::Partial { .. });
        if !agreed || partial && !self.receives.csum || offload.gso.is_some() && !partial {
            return Err(format!("{offload:?} was not agreed to"));
        }
        nic::check_seed(view, offload)
    }
}
