//! Whose turn it is, among attachments that all have frames: a batch is bounded in frames, bytes and segments, but what those cost is
//! only known afterwards. It is measured, and who took more than the others waits until they have had as much.
//!
//! What must stay true:
//!
//! * While two attachments always have frames, the worker spends the same time on each, give or take [`SLACK`] and one batch, however
//!   many rings they have and whatever their frames cost.
//! * Nobody waits long for those who have nothing to send: when nobody else had frames for [`GRACE`], all debts are forgiven. Not at
//!   once, because a guest that is fast still takes a moment to fill its ring again.
//!
//! ```text
//!   a turn:  those in debt sit out, the others' time is added to their debt; the least debt of those who had frames is then
//!            taken off everybody's
//! ```

/// Cycles by which one attachment may be ahead of the others: some batches of ordinary frames, so that those are not held up by
/// each other's differences.
const SLACK: u64 = 1 << 16;

/// Cycles without anybody's frames after which debts are forgiven: some tens of microseconds, as a guest needs to answer an interrupt or
/// to fill its ring.
const GRACE: u64 = 1 << 17;

/// What one attachment owes.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Cycles spent on it more than on the one on which least was spent.
    debt: u64,
    /// It had frames in this turn.
    busy: bool,
    /// It is among [`Turns::open`].
    open: bool,
}

/// The accounts of a worker's attachments, by port number.
#[derive(Debug, Default)]
pub(super) struct Turns {
    accounts: Vec<Account>,
    /// Ports that owe something or had frames in this turn, each once: a turn costs nothing for those that have neither.
    open: Vec<u16>,
    /// When somebody last had frames, in cycles.
    busy_at: u64,
}

impl Turns {
    /// Makes room for `port`, so that nothing grows on the data path.
    pub(super) fn admit(&mut self, port: u16) {
        if self.accounts.len() <= usize::from(port) {
            self.accounts.resize(usize::from(port) + 1, Account::default());
        }
        self.open.reserve(self.accounts.len());
    }

    /// Whether `port` is not too far ahead of the others.
    #[inline]
    pub(super) fn may_go(&self, port: u16) -> bool {
        self.accounts.get(usize::from(port)).is_none_or(|account| account.debt <= SLACK)
    }

    /// `port` had frames, which cost so many cycles.
    #[inline]
    pub(super) fn spent(&mut self, port: u16, cycles: u64) {
        if let Some(account) = self.accounts.get_mut(usize::from(port)) {
            account.debt = account.debt.saturating_add(cycles);
            account.busy = true;
            if !account.open {
                account.open = true;
                self.open.push(port);
            }
        }
    }

    /// Ends a turn at `now`, in cycles; whether somebody still sits out.
    #[inline]
    pub(super) fn settle(&mut self, now: u64) -> bool {
        let Self { accounts, open, busy_at } = self;
        let of = |port: &u16| accounts.get(usize::from(*port)).filter(|account| account.busy);
        let least = open.iter().filter_map(of).map(|account| account.debt).min();
        if least.is_some() {
            *busy_at = now;
        }
        let forgiven = if now.wrapping_sub(*busy_at) < GRACE { 0 } else { u64::MAX };
        let paid = least.unwrap_or(forgiven);
        let mut waiting = false;
        open.retain(|port| {
            let Some(account) = accounts.get_mut(usize::from(*port)) else { return false };
            account.busy = false;
            account.debt = account.debt.saturating_sub(paid);
            account.open = account.debt > 0;
            waiting |= account.debt > SLACK;
            account.open
        });
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs turns in which `ports` have frames whenever they may, a batch of port `n` costing `costs[n]`; what each cost in all.
    fn run(costs: &[u64], turns: usize) -> Vec<u64> {
        let mut accounts = Turns::default();
        accounts.admit(costs.len() as u16);
        let mut spent = vec![0; costs.len()];
        for _ in 0..turns {
            for (port, cost) in costs.iter().enumerate().filter(|(_, cost)| **cost > 0) {
                if accounts.may_go(port as u16) {
                    accounts.spent(port as u16, *cost);
                    spent[port] += cost;
                }
            }
            accounts.settle(spent.iter().sum());
        }
        spent
    }

    #[test]
    fn who_always_has_frames_gets_the_same_time_whatever_they_cost() {
        for costs in [[15_000, 1_600_000, 40_000], [1_000, 20_000_000, 1_000], [50_000, 50_000, 50_000]] {
            let spent = run(&costs, 200_000);
            let (least, most) = (spent.iter().min().unwrap(), spent.iter().max().unwrap());
            assert!(most - least <= SLACK + costs.iter().max().unwrap() * 2, "{costs:?}: {spent:?}");
        }
    }

    #[test]
    fn who_is_alone_never_waits() {
        assert_eq!(run(&[0, 1_600_000], 1000)[1], 1_600_000 * 1000);
    }

    #[test]
    fn a_pause_between_two_expensive_batches_does_not_clear_the_debt() {
        let mut accounts = Turns::default();
        accounts.admit(1);
        accounts.spent(1, 1_600_000);
        accounts.spent(0, 15_000);
        assert!(accounts.settle(0));
        for _ in 0..50 {
            // It has nothing just now; the other has.
            accounts.spent(0, 15_000);
            accounts.settle(1000);
        }
        assert!(!accounts.may_go(1));
        assert!(accounts.settle(1000 + GRACE - 1), "the other fills its ring");
        assert!(!accounts.settle(1000 + GRACE) && accounts.may_go(1), "nobody had frames");
    }

    #[test]
    fn several_rings_are_one_account() {
        let mut accounts = Turns::default();
        accounts.admit(1);
        (0..8).for_each(|_| accounts.spent(1, 15_000));
        accounts.spent(0, 15_000);
        assert!(accounts.settle(0));
        assert!(!accounts.may_go(1) && accounts.may_go(0));
    }
}
