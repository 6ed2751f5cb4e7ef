//! Learned mappings: who wins, when they end, and what they cannot do.

use core::time::Duration;

use super::super::Presence;
use super::super::tests::{Lab, Out, addr, ila_of, locator, setup, sir, udp, v6, vnet, vnid};
use super::*;
use crate::DropReason;
use crate::addr::ChecksumMode::{self, Neutral as N};
use crate::addr::Identifier;
use crate::setup::{BulkReader, Mapping, Setup};

const NOW: Duration = Duration::from_secs(10);

/// An address of blue that nobody has.
const STRAY: &str = "10.1.0.9";

fn key(address: &str) -> Key {
    Key::first(match addr(address) {
        core::net::IpAddr::V4(address) => Identifier::ipv4(vnid("blue"), address),
        core::net::IpAddr::V6(address) => {
            Identifier::ipv6_address(vnid("blue"), vnet("blue"), address).unwrap()
        }
    })
}

fn redirect(epoch: u64) -> Learned {
    let until = Some(NOW + Duration::from_secs(300));
    Learned { source: Source::Redirect, epoch, since: NOW, until }
}

fn registered(epoch: u64) -> Learned {
    Learned { source: Source::Registered, until: None, ..redirect(epoch) }
}

/// Where vm1's packet to `address` goes.
fn goes_to(hv1: &mut Lab, address: &str) -> Out {
    let source = if address.contains(':') { "2001:db8:b1:e::1" } else { "10.1.0.1" };
    hv1.walker.begin(NOW);
    hv1.send("vm1", &udp(source, address, 9))
}

fn applied(hv1: &Lab, change: impl FnOnce(&mut Setup)) {
    let mut setup = setup(1, N);
    change(&mut setup);
    hv1.nve.apply(setup.check().unwrap()).unwrap();
}

fn line(hv1: &Lab, address: &str) -> Option<(Locator, Source, u64, Option<Duration>)> {
    let lines = hv1.nve.mappings();
    let line = lines.iter().find(|line| line.network == "blue" && line.address == addr(address))?;
    Some((line.locator, line.source, line.epoch, line.until))
}

#[test]
fn what_is_learned_is_used_at_once_and_until_it_ends() {
    for mode in [ChecksumMode::Neutral, ChecksumMode::Unmodified] {
        let mut hv1 = Lab::of(setup(1, mode));
        for address in [STRAY, "2001:db8:b1:e::9"] {
            assert_eq!(goes_to(&mut hv1, address).reason(), Some(DropReason::NoMapping));
            assert_eq!(hv1.nve.learn(key(address), locator(7), redirect(3)), Ok(Lesson::New));
            let there = goes_to(&mut hv1, address).ip().destination;
            match mode {
                ChecksumMode::Neutral => assert_eq!(there, ila_of(7, address)),
                ChecksumMode::Unmodified => {
                    assert_eq!(there, locator(7).unmodified(key(address).identifier()).ipv6());
                }
            }
            let until = redirect(3).until;
            assert_eq!(line(&hv1, address), Some((locator(7), Source::Redirect, 3, until)));
        }
        let end = redirect(3).until.unwrap();
        assert_eq!((hv1.nve.sweep_due(), hv1.nve.sweep(end - Duration::from_nanos(1))), (Some(end), 0));
        assert_eq!((hv1.nve.sweep(end), hv1.nve.sweep_due()), (2, None));
        assert_eq!(goes_to(&mut hv1, STRAY).reason(), Some(DropReason::NoMapping));
        assert_eq!(line(&hv1, STRAY), None);
    }
}

#[test]
fn the_higher_epoch_counts_whoever_says_it_and_an_equal_one_only_confirms() {
    let hv1 = Lab::new(1);
    let learn = |host: u8, learned| hv1.nve.learn(key(STRAY), locator(host), learned);
    let known = || line(&hv1, STRAY).unwrap();
    assert_eq!(learn(7, redirect(5)), Ok(Lesson::New));
    assert_eq!(learn(8, redirect(4)), Err(NotLearned::OldEpoch(5)));
    assert_eq!(learn(8, registered(4)), Err(NotLearned::OldEpoch(5)));
    assert_eq!(learn(8, redirect(5)), Err(NotLearned::OldEpoch(5)), "another host in the same epoch");
    assert_eq!(known(), (locator(7), Source::Redirect, 5, redirect(5).until));

    let shorter = Learned { until: Some(NOW + Duration::from_secs(1)), ..redirect(5) };
    let longer = Learned { until: Some(NOW + Duration::from_secs(999)), ..redirect(5) };
    assert_eq!(learn(7, shorter), Ok(Lesson::Renewed));
    assert_eq!(known().3, redirect(5).until, "never shorter");
    assert_eq!(learn(7, longer), Ok(Lesson::Renewed));
    assert_eq!(known().3, longer.until);
    assert_eq!(learn(7, registered(5)), Ok(Lesson::Renewed));
    assert_eq!(learn(7, redirect(5)), Ok(Lesson::Renewed));
    assert_eq!(
        known(),
        (locator(7), Source::Registered, 5, None),
        "a router that repeats it changes nothing"
    );
    assert_eq!(hv1.nve.sweep_due(), None);

    assert_eq!(learn(8, redirect(6)), Ok(Lesson::Moved));
    assert_eq!(known(), (locator(8), Source::Redirect, 6, redirect(6).until));
    assert!(hv1.nve.forget(key(STRAY)) && !hv1.nve.forget(key(STRAY)));
    assert_eq!((line(&hv1, STRAY), hv1.nve.sweep_due()), (None, None));
}

/// One redirect, even a replayed one, must not take what an authority said for longer than it lasts itself.
#[test]
fn what_is_registered_counts_again_when_a_redirect_that_stood_before_it_ends() {
    let mut hv1 = Lab::new(1);
    let learn = |hv1: &Lab, host: u8, learned| hv1.nve.learn(key(STRAY), locator(host), learned);
    let known = |hv1: &Lab| line(hv1, STRAY).map(|known| (known.0, known.1, known.2));
    let end = redirect(6).until.unwrap();
    learn(&hv1, 7, registered(5)).unwrap();
    assert_eq!(learn(&hv1, 8, redirect(6)), Ok(Lesson::Moved));
    // Another redirect upon the first, and a reload meanwhile.
    assert_eq!(learn(&hv1, 9, redirect(7)), Ok(Lesson::Moved));
    applied(&hv1, |_| ());
    assert_eq!(known(&hv1), Some((locator(9), Source::Redirect, 7)));
    assert_eq!(hv1.nve.sweep(end), 1);
    assert_eq!(known(&hv1), Some((locator(7), Source::Registered, 5)));
    assert_eq!(goes_to(&mut hv1, STRAY).ip().destination, ila_of(7, STRAY));
    assert_eq!((hv1.nve.sweep(end), hv1.nve.sweep_due()), (0, None));
    applied(&hv1, |_| ());
    assert_eq!(known(&hv1), Some((locator(7), Source::Registered, 5)));

    // A later word of the authority leaves nothing under it, and what is forgotten is forgotten wholly.
    learn(&hv1, 8, redirect(8)).unwrap();
    learn(&hv1, 9, registered(9)).unwrap();
    assert_eq!((hv1.nve.sweep(end), known(&hv1)), (0, Some((locator(9), Source::Registered, 9))));
    learn(&hv1, 8, redirect(10)).unwrap();
    assert!(hv1.nve.forget(key(STRAY)));
    assert_eq!((hv1.nve.sweep(end), known(&hv1)), (0, None));
    assert_eq!(goes_to(&mut hv1, STRAY).reason(), Some(DropReason::NoMapping));
}

#[test]
fn nothing_learned_takes_an_address_from_an_attachment_here() {
    let mut hv1 = Lab::new(1);
    let refused = hv1.nve.learn(key("10.1.0.3"), locator(7), registered(9));
    assert_eq!(refused, Err(NotLearned::Here));
    // Nor once it comes to be here.
    hv1.nve.learn(key(STRAY), locator(7), redirect(1)).unwrap();
    applied(&hv1, |setup| {
        setup.attachments[1].addresses.push(addr(STRAY));
        setup.attachments[0].prefixes.push("192.168.7.0/24".parse().unwrap());
        setup.attachments[0].shared.push(addr("10.1.0.100"));
    });
    assert!(matches!(goes_to(&mut hv1, STRAY), Out::Local(name, ..) if name == "vm3"));
    for here in ["192.168.7.1", "10.1.0.100"] {
        let refused = hv1.nve.learn(key(here), locator(7), redirect(1));
        assert_eq!(refused, Err(NotLearned::Here), "{here}");
    }
    applied(&hv1, |_| ());
    assert_eq!(line(&hv1, STRAY), None, "what was learned before is forgotten");
}

/// The rule of `docs/configuration.md`: the latest word counts.
#[test]
fn what_is_learned_stands_before_a_mapping_of_the_setup_until_it_ends_or_the_setup_changes_it() {
    let mut hv1 = Lab::new(1);
    let configured = ila_of(2, "10.1.0.2");
    assert_eq!(goes_to(&mut hv1, "10.1.0.2").ip().destination, configured);
    let learn = |hv1: &Lab, epoch| hv1.nve.learn(key("10.1.0.2"), locator(7), redirect(epoch));
    assert_eq!(learn(&hv1, 1), Ok(Lesson::New));
    assert_eq!(goes_to(&mut hv1, "10.1.0.2").ip().destination, ila_of(7, "10.1.0.2"));
    applied(&hv1, |_| ());
    assert_eq!(goes_to(&mut hv1, "10.1.0.2").ip().destination, ila_of(7, "10.1.0.2"), "a reload of the same");
    hv1.nve.sweep(NOW + Duration::from_secs(300));
    assert_eq!(goes_to(&mut hv1, "10.1.0.2").ip().destination, configured, "back to what is configured");

    assert_eq!(learn(&hv1, 1), Ok(Lesson::New));
    let to_hv3 = |setup: &mut Setup| {
        let moved = setup.mappings.iter_mut().find(|mapping| mapping.address == addr("10.1.0.2"));
        moved.unwrap().locator = locator(3);
    };
    applied(&hv1, to_hv3);
    assert_eq!(
        goes_to(&mut hv1, "10.1.0.2").ip().destination,
        ila_of(3, "10.1.0.2"),
        "the operator said so later"
    );
    assert_eq!(line(&hv1, "10.1.0.2"), Some((locator(3), Source::Setup, 0, None)));
}

#[test]
fn what_was_learned_survives_a_reload_in_the_new_checksum_mode_and_goes_with_its_network() {
    let mut hv1 = Lab::new(1);
    hv1.nve.learn(key(STRAY), locator(7), redirect(1)).unwrap();
    applied(&hv1, |setup| setup.host.checksum = ChecksumMode::Unmodified);
    let there = locator(7).unmodified(key(STRAY).identifier()).ipv6();
    assert_eq!(goes_to(&mut hv1, STRAY).ip().destination, there);
    let without_blue = |setup: &mut Setup| {
        setup.networks.retain(|network| network.name != "blue");
        setup.attachments.retain(|attachment| attachment.network != "blue");
        setup.mappings.retain(|mapping| mapping.network != "blue");
    };
    applied(&hv1, without_blue);
    assert_eq!(hv1.nve.table.get(key(STRAY)), None);
    assert_eq!(hv1.nve.sweep_due(), None);
}

#[test]
fn only_what_an_endpoint_could_have_is_learned_and_only_at_another_hosts_locator() {
    let hv1 = Lab::new(1);
    let blue = vnid("blue");
    let foreign = crate::addr::Vnid::new(77).unwrap();
    let nobodys = [
        Identifier::ipv4(foreign, [10, 1, 0, 9].into()),
        Identifier::ipv4(blue, [10, 1, 255, 254].into()),
        Identifier::ipv4(blue, [10, 1, 255, 255].into()),
        Identifier::ipv4(blue, [10, 2, 0, 9].into()),
        Identifier::ipv4(blue, [224, 0, 0, 251].into()),
        Identifier::ipv6(blue, 0),
        Identifier::ipv6(blue, 0xffff_fffe),
        Identifier::multicast(blue, v6("ff05::7")).unwrap(),
    ];
    for nobody in nobodys.map(Key::first) {
        let refused = hv1.nve.learn(nobody, locator(7), redirect(1));
        assert_eq!(refused, Err(NotLearned::NoEndpoint), "{nobody:?}");
    }
    let prefix = |text: &str| Locator::new(v6(text)).unwrap();
    for wrong in [locator(1), prefix(&sir().prefix().to_string()), prefix("2001:db8:b1:e::")] {
        let refused = hv1.nve.learn(key(STRAY), wrong, redirect(1));
        assert_eq!(refused, Err(NotLearned::Locator), "{wrong}");
    }
    let task = Key::first(Identifier::local(0x1234).unwrap());
    assert_eq!(hv1.nve.learn(task, locator(7), redirect(1)), Ok(Lesson::New), "control: a task's");
    assert_eq!(hv1.nve.residence(task), Some(Residence { locator: locator(7), epoch: 1, here: false }));
}

#[test]
fn redirects_fill_a_part_of_the_table_and_push_out_nothing() {
    let hv1 = Lab::new(1);
    let before = hv1.nve.mappings().len();
    let each =
        |n: u32| Key::first(Identifier::ipv4(vnid("blue"), core::net::Ipv4Addr::from_bits(0x0a01_2000 + n)));
    let learn = |n, learned| hv1.nve.learn(each(n), locator(7), learned);
    let fitted = (0..1000).take_while(|n| learn(*n, redirect(1)).is_ok()).count();
    assert_eq!(fitted, hv1.nve.table.capacity() / 4);
    assert_eq!(learn(0, redirect(1)), Ok(Lesson::Renewed), "what is known is renewed all the same");
    assert_eq!(hv1.nve.mappings().len(), before + fitted);
    // The setup's own need their room first, an authority's next.
    let room = hv1.nve.table.capacity() - before - fitted;
    assert!((0..room as u32).all(|n| learn(2000 + n, registered(1)).is_ok()));
    assert_eq!(learn(5000, registered(1)), Err(NotLearned::Full));
    applied(&hv1, |setup| {
        let model = setup.mappings[0].clone();
        let further =
            (0..fitted as u8).map(|n| Mapping { address: [10, 1, 9, n + 1].into(), ..model.clone() });
        setup.mappings.extend(further);
    });
    let lines = hv1.nve.mappings();
    let of = |source| lines.iter().filter(|line| line.source == source).count();
    assert_eq!((of(Source::Setup), of(Source::Registered), of(Source::Redirect)), (before + fitted, room, 0));
}

#[test]
fn a_sweep_does_a_bounded_part_of_the_work() {
    let nve = Nve::new(setup(1, N).check().unwrap(), 4000);
    let each =
        |n: u32| Key::first(Identifier::ipv4(vnid("blue"), core::net::Ipv4Addr::from_bits(0x0a01_2000 + n)));
    assert!((0..600).all(|n| nve.learn(each(n), locator(7), redirect(1)).is_ok()));
    let end = NOW + Duration::from_secs(300);
    assert_eq!([(); 4].map(|()| nve.sweep(end)), [256, 256, 88, 0]);
}

/// As many as may be learned at all, in a list. That each is looked up once and not among all others shows in the time.
#[test]
fn hosts_of_the_setup_leave_room_for_those_that_are_learned() {
    let number =
        |n: usize| Locator::new(core::net::Ipv6Addr::from_bits((0x2001_0db8_0001_0000 + n as u128) << 64));
    let mut setup = setup(1, N);
    let mut reader = BulkReader::new(&setup, MOST_LEARNED_HOSTS).unwrap();
    for n in 0..MOST_LEARNED_HOSTS {
        let address = vnet("blue").address(0x10_0000 + n as u32);
        reader.add("blue", address.into(), number(n).unwrap()).unwrap();
    }
    setup.bulk = reader.finish().unwrap();
    let nve = Nve::new(setup.check().unwrap(), MOST_LEARNED_HOSTS + 100);
    assert_eq!(nve.learn(key(STRAY), locator(7), redirect(1)), Ok(Lesson::New));
    // They do not get more room by that.
    nve.registry.lock().unwrap().learned_hosts = MOST_LEARNED_HOSTS;
    assert_eq!(nve.learn(key("10.1.0.8"), locator(8), redirect(1)), Err(NotLearned::Full));
    assert_eq!(
        nve.learn(key("10.1.0.8"), locator(7), redirect(1)),
        Ok(Lesson::New),
        "a host that has a number"
    );
}

/// A locator that has addresses of the outside in it would make their hosts some of the fabric's.
#[test]
fn no_host_lives_among_the_addresses_of_a_nat64() {
    let prefix = |address: &str| Locator::new(v6(address)).unwrap();
    for (nat64, length, inside) in [
        ("2001:db8:64::", 96, "2001:db8:64::"),
        ("2001:db8:64::", 48, "2001:db8:64:5::"),
        ("2001:db8:64::", 64, "2001:db8:64::"),
    ] {
        let hv1 = Lab::new(1);
        let learn = |epoch| hv1.nve.learn(key(STRAY), prefix(inside), redirect(epoch));
        assert_eq!(learn(1), Ok(Lesson::New), "control: there is no NAT64");
        applied(&hv1, |setup| {
            setup.networks[0].nat64 = ipv4_xlat::address::rfc6052::Prefix::new(v6(nat64), length).ok();
        });
        assert_eq!(line(&hv1, STRAY), None, "forgotten: {nat64}/{length}");
        assert_eq!(learn(2), Err(NotLearned::Locator), "{nat64}/{length}");
        let beside = hv1.nve.learn(key(STRAY), prefix("2001:db8:65::"), redirect(3));
        assert_eq!(beside, Ok(Lesson::New), "control");
    }
}

#[test]
fn a_guest_that_has_gone_has_gone_with_all_its_addresses_or_none() {
    let hv1 = Lab::of(setup(1, N));
    applied(&hv1, |setup| {
        // Its router's own address is behind the router, too.
        setup.attachments[0].addresses.push(addr("10.1.5.1"));
        setup.attachments[0].prefixes.push("10.1.5.0/24".parse().unwrap());
    });
    let before = hv1.nve.mappings();
    let vm1 = hv1.port("vm1");
    assert_eq!(hv1.nve.keys(vm1).len(), 3);
    assert_eq!(hv1.nve.gone(vm1, locator(7), registered(3)), Err(NotLearned::Here));
    assert_eq!((hv1.nve.mappings(), hv1.nve.presence(vm1)), (before, Presence::Here));

    applied(&hv1, |setup| setup.attachments[0].addresses.push(addr("10.1.5.1")));
    assert_eq!(hv1.nve.gone(vm1, locator(7), registered(3)), Ok(true));
    for address in ["10.1.0.1", "10.1.5.1", "2001:db8:b1:e::1"] {
        assert_eq!(line(&hv1, address), Some((locator(7), Source::Registered, 3, None)), "{address}");
    }
    assert_eq!(hv1.nve.gone(vm1, locator(8), registered(9)), Ok(false), "nothing of it is here");
}
