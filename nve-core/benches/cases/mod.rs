//! The packets that the benches walk: hosts `hv1` (guests `vm1`, `vm3`, `vm17`) and `hv2` (`vm2`, `vm4`) of one network, 64-byte datagrams among them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nve_core::addr::{ChecksumMode, Vnid};
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::{Frame, HEAD_LEN, Offload};
use nve_core::pipeline::{Again, Fate, Nve, Origin, Receiver, Scratch, Walker};
use nve_core::setup::{Attachment, Host, Instance, Mapping, Network, Setup};
use nve_core::testkit::frames::{self, Header};
use smoltcp::wire::EthernetAddress;

const MAC1: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);

/// One packet, and the worker's side that walks it.
pub(crate) struct Case {
    /// What is printed.
    pub(crate) name: String,
    walker: Walker,
    origin: Origin,
    bytes: Vec<u8>,
    other: Option<Vec<u8>>,
    head: [u8; HEAD_LEN],
    scratch: Box<Scratch>,
}

impl Case {
    /// Takes the packet the way that one like it has gone; whether it goes there.
    #[inline]
    pub(crate) fn retrace(&mut self) -> bool {
        let mut fate = Fate::Again(Again::Whole);
        let len = self.bytes.len();
        let Origin::Port(port) = self.origin else {
            let frame = Frame { head: &self.head[..len.min(HEAD_LEN)], len, offload: Offload::NONE };
            return self.walker.retrace_homeward(&frame, (&mut self.scratch, &mut fate));
        };
        self.head = copied(&self.bytes);
        let what = (len, Offload::NONE);
        self.walker.retrace(port, &mut self.head, what, (&mut self.scratch, &mut fate))
    }

    /// Walks the packet once more, from classification to the new head; where there is another, that one the next time.
    #[inline]
    pub(crate) fn walk(&mut self) -> Fate {
        if let Some(other) = &mut self.other {
            core::mem::swap(other, &mut self.bytes);
        }
        let head = self.bytes.get(..HEAD_LEN).unwrap_or(&self.bytes);
        let frame = Frame { head, len: self.bytes.len(), offload: Offload::NONE };
        self.walker.walk(self.origin, &frame, &mut self.scratch)
    }
}

/// What is copied of a frame.
fn copied(bytes: &[u8]) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    head
}

/// All of them; each goes somewhere.
pub(crate) fn all() -> Vec<Case> {
    let (hv1, hv2) = (nve(1), nve(2));
    let vm1 = Origin::Port(hv1.port("vm1").unwrap());
    let mut cases = Vec::new();
    for (family, source, near, far, too) in [
        ("IPv4", "10.1.0.1", "10.1.0.3", "10.1.0.2", "10.1.0.4"),
        ("IPv6", "2001:db8:b1:e::1", "2001:db8:b1:e::3", "2001:db8:b1:e::2", "2001:db8:b1:e::4"),
    ] {
        let case_of = |way: &str, nve: &Arc<Nve>, origin, bytes: &[u8], other| {
            let mut walker = Walker::new(nve.clone());
            walker.begin(Duration::from_secs(1));
            let name = format!("{family} {way}");
            let (bytes, head, scratch) = (bytes.to_vec(), copied(bytes), Box::default());
            let mut case = Case { name, walker, origin, bytes, other, head, scratch };
            case.walk();
            let fate = case.walk();
            assert!(matches!(fate, Fate::Local(..) | Fate::Uplink(_)), "{}: {fate:?}", case.name);
            (case, fate)
        };
        let case = |way: &str, nve: &Arc<Nve>, origin, bytes: &[u8]| case_of(way, nve, origin, bytes, None);
        let remote = frames::ethernet(MAC1, GATEWAY_MAC, &datagram(source, far));
        cases.push(
            case("to a neighbour", &hv1, vm1, &frames::ethernet(MAC1, GATEWAY_MAC, &datagram(source, near)))
                .0,
        );
        let (to_the_fabric, fate) = case("to the fabric", &hv1, vm1, &remote);
        let Fate::Uplink(out) = fate else { panic!("{fate:?}") };
        let wire = [&to_the_fabric.scratch.head[out.head.clone()], &remote[out.tail.clone()]].concat();
        cases.push(to_the_fabric);
        let another = frames::ethernet(MAC1, GATEWAY_MAC, &datagram(source, too));
        cases.push(case_of("to two in the fabric in turns", &hv1, vm1, &remote, Some(another)).0);
        cases.push(case("from the fabric", &hv2, Origin::Uplink, &wire).0);
        let mut third = wire.clone();
        // From another guest of host 1, whose way would be kept in the same place; nobody looks at the checksum.
        third[23] = 17;
        cases.push(case_of("from two in the fabric in turns", &hv2, Origin::Uplink, &wire, Some(third)).0);
    }
    cases
}

/// A host with its guests: `vm1`, `vm3` and `vm17` (host `1`), or `vm2` and `vm4` (host `2`).
fn nve(host: u8) -> Arc<Nve> {
    let address = |last: u8| [format!("10.1.0.{last}"), format!("2001:db8:b1:e::{last:x}")];
    let addresses = |last: u8| address(last).map(|text| text.parse::<IpAddr>().unwrap());
    let (here, there): (&[u8], &[u8]) =
        if host == 1 { (&[1, 3, 17], &[2, 4]) } else { (&[2, 4], &[1, 3, 17]) };
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
