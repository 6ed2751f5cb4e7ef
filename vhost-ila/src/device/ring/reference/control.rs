//! A guest's control queue: the same commands, obeyed or refused, and a byte of answer to each where the guest asked for it.

use std::sync::Arc;

use virtio_queue::QueueT;

use super::pair::{Kind, Pair, Step};
use crate::device::control_queue::{ControlQueue, Powers};
use crate::device::features::Offer;
use crate::device::guest::Script;
use crate::device::handover::Events;
use crate::device::ring::{ControlRing, RingFault};
use crate::device::status::Status;

/// Commands that are served in one turn.
const TURN: usize = 16;

/// Runs a guest's control queue.
///
/// # Panics
/// Where the two differ: that is its purpose.
pub fn control(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let choice = script.byte();
    let mut pair = Pair::new(&mut script, Kind::Control);
    let mut queue = ControlQueue {
        ring: start(&pair),
        events: Events { kick: None, call: None, error: None },
        powers: Powers { pairs: 1 + choice % 4, multiqueue: choice & 16 != 0, announce: choice & 32 != 0 },
        pairs: 1,
        fault: None,
        status: Arc::new(Status::new(Offer::default())),
    };
    while script.left() > 0 {
        match pair.step(&mut script) {
            Step::Driven | Step::Written => {}
            Step::Restart => {
                pair.restarted();
                queue.ring = start(&pair);
            }
            Step::Rest => rest(&mut pair, &mut queue.ring),
            step @ (Step::Serve | Step::Flow) => {
                if step == Step::Flow {
                    pair.refill(script.byte());
                }
                if serve(&mut pair, &mut queue).is_err() {
                    pair.set_up_again();
                    queue.ring = start(&pair);
                }
            }
        }
    }
}

fn start(pair: &Pair) -> ControlRing {
    ControlRing::new(&pair.spec()).expect("a good ring")
}

fn rest(pair: &mut Pair, ring: &mut ControlRing) {
    pair.watch();
    let theirs = pair.want_kicks();
    match ring.want_kicks() {
        Ok(ours) => assert!(ours == theirs && !pair.has_jumped(), "work before sleep"),
        // The crate compares for inequality only.
        Err(fault) => assert!(fault == RingFault::AvailableIndex && pair.has_jumped(), "{fault}"),
    }
    pair.must_be_logged();
    pair.compare_memory();
}

/// One turn. The other side takes one command after the other: an answer may lie in the next.
fn serve(pair: &mut Pair, queue: &mut ControlQueue) -> Result<(), RingFault> {
    pair.watch();
    let mut pairs = queue.pairs;
    let (served, ours) = queue.serve();
    let mut done = 0;
    let fault = loop {
        if done == TURN {
            break None;
        }
        if !pair.look((1, usize::MAX)) {
            break Some(RingFault::AvailableIndex);
        }
        if pair.found.chains.is_empty() || pair.found.fault().is_some() {
            break pair.found.fault();
        }
        answer(pair, queue.powers, &mut pairs);
        done += 1;
    };
    assert_eq!((served, ours.err(), queue.pairs), (done, fault, pairs), "commands, fault, pairs");
    let wanted = queue.ring.publish();
    pair.must_be_logged();
    pair.compare_signal(served, wanted);
    assert_eq!(queue.ring.base(), u32::from(pair.queue.next_avail()));
    pair.compare_memory();
    ours
}

/// Does what the one command found says.
fn answer(pair: &mut Pair, powers: Powers, pairs: &mut u8) {
    let (read, written) = pair.found.buffers(0);
    let mut command = Vec::new();
    for (gpa, len) in read {
        // More than any command has; the rest is not looked at.
        let len = (*len as usize).min(64 - command.len());
        command.extend(pair.theirs().read(*gpa, len));
    }
    let obeyed = match command[..] {
        [4, 0, wanted, 0] if powers.multiqueue && 0 < wanted && wanted <= powers.pairs => {
            *pairs = wanted;
            true
        }
        [3, 0] => powers.announce,
        _ => false,
    };
    let (gpa, _) = written[0];
    pair.theirs().write(gpa, &[u8::from(!obeyed)]);
    let head = pair.found.chains[0].head;
    pair.add_used(head, 1);
}
