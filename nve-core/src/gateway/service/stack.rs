//! One attachment's TCP/IP stack: frames in, frames out, time as an argument (smoltcp).
//!
//! What must stay true: nothing leaves it but to the attachment's own addresses, at its own MAC; no byte of a frame panics it.

use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpVersion, Ipv4Address, Ipv6Address};

use super::{METADATA4, METADATA6};
use crate::gateway::{GATEWAY_MAC, headers_v4, headers_v6};
use crate::packet::ETHERNET_LEN;
use crate::policy::{Attachment, Network};

pub(super) struct Stack {
    /// Whose it is; a change of any of these makes it another's.
    owner: Owner,
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Link,
    used: Duration,
}

#[derive(PartialEq, Eq)]
struct Owner {
    name: String,
    mac: EthernetAddress,
    addresses: Vec<IpAddr>,
    mtu: u16,
}

impl Owner {
    fn of(attachment: &Attachment, network: &Network) -> Self {
        Self {
            name: attachment.name.clone(),
            mac: attachment.mac,
            addresses: attachment.addresses.clone(),
            mtu: network.mtu,
        }
    }
}

impl Stack {
    pub(super) fn new(attachment: &Attachment, network: &Network, seed: u64, now: Duration) -> Self {
        let mut link = Link { mtu: usize::from(network.mtu), received: None, sent: Vec::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, instant(now));
        interface.update_ip_addrs(|addresses| {
            // smoltcp has room for at least two.
            let _ = addresses.push(IpCidr::new(METADATA4.into(), 32));
            let _ = addresses.push(IpCidr::new(METADATA6.into(), 128));
        });
        // Over a medium without addresses every next hop is the guest; any that is not our own will do. There is room for both.
        let _ = interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(169, 254, 169, 253));
        let _ = interface.routes_mut().add_default_ipv6_route(Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
        let owner = Owner::of(attachment, network);
        Self { owner, interface, sockets: SocketSet::new(Vec::new()), link, used: now }
    }

    /// Whether it is this attachment's, as it is configured now.
    pub(super) fn is_of(&self, attachment: &Attachment, network: &Network) -> bool {
        self.owner == Owner::of(attachment, network)
    }

    /// When it was last sent anything.
    pub(super) fn used(&self) -> Duration {
        self.used
    }

    /// Serves an Ethernet frame of the attachment.
    pub(super) fn take(&mut self, now: Duration, frame: &[u8], say: &mut dyn FnMut(Vec<u8>)) {
        self.used = now;
        self.link.received = frame.get(ETHERNET_LEN..).map(<[u8]>::to_vec);
        self.poll(now, say);
    }

    /// Does what is due: retransmissions, timeouts.
    pub(super) fn poll(&mut self, now: Duration, say: &mut dyn FnMut(Vec<u8>)) {
        self.interface.poll(instant(now), &mut self.link, &mut self.sockets);
        for packet in self.link.sent.drain(..) {
            if let Some(frame) = self.owner.frame(&packet) {
                say(frame);
            }
        }
    }

    /// When it is to be polled again, if ever.
    pub(super) fn due(&mut self, now: Duration) -> Option<Duration> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets)?;
        Some(now + Duration::from_micros(delay.total_micros()))
    }
}

impl Owner {
    /// `packet` in a frame for the attachment; `None` if it is for anybody else.
    fn frame(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (to, ethertype) = match IpVersion::of_packet(packet).ok()? {
            IpVersion::Ipv4 => (IpAddr::V4(headers_v4(packet)?.dst_addr()), [0x08, 0x00]),
            IpVersion::Ipv6 => (IpAddr::V6(headers_v6(packet)?.dst_addr()), [0x86, 0xdd]),
        };
        let header = [self.mac.as_bytes(), GATEWAY_MAC.as_bytes(), &ethertype].concat();
        self.addresses.contains(&to).then(|| [&header, packet].concat())
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// The wire between the stack and its attachment: IP packets, one received at a time.
struct Link {
    mtu: usize,
    received: Option<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        // One turn says a window's worth at most; the rest is said when that is acknowledged.
        (self.sent.len() < MOST_AT_ONCE).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// Packets that one frame, or one moment, brings at most.
const MOST_AT_ONCE: usize = 32;

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}
