//! The matrix on NVEs in this process: every try walked, every host it could end up at tried.
//!
//! ```text
//!   Try ──> NVE of its host ──> Local: judged         Uplink ──> every NVE, as a fabric that routes wrongly would ──> Local: judged
//! ```

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use smoltcp::wire::EthernetAddress;

use super::{Mark, Neighbourhood, Strangers, Tenant, Try, Way};
use crate::packet::Offload;
use crate::pipeline::{CarryOut, Nve, Origin, Outcome, PortId, Receiver, Walker};
use crate::testkit::dice::Dice;
use crate::testkit::dissect::{Dissected, protocol};
use crate::testkit::frames;
use crate::testkit::plan::{GuestPlan, Plan};

/// Between two tries: slow enough that allowances do not hide what would pass, fast enough that some are used up.
const PACE: Duration = Duration::from_micros(500);

const NETWORKS: [(&str, u32, &str); 3] = [
    ("blue", 1001, "2001:db8:b1:e::/96"),
    ("red", 1002, "2001:db8:b1:e:0:1::/96"),
    ("green", 1003, "2001:db8:b1:e:0:2::/96"),
];
const TENANTS_PER_NETWORK: usize = 3;
const HOSTS: [&str; 2] = ["hv1", "hv2"];

/// What was tried and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Tries of strangers.
    pub strange: u64,
    /// Honest packets: the control.
    pub honest: u64,
    /// Honest packets that arrived where they should, and nowhere else.
    pub arrived: u64,
    /// What was delivered to another network than its sender's, in another's name, or astray: none, or the test fails.
    pub crossed: Vec<String>,
    /// Drops of both hosts, by name.
    pub drops: BTreeMap<&'static str, u64>,
    /// Strangers' tries by kind: how many, and how many of those were delivered inside the speaker's own network.
    pub kinds: BTreeMap<&'static str, (u64, u64)>,
}

struct Host {
    nve: Arc<Nve>,
    walker: Walker,
    carry_out: CarryOut,
    /// Tenant by port number.
    tenants: Vec<Option<usize>>,
}

/// Two hosts, nine tenants in three networks.
pub struct InMemory {
    strangers: Strangers,
    dice: Dice,
    hosts: Vec<Host>,
    now: Duration,
    tally: Tally,
}

impl InMemory {
    /// Three networks with the same IPv4 addresses, the same MACs and neighbouring /96s; each on both hosts.
    pub fn new(seed: u64) -> Self {
        let mut plan = Plan::new(seed);
        let mut tenants = Vec::new();
        for (index, (name, vni, vnet)) in NETWORKS.into_iter().enumerate() {
            plan = plan.network(name, vni, "10.1.0.0/16", vnet);
            for number in 1..=TENANTS_PER_NETWORK {
                let host = (index + number) % HOSTS.len();
                let ipv4 = format!("10.1.0.{number}");
                let ipv6 = vnet.replace("::/96", if index == 0 { "::" } else { ":0:" }) + &number.to_string();
                tenants.push(Tenant {
                    name: format!("{name}{number}"),
                    network: index,
                    host,
                    mac: EthernetAddress([0x52, 0x54, 0, 0, 0, number as u8]),
                    ipv4: ipv4.parse().expect("an address"),
                    ipv6: ipv6.parse().expect("an address"),
                });
            }
        }
        for host in HOSTS {
            plan = plan.host(host);
        }
        for tenant in &tenants {
            let addresses = [tenant.ipv4.to_string(), tenant.ipv6.to_string()];
            let addresses = addresses.each_ref().map(String::as_str);
            let (host, network) = (HOSTS[tenant.host], NETWORKS[tenant.network].0);
            plan = plan.guest(GuestPlan::new(&tenant.name, host, network, &addresses));
        }
        let place = Neighbourhood {
            sir: plan.sir.prefix(),
            locators: plan.hosts.iter().map(|host| host.locator.prefix()).collect(),
            networks: plan
                .networks
                .iter()
                .map(|network| (network.vnid.get(), network.ipv6.expect("a /96").prefix()))
                .collect(),
            tenants,
        };
        let hosts = (0..HOSTS.len()).map(|index| Host::new(&plan, index, &place.tenants)).collect();
        let strangers = Strangers::new(place, seed);
        Self {
            strangers,
            dice: Dice::new(!seed),
            hosts,
            now: Duration::from_secs(1),
            tally: Tally::default(),
        }
    }

    /// Tries until strangers had `tries` of them; what came of it.
    pub fn run(mut self, tries: u64) -> Tally {
        while self.tally.strange < tries {
            let said = self.strangers.next_try();
            self.now += PACE;
            self.one(&said);
        }
        for (name, n) in self.hosts.iter().flat_map(Host::drops) {
            *self.tally.drops.entry(name).or_default() += n;
        }
        self.tally
    }

    fn one(&mut self, said: &Try) {
        let tenants = &self.strangers.place().tenants;
        let (speaker, towards) = (&tenants[said.speaker], &tenants[said.towards]);
        let (mut reached, mut to_fabric) = (Vec::new(), Vec::new());
        match said.way {
            Way::Port => {
                let host = &mut self.hosts[speaker.host];
                let origin = Origin::Port(host.port(said.speaker));
                let mut bytes = said.bytes.clone();
                let offload = leave_to_others(&mut self.dice, &mut bytes);
                host.walk(self.now, origin, (&bytes, offload), &mut reached, &mut to_fabric);
            }
            Way::Fabric => {
                let host = &mut self.hosts[towards.host];
                let bytes = (&said.bytes[..], Offload::NONE);
                host.walk(self.now, Origin::Uplink, bytes, &mut reached, &mut to_fabric);
            }
        }
        // The router role may send one on once.
        for _ in 0..2 {
            let (now, mut on) = (self.now, Vec::new());
            for packet in &to_fabric {
                self.hosts.iter_mut().for_each(|host| {
                    host.walk(now, Origin::Uplink, (packet, Offload::NONE), &mut reached, &mut on);
                });
            }
            to_fabric = on;
        }
        self.judge(said, &reached);
    }

    fn judge(&mut self, said: &Try, reached: &[(usize, Vec<u8>)]) {
        let tenants = &self.strangers.place().tenants;
        let network = tenants[said.speaker].network;
        for (tenant, frame) in reached {
            let own = tenants[*tenant].network == network;
            let marked = Mark::find(frame).is_none_or(|mark| mark.network == network);
            let astray = said.honest && *tenant != said.towards;
            if !own || !marked || astray || !speaks_for_itself(&tenants[said.speaker], frame) {
                self.tally.crossed.push(format!("{} heard {said:02x?}: {frame:02x?}", tenants[*tenant].name));
            }
        }
        if said.honest {
            self.tally.honest += 1;
            let bears = |frame: &[u8]| Mark::find(frame).is_some_and(|mark| mark.tenant == said.speaker);
            // Segments are cut where the sender said, through the mark too.
            self.tally.arrived += match reached {
                [(_, frame)] => u64::from(bears(frame)),
                segments => u64::from(!segments.is_empty()),
            };
        } else {
            self.tally.strange += 1;
            let (tried, inside) = self.tally.kinds.entry(said.kind).or_default();
            *tried += 1;
            *inside += u64::from(!reached.is_empty());
        }
    }
}

/// Leaves checksum or segmentation of some frames to their receiver, as drivers do: the walk takes other ways then.
fn leave_to_others(dice: &mut Dice, frame: &mut [u8]) -> Offload {
    let view = Dissected::of_frame(frame).filter(|view| view.total_len + 14 == frame.len());
    let whole = |view: &Dissected<'_>| view.fragment_offset == 0 && !view.more_fragments;
    let room = view.filter(whole).map(|view| (view.protocol, view.transport.len()));
    let most = match room {
        Some((protocol::TCP, 20..)) => u16::MAX,
        // A driver has no datagrams cut that are longer than all there is.
        Some((protocol::UDP, len @ 9..)) => len as u16 - 8,
        Some((protocol::UDP, 8)) => 0,
        _ => return Offload::NONE,
    };
    match dice.roll() % 8 {
        0 => frames::leave_checksum(&mut frame[14..]),
        1 if most > 0 => frames::leave_segmentation(&mut frame[14..], most.min(1 + dice.roll() as u16 % 30)),
        _ => Offload::NONE,
    }
}

/// Whether the frame says that it is from an address of `speaker`.
fn speaks_for_itself(speaker: &Tenant, frame: &[u8]) -> bool {
    let source = Dissected::of_frame(frame).map(|view| view.source);
    source.is_some_and(|source| source == speaker.ipv4 || source == speaker.ipv6)
}

impl Host {
    fn new(plan: &Plan, index: usize, all: &[Tenant]) -> Self {
        let mut setup = plan.setup(&plan.hosts[index]);
        for attachment in &mut setup.attachments {
            let tenant = all.iter().find(|tenant| tenant.name == attachment.name);
            attachment.mac = tenant.expect("every attachment is a tenant's").mac;
        }
        let nve = Nve::new(setup.check().expect("networks may have the same MACs"), 64);
        let mut tenants = Vec::new();
        for attachment in nve.ports() {
            let number = usize::from(attachment.port.0);
            tenants.resize(tenants.len().max(number + 1), None);
            tenants[number] = all.iter().position(|tenant| tenant.name == attachment.name);
            nve.set_receiver(attachment.port, Receiver { up: true, ..Receiver::default() });
        }
        Self { walker: Walker::new(Arc::clone(&nve)), carry_out: CarryOut::default(), nve, tenants }
    }

    fn port(&self, tenant: usize) -> PortId {
        let at = self.tenants.iter().position(|found| *found == Some(tenant));
        PortId(at.expect("a tenant of this host") as u16)
    }

    fn walk(
        &mut self,
        now: Duration,
        origin: Origin,
        (bytes, offload): (&[u8], Offload),
        reached: &mut Vec<(usize, Vec<u8>)>,
        to_fabric: &mut Vec<Vec<u8>>,
    ) {
        self.walker.begin(now);
        let tenants = &self.tenants;
        self.carry_out.carry_out(&mut self.walker, origin, bytes, offload, &mut |outcome| match outcome {
            Outcome::Local(port, frame, _) => {
                let tenant = tenants.get(usize::from(port.0)).copied().flatten();
                reached.push((tenant.expect("delivered to somebody"), frame.to_vec()));
            }
            Outcome::Uplink(packet, _) => to_fabric.push(packet.to_vec()),
            Outcome::Reply(..) | Outcome::Punted(..) | Outcome::Dropped(_) => {}
        });
    }

    /// What this host counted.
    fn drops(&self) -> BTreeMap<&'static str, u64> {
        let totals = self.nve.counters();
        let mut drops = BTreeMap::new();
        for side in totals.ports.iter().map(|(_, side)| side).chain([&totals.uplink]) {
            side.drops.iter().for_each(|(reason, n)| *drops.entry(reason.name()).or_default() += n);
        }
        drops
    }
}
