//! One host that every target attacks, and the judge of what it lets out.
//!
//! What must stay true, whatever the input: no panic (overflow and bounds checks are on); nothing crosses between the two virtual
//! networks, though their IPv4 addresses are the same; the task here hears blue, which a crossing lets in, and never red; nobody but the asker is answered; what comes out is a well-formed packet
//! whose addresses are those the configuration allows; a good transport checksum stays good, and a bad one bad.
//!
//! The judge reads packets with the testkit's dissector, which shares no code with the data path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use nve_core::addr::{ChecksumMode, Vnid};
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::{ChecksumState, Offload};
use nve_core::pipeline::{CarryOut, Nve, Origin, Outcome, PortId, Receiver, Walker};
use nve_core::policy::TASK_MAC;
use nve_core::setup::{
    Alias, Aliased, Attachment, Crossing, Host, Instance, Mapping, Network, Realm, Setup, Task,
};
use nve_core::testkit::checksum::{self, Verdict};
use nve_core::testkit::dissect::Dissected;
use smoltcp::wire::EthernetAddress;

pub mod gateway;
pub mod input;

/// Our locator, the other host's, the domain.
/// This host.
pub const LOCATOR: &str = "2001:db8:0:1::/64";
const OTHER_LOCATOR: &str = "2001:db8:0:2::/64";
/// The domain.
pub const SIR: &str = "2001:db8:51::/64";

/// A task of this host, and what blue's IPv4 guests call it.
const TASK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0x2000, 0, 0, 0x11);
const TASK4: &str = "10.1.200.53/32";

/// A guest of the attacked host.
pub struct Guest {
    name: &'static str,
    network: &'static str,
    vni: u32,
    mac: [u8; 6],
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

const fn guest(name: &'static str, network: &'static str, vni: u32, ipv4: [u8; 4], ipv6: [u16; 8]) -> Guest {
    let [_, _, _, host] = ipv4;
    let [a, b, c, d, e, f, g, h] = ipv6;
    Guest {
        name,
        network,
        vni,
        mac: [0x52, 0x54, 0, (vni >> 8) as u8, vni as u8, host],
        ipv4: Ipv4Addr::new(ipv4[0], ipv4[1], ipv4[2], host),
        ipv6: Ipv6Addr::new(a, b, c, d, e, f, g, h),
    }
}

impl Guest {
    /// Its attachment's name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// The first two share a network; the third has the first one's IPv4 address in another, whose /96 is its neighbour.
pub const GUESTS: [Guest; 3] = [
    guest("blue1", "blue", 1001, [10, 1, 0, 1], [0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 1]),
    guest("blue2", "blue", 1001, [10, 1, 0, 2], [0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 2]),
    guest("red1", "red", 1002, [10, 1, 0, 1], [0x2001, 0xdb8, 0xb1, 0xe, 0, 1, 0, 1]),
];

/// What the attacked host decides with.
pub fn nve(checksum: ChecksumMode) -> Arc<Nve> {
    Nve::new(setup(checksum).check().expect("a good setup"), 64)
}

/// The attacked host.
pub struct Site {
    walker: Walker,
    ports: [PortId; 3],
    task: PortId,
    carry_out: CarryOut,
    now: Duration,
}

impl Site {
    /// A host in this checksum mode, whose guests take every offload or none.
    pub fn new(checksum: ChecksumMode, offloads: bool) -> Self {
        let nve = nve(checksum);
        let ports = GUESTS.each_ref().map(|guest| nve.port(guest.name).expect("configured"));
        let all = Receiver { up: true, csum: true, tso4: true, tso6: true, ecn: true, uso: true };
        let receiver = if offloads { all } else { Receiver { up: true, ..Receiver::default() } };
        ports.iter().for_each(|port| nve.set_receiver(*port, receiver));
        let task = nve.port("web").expect("configured");
        nve.set_receiver(task, receiver);
        let walker = Walker::new(Arc::clone(&nve));
        Self { walker, ports, task, carry_out: CarryOut::default(), now: Duration::ZERO }
    }

    /// A frame from guest number `from`: what comes of it, judged.
    pub fn frame_from_guest(&mut self, from: usize, frame: &[u8], offload: Offload) {
        let (ports, task) = (self.ports, self.task);
        let sender = &GUESTS[from];
        let before = frame.get(14..).map_or(Verdict::Unverifiable, |packet| verdict(packet, offload));
        self.walk(Origin::Port(ports[from]), frame, offload, &mut |outcome| match outcome {
            Outcome::Local(port, delivered, offload) if port == task => {
                let source = judge_task(delivered).source;
                assert!(source == sender.ipv6 || source == as_ipv4(sender), "{source} is not the sender's");
                assert_eq!(sender.network, "blue", "crossed without a rule");
                judge_checksum(before, verdict(&delivered[14..], offload));
            }
            Outcome::Local(port, delivered, offload) => {
                let receiver = receiver(&ports, port);
                assert_eq!(receiver.network, sender.network, "crossed to another network");
                judge_delivered(receiver, delivered);
                let source = Dissected::of_frame(delivered).expect("an IP packet").source;
                assert!(
                    source == sender.ipv4 || source == sender.ipv6,
                    "source {source} is not the sender's"
                );
                judge_checksum(before, verdict(&delivered[14..], offload));
            }
            Outcome::Uplink(packet, offload) => {
                judge_sent(sender, packet);
                judge_checksum(before, verdict(packet, offload));
            }
            Outcome::Reply(reply, _) => judge_reply(sender, frame, reply),
            Outcome::Punted(..) | Outcome::Dropped(_) => {}
        });
    }

    /// A packet from the fabric: what comes of it, judged.
    pub fn packet_from_fabric(&mut self, packet: &[u8]) {
        let (ports, task) = (self.ports, self.task);
        let before = verdict(packet, Offload::NONE);
        self.walk(Origin::Uplink, packet, Offload::NONE, &mut |outcome| match outcome {
            Outcome::Local(port, delivered, offload) if port == task => {
                judge_task(delivered);
                if !is_icmpv6_error(packet) {
                    assert_eq!(vnis_of(packet).map(|(from, _)| from), Some(1001), "no task is elsewhere");
                    judge_checksum(before, verdict(&delivered[14..], offload));
                }
            }
            Outcome::Local(port, delivered, offload) => {
                let receiver = receiver(&ports, port);
                judge_delivered(receiver, delivered);
                let (from, to) = vnis_of(packet).expect("an IPv6 packet");
                assert_eq!(to, receiver.vni, "delivered to {}", receiver.name);
                // An error comes from any router; it is for whoever sent the packet it quotes.
                if !is_icmpv6_error(packet) {
                    assert_eq!(from, receiver.vni, "crossed from another network");
                    judge_checksum(before, verdict(&delivered[14..], offload));
                }
            }
            Outcome::Uplink(routed, _) => {
                let (before, after) = (Dissected::of_ip(packet), Dissected::of_ip(routed));
                let (before, after) = (before.expect("read before"), after.expect("an IPv6 packet"));
                assert_eq!(after.hop_limit, before.hop_limit - 1, "a packet that turns round costs a hop");
            }
            Outcome::Reply(reply, _) => {
                let asked = Dissected::of_ip(packet).expect("read before");
                let reply = Dissected::of_ip(reply).expect("an IPv6 packet");
                assert_eq!(reply.destination, asked.source, "an answer to somebody else");
            }
            Outcome::Punted(..) => unreachable!("the fabric asks no desk"),
            Outcome::Dropped(_) => {}
        });
    }

    /// Each input comes ten seconds after the last, so that no allowance of an earlier one matters.
    fn walk(&mut self, origin: Origin, bytes: &[u8], offload: Offload, tell: &mut dyn FnMut(Outcome<'_>)) {
        self.now += Duration::from_secs(10);
        self.walker.begin(self.now);
        let mut outcomes = 0_usize;
        self.carry_out.carry_out(&mut self.walker, origin, bytes, offload, &mut |outcome| {
            outcomes += 1;
            tell(outcome);
        });
        assert!(outcomes >= 1, "vanished without a name");
        // A segment for each byte at worst, and of each a copy for everybody else: guests and the other host.
        assert!(outcomes <= (2 + bytes.len()) * GUESTS.len(), "one packet became {outcomes}");
    }
}

fn receiver(ports: &[PortId; 3], port: PortId) -> &'static Guest {
    let number = ports.iter().position(|p| *p == port).expect("delivered to a port that is not configured");
    &GUESTS[number]
}

/// What a guest is given is for it, or for many: its MAC and its address, or a group's, from the gateway's MAC, and whole.
fn judge_delivered(receiver: &Guest, frame: &[u8]) {
    assert_eq!(&frame[6..12], GATEWAY_MAC.as_bytes());
    let destination = judge_ip(&frame[14..]).destination;
    let mac = if destination == receiver.ipv4 || destination == receiver.ipv6 {
        receiver.mac
    } else {
        group_mac(destination).unwrap_or_else(|| panic!("delivered {destination}"))
    };
    assert_eq!(frame[..6], mac, "delivered {destination}");
}

/// What a task is given is IPv6, for it, with the MACs that every task's packets have.
fn judge_task(frame: &[u8]) -> Dissected<'_> {
    assert_eq!(frame[..6], TASK_MAC.0);
    assert_eq!(&frame[6..12], GATEWAY_MAC.as_bytes());
    let fields = judge_ip(&frame[14..]);
    assert_eq!(fields.destination, TASK, "for another task");
    fields
}

/// `SIR:(VNI:VA)`: type 2 in the three topmost bits of the identifier, then C = 0, VNID and address (draft, section 3.6).
fn as_ipv4(guest: &Guest) -> Ipv6Addr {
    let identifier = 2_u64 << 61 | u64::from(guest.vni) << 32 | u64::from(guest.ipv4.to_bits());
    Ipv6Addr::from_bits(prefix(SIR) | u128::from(identifier))
}

/// The MAC of a group or broadcast (RFC 1112, 6.4; RFC 2464, 7); the networks' own broadcast is 10.1.255.255.
fn group_mac(address: IpAddr) -> Option<[u8; 6]> {
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets() == [10, 1, 255, 255] => Some([0xff; 6]),
        IpAddr::V4(v4) => {
            let [first, b, c, d] = v4.octets();
            (224..240).contains(&first).then_some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) => {
            let [first, .., a, b, c, d] = v6.octets();
            (first == 0xff).then_some([0x33, 0x33, a, b, c, d])
        }
    }
}

/// What goes to the fabric names the sender's network and address, and a host that is not this one.
fn judge_sent(sender: &Guest, packet: &[u8]) {
    let fields = judge_ip(packet);
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (fields.source, fields.destination) else {
        panic!("IPv4 on the fabric")
    };
    assert!(source == sender.ipv6 || source == as_ipv4(sender), "source {source} is not the sender's");
    assert_eq!(destination.to_bits() >> 64, prefix(OTHER_LOCATOR) >> 64, "sent to {destination}");
    assert_eq!(vni_of(destination), sender.vni, "crossed to another network");
}

/// An answer is from the gateway to the asker, and no larger than the question or an ICMP error of either family.
fn judge_reply(asker: &Guest, asked: &[u8], reply: &[u8]) {
    const LARGEST: usize = 14 + 1280;
    assert_eq!(&reply[6..12], GATEWAY_MAC.as_bytes());
    let groups: [&[u8]; 2] = [&[0xff; 6], &[0x33, 0x33, 0, 0, 0, 1]];
    assert!(reply[..6] == asker.mac || groups.contains(&&reply[..6]), "an answer to somebody else");
    assert!(reply.len() <= asked.len().max(LARGEST), "{} bytes bring {}", asked.len(), reply.len());
    if reply[12..14] != [8, 6] {
        judge_ip(&reply[14..]);
    }
}

fn judge_ip(packet: &[u8]) -> Dissected<'_> {
    let fields = Dissected::of_ip(packet).expect("not an IP packet");
    assert_eq!(fields.total_len, packet.len(), "the length field lies");
    assert!(fields.header_checksum_good, "IPv4 header checksum");
    fields
}

/// The VNIDs that a packet's source and destination name.
fn vnis_of(packet: &[u8]) -> Option<(u32, u32)> {
    let fields = Dissected::of_ip(packet)?;
    match (fields.source, fields.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some((vni_of(source), vni_of(destination))),
        _ => None,
    }
}

/// The VNID in an address's identifier, or the one its /96 stands for.
fn vni_of(address: Ipv6Addr) -> u32 {
    let bits = address.to_bits();
    let by_vnet = GUESTS.iter().find(|guest| guest.ipv6.to_bits() >> 32 == bits >> 32);
    by_vnet.map_or((bits >> 32) as u32 & 0x0fff_ffff, |guest| guest.vni)
}

/// Judges a transport checksum as the endpoints would: with the address behind a locator put back where C = 0 (draft, 4.4.2).
fn verdict(packet: &[u8], offload: Offload) -> Verdict {
    if offload.gso.is_some() || matches!(offload.checksum, ChecksumState::Partial { .. }) {
        return Verdict::Unverifiable;
    }
    let Some(fields) = Dissected::of_ip(packet) else { return Verdict::Unverifiable };
    // A UDP length that is not the packet's makes two checksums of one.
    let udp_len = fields.transport.get(4..6).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    if fields.protocol == 17 && udp_len != Some(fields.transport.len()) {
        return Verdict::Unverifiable;
    }
    // Without a pseudo-header, an ICMP message of zeros sums to the other zero: refused by whoever adds it up, yet no update of a
    // checksum can tell the two zeros apart (RFC 1624).
    if fields.protocol == 1 && fields.transport.iter().all(|byte| *byte == 0) {
        return Verdict::Unverifiable;
    }
    let destination = match fields.destination {
        IpAddr::V6(destination) => endpoint(destination).into(),
        ipv4 => ipv4,
    };
    checksum::verify(&fields, fields.source, destination)
}

/// The address an endpoint sees for a destination on the wire; itself where it is none, or C = 1 made the sums equal.
fn endpoint(destination: Ipv6Addr) -> Ipv6Addr {
    let bits = destination.to_bits();
    let locators = [LOCATOR, OTHER_LOCATOR].map(|text| prefix(text) >> 64);
    let (kind, adjusted) = (bits >> 61 & 7, bits >> 60 & 1 == 1);
    if !locators.contains(&(bits >> 64)) || adjusted {
        return destination;
    }
    let vnet = GUESTS.iter().find(|guest| guest.vni == vni_of(destination));
    match (kind, vnet) {
        (3, Some(guest)) => Ipv6Addr::from_bits(guest.ipv6.to_bits() >> 32 << 32 | bits & 0xffff_ffff),
        _ => Ipv6Addr::from_bits(prefix(SIR) | bits & u128::from(u64::MAX)),
    }
}

/// Translation neither breaks a checksum nor mends one.
fn judge_checksum(before: Verdict, after: Verdict) {
    match before {
        Verdict::Good => {
            assert!(matches!(after, Verdict::Good | Verdict::Unverifiable), "good became {after:?}")
        }
        Verdict::Bad => {
            assert!(matches!(after, Verdict::Bad | Verdict::Unverifiable), "bad became {after:?}")
        }
        Verdict::Absent | Verdict::Unverifiable => {}
    }
}

/// An error is for whoever sent the packet it quotes.
fn is_icmpv6_error(packet: &[u8]) -> bool {
    Dissected::of_ip(packet)
        .is_some_and(|fields| fields.protocol == 58 && fields.transport.first() < Some(&128))
}

fn prefix(text: &str) -> u128 {
    let (address, _) = text.split_once('/').expect("a prefix");
    address.parse::<Ipv6Addr>().expect("an address").to_bits()
}

fn setup(checksum: ChecksumMode) -> Setup {
    let network = |name: &str, vni, ipv6: &str| Network {
        ipv4: Some("10.1.0.0/16".parse().expect("a prefix")),
        ipv6: Some(ipv6.parse().expect("a /96")),
        dns: vec!["10.1.0.53".parse().expect("an address"), "2001:db8:b1:e::53".parse().expect("an address")],
        domain: Some("blue.example".into()),
        search: vec!["blue.example".into(), "example".into()],
        ntp: vec![
            "10.1.0.123".parse().expect("an address"),
            "2001:db8:b1:e::123".parse().expect("an address"),
        ],
        ..Network::named(name, Vnid::new(vni).expect("28 bits"))
    };
    let attachment = |guest: &Guest| Attachment {
        name: guest.name.into(),
        network: guest.network.into(),
        mac: EthernetAddress(guest.mac),
        addresses: vec![guest.ipv4.into(), guest.ipv6.into()],
        hostname: Some(guest.name.into()),
        instance: Instance::default(),
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
    };
    let remote = |network: &str, address: &str| Mapping {
        network: network.into(),
        address: address.parse().expect("an address"),
        locator: OTHER_LOCATOR.parse().expect("a /64"),
    };
    Setup {
        networks: vec![
            network("blue", 1001, "2001:db8:b1:e::/96"),
            network("red", 1002, "2001:db8:b1:e:0:1::/96"),
        ],
        attachments: GUESTS.iter().map(attachment).collect(),
        tasks: vec![Task { name: "web".into(), addresses: vec![TASK] }],
        aliases: vec![Alias {
            network: "blue".into(),
            address: TASK4.parse().expect("an address"),
            of: Aliased::Ipv6(TASK),
        }],
        crossings: vec![Crossing { replies: true, ..Crossing::between(Realm::of("blue"), Realm::Tasks(None)) }],
        mappings: vec![
            remote("blue", "10.1.0.3"),
            remote("blue", "2001:db8:b1:e::3"),
            remote("red", "10.1.0.3"),
            remote("red", "2001:db8:b1:e:0:1:0:3"),
        ],
        ..Setup::of(Host {
            name: "hv1".into(),
            locator: LOCATOR.parse().expect("a /64"),
            sir: SIR.parse().expect("a /64"),
            checksum,
            uplink_mtu: 1500,
            unknown: Default::default(),
        })
    }
}
