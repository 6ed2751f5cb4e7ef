//! cloud-hypervisor's front-end, replayed, and the program itself where it is installed and KVM works.

use std::path::Path;
use std::time::Duration;

use vhost_ila_tests::cloud_hypervisor::load::{GOAL, Load};
use vhost_ila_tests::cloud_hypervisor::{CloudHypervisor, LINUX, Spec, real};
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{GATEWAY, HONEST};
use vhost_ila_tests::ringpeer::header::LENGTH;
use vhost_ila_tests::ringpeer::neighbours::{datagram, is_between};
use vhost_ila_tests::ringpeer::ring::Part;
use vhost_ila_tests::ringpeer::{Options, Peer, bits};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{LINK_MTU, Plan, Site, VM1, Vm};
use vhost_ila_tests::{initramfs, sandbox};
use virtio_bindings::virtio_config::VIRTIO_F_IN_ORDER;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};

/// How long a datagram may take.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn both_directions_flow_within_a_second_after_each_kill_where_the_daemon_listens() {
    // Two pairs of which nothing says where they go on; and an old release.
    kills("e2e/ch-server", false, [(VM1, 2, false, true), (HONEST, 1, false, false)]);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn both_directions_flow_within_a_second_after_each_kill_where_the_daemon_connects() {
    // IN_ORDER says where two pairs go on; and an old release.
    kills("e2e/ch-client", true, [(VM1, 2, true, true), (HONEST, 1, false, false)]);
}

/// Two NICs of one host send to each other while their daemon is killed and started again. Of each: whose it is, queue pairs, whether
/// the driver knows IN_ORDER, whether the release is today's.
fn kills(evidence: &str, daemons_connect: bool, nics: [(Vm, usize, bool, bool); 2]) {
    let mut check = Check::begin(22, "kills");
    let plan = Plan { daemons_connect, ..Plan::of(&[VM1, HONEST]) };
    let mut site = Site::start(evidence, plan).unwrap();
    let ends = nics.map(|(vm, pairs, in_order, newest)| {
        let spec = Spec { listens: daemons_connect, pairs, in_order, newest };
        let mut nic = CloudHypervisor::plug(&site.socket(&vm), spec).unwrap();
        nic.activate(LINUX).unwrap();
        assert_eq!(nic.features() & bits(&[VIRTIO_F_IN_ORDER]) != 0, in_order);
        (nic, vm)
    });
    let load = Load::begin(ends);
    load.must_cross(2000).unwrap();
    let mut recoveries = Vec::new();
    for round in 1..=check.scale(4, 100) {
        site.daemons[0].kill().unwrap();
        site.daemons[0].restart().unwrap();
        recoveries = load.must_have_recovered(round).unwrap();
        load.must_cross(500).unwrap();
        check.count(1);
    }
    let crossed = load.end().unwrap();
    recoveries.sort();
    println!(
        "{} kills, {crossed} frames crossed; after the reconnect both directions flowed within {:?} (median), {:?} (worst); the goal is {GOAL:?}",
        recoveries.len(),
        recoveries[recoveries.len() / 2],
        recoveries[recoveries.len() - 1]
    );
    std::thread::sleep(Duration::from_millis(100));
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_program_itself_is_answered_again_after_each_kill_where_it_is_installed() {
    let mut site = Site::start("e2e/ch-itself", Plan::of(&[VM1])).unwrap();
    let image = initramfs::make(Path::new(sandbox::RUNTIME)).unwrap();
    let program = match real::find(&image, &site.evidence) {
        Ok(program) => program,
        Err(reason) => return println!("SKIPPED: {reason:#}"),
    };
    let mut check = Check::begin(22, "kills");
    let mut machine = program.boot(&VM1, &site.socket(&VM1), GATEWAY, &site.evidence).unwrap();
    machine.must_say("bytes from", 10, Duration::from_secs(60)).unwrap();
    for _ in 0..check.scale(4, 100) {
        site.daemons[0].kill().unwrap();
        site.daemons[0].restart().unwrap();
        // It tries to connect every 100 ms, and a ping is sent every 200 ms.
        let so_far = machine.said("bytes from");
        machine.must_say("bytes from", so_far + 1, GOAL + Duration::from_millis(300)).unwrap();
        machine.must_say("bytes from", so_far + 5, LIMIT).unwrap();
        check.count(1);
    }
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_nic_learns_its_mac_and_mtu_and_its_guest_pauses_reboots_and_grows() {
    let mut site = Site::start("e2e/ch-guest", Plan::of(&[VM1, HONEST])).unwrap();
    let mut neighbour = Peer::connect(&site.socket(&HONEST), Options::default()).unwrap();
    let spec = Spec { listens: false, pairs: 2, in_order: false, newest: true };
    let mut nic = CloudHypervisor::plug(&site.socket(&VM1), spec).unwrap();
    let (mac, _, mtu) = nic.config().expect("CONFIG is offered");
    assert_eq!((mac.map(|byte| format!("{byte:02x}")).join(":").as_str(), mtu), (VM1.mac, LINK_MTU));
    nic.activate(LINUX).unwrap();
    crosses(&mut nic, &mut neighbour);

    nic.run(false).unwrap();
    neighbour.send(&datagram(&HONEST, &VM1, b"paused").unwrap()).unwrap();
    neighbour.flush().unwrap();
    assert_eq!(receive(&mut nic, Duration::from_millis(200)), None, "a paused guest receives nothing");
    nic.run(true).unwrap();
    crosses(&mut nic, &mut neighbour);

    nic.reset().unwrap();
    nic.activate(LINUX).unwrap();
    crosses(&mut nic, &mut neighbour);

    // Above all that it had.
    let start = GuestAddress(8 << 30);
    let plugged = nic.plug_memory(start, 2 << 20).unwrap();
    crosses(&mut nic, &mut neighbour);
    sends_from(&mut nic, &plugged, start, &mut neighbour);
    site.daemons[0].kill().unwrap();
    site.daemons[0].restart().unwrap();
    nic.reconnect().unwrap();
    neighbour = Peer::connect(&site.socket(&HONEST), Options::default()).unwrap();
    crosses(&mut nic, &mut neighbour);
    sends_from(&mut nic, &plugged, start, &mut neighbour);
    receives_into(&mut nic, &plugged, start, &mut neighbour);
    site.daemons_must_run().unwrap();
}

/// The next datagram of the neighbour's, on either pair.
fn receive(nic: &mut CloudHypervisor, limit: Duration) -> Option<Vec<u8>> {
    let next = |pair: &mut Peer| pair.receive(Duration::ZERO).unwrap().map(|frame| frame.bytes);
    let came = wait_for("a datagram", limit, || {
        Ok(nic
            .pairs()
            .iter_mut()
            .find_map(|pair| next(pair).filter(|frame| is_between(frame, &HONEST, &VM1))))
    });
    came.ok()
}

/// The next datagram of the NIC's guest that comes to its neighbour.
fn arrived(neighbour: &mut Peer) -> Vec<u8> {
    let mut frames = std::iter::from_fn(|| neighbour.receive(LIMIT).unwrap()).map(|frame| frame.bytes);
    frames.find(|frame| is_between(frame, &VM1, &HONEST)).expect("a datagram")
}

/// Datagrams from each pair to the neighbour, and back.
fn crosses(nic: &mut CloudHypervisor, neighbour: &mut Peer) {
    for number in 0..40_u32 {
        let pairs = nic.pairs();
        let pair = number as usize % pairs.len();
        pairs[pair].send(&datagram(&VM1, &HONEST, &number.to_be_bytes()).unwrap()).unwrap();
        assert!(arrived(neighbour).ends_with(&number.to_be_bytes()));
        neighbour.send(&datagram(&HONEST, &VM1, &number.to_be_bytes()).unwrap()).unwrap();
        assert!(receive(nic, LIMIT).expect("a datagram").ends_with(&number.to_be_bytes()));
    }
}

/// A frame that lies in memory that was plugged in.
fn sends_from(nic: &mut CloudHypervisor, memory: &GuestMemoryMmap, at: GuestAddress, neighbour: &mut Peer) {
    let frame = [&[0; LENGTH][..], &datagram(&VM1, &HONEST, b"from plugged memory").unwrap()].concat();
    memory.write_slice(&frame, at).unwrap();
    let pair = &mut nic.pairs()[0];
    pair.flush().unwrap();
    let part = Part { address: at, length: u32::try_from(frame.len()).unwrap(), writable: false };
    let head = pair.tx().add(&[part]).unwrap();
    pair.tx().publish().unwrap();
    assert!(arrived(neighbour).ends_with(b"from plugged memory"));
    let used = wait_for("the chain to come back", LIMIT, || pair.tx().take_used()).unwrap();
    assert_eq!(used.0, head);
}

/// A buffer in memory that was plugged in, behind all that are in the ring.
fn receives_into(
    nic: &mut CloudHypervisor,
    memory: &GuestMemoryMmap,
    at: GuestAddress,
    neighbour: &mut Peer,
) {
    let at = at.unchecked_add(4096);
    let ring = nic.pairs()[0].rx();
    let mut plugged = None;
    for number in 0..1000_u32 {
        // Other ports, so that some of it comes to the first pair.
        let mut frame = datagram(&HONEST, &VM1, &number.to_be_bytes()).unwrap();
        frame[35] = number as u8;
        neighbour.send(&frame).unwrap();
        neighbour.flush().unwrap();
        let Some((head, length)) = ring.take_used().unwrap() else { continue };
        if plugged.is_none() {
            plugged = Some(ring.add(&[Part { address: at, length: 2048, writable: true }]).unwrap());
            ring.publish().unwrap();
        } else if plugged == Some(head) {
            let mut bytes = vec![0; length as usize];
            memory.read_slice(&mut bytes, at).unwrap();
            assert!(is_between(&bytes[LENGTH..], &HONEST, &VM1));
            return;
        }
    }
    panic!("the buffer in plugged memory was never used");
}
