//! Reloading: numbers stay, changes are whole, nothing is rebuilt.

use super::*;
use crate::tables::Target;

fn with(names: &[&str]) -> setup::CheckedSetup {
    let mut setup = setup(1, ChecksumMode::Neutral);
    let model = setup.attachments[0].clone();
    setup.attachments = (1..)
        .zip(names)
        .map(|(_, name)| {
            // A name's letter is its address, so that it keeps both whatever the others do.
            let last = name.as_bytes()[0];
            let addresses = vec![addr(&format!("10.1.1.{last}"))];
            setup::Attachment { name: (*name).into(), mac: mac(last), addresses, ..model.clone() }
        })
        .collect();
    setup.check().unwrap()
}

fn ports(nve: &Nve) -> Vec<(String, u16)> {
    nve.ports().into_iter().map(|a| (a.name, a.port.0)).collect()
}

#[test]
fn a_port_keeps_its_number_and_a_freed_one_rests_for_a_reload() {
    let nve = Nve::new(with(&["a", "b", "c"]), 100);
    let named = |list: &[(&str, u16)]| list.iter().map(|(n, p)| ((*n).to_owned(), *p)).collect::<Vec<_>>();
    assert_eq!(ports(&nve), named(&[("a", 0), ("b", 1), ("c", 2)]));
    nve.apply(with(&["c", "d", "a"])).unwrap();
    assert_eq!(ports(&nve), named(&[("a", 0), ("c", 2), ("d", 3)]), "b's number is not d's at once");
    nve.apply(with(&["c", "d", "a"])).unwrap();
    nve.apply(with(&["c", "d", "a", "e"])).unwrap();
    assert_eq!(ports(&nve), named(&[("a", 0), ("e", 1), ("c", 2), ("d", 3)]));
}

#[test]
fn a_name_that_comes_back_at_once_has_its_number_again_and_nobody_else_gets_it() {
    let nve = Nve::new(with(&["a", "b"]), 100);
    nve.apply(with(&["b"])).unwrap();
    // As when a reload is taken back: a's device is where it was.
    nve.apply(with(&["a", "b"])).unwrap();
    assert_eq!(nve.port("a"), Some(PortId(0)));
    nve.apply(with(&["a", "b", "c"])).unwrap();
    assert_eq!((nve.port("a"), nve.port("c")), (Some(PortId(0)), Some(PortId(2))));
}

#[test]
fn what_does_not_fit_the_table_changes_nothing() {
    let nve = Nve::new(with(&["a"]), 10);
    let capacity = nve.table.capacity();
    let mut large = with(&["a", "b"]).setup().clone();
    large.mappings = (0..capacity as u32)
        .map(|n| setup::Mapping {
            network: "blue".into(),
            address: core::net::Ipv4Addr::from_bits(0x0a01_2000 + n).into(),
            locator: locator(2),
        })
        .collect();
    let before = (ports(&nve), nve.mappings());
    let refused = nve.apply(large.check().unwrap());
    assert_eq!(refused, Err(ApplyError::TooManyMappings { needed: capacity + 2, capacity }));
    assert_eq!((ports(&nve), nve.mappings()), before);
}

#[test]
fn an_unchanged_mapping_is_not_touched() {
    let nve = Nve::new(with(&["a"]), 100);
    let key = crate::addr::Key::first(Identifier::ipv4(vnid("blue"), [10, 1, 0, 2].into()));
    let Some(Target::Remote(first, _)) = nve.table.get(key) else { panic!() };
    let mut moved = with(&["a"]).setup().clone();
    moved.mappings.retain(|m| m.address != addr("10.1.0.2"));
    nve.apply(moved.clone().check().unwrap()).unwrap();
    assert_eq!(nve.table.get(key), None);
    moved.mappings.push(setup::Mapping {
        network: "blue".into(),
        address: addr("10.1.0.2"),
        locator: locator(7),
    });
    nve.apply(moved.check().unwrap()).unwrap();
    let Some(Target::Remote(second, _)) = nve.table.get(key) else { panic!() };
    assert_ne!(first, second, "a number never means another locator");
    nve.apply(with(&["a"])).unwrap();
    assert!(matches!(nve.table.get(key), Some(Target::Remote(third, _)) if third == first));
}

/// What a worker has in hand when an address moves goes to nobody; nothing goes to whoever had the address.
#[test]
fn once_a_move_is_applied_nothing_reaches_the_old_holder() {
    let mut hv1 = Lab::new(1);
    let to_vm3 = |hv1: &mut Lab| hv1.send("vm1", &udp("10.1.0.1", "10.1.0.3", 9));
    assert!(matches!(to_vm3(&mut hv1), Out::Local(name, ..) if name == "vm3"));

    let mut moved = setup(1, ChecksumMode::Neutral);
    let mut vm4 = moved.attachments[1].clone();
    (vm4.name, vm4.mac) = ("vm4".into(), mac(4));
    moved.attachments[1].addresses.remove(0);
    vm4.addresses.remove(1);
    moved.attachments.push(vm4);
    hv1.nve.apply(moved.clone().check().unwrap()).unwrap();
    hv1.nve.set_receiver(hv1.port("vm4"), ALL_FEATURES);
    assert_eq!(to_vm3(&mut hv1).reason(), Some(DropReason::NoMapping), "the worker is still in its batch");
    hv1.walker.begin(Duration::from_secs(2));
    assert!(matches!(to_vm3(&mut hv1), Out::Local(name, ..) if name == "vm4"));

    moved.attachments.pop();
    let mapping = setup::Mapping { address: addr("10.1.0.3"), ..moved.mappings[0].clone() };
    moved.mappings.push(mapping);
    hv1.nve.apply(moved.check().unwrap()).unwrap();
    let reason = to_vm3(&mut hv1).reason();
    assert_eq!(reason, None, "away to hv2: its locator is known already");
    hv1.walker.begin(Duration::from_secs(3));
    assert_eq!(to_vm3(&mut hv1).ip().destination, ila_of(2, "10.1.0.3"));
}

#[test]
fn mappings_are_listed_as_people_read_them() {
    let hv1 = Lab::new(1);
    let lines = hv1.nve.mappings();
    assert_eq!(lines.len(), 2 * 5);
    let line =
        |address: &str| lines.iter().find(|l| l.network == "blue" && l.address == addr(address)).unwrap();
    assert_eq!(line("10.1.0.1").attachment.as_deref(), Some("vm1"));
    assert_eq!((line("10.1.0.2").attachment.as_deref(), line("10.1.0.2").locator), (None, locator(2)));
    assert_eq!(IpAddr::V6(line("2001:db8:b1:e::2").wire), ila_of(2, "2001:db8:b1:e::2"));
}

#[test]
fn the_mtu_told_leaves_room_for_translation() {
    let mut ipv6_only = setup(1, ChecksumMode::Neutral);
    ipv6_only.networks[1].ipv4 = None;
    ipv6_only.attachments.retain(|a| a.name != "red1");
    ipv6_only.mappings.retain(|m| m.network != "red");
    let mut red = ipv6_only.attachments[0].clone();
    (red.name, red.network, red.addresses) =
        ("red1".into(), "red".into(), vec![addr("2001:db8:b1:e:0:1:0:1")]);
    ipv6_only.attachments.push(red);
    let lab = Lab::of(ipv6_only);
    assert_eq!((lab.nve.mtu(lab.port("vm1")), lab.nve.mtu(lab.port("red1"))), (1480, 1500));
}

/// Packets and bytes are counted where they come in and where they go out, and a packet that was brought twice once.
#[test]
fn every_frame_is_counted_once() {
    let mut hv1 = Lab::new(1);
    let mut long = tcp("10.1.0.1", "10.1.0.3", 200);
    // Options that push the header behind the head.
    long.splice(20..20, [1; 40]);
    long[0] = 0x4f;
    long[3] = (long.len() % 256) as u8;
    long[2] = (long.len() / 256) as u8;
    frames::seal_ipv4(&mut long);
    hv1.send("vm1", &long);
    hv1.send("vm1", &udp("10.1.0.1", "10.1.0.99", 1));
    let totals = hv1.nve.counters();
    let of = |name: &str| totals.ports.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone()).unwrap();
    assert_eq!((of("vm1").in_packets, of("vm1").in_bytes), (2, 14 + long.len() as u64 + 43));
    assert_eq!((of("vm1").all_drops(), of("vm1").dropped(DropReason::NoMapping)), (1, 1));
    assert_eq!(
        (of("vm3").out_packets, of("vm1").out_packets),
        (1, 1),
        "the reply to vm1 counts as given to it"
    );
}

#[test]
fn what_the_slow_path_says_is_for_any_mac_of_who_has_the_port_now() {
    let mut setup = with(&["a", "b"]).setup().clone();
    let virtual_mac = EthernetAddress([0x00, 0x00, 0x5e, 0x00, 0x01, 0x0a]);
    setup.attachments[0].macs = vec![virtual_mac];
    let nve = Nve::new(setup.check().unwrap(), 100);
    let mut walker = Walker::new(nve.clone());
    walker.begin(Duration::ZERO);
    let a = nve.port("a").unwrap();
    let told = |mac: EthernetAddress| walker.bears_its_mac(a, &[mac.as_bytes(), &[0; 54]].concat());
    let own = nve.ports().iter().find(|attachment| attachment.port == a).unwrap().mac;
    assert!(told(own) && told(virtual_mac) && told(EthernetAddress::BROADCAST));
    let neighbour = nve.ports().iter().find(|attachment| attachment.port != a).unwrap().mac;
    assert!(!told(neighbour) && !walker.bears_its_mac(a, &[]));
}
