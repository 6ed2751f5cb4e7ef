//! Any bytes, from both sides: no panic, and whatever goes out is a packet.

use proptest::prelude::*;

use super::*;
use crate::packet::{ChecksumState, Gso, GsoKind};

const A6: &str = "2001:db8:b1:e::1";

/// Packets that get far, to be spoiled.
fn seeds() -> Vec<Vec<u8>> {
    let ila = |address: &str| ila_of(1, address).to_string();
    let from6 = |to: &str| [tcp("2001:db8:b1:e::2", to, 60), echo("2001:db8:b1:e::2", to, 60)];
    let from4 = |to: &str| [udp(&sir_of("10.1.0.2").to_string(), to, 60)];
    let quoted = udp(A6, &ila_of(2, "2001:db8:b1:e::2").to_string(), 20);
    let mut seeds = vec![errors::error(2, 0, 1300, "2001:db8:ffff::1", &quoted)];
    seeds.extend(from6(&ila(A6)));
    seeds.extend(from4(&ila("10.1.0.1")));
    for to in ["2001:db8:b1:e::2", "2001:db8:b1:e::3", "2001:db8:b1:e::ffff:fffe", "ff02::1"] {
        seeds.extend([tcp(A6, to, 60), udp(A6, to, 60), echo(A6, to, 60)]);
    }
    for to in ["10.1.0.2", "10.1.0.3", "10.1.255.254", "255.255.255.255"] {
        seeds.extend([tcp("10.1.0.1", to, 60), udp("10.1.0.1", to, 2000), echo("10.1.0.1", to, 60)]);
    }
    seeds
}

fn offload() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        3 => Just(ChecksumState::InPacket),
        1 => Just(ChecksumState::Verified),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
        4 => (prop_oneof![Just(20), Just(40)], prop_oneof![Just(6), Just(16)])
            .prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
    ];
    let kind = prop_oneof![
        any::<bool>().prop_map(|ecn| GsoKind::TcpV4 { ecn }),
        any::<bool>().prop_map(|ecn| GsoKind::TcpV6 { ecn }),
        Just(GsoKind::UdpL4),
    ];
    let gso = prop_oneof![2 => Just(None), 1 => (kind, 0..3000_u16).prop_map(|(kind, size)| Some(Gso { kind, size }))];
    (checksum, gso).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

/// What comes out is a packet of the length its header says, with a right IPv4 header checksum and sane offload metadata.
fn check(out: &Out) {
    if matches!(out, Out::Dropped(_)) {
        return;
    }
    let is_arp =
        matches!(out, Out::Local(_, bytes, _) | Out::Reply(bytes, _) if bytes.get(12..14) == Some(&[8, 6]));
    if is_arp {
        return;
    }
    let packet = out.packet();
    let view = out.ip();
    assert_eq!(view.total_len, packet.len(), "{out:02x?}");
    assert!(view.header_checksum_good);
    if let ChecksumState::Partial { start, offset } = out.offload().checksum {
        assert_eq!(usize::from(start), view.transport_at);
        assert!(usize::from(start + offset) + 2 <= packet.len());
    }
    if let Some(gso) = out.offload().gso {
        assert!(gso.size > 0 && out.offload().checksum != ChecksumState::InPacket);
    }
}

fn walk_everything(hv1: &mut Lab, bytes: &[u8], offload: Offload) {
    let vm1 = Origin::Port(hv1.port("vm1"));
    for origin in [vm1, Origin::Uplink] {
        for out in hv1.walk(origin, bytes, offload) {
            check(&out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), offload in offload()) {
        walk_everything(&mut Lab::new(1), &bytes, offload);
    }

    #[test]
    fn spoiled_packets_are_no_harm(
        seed in any::<prop::sample::Index>(),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        headers in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        offload in offload(),
        plain in any::<bool>(),
    ) {
        let seeds = seeds();
        let mut packet = seed.get(&seeds).clone();
        for (at, byte) in &spoil {
            let at = at.index(packet.len());
            packet[at] = *byte;
        }
        for (at, byte) in &headers {
            let at = at.index(packet.len().min(60));
            packet[at] = *byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()) + 1);
        }
        if packet[0] >> 4 == 4 && packet.len() >= 60 {
            frames::seal_ipv4(&mut packet);
        }
        let offload = if plain { Offload::NONE } else { offload };
        let mut hv1 = Lab::new(1);
        for out in hv1.walk(Origin::Uplink, &packet, offload) {
            check(&out);
        }
        for out in hv1.send_with("vm1", &packet, offload) {
            check(&out);
        }
    }
}
