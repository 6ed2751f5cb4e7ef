//! The Internet: tasks and tenants reach it untranslated, a gateway brings in what may come, and a NAT64 of somebody else's takes IPv4 out
//! (draft, scenarios 2, 3, 6 and 7; RFC 6052).
//!
//! ```text
//!   hv1: task web (T1)      hv2: vm2 (VA4, VA2)        nat64: tayga ── server4, which has IPv4 only
//!          └────────────── fabric ────────┴───────────────┘
//!                            │
//!                           gw [fabric0] ── kernel ── [inet0] ── internet (Iaddr)
//!                               main table: SIR, VNET -> ila0        iif inet0: SIR, VNET -> ila-in0, from outside
//! ```

use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use vhost_ila_tests::capture::Capture;
use vhost_ila_tests::fabric::{Host, SIR};
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::namespace::Namespace;
use vhost_ila_tests::oracle;
use vhost_ila_tests::process::{Owned, output};
use vhost_ila_tests::site::{BLUE, Plan, Site, VM2};
use vhost_ila_tests::task::{Server, Task, pinged, stream};
use vhost_ila_tests::tools::Set;

const WEB: &str = "2001:db8:51:0:2000::11";
/// Somebody on the Internet, and another in a prefix that nobody may reach.
const IADDR: &str = "2001:db8:ee::2";
const DENIED: &str = "2001:db8:ed::2";
/// What IPv4 addresses are called behind the NAT64, and one that has no other name.
const NAT64: &str = "2001:db8:64::/96";
const SERVER4: &str = "203.0.113.7";

/// What may pass, the same on all hosts.
const RULES: &str = r#"
[[crossing]]
from = "tasks"
to = "outside"
replies = true

[[crossing]]
from = "outside"
to = "tasks"
protocol = "tcp"
ports = ["5001"]

[[crossing]]
from = "outside"
to = "blue"
protocol = "tcp"
ports = ["5001"]

[[crossing]]
from = "outside"
to = "blue"
protocol = "icmp"
"#;

struct Internet {
    site: Site,
    web: Task,
    outside: Namespace,
}

fn internet(name: &str) -> Internet {
    let mut plan = Plan::of(&[VM2]);
    plan.hosts = vec!["hv1", "hv2", "gw"];
    plan.anycast = 2;
    let mapping = format!("[[mapping]]\naddress = \"{WEB}\"\nlocator = \"2001:db8:0:1::/64\"\n");
    plan.host_text = vec![
        (0, Task::toml("web", WEB) + RULES),
        (1, mapping.clone() + RULES),
        (2, mapping + RULES + "\n[gateway]\ntun = \"ila-in0\"\ninterface = \"inet0\"\n"),
    ];
    let keys = format!("outside = true\noutside_deny = [\"2001:db8:ed::/48\"]\nnat64 = \"{NAT64}\"");
    plan.network_keys = vec![("blue", keys)];
    let site = Site::start(name, plan).unwrap();
    let outside = beyond(&site.fabric.hosts[2], &site.fabric.router);
    let config = site.evidence.join("hv1.toml");
    let web = Task::new("web", &site.fabric.hosts[0], WEB, config).unwrap();
    web.plug().unwrap();
    Internet { site, web, outside }
}

/// The Internet behind the gateway, and what its operator sets.
fn beyond(gateway: &Host, router: &Namespace) -> Namespace {
    let outside = Namespace::new("internet").unwrap();
    let host = &gateway.namespace;
    host.ip("link add inet0 type veth peer name eth0 netns internet").unwrap();
    host.ip("-6 addr add 2001:db8:ee::1/64 dev inet0 nodad").unwrap();
    host.ip("link set inet0 up").unwrap();
    host.ip("-6 route add 2001:db8:ed::/64 via 2001:db8:ee::2").unwrap();
    outside.ip(&format!("-6 addr add {IADDR}/64 dev eth0 nodad")).unwrap();
    outside.ip(&format!("-6 addr add {DENIED}/128 dev lo nodad")).unwrap();
    outside.ip("link set eth0 up").unwrap();
    outside.ip("-6 route add default via 2001:db8:ee::1").unwrap();
    for prefix in ["2001:db8:ee::/64", "2001:db8:ed::/64"] {
        router.ip(&format!("-6 route add {prefix} via {}", gateway.underlay())).unwrap();
    }
    host.ip("-6 rule add iif inet0 lookup 101 pref 90").unwrap();
    for prefix in [SIR, BLUE.ipv6, "2001:db8:0::/48"] {
        host.ip(&format!("-6 route add {prefix} dev ila-in0 table 101")).unwrap();
    }
    outside
}

/// Whether `seen` is the form of `address` under the locator of this prefix, its checksum as it was (draft, section 4.4.1).
fn is_neutral(seen: &str, locator: &str, address: &str, vnet: bool) -> bool {
    let words = |text: &str| text.parse::<Ipv6Addr>().unwrap().segments();
    let (seen, locator, address) = (words(seen), words(locator), words(address));
    let sum = |words: [u16; 8]| words.iter().map(|word| u32::from(*word)).sum::<u32>() % 0xffff;
    let identifier = match vnet {
        // Type 3, C and the VNI of blue.
        true => seen[4] == 0x7000 && seen[5] == 1001 && seen[6] == address[6],
        false => seen[4] == address[4] | 0x1000 && seen[5..7] == address[5..7],
    };
    seen[..4] == locator[..4] && identifier && sum(seen) == sum(address)
}

/// The destinations that packets from `source` had on the link to `host`.
fn destinations(capture: &Capture, host: &str, source: &str, filter: &str) -> Vec<String> {
    let filter = format!("frame.interface_name == \"{host}\" && ipv6.src == {source} && {filter}");
    let mut seen: Vec<String> =
        capture.fields(&filter, &["ipv6.dst"]).unwrap().into_iter().flatten().collect();
    seen.sort();
    seen.dedup();
    seen
}

fn from_outside(target: &str, source: &str, outside: &Namespace) -> String {
    let mut echo = oracle::script_in(outside, "echo.py").unwrap();
    echo.args([target, "3", source]);
    output(echo).unwrap()
}

/// A stream from `guest` to `address` and back.
fn guests_stream(guest: &mut Guest, address: &str, server: Server) -> String {
    let said = guest
        .run_within(
            &format!(
                "head -c 100000 /dev/urandom >/tmp/s; nc -w 20 {address} 5001 </tmp/s >/tmp/back; cmp /tmp/s /tmp/back && sha256sum </tmp/s"
            ),
            Duration::from_secs(60),
        )
        .unwrap();
    let (from, read) = server.end().unwrap();
    assert!(said.contains(&read), "{said}");
    from
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn tasks_and_tenants_reach_the_internet_and_the_gateway_brings_in_what_may_come() {
    let Internet { site, web, outside } = internet("e2e/internet");
    let mut guests = site.boot().unwrap();
    let vm2 = &mut guests[0];
    web.reach(IADDR).unwrap();

    let capture = site.capture().unwrap();
    // 2 and 3: a task to the Internet, and the Internet to a task.
    assert_eq!(stream(&web.namespace, &outside, IADDR, 1 << 20).unwrap(), WEB);
    assert_eq!(stream(&outside, &web.namespace, WEB, 1 << 20).unwrap(), IADDR);
    // 6 and 7: the same of a tenant, in IPv6.
    let server = Server::start(&outside, IADDR).unwrap();
    assert_eq!(guests_stream(vm2, IADDR, server), VM2.ipv6);
    vm2.run("[ -p /tmp/open ] || mkfifo /tmp/open").unwrap();
    vm2.spawn("nc -l -p 5001 0<>/tmp/open", "/tmp/received").unwrap();
    vm2.run("until netstat -ltn | grep -q :5001; do sleep 0.1; done").unwrap();
    let mut put = oracle::script_in(&outside, "stream.py").unwrap();
    put.args(["put", VM2.ipv6, "5001", "100000"]);
    let sent = output(put).unwrap();
    let read = vm2.run("sha256sum </tmp/received").unwrap();
    assert!(read.contains(sent.trim()), "{sent} was sent, {read} was read");
    let capture = capture.finish().unwrap();

    // The wire: untranslated on its way out, the identifier under its locator on its way in.
    assert_eq!(destinations(&capture, "hv1", WEB, "tcp"), [IADDR]);
    assert_eq!(destinations(&capture, "hv2", VM2.ipv6, "tcp"), [IADDR]);
    let [to_web] = &destinations(&capture, "hv1", IADDR, "tcp")[..] else { panic!("one destination") };
    assert!(is_neutral(to_web, "2001:db8:0:1::", WEB, false), "{to_web}");
    let [to_vm2] = &destinations(&capture, "hv2", IADDR, "tcp")[..] else { panic!("one destination") };
    assert!(is_neutral(to_vm2, "2001:db8:0:2::", VM2.ipv6, true), "{to_vm2}");

    refused(&site, &outside, &web, vm2);
}

/// What may not pass, each with its name, beside what may.
fn refused(site: &Site, outside: &Namespace, web: &Task, vm2: &mut Guest) {
    let counted = |host: usize, side: &str, reason: &str| {
        site.daemons[host].show("counters").unwrap()[side]["drops"][reason].as_u64().unwrap_or(0)
    };
    assert!(from_outside(VM2.ipv6, IADDR, outside).contains("3 answered"), "echo may come in to blue");
    // Forged: sources of the inside, of each kind.
    for (number, source) in [(1, "2001:db8:51:0:2000::99"), (2, "2001:db8:b1:e::77"), (3, "2001:db8:0:1::77")]
    {
        outside.ip(&format!("-6 addr add {source}/128 dev lo nodad")).unwrap();
        assert!(from_outside(VM2.ipv6, source, outside).contains("0 answered"), "{source}");
        assert_eq!(counted(2, "outside", "inside-source"), 3 * number, "{source}");
    }
    // A locator is nobody's business outside.
    assert!(from_outside("2001:db8:0:1:2000::11", IADDR, outside).contains("0 answered"));
    assert_eq!(counted(2, "outside", "locator-destination"), 3);
    // No rule: echo to a task.
    assert!(from_outside(WEB, IADDR, outside).contains("0 answered"));
    assert_eq!(counted(2, "outside", "outside-source"), 3);
    // A prefix that the network's tenants do not reach, and are not reached from.
    assert!(from_outside(VM2.ipv6, DENIED, outside).contains("0 answered"));
    assert_eq!(counted(2, "outside", "outside-denied"), 3);
    let denied = vm2.try_run(&format!("ping -c 2 -W 1 {DENIED}"), Duration::from_secs(20)).unwrap();
    assert_ne!(denied.status, 0, "{}", denied.output);
    assert!(
        pinged(&web.namespace, DENIED, 2).unwrap().contains("2 answered"),
        "others' deny lists are theirs"
    );
}

/// A NAT64 of somebody else's in the fabric, and a server behind it that has IPv4 only. It ends when it is dropped.
fn nat64(site: &Site) -> (Namespace, Owned) {
    let router = &site.fabric.router;
    let (nat64, server) = (Namespace::new("nat64").unwrap(), Namespace::new("server4").unwrap());
    router.ip("link add nat64 type veth peer name fabric0 netns nat64").unwrap();
    router.ip("-6 addr add 2001:db8:f:64::1/64 dev nat64 nodad").unwrap();
    router.ip("link set nat64 up").unwrap();
    router.ip(&format!("-6 route add {NAT64} via 2001:db8:f:64::2")).unwrap();
    nat64.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    nat64.sysctl("net/ipv4/ip_forward", "1").unwrap();
    nat64.ip("-6 addr add 2001:db8:f:64::2/64 dev fabric0 nodad").unwrap();
    nat64.ip("link set fabric0 up").unwrap();
    nat64.ip("-6 route add default via 2001:db8:f:64::1").unwrap();
    nat64.ip("link add eth0 type veth peer name eth0 netns server4").unwrap();
    nat64.ip("addr add 203.0.113.1/24 dev eth0").unwrap();
    nat64.ip("link set eth0 up").unwrap();
    server.ip(&format!("addr add {SERVER4}/24 dev eth0")).unwrap();
    server.ip("link set eth0 up").unwrap();
    server.ip("route add default via 203.0.113.1").unwrap();

    let config = site.evidence.join("tayga.conf");
    let state = site.evidence.join("tayga");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(
        &config,
        format!(
            "tun-device nat0\nipv4-addr 192.0.2.1\nprefix {NAT64}\ndynamic-pool 198.18.0.0/24\ndata-dir {}\n",
            state.display()
        ),
    )
    .unwrap();
    let tayga = Set::open("nat64").unwrap().tool("tayga").unwrap();
    let mut make = nat64.tool(&tayga);
    make.args(["--mktun", "--config"]).arg(&config);
    output(make).unwrap();
    nat64.ip("link set nat0 up").unwrap();
    nat64.ip("route add 198.18.0.0/24 dev nat0").unwrap();
    nat64.ip(&format!("-6 route add {NAT64} dev nat0")).unwrap();
    let mut run = nat64.tool(&tayga);
    run.args(["--nodetach", "--config"]).arg(&config);
    let log: &Path = &site.evidence.join("tayga.log");
    (server, Owned::spawn("tayga", run, log).unwrap())
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn an_ipv4_tenant_reaches_an_ipv4_server_behind_somebody_elses_nat64() {
    let Internet { site, .. } = internet("e2e/nat64");
    let (server, mut tayga) = nat64(&site);
    let mut guests = site.boot().unwrap();
    let vm2 = &mut guests[0];
    let capture = site.capture().unwrap();
    vm2.run_within(
        &format!("until ping -c 1 -W 1 {SERVER4}; do sleep 0.2; done; ping -i 0.2 -c 5 {SERVER4}"),
        Duration::from_secs(60),
    )
    .unwrap();
    let from = guests_stream(vm2, SERVER4, Server::start(&server, SERVER4).unwrap());
    assert!(from.starts_with("198.18.0."), "as the NAT64 calls the tenant: {from}");
    tayga.must_run().unwrap();
    let capture = capture.finish().unwrap();
    // SIR:(VNI:VA) to what RFC 6052 calls the server, and back to the identifier under its locator.
    let sir = "2001:db8:51:0:4000:3e9:a01:2";
    assert_eq!(destinations(&capture, "hv2", sir, "tcp"), ["2001:db8:64::cb00:7107"]);
    let back = destinations(&capture, "hv2", "2001:db8:64::cb00:7107", "tcp");
    assert!(back.len() == 1 && is_neutral(&back[0], "2001:db8:0:2::", sir, false), "{back:?}");
}
