//! Who has a shared address that nobody holds? Asked of those who list it, as a neighbour would ask (docs/decisions/0013).
//!
//! After a start of the daemon nobody holds anything, and the guest that has the address may say nothing for long: its answer, like anything
//! it sends from the address, makes it the holder (`pipeline/admit.rs`).
//!
//! What must stay true: only attachments that list the address and are up are asked, once in two seconds at most; nothing but the time is
//! kept here.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol, IpProtocol};

use super::emit::Emit;
use super::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, nd};
use crate::addr::Kind;
use crate::pipeline::{Nve, PortId};
use crate::policy::{Network, Shared};

/// Between two questions about one address.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks while every shared address is held: a reload may bring others.
const LOOK: Duration = Duration::from_secs(30);
/// Bytes of the longest question.
const LONGEST: usize = 128;

/// Asks.
#[derive(Debug, Default)]
pub struct Asker {
    next: Duration,
}

impl Asker {
    /// Asks what is to be asked at `now`; `say` gets Ethernet frames for attachments.
    pub fn tick(&mut self, nve: &Nve, now: Duration, say: &mut dyn FnMut(PortId, Vec<u8>)) {
        if now < self.next {
            return;
        }
        let world = nve.world();
        self.next = now + LOOK;
        for network in world.networks() {
            let unheld = network.further().all_shared().iter().filter(|shared| shared.holder().is_none());
            for (shared, question) in unheld.filter_map(|shared| Some((shared, question(network, shared)?))) {
                self.next = now + INTERVAL;
                let up = shared.listed().iter().filter(|port| nve.receiver(**port).up);
                up.for_each(|port| say(*port, question.clone()));
            }
        }
    }

    /// When [`Asker::tick`] has something to do next.
    pub fn due(&self) -> Duration {
        self.next
    }
}

fn question(network: &Network, shared: &Shared) -> Option<Vec<u8>> {
    let mut out = [0; LONGEST];
    let len = match shared.key.kind() {
        Kind::Ipv4(_, address) => who_has(network.gateway4?, address, &mut out),
        Kind::Ipv6(_, low) => solicitation(network.ipv6?.address(low), &mut out),
        _ => None,
    }?;
    out.get(..len).map(<[u8]>::to_vec)
}

fn who_has(gateway: Ipv4Addr, address: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: GATEWAY_MAC,
        source_protocol_addr: gateway,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    let mut body = [0; 28];
    request.emit(&mut ArpPacket::new_unchecked(&mut body[..]));
    let mut emit = Emit::ethernet(out, EthernetAddress::BROADCAST, EthernetProtocol::Arp);
    emit.put(&body);
    emit.finish()
}

/// RFC 4861, 4.3.
fn solicitation(address: Ipv6Addr, out: &mut [u8]) -> Option<usize> {
    let group = nd::solicited_node(address);
    let [.., a, b, c, d] = group.octets();
    let mut emit = Emit::ethernet(out, EthernetAddress([0x33, 0x33, a, b, c, d]), EthernetProtocol::Ipv6);
    let ip_at = emit.len();
    emit.ipv6(GATEWAY_LINK_LOCAL, group, IpProtocol::Icmpv6, nd::ND_HOP_LIMIT, 0);
    emit.put(&[135, 0, 0, 0, 0, 0, 0, 0]);
    emit.put(&address.octets());
    emit.put(&[nd::OPTION_SOURCE_LINK_LAYER, 1]);
    emit.put(GATEWAY_MAC.as_bytes());
    emit.close_ipv6(ip_at, IpProtocol::Icmpv6, 2);
    emit.finish()
}
