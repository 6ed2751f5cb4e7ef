//! `[uplink]` of kind vhost-user: what it is made of, and what it refuses.

use std::os::unix::fs::PermissionsExt as _;

use nve_core::link::NextHop;
use smoltcp::wire::EthernetAddress;

use super::*;

const TUN: &str = "kind = \"tun\"\n";

/// HOST + BLUE with such an uplink, and `lines` more in its section.
fn with(lines: &str) -> String {
    format!("{HOST}{BLUE}").replacen(TUN, &format!("kind = \"vhost-user\"\n{lines}"), 1)
}

fn device(text: &str) -> (DeviceConfig, NextHop, u16) {
    match load(text).expect("legal").uplink {
        UplinkConfig::VhostUser { device, next_hop, mtu } => (device, next_hop, mtu),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vhost_user_uplink_needs_no_more_than_its_next_hop() {
    let (device, next_hop, mtu) = device(&with("next_hop = \"fe80::1\"\n"));
    assert_eq!(device.socket, Path::new(DEFAULT_RUNTIME).join("fabric.sock"));
    assert_eq!((device.mode, device.mac), (SocketMode::Server, [0x02, 0xb8, 0, 0, 0, 1]));
    assert_eq!((next_hop, mtu), (NextHop::Router("fe80::1".parse().unwrap()), 1500));
    assert_eq!(load(&with("next_hop = \"fe80::1\"\n")).unwrap().setup.setup().uplink_hops, 0);
    assert_eq!(
        load(&format!("{HOST}{BLUE}")).unwrap().setup.setup().uplink_hops,
        1,
        "a TUN's kernel spends one"
    );
}

#[test]
fn everything_about_it_can_be_said() {
    let (device, next_hop, mtu) = device(&with(
        "socket = \"/run/ovs/up.sock\"\nmode = \"client\"\nmac = \"02:00:00:00:00:01\"\nnext_hop = \"02:00:00:00:00:fe\"\nmtu = 9000\n\
         queues = 2\nwithout = [\"mrg_rxbuf\"]\nmemory_max = \"4GiB\"\nuser = \"root\"\n",
    ));
    assert_eq!((device.socket.to_str(), device.mode), (Some("/run/ovs/up.sock"), SocketMode::Client));
    assert_eq!((device.mac, mtu, device.offer.pairs()), ([2, 0, 0, 0, 0, 1], 9000, 2));
    assert_eq!((device.user, device.memory_max), (Some(0), 4 << 30));
    assert_eq!(next_hop, NextHop::Station(EthernetAddress([2, 0, 0, 0, 0, 0xfe])));
}

#[test]
fn what_cannot_be_is_refused_by_line_with_a_remedy() {
    let refused =
        |lines: &str, line, what, remedy| only(&refusals_of(&with(lines), "vni", "vni"), line, what, remedy);
    refused("", 6, "uplink.next_hop", "next_hop = \"fe80::1\"");
    refused("next_hop = \"ff02::1\"\n", 7, "no router's address", "fe80::1");
    refused("next_hop = \"router\"\n", 7, "no MAC address", "six bytes");
    refused("next_hop = \"33:33:00:00:00:01\"\n", 7, "is a group", "unicast");
    refused("next_hop = \"fe80::1\"\nname = \"ila0\"\n", 8, "has no name", "kind = \"tun\"");
    refused("next_hop = \"fe80::1\"\nmac = \"01:00:00:00:00:00\"\n", 8, "uplink.mac", "unicast");
    refused(
        "next_hop = \"fe80::1\"\nsocket = \"control.sock\"\n",
        5,
        "the daemon's own",
        "a path of its own",
    );
    refused("next_hop = \"fe80::1\"\nwithout = [\"mrg_rxbfu\"]\n", 8, "no feature", "mrg_rxbuf");
    let taken = format!("{}socket = \"fabric.sock\"\n", with("next_hop = \"fe80::1\"\n"));
    only(&refusals_of(&taken, "vni", "vni"), 16, "taken by the uplink", "a path of its own");
}

#[test]
fn a_tun_has_nothing_of_a_sockets() {
    for (key, value) in [
        ("next_hop", "\"fe80::1\""),
        ("socket", "\"f.sock\""),
        ("queues", "2"),
        ("mac", "\"02:00:00:00:00:01\""),
    ] {
        let problems = refusals(TUN, &format!("{TUN}{key} = {value}\n"));
        only(&problems, 7, &format!("kind \"tun\" has no {key}"), "kind = \"vhost-user\"");
    }
}

#[test]
fn redirects_need_the_hosts_kernel() {
    let text = format!("{}{REDIRECT}", with("next_hop = \"fe80::1\"\n"));
    let files = directory(&[("host.toml", &text), ("a.key", &"5a".repeat(32))]);
    let only_ours = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(files.path().join("a.key"), only_ours).expect("set");
    let refused = Config::load(files.path()).expect_err("refused");
    let [problem] = refused.problems() else { panic!("{refused:?}") };
    assert!(problem.what.contains("redirects come by the host's kernel"), "{problem:?}");
}
