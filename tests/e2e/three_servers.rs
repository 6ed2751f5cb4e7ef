//! Three hosts with one address each and a client of sixteen: where several may have what packets go to.
//!
//! ```text
//!   hv1: client, sixteen addresses      hv2, hv3, hv4: s2, s3, s4, each with the server's address
//! ```

use vhost_ila_tests::site::{Plan, Site};
use vhost_ila_tests::task::Task;

/// Of all three.
pub(crate) const SERVER: &str = "2001:db8:51:0:2000::99";

/// The client's.
pub(crate) fn sources() -> Vec<String> {
    (0x11..0x21).map(|n| format!("2001:db8:51:0:2000::{n:x}")).collect()
}

/// Of `hvN`.
pub(crate) fn locator(host: u8) -> String {
    format!("2001:db8:0:{host}::/64")
}

/// What a server's host has: the server, and where the client's addresses are.
fn server(name: &str) -> String {
    let client = sources().into_iter();
    let client =
        client.map(|address| format!("[[mapping]]\naddress = \"{address}\"\nlocator = \"{}\"\n", locator(1)));
    Task::toml(name, SERVER) + &client.collect::<String>()
}

fn client(more: &str) -> String {
    format!("[attachment.client]\nkind = \"tun\"\naddresses = {:?}\n{more}", sources())
}

/// The client has `more` in its host's configuration.
pub(crate) fn plan(more: &str) -> Plan {
    let servers = ["s2", "s3", "s4"].map(server);
    let host_text = (0..).zip([client(more)].into_iter().chain(servers)).collect();
    Plan { hosts: vec!["hv1", "hv2", "hv3", "hv4"], host_text, ..Plan::of(&[]) }
}

/// All of them plugged in: the client, then the servers.
pub(crate) fn plugged(site: &Site) -> Vec<Task> {
    let places = [
        ("client", 0, sources()[0].clone()),
        ("s2", 1, SERVER.into()),
        ("s3", 2, SERVER.into()),
        ("s4", 3, SERVER.into()),
    ];
    let plug = |(name, host, address): (&str, usize, String)| {
        let task = Task::new(name, &site.fabric.hosts[host], &address, site.config(host)).unwrap();
        task.plug().unwrap();
        task
    };
    let tasks: Vec<_> = places.into_iter().map(plug).collect();
    for address in sources() {
        // One of them has it from `plug`.
        let _ = tasks[0].namespace.ip(&format!("-6 addr add {address}/128 dev eth0 nodad"));
    }
    tasks
}
