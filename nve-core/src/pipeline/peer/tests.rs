//! What is changed is what the kernel changes, by its own arithmetic over again; and what it cannot carry is refused by name.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipv4_xlat::checksum::{Delta, Sum};

use super::*;
use crate::addr::{DomainId, Neutral};
use crate::packet::Offload;
use crate::pipeline::Origin;
use crate::pipeline::question::Form;
use crate::testkit::checksum;
use crate::testkit::dissect::{Dissected, protocol};
use crate::testkit::frames::{self, Header};

const SIR: &str = "2001:db8:51::/64";
const THERE: &str = "2001:db8:0:3::/64";

/// `csum_add` and `csum_fold` of Linux 6.1, include/net/checksum.h.
fn csum_add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}
fn csum_fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// `compute_csum_diff8(&p->locator, &p->locator_match)`: net/ipv6/ila/ila.h.
fn csum_diff(locator: u64, locator_match: u64) -> u32 {
    let halves = |upper: u64| [(upper >> 32) as u32, upper as u32];
    let diff = halves(locator).map(|half| !half).into_iter().fold(0, csum_add);
    halves(locator_match).into_iter().fold(diff, csum_add)
}

/// `inet_proto_csum_replace_by_diff`, net/core/utils.c.
fn replaced(check: u16, diff: u32, partial: bool) -> u16 {
    match partial {
        false => csum_fold(csum_add(diff, !u32::from(check))),
        true => !csum_fold(csum_add(diff, u32::from(check))),
    }
}

fn upper(prefix: &str) -> u64 {
    prefix.parse::<Locator>().unwrap().upper()
}

fn sum(upper: u64) -> Sum {
    Sum::ZERO.dword((upper >> 32) as u32).dword(upper as u32)
}

fn task(word: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0x2000, 0, 0, word)
}

fn domain() -> Domain {
    Domain::new(DomainId::ALL[0], SIR.parse().unwrap(), "2001:db8:0:1::/64".parse().unwrap())
}

fn key(bits: u64) -> Key {
    domain().key(Identifier::from_bits(bits).unwrap()).unwrap()
}

/// Packets of every protocol that the kernel knows, and one that says it has no checksum.
fn packets() -> Vec<(Vec<u8>, Offload)> {
    let ends = [task(0x11), task(0x33)].map(|address| SocketAddr::new(address.into(), 1000));
    let (from, to): (IpAddr, IpAddr) = (ends[0].ip(), ends[1].ip());
    let mut none = frames::udp(Header::default(), ends[0], ends[1], b"no checksum");
    none[46..48].fill(0);
    let mut partial = frames::udp(Header::default(), ends[0], ends[1], b"a seed");
    let seed = frames::leave_checksum(&mut partial);
    let tcp = frames::tcp(Header::default(), ends[0], ends[1], frames::flags::ACK, b"some bytes");
    let echo = frames::echo_request(Header::default(), from, to, 1, b"ping");
    let udp = frames::udp(Header::default(), ends[0], ends[1], b"some bytes");
    [tcp, echo, udp, none]
        .into_iter()
        .map(|packet| (packet, Offload::NONE))
        .chain([(partial, seed)])
        .collect()
}

/// Applies `twist` to `packet`, of which the walk has written the IPv6 header; the whole of what leaves.
fn twisted(twist: Twist, packet: &[u8], offload: Offload) -> Result<Vec<u8>, Stop> {
    let mut scratch = Scratch::default();
    scratch.head[..HEADER_LEN].copy_from_slice(&packet[..HEADER_LEN]);
    let frame = Frame { offload, ..Frame::whole(packet) };
    let rewritten = Rewritten { head: 0..HEADER_LEN, tail: HEADER_LEN..packet.len(), offload, more: false };
    let there = (THERE.parse().unwrap(), key(task(0x33).to_bits() as u64));
    let left = twist_to(twist, there, &frame, rewritten, &mut scratch)?;
    Ok([&scratch.head[left.head], &packet[left.tail]].concat())
}

#[test]
fn the_transports_checksum_is_changed_as_the_kernel_does_and_put_back() {
    let (sir, there) = (upper(SIR), upper(THERE));
    let (out, back) = (Delta::between(sum(there), sum(sir)), Delta::between(sum(sir), sum(there)));
    for (packet, offload) in packets() {
        let view = Dissected::of_ip(&packet).unwrap();
        let at = view.transport_at + checksum::field_of(view.protocol).unwrap();
        let made = u16::from_be_bytes([packet[at], packet[at + 1]]);
        let is_none = view.protocol == protocol::UDP && made == 0;
        let kernels = match (is_none, offload == Offload::NONE) {
            (true, _) => 0,
            (false, whole) => replaced(made, csum_diff(there, sir), !whole),
        };
        let sent = twisted(Twist::Transport(out), &packet, offload).unwrap();
        assert_eq!(u16::from_be_bytes([sent[at], sent[at + 1]]), kernels, "{view:?}");
        assert_eq!((&sent[..at], &sent[at + 2..]), (&packet[..at], &packet[at + 2..]), "nothing else");
        assert_eq!(twisted(Twist::Transport(back), &sent, offload).unwrap(), packet, "{view:?}");
    }
}

#[test]
fn the_low_word_alone_is_changed_under_neutral_map_auto() {
    let neutral = Neutral::without_c(THERE.parse().unwrap(), SIR.parse().unwrap());
    for (packet, offload) in packets() {
        let sent = twisted(Twist::LowWord(neutral), &packet, offload).unwrap();
        let kernels = !csum_fold(csum_add(csum_diff(upper(THERE), upper(SIR)), 0x33));
        assert_eq!(sent[24..32], upper(THERE).to_be_bytes());
        assert_eq!(sent[32..38], packet[32..38]);
        assert_eq!(u16::from_be_bytes([sent[38], sent[39]]), kernels);
        assert_eq!((&sent[..24], &sent[40..]), (&packet[..24], &packet[40..]));
    }
}

#[test]
fn what_a_mode_cannot_carry_is_refused_by_name() {
    let refused = Err(Stop::Drop(DropReason::PeerChecksum));
    let transport = Twist::Transport(Delta::between(sum(upper(THERE)), sum(upper(SIR))));
    let whole = frames::udp(
        Header::default(),
        SocketAddr::new(task(0x11).into(), 1),
        SocketAddr::new(task(0x33).into(), 2),
        &[7; 2000],
    );
    for piece in frames::fragments(&whole, 1000) {
        assert_eq!(twisted(transport, &piece, Offload::NONE), refused);
    }
    let low_word = Twist::LowWord(Neutral::without_c(THERE.parse().unwrap(), SIR.parse().unwrap()));
    let mut scratch = Scratch::default();
    for (twist, bits) in [
        (low_word, task(0).to_bits() as u64),
        (low_word, 2 << 61 | 1001 << 32 | 1),
        (transport, 2 << 61 | 1001 << 32 | 1),
    ] {
        let there = (THERE.parse().unwrap(), key(bits));
        let rewritten = Rewritten::whole(0..HEADER_LEN);
        assert_eq!(
            twist_to(twist, there, &Frame::whole(&whole), rewritten, &mut scratch).map(drop),
            refused.clone().map(drop)
        );
    }
    // Nor is it taken from there.
    let question = Question {
        origin: Origin::Uplink,
        form: Form::Arrived,
        protocol: protocol::UDP,
        has_transport: true,
        fragment: true,
        l4: 48,
        ip_len: 1000,
        plain: false,
        bucket: 0,
        key: Some(key(task(0x33).to_bits() as u64)),
    };
    assert_eq!(as_sent(transport, &domain(), &question), Err(DropReason::PeerChecksum));
    assert!(as_sent(transport, &domain(), &Question { fragment: false, ..question }).is_ok());
}
