//! Gratuitous ARP (RFC 5227, 2.3; RFC 5768 for VRRP) and unsolicited neighbour advertisements (RFC 4861, 7.2.6): "this address is mine now".
//!
//! What must stay true: only an address that the attachment lists as shared, or waits for, is claimed, under the MAC that the frame itself bears; of
//! all other announcements nothing is heard here, and `arp.rs` and `nd.rs` drop them by name.

use core::net::IpAddr;

use smoltcp::wire::{ArpPacket, ArpRepr, Ipv6Packet};

use super::{GatewayContext, Kind, nd};
use crate::DropReason;

/// An attachment says that it has a shared address, or one of its own that it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The address: one that it lists.
    pub address: IpAddr,
    /// It counts also while another has the address. ARP has no other; an advertisement says so by its Override flag.
    pub overrides: bool,
}

/// The claim in an ARP or ND packet that bears the MAC of `ctx`; `None` if it is something else.
///
/// # Errors
/// It is a claim, and forged or wrong.
pub(super) fn read(ctx: &GatewayContext<'_>, kind: Kind, packet: &[u8]) -> Result<Option<Claim>, DropReason> {
    match kind {
        _ if ctx.shared.is_empty() && !ctx.waits => Ok(None),
        Kind::Arp => gratuitous_arp(ctx, packet),
        Kind::Nd => unsolicited_advertisement(ctx, packet),
        _ => Ok(None),
    }
}

fn may_be_claimed(ctx: &GatewayContext<'_>, address: IpAddr) -> bool {
    ctx.shared.contains(&address) || (ctx.waits && ctx.addresses.contains(&address))
}

/// Request or reply: implementations send either, and receivers heed both.
fn gratuitous_arp(ctx: &GatewayContext<'_>, packet: &[u8]) -> Result<Option<Claim>, DropReason> {
    let parsed = ArpPacket::new_checked(packet).and_then(|packet| ArpRepr::parse(&packet));
    let Ok(ArpRepr::EthernetIpv4 {
        source_hardware_addr, source_protocol_addr, target_protocol_addr, ..
    }) = parsed
    else {
        return Ok(None);
    };
    let address = IpAddr::V4(source_protocol_addr);
    if source_protocol_addr != target_protocol_addr || !may_be_claimed(ctx, address) {
        return Ok(None);
    }
    if source_hardware_addr != ctx.mac {
        return Err(DropReason::SpoofedMac);
    }
    Ok(Some(Claim { address, overrides: true }))
}

fn unsolicited_advertisement(ctx: &GatewayContext<'_>, packet: &[u8]) -> Result<Option<Claim>, DropReason> {
    let Ok(ip) = Ipv6Packet::new_checked(packet) else { return Ok(None) };
    let [136, 0, _, _, flags, _, _, _, rest @ ..] = ip.payload() else { return Ok(None) };
    let Some((target, options)) = rest.split_first_chunk::<16>() else { return Ok(None) };
    let address = IpAddr::from(*target);
    if flags & nd::FLAG_SOLICITED != 0 || !may_be_claimed(ctx, address) {
        return Ok(None);
    }
    nd::check(&ip)?;
    let source = ip.src_addr();
    if IpAddr::V6(source) != address && ctx.may_speak6(source).is_err() {
        return Err(DropReason::SpoofedAddress);
    }
    nd::check_link_layer(ctx, nd::OPTION_TARGET_LINK_LAYER, options)?;
    Ok(Some(Claim { address, overrides: flags & nd::FLAG_OVERRIDE != 0 }))
}
