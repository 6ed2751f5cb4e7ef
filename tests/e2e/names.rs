//! Tenants resolve names by their gateway, which asks the resolvers of its host: dnsmasq, beyond the fabric, for both hosts.
//!
//! The guests are Debian's: dhclient puts the gateway into resolv.conf, glibc and busybox ask it.

use std::time::{Duration, Instant};

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::initramfs::Kit;
use vhost_ila_tests::resolver::Resolver;
use vhost_ila_tests::ringpeer::{Options, Peer, neighbours};
use vhost_ila_tests::site::{BLUE, Network, Plan, RED, Site, VM1, VM2, Vm};

const RED1: Vm =
    Vm { name: "red1", network: RED, mac: "52:54:00:00:01:01", ipv6: "2001:db8:b1:e:0:1:0:1", ..VM1 };
const GREEN: Network = Network { name: "green", vni: 1003, ipv6: "2001:db8:b1:e:0:2::/96", ..BLUE };
const GREEN1: Vm =
    Vm { name: "green1", network: GREEN, mac: "52:54:00:00:02:01", ipv6: "2001:db8:b1:e:0:2:0:1", ..VM1 };
/// Whom a frame for the gateway is for.
const GATEWAY: Vm = Vm { ipv4: "10.1.255.254", ..VM1 };

/// The router's address on its link to hv1; a resolver there is beyond the fabric for hv2.
const RESOLVER: &str = "2001:db8:f:1::1";
/// Nobody is there, and nobody says so.
const SILENT: &str = "2001:db8:53::dead";
/// Whoever is asked there is spoofed.
const SPOOFED: &str = "2001:db8:53::5";

/// How long a silent server is waited for, and what an answer may take otherwise on a busy machine.
const PATIENCE: Duration = Duration::from_millis(1200);
const AT_ONCE: Duration = Duration::from_millis(1100);

fn site(name: &str, vms: &[Vm], kit: Kit, servers: &[(&'static str, &[&str])]) -> (Site, Resolver) {
    let keys = servers.iter().map(|(network, servers)| (*network, format!("dns_forward = {servers:?}")));
    let site = Site::start(name, Plan { kit, network_keys: keys.collect(), ..Plan::of(vms) }).unwrap();
    site.fabric.router.ip("-6 route add blackhole 2001:db8:53::/64").unwrap();
    let long = format!("\"{}\"", "x".repeat(250));
    let records = [
        "host-record=www.example,203.0.113.7,2001:db8:cafe::7".to_owned(),
        format!("txt-record=long.example,{}", [long.as_str(); 5].join(",")),
        "edns-packet-max=4096".to_owned(),
    ];
    let resolver = Resolver::start(&site.fabric.router, &[RESOLVER], &records, &site.evidence).unwrap();
    (site, resolver)
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn guests_of_both_hosts_resolve_by_every_address_of_their_gateway() {
    let blue = [SILENT, RESOLVER];
    let (site, mut resolver) =
        site("e2e/names", &[VM1, VM2, GREEN1], Kit::Clients, &[("blue", &blue), ("green", &[SILENT])]);
    let mut guests = site.power_on_only(&[VM1, VM2]).unwrap();
    for guest in &mut guests {
        // dhclient wants a link-local address that is no longer tentative.
        let ready =
            "until ip -6 addr show dev eth0 scope link | grep fe80 | grep -qv tentative; do sleep 0.1; done";
        for (family, told) in
            [("4", "nameserver 10.1.255.254\n"), ("6", "nameserver 2001:db8:b1:e::ffff:fffe\n")]
        {
            let client = format!("{ready}; /sbin/dhclient -v -1 -{family} eth0 && cat /etc/resolv.conf");
            let said = guest.run(&client).unwrap();
            assert!(said.contains(told), "{}: {said}", guest.name());
        }
        let first = resolve(guest, "10.1.255.254");
        assert!(first >= PATIENCE, "{first:?} with a silent first server");
    }
    for guest in &mut guests {
        // Which server answers is known by now.
        for gateway in ["10.1.255.254", "2001:db8:b1:e::ffff:fffe", "fe80::1%eth0"] {
            let took = resolve(guest, gateway);
            assert!(took < AT_ONCE, "{}: {took:?} by {gateway}", guest.name());
        }
        // glibc, by resolv.conf.
        let hosts = guest.run("getent ahosts www.example").unwrap();
        assert!(hosts.contains("203.0.113.7") && hosts.contains("2001:db8:cafe::7"), "{hosts}");
        let none = guest.try_run("getent ahosts nowhere.example", Duration::from_secs(10)).unwrap();
        assert_eq!((none.status, none.output.as_str()), (2, ""), "no such name");
        assert!(guest.try_run("nslookup -type=txt long.example", Duration::from_secs(10)).is_ok());
    }
    assert!(resolver.said().unwrap().contains("query[A] www.example"));

    // A tenant of the first host asks as fast as it can, a server that says nothing.
    let mut peer = Peer::connect(&site.socket(&GREEN1), Options::default()).unwrap();
    peer.must_resolve(&GREEN1, "10.1.255.254".parse().unwrap()).unwrap();
    let drops = |reason: &str| site.daemons[0].drops(reason).unwrap();
    assert_eq!((drops("dns-busy"), drops("gateway-rate")), (0, 0));
    for id in 0..2000 {
        peer.send(&question(&GREEN1, 40_000, id, b"\x04name\x06nobody\x00\x00\x01\x00\x01", &[])).unwrap();
    }
    let took = resolve(&mut guests[0], "10.1.255.254");
    assert!(took < AT_ONCE, "{took:?} beside a flood");
    assert!(drops("dns-busy") + drops("punt-full") > 0 && drops("gateway-rate") > 0);
    // Whoever asks too much hears what there is to say, once for each question that was taken.
    let answers: Vec<Vec<u8>> = peer
        .receive_burst(Duration::from_secs(6), Duration::from_secs(1))
        .unwrap()
        .iter()
        .filter_map(|frame| dns(&frame.bytes))
        .collect();
    assert!((1..=32).contains(&answers.len()), "{} answers", answers.len());
    assert!(answers.iter().all(|answer| answer[3] & 15 == 2), "SERVFAIL");
}

/// How long busybox takes to learn both addresses of `www.example` from `gateway`.
fn resolve(guest: &mut Guest, gateway: &str) -> Duration {
    let start = Instant::now();
    let said = guest.run(&format!("nslookup www.example {gateway}")).unwrap();
    let took = start.elapsed();
    assert!(said.contains("203.0.113.7") && said.contains("2001:db8:cafe::7"), "{gateway}: {said}");
    took
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn answers_are_as_long_as_the_asker_takes_and_forged_ones_are_not_passed_on() {
    let (site, _resolver) =
        site("e2e/answers", &[VM1, RED1], Kit::Bare, &[("blue", &[RESOLVER]), ("red", &[SPOOFED])]);
    let connect = |vm: &Vm| {
        let mut peer = Peer::connect(&site.socket(vm), Options::default()).unwrap();
        peer.must_resolve(vm, "10.1.255.254".parse().unwrap()).unwrap();
        peer
    };
    let mut blue = connect(&VM1);
    let long = b"\x04long\x07example\x00\x00\x10\x00\x01";
    // EDNS: 4096 bytes, of which the link carries 1452.
    let edns = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
    blue.send(&question(&VM1, 40_000, 7, long, &edns)).unwrap();
    let whole = answers(&mut blue).remove(0);
    assert_eq!((&whole[..2], whole[2] & 2, whole[7]), (&[0, 7][..], 0, 1), "one answer, not cut off");
    assert!(whole.len() > 1255, "{} bytes", whole.len());
    blue.send(&question(&VM1, 40_000, 8, long, &[])).unwrap();
    let cut = answers(&mut blue).remove(0);
    assert!(cut[2] & 2 != 0 && cut.len() <= 512, "cut off at 512 bytes where nothing else is said");

    site.fabric.router.ip(&format!("-6 addr add {SPOOFED}/128 dev lo nodad")).unwrap();
    let mut spoofed = Resolver::start_spoofed(&site.fabric.router, SPOOFED, &site.evidence).unwrap();
    let mut red = connect(&RED1);
    let name = b"\x03www\x07example\x00\x00\x01\x00\x01";
    red.send(&question(&RED1, 40_000, 9, name, &[])).unwrap();
    let answers = answers(&mut red);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(&answers[0][..2], [0, 9]);
    assert!(answers[0].ends_with(&[203, 0, 113, 7]), "{:?}", answers[0]);
    assert!(spoofed.said().unwrap().contains("answered"));
    // What comes from another server the kernel does not even hand over.
    assert_eq!(
        site.daemons[0].drops("dns-forged").unwrap(),
        2,
        "{}",
        site.daemons[0].show("counters").unwrap()
    );
    assert!(
        red.receive_all(Duration::from_millis(300)).unwrap().iter().all(|frame| dns(&frame.bytes).is_none())
    );
}

/// All answers that come until none has for a while.
fn answers(peer: &mut Peer) -> Vec<Vec<u8>> {
    let frames = peer.receive_burst(Duration::from_secs(5), Duration::from_millis(500)).unwrap();
    let answers: Vec<Vec<u8>> = frames.iter().filter_map(|frame| dns(&frame.bytes)).collect();
    assert!(!answers.is_empty(), "no answer");
    answers
}

/// A question of DNS to the gateway, over IPv4, with these additional records.
fn question(vm: &Vm, port: u16, id: u16, question: &[u8], additional: &[u8]) -> Vec<u8> {
    let records = u8::from(!additional.is_empty());
    let header = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, records]].concat();
    let message = [&header, question, additional].concat();
    let length = u16::try_from(8 + message.len()).unwrap();
    let udp = [port, 53, length, 0].map(u16::to_be_bytes).concat();
    neighbours::packet(vm, &GATEWAY, 17, &[udp, message].concat()).unwrap()
}

/// The message of a frame from the gateway's port 53, over IPv4.
fn dns(frame: &[u8]) -> Option<Vec<u8>> {
    let is_dns = frame.get(12..14)? == [8, 0] && frame.get(23)? == &17 && frame.get(34..36)? == [0, 53];
    is_dns.then(|| frame[42..].to_vec())
}
