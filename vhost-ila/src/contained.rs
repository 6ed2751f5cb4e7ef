//! A mistake of ours that panics, where a front-end may know how to cause it again: its words are handed to whoever contains it, instead of
//! going to standard error, so that they come out of the log's share of the attachment that caused it.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// This thread's panics are contained now.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// What the last of them said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`, of which nothing is seen again after a panic but what is good in every state.
///
/// # Errors
/// It panicked: its place and its words, on one line.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if CONTAINED.get() {
                SAID.replace(panic.to_string().replace('\n', " "));
            } else {
                others(panic);
            }
        }));
    });
    let before = CONTAINED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    done.map_err(|_| SAID.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_says_where_it_was_and_what_it_found() {
        assert_eq!(contained(|| 5), Ok(5));
        let said = contained(|| panic!("of {} lines\nin all", 2)).unwrap_err();
        assert!(said.contains("contained.rs:") && said.ends_with("of 2 lines in all"), "{said}");
        // Another's goes where it went before.
        let outside = catch_unwind(|| panic!("not contained"));
        assert!(outside.is_err() && SAID.take().is_empty());
    }
}
