//! Memory for the driver: rings in pages of a memfd, and each buffer that it shares copied through a slot of the same memfd.
//!
//! What must stay true: a page or slot belongs to one owner until it is given back; guest-physical addresses are neither offsets of the
//! file nor addresses here.

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

use vhost_frontend::VhostUserMemoryRegionInfo;
use vhost_ila_tests::ringpeer::memory::{Memory, user};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Bytes of a slot: more than any buffer the driver shares.
const SLOT: u64 = 4096;
/// Slots: more than two rings have descriptors.
const SLOTS: u64 = 256;

/// The driver's view of it; the memory is the process's, as the crate's trait has no `self`.
pub(super) struct Memfd;

struct Arena {
    memory: Memory,
    free: Vec<u64>,
}

fn arena() -> std::sync::MutexGuard<'static, Arena> {
    static ARENA: OnceLock<Mutex<Arena>> = OnceLock::new();
    let arena = ARENA.get_or_init(|| {
        let mut memory = Memory::new().expect("a memfd");
        let first = memory.for_buffers(SLOT * SLOTS).expect("room for the slots").0;
        let free = (0..SLOTS).map(|slot| first + slot * SLOT).collect();
        Mutex::new(Arena { memory, free })
    });
    arena.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory as SET_MEM_TABLE tells it.
pub(super) fn regions() -> Vec<VhostUserMemoryRegionInfo> {
    let regions = arena().memory.regions().expect("each has a file");
    assert!(regions.iter().all(|region| region.mmap_handle.as_raw_fd() >= 0));
    regions
}

/// What messages call the guest-physical `address`.
pub(super) fn told(address: PhysAddr) -> u64 {
    user(GuestAddress(address))
}

// SAFETY: `dma_alloc` gives out zeroed pages of a shared mapping that lives as long as the process, each once; they are aligned to
// pages, as `Memory::for_ring` aligns them. There is no MMIO.
unsafe impl Hal for Memfd {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let mut arena = arena();
        let bytes = u64::try_from(pages * PAGE_SIZE).expect("few pages");
        let address = arena.memory.for_ring(bytes).expect("room for the rings");
        let host = arena.memory.map.get_host_address(address).expect("mapped");
        (address.0, NonNull::new(host).expect("mapped"))
    }

    // Never given out again, as a page must be zero when it is.
    unsafe fn dma_dealloc(_address: PhysAddr, _host: NonNull<u8>, _pages: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("no device of vhost-user has MMIO, but the driver asked for {address:#x}")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let mut arena = arena();
        assert!(buffer.len() as u64 <= SLOT, "a buffer of {} bytes", buffer.len());
        let slot = arena.free.pop().expect("as many slots as descriptors");
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the caller promises a valid buffer that nobody else touches during this call.
            let bytes = unsafe { buffer.as_ref() };
            arena.memory.map.write_slice(bytes, GuestAddress(slot)).expect("mapped");
        }
        slot
    }

    unsafe fn unshare(address: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let mut arena = arena();
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: the caller promises a valid buffer that nobody else touches during this call.
            let bytes = unsafe { buffer.as_mut() };
            arena.memory.map.read_slice(bytes, GuestAddress(address)).expect("mapped");
        }
        arena.free.push(address);
    }
}
