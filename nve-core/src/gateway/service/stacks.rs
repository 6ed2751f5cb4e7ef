//! The stacks of all attachments: made when first asked, dropped when nobody has asked for a while.
//!
//! What must stay true: an attachment has one at most, and it is that attachment's as it is configured now; one that was made for
//! another name, MAC or address is never asked again.

use core::time::Duration;
use std::collections::BTreeMap;

use super::metadata::{self, Asker};
use super::stack::Stack;
use super::tokens::Tokens;
use crate::pipeline::PortId;
use crate::policy::World;

/// How long a stack is kept that nobody asks anything.
const IDLE: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Stacks {
    stacks: BTreeMap<PortId, Stack>,
    /// Of the next stack's sequence numbers.
    seed: u64,
    tokens: Tokens,
    /// No stack is due earlier.
    due: Option<Duration>,
}

impl Stacks {
    pub(crate) fn new(seed: u64) -> Self {
        Self { stacks: BTreeMap::new(), seed, tokens: Tokens::default(), due: None }
    }

    /// Serves a frame that `service::admit` let through.
    pub(crate) fn take(
        &mut self,
        world: &World,
        now: Duration,
        (port, frame): (PortId, &[u8]),
        say: &mut dyn FnMut(PortId, Vec<u8>),
    ) {
        let Some(asker) = asker(world, port) else {
            self.forget(port);
            return;
        };
        if self.stacks.get(&port).is_some_and(|stack| !stack.is_of(&asker)) {
            self.forget(port);
        }
        let seed = &mut self.seed;
        let stack = self.stacks.entry(port).or_insert_with(|| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Stack::new(&asker, *seed, now)
        });
        let answer = |asked: &_| metadata::answer(&asker, &self.tokens, asked, now);
        stack.take(now, frame, &answer, &mut |frame| say(port, frame));
        let due = next(stack, now);
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, world: &World, now: Duration, say: &mut dyn FnMut(PortId, Vec<u8>)) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let mut earliest: Option<Duration> = None;
        self.stacks.retain(|port, stack| {
            let asker = asker(world, *port).filter(|asker| stack.is_of(asker));
            let Some(asker) = asker.filter(|_| stack.used() + IDLE > now) else { return false };
            let answer = |asked: &_| metadata::answer(&asker, &self.tokens, asked, now);
            stack.poll(now, &answer, &mut |frame| say(*port, frame));
            let due = next(stack, now);
            earliest = Some(earliest.map_or(due, |earlier| earlier.min(due)));
            true
        });
        self.due = earliest;
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Drops the attachment's stack and all it held.
    pub(crate) fn forget(&mut self, port: PortId) {
        self.stacks.remove(&port);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.stacks.len()
    }
}

fn asker(world: &World, port: PortId) -> Option<Asker<'_>> {
    let attachment = world.attachment(port)?;
    let network = world.network(attachment.network).filter(|network| network.metadata)?;
    Some(Asker { attachment, network })
}

/// When `stack` is due: its own time, or that of being dropped.
fn next(stack: &mut Stack, now: Duration) -> Duration {
    let idle = stack.used() + IDLE;
    stack.due(now).map_or(idle, |due| due.min(idle))
}
