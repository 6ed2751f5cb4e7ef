//! Positive controls of the harness: the fabric without the daemon, and guests joined by a Linux bridge instead of it.

use std::time::Duration;

use vhost_ila_tests::fabric::Fabric;
use vhost_ila_tests::guest::{Accel, Guest, Nic, Qemu, Spec};
use vhost_ila_tests::namespace::Namespace;
use vhost_ila_tests::process::output;
use vhost_ila_tests::tools::Set;
use vhost_ila_tests::{capture, initramfs, sandbox, traffic};

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn two_guests_on_a_linux_bridge_ping_and_move_20_megabytes() {
    sandbox::entered().unwrap();
    let evidence = sandbox::evidence("e2e/bench").unwrap();
    let image = initramfs::make(&evidence).unwrap();
    let accel = Accel::choose(&image).unwrap();
    let bridge = Namespace::new("bridge").unwrap();
    bridge.ip("link add br0 type bridge").unwrap();
    bridge.ip("link set br0 up").unwrap();
    let mut guests = [1, 2].map(|number| {
        let interface = format!("tap{number}");
        bridge.ip(&format!("tuntap add {interface} mode tap")).unwrap();
        bridge.ip(&format!("link set {interface} up master br0")).unwrap();
        let (namespace, mac) = (bridge.clone(), format!("52:54:00:00:00:0{number}"));
        let nic = Nic::Tap { namespace, interface, mac, vhost_net: false };
        let name = format!("vm{number}");
        let spec = Spec { name, image: image.clone(), qemu: Qemu::V10, accel, nic: Some(nic), second: None };
        Guest::start(&spec, &evidence).unwrap()
    });
    for (number, guest) in (1..).zip(&mut guests) {
        guest.wait_until_ready(Duration::from_secs(90)).unwrap();
        guest.run(&format!("ip addr add 10.1.0.{number}/24 dev eth0")).unwrap();
    }
    let capture = capture::Running::start(&bridge, &["br0"], &evidence.join("bridge.pcapng")).unwrap();
    let [one, two] = &mut guests;
    traffic::ping(one, "10.1.0.2", 5).unwrap();
    let sum = traffic::transfer(one, two, "10.1.0.2", 20).unwrap();
    assert_eq!(sum.sent, sum.received);
    let capture = capture.finish().unwrap();
    assert_eq!(capture.count("arp.opcode == 1 && arp.dst.proto_ipv4 == 10.1.0.2").unwrap(), 1);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_fabric_routes_between_locators_and_nothing_else() {
    sandbox::entered().unwrap();
    let fabric = Fabric::new(&["2001:db8:b1:e::/96".to_owned()]).unwrap();
    fabric.offloads("off").unwrap();
    let busybox = Set::open("guest").unwrap().tool("busybox").unwrap();
    let ping = |from: usize, to: &str| {
        let mut command = fabric.hosts[from].namespace.tool(&busybox);
        command.args(["ping", "-6", "-c", "2", "-W", "1", to]);
        output(command)
    };
    let [one, two] = &fabric.hosts[..] else { panic!("two hosts") };
    ping(0, &format!("{}1", two.locator_stem())).unwrap();
    ping(1, &format!("{}1", one.locator_stem())).unwrap();
    ping(1, "2001:db8:9::1").unwrap_err();
}
