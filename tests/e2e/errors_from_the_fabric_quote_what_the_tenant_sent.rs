//! A router of the fabric quotes what it saw: SIR and ILA addresses, adjusted checksums. The tenant is told of its own packet.
//!
//! The errors are the Linux router's own; each is checked byte by byte against the frame that was sent, to destinations that go with
//! C = 1 and with C = 0.

use std::time::Duration;

use vhost_ila_tests::oracle::{Kind, Oracle};
use vhost_ila_tests::ringpeer::checksum::sum;
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::site::{BLUE, Network, Plan, Site, VM1, VM2, Vm};

/// Wide enough for a host whose low word is 0xffff, which is never sent with C = 1.
const WIDE: Network = Network { ipv4: "10.0.0.0/8", ..BLUE };
const ONE: Vm = Vm { network: WIDE, ..VM1 };
const TWO: Vm = Vm { network: WIDE, more: &["10.2.255.255", "2001:db8:b1:e::2:ffff"], ..VM2 };
const GATEWAY4: [u8; 4] = [10, 255, 255, 254];

const ETHERNET: usize = 14;
const LIMIT: Duration = Duration::from_secs(3);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn what_is_too_big_for_a_narrow_link_is_told_with_its_mtu() {
    let mut bench = Bench::new("e2e/errors-too-big");
    bench.site.fabric.narrow(1, 1400).unwrap();
    for there in TWO.addresses() {
        bench.forget();
        let sent = bench.frame(there, "TCP full link");
        // First by the router; then, as the path is known, by the tenant's own host.
        for _ in 0..2 {
            let told = bench.told(&sent);
            if there.contains(':') {
                assert_eq!((told.kind, told.code, told.rest), (2, 0, 1400), "to {there}");
            } else {
                // IPv4 packets grow by 20 bytes on the wire.
                assert_eq!((told.kind, told.code, told.rest), (3, 4, 1380), "to {there}");
            }
            // Linux refuses what is too big before it takes a hop.
            told.must_quote(&sent, 64);
        }
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn what_uses_up_its_hops_on_the_way_is_told() {
    let mut bench = Bench::new("e2e/errors-hops");
    for there in TWO.addresses() {
        let sent = with_one_hop(bench.frame(there, "TCP data"));
        let told = bench.told(&sent);
        let expected = if there.contains(':') { (3, 0) } else { (11, 0) };
        assert_eq!((told.kind, told.code), expected, "to {there}");
        told.must_quote(&sent, 1);
    }
}

struct Bench {
    site: Site,
    oracle: Oracle,
    one: Peer,
}

impl Bench {
    fn new(evidence: &str) -> Bench {
        let site = Site::start(evidence, Plan::of(&[ONE, TWO])).unwrap();
        let oracle = Oracle::of(&site).unwrap();
        let mut one = Peer::connect(&site.socket(&ONE), Options::default()).unwrap();
        // The gateway's greetings.
        one.receive_all(Duration::from_millis(500)).unwrap();
        Bench { site, oracle, one }
    }

    /// Makes the first tenant's daemon one that has learned nothing of the path yet.
    fn forget(&mut self) {
        let daemon = &mut self.site.daemons[0];
        daemon.kill().unwrap();
        daemon.restart().unwrap();
        self.one = Peer::connect(&self.site.socket(&ONE), Options::default()).unwrap();
        self.one.receive_all(Duration::from_millis(500)).unwrap();
    }

    /// The frame `name` of the oracle, from the first tenant to the address `there`.
    fn frame(&self, there: &str, name: &str) -> Vec<u8> {
        let here = if there.contains(':') { ONE.ipv6 } else { ONE.ipv4 };
        self.oracle.frame(&self.site.evidence, &ONE, here, there, Kind::Clean, name).unwrap()
    }

    /// Sends `frame` and returns the error that it brings.
    fn told(&mut self, frame: &[u8]) -> Told {
        self.one.send(frame).unwrap();
        loop {
            let came = self.one.receive(LIMIT).unwrap().expect("an error");
            if let Some(told) = Told::read(&came.bytes) {
                return told;
            }
        }
    }
}

/// An ICMP error as a tenant sees it.
struct Told {
    kind: u8,
    code: u8,
    /// The four bytes before the quoted packet.
    rest: u32,
    quote: Vec<u8>,
}

impl Told {
    /// Reads an error of either family; its checksums and its source, the gateway, must be right.
    fn read(frame: &[u8]) -> Option<Told> {
        let packet = &frame[ETHERNET..];
        let icmp = match (frame[12], frame[13], packet[0] >> 4) {
            (0x08, 0x00, 4) if packet[9] == 1 => {
                assert_eq!(packet[12..16], GATEWAY4);
                assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
                assert!(
                    packet.len() <= 576 && sum(&packet[..20], 0) == 0xffff && sum(&packet[20..], 0) == 0xffff
                );
                &packet[20..]
            }
            (0x86, 0xdd, 6) if packet[6] == 58 && packet[40] < 128 => {
                assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40, packet.len());
                assert_eq!(
                    packet[8..22],
                    [0x20, 1, 0x0d, 0xb8, 0, 0xb1, 0, 0x0e, 0, 0, 0, 0, 0xff, 0xff],
                    "VNET:ffff:fffe"
                );
                let pseudo = u32::try_from(packet.len() - 40 + 58).unwrap();
                assert!(packet.len() <= 1280 && sum(&packet[8..], pseudo) == 0xffff);
                &packet[40..]
            }
            _ => return None,
        };
        let rest = u32::from_be_bytes(icmp[4..8].try_into().unwrap());
        Some(Told { kind: icmp[0], code: icmp[1], rest, quote: icmp[8..].to_vec() })
    }

    /// What is quoted is the beginning of what was sent, at least 500 bytes of it, when `hops` were left; an unfragmented IPv4
    /// packet's identification is not carried, and its header's checksum must be right.
    fn must_quote(&self, sent: &[u8], hops: u8) {
        let (sent, quote) = (&sent[ETHERNET..], &self.quote);
        let mut expected = sent[..quote.len()].to_vec();
        if quote[0] >> 4 == 4 {
            assert_eq!(sum(&quote[..20], 0), 0xffff, "the quoted header's checksum");
            expected[8] = hops;
            for at in [4, 5, 6, 7, 10, 11] {
                expected[at] = quote[at];
            }
            assert_eq!(quote[6] & 0xbf, 0, "no fragment");
        } else {
            expected[7] = hops;
        }
        assert!(quote.len() >= 500, "{} bytes quoted", quote.len());
        assert_eq!(*quote, expected);
    }
}

/// `frame` with one hop left.
pub(crate) fn with_one_hop(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12] == 0x86 {
        frame[ETHERNET + 7] = 1;
        return frame;
    }
    frame[ETHERNET + 8] = 1;
    frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    let checksum = !sum(&frame[ETHERNET..ETHERNET + 20], 0);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
    frame
}
