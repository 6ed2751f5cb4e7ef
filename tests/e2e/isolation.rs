//! Virtual networks do not hear each other, and a guest cannot speak as another.

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::site::{BLUE, Plan, RED, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

/// As vm1 and vm2, but of another tenant: the same IPv4 addresses, the neighbouring /96.
const RED1: Vm =
    Vm { name: "red1", network: RED, mac: "52:54:00:00:01:01", ipv6: "2001:db8:b1:e:0:1:0:1", ..VM1 };
const RED2: Vm =
    Vm { name: "red2", network: RED, mac: "52:54:00:00:01:02", ipv6: "2001:db8:b1:e:0:1:0:2", ..VM2 };

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn two_networks_with_the_same_ipv4_addresses_never_hear_each_other() {
    assert_eq!(BLUE.ipv4, RED.ipv4);
    let site = Site::start("e2e/isolation", Plan::of(&[VM1, VM2, RED1, RED2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [blue1, blue2, red1, red2] = &mut guests[..] else { panic!("four guests") };
    for guest in [&mut *blue2, &mut *red1, &mut *red2] {
        traffic::listen(guest, "icmp or icmp6").unwrap();
    }

    // The control: each reaches the other of its own network, at the same address. Sizes tell whose echo it is.
    echo(blue1, VM2.ipv4, 111, true);
    echo(red1, RED2.ipv4, 222, true);
    echo(blue1, VM2.ipv6, 333, true);
    echo(red1, RED2.ipv6, 444, true);
    // The neighbouring /96, on the other host and on this one, by the very addresses of those who live there.
    echo(blue1, RED2.ipv6, 555, false);
    echo(blue1, RED1.ipv6, 666, false);
    // What a tenant would have to write to speak to the wire itself: red2's SIR address, and its ILA address.
    echo(blue1, "2001:db8:51:0:4000:3ea:a01:2", 777, false);
    echo(blue1, "2001:db8:0:2:4000:3ea:a01:2", 888, false);

    let (blue, red) = (traffic::heard(blue2).unwrap(), traffic::heard(red2).unwrap());
    let here = traffic::heard(red1).unwrap();
    for (size, at_blue, at_red) in
        [(111, true, false), (333, true, false), (222, false, true), (444, false, true)]
    {
        assert_eq!((has(&blue, size), has(&red, size)), (at_blue, at_red), "echo of {size} bytes");
    }
    for size in [555, 666, 777, 888] {
        assert!(!has(&blue, size) && !has(&red, size) && !has(&here, size), "echo of {size} bytes was heard");
    }
    let drops = |reason: &str| site.daemons[0].drops(reason).unwrap();
    assert!(drops("foreign-network") > 0, "counted where it was tried");
    assert!(drops("sir-destination") > 0 && drops("locator-destination") > 0, "counted where it was tried");
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_guest_that_spoofs_its_mac_or_its_address_is_dropped_and_counted() {
    let site = Site::start("e2e/spoofing", Plan::of(&[VM1, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, vm2] = &mut guests[..] else { panic!("two guests") };
    let drops = |reason: &str| site.daemons[0].drops(reason).unwrap();
    traffic::ping(vm1, VM2.ipv4, 2).unwrap();
    assert_eq!((drops("spoofed-mac"), drops("spoofed-address")), (0, 0), "nothing to complain about yet");
    traffic::listen(vm2, "icmp or icmp6").unwrap();

    vm1.run("ip addr add 10.1.0.77/16 dev eth0; ip -6 addr add 2001:db8:b1:e::77/128 dev eth0; sleep 2")
        .unwrap();
    fails(vm1, &format!("ping -c 3 -i 0.2 -W 1 -I 10.1.0.77 -s 111 {}", VM2.ipv4));
    let after_ipv4 = drops("spoofed-address");
    assert!(after_ipv4 >= 3, "{after_ipv4} counted");
    fails(vm1, &format!("ping -c 3 -i 0.2 -W 1 -I 2001:db8:b1:e::77 -s 222 {}", VM2.ipv6));
    assert!(drops("spoofed-address") >= after_ipv4 + 3);

    vm1.run("ip addr del 10.1.0.77/16 dev eth0; ip -6 addr del 2001:db8:b1:e::77/128 dev eth0").unwrap();
    vm1.run("ip link set eth0 address 52:54:00:00:00:99").unwrap();
    fails(vm1, &format!("ping -c 3 -i 0.2 -W 1 -s 333 {}", VM2.ipv4));
    assert!(drops("spoofed-mac") > 0);
    let heard = traffic::heard(vm2).unwrap();
    for size in [111, 222, 333] {
        assert!(
            !heard.contains(&format!("length {}", size + 8)),
            "vm2 heard a spoofed echo of {size} bytes\n{heard}"
        );
    }

    vm1.run(&format!("ip link set eth0 address {}", VM1.mac)).unwrap();
    traffic::ping(vm1, VM2.ipv4, 2).unwrap();
}

/// Whether tcpdump has printed an echo of `size` bytes; it counts the 8 bytes of the header, too.
fn has(heard: &str, size: u32) -> bool {
    ["length ", "length: "].iter().any(|word| heard.contains(&format!("{word}{}", size + 8)))
}

fn echo(guest: &mut Guest, target: &str, size: u32, answered: bool) {
    let command = format!("ping -c 2 -i 0.2 -W 1 -s {size} {target}");
    if answered { drop(guest.run(&command).unwrap()) } else { fails(guest, &command) }
}

fn fails(guest: &mut Guest, command: &str) {
    let finished = guest.try_run(command, std::time::Duration::from_secs(30)).unwrap();
    assert_ne!(finished.status, 0, "{command} in {}:\n{}", guest.name(), finished.output);
    assert!(
        finished.output.contains("100% packet loss") || finished.output.contains("sendto"),
        "{}",
        finished.output
    );
}
