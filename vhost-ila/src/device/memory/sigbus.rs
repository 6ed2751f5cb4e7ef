//! A front-end can cut off the file behind memory we have mapped; the next touch raises SIGBUS, whose default ends the process
//! and with it every other tenant's network. This handler puts anonymous zero pages there instead and marks the mapping
//! poisoned; the worker then stops the rings that use it.
//!
//! What must stay true: the handler touches only the static table and makes only async-signal-safe system calls (`mmap`,
//! `sigaction`); a fault outside our mappings goes to whoever handled it before, so real bugs still crash.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Mappings in the whole process: [`super::MAX_REGIONS`] times 64 attachments.
const SLOTS: usize = 4096;

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), poisoned: AtomicBool::new(false) }
}; SLOTS];
/// Which slots are taken; the handler never looks at it.
static TAKEN: Mutex<[bool; SLOTS]> = Mutex::new([false; SLOTS]);
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

/// A range the handler answers for, until dropped.
#[derive(Debug)]
pub(super) struct Watch(usize);

impl Watch {
    /// None when the table is full.
    pub(super) fn new(start: usize, len: usize) -> Option<Self> {
        INSTALL.call_once(install);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let index = taken.iter().position(|t| !t)?;
        taken[index] = true;
        let slot = &TABLE[index];
        slot.poisoned.store(false, Ordering::Relaxed);
        slot.end.store(start + len, Ordering::Release);
        slot.start.store(start, Ordering::Release);
        Some(Self(index))
    }

    pub(super) fn is_poisoned(&self) -> bool {
        TABLE[self.0].poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        TABLE[self.0].start.store(0, Ordering::Release);
        TABLE[self.0].end.store(0, Ordering::Release);
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[self.0] = false;
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
    for slot in &TABLE {
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
