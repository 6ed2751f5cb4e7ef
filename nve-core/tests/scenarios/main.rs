//! Whole scenarios in the world in memory: guests with their own stacks, NVEs, and a fabric, in virtual time.
//!
//! Every packet on every link and every frame to every guest is judged besides what a test asks for (`nve_core::testkit`); a
//! test that fails leaves `target/testkit/NAME.pcapng`.

mod bad_roads;
mod checksums;
mod fabric_errors;
mod isolation;
mod linux_peers;
mod metadata;
mod migration;
mod names;
mod narrow_paths;
mod offloads;
mod one_host;
mod realms;
mod redirects;
mod router_vms;
mod shared_addresses;
mod strangers;
mod the_link;
mod the_world_itself;
mod to_many;
mod two_hosts;

use core::net::{IpAddr, SocketAddr};

use nve_core::addr::ChecksumMode;
use nve_core::testkit::{GuestPlan, Plan};

/// The addresses of the first guest: IPv4, IPv6.
const VM1: [&str; 2] = ["10.1.0.1", "2001:db8:b1:e::1"];
/// And of the second.
const VM2: [&str; 2] = ["10.1.0.2", "2001:db8:b1:e::2"];
/// The gateway's, as each family sees it.
const GATEWAY: [&str; 2] = ["10.1.255.254", "2001:db8:b1:e::ffff:fffe"];

/// One network and two hosts without guests.
fn two_hosts_in(first: ChecksumMode, second: ChecksumMode) -> Plan {
    Plan::new(1)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .host_in("hv1", first)
        .host_in("hv2", second)
}

/// `vm1` on `hv1` and `vm2` on `hv2`, both neutral.
fn two_hosts() -> Plan {
    two_hosts_in(ChecksumMode::Neutral, ChecksumMode::Neutral)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1))
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2))
}

/// The same, for frames made by hand.
fn two_hosts_by_hand() -> Plan {
    two_hosts_in(ChecksumMode::Neutral, ChecksumMode::Neutral)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_hand())
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn endpoint(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(text), port)
}
