//! The reference network of the draft (section 5.3), and its thirteen scenarios.
//!
//! ```text
//!   VNI1  VA1            VA2                                       10.1.0.1 is VA1's and VA3's, 10.1.0.2 is VA2's and VA4's
//!   VNI2   │              │             VA3             VA4
//!   tasks  │  T1  T3      │              │  T2  T4       │
//!         hv1 L1         hv2 L2         hv3 L3          hv4 L4          gw ──── Iaddr
//!          └──────────────┴───────── fabric ─────────────┴───────────────┘
//! ```
//!
//! Tenant systems are QEMU guests, tasks are network namespaces with a TUN of the daemon of their host, the Internet host is a namespace
//! behind the gateway. All of them ask and answer with the same programs ([`ends`]).
//!
//! What must stay true:
//! * Nobody's card finishes a checksum, cuts or joins a packet: what is captured at an endpoint is what it sent.
//! * What is asked ([`scenario`]) says nothing of what must come of it: that is only in `tests/oracle/scenarios.py`.

mod config;
pub mod ends;
pub mod scenario;
pub mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::capture::{Capture, Running};
use crate::daemon;
use crate::fabric::{OFFLOADS, SIR};
use crate::initramfs::Kit;
use crate::namespace::Namespace;
use crate::oracle::script;
use crate::process::output;
use crate::site::{BLUE, Checksum, Network, Plan, RED, Site, VM1, VM2, Vm};
use ends::{End, Programs, Space};
use scenario::{SCENARIOS, Scenario};
use table::Judgement;

/// The hosts with the locators L1 to L4, and the gateway.
const HOSTS: [&str; 5] = ["hv1", "hv2", "hv3", "hv4", GATEWAY];
const GATEWAY: &str = "gw";

const VNI1: Network = Network { name: "vni1", ..BLUE };
const VNI2: Network = Network { name: "vni2", ..RED };

/// The tenant systems. Both networks have the same IPv4 addresses.
pub const TENANTS: [Vm; 4] = [
    Vm { name: "va1", network: VNI1, ..VM1 },
    Vm { name: "va2", network: VNI1, ..VM2 },
    Vm {
        name: "va3",
        host: 2,
        network: VNI2,
        mac: "52:54:00:00:00:03",
        ipv6: "2001:db8:b1:e:0:1:0:1",
        ..VM1
    },
    Vm {
        name: "va4",
        host: 3,
        network: VNI2,
        mac: "52:54:00:00:00:04",
        ipv6: "2001:db8:b1:e:0:1:0:2",
        ..VM2
    },
];

/// A task: a unit of execution with a SIR address of its own.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Its name, also that of its attachment.
    pub name: &'static str,
    /// The index of its host.
    pub host: usize,
    /// Its SIR address, type 1.
    pub address: &'static str,
}

/// T1 and T3 on hv1, T2 and the service T4 on hv3.
pub const TASKS: [Task; 4] = [
    Task { name: "t1", host: 0, address: "2001:db8:51:0:2000::11" },
    Task { name: "t2", host: 2, address: "2001:db8:51:0:2000::12" },
    Task { name: "t3", host: 0, address: "2001:db8:51:0:2000::13" },
    Task { name: "t4", host: 2, address: "2001:db8:51:0:2000::14" },
];

/// The Internet host.
pub const INTERNET: &str = "2001:db8:e::2";

/// The gateway's address on the link to it.
const INTERNET_ROUTER: &str = "2001:db8:e::1";

/// The gateway's TUN for what comes from there.
const INTERNET_TUN: &str = "ila-in0";

/// IPv4 addresses of a network that stand for somebody elsewhere: (the draft's name, network, address).
const ALIASES: [(&str, &str, &str); 4] = [
    ("ADDR4", "vni1", "10.1.200.44"),
    ("SADDR1", "vni2", "10.1.200.1"),
    ("SADDR4", "vni1", "10.1.200.4"),
    ("SADDR1'", "vni2", "10.1.200.101"),
];

/// What is captured is what was sent. Flow labels stay: they must arrive where no IPv4 is between.
const PLAIN: &str = "ethtool -K eth0 tx off tso off gso off gro off";

/// What the script is told, beside the captures.
const PLAN: &str = "plan.json";

/// The network, running.
pub struct Reference {
    /// Hosts, fabric and daemons; `site.evidence` has their logs.
    pub site: Site,
    /// What is gone through.
    pub scenarios: Vec<Scenario>,
    ends: Vec<End>,
}

impl Reference {
    /// Builds the network, boots the guests, and has everybody listen who is asked in one of the [`SCENARIOS`]. Logs go to `target/NAME`.
    ///
    /// # Errors
    ///
    /// Fails when something does not come up.
    pub fn start(name: &str, checksum: Checksum) -> Result<Reference> {
        let scenarios = SCENARIOS.to_vec();
        let site = Site::start(name, plan(checksum)).context("starting the hosts")?;
        site.fabric.offloads("off")?;
        let programs = Programs::make()?;
        let mut ends = vec![internet(&site, &programs).context("the Internet host")?];
        for task in TASKS {
            ends.push(plugged(&site, task, &programs).with_context(|| format!("plugging {} in", task.name))?);
        }
        ends.extend(site.boot().context("booting the guests")?.into_iter().map(End::Guest));
        for end in &mut ends {
            if let End::Guest(guest) = end {
                guest.run(PLAIN)?;
            }
            let ports = scenarios.iter().filter(|one| one.to == end.name()).map(Scenario::port);
            end.answer(&ports.collect::<Vec<_>>())?;
        }
        Ok(Reference { site, scenarios, ends })
    }

    /// Has all daemons send in another way from now on.
    ///
    /// # Errors
    ///
    /// Fails when one of them refuses.
    pub fn switch(&mut self, checksum: Checksum) -> Result<()> {
        let plan = Plan { checksum, ..self.site.plan().clone() };
        (0..HOSTS.len()).try_for_each(|host| self.site.reconfigure(host, &plan))
    }

    /// Goes through the scenarios, captured in `target/NAME/MODE`, has the script judge the captures, and then traces every way.
    ///
    /// # Errors
    ///
    /// Fails when a capture or a daemon does. What is not answered, or differs, is in the judgement.
    pub fn go_through(&mut self, checksum: Checksum) -> Result<Judgement> {
        let directory = self.site.evidence.join(checksum.word());
        fs::create_dir_all(&directory)?;
        let router = &self.site.fabric.router;
        let fabric = Running::start(router, &HOSTS, &directory.join("fabric.pcapng"))?;
        self.ends.iter_mut().try_for_each(|end| end.record(&directory))?;
        let asked = self.all(End::ask);
        self.ends.iter_mut().try_for_each(|end| end.recorded(&directory))?;
        fabric.finish()?;
        self.site.daemons_must_run()?;
        fs::write(directory.join(PLAN), serde_json::to_vec_pretty(&self.describe(checksum)?)?)?;
        let mut judgement = judge(&directory)?;
        let traced = self.all(End::trace);
        for (number, asked) in asked {
            judgement.complain(&number, asked.map(drop))?;
        }
        for (number, traced) in traced {
            let hops =
                traced.map(|hops| judgement.row(&number).map(|row| row.hops = hops)).and_then(|set| set);
            judgement.complain(&number, hops)?;
        }
        judgement.drops = self.drops()?;
        fs::write(directory.join("summary.json"), serde_json::to_vec_pretty(&judgement)?)?;
        Ok(judgement)
    }

    /// Lets everybody who begins a scenario do `what`, one scenario after the other, all ends at the same time: what came of it, by the
    /// scenario's number.
    fn all<T: Send>(
        &mut self,
        what: impl Fn(&mut End, &Scenario) -> Result<T> + Sync,
    ) -> Vec<(String, Result<T>)> {
        let (scenarios, ends, what) = (&self.scenarios, &mut self.ends, &what);
        let of = |end: &mut End| {
            let begins: Vec<&Scenario> = scenarios.iter().filter(|one| one.from == end.name()).collect();
            let done = begins.into_iter().map(|one| (one.number.to_string(), what(end, one)));
            done.collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let doing: Vec<_> = ends.iter_mut().map(|end| scope.spawn(move || of(end))).collect();
            doing.into_iter().flat_map(|done| done.join().unwrap_or_default()).collect()
        })
    }

    fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let mut drops = BTreeMap::new();
        for (host, daemon) in HOSTS.iter().zip(&self.site.daemons) {
            let counters = daemon.show("counters")?;
            let attachments = counters["attachments"].as_object().into_iter().flat_map(|all| all.values());
            let sides = attachments.chain([&counters["uplink"]]);
            for (reason, number) in sides.filter_map(|side| side["drops"].as_object()).flatten() {
                *drops.entry(format!("{host}: {reason}")).or_default() += number.as_u64().unwrap_or_default();
            }
        }
        drops.retain(|_, number| *number > 0);
        Ok(drops)
    }

    /// What the script is told: who is where, and what the names of the draft are here.
    fn describe(&self, checksum: Checksum) -> Result<Value> {
        let locator = |index: usize| format!("L{}", index + 1);
        let object = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect());
        let hosts = (0..).zip(&self.site.fabric.hosts).filter(|(_, host)| host.name != GATEWAY);
        let hosts = hosts
            .map(|(index, host)| (locator(index), json!({ "link": host.name, "locator": host.locator() })));
        let networks = [VNI1, VNI2].map(|network| {
            (network.name.to_uppercase(), json!({ "vni": network.vni, "vnet": network.ipv6 }))
        });
        let tenants = TENANTS.map(|vm| {
            let Vm { name, host, network, mac, ipv4, ipv6, .. } = vm;
            let (host, network) = (locator(host), network.name.to_uppercase());
            let said = json!({ "host": host, "network": network, "mac": mac, "ipv4": ipv4, "ipv6": ipv6 });
            (name.to_uppercase(), said)
        });
        let tasks = TASKS.map(|Task { name, host, address }| {
            (name.to_uppercase(), json!({ "host": locator(host), "address": address }))
        });
        let aliases = ALIASES.map(|(name, network, address)| {
            (name.to_owned(), json!({ "network": network.to_uppercase(), "address": address }))
        });
        let runs = self.scenarios.iter().map(|scenario| scenario.number);
        Ok(json!({
            "sir": SIR,
            "checksum": checksum.word(),
            "scenarios": runs.collect::<Vec<_>>(),
            "gateway": GATEWAY,
            "hosts": object(hosts.collect()),
            "networks": object(networks.into()),
            "tenants": object(tenants.into()),
            "tasks": object(tasks.into()),
            "internet": INTERNET,
            "aliases": object(aliases.into()),
        }))
    }
}

/// Five hosts and four guests; what the draft's tasks and crossings need is in [`config`].
fn plan(checksum: Checksum) -> Plan {
    let locators: Vec<String> = (1..=HOSTS.len()).map(|number| format!("2001:db8:0:{number}::/64")).collect();
    let text = |host| (host, config::text(host, &locators));
    Plan {
        hosts: HOSTS.to_vec(),
        anycast: HOSTS.len() - 1,
        host_text: (0..HOSTS.len()).map(text).collect(),
        checksum,
        kit: Kit::Socat,
        ..Plan::of(&TENANTS)
    }
}

/// A host that knows nothing of ILA, behind the gateway: what the fabric has no route for goes there, and what comes from there is
/// routed into the gateway's second TUN, if it is for a SIR address or a tenant.
fn internet(site: &Site, programs: &Programs) -> Result<End> {
    let gateway = site.fabric.hosts.last().context("there is no gateway")?;
    let (router, host) = (&site.fabric.router, Namespace::new("iaddr")?);
    let (near, link) = (&gateway.namespace, "internet0");
    near.ip(&format!("link add {link} type veth peer name eth0 netns {}", host.name()))?;
    for (namespace, interface, address) in [(near, link, INTERNET_ROUTER), (&host, "eth0", INTERNET)] {
        namespace.ip(&format!("-6 addr add {address}/64 dev {interface} nodad"))?;
        namespace.ip(&format!("link set dev {interface} up"))?;
        namespace.offloads(interface, &OFFLOADS, "off")?;
    }
    host.ip(&format!("-6 route add default via {INTERNET_ROUTER}"))?;
    router.ip(&format!("-6 route add default via {}", gateway.underlay()))?;
    for prefix in [SIR, VNI1.ipv6, VNI2.ipv6] {
        near.ip(&format!("-6 route add {prefix} dev {INTERNET_TUN} table 101"))?;
    }
    near.ip(&format!("-6 rule add iif {link} lookup 101 pref 90"))?;
    Ok(End::Space(Space::new("iaddr", host, "eth0", programs)?))
}

/// A task with its NIC.
fn plugged(site: &Site, task: Task, programs: &Programs) -> Result<End> {
    let namespace = Namespace::new(task.name)?;
    let mut plug = site.fabric.hosts[task.host].namespace.command(daemon::binary()?);
    plug.args(["plug", task.name, "--netns", task.name, "--config"]).arg(site.config(task.host));
    output(plug)?;
    namespace.offloads("eth0", &["tx", "tso", "gso", "gro"], "off")?;
    Ok(End::Space(Space::new(task.name, namespace, "eth0", programs)?))
}

/// Has the script compare the captures that [`Reference::go_through`] left in `directory`. In neutral mode tshark, who knows nothing of ILA,
/// is asked about checksums, too.
///
/// # Errors
///
/// Fails when the script does; what differs is in the judgement.
pub fn judge(directory: &Path) -> Result<Judgement> {
    let plan = directory.join(PLAN);
    let mut command = script("scenarios.py")?;
    command.arg("judge").arg(&plan).arg(directory);
    let done = command.output().context("starting python3")?;
    let mut judgement: Judgement = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("the script: {}", String::from_utf8_lossy(&done.stderr)))?;
    let plan: Value = serde_json::from_slice(&fs::read(plan)?)?;
    if plan["checksum"] == Checksum::Neutral.word() {
        let fabric = Capture { file: directory.join("fabric.pcapng") };
        let (_, bad) = fabric.checksums("tcp || udp || icmpv6.type == 128 || icmpv6.type == 129")?;
        judgement.other.extend((bad > 0).then(|| format!("tshark: {bad} checksums are wrong on the wire")));
    }
    Ok(judgement)
}
