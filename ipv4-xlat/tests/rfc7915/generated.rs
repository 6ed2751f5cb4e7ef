//! ICMP errors of our own: checklist L (RFC 7915 4.4, 5.4; RFC 1122, 1812, 4443).

use ipv4_xlat::generated::{NotSent, icmpv4_error, icmpv6_error, may_answer_v4, may_answer_v6};
use ipv4_xlat::limit::Limiter;
use ipv4_xlat::{Icmpv4Error, Icmpv6Error, Reason};

use crate::lab::*;

/// What provokes an error in any packet, and the error's type and code.
type Provocation<P> = (&'static str, fn(&mut P), (u8, u8));

/// What every kind of IPv4 error is provoked by, on a packet that can be anything else.
fn provocations4() -> Vec<Provocation<V4>> {
    vec![
        ("ttl", |p| p.ttl = 1, (11, 0)),
        ("source route", |p| p.options = vec![131, 7, 4, 1, 2, 3, 4, 0], (3, 5)),
        ("unmapped source", |p| p.src = UNMAPPED4, (3, 13)),
        ("too big", |p| (p.df, p.payload) = (true, [p.payload.clone(), data(1472)].concat()), (3, 4)),
    ]
}

fn provocations6() -> Vec<Provocation<V6>> {
    vec![
        ("hop limit", |p| p.hops = 1, (3, 0)),
        ("segments left", |p| p.extensions.insert(0, routing_header(1)), (4, 0)),
        ("unmapped source", |p| p.src = UNMAPPED6, (1, 1)),
        ("too big", |p| p.payload.extend(data(1472)), (2, 0)),
    ]
}

#[test]
fn ordinary_packets_are_answered() {
    for (name, provoke, (icmp_type, code)) in provocations4() {
        for (protocol, l4) in [(17, udp(b"x")), (6, tcp(b"x")), (1, echo(8, b"x"))] {
            let outcome = run46(&v4(protocol, l4).with(provoke).bytes(), &defaults());
            let (t, c, _) = answered(outcome);
            assert_eq!((t, c), (icmp_type, code), "{name}");
        }
    }
    for (name, provoke, (icmp_type, code)) in provocations6() {
        for (protocol, l4) in [(17, udp(b"x")), (6, tcp(b"x")), (58, echo(128, b"x"))] {
            let outcome = run64(&v6(protocol, l4).with(provoke).bytes(), &defaults());
            let (t, c, _) = answered(outcome);
            assert_eq!((t, c), (icmp_type, code), "{name}");
        }
    }
}

#[test]
fn nothing_is_answered_that_must_not_be() {
    let quote4 = v4_between(B4, A4, 17, udp(b"x")).bytes();
    for (name, provoke, _) in provocations4() {
        for icmp_type in [3, 4, 5, 11, 12, 200] {
            let error = v4(1, icmp(icmp_type, 0, [0; 4], &quote4)).with(provoke).bytes();
            silent(run46(&error, &defaults()));
            assert_eq!(may_answer_v4(&error), Err(NotSent::AboutError), "{name}");
        }
        let later = v4(17, udp(b"x")).with(|p| (p.offset, p.df) = (64, false)).with(provoke).bytes();
        silent(run46(&later, &defaults()));
        assert_eq!(may_answer_v4(&later), Err(NotSent::AboutFragment), "{name}");
        for many in ["224.0.0.1", "239.1.1.1", "255.255.255.255"] {
            let many = v4_between(A4, many.parse().unwrap(), 17, udp(b"x")).with(provoke).bytes();
            assert_eq!(may_answer_v4(&many), Err(NotSent::AboutMulticast), "{name}");
        }
        for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let odd = v4(17, udp(b"x")).with(provoke).with(|p| p.src = source.parse().unwrap()).bytes();
            silent(run46(&odd, &defaults()));
            assert_eq!(may_answer_v4(&odd), Err(NotSent::IllegalSource), "{name}");
        }
    }
    let quote6 = v6_between(b6(), a6(), 17, udp(b"x")).bytes();
    let about = Icmpv6Error::hop_limit_exceeded(a6());
    for (name, provoke, _) in provocations6() {
        for icmp_type in [1, 2, 3, 4, 100, 127, 137] {
            let error = v6(58, icmp(icmp_type, 0, [0; 4], &quote6)).with(provoke).bytes();
            silent(run64(&error, &defaults()));
            assert_eq!(may_answer_v6(&about, &error), Err(NotSent::AboutError), "{name}");
        }
        let later = v6(17, udp(b"x"))
            .with(|p| p.extensions = vec![fragment_header(64, false, 1)])
            .with(provoke)
            .bytes();
        silent(run64(&later, &defaults()));
        assert_eq!(may_answer_v6(&about, &later), Err(NotSent::AboutFragment), "{name}");
        for source in ["::", "::1", "ff02::1"] {
            let odd = v6(17, udp(b"x")).with(provoke).with(|p| p.src = source.parse().unwrap()).bytes();
            silent(run64(&odd, &defaults()));
            assert_eq!(may_answer_v6(&about, &odd), Err(NotSent::IllegalSource), "{name}");
        }
        let many = v6_between(a6(), "ff0e::1".parse().unwrap(), 17, udp(b"x")).with(provoke).bytes();
        assert_eq!(may_answer_v6(&about, &many), Err(NotSent::AboutMulticast), "{name}");
        // Path MTU discovery works for multicast too (RFC 4443 2.4(e)).
        assert_eq!(may_answer_v6(&Icmpv6Error::packet_too_big(a6(), 1280), &many), Ok(()), "{name}");
    }
}

#[test]
fn an_icmp_message_that_might_be_an_error_is_not_answered() {
    // The type is not in what was copied.
    let hidden = v4(1, echo(8, b"x")).bytes();
    assert_eq!(may_answer_v4(&hidden[..20]), Err(NotSent::AboutError));
    let hidden = v6(58, echo(128, b"x")).with(|p| p.extensions = vec![options_header(60, 64)]).bytes();
    let about = Icmpv6Error::hop_limit_exceeded(a6());
    assert_eq!(may_answer_v6(&about, &hidden[..104]), Err(NotSent::AboutError));
    assert_eq!(may_answer_v6(&about, &hidden), Ok(()));
}

#[test]
fn the_error_quotes_the_packet_as_it_was_received() {
    for len in [0, 1, 100, 520, 521, 2000] {
        let original = v4(17, udp(&data(len))).bytes();
        let mut out = [0; 576];
        let error = Icmpv4Error::fragmentation_needed(A4, 1380);
        let n = icmpv4_error(&error, B4, 77, &original, &mut out).unwrap();
        let packet = &out[..n];
        assert_sound(packet);
        assert_eq!(n, (28 + original.len()).min(576));
        assert_eq!(quoted(packet), &original[..n - 28]);
        assert_eq!(
            (packet[1], u16_at(packet, 4), u16_at(packet, 6), packet[8], packet[9]),
            (0, 77, 0, 64, 1)
        );
        assert_eq!((&packet[12..16], &packet[16..20]), (&B4.octets()[..], &A4.octets()[..]));
        assert_eq!((&l4(packet)[..2], u32_at(l4(packet), 4)), (&[3, 4][..], 1380));

        let original = v6(17, udp(&data(len))).bytes();
        let mut out = [0; 1280];
        let error = Icmpv6Error::packet_too_big(a6(), 1420);
        let n = icmpv6_error(&error, b6(), &original, &mut out).unwrap();
        let packet = &out[..n];
        assert_sound(packet);
        assert_eq!(n, (48 + original.len()).min(1280));
        assert_eq!(quoted(packet), &original[..n - 48]);
        assert_eq!((u32_at(packet, 0), packet[6], packet[7]), (6 << 28, 58, 64));
        assert_eq!((&l4(packet)[..2], u32_at(l4(packet), 4)), (&[2, 0][..], 1420));
    }
}

#[test]
fn bytes_behind_the_packet_are_not_quoted() {
    let original = [v4(17, udp(b"x")).bytes(), vec![0xee; 30]].concat();
    let n = icmpv4_error(&Icmpv4Error::ttl_exceeded(A4), B4, 1, &original, &mut [0; 576]).unwrap();
    assert_eq!(n, 28 + 29);
    let original = [v6(17, udp(b"x")).bytes(), vec![0xee; 30]].concat();
    let n = icmpv6_error(&Icmpv6Error::hop_limit_exceeded(a6()), b6(), &original, &mut [0; 1280]).unwrap();
    assert_eq!(n, 48 + 49);
}

#[test]
fn a_buffer_that_is_too_short_is_refused() {
    let original = v4(17, udp(b"x")).bytes();
    for len in 0..28 + 29 {
        let outcome = icmpv4_error(&Icmpv4Error::ttl_exceeded(A4), B4, 1, &original, &mut vec![0; len]);
        assert_eq!(outcome, Err(NotSent::NoRoom));
    }
    for len in 0..20 {
        let outcome = icmpv4_error(&Icmpv4Error::ttl_exceeded(A4), B4, 1, &original[..len], &mut [0; 576]);
        assert_eq!(outcome, Err(NotSent::Malformed));
    }
    let original = v6(17, udp(b"x")).bytes();
    for len in 0..48 + 49 {
        let outcome =
            icmpv6_error(&Icmpv6Error::hop_limit_exceeded(a6()), b6(), &original, &mut vec![0; len]);
        assert_eq!(outcome, Err(NotSent::NoRoom));
    }
}

#[test]
fn ten_thousand_spent_packets_get_a_bounded_number_of_answers() {
    let mut limiter = Limiter::new(100, 10);
    let sent = (0..10_000_u64).filter(|i| limiter.allow(Reason::HopLimit, 5_000_000 + i * 100)).count();
    // One second at 100 a second, and the burst.
    assert!((109..=110).contains(&sent), "{sent}");
    assert_eq!(
        (0..1000).filter(|_| limiter.allow(Reason::HopLimit, 0)).count(),
        0,
        "a clock that steps back adds nothing"
    );
    assert!(limiter.allow(Reason::HopLimit, u64::MAX));
}

#[test]
fn answers_can_be_switched_off_for_each_reason() {
    for off in Reason::ALL {
        let mut limiter = Limiter::new(1, 100);
        limiter.switch(off, false);
        for reason in Reason::ALL {
            assert_eq!(limiter.allow(reason, 0), reason != off);
        }
        limiter.switch(off, true);
        assert!(limiter.allow(off, 0));
    }
}
