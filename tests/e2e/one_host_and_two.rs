//! Local equals wire, as guests see it (`docs/local-equals-wire.md`): one guest does the same with a neighbour on its own host and with one
//! on another; all of them capture, and scapy compares.

use std::collections::BTreeSet;

use vhost_ila_tests::alike::{CASES, Comparison, HEARD, Side, compare};
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::initramfs::Kit;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

/// On the host of the first.
const VM3: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };
const GATEWAY: [&str; 2] = ["10.1.255.254", "2001:db8:b1:e::ffff:fffe"];

/// Checksums are finished, nothing is put together or cut for a card, and flow labels are not made of addresses: what is captured is what
/// another guest gets.
const PLAIN: &str =
    "ethtool -K eth0 tx off tso off gso off gro off; echo 0 >/proc/sys/net/ipv6/auto_flowlabels";

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_guest_finds_its_neighbour_there_as_it_finds_the_one_here() {
    let site = Site::start("e2e/alike", Plan { kit: Kit::Clients, ..Plan::of(&[VM1, VM3, VM2]) }).unwrap();
    let mut guests = site.boot().unwrap();
    guests.iter_mut().for_each(|guest| drop(guest.run(PLAIN).unwrap()));
    let [vm1, vm3, vm2] = &mut guests[..] else { panic!("three guests") };

    let local = Side { vm: &VM3, files: converse(&site, vm1, vm3, &VM3) };
    let wire = Side { vm: &VM2, files: converse(&site, vm1, vm2, &VM2) };
    let families = |name: &str| ["IPv4", "IPv6"].map(|family| format!("{family} {name}"));
    let cases = CASES.iter().flat_map(|case| families(case.name)).collect();
    must_be_alike(&compare(Some(&VM1), &local, &wire, false).unwrap(), cases);
    // Control: one bit of one packet.
    let spoiled = compare(Some(&VM1), &local, &wire, true).unwrap();
    assert!(spoiled.values().any(|(_, differences)| !differences.is_empty()), "{spoiled:?}");

    // But what comes in its own time: queries for listeners, router advertisements.
    let heard = "ether src 02:49:4c:41:00:01 and not (ip proto 2 or ip6 proto 0 or icmp6[0] == 134)";
    for guest in [&mut *vm3, &mut *vm2] {
        traffic::record(guest, heard).unwrap();
        let [ipv4, ipv6] = GATEWAY;
        guest.run(&format!("/bin/ip neigh flush dev eth0; ping -c 1 {ipv4}; ping -c 1 {ipv6}")).unwrap();
        guest.run("udhcpc -i eth0 -f -q -n -t 20 -T 1 -s /bin/true").unwrap();
    }
    let probe = format!("/bin/traceroute -n -q 1 -f 9 -m 9 -w 1 -i eth0 -s {} 224.0.0.251", VM1.ipv4);
    let probe6 = format!("/bin/traceroute -6 -n -q 1 -f 9 -m 9 -w 1 -i eth0 -s {} ff02::1", VM1.ipv6);
    for group in ["255.255.255.255", "10.1.255.255", "224.0.0.1"] {
        vm1.run(&format!("ping -c 1 -W 1 {group} || true")).unwrap();
    }
    vm1.run(&format!("{probe}; {probe6}; true")).unwrap();
    let [local, wire] = [(vm3, &VM3), (vm2, &VM2)].map(|(guest, vm)| {
        let file = site.evidence.join(format!("{}-heard.pcap", vm.name));
        traffic::recorded(guest, &file).unwrap();
        Side { vm, files: vec![file] }
    });
    let cases = HEARD.iter().map(|(case, _)| (*case).to_owned()).collect();
    let found = compare(None, &local, &wire, false).unwrap();
    must_be_alike(&found, cases);
    assert_eq!(found["IPv4 echo"].0, 4, "the gateway's reply, and one request to each group");
}

/// Goes through the cases with `peer`; what both captured.
fn converse(site: &Site, me: &mut Guest, peer: &mut Guest, vm: &Vm) -> Vec<std::path::PathBuf> {
    let addresses = [vm.ipv4, vm.ipv6];
    for address in addresses {
        traffic::ping(me, address, 1).unwrap();
    }
    let filter = format!("(ip or ip6) and (host {} or host {})", VM1.ipv4, VM1.ipv6);
    let with_peer = format!("(ip or ip6) and (host {} or host {})", vm.ipv4, vm.ipv6);
    traffic::record(me, &with_peer).unwrap();
    traffic::record(peer, &filter).unwrap();
    for address in addresses {
        for case in CASES {
            if case.command.is_empty() {
                traffic::transfer_bytes(me, peer, address, 30_000).unwrap();
            } else {
                me.run(&case.command.replace("TARGET", address)).unwrap();
            }
        }
    }
    let file = |guest: &mut Guest| {
        let file = site.evidence.join(format!("{}-with-{}.pcap", guest.name(), vm.name));
        traffic::recorded(guest, &file).unwrap();
        file
    };
    vec![file(me), file(peer)]
}

/// These cases were seen, and no others, and nothing of them in one place only.
fn must_be_alike(found: &Comparison, cases: BTreeSet<String>) {
    let differences: Vec<_> = found.values().flat_map(|(_, differences)| differences).collect();
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), cases);
    assert!(found.values().all(|(packets, _)| *packets > 0), "{found:?}");
}
