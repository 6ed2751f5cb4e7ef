//! Packed rings, which `virtio-queue` does not walk: the reference is the text (virtio 1.2, 2.8), read plainly over the same memory.
//!
//! ```text
//!   script ─> a driver's chains, and what no driver writes ─┬─> ours: packed/ under transmit.rs and receive.rs
//!                                                           └─> Text: what is available, what is wrong with it, what is written back
//!   after each step: the same frames, faults, signals, and every byte of memory
//! ```
//!
//! What must stay true: [`Text`] shares no code with `packed/`; it counts offset and wrap counter one descriptor after the other.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::device::guest::{Ram, Script, UVA, descriptor_bytes};
use crate::device::memory::{GuestMemory, Payload};
use crate::device::net_header::{LEN, WireHeader};
use crate::device::ring::{
    BATCH, BATCH_BYTES, Chains, MAX_PIECES, NoRoom, ReceiveRing, RingAddresses, RingFault, RingSpec,
    TransmitRing,
};

/// Two adjacent regions, a hole, and one more.
const REGIONS: [(u64, u64); 3] = [(0, 0x2000), (0x2000, 0x2000), (0x1_0000, 0x1000)];
const BYTES: usize = 0x5000;
/// The descriptors, both event suppression structures, indirect tables, and buffers across the seam of the regions.
const RING: u64 = 0;
const DRIVER: u64 = 0x800;
const DEVICE: u64 = 0x900;
const TABLES: u64 = 0xa00;
const DATA: u64 = 0x1c00;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Runs a packed ring.
///
/// # Panics
/// Where ours does other than the text.
pub fn packed(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut run = Run::new(&mut script);
    while script.left() > 0 {
        run.step(&mut script);
    }
}

/// Offset and wrap counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spot(u16, bool);

impl Spot {
    fn on(mut self, count: u16, size: u16) -> Self {
        for _ in 0..count {
            self.0 += 1;
            if self.0 == size {
                self = Self(0, !self.1);
            }
        }
        self
    }

    fn word(self) -> u16 {
        self.0 | u16::from(self.1) << 15
    }
}

/// A chain as the text has it.
#[derive(Debug)]
struct Chain {
    id: u16,
    slots: u16,
    buffers: Vec<(u64, u32)>,
}

impl Chain {
    fn bytes(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.1 as usize).sum()
    }
}

/// What the text says of a ring.
struct Text {
    size: u16,
    writable: bool,
    /// The oldest chain that was not given back.
    oldest: Spot,
}

impl Text {
    /// All chains that are available, up to the first bad one.
    fn look(&self, ram: &Ram) -> (Vec<Chain>, Option<RingFault>) {
        let (mut at, mut room, mut chains) = (self.oldest, self.size, Vec::new());
        while room > 0 {
            let (_, _, _, flags) = descriptor(ram, RING + 16 * u64::from(at.0)).expect("in the ring");
            if (flags & AVAIL != 0) != at.1 || (flags & USED != 0) == at.1 {
                break;
            }
            match self.chain(ram, at, room) {
                Ok(chain) => {
                    at = at.on(chain.slots, self.size);
                    room -= chain.slots;
                    chains.push(chain);
                }
                Err(fault) => return (chains, Some(fault)),
            }
        }
        (chains, None)
    }

    fn chain(&self, ram: &Ram, mut at: Spot, room: u16) -> Result<Chain, RingFault> {
        let mut chain = Chain { id: 0, slots: 0, buffers: vec![] };
        let (gpa, len, id, flags) = descriptor(ram, RING + 16 * u64::from(at.0))?;
        if flags & INDIRECT != 0 {
            if flags & NEXT != 0 || len == 0 || len % 16 != 0 || len / 16 > self.size.into() {
                return Err(RingFault::Indirect);
            }
            for index in 0..u64::from(len / 16) {
                let entry = descriptor(ram, gpa.checked_add(16 * index).ok_or(RingFault::Indirect)?)?;
                if entry.3 & INDIRECT != 0 {
                    return Err(RingFault::Indirect);
                }
                self.buffer(ram, entry, &mut chain)?;
            }
            return Ok(Chain { id, slots: 1, ..chain });
        }
        for _ in 0..room {
            let entry = descriptor(ram, RING + 16 * u64::from(at.0))?;
            if entry.3 & INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            self.buffer(ram, entry, &mut chain)?;
            chain.slots += 1;
            if entry.3 & NEXT == 0 {
                return Ok(Chain { id: entry.2, ..chain });
            }
            at = at.on(1, self.size);
        }
        // The one behind the last is not walked, but that it is a table is seen.
        let behind = descriptor(ram, RING + 16 * u64::from(at.0))?;
        Err(if behind.3 & INDIRECT != 0 { RingFault::Indirect } else { RingFault::Endless })
    }

    fn buffer(
        &self,
        ram: &Ram,
        (gpa, len, _, flags): (u64, u32, u16, u16),
        to: &mut Chain,
    ) -> Result<(), RingFault> {
        if (flags & WRITE != 0) != self.writable {
            return Err(RingFault::Direction);
        }
        if len == 0 {
            return Err(RingFault::Empty);
        }
        if gpa.checked_add(len.into()).is_none() || !ram.memory.check_range(GuestAddress(gpa), len as usize) {
            return Err(RingFault::Address);
        }
        to.buffers.push((gpa, len));
        Ok(())
    }
}

/// Address, length, id and flags of the descriptor at `gpa`, whole within one region.
fn descriptor(ram: &Ram, gpa: u64) -> Result<(u64, u32, u16, u16), RingFault> {
    let last = gpa.checked_add(15).ok_or(RingFault::Address)?;
    let region = ram.memory.find_region(GuestAddress(gpa)).ok_or(RingFault::Address)?;
    region.to_region_addr(GuestAddress(last)).ok_or(RingFault::Address)?;
    let [low, high]: [u64; 2] = ram.memory.read_obj(GuestAddress(gpa)).map_err(|_| RingFault::Address)?;
    Ok((low, high as u32, (high >> 32) as u16, (high >> 48) as u16))
}

/// Ours.
enum Ours {
    Transmit(TransmitRing),
    Receive(ReceiveRing),
}

struct Run {
    ram: Ram,
    view: Arc<GuestMemory>,
    text: Text,
    ours: Ours,
    chains: Chains,
    event_idx: bool,
    in_order: bool,
    mergeable: bool,
    /// Where the driver writes next.
    driver: Spot,
    /// Descriptors it has made available, or thinks so.
    given: u16,
    /// Where the ring was when it was set up.
    began: Spot,
    /// Nothing was written that no driver writes.
    honest: bool,
    /// Where signals were considered last.
    considered: Option<Spot>,
    frames: u8,
}

impl Run {
    fn new(script: &mut Script<'_>) -> Self {
        let (choice, size) = (script.byte(), [1, 2, 3, 5, 8, 13, 32, 64][usize::from(script.byte() % 8)]);
        let ram = Ram::new(&REGIONS);
        let view = ram.device_view();
        let first = Spot(0, true);
        let text = Text { size, writable: choice & 1 != 0, oldest: first };
        let pattern: Vec<u8> = (0..BYTES).map(|at| (at * 7 % 251) as u8).collect();
        ram.write(DATA, &pattern[..0x4000 - DATA as usize]);
        ram.write(0x1_0000, &pattern[..0x1000]);
        let (event_idx, in_order, mergeable) = (choice & 2 != 0, choice & 4 != 0, choice & 8 != 0);
        let spec = spec(&view, size, first, (event_idx, in_order));
        let ours = start(&spec, text.writable, mergeable);
        let mut run = Self {
            ram,
            view,
            text,
            ours,
            chains: Chains::default(),
            event_idx,
            in_order,
            mergeable,
            driver: first,
            given: 0,
            began: first,
            honest: true,
            considered: None,
            frames: 0,
        };
        run.set_up(script);
        run
    }

    /// The driver's ring is as if all before some spot was given back.
    fn set_up(&mut self, script: &mut Script<'_>) {
        let (size, byte) = (self.text.size, script.byte());
        let begin = Spot(u16::from(byte >> 1) % size, byte & 1 == 0);
        for offset in 0..size {
            let lap = if offset < begin.0 { begin.1 } else { !begin.1 };
            let flags = if lap { AVAIL | USED } else { 0 };
            self.ram.write(RING + 16 * u64::from(offset), &descriptor_bytes(0, 0, 0, flags));
        }
        self.ram.write(DRIVER, &[0; 4]);
        self.ram.write(DEVICE, &begin.word().to_le_bytes());
        (self.driver, self.text.oldest, self.given, self.honest) = (begin, begin, 0, true);
        self.began = begin;
        self.go_on(begin);
        assert_eq!(self.base(), begin);
    }

    /// A daemon begins where the front-end says, or nearly.
    fn go_on(&mut self, said: Spot) {
        let spec = spec(&self.view, self.text.size, said, (self.event_idx, self.in_order));
        self.ours = start(&spec, self.text.writable, self.mergeable);
        self.considered = None;
    }

    fn base(&self) -> Spot {
        let base = match &self.ours {
            Ours::Transmit(ring) => ring.base(),
            Ours::Receive(ring) => ring.base(),
        };
        assert_eq!(base >> 16, base & 0xffff);
        Spot(base as u16 & 0x7fff, base & 0x8000 != 0)
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => self.spoil(script),
            1..7 => self.lay(script),
            7 => {
                let (word, flags) = (script.word(), script.byte() % 4);
                let near = self.text.oldest.on(u16::from(script.byte() % 8), self.text.size).word();
                let word = if flags & 1 == 0 && word & 1 == 0 { near } else { word };
                self.ram.write(DRIVER, &[word.to_le_bytes(), [flags, 0]].concat());
            }
            8 => self.rest(script.byte()),
            9 if script.byte() >= 128 => self.restart(script.byte() & 1 == 0),
            _ => self.serve(script),
        }
    }

    /// A chain as a driver writes it, if there is room.
    fn lay(&mut self, script: &mut Script<'_>) {
        let (shape, id, size) = (script.byte(), script.word(), self.text.size);
        let room = size.saturating_sub(self.given);
        let count = 1 + u16::from(shape % 5);
        let indirect = shape >= 160;
        let slots = if indirect { 1 } else { count };
        let count = count.min(size);
        if slots > room {
            return;
        }
        let good = if self.text.writable { WRITE } else { 0 };
        let mut head = None;
        for index in 0..count {
            let gpa = match script.byte() {
                b @ 240.. => 0x1_0000 + 64 * u64::from(b - 240),
                b => DATA + 32 * u64::from(b),
            };
            let len = match script.byte() {
                b @ 250.. => 0xc00 - u32::from(b),
                b => 1 + u32::from(b),
            };
            if indirect {
                let at = TABLES + 16 * u64::from(shape - 160) + 16 * u64::from(index);
                self.ram.write(at, &descriptor_bytes(gpa, len, id, good));
                continue;
            }
            let more = if index + 1 < count { NEXT } else { 0 };
            let lap = if self.driver.1 { AVAIL } else { USED };
            let bytes = descriptor_bytes(gpa, len, id, good | more | lap);
            let at = RING + 16 * u64::from(self.driver.0);
            if head.is_none() {
                head = Some((at, bytes));
            } else {
                self.ram.write(at, &bytes);
            }
            self.driver = self.driver.on(1, size);
        }
        if indirect {
            let table = TABLES + 16 * u64::from(shape - 160);
            let lap = if self.driver.1 { AVAIL } else { USED };
            let bytes = descriptor_bytes(table, 16 * u32::from(count), id, INDIRECT | lap);
            head = Some((RING + 16 * u64::from(self.driver.0), bytes));
            self.driver = self.driver.on(1, size);
        }
        if let Some((at, bytes)) = head {
            self.ram.write(at, &bytes);
        }
        self.given += slots;
        if self.text.writable && (indirect || !self.honest) {
            // Ours may have looked at what lies here.
            self.restart(false);
        }
    }

    /// Any descriptor, in the ring or in a table.
    fn spoil(&mut self, script: &mut Script<'_>) {
        const EDGES: [u64; 8] = [0x1ff8, 0x3ff0, 0x3fff, 0x4000, 0xffff, 0x1_0000, 0x1_0fff, u64::MAX];
        let (place, index) = (script.byte(), u64::from(script.byte()));
        let at = if place & 1 == 0 {
            RING + 16 * (index % u64::from(self.text.size))
        } else {
            TABLES + 16 * index
        };
        let flags = match script.byte() {
            b @ 0..8 => u16::from(b),
            b => u16::from(b & 1) | if self.text.writable { WRITE } else { 0 },
        };
        let gpa = match script.byte() {
            b @ 0..40 => EDGES[usize::from(b % 8)],
            _ if flags & INDIRECT != 0 => TABLES + 16 * u64::from(place),
            b => DATA + 32 * u64::from(b),
        };
        let len = match script.byte() {
            0 => 0,
            1 => u32::MAX,
            2 => 0x3000,
            b if flags & INDIRECT != 0 => 16 * u32::from(b % 70) + u32::from(b > 250),
            b => b.into(),
        };
        let lap = [0, AVAIL, USED, AVAIL | USED][usize::from(place >> 6)];
        self.ram.write(at, &descriptor_bytes(gpa, len, script.word(), flags | lap));
        self.honest = false;
        self.restart(false);
    }

    fn restart(&mut self, stale: bool) {
        let said = if stale && self.honest { self.began } else { self.text.oldest };
        self.go_on(said);
        let base = self.base();
        // What a ring looks like that was spoilt is its driver's affair.
        assert!(base == self.text.oldest || !self.honest, "{base:?}, not {:?}", self.text.oldest);
        self.text.oldest = base;
    }

    /// The worker sleeps, polls on, or looks ahead.
    fn rest(&mut self, choice: u8) {
        let (chains, fault) = self.text.look(&self.ram);
        let oldest = self.text.oldest.word();
        match &mut self.ours {
            Ours::Transmit(ring) if choice & 1 == 0 => {
                assert_eq!(ring.want_kicks(), Ok(!chains.is_empty() || fault.is_some()));
                let flags = if self.event_idx { 2 } else { 0 };
                assert_eq!(self.ram.read(DEVICE, 4), [oldest.to_le_bytes(), [flags, 0]].concat());
            }
            Ours::Transmit(ring) => {
                ring.refuse_kicks();
                assert_eq!(self.ram.read(DEVICE + 2, 2), [1, 0]);
            }
            Ours::Receive(ring) => {
                if let Err(found) = ring.prepare(choice.into()) {
                    assert_eq!(Some(found), fault);
                    self.honest = false;
                }
            }
        }
    }

    fn serve(&mut self, script: &mut Script<'_>) {
        let before = self.all();
        let broken = match self.ours {
            Ours::Transmit(_) => self.transmit(script.byte(), before),
            Ours::Receive(_) => self.receive(script, before),
        };
        if broken {
            self.set_up(script);
        }
    }

    /// Takes a batch and gives back what is not left; whether the ring broke.
    fn transmit(&mut self, keep: u8, mut memory: Vec<u8>) -> bool {
        let (found, fault) = self.text.look(&self.ram);
        let (mut bytes, mut pieces, mut end) = (0, 0, 0);
        for chain in &found {
            if end == BATCH || bytes >= BATCH_BYTES || pieces > MAX_PIECES {
                break;
            }
            bytes += chain.bytes();
            pieces += chain.buffers.iter().map(|(gpa, len)| cuts(*gpa, *len)).sum::<usize>();
            end += 1;
        }
        let looks_on = end == found.len() && end < BATCH && bytes < BATCH_BYTES && pieces <= MAX_PIECES;
        let fault = fault.filter(|_| looks_on);
        let Ours::Transmit(ring) = &mut self.ours else { return false };
        assert_eq!(ring.take(&mut self.chains).err(), fault);
        assert_eq!(self.chains.len(), end);
        for (index, chain) in found[..end].iter().enumerate() {
            let mut ours = vec![0; chain.bytes()];
            assert_eq!(self.chains.copy(index, 0, &mut ours), ours.len());
            let theirs: Vec<u8> =
                chain.buffers.iter().flat_map(|(gpa, len)| self.ram.read(*gpa, *len as usize)).collect();
            assert!(ours == theirs, "bytes of chain {index}");
        }
        let kept = if keep < 64 { usize::from(keep).min(end) } else { end };
        ring.leave(&mut self.chains, kept);
        ring.finish(&self.chains);
        let wanted = ring.publish();
        let given_back: Vec<_> = found[..kept].iter().map(|chain| (chain.id, chain.slots, 0)).collect();
        self.given_back(&given_back, wanted, &mut memory);
        fault.is_some()
    }

    /// Delivers some frames; whether the ring broke.
    fn receive(&mut self, script: &mut Script<'_>, mut memory: Vec<u8>) -> bool {
        let (found, fault) = self.text.look(&self.ram);
        let mut rest = found.iter();
        let mut given_back = Vec::new();
        let mut broken = false;
        for _ in 0..=script.byte() % 6 {
            let len = usize::from(script.word() % 700);
            let frame: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_add(self.frames)).collect();
            self.frames = self.frames.wrapping_add(1);
            let (head, tail) = frame.split_at(len.min(60));
            let Ours::Receive(ring) = &mut self.ours else { return false };
            let ours = ring.deliver(WireHeader::PLAIN, head, Payload::own(tail));
            if let Err(NoRoom::Broken(seen)) = ours {
                assert_eq!(Some(seen), fault, "the first that is bad");
                broken = true;
                break;
            }
            let (mut room, mut count) = (0, 0);
            while room < LEN + len && (self.mergeable || count == 0) {
                let Some(chain) = rest.as_slice().get(count) else { break };
                room += chain.bytes();
                count += 1;
            }
            if room < LEN + len {
                assert_eq!(ours, Err(NoRoom::Full));
                assert!(fault.is_none() || !self.mergeable && count > 0, "{fault:?} was not seen");
                break;
            }
            assert_eq!(ours, Ok(count as u16));
            let mut bytes = WireHeader::PLAIN
                .with_buffers(if self.mergeable { count as u16 } else { 1 })
                .to_bytes()
                .to_vec();
            bytes.extend(frame);
            let mut left = &bytes[..];
            for chain in rest.by_ref().take(count) {
                let mut written = 0;
                for (gpa, len) in &chain.buffers {
                    let (now, later) = left.split_at(left.len().min(*len as usize));
                    write(&mut memory, *gpa, now);
                    written += now.len() as u32;
                    left = later;
                }
                given_back.push((chain.id, chain.slots, written));
            }
        }
        let Ours::Receive(ring) = &mut self.ours else { return false };
        let wanted = ring.publish();
        self.given_back(&given_back, wanted, &mut memory);
        broken
    }

    /// What is written when chains (id, descriptors, bytes written) are given back, and nothing else; and who is told.
    fn given_back(&mut self, chains: &[(u16, u16, u32)], wanted: bool, memory: &mut [u8]) {
        let begin = self.text.oldest;
        let alone = self.in_order && !self.text.writable;
        for (number, (id, slots, len)) in chains.iter().enumerate() {
            let at = self.text.oldest;
            self.text.oldest = at.on(*slots, self.text.size);
            self.given = self.given.saturating_sub(*slots);
            let (at, id) = match (alone, chains.last()) {
                (true, Some(last)) => (begin, last.0),
                _ => (at, *id),
            };
            if alone && number > 0 {
                continue;
            }
            let flags = if at.1 { AVAIL | USED } else { 0 } | if *len > 0 { WRITE } else { 0 };
            write(memory, RING + 16 * u64::from(at.0) + 8, &descriptor_bytes(0, *len, id, flags)[8..]);
        }
        if !chains.is_empty() {
            write(memory, DEVICE, &self.text.oldest.word().to_le_bytes());
        }
        // Ours says whether it wants kicks when it likes.
        let now = self.all();
        let wish = DEVICE as usize + 2;
        memory[wish] = now[wish];
        if let Some(at) = now.iter().zip(memory.iter()).position(|(now, expected)| now != expected) {
            panic!("byte {at:#x} is {:#x}, not {:#x}", now[at], memory[at]);
        }
        assert_eq!(self.base(), self.text.oldest);
        self.compare_signal(begin, chains.is_empty(), wanted);
    }

    fn compare_signal(&mut self, begin: Spot, nothing: bool, wanted: bool) {
        if nothing {
            return assert!(!wanted, "nothing was published");
        }
        let area = self.ram.read(DRIVER, 4);
        let event = Spot(u16::from_le_bytes([area[0], area[1]]) & 0x7fff, area[1] & 0x80 != 0);
        let considered = self.considered.replace(self.text.oldest);
        let passed = || {
            // All that was shown since, one after the other; a whole lap at most.
            let mut at = begin;
            (0..self.text.size).any(|_| {
                let here = at;
                at = at.on(1, self.text.size);
                here == event && self.between(begin, here)
            })
        };
        let expected = match area[2] {
            1 => false,
            2 if self.event_idx => considered.is_none() || event.0 >= self.text.size || passed(),
            _ => true,
        };
        assert_eq!(wanted, expected, "signal, {event:?} from {begin:?} to {:?}", self.text.oldest);
    }

    /// Whether `spot` comes before the oldest, from `begin` on.
    fn between(&self, begin: Spot, spot: Spot) -> bool {
        let mut at = begin;
        for _ in 0..self.text.size {
            if at == self.text.oldest {
                return false;
            }
            if at == spot {
                return true;
            }
            at = at.on(1, self.text.size);
        }
        false
    }

    /// All memory, regions at their addresses.
    fn all(&self) -> Vec<u8> {
        let mut image = vec![0; BYTES];
        self.ram.read_into(0, &mut image[..0x4000]);
        self.ram.read_into(0x1_0000, &mut image[0x4000..]);
        image
    }
}

/// Writes into what [`Run::all`] has read.
fn write(memory: &mut [u8], gpa: u64, bytes: &[u8]) {
    let at = if gpa >= 0x1_0000 { gpa as usize - 0xc000 } else { gpa as usize };
    memory[at..at + bytes.len()].copy_from_slice(bytes);
}

/// How many pieces a buffer in memory comes to: the seam of the adjacent regions cuts it.
fn cuts(gpa: u64, len: u32) -> usize {
    1 + usize::from(gpa < REGIONS[1].0 && gpa + u64::from(len) > REGIONS[1].0)
}

fn spec(view: &Arc<GuestMemory>, size: u16, said: Spot, (event_idx, in_order): (bool, bool)) -> RingSpec {
    RingSpec {
        memory: Arc::clone(view),
        addresses: RingAddresses { descriptors: UVA + RING, available: UVA + DRIVER, used: UVA + DEVICE },
        size,
        packed: true,
        base: Some(said.word().into()),
        event_idx,
        in_order,
        indirect: true,
        log: None,
    }
}

fn start(spec: &RingSpec, writable: bool, mergeable: bool) -> Ours {
    if writable {
        Ours::Receive(ReceiveRing::new(spec, mergeable).expect("a good ring"))
    } else {
        Ours::Transmit(TransmitRing::new(spec).expect("a good ring"))
    }
}
