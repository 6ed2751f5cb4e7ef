use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn sir() -> SirPrefix {
    "2001:db8:51::/64".parse().unwrap()
}

fn host(n: u8) -> Locator {
    format!("2001:db8:0:{n}::/64").parse().unwrap()
}

fn task(n: u64) -> SirAddress {
    sir().address(Identifier::local(n).unwrap())
}

/// A registry in a file of its own, which can be opened again.
struct Kept {
    directory: tempfile::TempDir,
    registry: Option<Embedded>,
}

impl Kept {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = Some(Embedded::open(&directory.path().join("registry.redb"), vec![sir()]).unwrap());
        Self { directory, registry }
    }
    fn registry(&self) -> &Embedded {
        self.registry.as_ref().unwrap()
    }
    /// As after a restart of the daemon.
    fn reopen(&mut self) {
        self.registry = None;
        self.registry =
            Some(Embedded::open(&self.directory.path().join("registry.redb"), vec![sir()]).unwrap());
    }
}

/// What a configuration of host 1 says that has attachments with these.
fn held(numbers: &[u64]) -> Vec<(SirAddress, Locator)> {
    numbers.iter().map(|n| (task(*n), host(1))).collect()
}

#[test]
fn a_duplicate_is_denied_and_the_holder_named() {
    let kept = Kept::new();
    let first = kept.registry().register(task(1), host(1), 1000).unwrap();
    let denied = kept.registry().register(task(1), host(2), 2000).unwrap_err();
    assert_eq!(denied.holder(), Some(first));
    assert_eq!(denied.to_string(), "it is registered already: 2001:db8:0:1::/64 holds it (epoch 1000)");
    assert!(
        kept.registry().register(task(1), host(1), 2000).is_err(),
        "twice by its holder is a duplicate, too"
    );
    assert_eq!(kept.registry().holder(task(1)), Ok(Some(first)));
    assert!(kept.registry().register(task(2), host(2), 2000).is_ok(), "another identifier");
}

#[test]
fn only_the_holder_unregisters() {
    let kept = Kept::new();
    kept.registry().register(task(1), host(1), 1000).unwrap();
    let denied = kept.registry().unregister(task(1), host(2)).unwrap_err();
    assert_eq!(denied.holder().unwrap().locator, host(1));
    assert_eq!(kept.registry().unregister(task(1), host(1)), Ok(()));
    assert_eq!(kept.registry().unregister(task(1), host(1)), Err(Denied::Unknown));
}

#[test]
fn a_move_with_the_holders_word_is_no_duplicate_and_any_other_is_denied() {
    let kept = Kept::new();
    let first = kept.registry().register(task(1), host(1), 1000).unwrap();
    assert_eq!(kept.registry().move_to(task(1), host(3), host(2), 2000), Err(Denied::NotHolder(first)));
    let moved = kept.registry().move_to(task(1), host(1), host(2), 2000).unwrap();
    assert!(moved.locator == host(2) && moved.epoch > first.epoch);
    assert_eq!(kept.registry().move_to(task(9), host(1), host(2), 2000), Err(Denied::Unknown));
}

#[test]
fn epochs_rise_when_the_clock_does_not_and_over_an_unregistration() {
    let mut kept = Kept::new();
    let mut last = kept.registry().register(task(1), host(1), 5000).unwrap().epoch;
    for (from, to) in [(1, 2), (2, 1), (1, 3)] {
        let moved = kept.registry().move_to(task(1), host(from), host(to), 10).unwrap();
        assert!(moved.epoch > last);
        last = moved.epoch;
        kept.reopen();
    }
    kept.registry().unregister(task(1), host(3)).unwrap();
    assert!(kept.registry().register(task(1), host(1), 10).unwrap().epoch > last);
}

#[test]
fn no_epoch_is_given_twice_when_they_are_used_up() {
    let kept = Kept::new();
    let last = kept.registry().register(task(1), host(1), u64::MAX).unwrap();
    let denied = kept.registry().move_to(task(1), host(1), host(2), 1000).unwrap_err();
    assert!(denied.to_string().contains("used up"), "{denied}");
    assert_eq!(kept.registry().holder(task(1)), Ok(Some(last)));
}

#[test]
fn everything_survives_a_restart_and_no_second_process_has_the_file() {
    let mut kept = Kept::new();
    kept.registry().register(task(1), host(1), 1000).unwrap();
    kept.registry().settle(&[host(1)], &held(&[2]), 1001).unwrap();
    let before = kept.registry().registrations().unwrap();
    let second = Embedded::open(&kept.directory.path().join("registry.redb"), vec![sir()]);
    assert!(matches!(second, Err(Denied::Unavailable(_))), "{second:?}");
    kept.reopen();
    assert_eq!(kept.registry().registrations().unwrap(), before);
    assert_eq!(before.len(), 2);
}

#[test]
fn two_domains_do_not_know_each_other() {
    let mut kept = Kept::new();
    kept.registry().register(task(1), host(1), 1000).unwrap();
    kept.registry = None;
    let path = kept.directory.path().join("registry.redb");
    let domain: SirPrefix = "2001:db8:52::/64".parse().unwrap();
    let other = Embedded::open(&path, vec![domain]).unwrap();
    assert_eq!(other.registrations(), Ok(vec![]));
    let same = domain.address(Identifier::local(1).unwrap());
    assert_eq!(other.register(same, host(2), 1).map(drop), Ok(()));
    assert_eq!(other.registrations().unwrap().len(), 1);
}

#[test]
fn what_is_no_registry_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    std::fs::write(&path, [0xa5; 8192]).unwrap();
    assert!(matches!(Embedded::open(&path, vec![sir()]), Err(Denied::Unavailable(_))));
    assert_eq!(std::fs::read(&path).unwrap(), [0xa5; 8192]);
}

#[test]
fn a_registry_that_was_damaged_is_refused_when_it_is_opened() {
    let mut kept = Kept::new();
    for n in 1..200 {
        kept.registry().register(task(n), host(1), 1000).unwrap();
    }
    kept.reopen();
    kept.registry = None;
    let path = kept.directory.path().join("registry.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    // All but what says what the file is.
    bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(Embedded::open(&path, vec![sir()]), Err(Denied::Unavailable(_))));
}

#[test]
fn a_hosts_own_are_settled_all_or_nothing() {
    let kept = Kept::new();
    let registry = kept.registry();
    registry.settle(&[host(1)], &held(&[1, 2]), 1000).unwrap();
    let first = registry.holder(task(1)).unwrap().unwrap();
    assert_eq!((first.locator, first.by), (host(1), Claimant::Config));

    let elsewhere = registry.register(task(3), host(2), 1001).unwrap();
    let denied = registry.settle(&[host(1)], &held(&[2, 3, 4]), 1002).unwrap_err();
    assert_eq!(denied, Unsettled::Elsewhere(vec![elsewhere]));
    assert_eq!(registry.holder(task(1)), Ok(Some(first)), "nothing has changed");
    assert_eq!(registry.holder(task(4)), Ok(None));

    registry.settle(&[host(1)], &held(&[2, 4]), 1003).unwrap();
    assert_eq!(registry.holder(task(1)), Ok(None), "what the configuration no longer says is given up");
    assert!(registry.holder(task(4)).unwrap().is_some());
    assert_eq!(registry.holder(task(3)), Ok(Some(elsewhere)));
}

#[test]
fn a_configurations_mapping_must_agree_with_the_registry() {
    let kept = Kept::new();
    let registry = kept.registry();
    let known = registry.register(task(3), host(2), 1000).unwrap();
    assert_eq!(
        registry.settle(&[host(1)], &[(task(3), host(3))], 1001),
        Err(Unsettled::Elsewhere(vec![known]))
    );
    assert!(registry.settle(&[host(1)], &[(task(3), host(2))], 1001).is_ok());
    assert_eq!(
        registry.settle(&[host(1)], &[(task(3), host(1)), (task(3), host(2))], 1001),
        Ok(Settled::default()),
        "one of several"
    );
    assert_eq!(registry.holder(task(3)), Ok(Some(known)));
}

#[test]
fn what_left_the_configuration_may_live_elsewhere_in_the_next() {
    let kept = Kept::new();
    kept.registry().settle(&[host(1)], &held(&[1]), 1000).unwrap();
    assert!(kept.registry().settle(&[host(1)], &[(task(1), host(2))], 1001).is_ok());
    assert_eq!(
        kept.registry().holder(task(1)),
        Ok(None),
        "the configuration says it, and nobody registered it"
    );
}

#[test]
fn what_was_moved_here_by_request_becomes_the_configurations_and_keeps_its_epoch() {
    let kept = Kept::new();
    let registry = kept.registry();
    registry.register(task(1), host(2), 1000).unwrap();
    let moved = registry.move_to(task(1), host(2), host(1), 2000).unwrap();
    registry.settle(&[host(1)], &held(&[]), 2500).unwrap();
    assert_eq!(registry.holder(task(1)), Ok(Some(moved)), "not before the configuration says so");
    registry.settle(&[host(1)], &held(&[1]), 3000).unwrap();
    let by = Claimant::Config;
    assert_eq!(registry.holder(task(1)), Ok(Some(Registration { by, ..moved })));
}

#[test]
fn what_a_configuration_changed_that_did_not_come_in_force_is_as_it_was() {
    let mut kept = Kept::new();
    kept.registry().settle(&[host(1)], &held(&[1, 2]), 1000).unwrap();
    kept.registry().register(task(3), host(1), 1001).unwrap();
    kept.registry().register(task(4), host(2), 1002).unwrap();
    let before = kept.registry().registrations().unwrap();

    // Task 1 goes, what was asked for of task 3 becomes the configuration's, task 5 comes.
    let settled = kept.registry().settle(&[host(1)], &held(&[2, 3, 5]), 2000).unwrap();
    let tried = kept.registry().registrations().unwrap();
    assert_eq!(tried.len(), 4);
    assert_ne!(tried, before);
    kept.registry().unsettle(settled).unwrap();
    kept.reopen();
    assert_eq!(kept.registry().registrations().unwrap(), before);
    let last = tried.iter().map(|known| known.epoch).max().unwrap();
    let next = kept.registry().register(task(5), host(2), 10).unwrap();
    assert!(next.epoch > last, "no epoch is given twice, even if nobody saw it");
}

#[derive(Clone, Debug)]
enum Step {
    Register(u64, u8),
    Unregister(u64, u8),
    Move(u64, u8, u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (id, host) = (0u64..4, 1u8..4);
    prop_oneof![
        4 => (id.clone(), host.clone()).prop_map(|(id, at)| Step::Register(id, at)),
        3 => (id.clone(), host.clone()).prop_map(|(id, at)| Step::Unregister(id, at)),
        4 => (id, host.clone(), host).prop_map(|(id, from, to)| Step::Move(id, from, to)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Against a model: one holder each, epochs that only rise, the denial names the holder.
    #[test]
    fn any_order_of_requests_leaves_one_holder_each(steps in prop::collection::vec(step(), 1..60)) {
        let mut kept = Kept::new();
        let mut model: HashMap<u64, u8> = HashMap::new();
        let mut highest = 0;
        for step in steps {
            let registry = kept.registry();
            let outcome = match step {
                Step::Register(id, at) => {
                    let known = model.get(&id).copied();
                    if known.is_none() { model.insert(id, at); }
                    (registry.register(task(id), host(at), 1), known.is_none(), known)
                }
                Step::Move(id, from, to) => {
                    let known = model.get(&id).copied();
                    if known == Some(from) { model.insert(id, to); }
                    (registry.move_to(task(id), host(from), host(to), 1), known == Some(from), known)
                }
                Step::Unregister(id, at) => {
                    let known = model.get(&id).copied();
                    prop_assert_eq!(registry.unregister(task(id), host(at)).is_ok(), known == Some(at));
                    if known == Some(at) { model.remove(&id); }
                    continue;
                }
                Step::Reopen => { kept.reopen(); continue; }
            };
            match outcome {
                (Ok(given), true, _) => {
                    prop_assert!(given.epoch > highest);
                    highest = given.epoch;
                }
                (Err(denied), false, known) => prop_assert_eq!(denied.holder().map(|h| h.locator), known.map(host)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        let all: HashMap<u64, Locator> =
            kept.registry().registrations().unwrap().into_iter().map(|r| (r.identifier.identifier().bits() & 0xff, r.locator)).collect();
        prop_assert_eq!(all, model.into_iter().map(|(id, at)| (id, host(at))).collect());
    }
}

#[test]
fn a_bulk_is_its_changes_one_after_the_other_and_what_is_denied_of_it_changes_nothing() {
    let mut kept = Kept::new();
    let update = |n, wish| Update { identifier: task(n), wish, now: 1000 };
    let outcomes = kept
        .registry()
        .update(&[
            update(1, Wish::Register(host(1))),
            update(1, Wish::Register(host(2))),
            update(1, Wish::Move(host(1), host(2))),
            update(2, Wish::Register(host(1))),
            update(2, Wish::Move(host(3), host(4))),
            update(3, Wish::Register(host(3))),
            update(3, Wish::Unregister(host(3))),
            update(4, Wish::Unregister(host(1))),
        ])
        .unwrap();
    let held = |outcome: &Result<Option<Registration>, Denied>| match outcome {
        Ok(Some(new)) => Some((new.locator, new.epoch)),
        _ => None,
    };
    assert_eq!(held(&outcomes[0]), Some((host(1), 1000)));
    assert!(matches!(outcomes[1], Err(Denied::Held(holder)) if holder.locator == host(1)));
    assert_eq!(held(&outcomes[2]), Some((host(2), 1001)), "a later epoch");
    assert_eq!(held(&outcomes[3]), Some((host(1), 1002)));
    assert!(matches!(outcomes[4], Err(Denied::NotHolder(_))));
    assert_eq!((&outcomes[6], &outcomes[7]), (&Ok(None), &Err(Denied::Unknown)));
    kept.reopen();
    let all: Vec<_> = kept.registry().registrations().unwrap();
    let all: Vec<_> = all.iter().map(|known| (known.identifier, known.locator)).collect();
    assert_eq!(all, [(task(1), host(2)), (task(2), host(1))]);
    assert_eq!(kept.registry().register(task(9), host(1), 0).unwrap().epoch, 1004, "none comes twice");
}
