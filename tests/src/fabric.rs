//! Hosts and the fabric between them, as network namespaces: two, or as many as a test names.
//!
//! ```text
//!            2001:db8:f:1::/64                  2001:db8:f:2::/64
//!   hv1 [fabric0] ::2 ────────── ::1 [hv1] fabric [hv2] ::1 ────────── ::2 [fabric0] hv2
//!   locator 2001:db8:0:1::/64    │ routes: a locator to its host,     locator 2001:db8:0:2::/64
//!                                │ SIR and VNETs to hv1
//! ```
//!
//! The fabric is nothing but Linux forwarding plain IPv6: it knows no virtual network.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::process::wait_for;

/// The SIR prefix of the one domain.
pub const SIR: &str = "2001:db8:51::/64";

/// The name of the hosts' TUN interface.
pub const TUN: &str = "ila0";

/// The offloads that let a veth carry what a wire would not: partial checksums and super-packets.
pub const OFFLOADS: [&str; 6] = ["tx", "tso", "gso", "gro", "tx-udp-segmentation", "rx"];

/// How long the kernel may take to bring a link up. It looks for new carriers once a second, or when somebody asks.
const LINKS_LIMIT: Duration = Duration::from_secs(10);

/// A host: a namespace with an uplink and, once a daemon runs in it, a TUN.
#[derive(Clone, Debug)]
pub struct Host {
    /// `hv1`, `hv2` and so on.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its number, from 1, part of all its addresses.
    number: u8,
}

impl Host {
    /// The locator's upper 64 bits as text that an interface identifier can follow: `2001:db8:0:1::`.
    pub fn locator_stem(&self) -> String {
        format!("2001:db8:0:{}::", self.number)
    }

    /// Its locator in the domain of number `domain`, counted from the one without a name: of that it is [`Host::locator`].
    pub fn locator_in(&self, domain: u8) -> String {
        format!("2001:db8:{domain}:{}::/64", self.number)
    }

    /// The locator prefix, a /64.
    pub fn locator(&self) -> String {
        format!("{}/64", self.locator_stem())
    }

    /// The fabric's next hop as this host sees it.
    pub fn gateway(&self) -> String {
        format!("2001:db8:f:{}::1", self.number)
    }

    /// This host's address on its link to the fabric.
    pub fn underlay(&self) -> String {
        format!("2001:db8:f:{}::2", self.number)
    }

    /// What an operator sets on a host whose daemon has made the TUN: the locator, the SIR prefix and the VNETs lead to the
    /// TUN, but what comes out of the TUN never goes back into it.
    ///
    /// # Errors
    ///
    /// Fails when there is no TUN.
    pub fn route_to_tun(&self, vnets: &[String]) -> Result<()> {
        let host = &self.namespace;
        host.ip(&format!("-6 route replace {} dev {TUN}", self.locator()))?;
        for prefix in vnets.iter().map(String::as_str).chain([SIR]) {
            host.ip(&format!("-6 route replace {prefix} dev {TUN}"))?;
        }
        Ok(())
    }

    /// What an operator sets on a host before the daemon runs.
    fn prepare(&self) -> Result<()> {
        let host = &self.namespace;
        host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        host.ip(&format!("-6 addr add {}/64 dev fabric0 nodad", self.underlay()))?;
        host.ip("link set dev fabric0 up")?;
        host.ip(&format!("-6 route add default via {}", self.gateway()))?;
        host.ip(&format!("-6 addr add {}1/128 dev lo nodad", self.locator_stem()))?;
        host.ip(&format!("-6 route add default via {} table 100", self.gateway()))?;
        host.ip(&format!("-6 rule add iif {TUN} lookup 100 pref 100")).map(drop)
    }
}

/// The names of the hosts where a test says nothing else.
pub const TWO: [&str; 2] = ["hv1", "hv2"];

/// The router and its hosts.
#[derive(Clone, Debug)]
pub struct Fabric {
    /// The router's namespace; its interfaces are named after the hosts they lead to.
    pub router: Namespace,
    /// The hosts, in the order of their numbers.
    pub hosts: Vec<Host>,
}

impl Fabric {
    /// Builds a fabric of two hosts. `vnets` are the IPv6 prefixes of virtual networks, routed to hv1 as the SIR prefix is.
    ///
    /// # Errors
    ///
    /// Fails when `ip` does.
    pub fn new(vnets: &[String]) -> Result<Fabric> {
        Fabric::of(&TWO, 0, vnets)
    }

    /// Builds a fabric of the hosts `names`. The SIR prefix and the `vnets` are routed to the one of index `anycast`.
    ///
    /// # Errors
    ///
    /// Fails when `ip` does, or `names` has no index `anycast`.
    pub fn of(names: &[&str], anycast: usize, vnets: &[String]) -> Result<Fabric> {
        let router = Namespace::new("fabric")?;
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let hosts = (1..).zip(names).map(|(number, name)| Fabric::host(&router, number, name));
        let hosts = hosts.collect::<Result<Vec<_>>>()?;
        let next = hosts.get(anycast).context("nobody takes what is for the SIR prefix")?.underlay();
        for prefix in vnets.iter().map(String::as_str).chain([SIR]) {
            router.ip(&format!("-6 route add {prefix} via {next}"))?;
        }
        let fabric = Fabric { router, hosts };
        fabric.wait_for_links()?;
        Ok(fabric)
    }

    /// Waits until both ends of every link have a link-local address. Who has none cannot ask for the next hop's MAC address, and tries
    /// again after a second: by so much the first packet would be late.
    fn wait_for_links(&self) -> Result<()> {
        for host in &self.hosts {
            for (namespace, interface) in [(&self.router, &*host.name), (&host.namespace, "fabric0")] {
                let what = format!("the link-local address of {interface} in {}", namespace.name());
                wait_for(&what, LINKS_LIMIT, || {
                    let said =
                        namespace.ip(&format!("-6 -o addr show dev {interface} scope link -tentative"))?;
                    Ok((!said.is_empty()).then_some(()))
                })?;
            }
        }
        Ok(())
    }

    fn host(router: &Namespace, number: u8, name: &str) -> Result<Host> {
        let host = Host { namespace: Namespace::new(name)?, name: name.to_owned(), number };
        let name = &host.name;
        router.ip(&format!("link add {name} type veth peer name fabric0 netns {name}"))?;
        router.ip(&format!("-6 addr add {}/64 dev {name} nodad", host.gateway()))?;
        router.ip(&format!("link set dev {name} up"))?;
        host.prepare()?;
        router.ip(&format!("-6 route add {} via {}", host.locator(), host.underlay()))?;
        Ok(host)
    }

    /// Has the fabric know one more SIR prefix, and the locators in it of all hosts, each of which has its control address in the domain of
    /// that number.
    ///
    /// # Errors
    ///
    /// Fails when `ip` does.
    pub fn add_domain(&self, domain: u8, sir: &str, anycast: usize) -> Result<()> {
        let next = self.hosts.get(anycast).context("nobody takes what is for the SIR prefix")?.underlay();
        self.router.ip(&format!("-6 route add {sir} via {next}"))?;
        for host in &self.hosts {
            let locator = host.locator_in(domain);
            self.router.ip(&format!("-6 route add {locator} via {}", host.underlay()))?;
            host.namespace
                .ip(&format!("-6 addr add {}/128 dev lo nodad", locator.replace("::/64", "::1")))?;
        }
        Ok(())
    }

    /// A link for a host that is a machine of its own: the interface `hvNUMBER` of the router, a tap, and the route of its locator.
    /// The machine has `2001:db8:f:NUMBER::2` on it.
    ///
    /// # Errors
    ///
    /// Fails when `ip` does.
    pub fn tap(&self, number: u8) -> Result<String> {
        let name = format!("hv{number}");
        self.router.ip(&format!("tuntap add {name} mode tap"))?;
        self.router.ip(&format!("-6 addr add 2001:db8:f:{number}::1/64 dev {name} nodad"))?;
        self.router.ip(&format!("link set dev {name} up"))?;
        self.router.ip(&format!("-6 route add 2001:db8:0:{number}::/64 via 2001:db8:f:{number}::2"))?;
        Ok(name)
    }

    /// Turns the [`OFFLOADS`] of every veth `on` or `off`.
    ///
    /// # Errors
    ///
    /// Fails when `ethtool` does.
    pub fn offloads(&self, state: &str) -> Result<()> {
        for host in &self.hosts {
            self.router.offloads(&host.name, &OFFLOADS, state)?;
            host.namespace.offloads("fabric0", &OFFLOADS, state)?;
        }
        Ok(())
    }

    /// Sets the MTU of the link to `hosts[index]` at both ends: the router refuses what is too big on its way there, the host's kernel
    /// what is on its way from there. The daemon is not told.
    ///
    /// # Errors
    ///
    /// Fails when `ip` does.
    pub fn narrow(&self, index: usize, mtu: u16) -> Result<()> {
        self.router.ip(&format!("link set dev {} mtu {mtu}", self.hosts[index].name))?;
        self.hosts[index].namespace.ip(&format!("link set dev fabric0 mtu {mtu}")).map(drop)
    }
}
