//! DPDK's virtio-user (22.11) as the front-end and driver: every option of its rings, and its way to reconnect.
//!
//! ```text
//!   a peer in this process ──datagram──> vhost-ila ──> testpmd, 5tswap: addresses and ports exchanged ──> vhost-ila ──> the peer
//! ```
//!
//! An answer shows both directions, byte for byte. testpmd has ordinary pages (`--no-huge`), so that the machine stays as it is.

mod asker;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use asker::Asker;
use vhost_ila_tests::cloud_hypervisor::load::GOAL;
use vhost_ila_tests::cloud_hypervisor::{CloudHypervisor, LINUX, Spec};
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::HONEST;
use vhost_ila_tests::ringpeer::neighbours::{datagram, is_between};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{Plan, Site, VM1, Vm};
use vhost_ila_tests::testpmd::{self, Pages, Testpmd};

/// How long a testpmd may take until it forwards.
const START: Duration = Duration::from_secs(30);

/// The virtual gateway's address, to which a tenant sends.
const GATEWAY: &str = "02:49:4c:41:00:01";

/// Datagrams that are on their way at once.
const WINDOW: usize = 16;

/// Where IPv4's payload begins in a datagram's frame, and where UDP's does.
const PORTS: usize = 34;
const PAYLOAD: usize = 42;

/// What each run tries, a port each; the last is offered no packed rings, and DPDK goes on without.
const FEW: [&str; 12] = [
    "mrg_rxbuf=1,in_order=0,queue_size=256",
    "mrg_rxbuf=0,in_order=0,queue_size=64",
    "mrg_rxbuf=1,in_order=1,queue_size=1024",
    "mrg_rxbuf=0,in_order=1,queue_size=512",
    "mrg_rxbuf=0,in_order=0,vectorized=1,queue_size=1024",
    "mrg_rxbuf=0,in_order=1,vectorized=1,queue_size=128",
    "mrg_rxbuf=1,in_order=1,vectorized=1,queue_size=64",
    "packed_vq=1,mrg_rxbuf=1,in_order=0,queue_size=256",
    "packed_vq=1,mrg_rxbuf=0,in_order=0,queue_size=64",
    "packed_vq=1,mrg_rxbuf=1,in_order=1,queue_size=1024",
    "packed_vq=1,mrg_rxbuf=0,in_order=1,queue_size=128",
    NOT_OFFERED,
];
const NOT_OFFERED: &str = "packed_vq=1,queue_size=256";

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn dpdk_answers_every_datagram_whatever_its_rings_are_like() {
    let mut check = Check::begin(26, "ports");
    for (number, options) in groups(check.scale(false, true)).iter().enumerate() {
        let ports: Vec<Vm> = (0..options.len()).map(port).collect();
        let vms = [&ports[..], &[HONEST]].concat();
        let packed = ports.iter().zip(options).filter(|(_, options)| is_packed(options));
        let attachment_keys = packed.map(|(vm, _)| (vm.name, "packed = true".to_owned())).collect();
        let plan = Plan { attachment_keys, ..Plan::of(&vms) };
        let mut site = Site::start(&format!("e2e/dpdk-{number}"), plan).unwrap();
        let mut peer = Peer::connect(&site.socket(&HONEST), Options::offloads()).unwrap();
        let devices: Vec<String> = ports
            .iter()
            .zip(options)
            .map(|(vm, options)| format!("path={},mac={},{options}", site.socket(vm).display(), vm.mac))
            .collect();
        let testpmd = start(&devices, &[], &site.evidence.join("testpmd.log"));
        for (vm, options) in ports.iter().zip(options) {
            must_answer(&mut peer, vm, START);
            must_have_negotiated(&site, vm, options);
            for size in [0, 18, 100, 1000, 1400] {
                answers(&mut peer, vm, 40, size).unwrap_or_else(|error| panic!("{options}: {error}"));
            }
            check.count(1);
        }
        testpmd.finish().unwrap();
        site.daemons_must_run().unwrap();
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn dpdk_uses_two_queue_pairs() {
    let mut site = Site::start("e2e/dpdk-pairs", Plan::of(&[VM1, HONEST])).unwrap();
    let mut peer = Peer::connect(&site.socket(&HONEST), Options::offloads()).unwrap();
    let vdev = format!("path={},mac={},queues=2,cq=1", site.socket(&VM1).display(), VM1.mac);
    let testpmd = start(&[vdev], &["--rxq=2", "--txq=2"], &site.evidence.join("testpmd.log"));
    must_answer(&mut peer, &VM1, START);
    for port in 0..64 {
        answers_from(&mut peer, &VM1, port, 16, 100).unwrap();
    }
    let rings = device(&site, VM1.name)["rings"].clone();
    let frames = |ring: usize| rings[ring]["frames"].as_u64().unwrap();
    assert!((0..4).all(|ring| frames(ring) > 100), "both rings of both pairs carry frames: {rings}");
    testpmd.finish().unwrap();
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn dpdk_that_listens_answers_within_a_second_after_either_side_was_killed() {
    let mut check = Check::begin(22, "kills");
    let plan = Plan { daemons_connect: true, ..Plan::of(&[VM1, HONEST]) };
    let mut site = Site::start("e2e/dpdk-listens", plan).unwrap();
    let vdev = format!("path={},mac={},server=1", site.socket(&VM1).display(), VM1.mac);
    let log = site.evidence.join("testpmd.log");
    let mut testpmd = start(std::slice::from_ref(&vdev), &[], &log);
    let spec = Spec { listens: true, pairs: 1, in_order: false, newest: true };
    let mut nic = CloudHypervisor::plug(&site.socket(&HONEST), spec).unwrap();
    nic.activate(LINUX).unwrap();
    let asker = Asker::begin(nic, HONEST, VM1);
    asker.must_be_answered(500).unwrap();
    for round in 1..=check.scale(3, 100) {
        site.daemons[0].kill().unwrap();
        site.daemons[0].restart().unwrap();
        let took = *asker.recoveries(round).unwrap().last().unwrap();
        println!("daemon {round}: answered {took:?} after the reconnect");
        assert!(took < GOAL, "daemon {round}: answered only {took:?} after the reconnect");
        asker.must_be_answered(200).unwrap();
        check.count(1);
    }
    for round in 1..=check.scale(2, 100) {
        let connections = device(&site, VM1.name)["connections"].as_u64().unwrap();
        // Killed when dropped.
        drop(testpmd);
        fs::remove_file(site.socket(&VM1)).unwrap();
        testpmd = start(std::slice::from_ref(&vdev), &[], &log);
        wait_for("the daemon to connect to testpmd", START, || {
            let now = device(&site, VM1.name);
            let runs = |ring: usize| now["rings"][ring]["running"] == true;
            Ok((now["connections"].as_u64() > Some(connections) && runs(0) && runs(1)).then_some(()))
        })
        .unwrap();
        let took = asker.must_be_answered(1).unwrap();
        println!("testpmd {round}: answered {took:?} after its rings ran");
        assert!(took < GOAL, "testpmd {round}: answered only {took:?} after its rings ran");
        asker.must_be_answered(200).unwrap();
        check.count(1);
    }
    drop(asker);
    testpmd.finish().unwrap();
    site.daemons_must_run().unwrap();
}

/// What the daemon of hv1 shows of the device of `name`.
fn device(site: &Site, name: &str) -> serde_json::Value {
    let all = site.daemons[0].show("attachments").unwrap();
    let of_name = all.as_array().unwrap().iter().find(|attachment| attachment["name"] == name);
    of_name.unwrap()["device"].clone()
}

/// Whether rings are packed with `options`: where the attachment says so as well.
fn is_packed(options: &str) -> bool {
    options.contains("packed_vq=1") && options != NOT_OFFERED
}

/// Whether the driver accepted what `options` ask for, and packed rings only where they are offered.
fn must_have_negotiated(site: &Site, vm: &Vm, options: &str) {
    let features = device(site, vm.name)["features"].clone();
    let features = u64::from_str_radix(features.as_str().unwrap(), 16).unwrap();
    for (option, bit) in [("mrg_rxbuf=", 15), ("in_order=", 35)] {
        let asked = options.split(',').find_map(|part| part.strip_prefix(option));
        let accepted = features >> bit & 1 == 1;
        assert!(asked.is_none_or(|asked| (asked == "1") == accepted), "{options}: {features:#x}");
    }
    assert_eq!(features >> 34 & 1 == 1, is_packed(options), "{options}: {features:#x}");
}

/// The options of some testpmds, of which each has a port for each.
fn groups(all: bool) -> Vec<Vec<String>> {
    let mut groups = vec![FEW.map(str::to_owned).to_vec()];
    if all {
        for size in [64, 128, 256, 512, 1024] {
            let options = (0..12).map(|bits| {
                let bit = |number: u32| bits >> number & 1;
                let third = if bits < 8 { format!("vectorized={}", bit(2)) } else { "packed_vq=1".into() };
                format!("mrg_rxbuf={},in_order={},{third},queue_size={size}", bit(0), bit(1))
            });
            groups.push(options.collect());
        }
    }
    groups
}

/// The tenant of a port.
fn port(index: usize) -> Vm {
    let leak = |text: String| -> &'static str { text.leak() };
    Vm {
        name: leak(format!("dpdk{index}")),
        mac: leak(format!("52:54:00:00:02:{index:02x}")),
        ipv4: leak(format!("10.1.2.{}", index + 1)),
        ipv6: leak(format!("2001:db8:b1:e::2:{}", index + 1)),
        ..VM1
    }
}

/// A testpmd whose ports answer, in mirrored addresses, what they receive.
fn start(devices: &[String], arguments: &[&str], log: &Path) -> Testpmd {
    let mut command = testpmd::command("e2e", Pages::Ordinary(256), "0@1,1@1").unwrap();
    for (number, device) in devices.iter().enumerate() {
        command.args(["--vdev", &format!("net_virtio_user{number},{device}")]);
    }
    command.args([
        "--",
        "-i",
        "--auto-start",
        "--forward-mode=5tswap",
        "--port-topology=loop",
        "--nb-cores=1",
    ]);
    command.args(["--total-num-mbufs=20000", "--no-mlockall"]).args(arguments);
    command.args((0..devices.len()).map(|number| format!("--eth-peer={number},{GATEWAY}")));
    Testpmd::start(command, log).unwrap()
}

/// Asks until there is an answer.
fn must_answer(peer: &mut Peer, vm: &Vm, limit: Duration) {
    let start = Instant::now();
    while answers(peer, vm, 1, 8).is_err() {
        assert!(start.elapsed() < limit, "no answer from {}", vm.name);
        // What came late belongs to no question any more.
        peer.receive_all(Duration::from_millis(50)).unwrap();
    }
}

/// Sends `count` datagrams of `size` bytes to `vm`, some at once; each comes back with addresses and ports exchanged.
fn answers(peer: &mut Peer, vm: &Vm, count: usize, size: usize) -> Result<(), String> {
    answers_from(peer, vm, 7, count, size)
}

/// As [`answers`], from UDP's port `port`.
fn answers_from(peer: &mut Peer, vm: &Vm, port: u8, count: usize, size: usize) -> Result<(), String> {
    for first in (0..count).step_by(WINDOW) {
        let sent: Vec<Vec<u8>> = (first..count.min(first + WINDOW))
            .map(|number| [&number.to_be_bytes()[..], &vec![0x5a; size]].concat())
            .map(|payload| with_ports(datagram(&HONEST, vm, &payload).unwrap(), [port, 9]))
            .collect();
        sent.iter().try_for_each(|frame| peer.send(frame)).map_err(|error| error.to_string())?;
        for frame in &sent {
            let answer = loop {
                let frame = peer.receive(Duration::from_secs(1)).map_err(|error| error.to_string())?;
                let frame = frame.ok_or("no answer")?.bytes;
                if is_between(&frame, vm, &HONEST) {
                    break frame;
                }
            };
            let mut expected = frame[PORTS..].to_vec();
            expected[..4].copy_from_slice(&[0, 9, 0, port]);
            if answer[PORTS..] != expected {
                return Err(format!("{:02x?} is not the answer to {frame:02x?}", &answer[..PAYLOAD + 8]));
            }
        }
    }
    Ok(())
}

/// `frame` with UDP's ports set.
fn with_ports(mut frame: Vec<u8>, ports: [u8; 2]) -> Vec<u8> {
    frame[PORTS..PORTS + 4].copy_from_slice(&[0, ports[0], 0, ports[1]]);
    frame
}
