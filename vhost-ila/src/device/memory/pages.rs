//! Which pages our own large tables lie in.
//!
//! What must stay true: nothing here changes what memory holds or how much of it there is; a kernel that does not take the advice leaves
//! things slower, and no worse.

use std::ops::Range;

/// A huge page's bytes.
const HUGE: usize = 2 << 20;

/// `MADV_COLLAPSE` (Linux 6.1): at once, whatever /sys/kernel/mm/transparent_hugepage says.
const COLLAPSE: libc::c_int = 25;

/// Puts as much of `memory`, which is in use already, into huge pages as lies in whole ones: a table whose lines are read at random
/// otherwise costs a walk of page tables for each. Takes its time for large tables: for when nobody waits.
pub fn in_huge_pages(memory: Range<usize>) {
    let Some(first) = memory.start.checked_next_multiple_of(HUGE) else { return };
    let Some(bytes) = (memory.end / HUGE * HUGE).checked_sub(first).filter(|bytes| *bytes > 0) else {
        return;
    };
    for advice in [libc::MADV_HUGEPAGE, COLLAPSE] {
        // SAFETY: neither advice changes contents or access of any page, whoever has it; addresses that nobody has are refused.
        if unsafe { libc::madvise(first as *mut libc::c_void, bytes, advice) } != 0 {
            log::debug!("madvise({advice}) of a table: {}", std::io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_huge_pages_is_as_it_was() {
        let bytes: Vec<u32> = (0..2 << 20).collect();
        let memory = bytes.as_ptr_range();
        in_huge_pages(memory.start as usize..memory.end as usize);
        assert!(bytes.iter().enumerate().all(|(at, value)| at == *value as usize));
        // Nothing there, and too little of it.
        in_huge_pages(0..0);
        in_huge_pages(usize::MAX - 100..usize::MAX);
    }
}
