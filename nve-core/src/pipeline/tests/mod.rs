//! The walk, packet by packet, on two hosts without a fabric between them.
//!
//! ```text
//!   hv1 (2001:db8:0:1::/64)                        hv2 (2001:db8:0:2::/64)
//!     vm1  10.1.0.1  2001:db8:b1:e::1   blue         vm2  10.1.0.2  2001:db8:b1:e::2   blue
//!     vm3  10.1.0.3  2001:db8:b1:e::3   blue
//!     red1 10.1.0.1  2001:db8:b1:e:0:1:0:1  red      red2 10.1.0.2  2001:db8:b1:e:0:1:0:2  red
//! ```

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use smoltcp::wire::EthernetAddress;

use super::*;
use crate::addr::{ChecksumMode, Identifier, Locator, Neutral, SirPrefix, Vnet, Vnid};
use crate::gateway::GATEWAY_MAC;
use crate::setup::{self, Instance, Setup};
use crate::testkit::dissect::Dissected;
use crate::testkit::frames::{self, Header};

mod arrivals;
mod domains;
mod drops;
mod errors;
mod offloads;
mod outbound;
mod realms;
mod reload;
mod same_vn;
mod several;
mod totality;

/// One result of a walk, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Out {
    Local(String, Vec<u8>, Offload),
    Uplink(Vec<u8>, Offload),
    Reply(Vec<u8>, Option<DropReason>),
    Punted(Desk, Vec<u8>),
    Dropped(DropReason),
}

impl Out {
    /// The IP packet that came out, whoever it is for.
    pub(super) fn packet(&self) -> &[u8] {
        match self {
            Self::Local(_, frame, _) => &frame[14..],
            Self::Uplink(packet, _) => packet,
            Self::Reply(bytes, _) if bytes[0] >> 4 == 6 => bytes,
            Self::Reply(bytes, _) => &bytes[14..],
            Self::Punted(_, frame) => &frame[14..],
            Self::Dropped(reason) => panic!("dropped: {}", reason.name()),
        }
    }
    pub(super) fn ip(&self) -> Dissected<'_> {
        Dissected::of_ip(self.packet()).expect("an IP packet")
    }
    pub(super) fn offload(&self) -> Offload {
        match self {
            Self::Local(_, _, offload) | Self::Uplink(_, offload) => *offload,
            _ => Offload::NONE,
        }
    }
    pub(super) fn reason(&self) -> Option<DropReason> {
        match self {
            Self::Dropped(reason) | Self::Reply(_, Some(reason)) => Some(*reason),
            _ => None,
        }
    }
}

/// One host.
pub(super) struct Lab {
    pub(super) nve: Arc<Nve>,
    pub(super) walker: Walker,
    carry_out: CarryOut,
}

pub(super) const ALL_FEATURES: Receiver =
    Receiver { up: true, csum: true, tso4: true, tso6: true, ecn: true, uso: true };

pub(super) fn mac(last: u8) -> EthernetAddress {
    EthernetAddress([0x52, 0x54, 0, 0, 0, last])
}

pub(super) fn locator(host: u8) -> Locator {
    format!("2001:db8:0:{host}::/64").parse().unwrap()
}

pub(super) fn sir() -> SirPrefix {
    "2001:db8:51::/64".parse().unwrap()
}

pub(super) fn vnid(network: &str) -> Vnid {
    Vnid::new(if network == "blue" { 1001 } else { 1002 }).unwrap()
}

pub(super) fn vnet(network: &str) -> Vnet {
    let prefix = if network == "blue" { "2001:db8:b1:e::/96" } else { "2001:db8:b1:e:0:1::/96" };
    prefix.parse().unwrap()
}

pub(super) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// `SIR:(blue:address)`.
pub(super) fn sir_of(address: &str) -> IpAddr {
    sir().address(Identifier::ipv4(vnid("blue"), address.parse().unwrap())).ipv6().into()
}

/// `L:(blue:address)`, neutral.
pub(super) fn ila_of(host: u8, address: &str) -> IpAddr {
    match addr(address) {
        IpAddr::V4(v4) => {
            let identifier = Identifier::ipv4(vnid("blue"), v4);
            locator(host).neutral(identifier, Neutral::sir(locator(host), sir())).ipv6().into()
        }
        IpAddr::V6(address) => {
            let identifier = Identifier::ipv6(vnid("blue"), address.to_bits() as u32);
            let neutral = Neutral::vnet(locator(host), vnid("blue"), vnet("blue"));
            locator(host).neutral(identifier, neutral).ipv6().into()
        }
    }
}

pub(super) fn setup(host: u8, checksum: ChecksumMode) -> Setup {
    let network = |name: &str| setup::Network {
        ipv4: Some("10.1.0.0/16".parse().unwrap()),
        ipv6: Some(vnet(name)),
        ..setup::Network::named(name, vnid(name))
    };
    let guests: [(u8, &str, &str, &str, u8, &str); 5] = [
        (1, "vm1", "10.1.0.1", "2001:db8:b1:e::1", 1, "blue"),
        (1, "vm3", "10.1.0.3", "2001:db8:b1:e::3", 3, "blue"),
        (1, "red1", "10.1.0.1", "2001:db8:b1:e:0:1:0:1", 0x11, "red"),
        (2, "vm2", "10.1.0.2", "2001:db8:b1:e::2", 2, "blue"),
        (2, "red2", "10.1.0.2", "2001:db8:b1:e:0:1:0:2", 0x12, "red"),
    ];
    let (here, there): (Vec<_>, Vec<_>) = guests.into_iter().partition(|guest| guest.0 == host);
    let attachment = |(_, name, v4, v6, last, network): (u8, &str, &str, &str, u8, &str)| setup::Attachment {
        name: name.into(),
        network: network.into(),
        mac: mac(last),
        addresses: vec![addr(v4), addr(v6)],
        hostname: None,
        instance: Instance::default(),
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
    };
    let mappings = |(host, _, v4, v6, _, network): (u8, &str, &str, &str, u8, &str)| {
        [v4, v6].map(|address| setup::Mapping {
            network: network.into(),
            address: addr(address),
            locator: locator(host),
        })
    };
    Setup {
        networks: vec![network("blue"), network("red")],
        attachments: here.into_iter().map(attachment).collect(),
        mappings: there.into_iter().flat_map(mappings).collect(),
        ..Setup::of(setup::Host {
            name: format!("hv{host}"),
            locator: locator(host),
            sir: sir(),
            checksum,
            uplink_mtu: 1500,
            unknown: Default::default(),
        })
    }
}

impl Lab {
    pub(super) fn new(host: u8) -> Self {
        Self::of(setup(host, ChecksumMode::Neutral))
    }

    pub(super) fn of(setup: Setup) -> Self {
        let nve = Nve::new(setup.check().unwrap(), 100);
        for attachment in nve.ports() {
            nve.set_receiver(attachment.port, ALL_FEATURES);
        }
        let mut walker = Walker::new(nve.clone());
        walker.begin(Duration::from_secs(1));
        Self { nve, walker, carry_out: CarryOut::default() }
    }

    pub(super) fn port(&self, name: &str) -> PortId {
        self.nve.port(name).expect("an attachment of this host")
    }

    /// Everything that comes of `bytes`.
    pub(super) fn walk(&mut self, origin: Origin, bytes: &[u8], offload: Offload) -> Vec<Out> {
        let mut outs = Vec::new();
        let nve = self.nve.clone();
        self.carry_out.carry_out(&mut self.walker, origin, bytes, offload, &mut |outcome| {
            outs.push(match outcome {
                Outcome::Local(port, frame, offload) => {
                    Out::Local(nve.port_name(port).unwrap(), frame.to_vec(), offload)
                }
                Outcome::Uplink(packet, offload) => Out::Uplink(packet.to_vec(), offload),
                Outcome::Reply(bytes, reason) => Out::Reply(bytes.to_vec(), reason),
                Outcome::Punted(desk, frame) => Out::Punted(desk, frame.to_vec()),
                Outcome::Dropped(reason) => Out::Dropped(reason),
            });
        });
        outs
    }

    /// `packet` from the attachment `name`, in a frame with its MAC.
    pub(super) fn send_with(&mut self, name: &str, packet: &[u8], offload: Offload) -> Vec<Out> {
        let port = self.port(name);
        let mac = self.nve.ports().iter().find(|a| a.port == port).unwrap().mac;
        self.walk(Origin::Port(port), &frames::ethernet(mac, GATEWAY_MAC, packet), offload)
    }

    /// The same, with nothing left to finish and one result.
    pub(super) fn send(&mut self, name: &str, packet: &[u8]) -> Out {
        only(self.send_with(name, packet, Offload::NONE))
    }

    /// `packet` from the uplink.
    pub(super) fn receive(&mut self, packet: &[u8]) -> Out {
        only(self.walk(Origin::Uplink, packet, Offload::NONE))
    }

    pub(super) fn drops(&self, name: &str, reason: DropReason) -> u64 {
        let totals = self.nve.counters();
        let port = totals.ports.iter().find(|(n, _)| n == name).map(|(_, port)| port);
        let others = if name == "outside" { &totals.outside } else { &totals.uplink };
        port.unwrap_or(others).dropped(reason)
    }
}

pub(super) fn only(mut outs: Vec<Out>) -> Out {
    assert_eq!(outs.len(), 1, "{outs:?}");
    outs.remove(0)
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr(address), port)
}

pub(super) fn udp(source: &str, destination: &str, payload: usize) -> Vec<u8> {
    udp_with(Header::default(), source, destination, payload)
}

pub(super) fn udp_with(header: Header, source: &str, destination: &str, payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|i| i as u8).collect();
    frames::udp(header, socket(source, 4000), socket(destination, 4001), &payload)
}

pub(super) fn tcp(source: &str, destination: &str, payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|i| i as u8).collect();
    let flags = frames::flags::ACK | frames::flags::PSH;
    frames::tcp(Header::default(), socket(source, 4000), socket(destination, 4001), flags, &payload)
}

pub(super) fn echo(source: &str, destination: &str, payload: usize) -> Vec<u8> {
    frames::echo_request(Header::default(), addr(source), addr(destination), 7, &vec![0x5a; payload])
}
