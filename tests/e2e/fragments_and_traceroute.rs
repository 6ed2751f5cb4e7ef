//! What an ordinary guest's tools find: packets larger than the link come in pieces, and every hop has a name; on one host and on two.
//!
//! Debian's `traceroute` and `mtr` ask by UDP, ICMP and TCP, all at once; then again while a neighbour floods the fabric's first router
//! with packets that end there.

use std::time::{Duration, Instant};

use crate::errors_from_the_fabric_quote_what_the_tenant_sent::with_one_hop;
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::initramfs::Kit;
use vhost_ila_tests::oracle::{Kind, Oracle};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::site::{self, Plan, Site, VM1, VM2, Vm};

/// On the host of the first.
const VM3: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };
/// Floods; on the host of the first.
const VM4: Vm =
    Vm { name: "vm4", mac: "52:54:00:00:00:04", ipv4: "10.1.0.4", ipv6: "2001:db8:b1:e::4", ..VM1 };
/// Stands for every router of the fabric.
const GATEWAY: [&str; 2] = ["10.1.255.254", "2001:db8:b1:e::ffff:fffe"];
/// One probe a hop. A port that is closed answers for its machine.
const PROBERS: [&str; 6] = [
    "/bin/traceroute -n -q 1 -w 5 -m 5",
    "/bin/traceroute -n -q 1 -w 5 -m 5 -I",
    "/bin/traceroute -n -q 1 -w 5 -m 5 -T -p 80",
    "/bin/mtr -n -r -c 1 -i 0.2 -G 2 -m 5",
    "/bin/mtr -n -r -c 1 -i 0.2 -G 2 -m 5 -u",
    "/bin/mtr -n -r -c 1 -i 0.2 -G 2 -m 5 -T -P 80",
];
/// ICMP errors of one attachment: at once, and a second (`nve-core/src/gateway/limits.rs`).
const RATE: (u64, u64) = (50, 100);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn of_a_neighbour_on_the_same_host_and_of_one_on_another() {
    let plan = Plan { kit: Kit::Clients, ..Plan::of(&[VM1, VM3, VM2, VM4]) };
    let site = Site::start("e2e/traces", plan).unwrap();
    let mut guests = site.power_on_only(&[VM1, VM3, VM2]).unwrap();
    for (guest, vm) in guests.iter_mut().zip([VM1, VM3, VM2]) {
        site::address(&vm, guest).unwrap();
    }
    // It is our limits that are tried. Linux has its own, one of them for all namespaces together; of type 0 there is nothing.
    for machine in [&site.fabric.router, &site.fabric.hosts[1].namespace] {
        machine.sysctl("net/ipv6/icmp/ratemask", "0").unwrap();
    }
    let vm1 = &mut guests[0];
    for there in [VM3, VM2] {
        for (target, trace) in [(there.ipv4, "traceroute"), (there.ipv6, "traceroute6")] {
            let said = vm1.run(&format!("ping -c 3 -i 0.2 -W 3 -s 4000 {target}")).unwrap();
            assert!(said.contains(" 0% packet loss"), "echo in pieces\n{said}");
            // UDP in pieces, far enough to be no error of a router.
            let said = vm1.run(&format!("{trace} -n -q 1 -w 3 -f 9 -m 9 {target} 4000")).unwrap();
            assert!(said.contains(&format!(" 9  {target} ")), "UDP in pieces\n{said}");
        }
    }
    let probers = begin(vm1);
    all_hops_are_named(vm1, &probers);

    let mut vm4 = Peer::connect(&site.socket(&VM4), Options::default()).unwrap();
    vm4.receive_all(Duration::from_millis(500)).unwrap();
    let flood = Oracle::of(&site).unwrap();
    let flood = flood.frame(&site.evidence, &VM4, VM4.ipv4, VM2.ipv4, Kind::Clean, "TCP data").unwrap();
    let flood = with_one_hop(flood);
    let probers = begin(vm1);
    let (start, mut heard) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(3) {
        (0..100).for_each(|_| vm4.send(&flood).unwrap());
        heard += vm4.receive_all(Duration::from_millis(5)).unwrap().len() as u64;
    }
    all_hops_are_named(vm1, &probers);
    heard += vm4.receive_all(Duration::from_millis(200)).unwrap().len() as u64;
    let allowed = RATE.0 + RATE.1 * (start.elapsed().as_secs() + 1);
    assert!((RATE.0..=allowed).contains(&heard), "{heard} errors heard by who flooded, of {allowed}");
    assert!(site.daemons[0].drops("rate-limited").unwrap() > 100, "there was a flood");
}

/// What a prober said is in `/tmp/NUMBER`: its command, its hops, its target and the family of it.
type Prober = (String, usize, &'static str, usize);

/// Starts the probers to each neighbour in both families, all of one neighbour and family at once: mtr takes an error that quotes a port it
/// used for its own, whoever was asked and by whichever family, and cannot use it then.
fn begin(guest: &mut Guest) -> Vec<Prober> {
    let (mut probers, mut all): (Vec<Prober>, String) = Default::default();
    // Between hosts: the fabric's router, and the other host's kernel, which forwards to its TUN.
    for (there, hops) in [(VM3, 1), (VM2, 3)] {
        for (family, target) in [there.ipv4, there.ipv6].into_iter().enumerate() {
            for prober in PROBERS {
                let command = format!("{prober} {target}");
                all += &format!("{command} >/tmp/{} 2>&1 & ", probers.len());
                probers.push((command, hops, target, family));
            }
            all += "wait; ";
        }
    }
    guest.spawn(&format!("rm -f /tmp/probed; {all}touch /tmp/probed"), "/tmp/log").unwrap();
    probers
}

/// Each prober names so many hops: the last is the target, those before the gateway.
fn all_hops_are_named(guest: &mut Guest, probers: &[Prober]) {
    guest.run("until [ -e /tmp/probed ]; do sleep 0.1; done").unwrap();
    for (at, (command, hops, target, family)) in probers.iter().enumerate() {
        let said = guest.run(&format!("cat /tmp/{at}")).unwrap();
        let named: Vec<&str> = said.lines().filter_map(hop).collect();
        let mut expected = vec![GATEWAY[*family]; hops - 1];
        expected.push(target);
        assert_eq!(named, expected, "{command}\n{said}");
    }
}

/// The address in ` 2  10.1.0.2  9.180 ms` of traceroute, or `  2.|-- 10.1.0.2   0.0% ...` of mtr.
fn hop(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let number = words.next()?.trim_end_matches(".|--");
    number.parse::<u8>().ok()?;
    words.next()
}
