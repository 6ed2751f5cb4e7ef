//! A guest's transmit ring: the same frames, given back in the same order, whatever part of a batch was left for later.

use virtio_queue::QueueT;

use super::pair::{Kind, Pair, Step, pieces};
use crate::device::guest::Script;
use crate::device::ring::{BATCH, BATCH_BYTES, Chains, MAX_PIECES, RingFault, TransmitRing};

/// Runs a guest's transmit ring.
///
/// # Panics
/// Where the two differ: that is its purpose.
pub fn transmit(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut pair = Pair::new(&mut script, Kind::Transmit);
    let mut ring = start(&pair);
    let mut chains = Chains::default();
    let mut frames = [vec![], vec![]];
    while script.left() > 0 {
        match pair.step(&mut script) {
            Step::Driven | Step::Written => {}
            Step::Restart => {
                pair.restarted();
                ring = start(&pair);
            }
            Step::Rest => rest(&mut pair, &mut ring, script.byte()),
            step @ (Step::Serve | Step::Flow) => {
                if step == Step::Flow {
                    pair.refill(script.byte());
                }
                let keep = script.byte();
                if serve(&mut pair, &mut ring, &mut chains, keep, &mut frames).is_err() {
                    pair.set_up_again();
                    ring = start(&pair);
                }
            }
        }
    }
}

fn start(pair: &Pair) -> TransmitRing {
    TransmitRing::new(&pair.spec()).expect("a good ring")
}

/// The worker sleeps, or polls on.
fn rest(pair: &mut Pair, ring: &mut TransmitRing, choice: u8) {
    pair.watch();
    if choice & 1 == 0 {
        let theirs = pair.want_kicks();
        match ring.want_kicks() {
            Ok(ours) => assert!(ours == theirs && !pair.has_jumped(), "work before sleep"),
            // The crate compares for inequality only.
            Err(fault) => assert!(fault == RingFault::AvailableIndex && pair.has_jumped(), "{fault}"),
        }
    } else {
        pair.refuse_kicks();
        ring.refuse_kicks();
    }
    pair.must_be_logged();
    pair.compare_memory();
}

/// Takes a batch, and gives it back but for what is left.
fn serve(
    pair: &mut Pair,
    ring: &mut TransmitRing,
    chains: &mut Chains,
    keep: u8,
    frames: &mut [Vec<u8>; 2],
) -> Result<(), RingFault> {
    pair.watch();
    let ours = ring.take(chains);
    if !pair.look((BATCH, usize::MAX)) {
        assert_eq!(ours, Err(RingFault::AvailableIndex));
        assert!(pair.has_jumped());
        return ours;
    }
    let end = batch_end(pair);
    let good = pair.found.good().min(end);
    assert_eq!(chains.len(), good, "chains before the first bad one, {ours:?}");
    let fault = pair.found.fault().filter(|_| pair.found.chains.len() <= end);
    assert_eq!(ours.err(), fault);
    for index in 0..good {
        compare_frame(pair, chains, index, frames);
    }
    // Large frames take a worker's turn; the rest is left where it is.
    let kept = if keep < 64 { usize::from(keep).min(good) } else { good };
    ring.leave(chains, kept);
    ring.finish(chains);
    for index in 0..kept {
        let head = pair.found.chains[index].head;
        pair.add_used(head, 0);
    }
    let wanted = ring.publish();
    pair.must_be_logged();
    pair.compare_signal(kept, wanted);
    assert_eq!(ring.base(), u32::from(pair.queue.next_avail()));
    pair.compare_memory();
    ours
}

/// How many of the chains found ours takes, or finds bad, at once.
fn batch_end(pair: &Pair) -> usize {
    let (mut bytes, mut cut) = (0, 0);
    let taken = (0..pair.found.chains.len()).take_while(|index| {
        let room = bytes < BATCH_BYTES && cut <= MAX_PIECES;
        bytes += pair.found.chains[*index].bytes;
        cut += pair.found.buffers(*index).0.iter().map(pieces).sum::<usize>();
        room
    });
    taken.count()
}

fn compare_frame(pair: &Pair, chains: &Chains, index: usize, [ours, theirs]: &mut [Vec<u8>; 2]) {
    let chain = &pair.found.chains[index];
    ours.resize(chain.bytes, 0);
    theirs.resize(chain.bytes, 0);
    assert_eq!(chains.bytes(index), chain.bytes);
    assert_eq!(chains.copy(index, 0, ours), chain.bytes);
    let mut rest = &mut theirs[..];
    for (gpa, len) in pair.found.buffers(index).0 {
        let (now, later) = rest.split_at_mut(*len as usize);
        pair.theirs().read_into(*gpa, now);
        rest = later;
    }
    assert!(ours == theirs, "bytes of head {}", chain.head);
}
