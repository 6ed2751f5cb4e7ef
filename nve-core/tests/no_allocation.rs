//! The walk allocates nothing: not for a packet that goes, not for one that is answered, not for one that is dropped.

use std::time::Duration;

use nve_core::addr::{ChecksumMode, Vnid};
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::{Frame, HEAD_LEN, Offload};
use nve_core::pipeline::{Again, Fate, Nve, Origin, Receiver, Scratch, Walker};
use nve_core::setup::{
    Alias, Aliased, Attachment, Crossing, Host, Instance, Mapping, Network, Realm, Setup, Task, TaskMapping,
};
use nve_core::testkit::frames::{self, Header};
use smoltcp::wire::EthernetAddress;

const MAC1: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);

/// A task of this host, and one of another.
const HERE: &str = "2001:db8:51:0:2000::1";
const ELSEWHERE: &str = "2001:db8:51:0:2000::2";

fn setup() -> Setup {
    let attachment = |name: &str, last: u8| Attachment {
        name: name.into(),
        network: "blue".into(),
        mac: EthernetAddress([0x52, 0x54, 0, 0, 0, last]),
        addresses: vec![
            format!("10.1.0.{last}").parse().unwrap(),
            format!("2001:db8:b1:e::{last}").parse().unwrap(),
        ],
        hostname: None,
        instance: Instance::default(),
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
    };
    let mapping = |address: &str| Mapping {
        network: "blue".into(),
        address: address.parse().unwrap(),
        locator: "2001:db8:0:2::/64".parse().unwrap(),
    };
    Setup {
        networks: vec![Network {
            ipv4: Some("10.1.0.0/16".parse().unwrap()),
            ipv6: Some("2001:db8:b1:e::/96".parse().unwrap()),
            ..Network::named("blue", Vnid::new(1001).unwrap())
        }],
        attachments: vec![attachment("vm1", 1), attachment("vm3", 3)],
        mappings: vec![mapping("10.1.0.2"), mapping("2001:db8:b1:e::2")],
        tasks: vec![Task { name: "t1".into(), addresses: vec![HERE.parse().unwrap()] }],
        task_mappings: vec![TaskMapping {
            address: ELSEWHERE.parse().unwrap(),
            locator: "2001:db8:0:2::/64".parse().unwrap(),
        }],
        aliases: [("10.1.9.1/32", HERE), ("10.1.9.2/32", ELSEWHERE)]
            .map(|(address, of)| Alias {
                network: "blue".into(),
                address: address.parse().unwrap(),
                of: Aliased::Ipv6(of.parse().unwrap()),
            })
            .into(),
        crossings: vec![Crossing::between(Realm::of("blue"), Realm::Tasks(None))],
        ..Setup::of(Host {
            name: "hv1".into(),
            locator: "2001:db8:0:1::/64".parse().unwrap(),
            sir: "2001:db8:51::/64".parse().unwrap(),
            checksum: ChecksumMode::Neutral,
            uplink_mtu: 1500,
            unknown: Default::default(),
        })
    }
}

/// From every kind of packet, one: what goes, what is answered, what is refused.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (source, others) in [
        (
            "10.1.0.1",
            [
                "10.1.0.2",
                "10.1.0.3",
                "10.1.0.99",
                "10.1.255.254",
                "192.0.2.1",
                "255.255.255.255",
                "10.1.9.1",
                "10.1.9.2",
            ],
        ),
        (
            "2001:db8:b1:e::1",
            [
                "2001:db8:b1:e::2",
                "2001:db8:b1:e::3",
                "2001:db8:b1:e::99",
                "2001:db8:b1:e::ffff:fffe",
                "2001:db8::1",
                "ff02::fb",
                HERE,
                ELSEWHERE,
            ],
        ),
    ] {
        for destination in others {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let header = Header { dont_fragment: false, ..Header::default() };
            for len in [20, 1400, 4000] {
                packets.push(frames::echo_request(header, source, destination, 1, &vec![0; len]));
                let (from, to) = ((source, 1000).into(), (destination, 2000).into());
                packets.push(frames::udp(header, from, to, &vec![0; len]));
                packets.push(frames::tcp(Header::default(), from, to, frames::flags::ACK, &vec![0; len]));
            }
        }
    }
    packets
}

#[test]
fn a_packet_costs_no_allocation() {
    let nve = Nve::new(setup().check().unwrap(), 100);
    for attachment in nve.ports() {
        nve.set_receiver(attachment.port, Receiver { up: true, ..Receiver::default() });
    }
    let vm1 = Origin::Port(nve.port("vm1").unwrap());
    let frames: Vec<_> = packets().iter().map(|p| frames::ethernet(MAC1, GATEWAY_MAC, p)).collect();
    let mut walker = Walker::new(nve.clone());
    let mut scratch = Scratch::default();
    let (mut gone, mut answered, mut dropped) = (0, 0, 0);

    let allocations = allocation_counter::measure(|| {
        for round in 1..=3 {
            walker.begin(Duration::from_secs(round));
            for bytes in &frames {
                let head = bytes.get(..HEAD_LEN).unwrap_or(bytes);
                let mut frame = Frame { head, len: bytes.len(), offload: Offload::NONE };
                let mut fate = walker.walk(vm1, &frame, &mut scratch);
                if fate == Fate::Again(Again::Whole) {
                    frame = Frame::whole(bytes);
                    fate = walker.walk(vm1, &frame, &mut scratch);
                }
                match fate {
                    Fate::Local(_, first) | Fate::Uplink(first) => {
                        gone += 1;
                        let mut more = first.more;
                        while more {
                            more = walker.next_copy(&frame, &mut scratch).is_some();
                            gone += 1;
                        }
                    }
                    Fate::Reply(..) => answered += 1,
                    _ => dropped += 1,
                }
            }
            for bytes in &frames {
                walker.walk(Origin::Uplink, &Frame::whole(&bytes[14..]), &mut scratch);
            }
        }
    });
    assert_eq!(allocations.count_total, 0, "{gone} gone, {answered} answered, {dropped} dropped");
    assert!(
        gone > 100 && answered > 20 && dropped > 10,
        "{gone} gone, {answered} answered, {dropped} dropped"
    );
}
