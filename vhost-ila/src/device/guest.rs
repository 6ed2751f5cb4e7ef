//! The guest's half, for tests and fuzzing: memory in a file, a driver that fills rings and empties them, and the bytes that drive
//! both where a fuzzer does.
//!
//! What must stay true: it shares no code with `ring/`, so that a mistake there is not made twice. (virtio-queue's own mock lays the
//! used ring over the available ring and is not used.)

mod packed;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;

use vm_memory::{Address, Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::memory::{GuestMemory, RegionSpec};
use super::ring::RingAddresses;

/// Added to a guest address, gives the front-end's own: what SET_VRING_ADDR carries.
pub const UVA: u64 = 0x7000_0000_0000;

/// Bytes that say what a guest or a front-end does, one decision after the other; zeros when they end.
#[derive(Debug)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Begins with the first of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// The next two, little endian.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }
}

/// Memory of a guest: regions `(gpa, len)` one behind the other in one file.
#[derive(Debug)]
pub struct Ram {
    /// The file, as a front-end passes it.
    pub file: File,
    /// The driver's view.
    pub memory: GuestMemoryMmap,
    /// As told to the device.
    pub regions: Vec<RegionSpec>,
}

impl Ram {
    /// Zeroed memory.
    ///
    /// # Panics
    /// Where the system gives none; this is for tests.
    #[must_use]
    pub fn new(regions: &[(u64, u64)]) -> Self {
        // SAFETY: memfd_create returns a fresh descriptor or -1, which the next line would not take for a file of any use.
        let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "memfd_create");
        // SAFETY: fresh and owned by nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(regions.iter().map(|r| r.1).sum()).expect("set_len");
        let shared = Arc::new(file.try_clone().expect("clone"));
        let mut offset = 0;
        let mut ranges = Vec::new();
        let mut specs = Vec::new();
        for (gpa, len) in regions.iter().copied() {
            let backing = FileOffset::from_arc(Arc::clone(&shared), offset);
            ranges.push((GuestAddress(gpa), len as usize, Some(backing)));
            specs.push(RegionSpec { gpa, uva: UVA + gpa, len, offset });
            offset += len;
        }
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).expect("guest memory");
        Self { file, memory, regions: specs }
    }

    /// The device's view.
    ///
    /// # Panics
    /// If a region is refused.
    #[must_use]
    pub fn device_view(&self) -> Arc<GuestMemory> {
        let table = self
            .regions
            .iter()
            .fold(GuestMemory::new(), |table, spec| table.with(*spec, &self.file).expect("a good region"));
        Arc::new(table)
    }

    /// Descriptor to pass.
    #[must_use]
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Writes bytes at a guest address.
    ///
    /// # Panics
    /// Outside the memory.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(gpa)).expect("in memory");
    }

    /// Reads bytes at a guest address.
    ///
    /// # Panics
    /// Outside the memory.
    #[must_use]
    pub fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read_into(gpa, &mut bytes);
        bytes
    }

    /// As [`Ram::read`], into `bytes`.
    ///
    /// # Panics
    /// Outside the memory.
    pub fn read_into(&self, gpa: u64, bytes: &mut [u8]) {
        self.memory.read_slice(bytes, GuestAddress(gpa)).expect("in memory");
    }

    fn u16_at(&self, gpa: u64) -> u16 {
        self.memory.read_obj(GuestAddress(gpa)).expect("in memory")
    }

    fn put_u16(&self, gpa: u64, value: u16) {
        // A release store: what was written before is there when the device sees this.
        self.memory.store(value, GuestAddress(gpa), std::sync::atomic::Ordering::Release).expect("in memory");
    }
}

/// A descriptor as a driver writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// Guest address.
    pub gpa: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it.
    pub writable: bool,
}

/// A driver of one ring whose parts lie at `base`: table, available, used, each where its alignment asks.
#[derive(Debug)]
pub struct Driver {
    /// Guest addresses of the parts.
    pub at: RingAddresses,
    /// Entries.
    pub size: u16,
    next: u16,
    available: u16,
    used: u16,
    /// Where the ring is a packed one, all about it but the above.
    packed: Option<packed::Side>,
}

impl Driver {
    /// Lays a ring out from guest address `base` on.
    #[must_use]
    pub fn new(base: u64, size: u16) -> Self {
        let entries = u64::from(size);
        let available = base + 16 * entries;
        let used = GuestAddress(available + 6 + 2 * entries).unchecked_align_up(4096).0;
        let at = RingAddresses { descriptors: base, available, used };
        Self { at, size, next: 0, available: 0, used: 0, packed: None }
    }

    /// The same of a packed ring: table, driver area, device area.
    #[must_use]
    pub fn packed(base: u64, size: u16) -> Self {
        Self { packed: Some(packed::Side::default()), ..Self::new(base, size) }
    }

    /// What SET_VRING_BASE says of a ring that was never used.
    #[must_use]
    pub fn first_base(&self) -> u16 {
        if self.packed.is_some() { 0x8000 } else { 0 }
    }

    /// Its addresses as SET_VRING_ADDR carries them.
    #[must_use]
    pub fn front_end_addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptors: UVA + self.at.descriptors,
            available: UVA + self.at.available,
            used: UVA + self.at.used,
        }
    }

    /// Writes a raw descriptor.
    pub fn descriptor(&self, ram: &Ram, index: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        ram.write(self.at.descriptors + 16 * u64::from(index), &descriptor_bytes(gpa, len, flags, next));
    }

    /// Makes head `head` available; the device sees it after [`Self::expose`].
    pub fn push(&mut self, ram: &Ram, head: u16) {
        let slot = u64::from(self.available % self.size);
        ram.put_u16(self.at.available + 4 + 2 * slot, head);
        self.available = self.available.wrapping_add(1);
    }

    /// Publishes the available index.
    pub fn expose(&mut self, ram: &Ram) {
        if let Some(packed) = &mut self.packed {
            return packed.expose(ram);
        }
        ram.put_u16(self.at.available + 2, self.available);
    }

    /// Writes any available index.
    pub fn expose_index(&self, ram: &Ram, index: u16) {
        ram.put_u16(self.at.available + 2, index);
    }

    /// Goes on at `index`, all that it had made available taken back.
    pub fn go_on_at(&mut self, ram: &Ram, index: u16) {
        (self.available, self.used) = (index, index);
        self.expose_index(ram, index);
    }

    /// Chains `buffers` in the next free descriptors and makes them available; the head. Descriptors are reused in a circle.
    pub fn offer(&mut self, ram: &Ram, buffers: &[Buffer]) -> u16 {
        if let Some(packed) = &mut self.packed {
            return packed.offer(ram, (self.at, self.size), buffers);
        }
        let head = self.next;
        for (i, buffer) in buffers.iter().enumerate() {
            let index = self.next;
            self.next = (self.next + 1) % self.size;
            let more = i + 1 < buffers.len();
            let flags = u16::from(more) | if buffer.writable { 2 } else { 0 };
            self.descriptor(ram, index, buffer.gpa, buffer.len, flags, self.next);
        }
        self.push(ram, head);
        head
    }

    /// Puts `buffers` into a table at `table` and makes one indirect descriptor available; the head.
    pub fn offer_indirect(&mut self, ram: &Ram, table: u64, buffers: &[Buffer]) -> u16 {
        if let Some(packed) = &mut self.packed {
            return packed.offer_indirect(ram, (self.at, self.size), table, buffers);
        }
        for (i, buffer) in buffers.iter().enumerate() {
            let more = i + 1 < buffers.len();
            let flags = u16::from(more) | if buffer.writable { 2 } else { 0 };
            let bytes = descriptor_bytes(buffer.gpa, buffer.len, flags, i as u16 + 1);
            ram.write(table + 16 * i as u64, &bytes);
        }
        let head = self.next;
        self.next = (self.next + 1) % self.size;
        self.descriptor(ram, head, table, 16 * buffers.len() as u32, 4, 0);
        self.push(ram, head);
        head
    }

    /// What the device has given back since last time: `(head, bytes written)`.
    pub fn take_used(&mut self, ram: &Ram) -> Vec<(u32, u32)> {
        if let Some(packed) = &mut self.packed {
            return packed.take_used(ram, (self.at, self.size));
        }
        let index: u16 = ram
            .memory
            .load(GuestAddress(self.at.used + 2), std::sync::atomic::Ordering::Acquire)
            .expect("in memory");
        let mut taken = Vec::new();
        while self.used != index {
            let at = self.at.used + 4 + 8 * u64::from(self.used % self.size);
            let bytes = ram.read(at, 8);
            let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
            taken.push((word(0), word(4)));
            self.used = self.used.wrapping_add(1);
        }
        taken
    }

    /// Sets `used_event`: an interrupt is wanted when the device passes it.
    pub fn set_used_event(&self, ram: &Ram, index: u16) {
        ram.put_u16(self.at.available + 4 + 2 * u64::from(self.size), index);
    }

    /// Sets `avail.flags`.
    pub fn set_flags(&self, ram: &Ram, flags: u16) {
        ram.put_u16(self.at.available, flags);
    }

    /// `used.flags`.
    #[must_use]
    pub fn used_flags(&self, ram: &Ram) -> u16 {
        ram.u16_at(self.at.used)
    }

    /// `avail_event`.
    #[must_use]
    pub fn available_event(&self, ram: &Ram) -> u16 {
        ram.u16_at(self.at.used + 4 + 8 * u64::from(self.size))
    }

    /// The available index as last written.
    #[must_use]
    pub fn available(&self) -> u16 {
        self.available
    }
}

/// A descriptor in guest memory.
#[must_use]
pub fn descriptor_bytes(gpa: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&gpa.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
