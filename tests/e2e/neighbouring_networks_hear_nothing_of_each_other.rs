//! Two virtual networks with the same IPv4 addresses, the neighbouring /96 and the same two hosts; and tenants that lie about who
//! they are. The oracle knows what each may hear: one frame more, on a link or at a tenant, and it complains.
//!
//! The control is in the same run: each network's own traffic must be there, byte by byte.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use vhost_ila_tests::capture::Running;
use vhost_ila_tests::oracle::{Kind, Oracle};
use vhost_ila_tests::ringpeer::{Options, Peer, file};
use vhost_ila_tests::site::{BLUE, Plan, RED, Site, VM1, VM2, Vm};

const RED1: Vm =
    Vm { name: "red1", network: RED, mac: "52:54:00:00:01:01", ipv6: "2001:db8:b1:e:0:1:0:1", ..VM1 };
const RED2: Vm =
    Vm { name: "red2", network: RED, mac: "52:54:00:00:01:02", ipv6: "2001:db8:b1:e:0:1:0:2", ..VM2 };
const ALL: [Vm; 4] = [VM1, VM2, RED1, RED2];

/// How long the first frame may take, and how long nothing must come after it before all is said to have come.
const FIRST: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(500);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn whatever_they_send_and_whoever_they_say_they_are() {
    assert_eq!(BLUE.ipv4, RED.ipv4);
    let mut site = Site::start("e2e/neighbours", Plan::of(&ALL)).unwrap();
    site.fabric.offloads("off").unwrap();
    let oracle = Oracle::of(&site).unwrap();
    let mut peers = ALL.map(|vm| Peer::connect(&site.socket(&vm), Options::default()).unwrap());
    peers.iter_mut().for_each(|peer| drop(peer.receive_all(QUIET).unwrap()));
    let warm_up = site.evidence.join("warm-up");
    let own = [(&VM1, &VM2), (&VM2, &VM1), (&RED1, &RED2), (&RED2, &RED1)];
    oracle
        .make(&warm_up, &own.map(|(sender, receiver)| (sender, sender.ipv6, receiver.ipv6)), Kind::Clean)
        .unwrap();
    exchange(&warm_up, &mut peers);

    let directory = site.evidence.join("run");
    let make = |pairs: &[(&Vm, &str, &str)]| {
        let before = sent(&directory, &VM1);
        oracle.make(&directory, pairs, Kind::Clean).unwrap();
        sent(&directory, &VM1) - before
    };
    make(&own.map(|(sender, receiver)| (sender, sender.ipv4, receiver.ipv4)));
    make(&own.map(|(sender, receiver)| (sender, sender.ipv6, receiver.ipv6)));
    // To the other network's tenants, on this host and on the other; and as if from there.
    let own_errors = errors(&directory, &VM1);
    let foreign = make(&[(&VM1, VM1.ipv6, RED1.ipv6), (&VM1, VM1.ipv6, RED2.ipv6)]);
    let foreign_errors = errors(&directory, &VM1) - own_errors;
    let spoofed = make(&[
        (&VM1, RED1.ipv6, RED2.ipv6),
        (&VM1, RED1.ipv6, VM2.ipv6),
        (&VM1, VM2.ipv6, VM2.ipv6),
        (&VM1, "10.1.0.77", VM2.ipv4),
        (&VM1, VM2.ipv4, VM2.ipv4),
    ]);
    // By the names that the wire has for them: SIR and ILA addresses of red2.
    let told = errors(&directory, &VM1);
    let sir = make(&[(&VM1, VM1.ipv6, "2001:db8:51:0:4000:3ea:a01:2")]);
    let sir_errors = errors(&directory, &VM1) - told;
    let locator = make(&[(&VM1, VM1.ipv6, "2001:db8:0:2:4000:3ea:a01:2")]);
    let strangers = lie_about_the_card(&directory, &VM1, &RED1);

    let links = ["hv1", "hv2"].map(|link| {
        Running::start(&site.fabric.router, &[link], &directory.join(format!("link-{link}.pcapng"))).unwrap()
    });
    let expected = [
        ("foreign-network", foreign - foreign_errors),
        // An ICMP error goes where the packet that it quotes came from, and none came from there.
        ("quoted-packet", foreign_errors + sir_errors),
        ("spoofed-address", spoofed),
        ("spoofed-mac", strangers),
        ("sir-destination", sir - sir_errors),
        ("locator-destination", locator),
    ];
    let before = expected.map(|(reason, _)| site.daemons[0].drops(reason).unwrap());
    exchange(&directory, &mut peers);
    let counted = expected.map(|(reason, _)| site.daemons[0].drops(reason).unwrap());
    links.into_iter().for_each(|link| drop(link.finish().unwrap()));
    for ((reason, count), (before, after)) in expected.into_iter().zip(before.into_iter().zip(counted)) {
        assert!(count > 0);
        assert_eq!(after - before, count as u64, "{reason}: {}", site.daemons[0].show("counters").unwrap());
    }
    let verdict = oracle.judge(&directory).unwrap();
    println!("{verdict:?}");
    assert!(verdict.received > 100);
    site.daemons_must_run().unwrap();
}

/// Sends what each has in `directory`, and writes there what each receives.
fn exchange(directory: &Path, peers: &mut [Peer; 4]) {
    for (vm, peer) in ALL.iter().zip(&mut *peers) {
        let frames = file::read(&directory.join(format!("{}-sent.pcap", vm.name))).unwrap_or_default();
        frames.iter().for_each(|frame| peer.send(frame).unwrap());
        peer.flush().unwrap();
    }
    for (vm, peer) in ALL.iter().zip(peers) {
        let frames: Vec<Vec<u8>> =
            peer.receive_burst(FIRST, QUIET).unwrap().into_iter().map(|frame| frame.bytes).collect();
        file::write(&directory.join(format!("{}-received.pcap", vm.name)), &frames).unwrap();
    }
}

/// How many frames `sender` has to send.
fn sent(directory: &Path, sender: &Vm) -> usize {
    file::read(&directory.join(format!("{}-sent.pcap", sender.name))).map_or(0, |frames| frames.len())
}

/// How many of the frames that `sender` has to send are ICMP errors, by the oracle's names for them.
fn errors(directory: &Path, sender: &Vm) -> usize {
    let names = fs::read_to_string(directory.join(format!("{}-sent.names", sender.name))).unwrap_or_default();
    names.lines().filter(|name| name.contains("unreachable") || name.contains(", about ")).count()
}

/// Adds to what `sender` sends its first ten frames once more, from the card of `other`; how many they are.
fn lie_about_the_card(directory: &Path, sender: &Vm, other: &Vm) -> usize {
    let path = directory.join(format!("{}-sent.pcap", sender.name));
    let mut frames = file::read(&path).unwrap();
    let card: Vec<u8> = other.mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mut lies = frames[..10].to_vec();
    lies.iter_mut().for_each(|frame| frame[6..12].copy_from_slice(&card));
    frames.extend(lies);
    file::write(&path, &frames).unwrap();
    let mut names = File::options().append(true).open(path.with_extension("names")).unwrap();
    (0..10).for_each(|number| writeln!(names, "another card: {number}").unwrap());
    10
}
