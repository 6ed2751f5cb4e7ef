//! What one packet wakes, and in which order: a ping is as fast as its wake-ups.

use std::fs::File;

use epoll::{ControlOptions, Event, Events};

use super::stepped::{Port, Stepped, count, frame};
use super::*;

/// Turns after which an uplink was looked at and had nothing.
const SETTLE: usize = 20;

fn lab() -> (Stepped, [Port; 2]) {
    let mut stepped = Stepped::new(nve(2));
    let guests = [1, 2].map(|n| stepped.attach(n, 1));
    for _ in 0..SETTLE {
        stepped.worker.turn();
    }
    (stepped, guests)
}

/// One frame from vm1 to vm2.
fn send(guest: &mut Port) {
    let Port { ram, pairs } = guest;
    pairs[0].send(ram, &frame(1, "10.1.0.2", 98), 1);
}

/// Makes it readable.
fn ring(mut event: &File) {
    event.write_all(&1_u64.to_ne_bytes()).unwrap();
}

/// What of these is signalled by `act`, by their places, in that order: an epoll set lists what became ready as it became ready.
fn signalled(events: [&File; 2], act: impl FnOnce()) -> Vec<u64> {
    let set = epoll::create(true).unwrap();
    for (place, event) in (0..).zip(events) {
        let edges = Event::new(Events::EPOLLIN | Events::EPOLLET, place);
        epoll::ctl(set, ControlOptions::EPOLL_CTL_ADD, event.as_raw_fd(), edges).unwrap();
    }
    act();
    let mut ready = [Event::new(Events::empty(), 0); 8];
    let count = epoll::wait(set, 0, &mut ready).unwrap();
    epoll::close(set).unwrap();
    ready[..count].iter().map(|event| event.data).collect()
}

#[test]
fn a_guest_hears_of_its_frame_before_the_sender_hears_that_it_went() {
    for watched_first in [0, 1] {
        let (mut stepped, [mut first, second]) = lab();
        let [went, came] = [(&first, 1), (&second, 0)].map(|(guest, role)| &guest.pairs[0].calls[role]);
        let events = [went, came].map(|event| event.try_clone().unwrap());
        send(&mut first);
        let order = signalled([&events[watched_first], &events[1 - watched_first]], || {
            stepped.worker.turn();
        });
        let wanted = [1 - watched_first, watched_first];
        assert_eq!(order, wanted.map(|place| place as u64), "first what vm2 hears");
    }
}

#[test]
fn guests_hear_of_their_frames_before_the_uplink_is_looked_at() {
    let (mut stepped, [mut first, second]) = lab();
    let came = second.pairs[0].calls[0].try_clone().unwrap();
    stepped.fabric.wire().beside = Some((came, false));
    ring(&stepped.fabric.bell);
    stepped.worker.doze();
    send(&mut first);
    stepped.worker.turn();
    assert!(stepped.fabric.wire().beside.as_ref().is_some_and(|(_, was)| *was));
}

#[test]
fn a_kick_costs_no_look_at_an_uplink_that_has_nothing() {
    let (mut stepped, [mut first, mut second]) = lab();
    for by_the_fabric in [false, true, false] {
        let Stepped { worker, fabric, .. } = &mut stepped;
        let looks = fabric.wire().looks;
        ring(if by_the_fabric { &fabric.bell } else { &first.pairs[0].kick });
        worker.doze();
        count(&fabric.bell);
        send(&mut first);
        worker.turn();
        assert_eq!(fabric.wire().looks - looks, usize::from(by_the_fabric));
    }
    let Port { ram, pairs } = &mut second;
    assert_eq!(pairs[0].receive(ram), 3);
}
