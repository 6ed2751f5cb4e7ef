//! Two SIR domains on the same two hosts (draft, section 3.8; docs/decisions/0016): one VNI and the same IPv4 addresses in both. The oracle
//! knows each domain by itself and judges the same captures twice; what is of both, or of neither, is a complaint of one of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vhost_ila_tests::capture::Running;
use vhost_ila_tests::oracle::{Kind, Oracle};
use vhost_ila_tests::ringpeer::{Options, Peer, file};
use vhost_ila_tests::site::{BLUE, Checksum, Domain, Network, Plan, Site, VM1, VM2, Vm};

const LAB: Domain = Domain { name: "lab", sir: "2001:db8:5a::/64", networks: &["labblue"] };
/// As [`BLUE`], but for the prefix that says by itself whose it is.
const LABBLUE: Network = Network { name: "labblue", ipv6: "2001:db8:b7:e::/96", ..BLUE };
const LAB1: Vm =
    Vm { name: "lab1", network: LABBLUE, mac: "52:54:00:00:01:01", ipv6: "2001:db8:b7:e::1", ..VM1 };
const LAB2: Vm =
    Vm { name: "lab2", network: LABBLUE, mac: "52:54:00:00:01:02", ipv6: "2001:db8:b7:e::2", ..VM2 };

/// The two machines of each domain, which nothing but their domain tells apart in IPv4.
const OWN: [Vm; 2] = [VM1, VM2];
const OTHERS: [Vm; 2] = [LAB1, LAB2];
const ALL: [Vm; 4] = [VM1, VM2, LAB1, LAB2];

const FIRST: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(500);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn two_domains_share_hosts_vni_and_addresses_and_nothing_else() {
    share_nothing_else(Checksum::Neutral);
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn nor_do_they_where_nothing_is_adjusted() {
    share_nothing_else(Checksum::Unmodified);
}

fn share_nothing_else(checksum: Checksum) {
    let name = format!("e2e/domains-{}", checksum.word());
    let site = Site::start(&name, Plan { checksum, domain: Some(LAB), ..Plan::of(&ALL) }).expect("it starts");
    site.fabric.offloads("off").unwrap();
    let mut peers = ALL.map(|vm| Peer::connect(&site.socket(&vm), Options::default()).unwrap());
    peers.iter_mut().for_each(|peer| drop(peer.receive_all(QUIET).unwrap()));
    let oracles = [Oracle::of_domain(&site, None).unwrap(), Oracle::of_domain(&site, Some(LAB)).unwrap()];
    // Whoever must be found by neighbour discovery is found now.
    exchange(&site.evidence.join("warm-up"), &oracles, &mut peers);

    let directory = site.evidence.join("both");
    fs::create_dir_all(&directory).unwrap();
    let captures = ["hv1", "hv2"].map(|link| {
        let file = directory.join(format!("link-{link}.pcapng"));
        Running::start(&site.fabric.router, &[link], &file).unwrap()
    });
    exchange(&directory, &oracles, &mut peers);
    let captures = captures.map(|capture| capture.finish().unwrap());
    for oracle in &oracles {
        let verdict = oracle.judge(&directory).unwrap();
        assert!(verdict.sent > 20 && verdict.wire >= 2 * verdict.sent && verdict.received >= verdict.sent);
        println!("{name}: {} sent, {} on the links, all of one domain", verdict.sent, verdict.wire);
    }
    for capture in &captures {
        no_packet_names_two_domains(capture);
    }
    // Control: one packet with the other domain's source is a complaint of that domain's oracle.
    spoil(&directory, &oracles);
}

/// Everybody writes to his peer, in both families, all at once.
fn exchange(directory: &Path, oracles: &[Oracle; 2], peers: &mut [Peer; 4]) {
    for ([one, two], oracle) in [OWN, OTHERS].iter().zip(oracles) {
        let pairs = [
            (one, one.ipv4, two.ipv4),
            (two, two.ipv4, one.ipv4),
            (one, one.ipv6, two.ipv6),
            (two, two.ipv6, one.ipv6),
        ];
        oracle.make(directory, &pairs, Kind::Clean).unwrap();
    }
    let frames = ALL.map(|vm| file::read(&directory.join(format!("{}-sent.pcap", vm.name))).unwrap());
    let longest = frames.iter().map(Vec::len).max().unwrap_or_default();
    // By turns, so that packets of both domains are in one batch.
    for at in 0..longest {
        for (frames, peer) in frames.iter().zip(&mut *peers) {
            if let Some(frame) = frames.get(at) {
                peer.send(frame).unwrap();
            }
        }
    }
    for (vm, peer) in ALL.iter().zip(&mut *peers) {
        peer.flush().unwrap();
        let received = peer.receive_burst(FIRST, QUIET).unwrap().into_iter().map(|frame| frame.bytes);
        let file = directory.join(format!("{}-received.pcap", vm.name));
        file::write(&file, &received.collect::<Vec<_>>()).unwrap();
    }
}

/// By tshark, which knows no domain but their prefixes.
fn no_packet_names_two_domains(capture: &vhost_ila_tests::capture::Capture) {
    let prefixes = |sir: &str, vnet: &str, locators: &str| {
        let from = format!("(ipv6.src == {sir} || ipv6.src == {vnet})");
        let to = format!("(ipv6.dst == {locators} || ipv6.dst == {sir} || ipv6.dst == {vnet})");
        (from, to)
    };
    // 2001:db8:0:1:: and :2:: are locators of the hosts' own domain, 2001:db8:1:1:: and :2:: of the other.
    let own = prefixes("2001:db8:51::/64", BLUE.ipv6, "2001:db8::/48");
    let lab = prefixes(LAB.sir, LABBLUE.ipv6, "2001:db8:1::/48");
    for (from, to, is_one) in
        [(&own.0, &own.1, true), (&lab.0, &lab.1, true), (&own.0, &lab.1, false), (&lab.0, &own.1, false)]
    {
        let count = capture.count(&format!("{from} && {to}")).unwrap();
        assert_eq!(count > 0, is_one, "{count} packets {from} {to}");
    }
}

/// Each captured link once more, with one packet of the one domain from the other.
fn spoil(directory: &Path, oracles: &[Oracle; 2]) {
    let spoilt = directory.with_extension("spoilt");
    fs::create_dir_all(&spoilt).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, spoilt.join(path.file_name().unwrap())).unwrap();
    }
    // What lab2 got goes to vm2, which has the same address.
    fs::copy(directory.join("lab2-received.pcap"), spoilt.join("vm2-received.pcap")).unwrap();
    assert!(oracles[0].judge(&spoilt).is_err(), "the oracle takes one domain's packets for the other's");
    assert!(oracles[1].judge(&spoilt).is_ok(), "control: the other domain is as it was");
}
