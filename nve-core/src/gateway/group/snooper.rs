//! Who listens, for how long yet, and whom to ask when.
//!
//! ```text
//!   report: listens ──> (attachment, group) until now + 260 s          leaves ──> asked at once and in 1 s, until now + 2 s
//!   time:   an attachment comes up ──> asked at once, in 31 s, then every 125 s      goes down ──> all of it is forgotten
//! ```
//!
//! What must stay true: `networks` is what `attachments` says, turned around, and a network that differs from what was published is in
//! `changed`; a look at everything is made at most every [`LOOK_INTERVAL`], so the work does not grow with the frames.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    About, GROUPS_PER_ATTACHMENT, GROUPS_PER_NETWORK, LAST_LISTENER_INTERVAL, LISTENER_INTERVAL,
    PUBLISH_INTERVAL, QUERY_INTERVAL, RESPONSE_INTERVAL, ROBUSTNESS, STARTUP_INTERVAL, Said, igmp, mld, read,
};
use crate::addr::{DomainId, Identifier, Key, Kind, Vnid};
use crate::pipeline::{Nve, PortId};
use crate::policy::{Network, World};
use crate::tables::{Groups, Listeners};

/// Between two looks at everything, while something is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks at who has come up.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// Attachments that are asked for all their groups at one look. What is said goes through a queue that all share: asked all at once, they
/// would be asked all at once ever after, and the last of them lose their queries each time.
const ASKED_AT_A_LOOK: usize = 64;
/// Bytes of the longest query.
const QUERY_LEN: usize = 128;

/// A listener.
#[derive(Clone, Copy, Debug)]
struct Timer {
    until: Duration,
    /// When it is asked again, after it has left.
    ask: Option<Duration>,
    /// Not asked about before this. Whoever joins again keeps it, so that joins and leaves by turns do not bring a query each.
    quiet: Duration,
}

/// What a network is called on the wire.
type Number = (DomainId, Vnid);

/// One attachment that is up.
#[derive(Clone, Debug)]
struct Attached {
    network: Number,
    groups: BTreeMap<Key, Timer>,
    next_query: Duration,
    /// Queries of its start that are left.
    startup: u8,
}

/// Frames for attachments.
type Say<'a> = dyn FnMut(PortId, Vec<u8>) + 'a;

/// The listeners of this host.
#[derive(Debug, Default)]
pub struct Snooper {
    attachments: BTreeMap<PortId, Attached>,
    networks: HashMap<Number, HashMap<Key, BTreeSet<PortId>>>,
    changed: BTreeSet<Number>,
    groups: Groups,
    /// When everything is looked at next.
    look: Duration,
    looked: Option<Duration>,
    published: Option<Duration>,
    refused: u64,
}

impl Snooper {
    /// Hears the report in `frame` (Ethernet, whole) of `port` at `now`. One that is malformed, or of an attachment whose network floods,
    /// changes nothing.
    pub fn take(&mut self, nve: &Nve, now: Duration, (port, frame): (PortId, &[u8]), say: &mut Say<'_>) {
        let world = nve.world();
        let Some(network) = snooped(&world, port) else { return };
        self.attach(port, network.number(), now);
        let mut all = Vec::new();
        // It was read in full before it was punted; were it not, nothing of it counts.
        if read(frame, &mut |said| all.push(said)).is_err() {
            return;
        }
        for said in all {
            match said {
                Said::Listens(group) => self.listens((port, network), group, now),
                Said::Leaves(group) => self.leaves((port, network), group, now, say),
            }
        }
        self.publish(nve, now);
    }

    /// Does what is due at `now`: forgets whoever has not answered, asks whoever is to be asked, publishes what has changed.
    pub fn tick(&mut self, nve: &Nve, now: Duration, say: &mut Say<'_>) {
        if now >= self.look {
            self.look_at_all(nve, now, say);
        }
        self.publish(nve, now);
    }

    /// When [`Snooper::tick`] has something to do next.
    pub fn due(&self) -> Duration {
        let publication = self.published.filter(|_| !self.changed.is_empty());
        publication.map_or(self.look, |published| self.look.min(published + PUBLISH_INTERVAL))
    }

    /// Forgets an attachment.
    pub fn forget(&mut self, port: PortId) {
        let Some(attached) = self.attachments.remove(&port) else { return };
        for group in attached.groups.into_keys() {
            self.remove(port, attached.network, group);
        }
    }

    /// Groups that were not heard because of the caps.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The attachment is up and of this network.
    fn attach(&mut self, port: PortId, network: Number, now: Duration) {
        if self.attachments.get(&port).is_some_and(|attached| attached.network == network) {
            return;
        }
        self.forget(port);
        let attached = Attached { network, groups: BTreeMap::new(), next_query: now, startup: ROBUSTNESS };
        self.attachments.insert(port, attached);
        self.wake(now);
    }

    fn listens(&mut self, (port, network): (PortId, &Network), group: IpAddr, now: Duration) {
        // What has no identifier is the gateway's (solicited-node groups), or nobody's.
        let Some(group) = network.group(group) else { return };
        let Some(attached) = self.attachments.get_mut(&port) else { return };
        let timer = Timer { until: now + LISTENER_INTERVAL, ask: None, quiet: Duration::ZERO };
        if let Some(known) = attached.groups.get_mut(&group) {
            *known = Timer { quiet: known.quiet, ..timer };
            return;
        }
        let groups = self.networks.entry(network.number()).or_default();
        let room = groups.len() < GROUPS_PER_NETWORK || groups.contains_key(&group);
        if !room || attached.groups.len() >= GROUPS_PER_ATTACHMENT {
            self.refused += 1;
            return;
        }
        attached.groups.insert(group, timer);
        groups.entry(group).or_default().insert(port);
        self.changed.insert(network.number());
        self.wake(timer.until);
    }

    fn leaves(
        &mut self,
        (port, network): (PortId, &Network),
        group: IpAddr,
        now: Duration,
        say: &mut Say<'_>,
    ) {
        let Some(key) = network.group(group) else { return };
        let Some(attached) = self.attachments.get_mut(&port) else { return };
        // Who leaves again while it is being asked is not asked more often.
        let Some(timer) = attached.groups.get_mut(&key).filter(|timer| timer.ask.is_none()) else {
            return;
        };
        let until = now + LAST_LISTENER_INTERVAL * u32::from(ROBUSTNESS);
        timer.until = timer.until.min(until);
        let mut again = timer.quiet;
        if again <= now {
            ask((port, network), About::One(group), LAST_LISTENER_INTERVAL, say);
            again = now + LAST_LISTENER_INTERVAL;
            timer.quiet = again;
        }
        timer.ask = Some(again);
        self.wake(again);
    }

    /// A look is due at `then`, or before.
    fn wake(&mut self, then: Duration) {
        let earliest = self.looked.map_or(then, |looked| then.max(looked + LOOK_INTERVAL));
        self.look = self.look.min(earliest);
    }

    fn look_at_all(&mut self, nve: &Nve, now: Duration, say: &mut Say<'_>) {
        let world = nve.world();
        let up = |port: PortId| nve.receiver(port).up;
        let gone = |(port, attached): (&PortId, &Attached)| {
            let stays = snooped(&world, *port).is_some_and(|network| network.number() == attached.network);
            (!stays || !up(*port)).then_some(*port)
        };
        let gone: Vec<PortId> = self.attachments.iter().filter_map(gone).collect();
        gone.into_iter().for_each(|port| self.forget(port));
        for attachment in world.attachments().filter(|attachment| up(attachment.port)) {
            if let Some(network) = snooped(&world, attachment.port) {
                self.attach(attachment.port, network.number(), now);
            }
        }
        let mut due = now + IDLE_INTERVAL;
        let mut asked = 0;
        let mut silent = Vec::new();
        for (port, attached) in &mut self.attachments {
            let Some(network) = snooped(&world, *port) else { continue };
            if attached.next_query <= now && asked < ASKED_AT_A_LOOK {
                attached.ask(*port, network, now, say);
                asked += 1;
            }
            // Whoever is left is due at the next look.
            due = due.min(attached.next_query);
            for (group, timer) in &mut attached.groups {
                if timer.until <= now {
                    silent.push((*port, attached.network, *group));
                } else {
                    due = due.min(timer.ask_again((*port, network), *group, now, say));
                }
            }
        }
        for (port, network, group) in silent {
            if let Some(attached) = self.attachments.get_mut(&port) {
                attached.groups.remove(&group);
            }
            self.remove(port, network, group);
        }
        (self.looked, self.look) = (Some(now), due.max(now + LOOK_INTERVAL));
    }

    /// `port` listens no more.
    fn remove(&mut self, port: PortId, network: Number, group: Key) {
        let Some(groups) = self.networks.get_mut(&network) else { return };
        if let Some(ports) = groups.get_mut(&group) {
            ports.remove(&port);
            if ports.is_empty() {
                groups.remove(&group);
            }
        }
        if groups.is_empty() {
            self.networks.remove(&network);
        }
        self.changed.insert(network);
    }

    fn publish(&mut self, nve: &Nve, now: Duration) {
        let too_soon = self.published.is_some_and(|then| now < then + PUBLISH_INTERVAL);
        if self.changed.is_empty() || too_soon {
            return;
        }
        while let Some(network) = self.changed.pop_first() {
            let listeners = self.networks.get(&network).into_iter().flatten();
            let listeners = listeners.map(|(group, ports)| (*group, ports.iter().copied().collect()));
            self.groups.set(network, listeners.collect::<Listeners>());
        }
        self.published = Some(now);
        nve.publish_groups(self.groups.clone());
    }
}

impl Attached {
    /// Asks it for its groups.
    fn ask(&mut self, port: PortId, network: &Network, now: Duration, say: &mut Say<'_>) {
        // Just come up, or we have: whoever waits for its groups should not wait long. There is one host on this link, so that
        // answers need no spreading.
        let longest = if self.startup > 0 { LAST_LISTENER_INTERVAL } else { RESPONSE_INTERVAL };
        ask((port, network), About::All, longest, say);
        self.startup = self.startup.saturating_sub(1);
        self.next_query = now + if self.startup > 0 { STARTUP_INTERVAL } else { QUERY_INTERVAL };
    }
}

impl Timer {
    /// Asks for the last time, if it has left and it is time; when there is something to do again.
    fn ask_again(
        &mut self,
        whom: (PortId, &Network),
        group: Key,
        now: Duration,
        say: &mut Say<'_>,
    ) -> Duration {
        if self.ask.is_some_and(|then| then <= now) {
            // Not None: until it expires or is heard again, another leave asks no more.
            self.ask = Some(Duration::MAX);
            self.quiet = now + LAST_LISTENER_INTERVAL;
            if let Some(address) = address_of(group) {
                ask(whom, About::One(address), LAST_LISTENER_INTERVAL, say);
            }
        }
        self.ask.map_or(self.until, |then| then.min(self.until))
    }
}

/// The network of `port`, if its groups are snooped.
fn snooped(world: &World, port: PortId) -> Option<&Network> {
    let network = world.network(world.attachment(port)?.network)?;
    (!network.floods()).then_some(network)
}

fn address_of(group: Key) -> Option<IpAddr> {
    match group.kind() {
        Kind::Ipv4(_, group) => Some(group.into()),
        Kind::Multicast(_, scope, group) => Some(Identifier::group_address(scope, group).into()),
        _ => None,
    }
}

/// Says the queries that concern the attachment's families.
fn ask((port, network): (PortId, &Network), about: About, longest: Duration, say: &mut Say<'_>) {
    let mut out = [0; QUERY_LEN];
    if let Some(gateway) = network.gateway4.filter(|_| !matches!(about, About::One(IpAddr::V6(_))))
        && let Some(query) = igmp::query(gateway, about, longest, &mut out).and_then(|len| out.get(..len))
    {
        say(port, query.to_vec());
    }
    if network.ipv6.is_some()
        && !matches!(about, About::One(IpAddr::V4(_)))
        && let Some(query) = mld::query(about, longest, &mut out).and_then(|len| out.get(..len))
    {
        say(port, query.to_vec());
    }
}
