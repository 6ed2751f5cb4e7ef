//! Damaged packets between realms: whatever the bytes, nobody hears a realm that no rule lets in, and nothing panics.

use super::scenarios::rows;
use super::*;
use crate::packet::{ChecksumState, Gso, GsoKind};
use crate::testkit::Dice;

/// blue may begin to tasks; red, which has the same IPv4 addresses, is served by nobody and reaches nobody.
fn blue_to_tasks() -> Vec<Crossing> {
    vec![Crossing { replies: true, ..Crossing::between(Realm::of("blue"), Realm::Tasks(None)) }]
}

/// Offload metadata, often what the packet is like.
fn some_offload(dice: &mut Dice) -> Offload {
    let number = |dice: &mut Dice| (dice.roll() % 80) as u16;
    match dice.roll() % 6 {
        0 => Offload {
            checksum: ChecksumState::Partial { start: number(dice), offset: number(dice) },
            gso: None,
        },
        1 => Offload {
            checksum: ChecksumState::Partial { start: 40, offset: 16 },
            gso: Some(Gso { kind: GsoKind::TcpV6 { ecn: false }, size: number(dice) }),
        },
        _ => Offload::NONE,
    }
}

fn damaged(dice: &mut Dice, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    for _ in 0..dice.roll() % 5 {
        let at = dice.roll() as usize % packet.len();
        packet[at] = dice.roll() as u8;
    }
    if dice.chance(50) {
        packet.truncate(dice.roll() as usize % packet.len() + 1);
    }
    if packet[0] >> 4 == 4 && packet.len() >= 20 && dice.chance(700) {
        let header = (usize::from(packet[0] & 0xf) * 4).clamp(20, packet.len());
        packet[0] = 0x40 | (header / 4) as u8;
        frames::seal_ipv4(&mut packet);
    }
    packet
}

/// Who is behind a name.
fn realm_of(name: &str) -> &'static str {
    TENANTS.iter().find(|tenant| tenant.0 == name).map_or("tasks", |tenant| tenant.2)
}

/// What a packet may be, its sender and how it looks; errors about some of them, too.
fn honest() -> Vec<(&'static str, Vec<u8>)> {
    let mut packets = Vec::new();
    for row in rows() {
        let plain = [udp(row.sent.0, row.sent.1, 40), tcp(row.sent.0, row.sent.1, 40)];
        for packet in plain.into_iter().chain([echo(row.sent.0, row.sent.1, 40)]) {
            let quoted = Dissected::of_ip(&packet).unwrap();
            let (number, kind) = if quoted.version == 4 { (1, 3) } else { (58, 1) };
            let mut back = packet.clone();
            let (from, to) = if quoted.version == 4 { (12..16, 16..20) } else { (8..24, 24..40) };
            back[from.clone()].copy_from_slice(&packet[to.clone()]);
            back[to].copy_from_slice(&packet[from]);
            let body = [&[kind, 1, 0, 0, 0, 0, 0, 0][..], &back].concat();
            let error = frames::ip(Header::default(), quoted.source, quoted.destination, number, body);
            packets.extend([(row.sender, packet), (row.sender, error)]);
        }
    }
    packets
}

#[test]
fn damaged_packets_from_attachments_reach_no_realm_that_rules_do_not_open() {
    let packets = honest();
    let mut dice = Dice::new(14);
    let mut lab = Lab::of(reference(1, Spread::OneHost, blue_to_tasks(), ChecksumMode::Neutral));
    let mut crossed = 0;
    for round in 0..20_000_u64 {
        lab.walker.begin(Duration::from_secs(10 * round));
        let (sender, packet) = &packets[dice.roll() as usize % packets.len()];
        let offload = some_offload(&mut dice);
        for out in lab.send_with(sender, &damaged(&mut dice, packet), offload) {
            match &out {
                Out::Local(name, ..) => {
                    let (from, to) = (realm_of(sender), realm_of(name));
                    let may =
                        from == to || from == "blue" && to == "tasks" || from == "tasks" && to == "blue";
                    assert!(may, "{sender} reached {name}: {out:?}");
                    crossed += u32::from(from != to);
                }
                Out::Uplink(..) => panic!("nobody is elsewhere, and the outside is closed: {out:?}"),
                _ => {}
            }
        }
    }
    assert!(crossed > 100, "damage to payloads does no harm: {crossed}");
}

#[test]
fn damaged_packets_from_the_wire_reach_no_realm_that_rules_do_not_open() {
    let mut wire = Vec::new();
    for (sender, packet) in honest() {
        let number = Spread::FourHosts.host_of(sender);
        wire.extend(match host(number, Spread::FourHosts, &open()).send(sender, &packet) {
            Out::Uplink(packet, _) => Some(packet),
            _ => None,
        });
    }
    assert!(wire.len() >= 33, "three of each row at least");
    let mut dice = Dice::new(15);
    let mut heard = 0;
    for number in [1, 3, 4] {
        let mut lab = host(number, Spread::FourHosts, &blue_to_tasks());
        for round in 0..10_000_u64 {
            lab.walker.begin(Duration::from_secs(10 * round));
            let chosen = dice.roll() as usize % wire.len();
            let packet = damaged(&mut dice, &wire[chosen]);
            let offload = some_offload(&mut dice);
            for out in lab.walk(Origin::Uplink, &packet, offload) {
                let Out::Local(name, ..) = &out else { continue };
                let view = Dissected::of_ip(&packet).unwrap();
                let IpAddr::V6(source) = view.source else { panic!("IPv4 on the wire") };
                let from_blue = source.to_bits() >> 32 == vnet("blue").prefix().to_bits() >> 32
                    || source.to_bits() >> 32 == v6("2001:db8:51:0:4000:3e9::").to_bits() >> 32;
                let from_task = source.to_bits() >> 60 == v6(TASKS[0].2).to_bits() >> 60;
                // An error comes from anywhere, about what its receiver may have sent.
                let error = Dissected::of_ip(out.packet()).is_some_and(|view| view.icmp_error().is_some());
                let may = match realm_of(name) {
                    "red" => false,
                    _ => from_blue || from_task,
                };
                assert!(may || error && realm_of(name) != "red", "{name} hears {source}: {out:?}");
                heard += 1;
            }
        }
    }
    assert!(heard > 300, "{heard}");
}
