//! Which packets belong together: a number per conversation, for receivers with several rings.
//!
//! What must stay true: all packets of a conversation have the same number, in both directions. It is made from both addresses, the
//! protocol, and both ports; of fragments, of which only the first has ports, from no ports: those of one datagram stay together.

use super::{Origin, Question};
use crate::packet::{Frame, protocol};

impl Question {
    /// The number of the conversation that `frame`, which this question was made of, belongs to; evenly spread over all of u32.
    #[must_use]
    pub fn flow(&self, frame: &Frame<'_>) -> u32 {
        let ip = self.origin.ip_offset();
        let packet = frame.head.get(ip..).unwrap_or_default();
        let (addresses, fragment) = match packet.first().map(|first| first >> 4) {
            Some(4) => (addresses::<4>(packet, 12), is_fragment4(packet)),
            Some(6) => (addresses::<16>(packet, 8), self.fragment || !self.has_transport),
            // ARP and what is malformed: one conversation.
            _ => return 0,
        };
        let ports = match self.protocol {
            protocol::TCP | protocol::UDP if !fragment => ports(packet, usize::from(self.l4)),
            _ => 0,
        };
        spread(addresses.wrapping_mul(GOLDEN) ^ ports << 8 ^ u64::from(self.protocol))
    }
}

/// The same number of a frame for which there is no question: one that [`super::Walker::retrace`] or [`super::Walker::retrace_homeward`]
/// has decided.
#[must_use]
pub fn flow_of_plain(origin: Origin, frame: &Frame<'_>) -> u32 {
    let byte = |at: usize| frame.head.get(origin.ip_offset() + at).copied().unwrap_or_default();
    let (protocol, l4) = if byte(0) >> 4 == 4 { (byte(9), 20) } else { (byte(6), 40) };
    let question = Question { protocol, l4, has_transport: true, origin, ..Question::default() };
    question.flow(frame)
}

/// Both addresses of `N` bytes from `at` on, folded so that it does not matter which comes first.
fn addresses<const N: usize>(packet: &[u8], at: usize) -> u64 {
    let fold = |at: usize| {
        let words = packet.get(at..at + N).unwrap_or_default().chunks_exact(4);
        let sum = words.fold(0u64, |sum, word| {
            let word = word.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            sum.rotate_left(13) ^ u64::from(word)
        });
        (sum ^ sum >> 32) as u32
    };
    symmetric(fold(at), fold(at + N))
}

fn is_fragment4(packet: &[u8]) -> bool {
    // More fragments, or an offset.
    packet.get(6).is_none_or(|high| high & 0x3f != 0) || packet.get(7).is_none_or(|low| *low != 0)
}

/// Both ports of a transport header at `at`; 0 where they lie behind the frame's head.
fn ports(packet: &[u8], at: usize) -> u64 {
    let Some([a, b, c, d]) = packet.get(at..).and_then(|rest| rest.first_chunk::<4>()) else { return 0 };
    let (from, to) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    symmetric(from.into(), to.into())
}

/// The same whichever way round, and not zero where both are equal.
fn symmetric(a: u32, b: u32) -> u64 {
    u64::from(a.wrapping_add(b)) << 32 | u64::from(a ^ b)
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every bit of the result depends on every bit of `n`: a multiplication, twice.
fn spread(n: u64) -> u32 {
    let n = n.wrapping_mul(GOLDEN);
    ((n ^ n >> 32).wrapping_mul(GOLDEN) >> 32) as u32
}

#[cfg(all(test, feature = "testkit"))]
mod tests {
    use super::super::{Origin, PortId, question::Form};
    use super::*;

    fn question(l4: u16, fragment: bool) -> Question {
        Question {
            origin: Origin::Port(PortId(0)),
            form: Form::Peer4,
            protocol: protocol::UDP,
            has_transport: true,
            fragment,
            l4,
            ip_len: 28,
            plain: false,
            bucket: 0,
            key: None,
        }
    }

    /// An IPv4 datagram behind an Ethernet header; `fragment` is the word with flags and offset.
    fn datagram(from: (u8, u16), to: (u8, u16), fragment: u16) -> Vec<u8> {
        let mut frame = vec![0; 14 + 28];
        frame[14] = 0x45;
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame[23] = 17;
        frame[26..30].copy_from_slice(&[10, 1, 0, from.0]);
        frame[30..34].copy_from_slice(&[10, 1, 0, to.0]);
        frame[34..36].copy_from_slice(&from.1.to_be_bytes());
        frame[36..38].copy_from_slice(&to.1.to_be_bytes());
        frame
    }

    fn flow(bytes: &[u8]) -> u32 {
        question(20, false).flow(&Frame::whole(bytes))
    }

    #[test]
    fn both_directions_of_a_conversation_are_one_flow() {
        for port in 0..1000 {
            let there = flow(&datagram((1, 40_000 + port), (2, 80), 0));
            assert_eq!(there, flow(&datagram((2, 80), (1, 40_000 + port), 0)));
        }
    }

    #[test]
    fn fragments_of_a_datagram_are_one_flow_whatever_their_first_bytes() {
        let first = flow(&datagram((1, 1), (2, 2), 0x2000));
        for bytes in 0..100 {
            assert_eq!(first, flow(&datagram((1, bytes), (2, 99), 0x0010)));
        }
    }

    #[test]
    fn conversations_spread_evenly_over_rings() {
        for rings in [2u64, 3, 4, 8] {
            let mut count = vec![0; rings as usize];
            for port in 0..4000 {
                let number = flow(&datagram((1, 1024 + port), (2, 443), 0));
                count[((u64::from(number) * rings) >> 32) as usize] += 1;
            }
            let fair = 4000 / rings;
            assert!(count.iter().all(|n| (fair * 8 / 10..=fair * 12 / 10).contains(n)), "{count:?}");
        }
    }
}
