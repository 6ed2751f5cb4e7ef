//! Messages byte by byte, and every way in which one is refused.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::addr::{Identifier, SirPrefix, Vnid};
use crate::pipeline::{Nve, Source, Triangle};
use crate::testkit::{GuestPlan, Plan};

const SECRET: [u8; 32] = [7; 32];
const NOW: Duration = Duration::from_secs(100);
const UNIX: Duration = Duration::from_secs(1_800_000_000);
const AT: At = At { now: NOW, unix: UNIX };
const MINUTE: Duration = Duration::from_secs(60);

fn key(id: u16, secret: &[u8]) -> Key {
    Key::new(KeyId(id), secret).unwrap()
}

fn locator(host: u16) -> Locator {
    Locator::new(Ipv6Addr::new(0x2001, 0xdb8, 0, host, 0, 0, 0, 0)).unwrap()
}

fn sir() -> SirPrefix {
    "2001:db8:51::/64".parse().unwrap()
}

/// The same as the tables have it.
fn keyed(last: u8) -> crate::addr::Key {
    crate::addr::Key::first(blue(last))
}

fn blue(last: u8) -> Identifier {
    Identifier::ipv4(Vnid::new(1001).unwrap(), [10, 1, 0, last].into())
}

/// That 10.1.0.9 lives on hv3, from hv2 to hv1.
fn message() -> Message {
    Message {
        sender: locator(2),
        recipient: locator(1),
        sir: sir(),
        identifier: blue(9),
        locator: locator(3),
        epoch: 4,
        sequence: 1000,
        time: UNIX,
        lifetime: MINUTE,
    }
}

fn policy() -> Policy {
    Policy {
        keys: Keys::new(vec![key(1, &SECRET)]),
        accept: true,
        send: true,
        routers: Vec::new(),
        locators: Vec::new(),
        lifetime: Duration::from_secs(300),
    }
}

/// hv1 with vm1 (10.1.0.1); vm2 (10.1.0.2) on hv2 and vm3 (10.1.0.3) on hv3, of which it knows.
fn nve() -> Arc<Nve> {
    let plan = Plan::new(1).network("blue", 1001, "10.1.0.0/16", "").host("hv1").host("hv2").host("hv3");
    let guests = [("vm1", "hv1", "10.1.0.1"), ("vm2", "hv2", "10.1.0.2"), ("vm3", "hv3", "10.1.0.3")];
    let plan = guests
        .into_iter()
        .fold(plan, |plan, (name, host, address)| plan.guest(GuestPlan::new(name, host, "blue", &[address])));
    Arc::clone(plan.start().nve("hv1"))
}

struct Ears {
    nve: Arc<Nve>,
    listener: Listener,
    policy: Policy,
    at: At,
}

impl Ears {
    fn new() -> Self {
        let nve = nve();
        let listener = Listener::new(Arc::clone(&nve), UNIX - MINUTE);
        Self { nve, listener, policy: policy(), at: AT }
    }
    fn hear(&mut self, message: &Message) -> Outcome {
        self.hear_bytes(&message.seal(&key(1, &SECRET)))
    }
    fn hear_bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.hear_from(locator(2).control_address(), bytes)
    }
    fn hear_from(&mut self, from: Ipv6Addr, bytes: &[u8]) -> Outcome {
        self.listener.hear(&self.policy, self.at, from, bytes)
    }
    /// Where it believes 10.1.0.9 to live.
    fn believes(&self) -> Option<Locator> {
        self.nve.residence(keyed(9)).map(|residence| residence.locator)
    }
}

/// The layout of docs/redirect.md; the MAC was computed by Python: `hmac.new(b"\7" * 32, first_80_bytes, "sha256")`.
#[test]
fn a_message_is_laid_out_as_documented() {
    let bytes = message().seal(&key(1, &SECRET));
    let words: Vec<String> =
        bytes.chunks(8).map(|word| word.iter().map(|b| format!("{b:02x}")).collect()).collect();
    assert_eq!(bytes.len(), 112);
    assert_eq!(
        words[..10],
        [
            "494c415201010001",
            "20010db800000002",
            "20010db800000001",
            "20010db800510000",
            "400003e90a010009",
            "20010db800000003",
            "0000000000000004",
            "00000000000003e8",
            "0006651728988000",
            "0000003c00000000",
        ]
    );
    assert_eq!(words[10..].concat(), PYTHONS);
}

const PYTHONS: &str = "ddcffea9054d6cecf7d888108b5fb40676fdfb02f9113a245b732061af74dd42";

#[test]
fn a_redirect_is_learned_for_as_long_as_both_ends_allow() {
    for (says, allowed, lasts) in [(60, 300, 60), (3600, 300, 300)] {
        let mut ears = Ears::new();
        ears.policy.lifetime = Duration::from_secs(allowed);
        let message = Message { lifetime: Duration::from_secs(says), ..message() };
        assert_eq!((ears.believes(), ears.hear(&message)), (None, Outcome::Learned));
        assert_eq!(ears.believes(), Some(locator(3)));
        let ends = NOW + Duration::from_secs(lasts);
        assert_eq!(ears.nve.sweep_due(), Some(ends));
        let lines = ears.nve.mappings();
        let line = lines.iter().find(|line| line.identifier == blue(9)).unwrap();
        assert_eq!((line.source, line.epoch, line.since), (Source::Redirect, 4, Some(NOW)));
        ears.nve.sweep(ends);
        assert_eq!(ears.believes(), None);
    }
}

#[test]
fn no_bit_of_a_message_can_be_changed() {
    let good = message().seal(&key(1, &SECRET));
    for bit in 0..LEN * 8 {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut ears = Ears::new();
        let outcome = ears.hear_bytes(&bytes);
        let expected = match bit / 8 {
            0..4 => Outcome::Malformed,
            4..6 => Outcome::OtherVersion,
            6..8 => Outcome::UnknownKey,
            _ => Outcome::BadMac,
        };
        assert_eq!((outcome, ears.believes()), (expected, None), "bit {bit}");
    }
}

#[test]
fn a_message_of_another_length_is_malformed() {
    let good = message().seal(&key(1, &SECRET));
    for len in 0..LEN {
        assert_eq!(Ears::new().hear_bytes(&good[..len]), Outcome::Malformed, "{len}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(Ears::new().hear_bytes(&longer), Outcome::Malformed);
}

#[test]
fn what_is_not_for_us_from_a_router_of_ours_and_of_our_domain_is_refused_by_name() {
    let refused = |outcome, message: Message, change: fn(&mut Policy)| {
        let mut ears = Ears::new();
        change(&mut ears.policy);
        assert_eq!((ears.hear(&message), ears.believes()), (outcome, None), "{message:?}");
        // Control: the same ears hear what is right.
        ears.policy = policy();
        let right = Message { sequence: message.sequence + 1, ..self::message() };
        assert_eq!(ears.hear(&right), Outcome::Learned);
    };
    let prefix = |text: &str| Locator::new(text.parse().unwrap()).unwrap();
    let none: fn(&mut Policy) = |_| ();
    refused(Outcome::Off, message(), |policy| policy.accept = false);
    refused(Outcome::UnknownKey, message(), |policy| policy.keys = Keys::new(vec![key(2, &SECRET)]));
    refused(Outcome::BadMac, message(), |policy| policy.keys = Keys::new(vec![key(1, &[8; 32])]));
    refused(Outcome::NotForUs, Message { recipient: locator(3), ..message() }, none);
    refused(Outcome::NotARouter, message(), |policy| policy.routers = vec![locator(3)]);
    refused(Outcome::NotARouter, Message { sender: locator(3), ..message() }, none);
    let foreign = SirPrefix::new("2001:db8:52::".parse().unwrap()).unwrap();
    refused(Outcome::ForeignDomain, Message { sir: foreign, ..message() }, none);
    refused(
        Outcome::UnknownIdentifier,
        Message { identifier: Identifier::from_bits(1).unwrap(), ..message() },
        none,
    );
    refused(Outcome::Here, Message { identifier: blue(1), ..message() }, none);
    refused(Outcome::BadLocator, Message { locator: locator(1), ..message() }, none);
    refused(Outcome::BadLocator, Message { locator: prefix("2001:db8:51::"), ..message() }, none);
    refused(Outcome::BadLocator, message(), |policy| {
        policy.locators = vec![("2001:db9::".parse().unwrap(), 32)];
    });
    for second in [31, -31] {
        let time = if second > 0 { UNIX + SKEW } else { UNIX - SKEW };
        let off = Duration::from_secs(1);
        let time = if second > 0 { time + off } else { time - off };
        refused(Outcome::Stale, Message { time, ..message() }, none);
    }
}

#[test]
fn a_message_from_another_address_than_its_senders_control_address_is_refused() {
    let good = message().seal(&key(1, &SECRET));
    for from in
        [locator(3).control_address(), Ipv6Addr::from_bits(locator(2).control_address().to_bits() + 1)]
    {
        assert_eq!(Ears::new().hear_from(from, &good), Outcome::NotARouter);
    }
}

#[test]
fn locators_may_be_held_to_prefixes() {
    for (prefix, length, fits) in
        [("2001:db8::", 48, true), ("2001:db8:0:3::", 64, true), ("2001:db8:0:4::", 62, false)]
    {
        let mut ears = Ears::new();
        ears.policy.locators = vec![("2001:db9::".parse().unwrap(), 32), (prefix.parse().unwrap(), length)];
        let expected = if fits { Outcome::Learned } else { Outcome::BadLocator };
        assert_eq!(ears.hear(&message()), expected, "{prefix}/{length}");
    }
}

#[test]
fn a_replayed_message_changes_nothing() {
    let mut ears = Ears::new();
    let (first, second) = (message(), Message { sequence: 1001, epoch: 5, locator: locator(2), ..message() });
    assert_eq!((ears.hear(&first), ears.hear(&second)), (Outcome::Learned, Outcome::Moved));
    assert_eq!((ears.hear(&first), ears.hear(&second)), (Outcome::Replayed, Outcome::Replayed));
    assert_eq!(ears.believes(), Some(locator(2)));
    // Once the mapping has ended, and the window is forgotten, its age refuses it.
    ears.nve.sweep(NOW + MINUTE);
    ears.at = At { now: NOW + MINUTE, unix: UNIX + MINUTE };
    assert_eq!((ears.hear(&first), ears.believes()), (Outcome::Stale, None));
    // And a listener that has just started remembers nothing, and hears nothing that is older than itself.
    ears.at = AT;
    ears.listener = Listener::new(Arc::clone(&ears.nve), UNIX + Duration::from_micros(1));
    assert_eq!(ears.hear(&first), Outcome::Stale);
}

#[test]
fn messages_that_overtake_each_other_are_all_heard() {
    let mut ears = Ears::new();
    for (sequence, last) in [(1003, 3), (1001, 9), (1002, 8)] {
        let message = Message { sequence, identifier: blue(last), ..message() };
        assert!(matches!(ears.hear(&message), Outcome::Learned), "{sequence}");
    }
}

#[test]
fn an_old_epoch_is_refused_and_an_equal_one_renews() {
    let mut ears = Ears::new();
    let mut say =
        |epoch, host, sequence| ears.hear(&Message { epoch, locator: locator(host), sequence, ..message() });
    assert_eq!(say(4, 3, 1), Outcome::Learned);
    assert_eq!(say(3, 2, 2), Outcome::OldEpoch);
    assert_eq!(say(4, 2, 3), Outcome::OldEpoch);
    assert_eq!(say(4, 3, 4), Outcome::Renewed);
    assert_eq!(say(5, 2, 5), Outcome::Moved);
}

/// Else whoever has a key could say the last word about an identifier that there ever is.
#[test]
fn an_epoch_of_a_day_to_come_is_refused_so_that_the_next_move_is_heard() {
    let mut ears = Ears::new();
    let latest = u64::try_from((UNIX + EPOCH_AHEAD).as_millis()).unwrap();
    for (sequence, epoch) in [(1, u64::MAX), (2, latest + 1)] {
        let outcome = ears.hear(&Message { epoch, sequence, ..message() });
        assert_eq!((outcome, ears.believes()), (Outcome::FutureEpoch, None), "{epoch}");
    }
    // Nor of what is here, by the word of the host that says it has it.
    let (sender, identifier) = (locator(3), blue(1));
    let taken = Message { sender, identifier, epoch: latest + 1, ..message() };
    let hear = |ears: &mut Ears, message: Message| {
        ears.hear_from(sender.control_address(), &message.seal(&key(1, &SECRET)))
    };
    assert_eq!(hear(&mut ears, taken), Outcome::FutureEpoch);
    let moved = Message { epoch: latest, sequence: 1001, ..taken };
    assert_eq!(hear(&mut ears, moved), Outcome::Learned, "control");
    assert_eq!(ears.hear(&Message { epoch: latest, sequence: 3, ..message() }), Outcome::Learned, "control");
}

#[test]
fn a_router_names_a_hundred_unknown_hosts_at_once_and_then_ten_a_second() {
    let mut ears = Ears::new();
    let name = |ears: &mut Ears, n: u16, host: u16| {
        let time = ears.at.unix;
        let sequence = 1000 + u64::from(n);
        ears.hear(&Message { sequence, epoch: sequence, time, locator: locator(host), ..message() })
    };
    let learned = (0..300).filter(|n| name(&mut ears, *n, 100 + n) != Outcome::RateLimited).count();
    assert_eq!(learned, 100);
    assert_eq!(name(&mut ears, 300, 3), Outcome::Moved, "a host that is known");
    let second = Duration::from_secs(1);
    ears.at = At { now: NOW + second, unix: UNIX + second };
    let learned = (301..400).filter(|n| name(&mut ears, *n, 1000 + n) == Outcome::Moved).count();
    assert_eq!(learned, 10);
}

#[test]
fn a_host_that_only_redirects_named_is_no_host_of_the_fabric_when_they_have_ended() {
    let mut ears = Ears::new();
    let knows = |ears: &Ears, host: u16| ears.nve.world().known_locator(locator(host).upper()).is_some();
    let say = |ears: &mut Ears, sequence, last, host| {
        ears.hear(&Message {
            sequence,
            epoch: sequence,
            identifier: blue(last),
            locator: locator(host),
            ..message()
        })
    };
    assert_eq!(say(&mut ears, 1, 9, 7), Outcome::Learned);
    assert_eq!(say(&mut ears, 2, 8, 7), Outcome::Learned);
    assert_eq!(say(&mut ears, 3, 9, 6), Outcome::Moved);
    assert_eq!(say(&mut ears, 4, 9, 3), Outcome::Moved);
    ears.nve.sweep(NOW);
    assert_eq!([3, 6, 7].map(|host| knows(&ears, host)), [true, false, true], "7 has 10.1.0.8 still");
    ears.nve.sweep(NOW + MINUTE);
    assert_eq!([3, 6, 7].map(|host| knows(&ears, host)), [true, false, false], "the configuration names 3");
    // Known again, it has the number it had.
    assert_eq!(say(&mut ears, 5, 9, 7), Outcome::Learned);
    assert_eq!((ears.believes(), knows(&ears, 7)), (Some(locator(7)), true));
}

/// Only whoever can send from a router's address takes of what all together have.
#[test]
fn datagrams_from_elsewhere_take_nothing_of_the_named_routers_allowance() {
    for (named, expected) in [(vec![locator(2)], Outcome::Learned), (Vec::new(), Outcome::RateLimited)] {
        let mut ears = Ears::new();
        ears.policy.routers = named;
        let forged = message().seal(&key(1, &[9; 32]));
        let elsewhere = locator(4).control_address();
        assert!((0..2001).all(|_| ears.hear_from(elsewhere, &forged) != Outcome::Learned));
        assert_eq!(ears.hear(&message()), expected);
    }
}

#[test]
fn one_key_takes_anothers_place_while_both_are_known() {
    let (old, new) = (key(1, &SECRET), key(2, b"another secret, of 32 bytes too."));
    let mut ears = Ears::new();
    let sealed = |key: &Key, sequence| Message { sequence, ..message() }.seal(key);
    ears.policy.keys = Keys::new(vec![old.clone(), new.clone()]);
    assert_eq!(ears.hear_bytes(&sealed(&old, 1)), Outcome::Learned);
    assert_eq!(ears.hear_bytes(&sealed(&new, 2)), Outcome::Renewed);
    ears.policy.keys = Keys::new(vec![new.clone()]);
    assert_eq!(ears.hear_bytes(&sealed(&old, 3)), Outcome::UnknownKey);
    assert_eq!(ears.hear_bytes(&sealed(&new, 4)), Outcome::Renewed);
}

#[test]
fn a_secret_shorter_than_its_hash_is_refused_and_none_is_printed() {
    assert_eq!(Key::new(KeyId(1), &[1; 31]).err(), Some(KeyTooShort(31)));
    let keys = Keys::new(vec![key(9, b"Tinker Tailor Soldier Sailor Spy")]);
    let printed = format!("{keys:?}");
    assert!(printed.contains('9') && !printed.contains("Tinker") && !printed.contains("84"), "{printed}");
}

#[test]
fn a_flood_of_one_router_leaves_the_others_heard() {
    let mut ears = Ears::new();
    let flood = (0..1500).map(|n| ears.hear(&Message { sequence: 1 + n, ..message() }));
    let limited = flood.filter(|outcome| *outcome == Outcome::RateLimited).count();
    assert_eq!(limited, 500);
    let other = Message { sender: locator(3), identifier: blue(8), ..message() };
    let heard = ears.hear_from(locator(3).control_address(), &other.seal(&key(1, &SECRET)));
    assert_eq!(heard, Outcome::Learned);
    // And whatever comes, so many are looked at.
    let forged = other.seal(&key(1, &[9; 32]));
    let looked_at = (0..5000).filter(|_| ears.hear_bytes(&forged) == Outcome::BadMac).count();
    assert_eq!(looked_at, 2000 - 1501);
}

#[test]
fn more_routers_than_are_remembered_are_refused_until_the_first_are_stale() {
    let mut ears = Ears::new();
    let from = |ears: &mut Ears, n: u16| {
        let sender = Locator::new(Ipv6Addr::new(0x2001, 0xdb8, 7, n, 0, 0, 0, 0)).unwrap();
        let message = Message { sender, time: ears.at.unix, ..message() };
        ears.hear_from(sender.control_address(), &message.seal(&key(1, &SECRET)))
    };
    assert!((0..1024).all(|n| matches!(from(&mut ears, n), Outcome::Learned | Outcome::Renewed)));
    assert_eq!(from(&mut ears, 2000), Outcome::Full);
    assert_eq!(from(&mut ears, 5), Outcome::Replayed, "who is known is not forgotten");
    ears.at = At { now: NOW + MINUTE, unix: UNIX + MINUTE };
    assert_eq!(from(&mut ears, 2000), Outcome::Renewed);
}

fn teller() -> (Arc<Nve>, Teller) {
    let nve = nve();
    let teller = Teller::new(Arc::clone(&nve), UNIX);
    (nve, teller)
}

/// As if hv1 had passed on a packet of vm2 to vm3.
const TRIANGLE: (u8, u8) = (2, 3);

fn triangle((source, destination): (u8, u8)) -> Triangle {
    Triangle { source: keyed(source), destination: keyed(destination) }
}

#[test]
fn the_host_of_the_source_is_told_where_the_destination_lives() {
    let (_, mut teller) = teller();
    let datagram = teller.tell(&policy(), AT, triangle(TRIANGLE)).unwrap();
    assert_eq!(datagram.to, locator(2).control_address());
    let message =
        Sealed::read(&datagram.bytes).and_then(|sealed| sealed.open(&policy().keys)?.message()).unwrap();
    let expected = Message {
        sender: locator(1),
        recipient: locator(2),
        identifier: blue(3),
        locator: locator(3),
        epoch: 0,
        sequence: message.sequence,
        lifetime: Duration::from_secs(300),
        ..self::message()
    };
    assert_eq!(message, expected);
}

#[test]
fn nobody_is_told_of_what_is_here_unknown_or_their_own() {
    let (_, mut teller) = teller();
    let mut tell = |policy: &Policy, pair| teller.tell(policy, AT, triangle(pair)).map(|_| ());
    assert_eq!(tell(&Policy { send: false, ..policy() }, TRIANGLE), Err(Outcome::Off));
    assert_eq!(tell(&policy(), (1, 3)), Err(Outcome::UnknownSource));
    assert_eq!(tell(&policy(), (77, 3)), Err(Outcome::UnknownSource));
    assert_eq!(tell(&policy(), (2, 1)), Err(Outcome::UnknownDestination));
    assert_eq!(tell(&policy(), (2, 77)), Err(Outcome::UnknownDestination));
    assert_eq!(tell(&policy(), (2, 2)), Err(Outcome::UnknownDestination));
    assert_eq!(tell(&Policy { keys: Keys::default(), ..policy() }, TRIANGLE), Err(Outcome::UnknownKey));
}

#[test]
fn a_host_that_does_not_listen_is_told_ever_more_seldom_but_of_a_move_at_once() {
    let (nve, mut teller) = teller();
    let mut at = |second: u64| {
        let since = Duration::from_secs(second);
        teller.tell(&policy(), At { now: NOW + since, unix: UNIX + since }, triangle(TRIANGLE)).is_ok()
    };
    let told: Vec<u64> = (0..300).filter(|second| at(*second)).collect();
    assert_eq!(told, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
    assert!(!at(300));
    let moved = crate::pipeline::Learned { source: Source::Registered, epoch: 1, since: NOW, until: None };
    nve.learn(keyed(3), locator(7), moved).unwrap();
    assert!(at(300));
}

#[test]
fn one_host_is_not_told_more_than_its_share() {
    let (nve, mut teller) = teller();
    let each = |n: u16| {
        let identifier =
            Identifier::ipv4(Vnid::new(1001).unwrap(), [10, 1, 7 + (n >> 8) as u8, n as u8].into());
        crate::addr::Key::first(identifier)
    };
    let registered =
        crate::pipeline::Learned { source: Source::Registered, epoch: 1, since: NOW, until: None };
    (0..600).for_each(|n| assert!(nve.learn(each(n), locator(3), registered).is_ok()));
    let mut tell =
        |source, destination| teller.tell(&policy(), AT, Triangle { source, destination }).map(|_| ());
    let told = (0..600).filter(|n| tell(keyed(2), each(*n)).is_ok()).count();
    assert_eq!(told, 500);
    assert_eq!(tell(keyed(3), keyed(2)), Ok(()), "another is");
}

proptest! {
    /// Any bytes are refused, in any place of a message under a good MAC, too.
    #[test]
    fn any_bytes_are_refused_or_a_message(mut bytes in proptest::array::uniform32(any::<u8>()), at in 8_usize..49, reseal: bool) {
        let mut message = message().seal(&key(1, &SECRET));
        message[at..at + 32].copy_from_slice(&bytes);
        if reseal {
            let mac = key(1, &SECRET).sign(&message[..80]);
            message[80..].copy_from_slice(&mac);
        }
        let mut ears = Ears::new();
        let outcome = ears.hear_bytes(&message);
        prop_assert!(reseal || outcome == Outcome::BadMac);
        prop_assert!(ears.nve.residence(keyed(1)).unwrap().here);
        bytes.reverse();
        let _ = ears.hear_bytes(&bytes);
    }
}
