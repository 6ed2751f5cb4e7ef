//! The world that is: swapped whole by whoever changes the setup, pinned by each worker for a batch.
//!
//! What must stay true: every change is counted, after it can be seen. A worker that reads a count and then the world has at least the world
//! of that count, so that it never holds an old one while the counts agree.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Release};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::policy::World;

#[derive(Debug)]
pub(super) struct Worlds {
    current: ArcSwap<World>,
    changes: AtomicU64,
}

impl Worlds {
    pub(super) fn of(world: World) -> Self {
        Self { current: ArcSwap::from_pointee(world), changes: AtomicU64::new(0) }
    }
    /// As it is now, for a moment.
    pub(super) fn load(&self) -> Guard<Arc<World>> {
        self.current.load()
    }
    /// As it is now, to keep.
    pub(super) fn load_full(&self) -> Arc<World> {
        self.current.load_full()
    }
    /// Makes `world` the one that is; gives back the one before.
    pub(super) fn change(&self, world: World) -> Arc<World> {
        let before = self.current.swap(Arc::new(world));
        self.changes.fetch_add(1, Release);
        before
    }
    /// How often it has changed: a plain load, where the world itself costs two locked operations, which wait for every store under way.
    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Acquire)
    }
}
