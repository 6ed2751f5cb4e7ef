//! Work that mostly waits, or has one processor's worth each, done side by side.
//!
//! What must stay true: each thing is done once, begun in the order given; an error ends its lane, and the others go on to their ends.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Does `work` for each of `all` in so many lanes, each of which takes the next; what came of each, in no order.
///
/// # Errors
///
/// Fails as `work` does.
pub(crate) fn run<T: Copy + Send, R: Send>(
    all: Vec<T>,
    lanes: usize,
    work: &(impl Fn(T) -> Result<R> + Sync),
) -> Result<Vec<(T, R)>> {
    let waiting = Mutex::new(VecDeque::from(all));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let lane = || std::iter::from_fn(next).map(|one| Ok((one, work(one)?))).collect::<Result<Vec<_>>>();
    thread::scope(|scope| {
        let running: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let mut done = Vec::new();
        for thread in running {
            done.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(done)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use anyhow::ensure;

    use super::*;

    #[test]
    fn two_lanes_do_everything_once_and_two_at_a_time() {
        let names = ["a", "b", "c", "d"];
        // Nobody passes unless another is there.
        let two = Barrier::new(2);
        let work = |name: &str| {
            two.wait();
            Ok(name.len())
        };
        let mut done = run(names.to_vec(), 2, &work).unwrap();
        done.sort_unstable();
        assert_eq!(done, names.map(|name| (name, 1)));
    }

    #[test]
    fn one_lane_keeps_the_order_and_an_error_ends_it() {
        let begun = Mutex::new(Vec::new());
        let result = run(vec!["a", "b", "c"], 1, &|name| {
            begun.lock().unwrap().push(name);
            ensure!(name != "b", "it cannot be started");
            Ok(())
        });
        assert!(result.is_err());
        assert_eq!(*begun.lock().unwrap(), ["a", "b"]);
    }
}
