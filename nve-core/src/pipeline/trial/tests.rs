//! Setups that are taken back: nothing that they displaced is lost, and nothing that came meanwhile is.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;

use super::super::tests::{Lab, addr, locator, setup, udp, vnid};
use super::super::{Learned, MappingLine, Presence, Source};
use crate::addr::ChecksumMode::Neutral;
use crate::addr::{Identifier, Key};
use crate::punt::{Desks, Outbox};
use crate::setup::{Mapping, Setup};
use crate::tables::Target;

const NOW: Duration = Duration::from_secs(10);
const ALL: [&str; 3] = ["vm1", "vm3", "red1"];

fn key(address: &str) -> Key {
    let IpAddr::V4(address) = addr(address) else { panic!("IPv4 only") };
    Key::first(Identifier::ipv4(vnid("blue"), address))
}

fn learned(source: Source) -> Learned {
    Learned { source, epoch: 5, since: NOW, until: None }
}

/// hv1, whose attachment vm3 is on standby and waits; `change`d.
fn waiting(change: impl FnOnce(&mut Setup)) -> Setup {
    let mut setup = setup(1, Neutral);
    setup.moves.standby.insert("vm3".into());
    change(&mut setup);
    setup
}

/// What an operator sees of it.
fn seen(lab: &Lab) -> (Vec<MappingLine>, Vec<Option<Presence>>, Vec<Key>) {
    let presence = |name: &str| lab.nve.port(name).map(|port| lab.nve.presence(port));
    let mut departing: Vec<_> = lab.nve.departures.all().keys().copied().collect();
    departing.sort_unstable();
    (lab.nve.mappings(), ALL.map(presence).to_vec(), departing)
}

#[test]
fn lessons_and_who_waits_survive_a_setup_that_had_no_place_for_them() {
    let lab = Lab::of(waiting(|_| {}));
    let vm1 = lab.port("vm1");
    assert_eq!(lab.nve.gone(vm1, locator(7), learned(Source::Registered)), Ok(true));
    lab.nve.learn(key("10.1.0.9"), locator(8), learned(Source::Redirect)).unwrap();
    lab.nve.learn(key("10.1.0.8"), locator(8), learned(Source::Registered)).unwrap();
    let before = seen(&lab);

    let refused = waiting(|setup| {
        setup.attachments.retain(|attachment| attachment.name != "vm1");
        setup.moves.standby.clear();
        for address in ["10.1.0.8", "10.1.0.9"] {
            setup.mappings.push(Mapping { address: addr(address), ..setup.mappings[0].clone() });
        }
    });
    let trial = lab.nve.try_out(refused.check().unwrap()).unwrap();
    assert_eq!(lab.nve.port("vm1"), None, "it is in force");
    assert_eq!(lab.nve.presence(lab.port("vm3")), Presence::Here, "it is in force");
    trial.take_back(&waiting(|_| {}).check().unwrap()).unwrap();

    assert_eq!(seen(&lab), before);
    assert_eq!(lab.nve.arrivals(1), [], "nobody is told of a guest that has not come");
    // The same again changes nothing, and what is learned goes on from there.
    lab.nve.apply(waiting(|_| {}).check().unwrap()).unwrap();
    assert_eq!(seen(&lab), before);
    assert!(lab.nve.forget(key("10.1.0.8")));
    assert!(lab.nve.activate(vm1));
}

#[test]
fn a_setup_that_is_kept_displaces_what_it_says_otherwise() {
    let lab = Lab::of(waiting(|_| {}));
    lab.nve.learn(key("10.1.0.9"), locator(8), learned(Source::Redirect)).unwrap();
    let kept = waiting(|setup| {
        setup.moves.standby.clear();
        setup.mappings.push(Mapping { address: addr("10.1.0.9"), ..setup.mappings[0].clone() });
    });
    lab.nve.try_out(kept.check().unwrap()).unwrap().keep();
    let line = lab.nve.mappings().into_iter().find(|line| line.address == addr("10.1.0.9"));
    assert_eq!(line.map(|line| (line.locator, line.source)), Some((locator(2), Source::Setup)));
    assert_eq!(lab.nve.arrivals(1).len(), 1, "vm3's guest is here: the operator said so");
}

#[test]
fn a_guest_that_comes_during_a_trial_is_here_whatever_becomes_of_it() {
    let lab = Lab::of(waiting(|_| {}));
    let vm3 = lab.port("vm3");
    let local = |lab: &Lab| lab.nve.table.get(key("10.1.0.3")) == Some(Target::Local(vm3));
    let trial = lab.nve.try_out(waiting(|_| {}).check().unwrap()).unwrap();
    lab.nve.started(vm3, true);
    trial.take_back(&waiting(|_| {}).check().unwrap()).unwrap();
    assert_eq!((lab.nve.presence(vm3), local(&lab)), (Presence::Here, true));
    assert_eq!(lab.nve.arrivals(1).len(), 1);

    // One that was here, and that the trial alone put on standby, is here, even if its rings started anew.
    let vm1 = lab.port("vm1");
    let also = waiting(|setup| setup.moves.standby.extend(["vm1".to_owned()]));
    let trial = lab.nve.try_out(also.check().unwrap()).unwrap();
    lab.nve.started(vm1, false);
    assert_eq!(lab.nve.presence(vm1), Presence::Armed);
    trial.take_back(&waiting(|_| {}).check().unwrap()).unwrap();
    assert_eq!(lab.nve.presence(vm1), Presence::Here);
    assert_eq!(lab.nve.table.get(key("10.1.0.1")), Some(Target::Local(vm1)));
}

/// Another thread takes the list of who has arrived the moment it is rung for.
#[test]
fn nobody_hears_of_a_guest_that_came_by_a_setup_that_is_taken_back() {
    let heard_of = |kept: bool| {
        let lab = Lab::of(waiting(|_| {}));
        let (ring, rung) = mpsc::channel();
        lab.nve.on_arrival(move || ring.send(()).unwrap_or_default());
        let nve = Arc::clone(&lab.nve);
        let listener = thread::spawn(move || {
            rung.recv_timeout(Duration::from_secs(10)).unwrap();
            nve.arrivals(1).len()
        });
        let trial = lab.nve.try_out(waiting(|setup| setup.moves.standby.clear()).check().unwrap()).unwrap();
        // Long enough for the other to be there.
        thread::sleep(Duration::from_millis(100));
        match kept {
            true => trial.keep(),
            false => trial.take_back(&waiting(|_| {}).check().unwrap()).unwrap(),
        }
        listener.join().unwrap()
    };
    assert_eq!(heard_of(false), 0);
    assert_eq!(heard_of(true), 1, "control: it is rung for");
}

/// Making devices takes its time, and guests ask for names and addresses meanwhile.
#[test]
fn the_slow_path_does_not_wait_for_a_trial() {
    let lab = Lab::of(waiting(|_| {}));
    let lesson = Learned { until: Some(NOW), ..learned(Source::Redirect) };
    lab.nve.learn(key("10.1.0.9"), locator(8), lesson).unwrap();
    let trial = lab.nve.try_out(waiting(|_| {}).check().unwrap()).unwrap();
    let (nve, (done, is_done)) = (Arc::clone(&lab.nve), mpsc::channel());
    let slow = thread::spawn(move || {
        let mut desks = Desks::new(nve, 1, Box::new(|| 1));
        desks.tick(NOW, &mut Outbox::default());
        done.send(desks.until_tick(NOW)).unwrap();
        desks
    });
    let until = is_done.recv_timeout(Duration::from_secs(10)).expect("it waits");
    assert!(until.is_some_and(|until| until <= Duration::from_secs(1)), "and looks again soon");
    assert!(lab.nve.table.get(key("10.1.0.9")).is_some(), "what has ended ends after the trial");
    trial.keep();
    slow.join().unwrap().tick(NOW, &mut Outbox::default());
    assert_eq!(lab.nve.table.get(key("10.1.0.9")), None);
}

#[test]
fn the_holder_of_a_shared_address_is_its_holder_again() {
    let shared = addr("10.1.0.100");
    let by = |names: &[&str]| {
        let mut setup = setup(1, Neutral);
        let lists = setup.attachments.iter_mut().filter(|attachment| names.contains(&&*attachment.name));
        lists.for_each(|attachment| attachment.shared.push(shared));
        setup.check().unwrap()
    };
    let holder = |lab: &Lab| lab.nve.holder("blue", shared).map(|(name, _)| name);
    for listed in [&["vm3"][..], &[]] {
        let mut lab = Lab::of(by(&["vm1", "vm3"]).setup().clone());
        lab.send("vm1", &udp("10.1.0.100", "10.1.0.2", 9));
        assert_eq!(holder(&lab).as_deref(), Some("vm1"));
        let trial = lab.nve.try_out(by(listed)).unwrap();
        assert_eq!(holder(&lab), None, "vm1 is not listed");
        trial.take_back(&by(&["vm1", "vm3"])).unwrap();
        assert_eq!(holder(&lab).as_deref(), Some("vm1"));
    }
    // Who claims it during the trial has claimed it.
    let mut lab = Lab::of(by(&["vm1", "vm3"]).setup().clone());
    lab.send("vm1", &udp("10.1.0.100", "10.1.0.2", 9));
    let nve = Arc::clone(&lab.nve);
    let trial = nve.try_out(by(&["vm3"])).unwrap();
    lab.walker.begin(NOW);
    lab.send("vm3", &udp("10.1.0.100", "10.1.0.2", 9));
    trial.take_back(&by(&["vm1", "vm3"])).unwrap();
    assert_eq!(holder(&lab).as_deref(), Some("vm3"));
}
