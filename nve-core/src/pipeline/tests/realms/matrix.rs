//! Every pair of realms, every rule, protocol, direction and fragment, at either edge and on one host: what passes is said by a table of its
//! own, and whatever is dropped is dropped by its name.

use super::*;
use crate::addr::ChecksumMode::Neutral as N;

/// Somebody: attachment (none: outside), realm, address in its own family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Who {
    name: Option<&'static str>,
    realm: &'static str,
    address: &'static str,
}

const fn who(name: Option<&'static str>, realm: &'static str, address: &'static str) -> Who {
    Who { name, realm, address }
}

const BLUE4: Who = who(Some("va1"), "blue", "10.1.0.1");
const BLUE6: Who = who(Some("va1"), "blue", "2001:db8:b1:e::1");
const RED4: Who = who(Some("va4"), "red", "10.1.0.4");
const RED6: Who = who(Some("va4"), "red", "2001:db8:b1:e:0:1:0:4");
const TASK: Who = who(Some("t4"), "tasks", "2001:db8:51:0:2000::a4");
const OUTSIDE: Who = who(None, "outside", "2001:db8:64::c633:6407");
const EVERYBODY: [Who; 6] = [BLUE4, BLUE6, RED4, RED6, TASK, OUTSIDE];

impl Who {
    fn is_ipv4(self) -> bool {
        addr(self.address).is_ipv4()
    }

    /// What `self` is called by somebody else.
    fn called_by(self, other: Who) -> String {
        if other.is_ipv4() {
            if self == OUTSIDE {
                return "198.51.100.7".into();
            }
            let of_network = self.is_ipv4().then_some(self.realm);
            let alias = ALIASES.iter().find(|(network, _, of, realm)| {
                *network == other.realm && *of == self.address && *realm == of_network
            });
            return alias.unwrap().1.into();
        }
        match addr(self.address) {
            IpAddr::V4(_) => sir_in(self.realm, self.address).to_string(),
            IpAddr::V6(_) => self.address.into(),
        }
    }

    /// What is on the wire as its source.
    fn source(self) -> IpAddr {
        if self.is_ipv4() { sir_in(self.realm, self.address) } else { addr(self.address) }
    }
}

/// What is sent. The client's port is 4000, the server's 4001.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    TcpSyn,
    TcpAck,
    TcpRst,
    TcpFin,
    TcpOther,
    Udp,
    UdpOther,
    Sctp,
    Gre,
    EchoRequest,
    EchoReply,
    TcpFragment,
    UdpFragment,
}

use Kind::*;

const KINDS: [Kind; 13] = [
    TcpSyn,
    TcpAck,
    TcpRst,
    TcpFin,
    TcpOther,
    Udp,
    UdpOther,
    Sctp,
    Gre,
    EchoRequest,
    EchoReply,
    TcpFragment,
    UdpFragment,
];

/// A packet of this kind; `forward`: from the client to the server's port.
fn packet(kind: Kind, from: &str, to: &str, forward: bool) -> Vec<u8> {
    let server = if matches!(kind, TcpOther | UdpOther) { 9999 } else { 4001 };
    let (a, b) = if forward { (4000, server) } else { (server, 4000) };
    let (source, destination) = (socket(from, a), socket(to, b));
    let plain = Header::default();
    let tcp = |flags| frames::tcp(plain, source, destination, flags, b"some data");
    let ports = [a.to_be_bytes(), b.to_be_bytes()].concat();
    let other = |protocol, bytes: &[u8]| frames::ip(plain, addr(from), addr(to), protocol, bytes.to_vec());
    let is_ipv4 = addr(from).is_ipv4();
    let later = |protocol: u8| {
        if is_ipv4 {
            let mut piece = other(protocol, &[0x5a; 40]);
            // At 128 bytes, the last.
            piece[6..8].copy_from_slice(&[0, 16]);
            frames::seal_ipv4(&mut piece);
            return piece;
        }
        other(44, &[&[protocol, 0, 0, 128, 0, 0, 0, 7][..], &[0x5a; 40]].concat())
    };
    match kind {
        TcpSyn | TcpOther => tcp(0x02),
        TcpAck => tcp(0x10),
        TcpRst => tcp(0x04),
        TcpFin => tcp(0x01),
        Udp | UdpOther => frames::udp(plain, source, destination, b"some data"),
        Sctp => other(132, &[&ports[..], &[0; 12]].concat()),
        Gre => other(47, &[0; 12]),
        EchoRequest => frames::echo_request(plain, addr(from), addr(to), 1, b"some data"),
        EchoReply => {
            let (protocol, kind) = if is_ipv4 { (1, 0) } else { (58, 129) };
            other(protocol, &[kind, 0, 0, 0, 1, 1, 0, 1, 9, 9, 9])
        }
        TcpFragment => later(6),
        UdpFragment => later(17),
    }
}

/// A rule, what passes with it, and what comes back; and which fragments it would have to see more of.
struct Ruled {
    name: &'static str,
    rule: fn(Crossing) -> Crossing,
    there: &'static [Kind],
    back: &'static [Kind],
    fragments_there: &'static [Kind],
    fragments_back: &'static [Kind],
}

const PORT: u16 = 4001;

fn ruled() -> [Ruled; 8] {
    let nothing: &[Kind] = &[];
    [
        Ruled {
            name: "any",
            rule: |rule| rule,
            there: &KINDS,
            back: &[TcpAck, TcpRst, EchoReply],
            fragments_there: nothing,
            fragments_back: &[TcpFragment],
        },
        Ruled {
            name: "any with replies",
            rule: |rule| Crossing { replies: true, ..rule },
            there: &KINDS,
            back: &[TcpAck, TcpRst, EchoReply, Udp, UdpOther, Sctp, Gre, UdpFragment],
            fragments_there: nothing,
            fragments_back: &[TcpFragment],
        },
        Ruled {
            name: "tcp 4001",
            rule: |rule| Crossing { protocol: Protocol::Tcp, ports: vec![PORT..=PORT], ..rule },
            there: &[TcpSyn, TcpAck, TcpRst, TcpFin],
            back: &[TcpAck, TcpRst],
            fragments_there: &[TcpFragment],
            fragments_back: &[TcpFragment],
        },
        Ruled {
            name: "udp 4001",
            rule: |rule| Crossing { protocol: Protocol::Udp, ports: vec![PORT..=PORT], ..rule },
            there: &[Udp],
            back: nothing,
            fragments_there: &[UdpFragment],
            fragments_back: nothing,
        },
        Ruled {
            name: "udp 4001 with replies",
            rule: |rule| Crossing {
                protocol: Protocol::Udp,
                ports: vec![PORT..=PORT],
                replies: true,
                ..rule
            },
            there: &[Udp],
            back: &[Udp],
            fragments_there: &[UdpFragment],
            fragments_back: &[UdpFragment],
        },
        Ruled {
            name: "sctp 4001",
            rule: |rule| Crossing { protocol: Protocol::Sctp, ports: vec![PORT..=PORT], ..rule },
            there: &[Sctp],
            back: nothing,
            fragments_there: nothing,
            fragments_back: nothing,
        },
        Ruled {
            name: "icmp",
            rule: |rule| Crossing { protocol: Protocol::Icmp, ..rule },
            there: &[EchoRequest],
            back: &[EchoReply],
            fragments_there: nothing,
            fragments_back: nothing,
        },
        Ruled {
            name: "another task's",
            rule: |rule| Crossing {
                from_addresses: vec!["2001:db8:51:0:2000::99/128".parse().unwrap()],
                to: Realm::Outside,
                from: Realm::Tasks(None),
                ..rule
            },
            there: nothing,
            back: nothing,
            fragments_there: nothing,
            fragments_back: nothing,
        },
    ]
}

/// What the table says: `Ok`, or whether a fragment is the reason.
fn expected(ruled: &Ruled, kind: Kind, forward: bool) -> Result<(), bool> {
    let (passes, fragments) = match forward {
        true => (ruled.there, ruled.fragments_there),
        false => (ruled.back, ruled.fragments_back),
    };
    if passes.contains(&kind) { Ok(()) } else { Err(fragments.contains(&kind)) }
}

fn reason_at_ingress(to: Who, fragment: bool) -> DropReason {
    match (fragment, to.realm) {
        (true, _) => DropReason::CrossingFragment,
        (_, "outside") => DropReason::Outside,
        (_, "tasks") => DropReason::SirDestination,
        _ if to.is_ipv4() => DropReason::SirDestination,
        _ => DropReason::ForeignNetwork,
    }
}

fn reason_at_egress(from: Who, fragment: bool) -> DropReason {
    match (fragment, from.realm) {
        (true, _) => DropReason::CrossingFragment,
        (_, "outside") => DropReason::OutsideSource,
        _ => DropReason::ForeignNetwork,
    }
}

fn lab(who: Who, spread: Spread, crossings: &[Crossing]) -> Option<Lab> {
    Some(Lab::of(reference(spread.host_of(who.name?), spread, crossings.to_vec(), N)))
}

/// The packet on the wire that `from` would send, if nothing stopped it there.
fn on_the_wire_from(from: Who, to: Who, kind: Kind, forward: bool, open: &mut Option<Lab>) -> Vec<u8> {
    let sent = packet(kind, from.address, &to.called_by(from), forward);
    match (open, from.name) {
        (Some(open), Some(name)) => {
            let out = open.send(name, &sent);
            assert!(matches!(out, Out::Uplink(..)), "{from:?} > {to:?} {kind:?}: {out:?}");
            out.packet().to_vec()
        }
        _ => {
            let destination = on_wire(Spread::FourHosts.host_of(to.name.unwrap()), to.realm, to.address, N);
            // Its checksum is for whom the receiver sees.
            let mut packet = packet(kind, from.address, &to.called_by(from), forward);
            let IpAddr::V6(destination) = destination else { panic!("IPv6 only") };
            packet[24..40].copy_from_slice(&destination.octets());
            packet
        }
    }
}

fn is_seen(out: &Out, to: Who, what: &str) {
    match to.name {
        Some(receiver) => assert!(matches!(out, Out::Local(name, ..) if name == receiver), "{what}: {out:?}"),
        None => assert!(matches!(out, Out::Uplink(..)), "{what}: {out:?}"),
    }
    let view = out.ip();
    assert_ne!(verify(&view, view.source, view.destination), Verdict::Bad, "{what}");
}

/// One rule between two realms: every kind, both ways.
fn judge_rule(client: Who, server: Who, ruled: &Ruled) {
    let between = Crossing::between(Realm::of(client.realm), Realm::of(server.realm));
    let rules = [(ruled.rule)(between)];
    for (from, to, forward) in [(client, server, true), (server, client, false)] {
        let mut ingress = lab(from, Spread::FourHosts, &rules);
        let mut egress = lab(to, Spread::FourHosts, &rules);
        let mut closed = lab(to, Spread::FourHosts, &[]);
        let mut sender_open = lab(from, Spread::FourHosts, &open());
        let mut one = lab(from, Spread::OneHost, &rules);
        for kind in KINDS {
            let what = format!("{}: {kind:?} from {from:?} to {to:?}", ruled.name);
            let verdict = expected(ruled, kind, forward);
            let sent = packet(kind, from.address, &to.called_by(from), forward);
            if let (Some(ingress), Some(one), Some(name)) = (&mut ingress, &mut one, from.name) {
                let (wire, local) = (ingress.send(name, &sent), one.send(name, &sent));
                match verdict {
                    Ok(()) => {
                        assert!(matches!(wire, Out::Uplink(..)), "{what}: {wire:?}");
                        is_seen(&local, to, &what);
                    }
                    Err(fragment) => {
                        let reason = Some(reason_at_ingress(to, fragment));
                        assert_eq!((wire.reason(), local.reason()), (reason, reason), "{what}");
                    }
                }
            }
            if let (Some(egress), Some(closed)) = (&mut egress, &mut closed) {
                let wire = on_the_wire_from(from, to, kind, forward, &mut sender_open);
                let out = egress.receive(&wire);
                match verdict {
                    Ok(()) => is_seen(&out, to, &what),
                    Err(fragment) => {
                        assert_eq!(out.reason(), Some(reason_at_egress(from, fragment)), "{what}")
                    }
                }
                // The other edge alone lets nothing through.
                let out = closed.receive(&wire);
                assert_eq!(out.reason(), Some(reason_at_egress(from, false)), "{what}, closed");
            }
        }
    }
}

#[test]
fn every_rule_admits_what_it_says_between_every_pair_of_realms_at_both_edges_and_on_one_host() {
    let mut judged = 0;
    for client in EVERYBODY {
        for server in EVERYBODY.into_iter().filter(|server| server.realm != client.realm) {
            for ruled in ruled() {
                judge_rule(client, server, &ruled);
                judged += 1;
            }
        }
    }
    assert_eq!(judged, 8 * 26, "pairs of realms, both families of each network");
}

/// No rule lets anybody speak for somebody else.
#[test]
fn a_source_that_is_nobodys_or_anothers_is_refused_whatever_rules_say() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    let to = on_wire(1, "blue", BLUE6.address, N);
    let IpAddr::V6(to) = to else { panic!("IPv6 only") };
    let mut from = |source: &str| {
        let mut packet = udp(source, BLUE6.address, 9);
        packet[24..40].copy_from_slice(&to.octets());
        hv1.receive(&packet).reason()
    };
    let cases = [
        // Under a locator, with C, of a reserved type, of type 0, 3 and 4 under SIR.
        ("2001:db8:0:3:2000::a4", DropReason::IllegalSource),
        ("2001:db8:51:0:3000::a4", DropReason::IllegalSource),
        ("2001:db8:51:0:a000::a4", DropReason::IllegalSource),
        ("2001:db8:51::a4", DropReason::IllegalSource),
        ("2001:db8:51:0:6000:3ea:0:4", DropReason::IllegalSource),
        ("2001:db8:51:0:8000:3ea:0:4", DropReason::IllegalSource),
        ("ff02::1", DropReason::IllegalSource),
        ("fe80::1", DropReason::IllegalSource),
        ("::1", DropReason::IllegalSource),
        ("::ffff:10.1.0.4", DropReason::IllegalSource),
        // Of a network that nobody knows.
        ("2001:db8:51:0:4000:999:a01:4", DropReason::ForeignNetwork),
        // Of nobody, and of our own.
        ("2001:db8:51:0:2000::99", DropReason::UnregisteredSource),
        ("2001:db8:51:0:2000::a1", DropReason::UnregisteredSource),
        ("2001:db8:51:0:4000:3ea:a01:63", DropReason::UnregisteredSource),
        ("2001:db8:b1:e:0:1:0:63", DropReason::UnregisteredSource),
    ];
    for (source, reason) in cases {
        assert_eq!(from(source), Some(reason), "{source}");
    }
    for control in [TASK.address, RED6.address, "2001:db8:51:0:4000:3ea:a01:4", OUTSIDE.address] {
        assert_eq!(from(control), None, "control: {control}");
    }
}

#[test]
fn nobody_sends_from_an_address_that_is_not_its_own_to_another_realm() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    let t1 = TASKS[0].2;
    let cases = [
        ("t1", TASKS[1].2, TASK.address),
        ("t1", TASK.address, TASK.address),
        ("t1", BLUE6.address, RED6.address),
        ("t1", "2001:db8:51:0:4000:3e9:a01:1", RED6.address),
        ("t1", "fe80::1", TASK.address),
        ("t1", OUTSIDE.address, INTERNET),
        ("va1", "2001:db8:b1:e::2", RED6.address),
        ("va1", t1, TASK.address),
        ("va1", "10.1.0.2", "192.168.53.53"),
        ("va1", "192.168.53.53", "10.1.0.2"),
        ("va1", "10.1.200.4", "10.1.0.2"),
    ];
    for (sender, source, to) in cases {
        let out = hv1.send(sender, &udp(source, to, 9));
        assert_eq!(out.reason(), Some(DropReason::SpoofedAddress), "{sender} as {source}");
    }
    for (sender, source, to) in [("t1", t1, TASK.address), ("va1", BLUE6.address, RED6.address)] {
        assert!(matches!(hv1.send(sender, &udp(source, to, 9)), Out::Uplink(..)), "control: {sender}");
    }
    assert!(matches!(hv1.send("va1", &udp("10.1.0.1", "192.168.53.53", 9)), Out::Uplink(..)));
}

#[test]
fn a_destination_that_only_the_fabric_may_name_is_refused_whatever_rules_say() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    let on_l3 = on_wire(3, "tasks", TASK.address, N).to_string();
    let cases = [
        (on_l3.as_str(), DropReason::LocatorDestination),
        ("2001:db8:0:1::1", DropReason::LocatorDestination),
        ("2001:db8:51::1", DropReason::SirDestination),
        ("2001:db8:51:0:3000::a4", DropReason::SirDestination),
        ("2001:db8:51:0:a000::a4", DropReason::SirDestination),
        ("2001:db8:51:0:6000:3ea:0:4", DropReason::SirDestination),
        ("2001:db8:51:0:4000:999:a01:4", DropReason::SirDestination),
        ("::ffff:10.1.0.4", DropReason::LinkLocal),
        ("fe80::7", DropReason::LinkLocal),
        ("2001:db8:51:0:2000::99", DropReason::NoMapping),
        ("2001:db8:b1:e:0:1:0:63", DropReason::NoMapping),
    ];
    for (to, reason) in cases {
        for (sender, source) in [("t1", TASKS[0].2), ("va1", BLUE6.address)] {
            assert_eq!(hv1.send(sender, &udp(source, to, 9)).reason(), Some(reason), "{sender} to {to}");
        }
    }
    assert_eq!(hv1.send("t1", &udp(TASKS[0].2, "ff02::1", 9)).reason(), Some(DropReason::Multicast));
    let of_own_network = udp(BLUE6.address, &sir_in("blue", "10.1.0.2").to_string(), 9);
    assert_eq!(hv1.send("va1", &of_own_network).reason(), Some(DropReason::SirDestination));
}

#[test]
fn an_ipv4_tenant_hears_nobody_who_has_no_alias_in_its_network() {
    let with = |host, aliases: bool| {
        let mut setup = reference(host, Spread::FourHosts, open(), N);
        if !aliases {
            setup.aliases.retain(|alias| alias.network == "red");
        }
        Lab::of(setup)
    };
    for from in [RED4, RED6, TASK] {
        let mut sender = lab(from, Spread::FourHosts, &open()).unwrap();
        let wire =
            sender.send(from.name.unwrap(), &packet(TcpSyn, from.address, &BLUE4.called_by(from), true));
        assert_eq!(with(1, false).receive(wire.packet()).reason(), Some(DropReason::NoAlias), "{from:?}");
        assert!(matches!(with(1, true).receive(wire.packet()), Out::Local(..)), "control: {from:?}");
        assert_eq!(wire.ip().source, from.source());
    }
    let to_nobody = with(1, false).send("va1", &udp("10.1.0.1", "192.168.53.53", 9));
    assert_eq!(to_nobody.reason(), None, "192.168.53.53 is the outside's, then, through the NAT64");
    let inside = with(1, false).send("va1", &udp("10.1.0.1", "10.1.200.4", 9));
    assert_eq!(
        inside.reason(),
        Some(DropReason::NoMapping),
        "and 10.1.200.4 is a neighbour's that nobody has"
    );
}

#[test]
fn a_task_speaks_ipv6_and_nothing_of_the_link() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    let port = hv1.port("t1");
    let task = crate::policy::TASK_MAC;
    let frame = |packet: &[u8]| frames::ethernet(task, GATEWAY_MAC, packet);
    let solicitation = frames::ip(
        Header { hop_limit: 255, ..Header::default() },
        addr(TASKS[0].2),
        addr(TASK.address),
        58,
        [&[135, 0, 0, 0, 0, 0, 0, 0][..], &v6(TASK.address).octets()].concat(),
    );
    let cases = [
        (frame(&udp("10.1.0.1", "10.1.0.2", 9)), DropReason::EtherType),
        (frame(&solicitation), DropReason::NdUnanswered),
        (frames::ethernet(mac(9), GATEWAY_MAC, &udp(TASKS[0].2, TASK.address, 9)), DropReason::SpoofedMac),
        (vec![0; 13], DropReason::Malformed),
        (frame(&[0x60; 20]), DropReason::Malformed),
    ];
    for (bytes, reason) in cases {
        let out = only(hv1.walk(Origin::Port(port), &bytes, Offload::NONE));
        assert_eq!(out.reason(), Some(reason));
        assert!(hv1.drops("t1", reason) > 0, "{}", reason.name());
    }
}
