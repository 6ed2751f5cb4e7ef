//! Machines that are more than one address: routers with a network behind them, and pairs that share an address (docs/decisions/0013).

use std::time::Duration;

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::initramfs::Kit;
use vhost_ila_tests::site::{Lent, Plan, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

/// On hv1, as vm1; vm2 is on the other host.
const ROUTER: Vm = Vm {
    name: "router",
    mac: "52:54:00:00:00:03",
    ipv4: "10.1.0.50",
    ipv6: "2001:db8:b1:e::50",
    // Allowed addresses of both families, beside the first.
    more: &["10.1.0.51", "10.1.0.52", "2001:db8:b1:e::51", "2001:db8:b1:e::52"],
    ..VM1
};

/// A network outside of the tenant's own and one inside of its /96, both with a client, and the way out.
const BEHIND: Lent =
    Lent { prefixes: &["192.168.7.0/24", "2001:db8:b1:e::8000:0/113", "0.0.0.0/0"], shared: &[], macs: &[] };
const CLIENT: [&str; 2] = ["192.168.7.1", "2001:db8:b1:e::8000:1"];
/// Somewhere in the Internet, as far as the tenant can tell.
const OUTSIDE: &str = "203.0.113.9";

const SHARED: [&str; 2] = ["10.1.0.100", "2001:db8:b1:e::100"];
/// VRRP's, of router 10.
const VIRTUAL: &str = "00:00:5e:00:01:0a";
const SHARES: Lent = Lent { prefixes: &[], shared: &SHARED, macs: &[VIRTUAL] };

fn site(evidence: &str, lent: Vec<(&'static str, Lent)>) -> (Site, Vec<Guest>) {
    let plan = Plan { lent, kit: Kit::Routers, ..Plan::of(&[VM1, VM2, ROUTER]) };
    let site = Site::start(evidence, plan).unwrap();
    // As on a wire: every checksum is in its packet.
    site.fabric.offloads("off").unwrap();
    let guests = site.boot().unwrap();
    (site, guests)
}

/// A network namespace with a client in it, behind the router.
fn put_a_client_behind(router: &mut Guest) {
    for line in [
        // A router goes on to hear of its own router only if told so before it is one.
        "echo 2 >/proc/sys/net/ipv6/conf/eth0/accept_ra",
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; echo 1 >/proc/sys/net/ipv4/ip_forward",
        "unshare -n sleep 100000 & echo $! >/tmp/client; sleep 1",
        "ip link add near type veth; ip link set veth0 netns $(cat /tmp/client)",
        "echo 0 >/proc/sys/net/ipv6/conf/near/accept_dad; ip link set near up",
        "ip addr add 192.168.7.254/24 dev near; ip -6 addr add 2001:db8:b1:e::8000:fe/113 dev near",
        "ip route add 203.0.113.0/24 via 192.168.7.1",
    ] {
        router.run(line).unwrap();
    }
    for line in [
        "echo 0 >/proc/sys/net/ipv6/conf/veth0/accept_dad; ip link set lo up; ip link set veth0 up",
        "ip addr add 192.168.7.1/24 dev veth0; ip addr add 203.0.113.9/32 dev lo",
        "ip -6 addr add 2001:db8:b1:e::8000:1/113 dev veth0",
        "ip route add default via 192.168.7.254; ip -6 route add default via 2001:db8:b1:e::8000:fe",
    ] {
        behind(router, line).unwrap();
    }
}

/// Runs a command as the client.
fn behind(router: &mut Guest, command: &str) -> anyhow::Result<String> {
    router.run(&format!("nsenter -t $(cat /tmp/client) -n sh -c '{command}'"))
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn clients_behind_a_router_are_reached_and_reach_others_on_its_host_and_across() {
    let (site, mut guests) = site("e2e/router-machine", vec![("router", BEHIND)]);
    let [vm1, vm2, router] = &mut guests[..] else { panic!("three guests") };
    put_a_client_behind(router);
    let capture = site.capture().unwrap();
    for (vm, own) in [(&mut *vm1, VM1), (&mut *vm2, VM2)] {
        for target in [CLIENT[0], CLIENT[1], OUTSIDE] {
            traffic::ping(vm, target, 3).unwrap();
        }
        for target in [own.ipv4, own.ipv6] {
            behind(router, &format!("ping -c 3 -i 0.2 {target}")).unwrap();
        }
        // The edge spends no hop, the router does.
        if own.host == 0 {
            let path = vm.run("traceroute -n -q 1 -w 2 -m 5 192.168.7.1").unwrap();
            let hops: Vec<_> = path.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
            assert_eq!(hops[1..], [ROUTER.ipv4, CLIENT[0]], "{path}");
        }
    }
    // TCP, over the fabric, both families. The receiver's input never ends, or its nc would close first.
    router.run("mkfifo /tmp/open").unwrap();
    for (number, target) in CLIENT.into_iter().enumerate() {
        let port = 7000 + number;
        router
            .spawn(
                &format!("nsenter -t $(cat /tmp/client) -n nc -l -p {port} 0<>/tmp/open"),
                &format!("/tmp/got{number}"),
            )
            .unwrap();
        vm2.run(&format!("sleep 1; head -c 300000 /dev/zero | nc -w 10 {target} {port}")).unwrap();
        let all = format!(
            "for i in $(seq 100); do [ $(wc -c </tmp/got{number}) = 300000 ] && exit 0; sleep 0.2; done; ls -l /tmp; exit 1"
        );
        router.run(&all).unwrap();
    }
    // Several addresses of its own, of each family, are as good as the first.
    for address in ROUTER.more {
        let family = if address.contains(':') { "-6" } else { "-4" };
        router.run(&format!("ip {family} addr add {address} dev lo")).unwrap();
        traffic::ping(vm1, address, 2).unwrap();
        traffic::ping(vm2, address, 2).unwrap();
    }
    let capture = capture.finish().unwrap();
    // From vm2, as type 2 under hv1's locator, adjusted: the address is in the identifier but for its low word.
    for (source, words) in
        [("2001:db8:51:0:4000:3e9:a01:2", "5000:3e9:c0a8"), ("2001:db8:51:0:4000:3e9:a01:2", "5000:3e9:cb00")]
    {
        let to = capture.fields(&format!("ipv6.src == {source}"), &["ipv6.dst"]).unwrap();
        let to_client = to.iter().filter(|to| to[0].starts_with(&format!("2001:db8:0:1:{words}:")));
        assert!(to_client.count() >= 3, "{words}: {to:?}");
    }
    let (good, bad) = capture.checksums("tcp || icmpv6.type == 128 || icmpv6.type == 129").unwrap();
    assert!(good > 200 && bad == 0, "{good} good checksums, {bad} others");
    // It speaks for its clients and for the Internet, and for nobody else.
    for source in [VM1.ipv4, "10.1.0.77", "10.1.255.254"] {
        let before = site.daemons[0].drops("spoofed-address").unwrap();
        router.run(&format!("ip addr add {source}/32 dev lo")).unwrap();
        fails(router, &format!("ping -c 2 -i 0.2 -W 1 -I {source} {}", VM2.ipv4));
        router.run(&format!("ip addr del {source}/32 dev lo")).unwrap();
        assert!(site.daemons[0].drops("spoofed-address").unwrap() > before, "{source}");
    }
    traffic::ping(router, VM2.ipv4, 2).unwrap();
    let mappings = site.daemons[1].show("mappings").unwrap().to_string();
    assert!(mappings.contains("\"192.168.7.0/24\"") && mappings.contains("\"0.0.0.0/0\""), "{mappings}");
}

fn fails(guest: &mut Guest, command: &str) {
    let finished = guest.try_run(command, Duration::from_secs(30)).unwrap();
    assert!(finished.output.contains("100% packet loss"), "{}: {command}\n{}", guest.name(), finished.output);
}

/// Who holds a shared address, by hv1's word.
fn holder(site: &Site, address: &str) -> Option<String> {
    let mappings = site.daemons[0].show("mappings").unwrap();
    let line = mappings.as_array().unwrap().iter().find(|line| line["address"] == address);
    line.unwrap_or_else(|| panic!("{address} is listed: {mappings}"))["attachment"]
        .as_str()
        .map(str::to_owned)
}

/// How `guest` takes the address of `family`: it is configured, and announced by the programs that every guest has.
fn take(guest: &mut Guest, family: usize, device: &str) {
    let address = SHARED[family];
    match family {
        0 => guest.run(&format!(
            "ip addr add {address}/32 dev {device}; arping -q -c 1 -U -I {device} -s {address} {address}; true"
        )),
        // The kernel announces it as soon as it knows that nobody else has it.
        _ => guest.run(&format!(
            "echo 1 >/proc/sys/net/ipv6/conf/{device}/ndisc_notify; ip -6 addr add {address}/128 dev {device}; \
             while ip -6 addr show dev {device} | grep -q tentative; do sleep 0.1; done; sleep 0.3; \
             ! ip -6 addr show dev {device} | grep dadfailed"
        )),
    }
    .unwrap();
}

fn leave(guest: &mut Guest, family: usize, device: &str) {
    let length = [32, 128][family];
    guest.run(&format!("ip addr del {}/{length} dev {device}", SHARED[family])).unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_shared_address_moves_between_two_guests_under_ping() {
    let (site, mut guests) = site("e2e/shared-address", vec![("vm1", SHARES), ("router", SHARES)]);
    let [vm1, vm2, router] = &mut guests[..] else { panic!("three guests") };
    for family in [0, 1] {
        assert_eq!(holder(&site, SHARED[family]), None, "nobody has claimed it");
        fails(vm2, &format!("ping -c 2 -i 0.2 -W 1 {}", SHARED[family]));
        take(vm1, family, "eth0");
        assert_eq!(holder(&site, SHARED[family]).as_deref(), Some("vm1"));
        vm2.spawn(&format!("ping -i 0.05 {}", SHARED[family]), "/tmp/pings").unwrap();
        // Both have it for a while: whoever said so last is sent what is for it, and hears what is.
        for round in 0..2 {
            take(router, family, "eth0");
            assert_eq!(holder(&site, SHARED[family]).as_deref(), Some("router"), "round {round}");
            let new = count(router, family);
            let old = count(vm1, family);
            assert!(new > 0 && old == 0, "the new holder heard {new} requests, the old one {old}");
            leave(vm1, family, "eth0");
            take(vm1, family, "eth0");
            assert_eq!(holder(&site, SHARED[family]).as_deref(), Some("vm1"), "round {round}");
            leave(router, family, "eth0");
        }
        let said = vm2.run(STATISTICS).unwrap();
        println!(
            "{}: four moves under 20 pings a second: {}",
            SHARED[family],
            said.trim().replace('\n', "; ")
        );
        let lost: u32 = lost(&said);
        assert!(lost <= 8, "four moves cost {lost} pings\n{said}");
        leave(vm1, family, "eth0");
    }
    // One that is not listed claims in vain, and is counted.
    take(vm1, 0, "eth0");
    let before = site.daemons[1].drops("spoofed-address").unwrap();
    // arping announces only what its machine has.
    for line in [
        "ip addr add 10.1.0.100/32 dev lo",
        "arping -q -c 2 -U -I eth0 -s 10.1.0.100 10.1.0.100; arping -q -c 2 -A -I eth0 -s 10.1.0.100 10.1.0.100; true",
        "ip addr del 10.1.0.100/32 dev lo",
    ] {
        vm2.run(line).unwrap();
    }
    assert!(site.daemons[1].drops("spoofed-address").unwrap() >= before + 4);
    traffic::ping(vm2, SHARED[0], 2).unwrap();
    // An interface of a virtual MAC takes frames for that MAC only.
    router
        .run(&format!("ip link add link eth0 vrrp address {VIRTUAL} type macvlan; ip link set vrrp up"))
        .unwrap();
    take(router, 0, "vrrp");
    assert_eq!(holder(&site, SHARED[0]).as_deref(), Some("router"));
    traffic::ping(vm2, SHARED[0], 5).unwrap();
    let attachments = site.daemons[0].show("attachments").unwrap().to_string();
    assert!(attachments.contains(&format!("\"mac\":\"{VIRTUAL}\"")), "{attachments}");
}

/// Echo requests for the shared address that `guest` hears within a second.
fn count(guest: &mut Guest, family: usize) -> usize {
    let filter = ["icmp[icmptype] == icmp-echo", "icmp6 && ip6[40] == 128"][family];
    let said = guest
        .run(&format!(
            "timeout 1.5 tcpdump -Z root --immediate-mode -n -l -i eth0 '{filter} && dst host {}' 2>/dev/null; true",
            SHARED[family]
        ))
        .unwrap();
    said.lines().filter(|line| line.contains(SHARED[family])).count()
}

/// Ends a ping in the background, which then says what came of it.
const STATISTICS: &str =
    "killall -INT ping; while pidof ping >/dev/null; do sleep 0.1; done; tail -n 3 /tmp/pings";

fn lost(said: &str) -> u32 {
    let numbers = said.lines().find_map(|line| {
        let (sent, rest) = line.split_once(" packets transmitted, ")?;
        let (received, _) = rest.split_once(" packets received")?;
        Some(sent.parse::<u32>().ok()? - received.parse::<u32>().ok()?)
    });
    numbers.unwrap_or_else(|| panic!("no statistics: {said}"))
}

/// As keepalived's documentation has it: a virtual MAC, advertisements by multicast. The IPv6 address goes with the IPv4 one.
fn keepalived(guest: &mut Guest, priority: u8) {
    let config = format!(
        "global_defs {{\\n router_id {priority}\\n vrrp_garp_master_refresh 60\\n}}\\n\
         vrrp_instance blue {{\\n state BACKUP\\n interface eth0\\n virtual_router_id 10\\n priority {priority}\\n advert_int 1\\n\
         use_vmac vrrp10\\n virtual_ipaddress {{\\n  {}/32\\n }}\\n virtual_ipaddress_excluded {{\\n  {}/128\\n }}\\n}}\\n",
        SHARED[0], SHARED[1]
    );
    guest.run(&format!("printf \"{config}\" >/etc/keepalived.conf")).unwrap();
    guest.spawn("keepalived -n -l -P -f /etc/keepalived.conf", "/tmp/keepalived").unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn keepalived_hands_its_addresses_over_when_the_master_stops_or_hangs() {
    let (site, mut guests) = site("e2e/keepalived", vec![("vm1", SHARES), ("router", SHARES)]);
    let [vm1, vm2, router] = &mut guests[..] else { panic!("three guests") };
    keepalived(vm1, 200);
    holds(&site, "vm1", vm1);
    keepalived(router, 100);
    for address in SHARED {
        traffic::ping(vm2, address, 3).unwrap();
    }
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(
        holder(&site, SHARED[0]).as_deref(),
        Some("vm1"),
        "the standby hears the master's advertisements"
    );
    vm2.spawn(&format!("ping -i 0.1 {}", SHARED[0]), "/tmp/pings").unwrap();
    // The master says goodbye; then it is back, being the better one; then it hangs: it says nothing any more, and keeps its
    // addresses.
    vm1.run("killall -TERM keepalived; while pidof keepalived; do sleep 0.1; done").unwrap();
    holds(&site, "router", router);
    keepalived(vm1, 200);
    holds(&site, "vm1", vm1);
    vm1.run("killall -STOP keepalived").unwrap();
    holds(&site, "router", router);
    assert!(vm1.run("ip addr show dev vrrp10").unwrap().contains(SHARED[0]), "the old one has it still");
    let (new, old) = (count(router, 0), count(vm1, 0));
    assert!(new > 0 && old == 0, "the new holder heard {new} requests, the old one {old}");
    let said = vm2.run(STATISTICS).unwrap();
    println!("a goodbye, a return, a hang under 10 pings a second: {}", said.trim().replace('\n', "; "));
    assert!(lost(&said) < 120, "{said}");
    for address in SHARED {
        traffic::ping(vm2, address, 3).unwrap();
    }
}

/// Waits until `name` holds both shared addresses.
fn holds(site: &Site, name: &str, guest: &mut Guest) {
    for _ in 0..150 {
        if SHARED.iter().all(|address| holder(site, address).as_deref() == Some(name)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = guest.run("cat /tmp/keepalived; ip addr").unwrap();
    panic!("{name} does not hold {SHARED:?}; {:?}\n{log}", SHARED.map(|address| holder(site, address)));
}
