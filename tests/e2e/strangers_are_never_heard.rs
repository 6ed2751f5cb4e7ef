//! Nine tenants of three networks, with the same IPv4 addresses, the same MACs and neighbouring /96s, on two hosts: everybody tries
//! everything against everybody. Every frame that anybody receives is judged by the mark that its sender had to leave in it.
//!
//! ```text
//!   Strangers (nve_core::testkit) ──frames──> rings of nine peers ──> two daemons, the fabric ──> the same rings: judged
//! ```
//!
//! The control is in the same run: pairs of one network say honest things, and each of them must arrive, and only there.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use nve_core::gateway::GATEWAY_MAC;
use nve_core::testkit::strangers::{InMemory, Mark, Neighbourhood, Strangers, Tenant, Way};
use vhost_ila_tests::fabric::SIR;
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{BLUE, Network, Plan, RED, Site, VM1, VM2, Vm};

const GREEN: Network = Network { name: "green", vni: 1003, ipv6: "2001:db8:b1:e:0:2::/96", ..BLUE };

/// The third of a network has an address of its own; where the first and the second are differs from network to network.
const ALL: [Vm; 9] = [
    VM1,
    VM2,
    third(VM1, "vm3", "2001:db8:b1:e::3"),
    Vm { name: "red1", network: RED, host: 1, ipv6: "2001:db8:b1:e:0:1:0:1", ..VM1 },
    Vm { name: "red2", network: RED, host: 0, ipv6: "2001:db8:b1:e:0:1:0:2", ..VM2 },
    third(Vm { network: RED, host: 1, ..VM1 }, "red3", "2001:db8:b1:e:0:1:0:3"),
    Vm { name: "green1", network: GREEN, ipv6: "2001:db8:b1:e:0:2:0:1", ..VM1 },
    Vm { name: "green2", network: GREEN, ipv6: "2001:db8:b1:e:0:2:0:2", ..VM2 },
    third(Vm { network: GREEN, ..VM2 }, "green3", "2001:db8:b1:e:0:2:0:3"),
];

const fn third(like: Vm, name: &'static str, ipv6: &'static str) -> Vm {
    Vm { name, ipv4: "10.1.0.3", ipv6, mac: "52:54:00:00:00:03", ..like }
}

/// Tries that are on their way at once: less than a receive ring holds, were they all for one.
const BATCH: usize = 100;
/// How long an honest packet may take, and how long nothing must come at the end.
const LIMIT: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(500);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_another_network_through_the_rings_of_two_daemons() {
    let mut check = Check::begin(28, "tries");
    let goal = check.scale(50_000, 10_000_000);
    let mut site = Site::start("e2e/strangers", Plan::of(&ALL)).unwrap();
    let mut world = Matrix::of(&site, check.seed());
    world.say(20, None);
    while world.strange < goal {
        let before = world.strange;
        world.say(BATCH, Some(&mut check));
        check.count(world.strange - before);
    }
    for tenant in 0..world.peers.len() {
        let late = world.peers[tenant].receive_all(QUIET).unwrap();
        late.iter().for_each(|frame| world.judge(tenant, &frame.bytes));
    }
    let drops = |reason: &str| site.daemons.iter().map(|daemon| daemon.drops(reason).unwrap()).sum::<u64>();
    for reason in ["foreign-network", "sir-destination", "locator-destination", "spoofed-mac", "rogue-server"]
    {
        assert!(drops(reason) > goal / 1000, "{reason}: {}", drops(reason));
    }
    println!("{} tries of strangers, {} honest packets, all of which arrived", world.strange, world.honest);
    site.daemons_must_run().unwrap();
}

/// The same tries and those from the fabric, on the NVEs alone: no rings, no kernels.
#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_another_network_in_memory() {
    let mut check = Check::begin(28, "tries");
    let tally = InMemory::new(check.seed()).run(check.scale(200_000, 10_000_000));
    check.count(tally.strange);
    println!("{tally:#?}");
    assert!(tally.crossed.is_empty() && tally.honest > 0 && tally.arrived == tally.honest);
}

/// Everybody's ring, and what must still arrive there.
struct Matrix {
    strangers: Strangers,
    peers: Vec<Peer>,
    strange: u64,
    honest: u64,
    /// By receiver and sender: honest packets that have not arrived yet.
    owed: Vec<Vec<u64>>,
}

impl Matrix {
    fn of(site: &Site, seed: u64) -> Matrix {
        let networks = [BLUE, RED, GREEN];
        let tenant = |vm: &Vm| Tenant {
            name: vm.name.to_owned(),
            network: networks.iter().position(|network| network.vni == vm.network.vni).unwrap(),
            host: vm.host,
            mac: vm.mac.parse().unwrap(),
            ipv4: vm.ipv4.parse().unwrap(),
            ipv6: vm.ipv6.parse().unwrap(),
        };
        let prefix = |text: &str| text.split('/').next().unwrap().parse::<Ipv6Addr>().unwrap();
        let place = Neighbourhood {
            sir: prefix(SIR),
            locators: site.fabric.hosts.iter().map(|host| prefix(&host.locator())).collect(),
            networks: networks.iter().map(|network| (network.vni, prefix(network.ipv6))).collect(),
            tenants: ALL.iter().map(tenant).collect(),
        };
        let peers =
            ALL.iter().map(|vm| Peer::connect(&site.socket(vm), Options::default()).unwrap()).collect();
        let owed = vec![vec![0; ALL.len()]; ALL.len()];
        Matrix { strangers: Strangers::new(place, seed), peers, strange: 0, honest: 0, owed }
    }

    /// Says `count` things, and waits until all that is honest among them has arrived.
    fn say(&mut self, count: usize, mut check: Option<&mut Check>) {
        for _ in 0..count {
            let said = self.strangers.next_try();
            // What the fabric can try is forge.py's, and in memory.
            if said.way != Way::Port || check.is_none() && !said.honest {
                continue;
            }
            if let Some(check) = check.as_deref_mut() {
                check.trying(&said.bytes);
            }
            self.peers[said.speaker].send(&said.bytes).unwrap();
            if said.honest {
                self.honest += 1;
                self.owed[said.towards][said.speaker] += 1;
            } else {
                self.strange += 1;
            }
        }
        self.peers.iter_mut().for_each(|peer| peer.flush().unwrap());
        for tenant in 0..self.peers.len() {
            self.hear(tenant);
        }
    }

    /// Takes all that is there for `tenant`, and waits for what is not there yet.
    fn hear(&mut self, tenant: usize) {
        let start = Instant::now();
        loop {
            let waiting = self.owed[tenant].iter().any(|owed| *owed > 0);
            let limit = if waiting { LIMIT.saturating_sub(start.elapsed()) } else { Duration::ZERO };
            match self.peers[tenant].receive(limit).unwrap() {
                Some(frame) => self.judge(tenant, &frame.bytes),
                None => break,
            }
        }
        assert!(
            self.owed[tenant].iter().all(|owed| *owed == 0),
            "{} lacks honest packets, by sender: {:?}",
            ALL[tenant].name,
            self.owed[tenant]
        );
    }

    fn judge(&mut self, tenant: usize, frame: &[u8]) {
        let place = self.strangers.place();
        let (hears, name) = (&place.tenants[tenant], ALL[tenant].name);
        assert_eq!(frame.get(6..12), Some(GATEWAY_MAC.as_bytes()), "{name}: who sent {frame:02x?}");
        let Some(mark) = Mark::find(frame) else {
            // The gateway's own answers: ARP, neighbour discovery, ICMP errors that quote too little.
            return;
        };
        assert_eq!(mark.network, hears.network, "{name} heard {}: {frame:02x?}", ALL[mark.tenant].name);
        if mark.honest {
            let owed = &mut self.owed[tenant][mark.tenant];
            assert!(*owed > 0, "{name} heard {} twice, or what was for another", ALL[mark.tenant].name);
            *owed -= 1;
        }
    }
}
