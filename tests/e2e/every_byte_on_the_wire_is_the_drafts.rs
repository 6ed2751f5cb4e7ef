//! Scenarios 9 and 10: exact frames in, and every byte on both links and at the receiver is what the oracle expects.
//!
//! The tenants are front-ends in this process, so that nothing is sent but what the oracle made. Both send, to and from
//! addresses whose low words are 0x0000 and 0xffff too. All offloads of the fabric's links are off, so that a capture has
//! what a wire would carry.

use std::fs;
use std::time::Duration;

use vhost_ila_tests::capture::{Capture, Running};
use vhost_ila_tests::oracle::{Kind, Oracle, Verdict, script};
use vhost_ila_tests::process::output;
use vhost_ila_tests::ringpeer::{Options, Peer, file};
use vhost_ila_tests::site::{BLUE, Checksum, Network, Plan, Site, VM1, VM2, Vm};

/// Wide enough for hosts whose low word is 0x0000 or 0xffff.
const WIDE: Network = Network { ipv4: "10.0.0.0/8", ..BLUE };
const ONE: Vm = Vm { network: WIDE, ..VM1 };
const TWO: Vm = Vm {
    network: WIDE,
    more: &["10.2.0.0", "10.2.255.255", "2001:db8:b1:e::2:0", "2001:db8:b1:e::2:ffff"],
    ..VM2
};

/// Addresses of the second tenant that go with an adjustment in neutral mode, and those that cannot.
const ADJUSTED: [&str; 4] = [TWO.ipv4, "10.2.0.0", TWO.ipv6, "2001:db8:b1:e::2:0"];
const NEVER_ADJUSTED: [&str; 2] = ["10.2.255.255", "2001:db8:b1:e::2:ffff"];

/// How long the first frame may take.
const FIRST: Duration = Duration::from_secs(10);

/// How long nothing must come after it before all is said to have come.
const QUIET: Duration = Duration::from_millis(500);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_oracle_finds_what_is_spoilt() {
    output(script("selftest.py").unwrap()).unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_neutral_mode_and_every_checksum_is_good_there() {
    let mut bench = Bench::new("e2e/bytes-neutral", Checksum::Neutral, Options::default());
    let clean = bench.run("clean", Kind::Clean, &ADJUSTED);
    let (good, bad) = clean.checksums(WITH_CHECKSUMS).unwrap();
    assert!(good > 100 && bad == 0, "{good} good, {bad} bad");
    // 0xffff is never sent with C = 1: these checksums are for the endpoints' addresses.
    let plain = bench.run("clean-ffff", Kind::Clean, &NEVER_ADJUSTED);
    bench.good_once_restored(&plain);
    bench.run("odd", Kind::Odd, &[ADJUSTED.as_slice(), &NEVER_ADJUSTED].concat());
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_unmodified_mode_and_checksums_are_good_for_the_endpoints_addresses() {
    let mut bench = Bench::new("e2e/bytes-unmodified", Checksum::Unmodified, Options::default());
    let all = [ADJUSTED.as_slice(), &NEVER_ADJUSTED].concat();
    let clean = bench.run("clean", Kind::Clean, &all);
    bench.good_once_restored(&clean);
    bench.run("odd", Kind::Odd, &all);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn whatever_the_rings_look_like() {
    let mut bench = Bench::new(
        "e2e/bytes-rings",
        Checksum::Neutral,
        Options { ring: 1024, rx_buffer: 300, ..Options::offloads() },
    );
    bench.run("indirect-and-mergeable", Kind::Clean, &ADJUSTED);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn where_the_uplink_of_a_host_is_a_vhost_user_socket_of_dpdks() {
    let plan = Plan { by_rings: vec![0], ..Plan::of(&[ONE, TWO]) };
    let mut bench = Bench::of("e2e/bytes-by-rings", plan, Options::default());
    let clean = bench.run("clean", Kind::Clean, &ADJUSTED);
    let (good, bad) = clean.checksums(WITH_CHECKSUMS).unwrap();
    assert!(good > 100 && bad == 0, "{good} good, {bad} bad");
    bench.run("odd", Kind::Odd, &[ADJUSTED.as_slice(), &NEVER_ADJUSTED].concat());
    bench.site.daemons_must_run().unwrap();
    let drops = bench.site.daemons[0].show("counters").unwrap()["uplink"]["drops"].clone();
    println!("dropped of what came by the uplink: {drops}");
}

/// What tshark can judge: fragments but the last have no status, and an opaque payload has none either.
const WITH_CHECKSUMS: &str =
    "tcp.checksum.status || udp.checksum.status || icmpv6.type == 128 || icmpv6.type == 129";

/// Two hosts, a tenant on each.
struct Bench {
    site: Site,
    oracle: Oracle,
    peers: [Peer; 2],
}

impl Bench {
    fn new(evidence: &str, checksum: Checksum, options: Options) -> Bench {
        Bench::of(evidence, Plan { checksum, ..Plan::of(&[ONE, TWO]) }, options)
    }

    fn of(evidence: &str, plan: Plan, options: Options) -> Bench {
        let site = Site::start(evidence, plan).unwrap();
        site.fabric.offloads("off").unwrap();
        let oracle = Oracle::of(&site).unwrap();
        let mut peers = [ONE, TWO].map(|vm| Peer::connect(&site.socket(&vm), options).unwrap());
        peers.iter_mut().for_each(|peer| drop(peer.receive_all(QUIET).unwrap()));
        let mut bench = Bench { site, oracle, peers };
        // Whoever must be found by neighbour discovery is found now; the gateway's greetings are over.
        bench.send("warm-up", Kind::Clean, &[TWO.ipv6]);
        bench
    }

    /// Sends frames between the first tenant and `addresses` of the second, both ways; returns the first host's link.
    fn run(&mut self, name: &str, kind: Kind, addresses: &[&str]) -> Capture {
        let directory = self.site.evidence.join(name);
        fs::create_dir_all(&directory).unwrap();
        let router = &self.site.fabric.router;
        let captures = ["hv1", "hv2"].map(|link| {
            Running::start(router, &[link], &directory.join(format!("link-{link}.pcapng"))).unwrap()
        });
        self.send(name, kind, addresses);
        let [first, _second] = captures.map(|capture| capture.finish().unwrap());
        let Verdict { sent, wire, received, .. } = self.oracle.judge(&directory).unwrap();
        println!(
            "{name}: {sent} frames sent, {wire} packets on the links and {received} delivered as expected"
        );
        assert!(received >= sent && wire >= 2 * sent && sent > 0);
        first
    }

    fn send(&mut self, name: &str, kind: Kind, addresses: &[&str]) {
        let directory = self.site.evidence.join(name);
        fs::create_dir_all(&directory).unwrap();
        let here = |there: &str| if there.contains(':') { ONE.ipv6 } else { ONE.ipv4 };
        let pairs =
            addresses.iter().flat_map(|there| [(&ONE, here(there), *there), (&TWO, *there, here(there))]);
        self.oracle.make(&directory, &pairs.collect::<Vec<_>>(), kind).unwrap();
        for (vm, peer) in [ONE, TWO].iter().zip(&mut self.peers) {
            for frame in file::read(&directory.join(format!("{}-sent.pcap", vm.name))).unwrap() {
                peer.send(&frame).unwrap();
            }
        }
        for (vm, peer) in [ONE, TWO].iter().zip(&mut self.peers) {
            peer.flush().unwrap();
            let frames = peer.receive_burst(FIRST, QUIET).unwrap().into_iter().map(|frame| frame.bytes);
            file::write(&directory.join(format!("{}-received.pcap", vm.name)), &frames.collect::<Vec<_>>())
                .unwrap();
        }
    }

    /// Checksums that are wrong for the addresses on the wire, and right for those that the endpoints used.
    fn good_once_restored(&self, captured: &Capture) {
        let (_, bad) = captured.checksums(WITH_CHECKSUMS).unwrap();
        assert!(bad > 20, "{bad} bad");
        let (good, still_bad) = self.oracle.restore(captured).unwrap().checksums(WITH_CHECKSUMS).unwrap();
        assert!(good >= bad && still_bad == 0, "{good} good, {still_bad} bad");
    }
}
