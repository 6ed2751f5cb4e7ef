//! The two things only the processor can tell: how many cycles have passed, and that a line will soon be wanted.

/// A cycle counter of this core (x86-64: TSC; elsewhere: nanoseconds of the monotonic clock).
#[inline]
#[must_use]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC exists on every x86-64 processor and reads no memory.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Cycles from `begin` to `end`; none where a processor's counter is behind another's.
#[inline]
#[must_use]
pub fn between(begin: u64, end: u64) -> u64 {
    end.wrapping_sub(begin).cast_signed().max(0).cast_unsigned()
}

/// As [`prefetch`], for a line that will soon be written: it is taken away from the core that has it now.
#[inline]
pub fn prefetch_to_write(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as for `prefetch`; a processor without PREFETCHW takes it for no operation. Said by its name: `_mm_prefetch` becomes PREFETCHT0,
    // which leaves the line with both cores, unless the whole program is compiled for processors that have it.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for all lines of `what`, which will soon be read.
#[inline]
pub fn prefetch_all<T>(what: &T) {
    let at = std::ptr::from_ref(what) as usize;
    for line in (0..size_of::<T>()).step_by(64) {
        prefetch(at.wrapping_add(line));
    }
}

/// Asks for the cache line at `address` to be brought in, to be read soon. Never faults, whatever the address.
#[inline]
pub fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it reads nothing the program can see and does not fault on any address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
