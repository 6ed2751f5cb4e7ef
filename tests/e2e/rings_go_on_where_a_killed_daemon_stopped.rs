//! A daemon is killed; guests go on filling their rings. Its successor takes up what was published and not used, once and in order.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::neighbours::datagram;
use vhost_ila_tests::ringpeer::{Options, Peer, connect};
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};

const QUIET: Duration = Duration::from_millis(500);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn where_the_daemon_listens() {
    let plan = Plan::of(&[VM1, VM2]).offering_packed_rings();
    let site = Site::start("e2e/rings-server", plan).unwrap();
    let sockets = [VM1, VM2].map(|vm| site.socket(&vm));
    goes_on(site, |index| connect(&sockets[index]).unwrap());
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn where_the_daemon_connects() {
    let plan = Plan { daemons_connect: true, ..Plan::of(&[VM1, VM2]).offering_packed_rings() };
    let site = Site::start("e2e/rings-client", plan).unwrap();
    let listeners = [VM1, VM2].map(|vm| UnixListener::bind(site.socket(&vm)).unwrap());
    goes_on(site, |index| {
        listeners[index].set_nonblocking(true).unwrap();
        let accepted =
            wait_for("the daemon to connect", Duration::from_secs(10), || Ok(listeners[index].accept().ok()));
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    });
}

fn goes_on(mut site: Site, attachable: impl Fn(usize) -> UnixStream) {
    let (plain, all) = (Options::default(), Options::offloads());
    // Longer than what a daemon looks through for its place.
    let long = Options { ring: 1024, ..all.packed() };
    for options in [plain, all, plain.packed(), long, all.packed().in_order(), all.in_order()] {
        let mut peers = [0, 1].map(|index| {
            let mut peer = Peer::new(options).unwrap();
            peer.attach(attachable(index)).unwrap();
            peer.receive_all(QUIET).unwrap();
            peer
        });
        // Past the first turn of the ring, so that nothing begins at 0 again.
        let mut number: u32 = 0;
        for _ in 0..10 {
            cross(&mut peers, &mut number, 30);
        }
        for killed in [0, 1] {
            site.daemons[killed].kill().unwrap();
            let first = number;
            if killed == 0 {
                // Into a ring that nobody reads.
                publish(&mut peers[0], &VM1, &VM2, &mut number, 20);
            }
            site.daemons[killed].restart().unwrap();
            peers[killed].attach(attachable(killed)).unwrap();
            peers[0].flush().unwrap();
            if killed == 0 {
                expect(&mut peers[1], first..number);
            }
            cross(&mut peers, &mut number, 100);
            // Stopped in order, which is the last that is said of where a packed ring is when its daemon is killed.
            peers[killed].detach().unwrap();
            peers[killed].attach(attachable(killed)).unwrap();
            cross(&mut peers, &mut number, 100);
        }
    }
}

/// Frames from the first to the second, which arrive; their buffers are given back. (A daemon that is killed before it gave back what it
/// had sent leaves that to the next, which sends it again.)
fn cross(peers: &mut [Peer; 2], number: &mut u32, count: u32) {
    let [one, two] = peers;
    let first = *number;
    publish(one, &VM1, &VM2, number, count);
    expect(two, first..*number);
    one.flush().unwrap();
}

fn publish(peer: &mut Peer, from: &Vm, to: &Vm, number: &mut u32, count: u32) {
    for _ in 0..count {
        peer.send(&datagram(from, to, &number.to_be_bytes()).unwrap()).unwrap();
        *number += 1;
    }
}

/// The frames with these numbers come, in order, each once, and nothing else of that kind.
fn expect(peer: &mut Peer, numbers: std::ops::Range<u32>) {
    let mut came = Vec::new();
    while came.len() < numbers.len() {
        let Some(frame) = peer.receive(Duration::from_secs(5)).unwrap() else { break };
        let frame = frame.bytes;
        if frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17) {
            came.push(u32::from_be_bytes(frame[frame.len() - 4..].try_into().unwrap()));
        }
    }
    assert_eq!(came, numbers.collect::<Vec<_>>());
}
