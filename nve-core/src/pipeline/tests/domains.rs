//! Two SIR domains on the same two hosts (decision 0016). They share the VNI, the tenants' IPv4 addresses and the identifiers of tasks, so
//! that only SIR prefix and locator tell them apart; nothing of one is ever the other's.
//!
//! ```text
//!             own: SIR 2001:db8:51::/64           lab: SIR 2001:db8:5a::/64
//!   hv1       2001:db8:0:1::/64  vm1, vm3, web    2001:db8:1:1::/64  lab1, lab3, labweb
//!   hv2       2001:db8:0:2::/64  vm2, client      2001:db8:1:2::/64  lab2, labclient
//! ```

use super::errors::error;
use super::*;

use crate::pipeline::{Learned, NotLearned, Source};
use crate::setup::{Crossing, FurtherDomain, Multicast, Realm, Task, TaskMapping};
use crate::testkit::checksum::{Verdict, verify};

/// What is different between two domains; everything else of them is alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Own,
    Lab,
}
use Of::{Lab as InLab, Own};

const BOTH: [Of; 2] = [Own, InLab];
const MODES: [ChecksumMode; 2] = [ChecksumMode::Neutral, ChecksumMode::Unmodified];

impl Of {
    fn other(self) -> Self {
        if self == Own { InLab } else { Own }
    }
    fn name(self) -> Option<String> {
        (self == InLab).then(|| "lab".to_owned())
    }
    fn sir(self) -> SirPrefix {
        let text = if self == Own { "2001:db8:51::/64" } else { "2001:db8:5a::/64" };
        text.parse().unwrap()
    }
    fn locator(self, host: u8) -> Locator {
        format!("2001:db8:{}:{host}::/64", u8::from(self == InLab)).parse().unwrap()
    }
    fn network(self) -> &'static str {
        if self == Own { "blue" } else { "labblue" }
    }
    fn vnet(self) -> Vnet {
        let text = if self == Own { "2001:db8:b1:e::/96" } else { "2001:db8:b7:e::/96" };
        text.parse().unwrap()
    }
    fn vm(self, n: u8) -> String {
        format!("{}{n}", if self == Own { "vm" } else { "lab" })
    }
    fn task(self, name: &str) -> String {
        format!("{}{name}", if self == Own { "" } else { "lab" })
    }
    /// The n-th tenant's addresses.
    fn v4(n: u8) -> String {
        format!("10.1.0.{n}")
    }
    fn v6(self, n: u8) -> String {
        self.vnet().address(n.into()).to_string()
    }
    /// `SIR:(1001:10.1.0.n)`.
    fn sir4(self, n: u8) -> String {
        self.sir().address(type2(n)).ipv6().to_string()
    }
    /// `SIR:T`; 1 is served on hv1, 2 on hv2.
    fn sir_task(self, n: u64) -> String {
        self.sir().address(Identifier::local(n).unwrap()).ipv6().to_string()
    }
    /// As it goes on the wire to host `at`, by the words that change in this domain.
    fn wire(self, mode: ChecksumMode, at: u8, identifier: Identifier) -> String {
        let locator = self.locator(at);
        let neutral = match identifier.vnid() {
            Some(vnid) if identifier.type_number() == 3 => Neutral::vnet(locator, vnid, self.vnet()),
            _ => Neutral::sir(locator, self.sir()),
        };
        let address = match mode {
            ChecksumMode::Neutral => locator.neutral(identifier, neutral),
            ChecksumMode::Unmodified => locator.unmodified(identifier),
        };
        address.ipv6().to_string()
    }
}

fn type2(n: u8) -> Identifier {
    Identifier::ipv4(vnid("blue"), [10, 1, 0, n].into())
}
fn type3(n: u8) -> Identifier {
    Identifier::ipv6(vnid("blue"), n.into())
}
fn type1(n: u64) -> Identifier {
    Identifier::local(n).unwrap()
}

fn setup_of(host: u8, mode: ChecksumMode) -> Setup {
    let base = setup(1, mode);
    let mut made = Setup {
        further_domains: vec![FurtherDomain {
            name: "lab".into(),
            sir: InLab.sir(),
            locator: InLab.locator(host),
        }],
        ..Setup::of(setup::Host { name: format!("hv{host}"), locator: Own.locator(host), ..base.host })
    };
    for of in BOTH {
        made.networks.push(setup::Network {
            sir_domain: of.name(),
            ipv4: Some("10.1.0.0/16".parse().unwrap()),
            ipv6: Some(of.vnet()),
            multicast: Multicast::Flood,
            ..setup::Network::named(of.network(), vnid("blue"))
        });
        made.crossings.push(Crossing {
            replies: true,
            ..Crossing::between(Realm::of(of.network()), Realm::Tasks(of.name()))
        });
        for n in [1, 2, 3] {
            let (at, addresses) = (if n == 2 { 2 } else { 1 }, [addr(&Of::v4(n)), addr(&of.v6(n))]);
            if at == host {
                made.attachments.push(setup::Attachment {
                    name: of.vm(n),
                    network: of.network().into(),
                    mac: mac(n + if of == InLab { 0x10 } else { 0 }),
                    addresses: addresses.to_vec(),
                    ..base.attachments[0].clone()
                });
            } else {
                let (network, locator) = (of.network().to_owned(), of.locator(at));
                let mapping = |address| setup::Mapping { network: network.clone(), address, locator };
                made.mappings.extend(addresses.map(mapping));
            }
        }
        for (at, name, n) in [(1, "web", 1), (2, "client", 2)] {
            let address = v6(&of.sir_task(n));
            match at == host {
                true => made.tasks.push(Task { name: of.task(name), addresses: vec![address] }),
                false => made.task_mappings.push(TaskMapping { address, locator: of.locator(at) }),
            }
        }
    }
    made
}

fn host(number: u8, mode: ChecksumMode) -> Lab {
    Lab::of(setup_of(number, mode))
}

/// The ends of a packet on the wire, and that its checksum is good for the addresses of the endpoints.
fn ends(out: &Out) -> (String, String) {
    assert!(matches!(out, Out::Uplink(..)), "{out:?}");
    (out.ip().source.to_string(), out.ip().destination.to_string())
}

fn reason_of(out: &Out) -> Option<&'static str> {
    out.reason().map(DropReason::name)
}

fn receiver(out: &Out) -> &str {
    match out {
        Out::Local(name, ..) => name,
        other => panic!("not delivered: {other:?}"),
    }
}

/// From `from` on `here` to `wanted` on the other host: what the wire has, who received it, and what.
fn across(
    (here, there): (&mut Lab, &mut Lab),
    from: &str,
    packet: &[u8],
    (source, destination): (String, String),
    wanted: &str,
) {
    let wire = here.send(from, packet);
    assert_eq!(ends(&wire), (source, destination), "{from} to {wanted}");
    let got = there.receive(wire.packet());
    assert_eq!(receiver(&got), wanted);
    let (sent, shown) = (Dissected::of_ip(packet).unwrap(), got.ip());
    assert_eq!(
        (sent.source, sent.destination, sent.payload()),
        (shown.source, shown.destination, shown.payload())
    );
    assert_eq!(verify(&shown, shown.source, shown.destination), Verdict::Good);
}

#[test]
fn each_domains_packets_have_its_own_locator_and_sir_prefix_both_ways() {
    for mode in MODES {
        let (mut hv1, mut hv2) = (host(1, mode), host(2, mode));
        for of in BOTH {
            // IPv4 and IPv6 of tenants with one VNI, and tasks with one identifier: types 2, 3 and 1.
            let (one4, two4) = (Of::v4(1), Of::v4(2));
            let wire4 = |n: u8| (of.sir4(3 - n), of.wire(mode, n, type2(n)));
            let wire6 = |n: u8| (of.v6(3 - n), of.wire(mode, n, type3(n)));
            let task = |n: u8| (of.sir_task(u64::from(3 - n)), of.wire(mode, n, type1(n.into())));
            across((&mut hv1, &mut hv2), &of.vm(1), &udp(&one4, &two4, 99), wire4(2), &of.vm(2));
            across((&mut hv2, &mut hv1), &of.vm(2), &tcp(&two4, &one4, 99), wire4(1), &of.vm(1));
            across((&mut hv1, &mut hv2), &of.vm(1), &tcp(&of.v6(1), &of.v6(2), 99), wire6(2), &of.vm(2));
            across((&mut hv2, &mut hv1), &of.vm(2), &udp(&of.v6(2), &of.v6(1), 99), wire6(1), &of.vm(1));
            let (web, client) = (of.task("web"), of.task("client"));
            let (t1, t2) = (of.sir_task(1), of.sir_task(2));
            across((&mut hv1, &mut hv2), &web, &udp(&t1, &t2, 99), task(2), &client);
            across((&mut hv2, &mut hv1), &client, &tcp(&t2, &t1, 99), task(1), &web);
            // A service of the domain's own task.
            let service = (of.v6(1), of.wire(mode, 2, type1(2)));
            across((&mut hv1, &mut hv2), &of.vm(1), &udp(&of.v6(1), &t2, 9), service, &client);
        }
    }
}

#[test]
fn neighbours_on_one_host_find_those_of_their_own_domain() {
    let mut hv1 = host(1, ChecksumMode::Neutral);
    for of in BOTH {
        for (from, to) in [(Of::v4(1), Of::v4(3)), (of.v6(1), of.v6(3))] {
            assert_eq!(receiver(&hv1.send(&of.vm(1), &udp(&from, &to, 9))), of.vm(3));
        }
        let service = udp(&of.v6(1), &of.sir_task(1), 9);
        assert_eq!(receiver(&hv1.send(&of.vm(1), &service)), of.task("web"));
    }
}

/// What the router role gets: the SIR prefix, or the /96, says the domain.
#[test]
fn what_is_routed_to_a_sir_prefix_goes_to_its_domain() {
    for mode in MODES {
        let mut hv2 = host(2, mode);
        for of in BOTH {
            let to_tenant = udp(&of.sir4(1), &of.sir4(2), 9);
            assert_eq!(receiver(&hv2.receive(&to_tenant)), of.vm(2));
            assert_eq!(receiver(&hv2.receive(&udp(&of.v6(1), &of.v6(2), 9))), of.vm(2));
            assert_eq!(receiver(&hv2.receive(&udp(&of.sir_task(1), &of.sir_task(2), 9))), of.task("client"));
            // And on to the host that has it, with a locator of the domain.
            let on = hv2.receive(&udp(&of.sir4(2), &of.sir4(1), 9));
            assert!(matches!(on, Out::Dropped(_)), "its source is here: {on:?}");
        }
    }
}

#[test]
fn nothing_from_the_wire_passes_from_one_domain_to_another() {
    for mode in MODES {
        let mut hv2 = host(2, mode);
        for of in BOTH {
            let other = of.other();
            let [to4, to6, to_task] =
                [type2(2), type3(2), type1(2)].map(|identifier| of.wire(mode, 2, identifier));
            for (source, destination) in [
                (other.sir4(1), &to4),
                (other.v6(1), &to6),
                (other.sir_task(1), &to_task),
                (other.v6(1), &to_task),
                (other.sir4(1), &of.sir4(2)),
                (other.v6(1), &of.v6(2)),
                (other.sir_task(1), &of.sir_task(2)),
                (other.sir_task(1), &to6),
            ] {
                let out = hv2.receive(&udp(&source, destination, 9));
                assert_eq!(reason_of(&out), Some("foreign-domain"), "{source} to {destination}");
            }
            // Control: the same of its own domain.
            for (source, destination, wanted) in [
                (of.sir4(1), &to4, of.vm(2)),
                (of.v6(1), &to6, of.vm(2)),
                (of.sir_task(1), &to_task, of.task("client")),
                (of.v6(1), &to_task, of.task("client")),
            ] {
                assert_eq!(receiver(&hv2.receive(&udp(&source, destination, 9))), wanted);
            }
        }
    }
}

/// The other domain's adjustment under this one's locator is another identifier, and so nobody's.
#[test]
fn an_adjustment_is_reversed_by_the_domain_of_the_locator_it_came_to() {
    let mut hv2 = host(2, ChecksumMode::Neutral);
    for of in BOTH {
        for (identifier, source) in [(type2(2), of.sir4(1)), (type3(2), of.v6(1)), (type1(2), of.sir_task(1))]
        {
            let right = v6(&of.wire(ChecksumMode::Neutral, 2, identifier)).to_bits();
            let wrong = v6(&of.other().wire(ChecksumMode::Neutral, 2, identifier)).to_bits();
            assert_ne!(right as u16, wrong as u16, "the two domains differ");
            let mixed = Ipv6Addr::from_bits(right >> 64 << 64 | u128::from(wrong as u64));
            let out = hv2.receive(&udp(&source, &mixed.to_string(), 9));
            assert_eq!(out.reason(), Some(DropReason::NoMapping), "{identifier:x} {of:?}");
            let control = hv2.receive(&udp(&source, &Ipv6Addr::from_bits(right).to_string(), 9));
            assert!(matches!(control, Out::Local(..)));
        }
    }
}

#[test]
fn no_attachment_reaches_another_domain_or_says_that_it_is_of_it() {
    for mode in MODES {
        let mut hv1 = host(1, mode);
        for of in BOTH {
            let other = of.other();
            let (vm, web) = (of.vm(1), of.task("web"));
            // A SIR prefix, a /96 or a locator of any domain is inside for all of them.
            for (destination, why) in [
                (other.v6(3), "foreign-domain"),
                (other.v6(2), "foreign-domain"),
                (other.sir_task(1), "foreign-domain"),
                (other.sir_task(2), "foreign-domain"),
                (other.sir4(2), "foreign-domain"),
                (other.wire(mode, 2, type2(2)), "locator-destination"),
                (other.wire(mode, 1, type3(3)), "locator-destination"),
            ] {
                for (from, source) in [(&vm, of.v6(1)), (&web, of.sir_task(1))] {
                    let out = hv1.send(from, &udp(&source, &destination, 9));
                    assert_eq!(reason_of(&out), Some(why), "{from} to {destination}");
                }
            }
            // Nor as one of it.
            let spoofed = [(&vm, other.v6(1), other.v6(3)), (&web, other.sir_task(1), other.sir_task(2))];
            for (from, source, destination) in spoofed {
                let out = hv1.send(from, &udp(&source, &destination, 9));
                assert_eq!(out.reason(), Some(DropReason::SpoofedAddress), "{from} as {source}");
            }
        }
    }
}

#[test]
fn an_error_about_a_packet_to_another_domains_locator_is_nobodys() {
    for mode in MODES {
        let mut hv1 = host(1, mode);
        for of in BOTH {
            for packet in [udp(&Of::v4(1), &Of::v4(2), 99), udp(&of.v6(1), &of.v6(2), 99)] {
                let wire = hv1.send(&of.vm(1), &packet);
                let home = hv1.receive(&error(3, 0, 0, "2001:db8:f:9::1", wire.packet()));
                assert_eq!(receiver(&home), of.vm(1), "control");
                // As if it had gone to the other domain's host, with the very same identifier.
                let mut quoted = wire.packet().to_vec();
                quoted[24..32].copy_from_slice(&of.other().locator(2).upper().to_be_bytes());
                let out = hv1.receive(&error(3, 0, 0, "2001:db8:f:9::1", &quoted));
                assert_eq!(out.reason(), Some(DropReason::QuotedPacket), "{of:?}");
            }
        }
    }
}

#[test]
fn a_group_is_heard_in_its_own_domain_only() {
    for mode in MODES {
        let (mut hv1, mut hv2) = (host(1, mode), host(2, mode));
        for of in BOTH {
            for group in ["224.0.0.251", "ff02::1"] {
                let source = if group.contains(':') { of.v6(1) } else { Of::v4(1) };
                let outs = hv1.send_with(&of.vm(1), &udp(&source, group, 9), Offload::NONE);
                let (local, wire): (Vec<_>, Vec<_>) =
                    outs.iter().partition(|out| matches!(out, Out::Local(..)));
                assert_eq!(local.iter().map(|out| receiver(out)).collect::<Vec<_>>(), [of.vm(3)]);
                let [wire] = wire[..] else { panic!("one copy for the one other host: {outs:?}") };
                let (_, to) = ends(wire);
                assert_eq!((v6(&to).to_bits() >> 64) as u64, of.locator(2).upper());
                let heard = hv2.walk(Origin::Uplink, wire.packet(), Offload::NONE);
                assert_eq!(heard.iter().map(receiver).collect::<Vec<_>>(), [of.vm(2)]);
                // Sent to the other domain's locator it is nobody's.
                let mut astray = wire.packet().to_vec();
                astray[24..32].copy_from_slice(&of.other().locator(2).upper().to_be_bytes());
                let out = only(hv2.walk(Origin::Uplink, &astray, Offload::NONE));
                assert!(matches!(out, Out::Dropped(_)), "{out:?}");
            }
        }
    }
}

/// What a redirect or an authority says of one domain is not heard of the other, and a locator stays in its domain.
#[test]
fn what_is_learned_in_one_domain_is_not_known_in_the_other() {
    let mut hv1 = host(1, ChecksumMode::Unmodified);
    let learned =
        |epoch| Learned { source: Source::Redirect, epoch, since: Duration::from_secs(1), until: None };
    for of in BOTH {
        let key = hv1.nve.key(of.sir().address(type2(2))).unwrap();
        let moved = of.locator(7);
        assert_eq!(hv1.nve.learn(key, of.other().locator(2), learned(9)), Err(NotLearned::Locator));
        assert_eq!(hv1.nve.learn(key, of.other().locator(1), learned(9)), Err(NotLearned::Locator));
        hv1.nve.learn(key, moved, learned(3)).unwrap();
        hv1.walker.begin(Duration::from_secs(2));
        let goes = |hv1: &mut Lab, of: Of| ends(&hv1.send(&of.vm(1), &udp(&Of::v4(1), &Of::v4(2), 9))).1;
        assert_eq!(goes(&mut hv1, of), moved.unmodified(type2(2)).ipv6().to_string());
        let others = goes(&mut hv1, of.other());
        assert_eq!(others, of.other().wire(ChecksumMode::Unmodified, 2, type2(2)), "{of:?}");
        // A host that was learned of in one domain cannot be learned of in the other.
        let in_other = hv1.nve.key(of.other().sir().address(type2(2))).unwrap();
        assert_eq!(hv1.nve.learn(in_other, moved, learned(9)), Err(NotLearned::Locator));
        assert!(hv1.nve.forget(key));
        // A sweep later nothing names that host any more.
        hv1.nve.sweep(Duration::from_secs(3));
    }
}

#[test]
fn both_domains_mappings_are_listed_each_with_its_own() {
    let hv1 = host(1, ChecksumMode::Neutral);
    let lines = hv1.nve.mappings();
    for of in BOTH {
        let mut of_two =
            lines.iter().filter(|line| line.network == of.network() && line.address == addr(&Of::v4(2)));
        let line = of_two.next().expect("it is mapped");
        assert_eq!((line.sir, line.locator, line.identifier), (of.sir(), of.locator(2), type2(2)));
        assert_eq!(line.wire, v6(&of.wire(ChecksumMode::Neutral, 2, type2(2))));
        assert!(of_two.next().is_none());
        let tasks = if of == Own { "tasks" } else { "tasks@lab" };
        let task = lines.iter().find(|line| line.network == tasks && line.address == addr(&of.sir_task(2)));
        assert_eq!(task.expect("it is mapped").locator, of.locator(2));
    }
}

/// A worker of before would take a key for one of another domain.
#[test]
fn domains_do_not_change_while_the_host_runs() {
    let hv1 = host(1, ChecksumMode::Neutral);
    hv1.nve.apply(setup_of(1, ChecksumMode::Unmodified).check().unwrap()).expect("control: the same domains");
    let refused = |change: fn(&mut Setup)| {
        let mut setup = setup_of(1, ChecksumMode::Neutral);
        change(&mut setup);
        assert_eq!(hv1.nve.apply(setup.check().unwrap()), Err(ApplyError::Domains));
    };
    refused(|setup| setup.further_domains[0].locator = "2001:db8:1:9::/64".parse().unwrap());
    refused(|setup| {
        setup.further_domains.push(FurtherDomain {
            name: "third".into(),
            sir: "2001:db8:53::/64".parse().unwrap(),
            locator: "2001:db8:2:1::/64".parse().unwrap(),
        });
    });
}
