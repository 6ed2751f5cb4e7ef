//! What ordinary guests say to many: broadcast pings, groups that real kernels join and leave, and mDNS by Debian's avahi-daemon; between
//! guests of one host and across hosts, and never in another network. What is on the wire is read by tshark.

use std::time::Duration;

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::initramfs::Kit;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::site::{Plan, RED, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

/// On the host of the first.
const VM3: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };
/// Of another tenant, on that host too, with the same IPv4 addresses.
const RED1: Vm =
    Vm { name: "red1", network: RED, mac: "52:54:00:00:01:01", ipv6: "2001:db8:b1:e:0:1:0:1", ..VM1 };

/// Groups that vm2's host has listeners to, as the other is told; the others are learned.
const DISTANT: [&str; 3] = ["239.1.2.3", "ff05::1:3", "ff02::fb"];

/// The port that groups are listened to on.
const PORT: u16 = 5007;

fn site(name: &str) -> (Site, Vec<Guest>) {
    let listener = |group: &str| {
        format!("[[listener]]\nnetwork = \"blue\"\ngroup = \"{group}\"\nlocator = \"2001:db8:0:2::/64\"\n")
    };
    let listeners: String = DISTANT.into_iter().map(listener).collect();
    let plan = Plan {
        kit: Kit::Avahi,
        // Behind the network's own keys; the second host finds itself named, which says nothing new.
        network_keys: vec![("blue", format!("multicast = \"snoop\"\n{listeners}"))],
        ..Plan::of(&[VM1, VM3, VM2, RED1])
    };
    let site = Site::start(name, plan).unwrap();
    // As on a wire: every checksum is in its packet.
    site.fabric.offloads("off").unwrap();
    let guests = site.boot().unwrap();
    (site, guests)
}

/// Which attachments of a host listen to `group`.
fn listeners(site: &Site, host: usize, group: &str) -> Vec<String> {
    let groups = site.daemons[host].show("groups").unwrap();
    let lines = groups.as_array().into_iter().flatten();
    let found = lines.filter(|line| line["group"] == group && line["network"] == "blue");
    let names = found.flat_map(|line| line["attachments"].as_array().cloned().unwrap_or_default());
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn wait_for_listeners(site: &Site, host: usize, group: &str, wanted: &[&str]) {
    let what = format!("listeners of {group} to be {wanted:?}");
    wait_for(&what, Duration::from_secs(20), || Ok((listeners(site, host, group) == wanted).then_some(())))
        .unwrap_or_else(|error| {
            let counters = site.daemons[host].show("counters").unwrap();
            panic!("{error}: {:?}\n{counters:#}", listeners(site, host, group))
        });
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn broadcasts_reach_everybody_of_the_network_and_nobody_else() {
    let (site, mut guests) = site("e2e/to-many-broadcast");
    let capture = site.capture().unwrap();
    let [vm1, vm3, vm2, red1] = &mut guests[..] else { panic!("four guests") };
    for guest in [&mut *vm3, &mut *vm2] {
        guest.run("echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts").unwrap();
        guest.run("killall socat; rm -f /tmp/all; true").unwrap();
        guest.spawn(&format!("socat -u UDP4-RECV:{PORT} OPEN:/tmp/all,creat,append"), "/tmp/socat").unwrap();
    }
    traffic::listen(red1, "not port 67 and not icmp6").unwrap();
    // The subnet's, and all nodes of the link: answered by both, from their own addresses.
    for (target, answers) in [("10.1.255.255", [VM3.ipv4, VM2.ipv4]), ("ff02::1%eth0", [VM3.ipv6, VM2.ipv6])]
    {
        let said = vm1
            .try_run(&format!("ping -c 3 -i 0.5 -W 3 -s 111 {target}"), Duration::from_secs(30))
            .unwrap()
            .output;
        for answer in answers {
            assert!(said.contains(&format!("from {answer}")), "{target}: {answer} is silent\n{said}");
        }
    }
    let datagram =
        |to: &str| format!("echo to {to} | socat - UDP4-DATAGRAM:{to}:{PORT},broadcast,so-bindtodevice=eth0");
    for to in ["255.255.255.255", "10.1.255.255"] {
        vm1.run(&datagram(to)).unwrap();
        for guest in [&mut *vm3, &mut *vm2] {
            guest
                .run(&format!(
                    "for i in $(seq 50); do grep 'to {to}' /tmp/all && exit 0; sleep 0.1; done; exit 1"
                ))
                .unwrap();
        }
    }
    let heard = traffic::heard(red1).unwrap();
    assert!(!heard.contains("10.1.0.1"), "another network heard\n{heard}");
    // One copy each, to the other host, under type 2 and type 4 of the network.
    let capture = capture.finish().unwrap();
    let copies = |low: &str| {
        capture.count(&format!("ipv6.dst == 2001:db8:0:2:{low} && udp.dstport == {PORT}")).unwrap()
    };
    // Each packet crosses both of the router's links.
    assert_eq!((copies("4000:3e9:ffff:ffff"), copies("4000:3e9:a01:ffff")), (2, 2));
    let echoes = capture
        .fields("icmpv6.type == 128 && ipv6.dst == 2001:db8:0:2::/64", &["ipv6.dst", "ipv6.hlim"])
        .unwrap();
    assert!(echoes.len() >= 12, "{echoes:?}");
    assert!(echoes.iter().all(|echo| ["64", "63"].contains(&echo[1].as_str())), "{echoes:?}");
    let (good, bad) = capture.checksums("icmpv6.type == 128 && ipv6.dst[8:1] == 90").unwrap();
    assert!(good >= 6 && bad == 0, "to all nodes: {good} good, {bad} bad");
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn who_joins_a_group_hears_it_and_who_leaves_does_not() {
    let (site, mut guests) = site("e2e/to-many-groups");
    let [vm1, vm3, vm2, red1] = &mut guests[..] else { panic!("four guests") };
    let capture = site.capture().unwrap();
    // vm3 speaks the older versions.
    vm3.run("echo 2 >/proc/sys/net/ipv4/conf/eth0/force_igmp_version; echo 1 >/proc/sys/net/ipv6/conf/eth0/force_mld_version").unwrap();
    for (group, receive, send) in [
        (
            "239.1.2.3",
            format!("UDP4-RECV:{PORT},reuseaddr,ip-add-membership=239.1.2.3:eth0"),
            format!("UDP4-DATAGRAM:239.1.2.3:{PORT}"),
        ),
        (
            "ff05::1:3",
            format!("UDP6-RECV:{PORT},reuseaddr,ipv6-join-group=[ff05::1:3]:eth0"),
            format!("UDP6-DATAGRAM:[ff05::1:3]:{PORT},so-bindtodevice=eth0"),
        ),
    ] {
        // A colon divides socat's parameters.
        let file = format!("heard-{}", group.replace(':', "-"));
        assert_eq!(listeners(&site, 0, group), Vec::<String>::new());
        for guest in [&mut *vm3, &mut *vm2, &mut *red1] {
            guest.spawn(&format!("socat -u {receive} OPEN:/tmp/{file},creat,append"), "/tmp/socat").unwrap();
        }
        wait_for_listeners(&site, 0, group, &["vm3"]);
        wait_for_listeners(&site, 1, group, &["vm2"]);
        vm1.run(&format!("echo first | socat - {send}")).unwrap();
        for guest in [&mut *vm3, &mut *vm2] {
            guest.run(&format!("for i in $(seq 50); do grep first /tmp/{file} && exit 0; sleep 0.1; done; cat /tmp/socat; exit 1")).unwrap();
        }
        // It leaves, is asked, does not answer.
        vm3.run("killall socat").unwrap();
        wait_for_listeners(&site, 0, group, &[]);
        vm1.run(&format!("echo second | socat - {send}")).unwrap();
        vm2.run(&format!(
            "for i in $(seq 50); do grep second /tmp/{file} && exit 0; sleep 0.1; done; exit 1"
        ))
        .unwrap();
        let others = red1.run(&format!("cat /tmp/{file}; killall socat")).unwrap();
        assert_eq!(others.trim(), "", "another network heard");
        vm2.run("killall socat").unwrap();
    }
    let capture = capture.finish().unwrap();
    let copies = |filter: &str| capture.count(&format!("udp.dstport == {PORT} && {filter}")).unwrap();
    // Neutral: the low word is the adjustment. Two datagrams, on both of the router's links.
    assert_eq!(copies("ipv6.dst[0:14] == 20:01:0d:b8:00:00:00:02:50:00:03:e9:ef:01"), 4);
    assert_eq!(copies("ipv6.dst[0:14] == 20:01:0d:b8:00:00:00:02:90:00:03:e9:50:01"), 4);
    let (good, bad) = capture.checksums(&format!("udp.dstport == {PORT}")).unwrap();
    assert_eq!((good, bad), (8, 0));
    assert_eq!(
        site.daemons[0].drops("bad-report").unwrap(),
        0,
        "every report of a real kernel was understood"
    );
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn avahi_finds_its_neighbours_by_either_family() {
    let (site, mut guests) = site("e2e/to-many-mdns");
    let names = [VM1, VM3, VM2, RED1].map(|vm| vm.name);
    for (guest, name) in guests.iter_mut().zip(names) {
        guest.run(&format!("hostname {name}")).unwrap();
        let arguments = "--no-drop-root --no-chroot --no-rlimits --no-proc-title --debug";
        guest.spawn(&format!("avahi-daemon {arguments}"), "/tmp/avahi").unwrap();
        let started = "for i in $(seq 100); do [ -S /run/avahi-daemon/socket ] && exit 0; sleep 0.1; done; cat /tmp/avahi; exit 1";
        guest.run(started).unwrap();
    }
    wait_for_listeners(&site, 0, "ff02::fb", &["vm1", "vm3"]);
    wait_for_listeners(&site, 1, "ff02::fb", &["vm2"]);
    let vm1 = &mut guests[0];
    for other in [VM3, VM2] {
        for (family, address) in [("IPV4", other.ipv4), ("IPV6", other.ipv6)] {
            let ask = format!(
                "for i in $(seq 10); do echo RESOLVE-HOSTNAME-{family} {}.local | \
                 socat -t 8 - UNIX-CONNECT:/run/avahi-daemon/socket | tee /tmp/answer | grep '^+' && exit 0; sleep 1; done; \
                 cat /tmp/answer /tmp/avahi; exit 1",
                other.name
            );
            let said = vm1.run_within(&ask, Duration::from_secs(120)).unwrap();
            assert!(said.contains(address), "{} is {address}, not {said}", other.name);
        }
    }
    let stranger =
        "echo RESOLVE-HOSTNAME-IPV4 red1.local | socat -t 8 - UNIX-CONNECT:/run/avahi-daemon/socket";
    let said = vm1.run(stranger).unwrap();
    assert!(!said.starts_with('+'), "another network's host was found: {said}");
}
