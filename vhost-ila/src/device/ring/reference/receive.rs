//! A guest's receive ring: the same bytes in the same buffers, as many as the frame takes.

use virtio_queue::QueueT;

use super::found::Found;
use super::pair::{Kind, Pair, Step};
use crate::device::guest::Script;
use crate::device::memory::Payload;
use crate::device::net_header::{LEN, WireHeader};
use crate::device::ring::{NoRoom, ReceiveRing, RingFault};

/// Runs a guest's receive ring.
///
/// # Panics
/// Where the two differ: that is its purpose.
pub fn receive(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mergeable = script.byte() & 1 != 0;
    let mut run = Run::new(&mut script, mergeable);
    while script.left() > 0 {
        let broken = match run.pair.step(&mut script) {
            Step::Driven => Ok(()),
            // Ours has looked ahead and need not see what a driver changes in a buffer it has given away; a restart does.
            Step::Written | Step::Restart => {
                run.restart();
                Ok(())
            }
            Step::Rest => run.look_ahead(script.byte()),
            Step::Serve => run.serve(&mut script),
            Step::Flow => run.flow(&mut script),
        };
        if broken.is_err() {
            run.pair.compare_memory();
            run.pair.set_up_again();
            run.restart();
        }
    }
    run.pair.compare_memory();
}

struct Run {
    pair: Pair,
    ring: ReceiveRing,
    mergeable: bool,
    /// The frame that is delivered, behind the header that it is to have.
    frame: Vec<u8>,
    /// Frames so far: no two are the same.
    delivered: u8,
}

impl Run {
    fn new(script: &mut Script<'_>, mergeable: bool) -> Self {
        let pair = Pair::new(script, Kind::Receive);
        let ring = ReceiveRing::new(&pair.spec(), mergeable).expect("a good ring");
        let mut run = Self { pair, ring, mergeable, frame: vec![], delivered: 0 };
        run.restart();
        run
    }

    fn restart(&mut self) {
        self.pair.restarted();
        self.ring = ReceiveRing::new(&self.pair.spec(), self.mergeable).expect("a good ring");
        // Ours says so at once; the crate when asked.
        self.pair.refuse_kicks();
    }

    fn look_ahead(&mut self, frames: u8) -> Result<(), RingFault> {
        let ours = self.ring.prepare(frames.into());
        if let Err(fault) = ours {
            self.must_be(fault);
        }
        ours
    }

    /// Delivers some frames.
    fn serve(&mut self, script: &mut Script<'_>) -> Result<(), RingFault> {
        let shapes: Vec<u16> = (0..=script.byte() % 8).map(|_| script.word()).collect();
        self.batch(&shapes)
    }

    /// A guest that receives for a while, and gives as it takes: what was fetched ahead is hardly ever used up.
    fn flow(&mut self, script: &mut Script<'_>) -> Result<(), RingFault> {
        let (first, stride) = (script.word(), script.word());
        for lap in 0..32u16 {
            self.pair.refill(stride as u8);
            let shape = |frame: u16| first.wrapping_add((4 * lap + frame).wrapping_mul(stride));
            self.batch(&[0, 1, 2, 3].map(shape))?;
        }
        Ok(())
    }

    /// Delivers a batch, and publishes it.
    fn batch(&mut self, shapes: &[u16]) -> Result<(), RingFault> {
        if self.pair.has_jumped() {
            // What was fetched before is still good; the jump is seen when more is.
            self.restart();
        }
        self.pair.watch();
        let (mut count, mut end) = (0, Ok(()));
        for shape in shapes {
            match self.deliver(*shape) {
                Ok(buffers) => count += buffers,
                Err(NoRoom::Full) => break,
                Err(NoRoom::Broken(fault)) => {
                    end = Err(fault);
                    break;
                }
            }
        }
        let wanted = self.ring.publish();
        self.pair.must_be_logged();
        self.pair.compare_signal(count, wanted);
        assert_eq!(self.ring.base(), u32::from(self.pair.queue.next_avail()));
        end
    }

    /// Delivers one frame; how many buffers it took.
    fn deliver(&mut self, shape: u16) -> Result<usize, NoRoom> {
        let len = usize::from(if shape >= 0xc000 { shape & 0x3fff } else { shape % 1600 });
        self.frame.clear();
        self.frame.resize(LEN, 0);
        self.frame.extend((0..len).map(|at| (at as u8).wrapping_add(self.delivered)));
        self.delivered = self.delivered.wrapping_add(1);
        let (head, tail) = self.frame[LEN..].split_at(len.min(60));
        let ours = self.ring.deliver(WireHeader::PLAIN, head, Payload::own(tail));
        if let Err(NoRoom::Broken(fault)) = ours {
            // Ours looks ahead, and may have seen a bad chain behind good ones.
            self.must_be(fault);
            return Err(NoRoom::Broken(fault));
        }
        assert!(self.pair.look((if self.mergeable { usize::MAX } else { 1 }, LEN + len)), "a jump unseen");
        match expected(&self.pair.found, LEN + len) {
            Expected::Broken(fault) => panic!("{ours:?}, not {fault}"),
            Expected::Full => assert_eq!(ours, Err(NoRoom::Full)),
            Expected::Written(count) => {
                assert_eq!(ours, Ok(count as u16));
                let buffers = if self.mergeable { count as u16 } else { 1 };
                self.frame[10..LEN].copy_from_slice(&buffers.to_le_bytes());
                self.write(count);
            }
        }
        ours.map(usize::from)
    }

    /// The first fault that there is must be this one.
    fn must_be(&mut self, fault: RingFault) {
        if self.pair.look((usize::MAX, usize::MAX)) {
            assert_eq!(Some(fault), self.pair.found.fault());
        } else {
            assert_eq!(fault, RingFault::AvailableIndex);
        }
    }

    /// The other side writes the frame into the first `count` chains.
    fn write(&mut self, count: usize) {
        let mut bytes = &self.frame[..];
        for index in 0..count {
            let mut written = 0;
            for (gpa, len) in self.pair.found.buffers(index).1 {
                let (now, later) = bytes.split_at(bytes.len().min(*len as usize));
                self.pair.theirs().write(*gpa, now);
                written += now.len() as u32;
                bytes = later;
            }
            let head = self.pair.found.chains[index].head;
            self.pair.add_used(head, written);
        }
    }
}

/// What a delivery should come to.
enum Expected {
    Broken(RingFault),
    Full,
    Written(usize),
}

fn expected(found: &Found, need: usize) -> Expected {
    let room: usize = found.chains.iter().map(|chain| chain.bytes).sum();
    match found.fault() {
        Some(fault) => Expected::Broken(fault),
        None if room < need => Expected::Full,
        None => Expected::Written(found.chains.len()),
    }
}
