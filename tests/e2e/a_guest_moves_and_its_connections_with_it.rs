//! Live migration between hosts that tell each other: nobody types anything, nothing is reloaded, and connections go on.
//!
//! ```text
//!   hv1: vm1, near ──TCP, pings──┐
//!   hv2: vm1 on standby          ├──> vm1 moves: hv1 ──unix socket──> hv2 ──> hv1 ──> ...
//!   hv3: far ───────TCP, pings───┘
//! ```
//!
//! The machine that waits begins to run; its daemon sees its rings go on, takes its addresses and tells the host that had them; that one forwards
//! what still comes, and redirects `far`'s host (docs/migration.md).

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::HONEST;
use vhost_ila_tests::sandbox::RUNTIME;
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};

use crate::a_guest_migrates_while_it_talks::{
    LIMIT, device, differing, until_migration_is, until_status_is, vm1_on,
};

const NEAR: Vm = HONEST;
const FAR: Vm = Vm { host: 2, ..VM2 };

/// Between two pings.
const PING: Duration = Duration::from_millis(10);

/// What a key file and its section say, the same on all hosts.
pub(crate) fn redirect() -> String {
    let file: PathBuf = Path::new(RUNTIME).join("moves.key");
    fs::create_dir_all(RUNTIME).unwrap();
    let mut options = fs::OpenOptions::new();
    let mut key = options.write(true).create(true).truncate(true).mode(0o600).open(&file).unwrap();
    key.write_all("5a".repeat(32).as_bytes()).unwrap();
    let section = "[redirect]\nsend = true\nlocators = [\"2001:db8::/48\"]\n";
    format!("{section}[[redirect.key]]\nid = 1\nfile = \"{}\"\n", file.display())
}

/// `vm`'s attachment on another host, which waits.
pub(crate) fn standby(vm: &Vm) -> String {
    let Vm { name, mac, .. } = vm;
    format!(
        "[attachment.{name}]\nnetwork = \"{}\"\nmac = \"{mac}\"\naddresses = {:?}\nstandby = true\n",
        vm.network.name,
        vm.addresses()
    )
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn from_a_neighbour_and_from_a_third_host_byte_for_byte() {
    let mut check = Check::begin(25, "migrations");
    let plan = Plan {
        hosts: vec!["hv1", "hv2", "hv3"],
        host_text: vec![(0, redirect()), (1, redirect() + &standby(&VM1)), (2, redirect())],
        ..Plan::of(&[VM1, NEAR, FAR])
    };
    let site = Site::start("e2e/moves", plan).unwrap();
    let [mut vm1, near, far]: [Guest; 3] =
        site.boot().unwrap().try_into().unwrap_or_else(|_| panic!("three"));
    let mut peers = [near, far];
    assert_eq!(presence(&site, 1, VM1.name), "waiting");
    for (peer, port) in peers.iter_mut().zip(PORTS) {
        begin_stream(&mut vm1, peer, port);
    }

    vm1 = given_up(&site, vm1);
    let mut host = 0;
    for number in 0..check.scale(3, 20) {
        begin_pings(&mut peers);
        // The first with its memory compared, which takes a while; the others as fast as they go.
        let (next, downtime) = moved(&site, vm1, host, number, number == 0);
        vm1 = next;
        host = 1 - host;
        let gaps = end_pings(&mut peers);
        if number > 0 {
            println!("GAP move {number}: near {:?}, far {:?}; QEMU says {downtime} ms", gaps[0], gaps[1]);
            assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(5)), "{gaps:?}");
        }
        check.count(1);
    }
    for (peer, port) in peers.iter_mut().zip(PORTS) {
        end_stream(&mut vm1, peer, port);
    }
}

/// Of the attachment `name` on the host of index `host`.
pub(crate) fn presence(site: &Site, host: usize, name: &str) -> String {
    let attachments = site.daemons[host].show("attachments").unwrap();
    let one = attachments.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    one["presence"].as_str().unwrap().to_owned()
}

/// A migration that is cancelled when half of it is there: the guest stays, and so do its addresses.
fn given_up(site: &Site, mut vm1: Guest) -> Guest {
    let uri = format!("unix:{RUNTIME}/given-up");
    let mut next = site.awaiting_migration(&vm1_on(1), "vm1-given-up", &uri).unwrap();
    until_status_is(&mut next, "inmigrate");
    let slow = json!({ "max-bandwidth": 2_000_000, "downtime-limit": 20 });
    vm1.monitor().execute("migrate-set-parameters", slow).unwrap();
    vm1.monitor().execute("migrate", json!({ "uri": uri })).unwrap();
    wait_for("pages to be marked", LIMIT, || {
        Ok((device(site, 0)["pages_marked"].as_u64() > Some(100)).then_some(()))
    })
    .unwrap();
    vm1.monitor().execute("migrate_cancel", json!({})).unwrap();
    until_migration_is(&mut vm1, "cancelled");
    assert_eq!((presence(site, 0, VM1.name), presence(site, 1, VM1.name)), ("here".into(), "waiting".into()));
    // It ends by itself when what it waits for breaks off.
    drop(next);
    vm1
}

/// To the other host; the machine that goes on, and how long QEMU says that neither ran, in milliseconds.
fn moved(site: &Site, mut vm1: Guest, from: usize, number: u32, compare: bool) -> (Guest, u64) {
    let to = 1 - from;
    let uri = format!("unix:{RUNTIME}/move-{number}");
    let mut next = site.awaiting_migration(&vm1_on(to), &format!("vm1-{number}"), &uri).unwrap();
    until_status_is(&mut next, "inmigrate");
    let parameters = json!({ "max-bandwidth": 60_000_000, "downtime-limit": 50 });
    vm1.monitor().execute("migrate-set-parameters", parameters).unwrap();
    vm1.monitor().execute("migrate", json!({ "uri": uri })).unwrap();
    until_migration_is(&mut vm1, "completed");
    if compare {
        until_status_is(&mut next, "paused");
        let pages = differing(&vm1.memory().unwrap(), &next.memory().unwrap());
        assert!(pages.is_empty(), "move {number}: pages {pages:x?} are not what they were");
        assert_eq!(
            (presence(site, from, VM1.name), presence(site, to, VM1.name)),
            ("here".into(), "waiting".into())
        );
    }
    next.monitor().execute("cont", json!({})).unwrap();
    wait_for("both hosts to know", Duration::from_secs(5), || {
        Ok((presence(site, to, VM1.name) == "here" && presence(site, from, VM1.name) == "waiting")
            .then_some(()))
    })
    .unwrap();
    let said = vm1.monitor().execute("query-migrate", json!({})).unwrap();
    vm1.kill().unwrap();
    (next, said["downtime"].as_u64().unwrap_or_default())
}

/// The streams', one for each peer.
const PORTS: [u16; 2] = [5002, 5003];

/// A stream of random bytes to vm1, of which both sides keep only the sum: some megabytes a second, in frames as long as they get.
fn begin_stream(vm1: &mut Guest, peer: &mut Guest, port: u16) {
    vm1.run("[ -p /tmp/open ] || mkfifo /tmp/open").unwrap();
    let receive = format!("nc -l -p {port} 0<>/tmp/open | tee /tmp/copy-{port} | sha256sum >/tmp/sum-{port}");
    vm1.run(&format!("mkfifo /tmp/copy-{port}")).unwrap();
    vm1.spawn(&format!("wc -c </tmp/copy-{port} >/tmp/count-{port}"), "/tmp/wc.log").unwrap();
    vm1.spawn(&receive, "/tmp/nc.log").unwrap();
    vm1.run(&format!("until netstat -ltn | grep -q :{port}; do sleep 0.1; done")).unwrap();
    let send = format!(
        "mkfifo /tmp/copy; sha256sum </tmp/copy >/tmp/sum & \
         (while [ ! -e /tmp/enough ]; do head -c 200000 /dev/urandom; sleep 0.05; done) | tee /tmp/copy | nc {} {port}; \
         touch /tmp/ended",
        VM1.ipv4
    );
    peer.spawn(&send, "/tmp/stream.log").unwrap();
    vm1.run(&format!("until netstat -tn | grep -q :{port}.*ESTABLISHED; do sleep 0.1; done")).unwrap();
}

/// Ends it: what vm1 has received is what was sent, from before the first migration until after the last.
fn end_stream(vm1: &mut Guest, peer: &mut Guest, port: u16) {
    peer.run("touch /tmp/enough").unwrap();
    peer.run_within("until [ -e /tmp/ended ]; do sleep 0.1; done", Duration::from_secs(90)).unwrap();
    let sent = peer.run("until [ -s /tmp/sum ]; do sleep 0.1; done; cat /tmp/sum").unwrap();
    let received = vm1.run_within(
        &format!("until [ -s /tmp/sum-{port} ]; do sleep 0.1; done; cat /tmp/sum-{port}"),
        Duration::from_secs(30),
    );
    assert_eq!(sent, received.unwrap());
    let count = vm1.run(&format!("cat /tmp/count-{port}")).unwrap();
    assert!(count.trim().parse::<u64>().unwrap() > 1_000_000, "{count} bytes are no stream");
}

fn begin_pings(peers: &mut [Guest; 2]) {
    for peer in peers {
        peer.run("rm -f /tmp/pings").unwrap();
        peer.spawn(&format!("ping -i 0.01 {}", VM1.ipv4), "/tmp/pings").unwrap();
        peer.run("until grep -q seq= /tmp/pings; do sleep 0.1; done").unwrap();
    }
}

/// Ends them; the longest time without an answer, of each.
fn end_pings(peers: &mut [Guest; 2]) -> [Duration; 2] {
    peers.each_mut().map(|peer| {
        // Until most of them within a second are answered.
        let answered =
            "a=$(grep -c seq= /tmp/pings); sleep 1.2; b=$(grep -c seq= /tmp/pings); [ $((b-a)) -ge 80 ]";
        peer.run_within(&format!("until {answered}; do :; done; killall -INT ping"), LIMIT).unwrap();
        let said = peer.run("sed -n 's/.*seq=\\([0-9]*\\).*/\\1/p' /tmp/pings").unwrap();
        let numbers: Vec<u32> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let longest = numbers.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
        PING * longest
    })
}
