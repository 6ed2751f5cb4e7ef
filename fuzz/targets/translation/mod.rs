//! What both translation targets share: a case cut from the fuzzer's bytes, a map that refuses now and then, and a
//! judge that recomputes checksums its own way.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipv4_xlat::generated::{icmpv4_error, icmpv6_error};
use ipv4_xlat::{
    AddressMap, ChecksumState, Config, FragmentedIcmp, Gso, GsoKind, HopChange, IcmpError, Offload, Packet,
    Refusal, Role, SCRATCH_LEN, Settings, TrafficClass, Translated, ZeroUdpChecksum,
};

const PREFIX: u128 = 0x2001_0db8_0064_1234_5678_9abc_0000_0000;

/// Embeds IPv4 in a /96; refuses the roles whose bit is set for addresses whose last bit is set.
pub struct Map {
    refuse: u8,
}

impl Map {
    fn refuses(&self, role: Role, last: u32) -> bool {
        self.refuse >> role as u8 & 1 == 1 && last & 1 == 1
    }
}

impl AddressMap for Map {
    fn v4_to_v6(&self, address: Ipv4Addr, role: Role) -> Option<Ipv6Addr> {
        let bits = address.to_bits();
        (!self.refuses(role, bits)).then(|| Ipv6Addr::from_bits(PREFIX | u128::from(bits)))
    }
    // Any IPv6 address will do, so that the fuzzer need not find the prefix.
    fn v6_to_v4(&self, address: Ipv6Addr, role: Role) -> Option<Ipv4Addr> {
        let bits = address.to_bits() as u32;
        (!self.refuses(role, bits)).then(|| Ipv4Addr::from_bits(bits))
    }
}

/// One case: settings, metadata and a packet.
pub struct Case {
    pub config: Config,
    pub map: Map,
    pub offload: Offload,
    /// The fuzzer wants the checksums that guard the parser to be right.
    pub mend: bool,
    /// How much of the packet has been copied, in the second run.
    pub head: usize,
    pub packet: Vec<u8>,
}

impl Case {
    /// Takes 12 bytes of choices off `data`; the rest is the packet.
    pub fn new(data: &[u8]) -> Option<Self> {
        let (choice, packet) = data.split_first_chunk::<12>()?;
        let wide = |at: usize| u16::from_be_bytes([choice[at], choice[at + 1]]);
        let settings = Settings {
            hop_change: if choice[0] & 1 == 0 { HopChange::SpendOne } else { HopChange::Keep },
            mtu4: 68 + u32::from(wide(1)),
            mtu6: 1280 + u32::from(wide(3)),
            lowest_ipv6_mtu: 1280 + u32::from(choice[5]) * 8,
            zero_udp_checksum: [ZeroUdpChecksum::Drop, ZeroUdpChecksum::Compute, ZeroUdpChecksum::Forward]
                [usize::from(choice[0] >> 1 & 3) % 3],
            traffic_class: if choice[0] & 8 == 0 { TrafficClass::Keep } else { TrafficClass::Set(choice[6]) },
            fragmented_icmp: if choice[0] & 16 == 0 { FragmentedIcmp::Drop } else { FragmentedIcmp::Pass },
        };
        let ecn = choice[7] & 1 == 1;
        let kinds = [GsoKind::TcpV4 { ecn }, GsoKind::TcpV6 { ecn }, GsoKind::UdpL4];
        let offload = match choice[7] >> 6 {
            0 | 1 => Offload::NONE,
            2 => Offload { checksum: ChecksumState::Verified, gso: None },
            _ => Offload {
                checksum: ChecksumState::Partial {
                    start: choice[8].into(),
                    offset: if ecn { 16 } else { 6 },
                },
                gso: (choice[7] & 2 == 2)
                    .then(|| Gso { kind: kinds[usize::from(choice[7] >> 2) % 3], size: wide(9) }),
            },
        };
        let config = Config::new(settings).expect("within bounds");
        let (map, mend) =
            (Map { refuse: if choice[0] & 64 == 0 { 0 } else { choice[6] } }, choice[0] & 32 == 0);
        Some(Case { config, map, offload, mend, head: choice[11].into(), packet: packet.to_vec() })
    }

    /// Runs the whole packet, then its head alone, and judges both.
    pub fn judge(&self, translate: impl Fn(&Packet<'_>, &mut [u8]) -> Result<Translated, Refusal>) {
        let mut scratch = [0xaa; SCRATCH_LEN];
        let packet = Packet { head: &self.packet, len: self.packet.len(), offload: self.offload };
        let whole = translate(&packet, &mut scratch);
        match &whole {
            Ok(translated) => self.judge_translated(translated, &mut scratch),
            Err(Refusal::Icmp(_, error)) => self.judge_answer(error),
            Err(Refusal::Silent(_)) => {}
            Err(Refusal::NeedSegments) => assert!(self.offload.gso.is_some()),
            Err(Refusal::NeedWhole) => panic!("the packet was whole"),
        }
        let head = &self.packet[..self.head.min(self.packet.len())];
        match (translate(&Packet { head, ..packet }, &mut [0x55; 128]), &whole) {
            (Err(Refusal::NeedWhole), _) => {}
            // An answer is withheld when the head does not show that one may be sent.
            (Err(Refusal::Silent(a)), Err(Refusal::Icmp(b, _))) if a == *b => {}
            (part, whole) => assert_eq!(part, *whole),
        }
    }

    fn judge_translated(&self, translated: &Translated, scratch: &mut [u8]) {
        assert!(translated.tail.end <= self.packet.len() && translated.head_len <= scratch.len());
        let mut pieces = translated.pieces();
        let mut sent = 0;
        while let Some(piece) = pieces.next(scratch) {
            let packet = [&scratch[..piece.head_len], &self.packet[piece.tail]].concat();
            assert_sound(&packet);
            sent += 1;
            assert!(sent <= 65535 / 1232 + 1);
        }
        assert!(sent > 0);
        // A right checksum stays right.
        if sent == 1 && self.offload == Offload::NONE && transport_is_right(&self.packet) == Some(true) {
            let packet = [&scratch[..translated.head_len], &self.packet[translated.tail.clone()]].concat();
            assert_ne!(transport_is_right(&packet), Some(false), "{packet:02x?}");
        }
    }

    fn judge_answer(&self, error: &IcmpError) {
        let mut out = [0; SCRATCH_LEN];
        let len = match error {
            IcmpError::V4(error) => {
                icmpv4_error(error, Ipv4Addr::new(192, 0, 2, 1), 1, &self.packet, &mut out)
            }
            IcmpError::V6(error) => icmpv6_error(error, Ipv6Addr::LOCALHOST, &self.packet, &mut out),
        };
        assert_sound(&out[..len.expect("the translator says it may be sent")]);
    }
}

pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn assert_sound(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!((packet[0], sum(&packet[..20])), (0x45, 0xffff));
    } else {
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40, packet.len());
        assert_eq!(packet[0] >> 4, 6);
    }
}

/// Offset and number of an unfragmented packet's transport header, without extension headers.
pub fn transport(packet: &[u8]) -> Option<(usize, u8)> {
    match packet.first()? >> 4 {
        4 => {
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff != 0;
            (!fragment).then_some((usize::from(packet[0] & 15) * 4, *packet.get(9)?))
        }
        _ => Some((40, *packet.get(6)?)).filter(|(_, next)| matches!(next, 6 | 17 | 58)),
    }
}

/// Bytes the packet says it has.
pub fn stated_len(packet: &[u8]) -> Option<usize> {
    let (at, extra) = if packet.first()? >> 4 == 4 { (2, 0) } else { (4, 40) };
    Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])) + extra)
}

/// Whether the transport checksum is right; `None` where there is none to judge.
fn transport_is_right(packet: &[u8]) -> Option<bool> {
    let (at, protocol) = transport(packet)?;
    let packet = packet.get(..stated_len(packet)?)?;
    let l4 = packet.get(at..)?;
    let len = l4.len() as u32;
    let pseudo = match (packet[0] >> 4, protocol) {
        (4, 1) => Vec::new(),
        (4, 6 | 17) => [&packet[12..20], &u32::from(protocol).to_be_bytes(), &len.to_be_bytes()].concat(),
        (6, 6 | 17 | 58) => [&packet[8..40], &u32::from(protocol).to_be_bytes(), &len.to_be_bytes()].concat(),
        _ => return None,
    };
    if protocol == 17 && l4.get(6..8)? == [0, 0] {
        return None;
    }
    Some(sum(&[&pseudo[..], l4].concat()) == 0xffff)
}
