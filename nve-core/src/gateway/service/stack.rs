//! One attachment's TCP/IP stack: frames in, frames out, time as an argument (smoltcp).
//!
//! What must stay true: nothing leaves it but to the attachment's own addresses, at its own MAC; no byte of a frame panics it; it holds at
//! most [`MOST_CONNECTIONS`], each for a bounded time, so about 100 kB whatever the guest does.

use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpVersion, Ipv4Address, Ipv6Address};

use super::connection::{self, Connection};
use super::http::{Asked, Reply};
use super::metadata::Asker;
use super::{METADATA4, METADATA6};
use crate::addr::{DomainId, Vnid};
use crate::gateway::{GATEWAY_MAC, headers_v4, headers_v6};
use crate::packet::ETHERNET_LEN;

pub(super) struct Stack {
    /// Whose it is; a change of any of these makes it another's.
    owner: Owner,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Each socket, and what has become of it once somebody connected.
    connections: Vec<(SocketHandle, Option<Connection>)>,
    link: Link,
    used: Duration,
}

#[derive(PartialEq, Eq)]
struct Owner {
    name: String,
    /// A reload may move an attachment to another network, under the same number and addresses.
    network: (DomainId, Vnid),
    mac: EthernetAddress,
    addresses: Vec<IpAddr>,
    mtu: u16,
}

impl Owner {
    fn of(Asker { attachment, network }: &Asker<'_>) -> Self {
        Self {
            name: attachment.name.clone(),
            network: network.number(),
            mac: attachment.mac,
            addresses: attachment.addresses.clone(),
            mtu: network.mtu,
        }
    }
}

impl Stack {
    pub(super) fn new(asker: &Asker<'_>, seed: u64, now: Duration) -> Self {
        let mut link = Link { mtu: usize::from(asker.network.mtu), received: None, sent: Vec::new() };
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
        let owner = Owner::of(asker);
        let sockets = SocketSet::new(Vec::new());
        let mut stack = Self { owner, interface, sockets, connections: Vec::new(), link, used: now };
        stack.listen();
        stack
    }

    /// Whether it is this attachment's, as it is configured now.
    pub(super) fn is_of(&self, asker: &Asker<'_>) -> bool {
        self.owner == Owner::of(asker)
    }

    /// When it was last sent anything.
    pub(super) fn used(&self) -> Duration {
        self.used
    }

    /// Serves an Ethernet frame of the attachment.
    pub(super) fn take(
        &mut self,
        now: Duration,
        frame: &[u8],
        answer: &dyn Fn(&Asked) -> Reply,
        say: &mut dyn FnMut(Vec<u8>),
    ) {
        self.used = now;
        self.link.received = frame.get(ETHERNET_LEN..).map(<[u8]>::to_vec);
        self.poll(now, answer, say);
    }

    /// Does what is due: retransmissions, ends of connections.
    pub(super) fn poll(
        &mut self,
        now: Duration,
        answer: &dyn Fn(&Asked) -> Reply,
        say: &mut dyn FnMut(Vec<u8>),
    ) {
        self.interface.poll(instant(now), &mut self.link, &mut self.sockets);
        let over = self.serve(now, answer);
        // What was answered leaves.
        self.interface.poll(instant(now), &mut self.link, &mut self.sockets);
        self.connections.retain(|(handle, _)| {
            let is_over = over.contains(handle);
            if is_over {
                self.sockets.remove(*handle);
            }
            !is_over
        });
        self.listen();
        for packet in self.link.sent.drain(..) {
            if let Some(frame) = self.owner.frame(&packet) {
                say(frame);
            }
        }
    }

    /// Every connection moves on; those that are over.
    fn serve(&mut self, now: Duration, answer: &dyn Fn(&Asked) -> Reply) -> Vec<SocketHandle> {
        let mut over = Vec::new();
        for (handle, connection) in &mut self.connections {
            let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
            if socket.state() == State::Listen {
                // Also again, after a reset of one that was half open: what comes next is as young as any.
                *connection = None;
                continue;
            }
            let connection = connection.get_or_insert_with(|| Connection::new(now));
            if !connection.go_on(now, socket, answer) {
                over.push(*handle);
            }
        }
        over
    }

    /// One socket waits for the next connection, where there may be one more.
    fn listen(&mut self) {
        let waits = self.connections.iter().any(|(_, connection)| connection.is_none());
        if !waits && self.connections.len() < MOST_CONNECTIONS {
            let handle = self.sockets.add(connection::listener());
            self.connections.push((handle, None));
        }
    }

    /// When it is to be polled again, if ever.
    pub(super) fn due(&mut self, now: Duration) -> Option<Duration> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets);
        let delay = delay.map(|delay| now + Duration::from_micros(delay.total_micros()));
        self.connections.iter().flat_map(|(_, connection)| connection).map(Connection::end).chain(delay).min()
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
        // One turn says a window's worth at most; the rest comes in the next.
        (self.sent.len() < MOST_AT_ONCE).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// Connections of one attachment at once, half open ones included; further ones are refused (RST).
const MOST_CONNECTIONS: usize = 6;

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
