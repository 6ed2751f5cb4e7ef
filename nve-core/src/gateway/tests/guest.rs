//! A foreign network stack on the gateway's link: smoltcp's own DHCP client, ARP, neighbour discovery and ping.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::time::Instant;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr};

use super::*;

/// The link: what the guest sends is answered at once.
struct Link {
    now: Duration,
    limits: Limits,
    to_guest: VecDeque<Vec<u8>>,
    drops: Vec<DropReason>,
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for &mut Link {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let (mut frame, mut out) = (vec![0; len], [0xaa; 2048]);
        let result = write(&mut frame);
        match answer(&context(), &mut self.limits, self.now, &Frame::whole(&frame), &mut out) {
            Answer::Reply(reply) => self.to_guest.push_back(bytes_of(&reply, &out, &frame)),
            Answer::Drop(reason) => self.drops.push(reason),
            Answer::Owed(..) | Answer::Claim(_) | Answer::Again(_) | Answer::Punt(_) | Answer::LetGo => {}
        }
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = &'a mut Link;

    fn receive(&mut self, _: Instant) -> Option<(Received, &mut Link)> {
        let frame = self.to_guest.pop_front()?;
        Some((Received(frame), self))
    }

    fn transmit(&mut self, _: Instant) -> Option<&mut Link> {
        Some(self)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1494;
        capabilities
    }
}

struct Guest {
    link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Guest {
    fn new() -> Self {
        let mut link = Link {
            now: Duration::ZERO,
            limits: Limits::default(),
            to_guest: VecDeque::new(),
            drops: Vec::new(),
        };
        let interface = Interface::new(Config::new(MAC.into()), &mut link, Instant::ZERO);
        Self { link, interface, sockets: SocketSet::new(Vec::new()) }
    }

    /// Lets `seconds` of virtual time go by.
    fn run(&mut self, seconds: u64) {
        let end = self.link.now + Duration::from_secs(seconds);
        while self.link.now < end {
            self.link.now += Duration::from_millis(50);
            let now = Instant::from_micros(self.link.now.as_micros() as i64);
            self.interface.poll(now, &mut self.link, &mut self.sockets);
        }
    }

    fn lease(&mut self, client: SocketHandle) -> Option<dhcpv4::Config<'_>> {
        match self.sockets.get_mut::<dhcpv4::Socket<'_>>(client).poll()? {
            dhcpv4::Event::Configured(config) => Some(config),
            dhcpv4::Event::Deconfigured => None,
        }
    }

    /// Whether `to` answers echo requests.
    fn ping(&mut self, to: IpAddress) -> bool {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 1024]);
        let handle = self.sockets.add(icmp::Socket::new(buffer(), buffer()));
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(handle);
        socket.bind(icmp::Endpoint::Ident(77)).unwrap();
        match to {
            IpAddress::Ipv4(_) => {
                let echo = Icmpv4Repr::EchoRequest { ident: 77, seq_no: 1, data: b"ping" };
                let room = socket.send(echo.buffer_len(), to).unwrap();
                echo.emit(&mut Icmpv4Packet::new_unchecked(room), &ChecksumCapabilities::default());
            }
            IpAddress::Ipv6(to6) => {
                let echo = Icmpv6Repr::EchoRequest { ident: 77, seq_no: 1, data: b"ping" };
                let room = socket.send(echo.buffer_len(), to).unwrap();
                let from = self.interface.get_source_address_ipv6(&to6);
                echo.emit(
                    &from,
                    &to6,
                    &mut Icmpv6Packet::new_unchecked(room),
                    &ChecksumCapabilities::default(),
                );
            }
        }
        self.run(3);
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(handle);
        let answered = socket.recv().is_ok_and(|(_, from)| from == to);
        self.sockets.remove(handle);
        answered
    }
}

#[test]
fn a_foreign_dhcp_client_gets_its_lease_and_renews_it() {
    let mut guest = Guest::new();
    let client = guest.sockets.add(dhcpv4::Socket::new());
    guest.run(15);
    let lease = guest.lease(client).expect("a lease");
    assert_eq!(lease.address, Ipv4Cidr::new(OWN4, 16));
    assert_eq!(lease.router, Some(GATEWAY4));
    assert_eq!(lease.dns_servers[..], [Ipv4Addr::new(10, 1, 0, 53)]);
    assert_eq!(lease.server.identifier, GATEWAY4);

    guest.interface.update_ip_addrs(|list| list.push(IpCidr::new(OWN4.into(), 16)).unwrap());
    guest.run(2 * 3600);
    let lost = guest.sockets.get_mut::<dhcpv4::Socket<'_>>(client).poll();
    assert!(lost != Some(dhcpv4::Event::Deconfigured), "renewed by unicast");
    assert_eq!(guest.link.drops, [], "nothing the client said was refused");
}

#[test]
fn a_foreign_stack_resolves_and_pings_every_gateway_address() {
    let with = |address: IpAddress, bits, gateway: IpAddress| {
        let mut guest = Guest::new();
        guest.interface.update_ip_addrs(|list| list.push(IpCidr::new(address, bits)).unwrap());
        guest.ping(gateway)
    };
    assert!(with(OWN4.into(), 16, GATEWAY4.into()));
    assert!(with(OWN6.into(), 96, GATEWAY6.into()));
    assert!(with(OWN_LINK_LOCAL.into(), 64, GATEWAY_LINK_LOCAL.into()));
    assert!(!with(OWN4.into(), 16, PEER4.into()), "only the gateway is on this link");
}
