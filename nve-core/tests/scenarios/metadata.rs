//! The metadata service, asked by guests' own stacks: the tree, the tokens, and guests that mean harm to others.

use core::time::Duration;
use std::sync::Arc;

use nve_core::addr::ChecksumMode::Neutral;
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::Offload;
use nve_core::setup::Instance;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Sends, World};

use crate::{VM1, VM2, address, two_hosts_in};

const SERVICE: [(&str, u16); 2] = [("169.254.169.254", 80), ("fd00:ec2::254", 80)];
const PATIENCE: Duration = Duration::from_secs(60);

fn instance(name: &str) -> Instance {
    Instance {
        id: Some(format!("i-{name}")),
        ssh_keys: vec![format!("ssh-ed25519 AAAA{name} operator"), "ssh-rsa BBBB two".into()],
        user_data: Some(Arc::from(format!("#cloud-config\n# of {name}\n").repeat(2000).into_bytes())),
    }
}

/// `vm1` and `vm2` on one host; a third has vm1's address in another network.
fn world_with(sends: Sends) -> World {
    let mut world = two_hosts_in(Neutral, Neutral)
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:f::/96")
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).sends(sends))
        .guest(GuestPlan::new("vm2", "hv1", "blue", &VM2))
        .guest(GuestPlan::new("red1", "hv1", "red", &["10.1.0.1", "2001:db8:b1:f::1"]))
        .start();
    world
        .reload("hv1", |setup| {
            for attachment in &mut setup.attachments {
                attachment.instance = instance(&attachment.name);
            }
        })
        .expect("a good setup");
    world
}

fn world() -> World {
    world_with(Sends::Plain)
}

/// Status and body of the answer to a whole request.
fn ask(world: &mut World, guest: &str, to: (&str, u16), request: &str) -> (u16, String) {
    let answer = world.ask_by_tcp(guest, to, request.as_bytes(), PATIENCE).expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    if !request.starts_with("HEAD") {
        assert_eq!(length.parse::<usize>(), Ok(body.len()));
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn get(world: &mut World, guest: &str, to: (&str, u16), path: &str) -> (u16, String) {
    ask(world, guest, to, &format!("GET {path} HTTP/1.1\r\nHost: metadata\r\n\r\n"))
}

#[test]
fn each_guest_reads_its_own_metadata_over_both_families() {
    let mut world = world();
    for (guest, v4, v6) in [
        ("vm1", "10.1.0.1", "2001:db8:b1:e::1"),
        ("vm2", "10.1.0.2", "2001:db8:b1:e::2"),
        ("red1", "10.1.0.1", "2001:db8:b1:f::1"),
    ] {
        let mac = world.guest(guest).mac.to_string().replace('-', ":");
        let interface = format!("network/interfaces/macs/{mac}");
        for to in SERVICE {
            for (path, body) in [
                ("meta-data/instance-id", format!("i-{guest}")),
                ("meta-data/local-hostname", guest.to_owned()),
                ("meta-data/local-ipv4", v4.to_owned()),
                ("meta-data/ipv6", v6.to_owned()),
                ("meta-data/mac", mac.clone()),
                ("meta-data/public-keys/", "0=key0\n1=key1".to_owned()),
                ("meta-data/public-keys/0/openssh-key", format!("ssh-ed25519 AAAA{guest} operator")),
                (&format!("meta-data/{interface}/local-ipv4s"), v4.to_owned()),
                (&format!("meta-data/{interface}/subnet-ipv4-cidr-block"), "10.1.0.0/16".to_owned()),
                ("user-data", format!("#cloud-config\n# of {guest}\n").repeat(2000)),
            ] {
                for version in ["latest", "2009-04-04", "2021-03-23"] {
                    let got = get(&mut world, guest, to, &format!("/{version}/{path}"));
                    assert_eq!(got, (200, body.clone()), "{guest} {path} from {}", to.0);
                    if path == "user-data" {
                        break;
                    }
                }
            }
        }
    }
    let (_, document) = get(&mut world, "vm1", SERVICE[0], "/latest/dynamic/instance-identity/document");
    assert!(
        document.contains("\"instanceId\": \"i-vm1\"") && document.contains("\"10.1.0.1\""),
        "{document}"
    );
    let (_, root) = get(&mut world, "vm1", SERVICE[0], "/");
    assert!(root.contains("2021-03-23\n"), "{root}");
    let listing =
        "hostname\ninstance-id\nipv6\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/\nplacement/\npublic-keys/";
    assert_eq!(get(&mut world, "vm1", SERVICE[0], "/latest/meta-data/"), (200, listing.into()));
}

#[test]
fn what_leaves_checksums_and_segmentation_to_its_device_is_answered_too() {
    for sends in [Sends::PartialChecksums, Sends::LargeSends] {
        let mut world = world_with(sends);
        let padding = format!("X-Padding: {}\r\n", "x".repeat(3000));
        for to in SERVICE {
            let request = format!("GET /latest/meta-data/instance-id HTTP/1.1\r\n{padding}\r\n");
            assert_eq!(ask(&mut world, "vm1", to, &request), (200, "i-vm1".into()), "{sends:?}");
        }
    }
}

#[test]
fn a_token_is_good_for_whom_it_was_given_to_and_as_long_as_was_said() {
    let mut world = world();
    let put = |ttl: &str, more: &str| {
        format!("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: {ttl}\r\n{more}\r\n")
    };
    let (status, token) = ask(&mut world, "vm1", SERVICE[0], &put("60", "Content-Length: 0\r\n"));
    assert_eq!(status, 200);
    let with = |token: &str| {
        format!("GET /latest/meta-data/mac HTTP/1.1\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n")
    };
    assert_eq!(ask(&mut world, "vm1", SERVICE[1], &with(&token)).0, 200);
    assert_eq!(ask(&mut world, "vm2", SERVICE[0], &with(&token)).0, 401, "another's");
    assert_eq!(ask(&mut world, "red1", SERVICE[0], &with(&token)).0, 401, "of another network");
    assert_eq!(ask(&mut world, "vm1", SERVICE[0], &with("1.2")).0, 401);
    world.run_for(Duration::from_secs(61));
    assert_eq!(ask(&mut world, "vm1", SERVICE[0], &with(&token)).0, 401, "it has ended");
    for (ttl, more, status) in
        [("0", "", 400), ("21601", "", 400), ("x", "", 400), ("60", "X-Forwarded-For: 10.1.0.9\r\n", 403)]
    {
        assert_eq!(ask(&mut world, "vm1", SERVICE[0], &put(ttl, more)).0, status, "{ttl} {more}");
    }
}

#[test]
fn what_is_not_there_or_no_request_is_said_to_be() {
    let mut world = world();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(5000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    for (request, status) in [
        ("GET /latest/meta-data/ami-id HTTP/1.1\r\n\r\n", 404),
        ("GET /2010-01-01/meta-data/ HTTP/1.1\r\n\r\n", 404),
        ("GET /latest/meta-data/public-keys/2/openssh-key HTTP/1.0\r\n\r\n", 404),
        ("GET /latest/meta-data/network/interfaces/macs/52:54:00:00:00:99/mac HTTP/1.1\r\n\r\n", 404),
        ("GET //../etc/passwd HTTP/1.1\r\n\r\n", 404),
        ("GET /latest/api/token HTTP/1.1\r\n\r\n", 405),
        ("POST /latest/meta-data/ HTTP/1.1\r\n\r\n", 405),
        ("DELETE / HTTP/1.1\r\n\r\n", 405),
        ("HEAD /latest/user-data HTTP/1.1\r\n\r\n", 200),
        ("\u{1}\u{2}\u{3} nonsense\r\n\r\n", 400),
        ("GET / FTP/1.1\r\n\r\n", 400),
        (&long, 431),
        (&many, 431),
    ] {
        let (got, body) = ask(&mut world, "vm1", SERVICE[0], request);
        assert_eq!(got, status, "{}", &request[..request.len().min(80)]);
        assert!(!request.starts_with("HEAD") || body.is_empty());
    }
    assert!(world.ask_by_tcp("vm1", ("169.254.169.254", 81), b"GET / HTTP/1.1\r\n\r\n", PATIENCE).is_none());
}

/// Requests that never end take the places of their own attachment, for a time.
#[test]
fn a_slow_request_is_cut_off_and_holds_up_nobody() {
    let mut world = world();
    let began = world.now();
    assert!(world.ask_by_tcp("vm1", SERVICE[0], b"GET / HT", PATIENCE).is_none(), "cut off");
    assert!(world.now() - began < Duration::from_secs(25));
    assert_eq!(get(&mut world, "vm1", SERVICE[0], "/latest/meta-data/instance-id").1, "i-vm1");
}

/// Half-open connections, from a guest that answers nothing: places of its own and of nobody else, and they come to an end.
#[test]
fn a_flood_of_half_open_connections_fills_only_its_own_places_and_they_end() {
    let mut world = two_hosts_in(Neutral, Neutral)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv1", "blue", &VM2))
        .start();
    let syn = |port: u16| {
        let mut tcp = vec![0, 0, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0x10, 0, 0, 0, 0, 0];
        tcp[..2].copy_from_slice(&port.to_be_bytes());
        let mut packet = frames::ip(Header::default(), address(VM1[0]), address(SERVICE[0].0), 6, tcp);
        let sum =
            |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
        packet[36..38].fill(0);
        let total = sum(&packet[12..20]) + 6 + 20 + sum(&packet[20..]);
        let checksum = !((total & 0xffff) + (total >> 16)) as u16;
        packet[36..38].copy_from_slice(&checksum.to_be_bytes());
        packet
    };
    let mac = world.guest("vm1").mac;
    let flood = |world: &mut World| {
        let mark = world.mark();
        for port in 1000..1300 {
            world.send_frame("vm1", frames::ethernet(mac, GATEWAY_MAC, &syn(port)), Offload::NONE);
        }
        world.run_for(Duration::from_millis(100));
        let flags = |record: &&nve_core::testkit::Record| record.ip().map(|ip| ip.transport[13]);
        let received = world.received("vm1", mark);
        let with = |wanted: u8| received.iter().filter(|record| flags(record) == Some(wanted)).count();
        (with(0x12), with(0x14))
    };
    assert_eq!(flood(&mut world), (6, 294), "SYN-ACKs, and resets of the rest");
    let id = "/latest/meta-data/instance-id";
    assert_eq!(
        get(&mut world, "vm2", SERVICE[0], id),
        (200, "vm2".into()),
        "the neighbour's places are free"
    );
    world.run_for(Duration::from_secs(30));
    assert_eq!(flood(&mut world).0, 6, "the places were given up");
}

#[test]
fn a_reload_changes_what_is_told_and_a_network_may_tell_nothing() {
    let mut world = world();
    let id = "/latest/meta-data/instance-id";
    assert_eq!(get(&mut world, "vm1", SERVICE[0], id).1, "i-vm1");
    world
        .reload("hv1", |setup| setup.attachments[0].instance.id = Some("i-new".into()))
        .expect("a good setup");
    assert_eq!(get(&mut world, "vm1", SERVICE[0], id).1, "i-new");
    let refused =
        world.reload("hv1", |setup| setup.networks[0].metadata = false).expect_err("metadata of nobody");
    assert!(refused.to_string().contains("serves no metadata"), "{refused}");
    world
        .reload("hv1", |setup| {
            setup.networks[0].metadata = false;
            setup.attachments.iter_mut().for_each(|attachment| attachment.instance = Instance::default());
        })
        .expect("a good setup");
    assert!(world.ask_by_tcp("vm1", SERVICE[0], b"GET / HTTP/1.1\r\n\r\n", Duration::from_secs(5)).is_none());
    assert_eq!(get(&mut world, "red1", SERVICE[0], id).1, "red1", "by default the attachment's name");
}
