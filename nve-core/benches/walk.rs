//! The walk alone: nanoseconds per packet from classification to the new head, nothing delivered.
//!
//! `cargo bench -p nve-core`. One packet again and again, so caches are warm: this is the work, not the waiting.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nve_core::addr::{ChecksumMode, Vnid};
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::{Frame, HEAD_LEN, Offload};
use nve_core::pipeline::{Fate, Nve, Origin, Receiver, Scratch, Walker};
use nve_core::setup::{Attachment, Host, Instance, Mapping, Network, Setup};
use nve_core::testkit::frames::{self, Header};
use smoltcp::wire::EthernetAddress;

const MAC1: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);

/// A host with two guests, `vm1` and `vm3` (host `1`) or `vm2` (host `2`).
fn nve(host: u8) -> Arc<Nve> {
    let address = |last: u8| [format!("10.1.0.{last}"), format!("2001:db8:b1:e::{last}")];
    let addresses = |last: u8| address(last).map(|text| text.parse::<IpAddr>().unwrap());
    let (here, there): (&[u8], &[u8]) = if host == 1 { (&[1, 3], &[2]) } else { (&[2], &[1, 3]) };
    let other = 3 - host;
    let setup = Setup {
        networks: vec![Network {
            ipv4: Some("10.1.0.0/16".parse().unwrap()),
            ipv6: Some("2001:db8:b1:e::/96".parse().unwrap()),
            ..Network::named("blue", Vnid::new(1001).unwrap())
        }],
        attachments: here
            .iter()
            .map(|last| Attachment {
                name: format!("vm{last}"),
                network: "blue".into(),
                mac: EthernetAddress([0x52, 0x54, 0, 0, 0, *last]),
                addresses: addresses(*last).into(),
                hostname: None,
                instance: Instance::default(),
                macs: vec![],
                prefixes: vec![],
                shared: vec![],
            })
            .collect(),
        mappings: there
            .iter()
            .flat_map(|last| addresses(*last))
            .map(|address| Mapping {
                network: "blue".into(),
                address,
                locator: format!("2001:db8:0:{other}::/64").parse().unwrap(),
            })
            .collect(),
        ..Setup::of(Host {
            name: format!("hv{host}"),
            locator: format!("2001:db8:0:{host}::/64").parse().unwrap(),
            sir: "2001:db8:51::/64".parse().unwrap(),
            checksum: ChecksumMode::Neutral,
            uplink_mtu: 1500,
            unknown: Default::default(),
        })
    };
    let nve = Nve::new(setup.check().unwrap(), 1000);
    let all = Receiver { up: true, csum: true, tso4: true, tso6: true, ecn: true, uso: true };
    nve.ports().iter().for_each(|attachment| nve.set_receiver(attachment.port, all));
    nve
}

fn datagram(source: &str, destination: &str) -> Vec<u8> {
    let socket = |address: &str| SocketAddr::new(address.parse().unwrap(), 1000);
    frames::udp(Header::default(), socket(source), socket(destination), &[0; 22])
}

fn walks(criterion: &mut Criterion) {
    let (hv1, hv2) = (nve(1), nve(2));
    let vm1 = Origin::Port(hv1.port("vm1").unwrap());
    let mut scratch = Scratch::default();
    let mut group = criterion.benchmark_group("walk");
    for (family, source, near, far) in [
        ("IPv4", "10.1.0.1", "10.1.0.3", "10.1.0.2"),
        ("IPv6", "2001:db8:b1:e::1", "2001:db8:b1:e::3", "2001:db8:b1:e::2"),
    ] {
        let mut at_hv1 = Walker::new(hv1.clone());
        at_hv1.begin(Duration::from_secs(1));
        let local = frames::ethernet(MAC1, GATEWAY_MAC, &datagram(source, near));
        let remote = frames::ethernet(MAC1, GATEWAY_MAC, &datagram(source, far));
        let Fate::Uplink(out) = at_hv1.walk(vm1, &Frame::whole(&remote), &mut scratch) else { panic!() };
        let wire = [&scratch.head[out.head.clone()], &remote[out.tail.clone()]].concat();
        let mut at_hv2 = Walker::new(hv2.clone());
        at_hv2.begin(Duration::from_secs(1));

        let cases = [
            ("to a neighbour", vm1, &local),
            ("to the fabric", vm1, &remote),
            ("from the fabric", Origin::Uplink, &wire),
        ];
        for (way, origin, bytes) in cases {
            let walker = if origin == Origin::Uplink { &mut at_hv2 } else { &mut at_hv1 };
            let head = bytes.get(..HEAD_LEN).unwrap_or(bytes);
            let frame = Frame { head, len: bytes.len(), offload: Offload::NONE };
            let fate = walker.walk(origin, &frame, &mut scratch);
            assert!(matches!(fate, Fate::Local(..) | Fate::Uplink(_)), "{family} {way}: {fate:?}");
            group.bench_function(format!("{family} {way}"), |bencher| {
                bencher.iter(|| walker.walk(origin, black_box(&frame), &mut scratch));
            });
        }
    }
}

criterion_group!(benches, walks);
criterion_main!(benches);
