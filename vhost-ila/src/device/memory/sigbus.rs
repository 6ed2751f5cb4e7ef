//! A front-end can cut off the file behind memory we have mapped; the next touch raises SIGBUS, whose default ends the process
//! and with it every other tenant's network. This handler puts anonymous zero pages there instead and marks the mapping
//! poisoned; the worker then stops the rings that use it.
//!
//! What must stay true:
//!
//! * The handler touches only the table and makes only async-signal-safe system calls (`mmap`, `sigaction`); a fault outside our
//!   mappings goes to whoever handled it before, so real bugs still crash.
//! * The table grows by a block when it is full, and a block stays where it is for ever: however many mappings some attachments
//!   have (each at most [`super::MAX_REGIONS`], and as many more while a table is exchanged), there is a slot for the next.
//!
//! ```text
//!   FIRST ──next──> block ──next──> block        256 slots each; taken and given back under TAKEN, read by the handler as they are
//! ```

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Slots of one block.
const BLOCK: usize = 256;

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

struct Block {
    slots: [Slot; BLOCK],
    /// Null, or a block that is never freed.
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        let slots = [const {
            Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), poisoned: AtomicBool::new(false) }
        }; BLOCK];
        Self { slots, next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Block> {
        // SAFETY: `next` is null or was stored by `Watch::new` from a leaked box, after the block was made.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST: Block = Block::new();
/// Which slots are taken, block after block; the handler never looks at it.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());
/// How many mappings were ever poisoned: what the worker looks at once per turn.
static POISONED: AtomicU64 = AtomicU64::new(0);
static INSTALL: Once = Once::new();
/// What handled SIGBUS before us; written once, before our handler can run.
static mut PREVIOUS: std::mem::MaybeUninit<libc::sigaction> = std::mem::MaybeUninit::uninit();

/// How many mappings of this process were cut off under us so far.
#[inline]
pub(crate) fn poisoned_mappings() -> u64 {
    POISONED.load(Ordering::Relaxed)
}

/// All blocks, allocating nothing: for the handler as well.
fn blocks() -> impl Iterator<Item = &'static Block> {
    std::iter::successors(Some(&FIRST), |block| block.next())
}

/// A range the handler answers for, until dropped.
pub(super) struct Watch {
    slot: &'static Slot,
    index: usize,
}

impl Watch {
    pub(super) fn new(start: usize, len: usize) -> Self {
        INSTALL.call_once(install);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let index = taken.iter().position(|t| !t).unwrap_or(taken.len());
        match taken.get_mut(index) {
            Some(free) => *free = true,
            None => taken.push(true),
        }
        let mut block = &FIRST;
        for _ in 0..index / BLOCK {
            block = block.next().unwrap_or_else(|| {
                let fresh: &'static mut Block = Box::leak(Box::new(Block::new()));
                // Made in full before it can be seen; nobody else adds one, as we hold TAKEN.
                block.next.store(fresh, Ordering::Release);
                fresh
            });
        }
        let slot = &block.slots[index % BLOCK];
        slot.poisoned.store(false, Ordering::Relaxed);
        slot.end.store(start + len, Ordering::Release);
        slot.start.store(start, Ordering::Release);
        Self { slot, index }
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.slot.poisoned.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("index", &self.index).field("poisoned", &self.is_poisoned()).finish()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::Release);
        self.slot.end.store(0, Ordering::Release);
        if let Some(taken) = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).get_mut(self.index) {
            *taken = false;
        }
    }
}

fn install() {
    // SAFETY: zeroed is a valid sigaction; `on_sigbus` has the signature SA_SIGINFO asks for; PREVIOUS is written here only, once
    // (under `INSTALL`), and read only by the handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let previous = &raw mut PREVIOUS;
        libc::sigaction(libc::SIGBUS, ptr::null(), (*previous).as_mut_ptr());
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
    }
}

extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo for a SA_SIGINFO handler.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in blocks().flat_map(|block| &block.slots) {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Acquire);
        // Looked at twice, as another thread may be giving the slot to another mapping: then it is not the one that faulted, and
        // an old start with a new end would cover memory of anybody's.
        let again = slot.start.load(Ordering::Acquire);
        if start == 0 || again != start || !(start..end).contains(&address) {
            continue;
        }
        // SAFETY: [start, end) is a mapping of ours, alive because the faulting access holds it (see `Mapping`); replacing it by
        // anonymous memory of the same size keeps every pointer into it valid.
        let replaced = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                end - start,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if replaced != libc::MAP_FAILED {
            slot.poisoned.store(true, Ordering::Release);
            POISONED.fetch_add(1, Ordering::Release);
            return;
        }
        break;
    }
    // SAFETY: PREVIOUS was filled before this handler was installed; the fault happens again and finds its old handler.
    unsafe {
        let previous = &raw const PREVIOUS;
        libc::sigaction(libc::SIGBUS, (*previous).as_ptr(), ptr::null_mut());
    }
}
