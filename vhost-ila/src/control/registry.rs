//! Who holds which identifier: what the configuration says, what was asked for, and the data path told of it.
//!
//! ```text
//!   start, reload ── settle ──> Embedded: attachments' identifiers are this host's     elsewhere already? the config is refused
//!   reload that fails ── unsettle ──> Embedded: every row that settle changed, as it was
//!   API ── register, move, unregister ──> Configured (says it? denied) ──> Embedded ──> Nve::learn, forget
//! ```
//!
//! What must stay true: the caller holds the configuration, so that there is one change at a time; a change that the data path cannot take is
//! taken back, and answered so.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use nve_core::addr::{Locator, SirAddress};
use nve_core::pipeline::{Learned, NotLearned, Nve, Source};
use nve_core::redirect::EPOCH_AHEAD;
use nve_core::setup::{Said, SetupError};

use super::answer::{self, Denial, DeniedUpdate, Problem, Refusal};
use crate::authority::{
    Authority, Claimant, Configured, Denied, Embedded, Registration, Settled, Unsettled, Update, Wish,
};
use crate::config::{AuthorityConfig, Config};

/// Its file in the state directory.
const FILE: &str = "registry.redb";

/// The registry of this host, if it keeps one.
#[derive(Debug, Default)]
pub struct Registry {
    embedded: Option<Embedded>,
    /// What the log knows that the data path could not take, since it last could.
    untaught: Mutex<HashMap<SirAddress, (Locator, NotLearned)>>,
}

/// Why a request was denied.
#[derive(Debug)]
pub(super) enum Reason {
    /// It names what cannot be.
    Request(Denial),
    /// An authority says so.
    Denied(Denial, Denied),
}

/// An identifier of a request, and what messages call it.
struct Subject {
    object: String,
    identifier: SirAddress,
}

impl Registry {
    /// The one that `config` asks for, in agreement with it.
    ///
    /// # Errors
    /// It cannot be opened, or says that identifiers of the config live elsewhere.
    pub fn open(config: &Config) -> Result<Self> {
        let AuthorityConfig::Embedded { state } = &config.authority else { return Ok(Self::default()) };
        let at = || format!("the state directory {}", state.display());
        crate::private::directory(state).with_context(at)?;
        let path = state.join(FILE);
        let domains = config.setup.setup().domains().map(|domain| domain.sir).collect();
        let embedded = Embedded::open(&path, domains);
        let embedded = embedded.with_context(|| path.display().to_string())?;
        let registry = Self { embedded: Some(embedded), ..Self::default() };
        registry.settle(config).map_err(|refusal| anyhow!("the config is refused:\n{}", refusal.error))?;
        Ok(registry)
    }

    /// Makes the registry agree with `config`. What that changed, for [`Self::unsettle`].
    ///
    /// # Errors
    /// Others hold what `config` gives away: each by file and line. Nothing has changed.
    pub(super) fn settle(&self, config: &Config) -> Result<Settled, Refusal> {
        let Some(embedded) = &self.embedded else { return Ok(Settled::default()) };
        let said = config.setup.residences();
        let places: Vec<_> = said.iter().map(|said| (said.identifier, said.locator)).collect();
        match embedded.settle(&own_locators(config), &places, now()) {
            Ok(settled) => Ok(settled),
            Err(Unsettled::Failed(denied)) => {
                Err(Refusal { error: denied.to_string(), problems: Vec::new() })
            }
            Err(Unsettled::Elsewhere(elsewhere)) => Err(refusal(config, &said, &elsewhere)),
        }
    }

    /// The registry as it was before [`Self::settle`]. Where that cannot be, the log says so.
    pub(super) fn unsettle(&self, settled: Settled) {
        if let Some(Err(denied)) = self.embedded.as_ref().map(|embedded| embedded.unsettle(settled)) {
            log::error!("the registry could not be restored: {denied}");
        }
    }

    /// Tells the data path all that is registered elsewhere, and not said by `config`.
    pub(super) fn feed(&self, config: &Config, nve: &Nve) {
        let Some(embedded) = &self.embedded else { return };
        let configured = Configured::new(&config.setup);
        let said = |known: &Registration| matches!(configured.holder(known.identifier), Ok(Some(_)));
        let known = embedded.registrations().unwrap_or_else(|denied| {
            log::error!("{denied}");
            Vec::new()
        });
        let own = own_locators(config);
        let elsewhere: Vec<_> =
            known.iter().filter(|known| !own.contains(&known.locator) && !said(known)).collect();
        for (known, error) in self.teach_all(&elsewhere, nve) {
            log::warn!("registered {} at {}: {error}", known.identifier.ipv6(), known.locator);
        }
    }

    /// Tells the data path all of `elsewhere`; what it cannot take that it could, or could not for another reason, the last time.
    fn teach_all<'a>(
        &self,
        elsewhere: &[&'a Registration],
        nve: &Nve,
    ) -> Vec<(&'a Registration, NotLearned)> {
        let failed = elsewhere.iter().filter_map(|known| match teach(nve, known) {
            // A redirect has told of a later move, and ends: nothing is amiss.
            Ok(_) | Err(NotLearned::OldEpoch(_)) => None,
            Err(error) => Some((*known, error)),
        });
        let failed: Vec<_> = failed.collect();
        let now = failed.iter().map(|(known, error)| (known.identifier, (known.locator, *error))).collect();
        let mut untaught = self.untaught.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *untaught, now);
        let is_news = |(known, error): &(&Registration, NotLearned)| {
            before.get(&known.identifier) != Some(&(known.locator, *error))
        };
        failed.into_iter().filter(is_news).collect()
    }

    pub(super) fn list(&self, config: &Config) -> Result<Vec<answer::Registration>, Reason> {
        let fails = |denied| Reason::about("the registry", denied);
        let configured = Configured::new(&config.setup).registrations().map_err(fails)?;
        let mut all = match &self.embedded {
            Some(embedded) => embedded.registrations().map_err(fails)?,
            None => Vec::new(),
        };
        let known: HashSet<_> = all.iter().map(|known| (known.identifier, known.locator)).collect();
        all.extend(configured.iter().filter(|said| !known.contains(&(said.identifier, said.locator))));
        let mut lines: Vec<_> = all.iter().map(|known| line(config, known)).collect();
        lines.sort_by(|a, b| (&a.network, a.address, &a.locator).cmp(&(&b.network, b.address, &b.locator)));
        Ok(lines)
    }

    pub(super) fn register(
        &self,
        (config, nve): (&Config, &Nve),
        request: &answer::Held,
    ) -> Result<answer::Registration, Reason> {
        let subject = Subject::of(config, request.network.as_deref(), request.address)?;
        let locator = subject.locator(config, &request.locator)?;
        let embedded = self.asked(config, &subject)?;
        let new = embedded.register(subject.identifier, locator, subject.later(nve, now())?);
        let new = new.map_err(|denied| subject.denied(denied))?;
        self.tell((config, nve), &subject, &new, || undo(embedded, Wish::Register(locator), &new))?;
        Ok(line(config, &new))
    }

    pub(super) fn move_to(
        &self,
        (config, nve): (&Config, &Nve),
        request: &answer::Move,
    ) -> Result<answer::Registration, Reason> {
        let subject = Subject::of(config, request.network.as_deref(), request.address)?;
        let from = subject.locator(config, &request.from)?;
        let to = subject.locator(config, &request.to)?;
        if from == to {
            return Err(subject.refused("it would move to where it is"));
        }
        let embedded = self.asked(config, &subject)?;
        let moved = embedded.move_to(subject.identifier, from, to, subject.later(nve, now())?);
        let moved = moved.map_err(|denied| subject.denied(denied))?;
        self.tell((config, nve), &subject, &moved, || undo(embedded, Wish::Move(from, to), &moved))?;
        Ok(line(config, &moved))
    }

    pub(super) fn unregister(
        &self,
        (config, nve): (&Config, &Nve),
        request: &answer::Held,
    ) -> Result<(), Reason> {
        let subject = Subject::of(config, request.network.as_deref(), request.address)?;
        let locator = subject.locator(config, &request.locator)?;
        let embedded = self.asked(config, &subject)?;
        embedded.unregister(subject.identifier, locator).map_err(|denied| subject.denied(denied))?;
        subject.forget(nve);
        Ok(())
    }

    /// Makes many changes, each as by itself, with one commit for all.
    pub(super) fn update(
        &self,
        (config, nve): (&Config, &Nve),
        requests: &[answer::Update],
    ) -> Result<answer::Updated, Reason> {
        let (configured, now) = (Configured::new(&config.setup), now());
        let mut updated = answer::Updated::default();
        let mut wanted = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            match self.wanted((config, &configured, nve), request, now) {
                Ok((subject, update)) => wanted.push((at, subject, update)),
                Err(reason) => updated.deny(at, reason),
            }
        }
        let Some(embedded) = &self.embedded else { return Ok(updated) };
        let updates: Vec<Update> = wanted.iter().map(|(.., update)| *update).collect();
        let outcomes = embedded.update(&updates);
        let outcomes = outcomes.map_err(|denied| Reason::about("the registry", denied))?;
        for ((at, subject, Update { wish, .. }), outcome) in wanted.into_iter().zip(outcomes) {
            let told = match outcome {
                Ok(Some(new)) => self.tell((config, nve), &subject, &new, || undo(embedded, wish, &new)),
                Ok(None) => {
                    subject.forget(nve);
                    Ok(())
                }
                Err(denied) => Err(subject.denied(denied)),
            };
            match told {
                Ok(()) => updated.changed += 1,
                Err(reason) => updated.deny(at, reason),
            }
        }
        Ok(updated)
    }

    /// What `request` asks of the registry, if the configuration does not decide.
    fn wanted(
        &self,
        (config, configured, nve): (&Config, &Configured, &Nve),
        request: &answer::Update,
        now: u64,
    ) -> Result<(Subject, Update), Reason> {
        let (network, address) = match request {
            answer::Update::Register(held) | answer::Update::Unregister(held) => {
                (&held.network, held.address)
            }
            answer::Update::Move(moved) => (&moved.network, moved.address),
        };
        let subject = Subject::of(config, network.as_deref(), address)?;
        let at = |text: &str| subject.locator(config, text);
        let wish = match request {
            answer::Update::Register(held) => Wish::Register(at(&held.locator)?),
            answer::Update::Unregister(held) => Wish::Unregister(at(&held.locator)?),
            answer::Update::Move(moved) if moved.from == moved.to => {
                return Err(subject.refused("it would move to where it is"));
            }
            answer::Update::Move(moved) => Wish::Move(at(&moved.from)?, at(&moved.to)?),
        };
        self.asked_beside((config, configured), &subject)?;
        let update = Update { identifier: subject.identifier, wish, now: subject.later(nve, now)? };
        Ok((subject, update))
    }

    /// Whoever decides on `subject`: the registry, unless the configuration does.
    fn asked(&self, config: &Config, subject: &Subject) -> Result<&Embedded, Reason> {
        self.asked_beside((config, &Configured::new(&config.setup)), subject)
    }

    fn asked_beside(
        &self,
        (config, configured): (&Config, &Configured),
        subject: &Subject,
    ) -> Result<&Embedded, Reason> {
        let said = configured.holder(subject.identifier);
        match (said.map_err(|denied| subject.denied(denied))?, &self.embedded) {
            (Some(said), _) => Err(subject.denied(Denied::Configured(said))),
            (None, Some(embedded)) => Ok(embedded),
            (None, None) => Err(subject.denied(without_registry(config, subject.identifier))),
        }
    }

    /// Has the data path follow `new`; where it cannot, the registry takes it back by `undo`.
    fn tell(
        &self,
        (config, nve): (&Config, &Nve),
        subject: &Subject,
        new: &Registration,
        undo: impl FnOnce() -> Result<(), Denied>,
    ) -> Result<(), Reason> {
        if own_locators(config).contains(&new.locator) {
            // It waits for the attachment that the configuration is going to give it.
            subject.forget(nve);
            return Ok(());
        }
        teach(nve, new).map(drop).map_err(|error| {
            if let Err(denied) = undo() {
                log::error!("{}: {denied}", subject.object);
            }
            subject.refused(error)
        })
    }
}

/// Takes back what `wish` made `new`.
fn undo(embedded: &Embedded, wish: Wish, new: &Registration) -> Result<(), Denied> {
    match wish {
        Wish::Move(from, to) => embedded.move_to(new.identifier, to, from, new.epoch).map(drop),
        Wish::Register(_) | Wish::Unregister(_) => embedded.unregister(new.identifier, new.locator),
    }
}

impl answer::Updated {
    fn deny(&mut self, at: usize, reason: Reason) {
        let (Reason::Request(denial) | Reason::Denied(denial, _)) = reason;
        self.denied.push(DeniedUpdate { at, denial });
    }
}

impl Subject {
    fn of(config: &Config, network: Option<&str>, address: IpAddr) -> Result<Self, Reason> {
        let object = match network {
            Some(network) => format!("{address} in {network}"),
            None => address.to_string(),
        };
        let identifier = config.setup.identifier(&object, network, address).map_err(Reason::from)?;
        Ok(Self { object, identifier })
    }

    fn locator(&self, config: &Config, text: &str) -> Result<Locator, Reason> {
        let locator =
            text.parse().map_err(|error| self.refused(format_args!("locator {text:?}: {error}")))?;
        config.setup.judge_locator(&self.object, self.identifier, locator).map_err(Reason::from)?;
        Ok(locator)
    }

    fn forget(&self, nve: &Nve) {
        nve.key(self.identifier).map(|key| nve.forget(key));
    }

    /// `now`, or after the last word that the data path has of it: from a redirect by a host whose clock is ahead. Not from one that is
    /// ahead by more than a redirect's may be: every later epoch of the registry would be, too.
    fn later(&self, nve: &Nve, now: u64) -> Result<u64, Reason> {
        let heard = nve
            .key(self.identifier)
            .and_then(|key| nve.residence(key))
            .map_or(0, |residence| residence.epoch);
        let latest = now.saturating_add(u64::try_from(EPOCH_AHEAD.as_millis()).unwrap_or(u64::MAX));
        if heard > latest {
            let why =
                format_args!("epoch {heard} is known of it, more than a day ahead of this host's clock");
            return Err(self.refused(why));
        }
        Ok(now.max(heard.saturating_add(1)))
    }

    fn refused(&self, why: impl std::fmt::Display) -> Reason {
        Reason::Request(Denial { error: format!("{}: {why}", self.object), holder: None })
    }

    fn denied(&self, denied: Denied) -> Reason {
        Reason::about(&self.object, denied)
    }
}

impl Reason {
    fn about(object: &str, denied: Denied) -> Self {
        Self::Denied(Denial::new(object, &denied), denied)
    }
}

impl From<SetupError> for Reason {
    fn from(error: SetupError) -> Self {
        Self::Request(Denial { error: error.to_string(), holder: None })
    }
}

fn teach(nve: &Nve, known: &Registration) -> Result<(), NotLearned> {
    let since = crate::epoch::now();
    let learned = Learned { source: Source::Registered, epoch: known.epoch, since, until: None };
    let key = nve.key(known.identifier).ok_or(NotLearned::NoEndpoint)?;
    nve.learn(key, known.locator, learned).map(drop)
}

/// Where this host is, in each domain.
fn own_locators(config: &Config) -> Vec<Locator> {
    config.setup.setup().domains().map(|domain| domain.locator).collect()
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why nothing is registered on a host without a registry: of its mappings' file, that says who has `identifier`, or would.
fn without_registry(config: &Config, identifier: SirAddress) -> Denied {
    match config.setup.listed(identifier) {
        Some(locator) => {
            Denied::Configured(Registration { identifier, locator, epoch: 0, by: Claimant::Config })
        }
        None if config.setup.setup().bulk.is_none() => Denied::NoRegistry,
        None => Denied::ListedOnly,
    }
}

fn line(config: &Config, known: &Registration) -> answer::Registration {
    let (network, address) = config.setup.named(known.identifier);
    answer::Registration {
        network: network.map(str::to_owned),
        address,
        identifier: format!("{:016x}", known.identifier.identifier()),
        locator: known.locator.to_string(),
        epoch: known.epoch,
        by: known.by.name().to_owned(),
    }
}

/// Each object of `config` that has what others hold.
fn refusal(config: &Config, said: &[Said], elsewhere: &[Registration]) -> Refusal {
    let of = |known: &Registration| {
        let said = said.iter().find(|said| said.identifier == known.identifier)?;
        let (network, address) = config.setup.named(known.identifier);
        let network = network.map(|network| format!(" --network {network}")).unwrap_or_default();
        let place = config.place_of(&said.object);
        Some(Problem {
            file: place.file.clone(),
            line: place.line,
            what: format!("{}: {address}: {}", said.object, Denied::Held(*known)),
            remedy: format!(
                "move it first: vhost-ila mapping move {address}{network} --from {} --to {}",
                known.locator, said.locator
            ),
        })
    };
    let problems: Vec<_> = elsewhere.iter().filter_map(of).collect();
    let text = problems.iter().map(|problem| {
        let Problem { file, line, what, remedy } = problem;
        format!("{}:{line}: {what}\n  remedy: {remedy}", file.display())
    });
    Refusal { error: text.collect::<Vec<_>>().join("\n"), problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message of a host whose clock is wrong, or of worse, must not end all later registrations.
    #[test]
    fn an_epoch_far_ahead_of_the_clock_is_not_taken_over_into_the_registry() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.toml");
        let state = directory.path().join("state");
        std::fs::write(&path, format!("{CONFIG} {state:?}\n")).unwrap();
        let config = Config::load(&path).unwrap();
        let nve = Nve::new(config.setup.clone(), 100);
        let registry = Registry::open(&config).unwrap();
        let at = |address: &str, locator: &str| answer::Held {
            network: Some("blue".into()),
            address: address.parse().unwrap(),
            locator: locator.into(),
        };
        let subject = |address: &str| Subject::of(&config, Some("blue"), address.parse().unwrap()).unwrap();
        let day = u64::try_from(EPOCH_AHEAD.as_millis()).unwrap();
        let elsewhere = "2001:db8:0:9::/64".parse().unwrap();
        let hear = |address: &str, epoch| {
            let since = crate::epoch::now();
            let heard = Learned { source: Source::Redirect, epoch, since, until: None };
            nve.learn(nve.key(subject(address).identifier).unwrap(), elsewhere, heard).unwrap();
        };
        hear("10.1.0.8", u64::MAX);
        hear("10.1.0.9", now() + day / 2);
        let refused = registry.register((&config, &nve), &at("10.1.0.8", "2001:db8:0:2::/64"));
        assert!(matches!(refused, Err(Reason::Request(denial)) if denial.error.contains("ahead")));
        let ahead = registry.register((&config, &nve), &at("10.1.0.9", "2001:db8:0:2::/64")).unwrap();
        assert!(ahead.epoch > now() + day / 3, "after what was heard");
        assert!(ahead.epoch < now() + day);
    }

    #[test]
    fn a_bulk_moves_the_data_path_and_leaves_alone_what_is_denied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.toml");
        let state = directory.path().join("state");
        std::fs::write(&path, format!("{CONFIG} {state:?}\n")).unwrap();
        let config = Config::load(&path).unwrap();
        // Room for two.
        let nve = Nve::new(config.setup.clone(), 2);
        let registry = Registry::open(&config).unwrap();
        let at = |n: u8| format!("2001:db8:0:{n}::/64");
        let held = |host: u8, n: u8| answer::Held {
            network: Some("blue".into()),
            address: [10, 1, 0, host].into(),
            locator: at(n),
        };
        let moved = answer::Move {
            network: Some("blue".into()),
            address: [10, 1, 0, 7].into(),
            from: at(2),
            to: at(3),
        };
        let bulk = [
            answer::Update::Register(held(7, 2)),
            answer::Update::Move(moved),
            answer::Update::Register(held(8, 2)),
            answer::Update::Register(held(7, 9)),
            answer::Update::Register(held(9, 2)),
            answer::Update::Register(answer::Held { network: Some("red".into()), ..held(1, 2) }),
        ];
        let updated = registry.update((&config, &nve), &bulk).unwrap();
        assert_eq!(updated.changed, 3);
        let denied: Vec<_> = updated.denied.iter().map(|denied| denied.at).collect();
        assert_eq!(denied, [5, 3, 4], "first those that cannot be asked for");
        let place = |host: u8| {
            let key = Subject::of(&config, Some("blue"), [10, 1, 0, host].into()).unwrap().identifier;
            nve.residence(nve.key(key).unwrap()).map(|residence| residence.locator.to_string())
        };
        assert_eq!((place(7), place(8), place(9)), (Some(at(3)), Some(at(2)), None));
        let listed = registry.list(&config).unwrap();
        assert_eq!(listed.len(), 2, "what the data path had no room for is taken back: {listed:?}");
        let bulk = [answer::Update::Unregister(held(7, 3))];
        assert_eq!(registry.update((&config, &nve), &bulk).unwrap().changed, 1);
        assert_eq!(place(7), None);
    }

    #[test]
    fn what_the_data_path_cannot_take_is_said_once_and_not_at_every_reload() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.toml");
        std::fs::write(&path, format!("{CONFIG} {:?}\n", directory.path())).unwrap();
        let config = Config::load(&path).unwrap();
        let nve = Nve::new(config.setup.clone(), 100);
        let registry = Registry::default();
        let sir = config.setup.setup().host.sir;
        let known = |bits, locator: &str| Registration {
            identifier: sir.address(nve_core::addr::Identifier::from_bits(bits).unwrap()),
            locator: locator.parse().unwrap(),
            epoch: 7,
            by: Claimant::Request,
        };
        let taken = known(0x4000_03e9_0a01_0008, "2001:db8:0:2::/64");
        let of_no_network = known(0x4000_0009_0a01_0008, "2001:db8:0:2::/64");
        let news = |known: &[&Registration]| registry.teach_all(known, &nve).len();
        assert_eq!(news(&[&taken, &of_no_network]), 1);
        assert_eq!(news(&[&taken, &of_no_network]), 0, "nothing has changed");
        let moved = known(0x4000_0009_0a01_0008, "2001:db8:0:3::/64");
        assert_eq!(news(&[&taken, &moved]), 1, "another registration");
        assert_eq!(news(&[&taken]), 0);
        assert_eq!(news(&[&taken, &moved]), 1, "it was no trouble meanwhile");
    }

    /// `kind = "embedded"` beside `[mappings]` is refused, and so must not be the remedy.
    #[test]
    fn a_host_with_a_file_of_mappings_says_that_the_file_decides() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.toml");
        let denied = |mappings: bool, address: &str| {
            let network = CONFIG.split("[authority]").next().unwrap();
            let section = if mappings { "[mappings]\nfile = \"where\"\n" } else { "" };
            std::fs::write(&path, format!("{network}{section}")).unwrap();
            let config = Config::load(&path).unwrap();
            let subject = Subject::of(&config, Some("blue"), address.parse().unwrap()).unwrap();
            match Registry::default().asked(&config, &subject) {
                Err(Reason::Denied(denial, denied)) => {
                    (denial.error, denied.holder().map(|held| held.locator))
                }
                _ => panic!("denied"),
            }
        };
        std::fs::write(directory.path().join("where"), "blue 10.1.0.9 2001:db8:0:9::/64\n").unwrap();
        let (listed, holder) = denied(true, "10.1.0.9");
        assert!(listed.contains("2001:db8:0:9::/64 has it: change it there"), "{listed}");
        assert_eq!(holder, Some("2001:db8:0:9::/64".parse().unwrap()));
        let (beside, _) = denied(true, "10.1.0.8");
        assert!(beside.contains("file of mappings") && !beside.contains("embedded"), "{beside}");
        assert!(denied(false, "10.1.0.9").0.contains("embedded"), "control");
    }

    const CONFIG: &str = r#"
        [host]
        name = "hv1"
        locator = "2001:db8:0:1::/64"
        sir = "2001:db8:51::/64"
        [uplink]
        kind = "none"
        [network.blue]
        vni = 1001
        ipv4 = "10.1.0.0/16"
        [authority]
        kind = "embedded"
        state = "#;
}
