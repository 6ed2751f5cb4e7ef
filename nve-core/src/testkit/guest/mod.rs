//! A guest: a smoltcp stack behind a virtio-net device, or only the device, for frames made by hand.
//!
//! What must stay true: a guest knows what a real one would: its configuration or its lease, and what its link answers. Nothing is
//! put into its neighbour cache, and no checksum is waved through.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};

use super::fabric::HostId;
use super::plan::{Configured, GuestPlan};
use super::recorder::Place;
use crate::addr::Vnet;
use crate::gateway::GATEWAY_LINK_LOCAL;
use crate::pipeline::{PortId, Receiver};
use crate::setup::{Network, default_gateway4};

mod device;
mod inspect;

pub(super) use device::NetDevice;
pub use device::Sends;

/// What a guest was told by DHCPv4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its address and prefix length.
    pub address: (Ipv4Addr, u8),
    /// Its default router.
    pub router: Option<Ipv4Addr>,
    /// Its resolvers.
    pub resolvers: Vec<Ipv4Addr>,
}

/// One guest of a world.
pub struct Guest {
    /// Name of its attachment.
    pub name: String,
    /// Its MAC.
    pub mac: EthernetAddress,
    pub(super) host: HostId,
    pub(super) port: PortId,
    pub(super) place: Place,
    pub(super) receives: Receiver,
    /// What it may be called, and by whom: its own addresses, and its network's prefixes.
    addresses: Vec<IpAddr>,
    network: (Option<Ipv4Cidr>, Option<Vnet>),
    /// What it may get and hear from beside.
    lent: Lent,
    pub(super) device: NetDevice,
    pub(super) sockets: SocketSet<'static>,
    interface: Option<Interface>,
    dhcp: Option<SocketHandle>,
    lease: Option<Lease>,
}

/// What a plan lends to a guest, and to the others of its network.
#[derive(Clone, Debug, Default)]
pub(super) struct Lent {
    /// Virtual MACs of its own.
    pub(super) macs: Vec<EthernetAddress>,
    /// Prefixes behind it.
    pub(super) behind: Vec<IpCidr>,
    /// Addresses it may hold in turn with others.
    pub(super) shared: Vec<IpAddr>,
    /// Prefixes behind anybody of its network.
    pub(super) of_network: Vec<IpCidr>,
}

impl Lent {
    fn destination(&self, address: IpAddr) -> bool {
        self.shared.contains(&address) || contains(&self.behind, address)
    }
    fn source(&self, address: IpAddr) -> bool {
        contains(&self.of_network, address)
    }
}

fn contains(prefixes: &[IpCidr], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains_addr(&address.into()))
}

/// Where a guest is plugged in, and the MTU it is told there.
pub(super) struct Plug {
    pub(super) host: HostId,
    pub(super) port: PortId,
    pub(super) place: Place,
    pub(super) mtu: u16,
    pub(super) lent: Lent,
}

/// smoltcp's idea of virtual time.
fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

/// The link-local address made of a MAC (RFC 4291, appendix A).
fn link_local(mac: EthernetAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

impl Guest {
    pub(super) fn new(
        plan: &GuestPlan,
        network: Option<&Network>,
        plug: Plug,
        seed: u64,
        now: Duration,
    ) -> Self {
        let (medium, hardware) = match network {
            Some(_) => (Medium::Ethernet, HardwareAddress::Ethernet(plan.mac)),
            None => (Medium::Ip, HardwareAddress::Ip),
        };
        let mut device = NetDevice::new(plug.mtu, plan.sends, medium);
        let mut sockets = SocketSet::new(Vec::new());
        let mut config = Config::new(hardware);
        config.random_seed = seed;
        let interface = match plan.configured {
            Configured::ByHand => None,
            _ => Some(Interface::new(config, &mut device, instant(now))),
        };
        let dhcp = (plan.configured == Configured::ByDhcp).then(|| sockets.add(dhcpv4::Socket::new()));
        let mut guest = Self {
            name: plan.name.clone(),
            mac: plan.mac,
            host: plug.host,
            port: plug.port,
            place: plug.place,
            receives: plan.receives,
            addresses: plan.addresses.clone(),
            network: network.map_or((None, None), |network| (network.ipv4, network.ipv6)),
            lent: plug.lent,
            device,
            sockets,
            interface,
            dhcp,
            lease: None,
        };
        match network {
            Some(network) => guest.configure(plan, network),
            None => guest.configure_task(),
        }
        guest
    }

    fn configure(&mut self, plan: &GuestPlan, network: &Network) {
        let Some(interface) = &mut self.interface else { return };
        let own = link_local(self.mac);
        let mut cidrs = vec![IpCidr::Ipv6(Ipv6Cidr::new(own, 64))];
        for address in &plan.addresses {
            match (address, plan.configured) {
                (IpAddr::V4(_), Configured::ByDhcp) => {}
                (IpAddr::V4(v4), _) => {
                    let len = network.ipv4.map_or(32, |prefix| prefix.prefix_len());
                    cidrs.push(IpCidr::new((*v4).into(), len));
                }
                // What DHCPv6 gives is one address; the rest of the /96 is behind the router.
                (IpAddr::V6(v6), Configured::OnLink) => cidrs.push(IpCidr::new((*v6).into(), 96)),
                (IpAddr::V6(v6), _) => cidrs.push(IpCidr::new((*v6).into(), 128)),
            }
        }
        let host =
            |address: &IpAddr| IpCidr::new((*address).into(), if address.is_ipv4() { 32 } else { 128 });
        cidrs.extend(plan.answers.iter().map(host));
        interface.update_ip_addrs(|all| {
            cidrs.into_iter().for_each(|cidr| all.push(cidr).expect("room for the addresses of a guest"));
        });
        let routes = interface.routes_mut();
        routes.add_default_ipv6_route(GATEWAY_LINK_LOCAL).expect("room for a route");
        if let (Some(prefix), true) = (network.ipv4, plan.configured != Configured::ByDhcp) {
            let gateway = network.gateway4.or_else(|| default_gateway4(prefix)).expect("a gateway");
            routes.add_default_ipv4_route(gateway).expect("room for a route");
        }
    }

    /// A task has its addresses, and everybody is behind its TUN.
    fn configure_task(&mut self) {
        let Some(interface) = &mut self.interface else { return };
        let addresses = &self.addresses;
        interface.update_ip_addrs(|all| {
            let cidrs = addresses.iter().map(|address| IpCidr::new((*address).into(), 128));
            cidrs.for_each(|cidr| all.push(cidr).expect("room for the addresses of a task"));
        });
        let route = interface.routes_mut().add_default_ipv6_route(GATEWAY_LINK_LOCAL);
        route.expect("room for a route");
    }

    /// What DHCPv4 told it, once it did.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Its stack, to open connections with.
    ///
    /// # Panics
    /// If it is a guest without one.
    pub(super) fn stack(&mut self) -> (&mut Interface, &mut SocketSet<'static>) {
        (self.interface.as_mut().expect("a guest with a stack"), &mut self.sockets)
    }

    /// Lets the stack take what arrived and say what it has to say.
    pub(super) fn poll(&mut self, now: Duration) {
        let Some(interface) = &mut self.interface else {
            self.device.inbox.clear();
            return;
        };
        interface.poll(instant(now), &mut self.device, &mut self.sockets);
        self.learn();
    }

    /// When the stack wants to be polled next.
    pub(super) fn due(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.as_mut()?.poll_at(instant(now), &self.sockets)?;
        Some(Duration::from_micros(at.total_micros().max(0) as u64))
    }

    fn learn(&mut self) {
        let (Some(handle), Some(interface)) = (self.dhcp, &mut self.interface) else { return };
        match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            Some(dhcpv4::Event::Configured(told)) => {
                let address = told.address;
                interface.update_ip_addrs(|all| {
                    all.retain(|cidr| !matches!(cidr, IpCidr::Ipv4(_)));
                    all.push(IpCidr::Ipv4(address)).expect("room for the leased address");
                });
                if let Some(router) = told.router {
                    interface.routes_mut().add_default_ipv4_route(router).expect("room for a route");
                }
                self.lease = Some(Lease {
                    address: (address.address(), address.prefix_len()),
                    router: told.router,
                    resolvers: told.dns_servers.to_vec(),
                });
            }
            Some(dhcpv4::Event::Deconfigured) => self.lease = None,
            None => {}
        }
    }
}
