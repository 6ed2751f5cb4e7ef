//! Reports as hosts of every version write them, what is refused, and how long a listener is one.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::addr::{ChecksumMode, Vnid};
use crate::pipeline::{Nve, PortId, Receiver};
use crate::setup::{Attachment, Host, Multicast, Network, Setup};
use crate::tables::group_in;
use crate::testkit::checksum;
use crate::testkit::frames::{self, Header};

const ONCE: Header = Header { hop_limit: 1, traffic_class: 0xc0, identification: 0, dont_fragment: true };

/// An IGMP message in a frame.
fn igmp(to: &str, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    framed(frames::ip(ONCE, "10.1.0.1".parse().unwrap(), to.parse().unwrap(), 2, message))
}

/// An MLD message behind a Router Alert, in a frame.
fn mld(to: &str, message: &[u8]) -> Vec<u8> {
    mld_from("fe80::5054:ff:fe00:1", to, message, &[58, 0, 5, 2, 0, 0, 1, 0])
}

fn mld_from(from: &str, to: &str, message: &[u8], options: &[u8]) -> Vec<u8> {
    let (from, to): (Ipv6Addr, Ipv6Addr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut message = message.to_vec();
    let pseudo =
        [&from.octets()[..], &to.octets(), &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58], &message]
            .concat();
    let sum = !checksum::sum(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    framed(frames::ip(ONCE, from.into(), to.into(), 0, [options, &message].concat()))
}

fn framed(packet: Vec<u8>) -> Vec<u8> {
    frames::ethernet(
        smoltcp::wire::EthernetAddress([0x52, 0x54, 0, 0, 0, 1]),
        super::super::GATEWAY_MAC,
        &packet,
    )
}

fn v4(group: &str) -> [u8; 4] {
    group.parse::<core::net::Ipv4Addr>().unwrap().octets()
}
fn v6(group: &str) -> [u8; 16] {
    group.parse::<Ipv6Addr>().unwrap().octets()
}

/// IGMPv3 records: type, group, sources.
fn igmp3(records: &[(u8, &str, u16)]) -> Vec<u8> {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, records.len() as u8];
    for (kind, group, sources) in records {
        message.extend([*kind, 0, 0, *sources as u8]);
        message.extend(v4(group));
        (0..*sources).for_each(|_| message.extend(v4("192.0.2.1")));
    }
    igmp("224.0.0.22", &message)
}

fn mld2(records: &[(u8, &str, u16)]) -> Vec<u8> {
    let mut message = vec![143, 0, 0, 0, 0, 0, 0, records.len() as u8];
    for (kind, group, sources) in records {
        message.extend([*kind, 0, 0, *sources as u8]);
        message.extend(v6(group));
        (0..*sources).for_each(|_| message.extend(v6("2001:db8::1")));
    }
    mld("ff02::16", &message)
}

fn heard(frame: &[u8]) -> Result<Vec<Said>, DropReason> {
    let mut all = Vec::new();
    read(frame, &mut |said| all.push(said)).map(|()| all)
}

fn listens(group: &str) -> Said {
    Said::Listens(group.parse().unwrap())
}
fn leaves(group: &str) -> Said {
    Said::Leaves(group.parse().unwrap())
}

#[test]
fn every_version_of_a_report_is_understood() {
    let old = |kind, group: &str| [&[kind, 0, 0, 0][..], &v4(group)].concat();
    for (what, frame, said) in [
        ("IGMPv1", igmp("239.1.2.3", &old(0x12, "239.1.2.3")), vec![listens("239.1.2.3")]),
        ("IGMPv2", igmp("239.1.2.3", &old(0x16, "239.1.2.3")), vec![listens("239.1.2.3")]),
        ("IGMPv2 leave", igmp("224.0.0.2", &old(0x17, "239.1.2.3")), vec![leaves("239.1.2.3")]),
        (
            "IGMPv3: exclude nothing, then include nothing, which is how a host joins and leaves",
            igmp3(&[(4, "239.1.2.3", 0), (3, "239.1.2.4", 0), (2, "239.1.2.5", 0)]),
            vec![listens("239.1.2.3"), leaves("239.1.2.4"), listens("239.1.2.5")],
        ),
        (
            "IGMPv3 with sources: whoever listens to one, or to all but one, listens",
            igmp3(&[
                (1, "232.1.2.3", 2),
                (5, "232.1.2.4", 1),
                (4, "232.1.2.5", 3),
                (6, "232.1.2.6", 1),
                (9, "232.1.2.7", 1),
            ]),
            vec![listens("232.1.2.3"), listens("232.1.2.4"), listens("232.1.2.5")],
        ),
        ("IGMPv3 of nothing", igmp3(&[]), vec![]),
        (
            "MLDv1",
            mld("ff02::fb", &[&[131, 0, 0, 0, 0, 0, 0, 0][..], &v6("ff02::fb")].concat()),
            vec![listens("ff02::fb")],
        ),
        (
            "MLDv1 done",
            mld("ff02::2", &[&[132, 0, 0, 0, 0, 0, 0, 0][..], &v6("ff02::fb")].concat()),
            vec![leaves("ff02::fb")],
        ),
        (
            "MLDv2",
            mld2(&[(4, "ff02::fb", 0), (3, "ff05::1:3", 0), (5, "ff02::9", 1)]),
            vec![listens("ff02::fb"), leaves("ff05::1:3"), listens("ff02::9")],
        ),
    ] {
        assert_eq!(heard(&frame), Ok(said), "{what}");
    }
}

/// As Linux 6.1 sends it: a capture of its own.
#[test]
fn linuxs_own_report_is_understood() {
    let hex = "3333000000169e2fdf85e95186dd6000000000240001fe800000000000009c2fdffffe85e951ff020000000000000000000000000016\
               3a000502000001008f000bfd0000000104000000ff050000000000000000000000010003";
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap();
    let frame: Vec<u8> = digits.chunks(2).map(byte).collect();
    assert_eq!(heard(&frame), Ok(vec![listens("ff05::1:3")]));
}

#[test]
fn what_is_malformed_is_refused_whole() {
    let good = igmp3(&[(4, "239.1.2.3", 0), (4, "239.1.2.4", 0)]);
    let spoiled = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frames::seal_ipv4(&mut frame[14..]);
        frame
    };
    let report = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &v6("ff02::fb")].concat();
    let alert = [58, 0, 5, 2, 0, 0, 1, 0];
    let from = "fe80::5054:ff:fe00:1";
    let mut counted = igmp3(&[(4, "239.1.2.3", 0)]);
    // Two records, of which one is there; the checksum agrees.
    counted[14 + 20 + 7] = 2;
    counted[14 + 20 + 2..14 + 20 + 4].fill(0);
    let sum = !checksum::sum(&counted[34..]);
    counted[36..38].copy_from_slice(&sum.to_be_bytes());
    for (what, frame) in [
        ("TTL 2", spoiled(14 + 8, 2)),
        ("a fragment", spoiled(14 + 6, 0x20)),
        ("a bad checksum", spoiled(14 + 20 + 12, 9)),
        ("to another group", spoiled(14 + 19, 23)),
        ("cut short", good[..good.len() - 4].to_vec()),
        ("fewer records than it says", counted),
        ("an unknown type", igmp("224.0.0.22", &[0x13, 0, 0, 0, 0, 0, 0, 0])),
        ("a record of no group", igmp3(&[(4, "239.1.2.3", 0), (4, "10.1.0.2", 0)])),
        ("a report of another group than it is sent to", igmp("239.1.2.4", &[0x16, 0, 0, 0, 239, 1, 2, 3])),
        ("MLD without Router Alert", mld_from(from, "ff02::fb", &report, &[58, 0, 1, 4, 0, 0, 0, 0])),
        ("MLD with other options", mld_from(from, "ff02::fb", &report, &[58, 0, 5, 2, 0, 0, 0xc2, 0])),
        ("MLD from a global address", mld_from("2001:db8:b1:e::1", "ff02::fb", &report, &alert)),
        ("MLD to another group", mld("ff02::fc", &report)),
        ("MLD cut short", mld("ff02::fb", &report[..20])),
        ("MLDv2 of no group", mld2(&[(4, "2001:db8::1", 0)])),
    ] {
        assert_eq!(heard(&frame), Err(DropReason::BadReport), "{what}");
    }
    assert!(heard(&good).is_ok());
    let queries = [
        igmp("224.0.0.1", &[0x11, 100, 0, 0, 0, 0, 0, 0]),
        mld("ff02::1", &[&[130, 0, 0, 0][..], &[0; 20]].concat()),
    ];
    for query in queries {
        assert_eq!(heard(&query), Err(DropReason::RogueQuerier));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..80_usize, byte in any::<u8>()) {
        let _ = heard(&bytes);
        for mut frame in [igmp3(&[(4, "239.1.2.3", 1)]), mld2(&[(4, "ff02::fb", 1)])] {
            if let Some(spoilt) = frame.get_mut(at) {
                *spoilt = byte;
            }
            let _ = heard(&frame);
            if at < frame.len() {
                frame.truncate(at);
                prop_assert!(heard(&frame).is_err());
            }
        }
    }
}

const VNI: u32 = 1001;

/// Three attachments of one network that is snooped, the first two of them up.
fn nve() -> Arc<Nve> {
    let nve = nve_of(3);
    for name in ["vm1", "vm2"] {
        come_up(&nve, name);
    }
    nve
}

fn come_up(nve: &Nve, name: &str) {
    nve.set_receiver(nve.port(name).unwrap(), Receiver { up: true, ..Receiver::default() });
}

/// Attachments of one network that is snooped.
fn nve_of(count: u8) -> Arc<Nve> {
    let attachment = |last: u8| Attachment {
        name: format!("vm{last}"),
        network: "blue".into(),
        mac: smoltcp::wire::EthernetAddress([0x52, 0x54, 0, 0, 0, last]),
        addresses: vec![
            format!("10.1.0.{last}").parse().unwrap(),
            format!("2001:db8:b1:e::{last}").parse().unwrap(),
        ],
        hostname: None,
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
        instance: crate::setup::Instance::default(),
    };
    let mut network: Network =
        crate::testkit::plain_network("blue", VNI, "10.1.0.0/16", "2001:db8:b1:e::/96");
    network.multicast = Multicast::Snoop;
    let host = Host {
        name: "hv1".into(),
        locator: "2001:db8:0:1::/64".parse().unwrap(),
        sir: "2001:db8:51::/64".parse().unwrap(),
        checksum: ChecksumMode::Neutral,
        uplink_mtu: 1500,
        unknown: Default::default(),
    };
    let attachments = (1..=count).map(attachment).collect();
    let setup = Setup { networks: vec![network], attachments, ..Setup::of(host) };
    Nve::new(setup.check().unwrap(), 16)
}

/// The snooper, its NVE, and what it says.
struct Lab {
    nve: Arc<Nve>,
    snooper: Snooper,
    said: Vec<(PortId, Vec<u8>)>,
}

impl Lab {
    fn new() -> Self {
        Self { nve: nve(), snooper: Snooper::default(), said: Vec::new() }
    }
    fn hear(&mut self, name: &str, frame: &[u8], now: u64) {
        let port = self.nve.port(name).unwrap();
        let said = &mut self.said;
        self.snooper.take(&self.nve, Duration::from_millis(now), (port, frame), &mut |port, frame| {
            said.push((port, frame))
        });
    }
    /// Lets time pass until `end`, looking whenever something is due.
    fn until(&mut self, mut now: u64, end: u64) {
        while now <= end {
            let said = &mut self.said;
            self.snooper
                .tick(&self.nve, Duration::from_millis(now), &mut |port, frame| said.push((port, frame)));
            now = (self.snooper.due().as_millis() as u64).max(now + 1);
        }
    }
    fn listeners(&self, group: &str) -> Vec<String> {
        let group: IpAddr = group.parse().unwrap();
        let line = self.nve.groups().into_iter().find(|line| line.group == group);
        line.map(|line| line.attachments).unwrap_or_default()
    }
    /// Queries said since last asked: to whom, and about what.
    fn queries(&mut self) -> Vec<(String, String)> {
        let query = |(port, frame): (PortId, Vec<u8>)| {
            let group: IpAddr = match frame[12..14] {
                [8, 0] => <[u8; 4]>::try_from(&frame[14 + 24 + 4..14 + 24 + 8]).unwrap().into(),
                _ => <[u8; 16]>::try_from(&frame[14 + 48 + 8..14 + 48 + 24]).unwrap().into(),
            };
            (self.nve.port_name(port).unwrap(), group.to_string())
        };
        self.said.drain(..).map(query).collect()
    }
}

const SECOND: u64 = 1000;

#[test]
fn a_listener_is_one_until_it_leaves_or_is_silent() {
    let mut lab = Lab::new();
    lab.hear("vm1", &igmp3(&[(4, "239.1.2.3", 0)]), 0);
    lab.hear("vm2", &mld2(&[(4, "ff02::fb", 0)]), 10);
    lab.until(10, 100);
    assert_eq!(
        (lab.listeners("239.1.2.3"), lab.listeners("ff02::fb")),
        (vec!["vm1".into()], vec!["vm2".into()])
    );
    // Told again, it stays; the other has been silent for 260 s.
    lab.until(100, 200 * SECOND);
    lab.hear("vm1", &igmp3(&[(2, "239.1.2.3", 0)]), 200 * SECOND);
    lab.until(200 * SECOND, 259 * SECOND);
    assert_eq!(lab.listeners("ff02::fb"), ["vm2"]);
    lab.until(259 * SECOND, 262 * SECOND);
    assert_eq!((lab.listeners("ff02::fb").len(), lab.listeners("239.1.2.3").len()), (0, 1));
    // It leaves: asked twice, then gone.
    lab.queries();
    lab.hear("vm1", &igmp3(&[(3, "239.1.2.3", 0)]), 300 * SECOND);
    lab.hear("vm1", &igmp3(&[(3, "239.1.2.3", 0)]), 300 * SECOND + 1);
    lab.until(300 * SECOND + 1, 301 * SECOND + 500);
    let about = |queries: Vec<(String, String)>| {
        queries.into_iter().filter(|(_, group)| group == "239.1.2.3").count()
    };
    assert_eq!(about(lab.queries()), 2);
    assert_eq!(lab.listeners("239.1.2.3"), ["vm1"], "it may still answer");
    lab.until(301 * SECOND + 500, 303 * SECOND);
    assert_eq!(lab.listeners("239.1.2.3").len(), 0);
}

#[test]
fn joins_and_leaves_by_turns_bring_one_query_a_second() {
    for one in ["239.1.2.3", "ff05::5"] {
        let records = [(4, one, 0), (3, one, 0)].repeat(if one.contains(':') { 34 } else { 90 });
        let report = if one.contains(':') { mld2(&records) } else { igmp3(&records) };
        let mut lab = Lab::new();
        let about =
            |lab: &mut Lab| lab.queries().into_iter().filter(|(_, group)| group.as_str() == one).count();
        lab.hear("vm1", &report, 0);
        assert_eq!(about(&mut lab), 1, "{one}");
        lab.hear("vm1", &report, 900);
        lab.until(900, 990);
        assert_eq!(about(&mut lab), 0, "{one}");
        // The last leave is still asked about.
        lab.until(990, 1500);
        assert_eq!(about(&mut lab), 1, "{one}");
        lab.hear("vm1", &report, 1600);
        assert_eq!(about(&mut lab), 0, "asked again counts too: {one}");
        assert_eq!(lab.listeners(one), ["vm1"]);
        lab.until(1600, 4 * SECOND);
        assert_eq!((about(&mut lab), lab.listeners(one).len()), (1, 0), "{one}");
    }
}

#[test]
fn who_answers_a_query_about_a_group_it_left_listens_on() {
    let mut lab = Lab::new();
    lab.hear("vm1", &mld2(&[(4, "ff05::5", 0)]), 0);
    lab.hear("vm1", &mld2(&[(3, "ff05::5", 0)]), 10 * SECOND);
    lab.hear("vm1", &mld2(&[(2, "ff05::5", 0)]), 10 * SECOND + 300);
    lab.until(10 * SECOND + 300, 100 * SECOND);
    assert_eq!(lab.listeners("ff05::5"), ["vm1"]);
}

#[test]
fn whoever_is_up_is_asked_at_once_and_every_125_seconds_in_both_families() {
    let mut lab = Lab::new();
    lab.until(0, SECOND);
    let all = |name: &str| [(name.to_owned(), "0.0.0.0".to_owned()), (name.to_owned(), "::".to_owned())];
    assert_eq!(lab.queries(), [all("vm1"), all("vm2")].concat());
    lab.until(SECOND, 30 * SECOND);
    assert_eq!(lab.queries(), []);
    lab.until(30 * SECOND, 32 * SECOND);
    assert_eq!(lab.queries(), [all("vm1"), all("vm2")].concat());
    lab.until(32 * SECOND, 150 * SECOND);
    assert_eq!(lab.queries(), []);
    lab.until(150 * SECOND, 160 * SECOND);
    assert_eq!(lab.queries().len(), 4);
    // One that comes up is asked within some seconds.
    come_up(&lab.nve, "vm3");
    lab.until(160 * SECOND, 166 * SECOND);
    assert_eq!(lab.queries(), all("vm3"));
}

#[test]
fn many_that_come_up_at_once_are_asked_some_at_a_time_and_all_of_them() {
    let mut lab = Lab { nve: nve_of(150), snooper: Snooper::default(), said: Vec::new() };
    (1..=150).for_each(|last| come_up(&lab.nve, &format!("vm{last}")));
    // At the start, again after 31 s, and for ever after.
    for round in [0, 31 * SECOND, 156 * SECOND] {
        let mut asked = std::collections::BTreeSet::new();
        for at in [0, 100, 200] {
            lab.until(round + at, round + at);
            let queries = lab.queries();
            let rest = 150 - asked.len();
            assert_eq!(queries.len(), rest.min(64) * 2, "{round} + {at} ms");
            asked.extend(queries.into_iter().map(|(name, _)| name));
        }
        assert_eq!(asked.len(), 150);
        lab.until(round + 300, round + 30 * SECOND);
        assert_eq!(lab.queries(), []);
    }
}

#[test]
fn an_attachment_that_goes_down_listens_to_nothing() {
    let mut lab = Lab::new();
    lab.hear("vm1", &igmp3(&[(4, "239.1.2.3", 0)]), 0);
    lab.nve.set_receiver(lab.nve.port("vm1").unwrap(), Receiver::default());
    lab.until(0, 6 * SECOND);
    assert_eq!(lab.listeners("239.1.2.3").len(), 0);
}

#[test]
fn a_flood_of_joins_fills_its_own_cap_and_no_others() {
    let mut lab = Lab::new();
    for group in 0..2000_u32 {
        let address = core::net::Ipv4Addr::from_bits(0xef00_0000 | group).to_string();
        lab.hear("vm1", &igmp3(&[(4, &address, 0)]), u64::from(group));
    }
    lab.hear("vm2", &igmp3(&[(4, "239.9.9.9", 0)]), 2001);
    lab.until(2001, 3000);
    let lines = lab.nve.groups();
    assert_eq!(lines.len(), GROUPS_PER_ATTACHMENT + 1);
    assert_eq!(lab.listeners("239.9.9.9"), ["vm2"]);
    assert_eq!(lab.snooper.refused(), 2000 - GROUPS_PER_ATTACHMENT as u64);
    // Solicited-node groups are the gateway's, and count for nobody.
    lab.hear("vm2", &mld2(&[(4, "ff02::1:ff00:2", 0)]), 3001);
    lab.until(3001, 4000);
    assert_eq!(lab.nve.groups().len(), GROUPS_PER_ATTACHMENT + 1);
}

#[test]
fn what_has_changed_is_published_at_most_every_fifty_milliseconds() {
    let mut lab = Lab::new();
    let group = group_in(Vnid::new(VNI).unwrap(), "239.1.2.3".parse().unwrap()).unwrap();
    assert_eq!(group.type_number(), 2);
    let mut changes = 0;
    let mut before = lab.nve.groups();
    for millis in 0..1000 {
        let address = format!("239.1.{}.{}", millis / 250, millis % 250);
        lab.hear(if millis % 2 == 0 { "vm1" } else { "vm2" }, &igmp3(&[(4, &address, 0)]), millis);
        lab.until(millis, millis);
        let now = lab.nve.groups();
        changes += usize::from(now != before);
        before = now;
    }
    assert!((1..=21).contains(&changes), "{changes}");
}
