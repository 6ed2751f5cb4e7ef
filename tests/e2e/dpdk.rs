//! DPDK's virtio-user (22.11) as the front-end and driver: every option of its rings, and its way to reconnect.
//!
//! ```text
//!   a peer in this process ──datagram──> vhost-ila ──> testpmd, 5tswap: addresses and ports exchanged ──> vhost-ila ──> the peer
//! ```
//!
//! An answer shows both directions, byte for byte. testpmd has ordinary pages (`--no-huge`), so that the machine stays as it is.

use std::path::Path;
use std::time::{Duration, Instant};

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

/// What each run tries, a port each; `packed_vq` is not offered, and DPDK goes on without.
const FEW: [&str; 8] = [
    "mrg_rxbuf=1,in_order=0,queue_size=256",
    "mrg_rxbuf=0,in_order=0,queue_size=64",
    "mrg_rxbuf=1,in_order=1,queue_size=1024",
    "mrg_rxbuf=0,in_order=1,queue_size=512",
    "mrg_rxbuf=0,in_order=0,vectorized=1,queue_size=1024",
    "mrg_rxbuf=0,in_order=1,vectorized=1,queue_size=128",
    "mrg_rxbuf=1,in_order=1,vectorized=1,queue_size=64",
    "packed_vq=1,queue_size=256",
];

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn dpdk_answers_every_datagram_whatever_its_rings_are_like() {
    let mut check = Check::begin(26, "ports");
    for (number, options) in groups(check.scale(false, true)).iter().enumerate() {
        let ports: Vec<Vm> = (0..options.len()).map(port).collect();
        let vms = [&ports[..], &[HONEST]].concat();
        let mut site = Site::start(&format!("e2e/dpdk-{number}"), Plan::of(&vms)).unwrap();
        let mut peer = Peer::connect(&site.socket(&HONEST), Options::offloads()).unwrap();
        let devices: Vec<String> = ports
            .iter()
            .zip(options)
            .map(|(vm, options)| format!("path={},mac={},{options}", site.socket(vm).display(), vm.mac))
            .collect();
        let testpmd = start(&devices, &site.evidence.join("testpmd.log"));
        for (vm, options) in ports.iter().zip(options) {
            must_answer(&mut peer, vm, START);
            for size in [0, 18, 100, 1000, 1400] {
                answers(&mut peer, vm, 40, size).unwrap_or_else(|error| panic!("{options}: {error}"));
            }
            check.count(1);
        }
        testpmd.finish().unwrap();
        site.daemons_must_run().unwrap();
    }
}

/// The options of some testpmds, of which each has a port for each.
fn groups(all: bool) -> Vec<Vec<String>> {
    let mut groups = vec![FEW.map(str::to_owned).to_vec()];
    if all {
        for size in [64, 128, 256, 512, 1024] {
            let options = (0..8).map(|bits| {
                let bit = |number: u32| bits >> number & 1;
                format!("mrg_rxbuf={},in_order={},vectorized={},queue_size={size}", bit(0), bit(1), bit(2))
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
fn start(devices: &[String], log: &Path) -> Testpmd {
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
    command.args(["--total-num-mbufs=20000", "--no-mlockall"]);
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
    for first in (0..count).step_by(WINDOW) {
        let sent: Vec<Vec<u8>> = (first..count.min(first + WINDOW))
            .map(|number| [&number.to_be_bytes()[..], &vec![0x5a; size]].concat())
            .map(|payload| with_ports(datagram(&HONEST, vm, &payload).unwrap(), [7, 9]))
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
            expected[..4].copy_from_slice(&[0, 9, 0, 7]);
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
