//! What a driver does as a script says: good chains mostly, and every way to be bad.
//!
//! What must stay true: whatever it writes is written to both memories; a receive ring's descriptors lie apart from its buffers.

use virtio_queue::QueueT;

use super::{DATA, Kind, MOST, Pair, RING, Step, TABLES};
use crate::device::guest::{Script, descriptor_bytes};

impl Pair {
    /// Does what a driver, good or bad, does; or says what the device is to do.
    pub(in super::super) fn step(&mut self, script: &mut Script<'_>) -> Step {
        let op = script.byte() % 16;
        match op {
            0..5 if self.steady.is_some_and(|after| script.left() < after) => self.push(script),
            0 => self.spoil(script),
            1 => self.table_as_head(script),
            2 | 3 => self.lay(script, false),
            4 => self.lay(script, true),
            5..9 => self.push(script),
            9 => self.wish(script),
            10 => return Step::Rest,
            11 if script.byte() >= if self.steady.is_some() { 250 } else { 128 } => return Step::Restart,
            15 => return Step::Flow,
            _ => return Step::Serve,
        }
        if op < 5 { Step::Written } else { Step::Driven }
    }

    /// Any descriptor, in the ring's table or among the indirect ones.
    fn spoil(&self, script: &mut Script<'_>) {
        let place = script.byte();
        let (table, entries) = if place & 1 == 0 { (RING, self.driver.size) } else { (TABLES, MOST) };
        let index = u16::from(script.byte()) % entries;
        let (gpa, len) = (address(script), len(script));
        let flags = match script.byte() {
            b @ 0..6 => u16::from(b),
            b => self.kind.good() | u16::from(b & 1),
        };
        let gpa = if flags & 4 != 0 && self.kind == Kind::Receive {
            self.table(index as u8, len / 16)
        } else {
            gpa
        };
        let next = script.byte();
        let next = if next >= 250 { next.into() } else { u16::from(next) % entries };
        self.write(table + 16 * u64::from(index), &descriptor_bytes(gpa, len, flags, next));
    }

    /// A head that is an indirect table, mostly a good one.
    fn table_as_head(&self, script: &mut Script<'_>) {
        let index = u64::from(u16::from(script.byte()) % self.driver.size);
        let place = script.byte();
        let entries = match script.byte() {
            b @ 240.. => 16 * u32::from(b),
            b => 1 + u32::from(b) % u32::from(self.driver.size),
        };
        let table = self.table(place, entries);
        let len = 16 * entries + u32::from(script.byte() == 0);
        let flags = if script.byte() == 0 { 5 } else { 4 };
        self.write(RING + 16 * index, &descriptor_bytes(table, len, flags, 0));
    }

    /// Where a table of so many entries lies. That of a receive ring lies apart from all buffers: ours looks ahead, and need not see
    /// what it has itself written into one.
    fn table(&self, place: u8, entries: u32) -> u64 {
        let first = u32::from(place % 128);
        match self.kind {
            Kind::Receive => TABLES + 16 * u64::from(first.min(u32::from(MOST).saturating_sub(entries))),
            // Across the seam of two regions, where a descriptor may be cut.
            _ if place == 255 => 0x6000 - 24,
            _ => TABLES + 16 * u64::from(first),
        }
    }

    /// A good chain, in the ring's table or in one of its own.
    fn lay(&self, script: &mut Script<'_>, indirect: bool) {
        let (shape, place, stride) = (script.byte(), script.byte(), script.byte());
        let size = self.driver.size;
        let count = match shape {
            255 => size,
            b @ 224.. => 2 * u16::from(b - 223),
            b => 1 + u16::from(b % 12),
        };
        let count = count.min(size);
        // An odd stride visits every entry of a table whose size is a power of two.
        let entries = if indirect { count.next_power_of_two() } else { size };
        let (first, stride) = (if indirect { 0 } else { u16::from(place) }, u16::from(stride) | 1);
        let index = |i: u16| first.wrapping_add(i.wrapping_mul(stride)) % entries;
        let table = if indirect { self.table(place, entries.into()) } else { RING };
        let answer = 1 + u16::from(shape / 12) % count;
        let command = (self.kind == Kind::Control).then(|| self.command(script));
        let mut left = command.map_or(0, |(_, len)| len);
        for i in 0..count {
            let (gpa, len, flags) = match command {
                Some((gpa, len)) if i < answer.min(count - 1) => {
                    // A byte each, the rest in the last.
                    let run = if i + 1 == answer.min(count - 1) { left.max(1) } else { 1 };
                    let at = gpa + u64::from(len - left);
                    left = left.saturating_sub(run);
                    (at, run, 0)
                }
                Some(_) => (DATA + 64 * u64::from(script.byte()), 1 + u32::from(script.byte() % 4), 2),
                None => (good_address(script), good_len(script), self.kind.good()),
            };
            let flags = flags | u16::from(i + 1 < count);
            let at = table + 16 * u64::from(index(i));
            self.write(at, &descriptor_bytes(gpa, len, flags, index(i + 1)));
        }
        if indirect {
            let head = u64::from(u16::from(stride as u8 >> 1) % size);
            self.write(RING + 16 * head, &descriptor_bytes(table, 16 * u32::from(entries), 4, index(1)));
        }
    }

    /// Writes a command, mostly one that is known; where, and how long.
    fn command(&self, script: &mut Script<'_>) -> (u64, u32) {
        let mut bytes = [0; 80];
        let class = match script.byte() {
            b @ 0..160 => 4 - u8::from(b & 7 == 0),
            b => b,
        };
        let (command, low, high) = (script.byte(), script.byte(), script.byte());
        let sparse = |b: u8| if b < 200 { 0 } else { b };
        bytes[..4].copy_from_slice(&[class, sparse(command), low % 8, sparse(high)]);
        let len = match script.byte() {
            b @ 0..128 => {
                if class == 3 {
                    2
                } else {
                    4 - u32::from(b == 0)
                }
            }
            b => u32::from(b % 81),
        };
        let gpa = DATA + 64 * u64::from(script.byte());
        self.write(gpa, &bytes);
        (gpa, len)
    }

    /// Makes heads available: any, in steps; sometimes more than a ring has.
    fn push(&mut self, script: &mut Script<'_>) {
        self.make_available((script.byte(), script.byte(), script.byte()));
    }

    /// As many as there is room for, beginning at `first`.
    pub(in super::super) fn refill(&mut self, first: u8) {
        self.make_available((u8::MAX, first, 1));
    }

    fn make_available(&mut self, (count, first, stride): (u8, u8, u8)) {
        let (size, memories) = (self.driver.size, self.memories.as_deref().expect("there until the end"));
        let room = size.saturating_sub(self.driver.available().wrapping_sub(self.queue.next_avail()));
        // One more than it has, or many.
        let far = first == 255 && stride >= 192;
        let most = if far { room + 1 + 40 * u16::from(count % 4) } else { room.min(1 + u16::from(count)) };
        for i in 0..most {
            let head = u16::from(first).wrapping_add(i.wrapping_mul(stride.into()));
            let head = if first == 254 && i == 3 { head } else { head % size };
            self.driver.push(&memories.ours, head);
            self.twin.push(&memories.theirs, head);
        }
        self.driver.expose(&memories.ours);
        self.twin.expose(&memories.theirs);
    }

    /// What the driver wants to be told of.
    fn wish(&mut self, script: &mut Script<'_>) {
        let memories = self.memories.as_deref().expect("there until the end");
        let byte = script.byte();
        let event = self.driver.available().wrapping_add(u16::from(byte % 8)).wrapping_sub(4);
        self.driver.set_used_event(&memories.ours, event);
        self.twin.set_used_event(&memories.theirs, event);
        self.quiet = byte & 0x80 != 0;
        self.driver.set_flags(&memories.ours, self.quiet.into());
        self.twin.set_flags(&memories.theirs, self.quiet.into());
    }
}

/// Mostly good addresses, and every edge.
fn address(script: &mut Script<'_>) -> u64 {
    const EDGES: [u64; 8] = [0x5ff8, 0x9ff0, 0x9fff, 0xa000, 0xffff, 0x1_0000, 0x1_3fff, u64::MAX];
    match script.byte() {
        b @ 0..40 => EDGES[usize::from(b % 8)],
        // Across the seam of the adjacent regions.
        b @ 40..60 => 0x6000 - u64::from(b),
        b => DATA + 64 * u64::from(b),
    }
}

fn len(script: &mut Script<'_>) -> u32 {
    match script.byte() {
        0 => 0,
        1 => u32::MAX,
        2 => 0x4000,
        3 => 0x1_0000,
        b => b.into(),
    }
}

/// An address with room for any of [`good_len`].
fn good_address(script: &mut Script<'_>) -> u64 {
    match script.byte() {
        b @ 224.. => 0x1_0000 + 64 * u64::from(b - 224),
        b => DATA + 64 * u64::from(b),
    }
}

fn good_len(script: &mut Script<'_>) -> u32 {
    match script.byte() {
        b @ 248.. => 0x1000 - u32::from(b),
        b => 1 + u32::from(b),
    }
}
