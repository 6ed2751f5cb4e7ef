//! Every feature bit: switched off by the operator or left by the driver, alone and with every other offload, and the frames arrive all the
//! same, as good as the receiver can take them.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use vhost_frontend::vhost_user::message::VhostUserConfigFlags;
use vhost_frontend::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost_frontend::{VhostBackend, VhostUserMemoryRegionInfo};
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::GATEWAY;
use vhost_ila_tests::ringpeer::card::{Card, Control};
use vhost_ila_tests::ringpeer::data::{Came, Family, LARGEST, Left, data};
use vhost_ila_tests::ringpeer::hostile::{Connection, request};
use vhost_ila_tests::ringpeer::memory::{Memory, user};
use vhost_ila_tests::ringpeer::{Chain, DATAGRAMS, MARKS, OFFLOADS, Options, Peer, bits, connect};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{LINK_MTU, Plan, Site, VM1, VM2, Vm};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use vm_memory::GuestAddress;

const LIMIT: Duration = Duration::from_secs(10);

/// What a driver of ours accepts if it is offered.
fn driver() -> u64 {
    bits(&OFFLOADS)
        | bits(&MARKS)
        | bits(&DATAGRAMS)
        | bits(&[VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, net::VIRTIO_NET_F_STATUS])
}

/// Offloads, and what carries them: of what a driver accepts, all that it may leave.
fn combined() -> Vec<u32> {
    let features = OFFLOADS.into_iter().chain(MARKS).chain(DATAGRAMS);
    features.filter(|bit| *bit != VIRTIO_F_VERSION_1).collect()
}

/// A feature that has an off switch: its name, and its bit if it is one of virtio's.
struct Switch {
    name: String,
    virtio: Option<u32>,
}

/// As `docs/virtio.md` lists them.
fn switches() -> Vec<Switch> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/virtio.md")).unwrap();
    let rows = text.lines().filter(|line| line.contains("`without = "));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let virtio = cells[2].strip_prefix("virtio ").map(|bit| bit.parse().unwrap());
        Switch { name: cells[1].trim_matches('`').to_owned(), virtio }
    })
    .collect()
}

/// A machine on hv1 with the last byte `n` in its addresses.
fn machine(n: u8) -> Vm {
    let leak = |text: String| -> &'static str { text.leak() };
    Vm {
        name: leak(format!("off{n}")),
        mac: leak(format!("52:54:00:00:01:{n:02x}")),
        ipv4: leak(format!("10.1.1.{n}")),
        ipv6: leak(format!("2001:db8:b1:e::1{n:02x}")),
        ..VM1
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn every_feature_can_be_switched_off_and_its_lack_is_made_up_for() {
    let mut check = Check::begin(26, "features off");
    let mut refused = Check::begin(27, "features not offered");
    let switches = switches();
    assert!(switches.len() > 20, "docs/virtio.md has a table");
    let machines: Vec<Vm> = (1..=switches.len() as u8).map(machine).collect();
    let off = machines.iter().zip(&switches);
    let attachment_keys = off.map(|(vm, off)| (vm.name, format!("without = [\"{}\"]", off.name))).collect();
    let plan = Plan { attachment_keys, ..Plan::of(&[&machines[..], &[VM1]].concat()) };
    let mut site = Site::start("e2e/features", plan).unwrap();
    let (_, all) = offered(&site.socket(&VM1));
    let mut full = Driver::start(&site, VM1, !0);
    for (vm, off) in machines.iter().zip(&switches) {
        let name = &off.name;
        let (virtio, protocol) = offered(&site.socket(vm));
        match off.virtio {
            Some(bit) => assert_eq!(virtio & 1 << bit, 0, "{name}"),
            None => assert_ne!(protocol, all, "{name}"),
        }
        let mut driver = Driver::start(&site, *vm, virtio);
        driver.peer.must_resolve(vm, GATEWAY).unwrap_or_else(|error| panic!("without {name}: {error:#}"));
        driver.talk(&mut full, &format!("without {name}"));
        drop(driver);
        // A front-end that accepts it all the same is sent away.
        if let Some(bit) = off.virtio {
            let options = Options { features: bits(&[VIRTIO_F_VERSION_1, bit]), ..Options::default() };
            assert!(Peer::connect(&site.socket(vm), options).is_err(), "{name}");
            let fault = insist(&site, vm, options.features);
            assert!(fault.contains(&format!("{name} (bit {bit}), not offered")), "{name}: {fault}");
            refused.count(1);
        }
        check.count(1);
    }
    // Between two that have all of it, everything was used.
    drop(full);
    let device = shown(&site, &VM1);
    for used in [
        "partial_checksums_taken",
        "partial_checksums_given",
        "tso4_taken",
        "tso6_taken",
        "ecn_taken",
        "tso4_given",
        "tso6_given",
        "ecn_given",
        "uso_taken",
        "uso_given",
        "merged_frames",
        "indirect_chains",
    ] {
        assert!(device["uses"][used].as_u64().unwrap() > 0, "{used}: {device}");
    }
    assert!(device["rings"][1]["signals_spared"].as_u64().unwrap() > 0, "{device}");
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn drivers_without_any_two_features_talk_to_one_with_all() {
    any_two_features_less("e2e/feature-pairs", !bits(&[VIRTIO_F_RING_PACKED]));
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn drivers_of_packed_rings_without_any_two_features_talk_to_one_with_all() {
    any_two_features_less("e2e/feature-pairs-packed", !0);
}

/// Both of them accept no more than what is in `mask`.
fn any_two_features_less(evidence: &str, mask: u64) {
    let mut check = Check::begin(26, "combinations of features");
    let plan = Plan::of(&[VM1, machine(1)]).offering_packed_rings();
    let mut site = Site::start(evidence, plan).unwrap();
    let mut full = Driver::start(&site, VM1, mask);
    let combined = combined();
    // Without some of UDP's, up to three at a full scale: all would be eight times as many.
    let others = combined.len() - DATAGRAMS.len();
    let [most, most_of_udp] = check.scale([2, 2], [combined.len() as u32, 3]);
    let is_tried =
        |lacking: &u32| lacking.count_ones() <= if lacking >> others == 0 { most } else { most_of_udp };
    for lacking in (0u32..1 << combined.len()).filter(is_tried) {
        let without: Vec<u32> =
            (0..).zip(&combined).filter(|(at, _)| lacking >> at & 1 != 0).map(|(_, bit)| *bit).collect();
        let mut driver = Driver::start(&site, machine(1), mask & !bits(&without));
        driver.talk(&mut full, &format!("without bits {without:?}"));
        check.count(1);
    }
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_destination_without_checksum_adjustment_is_sent_nothing_unfinished() {
    let checksum = vhost_ila_tests::site::Checksum::Unmodified;
    let mut site =
        Site::start("e2e/unmodified-finished", Plan { checksum, ..Plan::of(&[VM1, VM2]) }).unwrap();
    let mut one = Driver::start(&site, VM1, !0);
    let mut two = Driver::start(&site, VM2, !0);
    let large = Left { checksum: true, segments: Some(SEGMENT), ..PLAIN };
    let left = [Left { checksum: true, ..PLAIN }, large, Left { datagrams: true, ..large }];
    for family in [Family::V4, Family::V6] {
        for left in left {
            let came = one.send(&mut two, family, left);
            let frames = if left.segments.is_some() { SEGMENTS } else { 1 };
            assert_eq!(came, Came { frames, partial: false, whole: false }, "{family:?} {left:?}");
        }
    }
    site.daemons_must_run().unwrap();
}

const PLAIN: Left = Left { checksum: false, segments: None, ecn: false, datagrams: false };
const SEGMENT: u16 = 1400;
const LONG: usize = 20_000;
const SEGMENTS: usize = LONG.div_ceil(SEGMENT as usize);

/// A driver, and what it accepted.
struct Driver {
    vm: Vm,
    peer: Peer,
    features: u64,
    port: u16,
}

impl Driver {
    /// Of [`driver`], it accepts what is in `mask`, offered, and of use.
    fn start(site: &Site, vm: Vm, mask: u64) -> Driver {
        let (virtio, _) = offered(&site.socket(&vm));
        let mut features = driver() & virtio & mask;
        let has = |features: u64, bit: u32| features & 1 << bit != 0;
        // What a driver must not accept without another (virtio 1.2, 5.1.3.1).
        for (bit, needs) in [
            (net::VIRTIO_NET_F_HOST_TSO4, [net::VIRTIO_NET_F_CSUM; 2]),
            (net::VIRTIO_NET_F_HOST_TSO6, [net::VIRTIO_NET_F_CSUM; 2]),
            (net::VIRTIO_NET_F_GUEST_TSO4, [net::VIRTIO_NET_F_GUEST_CSUM; 2]),
            (net::VIRTIO_NET_F_GUEST_TSO6, [net::VIRTIO_NET_F_GUEST_CSUM; 2]),
            (net::VIRTIO_NET_F_HOST_USO, [net::VIRTIO_NET_F_CSUM; 2]),
            (net::VIRTIO_NET_F_GUEST_USO4, [net::VIRTIO_NET_F_GUEST_CSUM; 2]),
            (net::VIRTIO_NET_F_GUEST_USO6, [net::VIRTIO_NET_F_GUEST_CSUM; 2]),
            (net::VIRTIO_NET_F_HOST_ECN, [net::VIRTIO_NET_F_HOST_TSO4, net::VIRTIO_NET_F_HOST_TSO6]),
            (net::VIRTIO_NET_F_GUEST_ECN, [net::VIRTIO_NET_F_GUEST_TSO4, net::VIRTIO_NET_F_GUEST_TSO6]),
        ] {
            if !needs.iter().any(|need| has(features, *need)) {
                features &= !(1 << bit);
            }
        }
        let chain =
            if has(features, VIRTIO_RING_F_INDIRECT_DESC) { Chain::Indirect } else { Chain::HeaderApart };
        let (rx_buffer, ring) =
            if has(features, net::VIRTIO_NET_F_MRG_RXBUF) { (2048, 256) } else { (LARGEST, 64) };
        let options = Options { features, ring, rx_buffer, chain };
        let peer = Peer::connect(&site.socket(&vm), options).unwrap();
        Driver { vm, peer, features, port: 1024 }
    }

    fn has(&self, bit: u32) -> bool {
        self.features & 1 << bit != 0
    }

    /// Sends data to `to`, leaving `left`; how it came.
    fn send(&mut self, to: &mut Driver, family: Family, left: Left) -> Came {
        self.port += 1;
        let length = if left.segments.is_some() { LONG } else { 1000 };
        let data = data(&self.vm, &to.vm, family, self.port, length, left).unwrap();
        self.peer.send_with(data.frame.header, &data.frame.bytes).unwrap();
        let mut frames = Vec::new();
        loop {
            let next = to.peer.receive(LIMIT).unwrap();
            frames.push(next.unwrap_or_else(|| panic!("{family:?} {left:?}: {} frames came", frames.len())));
            if let Some(came) = data.is_in(&frames).unwrap() {
                return came;
            }
        }
    }

    /// Both send all that they may, each to the other.
    fn talk(&mut self, other: &mut Driver, what: &str) {
        for family in [Family::V4, Family::V6] {
            for left in self.may_leave(family) {
                let expected = other.takes(family, left);
                assert_eq!(self.send(other, family, left), expected, "{what}, sent: {family:?} {left:?}");
            }
            for left in other.may_leave(family) {
                let expected = self.takes(family, left);
                assert_eq!(other.send(self, family, left), expected, "{what}, received: {family:?} {left:?}");
            }
        }
    }

    fn may_leave(&self, family: Family) -> Vec<Left> {
        let mut left = vec![PLAIN];
        if self.has(net::VIRTIO_NET_F_CSUM) {
            left.push(Left { checksum: true, ..PLAIN });
        }
        let tso = match family {
            Family::V4 => net::VIRTIO_NET_F_HOST_TSO4,
            Family::V6 => net::VIRTIO_NET_F_HOST_TSO6,
        };
        if self.has(tso) {
            left.push(Left { checksum: true, segments: Some(SEGMENT), ..PLAIN });
            if self.has(net::VIRTIO_NET_F_HOST_ECN) {
                left.push(Left { checksum: true, segments: Some(SEGMENT), ecn: true, ..PLAIN });
            }
        }
        if self.has(net::VIRTIO_NET_F_HOST_USO) {
            left.push(Left { checksum: true, segments: Some(SEGMENT), datagrams: true, ..PLAIN });
        }
        left
    }

    /// How what was left by the sender must come.
    fn takes(&self, family: Family, left: Left) -> Came {
        let tso = match family {
            Family::V4 => net::VIRTIO_NET_F_GUEST_TSO4,
            Family::V6 => net::VIRTIO_NET_F_GUEST_TSO6,
        };
        let partial = left.checksum && self.has(net::VIRTIO_NET_F_GUEST_CSUM);
        if left.segments.is_none() {
            return Came { frames: 1, partial, whole: false };
        }
        let ecn = !left.ecn || self.has(net::VIRTIO_NET_F_GUEST_ECN);
        let whole = match left.datagrams {
            true => self.has(net::VIRTIO_NET_F_GUEST_USO4) && self.has(net::VIRTIO_NET_F_GUEST_USO6),
            false => self.has(tso) && ecn,
        };
        if partial && whole {
            return Came { frames: 1, partial: true, whole: true };
        }
        Came { frames: SEGMENTS, partial: false, whole: false }
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_front_end_reads_mac_status_pairs_and_mtu_from_the_configuration_space() {
    let plan = Plan { attachment_keys: vec![(VM1.name, "queues = 5".into())], ..Plan::of(&[VM1]) };
    let mut site = Site::start("e2e/configuration-space", plan).unwrap();
    let mut card = Card::connect(&site.socket(&VM1), Options::default(), 5, Control::Ours).unwrap();
    let read = |card: &mut Card, offset, size: usize| {
        let (flags, nothing) = (VhostUserConfigFlags::empty(), vec![0; size]);
        card.frontend().get_config(offset, size as u32, flags, &nothing).map(|(_, bytes)| bytes)
    };
    let space = read(&mut card, 0, 12).unwrap();
    assert_eq!(space[..6], [0x52, 0x54, 0, 0, 0, 1], "the MAC address");
    assert_eq!(space[6..8], [1, 0], "the link is up");
    assert_eq!(space[8..10], [5, 0], "pairs");
    assert_eq!(space[10..12], LINK_MTU.to_le_bytes());
    assert_eq!(read(&mut card, 10, 14).unwrap()[2..], [0; 12], "what is behind it");
    assert_eq!(shown(&site, &VM1)["uses"]["configuration_reads"], 2);
    let written = card.frontend().set_config(0, VhostUserConfigFlags::WRITABLE, &[2; 6]);
    assert!(written.is_err(), "it is read only");
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn protocol_features_do_what_they_promise() {
    let mut site = Site::start("e2e/protocol-features", Plan::of(&[VM1])).unwrap();
    let connect = || Card::connect(&site.socket(&VM1), Options::default(), 1, Control::Ours).unwrap();
    let mut card = connect();
    card.pair(0).must_resolve(&VM1, GATEWAY).unwrap();

    // RESET_DEVICE: no ring runs, and the driver starts again in the same memory.
    card.frontend().reset_device().unwrap();
    let device = shown(&site, &VM1);
    assert!(device["rings"].as_array().unwrap().iter().all(|ring| ring["running"] == false), "{device}");
    card.start().unwrap();
    card.pair(0).must_resolve(&VM1, GATEWAY).unwrap();

    // CONFIGURE_MEM_SLOTS: a region comes, and goes once, and the rings go on.
    let slots = card.frontend().get_max_mem_slots().unwrap();
    assert!(slots >= 32, "{slots} slots");
    let more = Memory::new().unwrap();
    let mut region = more.regions().unwrap().remove(0);
    region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 1 << 40,
        userspace_addr: user(GuestAddress(1 << 40)),
        ..region
    };
    card.frontend().add_mem_region(&region).unwrap();
    card.pair(0).must_resolve(&VM1, GATEWAY).unwrap();
    card.frontend().remove_mem_region(&region).unwrap();
    card.pair(0).must_resolve(&VM1, GATEWAY).unwrap();
    let uses = &shown(&site, &VM1)["uses"];
    assert_eq!((&uses["device_resets"], &uses["regions_changed"]), (&1.into(), &2.into()));

    // REPLY_ACK: what is refused is said to be.
    assert!(card.frontend().remove_mem_region(&region).is_err(), "it is gone already");
    drop(card);
    let mut card = connect();
    assert!(card.frontend().set_vring_num(0, 100).is_err(), "no power of two");
    let mut card = connect();
    card.pair(0).must_resolve(&VM1, GATEWAY).unwrap();
    let accepted = shown(&site, &VM1)["accepted_protocol"].as_array().unwrap().clone();
    for name in ["reply_ack", "mq", "config", "reset_device", "configure_mem_slots"] {
        assert!(accepted.iter().any(|accepted| accepted == name), "{name}: {accepted:?}");
    }
    site.daemons_must_run().unwrap();
}

/// Sets features that were not offered, whatever is said; the fault that the daemon shows then.
fn insist(site: &Site, vm: &Vm, features: u64) -> String {
    let mut connection = Connection::to(&site.socket(vm)).unwrap();
    connection.say(request::SET_OWNER, &[], &[]).unwrap();
    connection.say(request::SET_FEATURES, &features.to_le_bytes(), &[]).unwrap();
    assert!(connection.is_closed(), "the connection goes on");
    wait_for("the fault", LIMIT, || Ok(shown(site, vm)["last_fault"].as_str().map(str::to_owned))).unwrap()
}

/// What is offered on `socket`: virtio's bits, and the protocol's.
fn offered(socket: &Path) -> (u64, VhostUserProtocolFeatures) {
    let mut frontend = Frontend::from_stream(connect(socket).unwrap(), 2);
    let virtio = frontend.get_features().unwrap();
    (virtio, frontend.get_protocol_features().unwrap())
}

/// The device of `vm`, as `show attachments` has it.
fn shown(site: &Site, vm: &Vm) -> Value {
    let shown = site.daemons[vm.host].show("attachments").unwrap();
    let one = shown.as_array().unwrap().iter().find(|one| one["name"] == vm.name).unwrap();
    one["device"].clone()
}
