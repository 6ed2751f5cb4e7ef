//! What the hosts of the reference network are told beside networks and machines: tasks, what stands for whom, and who may talk to whom.
//!
//! Every host is told all rules: each of the two edges of a crossing judges by its own.

use std::fmt::Write as _;

use super::scenario::SCENARIOS;
use super::{ALIASES, GATEWAY, HOSTS, INTERNET_TUN, TASKS, TENANTS, Task};

/// The text for the host of index `host`; `locators` are those of all hosts.
pub(super) fn text(host: usize, locators: &[String]) -> String {
    let mut text = String::new();
    for Task { name, host: home, address } in TASKS {
        let lines = if home == host {
            format!("[attachment.{name}]\nkind = \"tun\"\naddresses = [\"{address}\"]\n\n")
        } else {
            format!("[[mapping]]\naddress = \"{address}\"\nlocator = \"{}\"\n\n", locators[home])
        };
        text += &lines;
    }
    let gateway = if HOSTS[host] == GATEWAY { internet_side() } else { String::new() };
    text + &services() + &aliases() + &crossings() + &gateway
}

/// The gateway's second TUN: what comes from it has come from the Internet.
fn internet_side() -> String {
    format!("[gateway]\ntun = \"{INTERNET_TUN}\"\n")
}

/// T4 serves the tenants of the first network: scenarios 4 and 8.
fn services() -> String {
    let [.., t4] = TASKS;
    let asked = SCENARIOS.iter().filter(|scenario| scenario.to == t4.name);
    let ports = asked.flat_map(|scenario| {
        let (port, closed) = (scenario.port(), scenario.closed_port());
        [format!("tcp {port}"), format!("udp {port}"), format!("udp {closed}")]
    });
    // And what traceroute asks.
    let ports: Vec<String> = ports.chain(["icmp", "udp 33434-33534"].map(str::to_owned)).collect();
    format!("[service.{}]\naddress = \"{}\"\nfrom = [\"vni1\"]\nports = {ports:?}\n\n", t4.name, t4.address)
}

fn aliases() -> String {
    let [va1, .., va4] = TENANTS;
    let [.., t4] = TASKS;
    let mut text = String::new();
    for (name, network, address) in ALIASES {
        let of = match name {
            "ADDR4" => format!("of = \"{}\"", t4.address),
            "SADDR1" => format!("of = \"{}\"\nof_network = \"{}\"", va1.ipv4, va1.network.name),
            "SADDR4" => format!("of = \"{}\"\nof_network = \"{}\"", va4.ipv4, va4.network.name),
            _ => format!("of = \"{}\"", va1.ipv6),
        };
        writeln!(text, "[[alias]]\nnetwork = \"{network}\"\naddress = \"{address}\"\n{of}\n").ok();
    }
    text
}

/// (from, to, the only one that may be asked there) of scenarios 2, 3, 5, 6, 7, and 11 to 13.
fn crossings() -> String {
    let [va1, .., va4] = TENANTS;
    let [_, _, t3, _] = TASKS;
    let rules = [
        ("tasks", "outside", None),
        ("outside", "tasks", Some(t3.address)),
        ("tasks", "vni2", Some(va4.ipv6)),
        ("vni2", "outside", None),
        ("outside", "vni2", Some(va4.ipv6)),
        ("vni2", "vni1", Some(va1.ipv6)),
        ("vni2", "vni1", Some(va1.ipv4)),
    ];
    let mut text = String::new();
    for (from, to, only) in rules {
        let only = only.map_or(String::new(), |address| format!("to_addresses = [\"{address}\"]\n"));
        writeln!(text, "[[crossing]]\nfrom = \"{from}\"\nto = \"{to}\"\nreplies = true\n{only}").ok();
    }
    text
}
