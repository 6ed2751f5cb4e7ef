//! Super-packets of UDP (USO): what a program leaves to be cut (`UDP_SEGMENT`) crosses whole where it can, and arrives as its datagrams, each of
//! the right length, in order and with a good checksum, wherever that is. The programs are tasks, whose kernel is Linux's own; QEMU has USO behind
//! a tap only, so the machines are front-ends of ours.
//!
//! ```text
//!   hv1: vm1 (USO both ways)   vm3 (no offloads)   web (a task)      hv2: app (a task)
//! ```

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use vhost_ila_tests::oracle::script_in;
use vhost_ila_tests::process::output;
use vhost_ila_tests::ringpeer::data::{Came, Data, Family, Left, data};
use vhost_ila_tests::ringpeer::header::{GSO_TCPV6, NetHeader};
use vhost_ila_tests::ringpeer::{DATAGRAMS, OFFLOADS, Options, Peer, bits};
use vhost_ila_tests::site::{Plan, Site, VM1, Vm};
use vhost_ila_tests::task::Task;

const VM3: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };
const WEB: &str = "2001:db8:51:0:2000::11";
const APP: &str = "2001:db8:51:0:2000::12";

const PORT: u16 = 5001;
/// What one call sends, in datagrams of so many bytes.
const BYTES: usize = 20_000;
const SIZE: usize = 1000;
const COUNT: usize = BYTES / SIZE;
/// A super-packet on the wire, and one of its datagrams.
const WHOLE: &str = "udp.dstport == 5001 && udp.length > 20000";
const CUT: &str = "udp.dstport == 5001 && udp.length < 20000";

const LEFT: Left = Left { checksum: true, segments: Some(SIZE as u16), ecn: false, datagrams: true };
const FIRST: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(100);

/// A driver that takes and gives all there is.
fn options() -> Options {
    Options { features: bits(&OFFLOADS) | bits(&DATAGRAMS), ..Options::offloads() }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn datagrams_of_one_call_stay_together_for_who_takes_them_and_are_cut_for_who_does_not() {
    let service = |name: &str, address: &str| {
        format!("[service.{name}]\naddress = \"{address}\"\nfrom = [\"blue\"]\nports = [\"udp {PORT}\"]\n")
    };
    let services = service("web", WEB) + &service("app", APP);
    let mapping = |address: &str, host: u8| {
        format!("[[mapping]]\naddress = \"{address}\"\nlocator = \"2001:db8:0:{host}::/64\"\n")
    };
    let mut plan = Plan::of(&[VM1, VM3]);
    plan.host_text = vec![
        (0, Task::toml("web", WEB) + &mapping(APP, 2) + &services),
        (1, Task::toml("app", APP) + &mapping(WEB, 1) + &services),
    ];
    let mut site = Site::start("e2e/datagrams", plan).unwrap();
    let [web, app] = [("web", 0, WEB), ("app", 1, APP)].map(|(name, host, at)| task(&site, name, host, at));
    let mut one = Peer::connect(&site.socket(&VM1), options()).unwrap();
    let mut plain = Peer::connect(&site.socket(&VM3), Options::default()).unwrap();
    web.reach(APP).unwrap();
    let capture = site.capture().unwrap();

    // From a task to one on the other host; from a machine to a task on its own host, and on the other.
    let listening = Receiving::start(&app);
    send(&web, APP);
    listening.end();
    for (task, address) in [(&web, WEB), (&app, APP)] {
        let listening = Receiving::start(task);
        let sent = datagrams(&VM1, &Vm { ipv6: address, ..VM1 });
        one.send_with(sent.frame.header, &sent.frame.bytes).unwrap();
        listening.end();
    }
    // From tasks to a machine that takes them as they are, and to one that takes nothing unfinished.
    let whole = Came { frames: 1, partial: true, whole: true };
    let cut = Came { frames: COUNT, partial: false, whole: false };
    for (task, address) in [(&web, WEB), (&app, APP)] {
        for (peer, vm, expected) in [(&mut one, VM1, whole), (&mut plain, VM3, cut)] {
            send(task, vm.ipv6);
            let came = peer.receive_burst(FIRST, QUIET).unwrap();
            let sent = datagrams(&Vm { ipv6: address, ..VM1 }, &vm);
            assert_eq!(sent.is_in(&came).unwrap(), Some(expected), "{} to {}", task.name(), vm.name);
        }
    }
    let capture = capture.finish().unwrap();
    // On both links: from web to app, from vm1 to app, from app to vm1 and vm3.
    assert_eq!([capture.count(WHOLE).unwrap(), capture.count(CUT).unwrap()], [2 * 4, 0]);
    let used = |name, counter| used(&site, name, counter);
    assert_eq!([used("vm1", "uso_taken"), used("vm1", "uso_given"), used("vm3", "uso_given")], [2, 2, 0]);
    site.daemons_must_run().unwrap();
}

/// Of one port to the same, by IPv6.
fn datagrams(from: &Vm, to: &Vm) -> Data {
    data(from, to, Family::V6, PORT, BYTES, LEFT).unwrap()
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn datagrams_that_cannot_be_are_refused_by_name() {
    let mut site = Site::start("e2e/datagrams-refused", Plan::of(&[VM1, VM3])).unwrap();
    let [mut one, mut two] = [VM1, VM3].map(|vm| Peer::connect(&site.socket(&vm), options()).unwrap());
    let mut refused = 0;
    for family in [Family::V4, Family::V6] {
        let sent = data(&VM1, &VM3, family, 7, BYTES, LEFT).unwrap();
        one.send_with(sent.frame.header, &sent.frame.bytes).unwrap();
        let came = two.receive_burst(FIRST, QUIET).unwrap();
        assert!(sent.is_in(&came).unwrap().is_some_and(|came| came.whole), "{family:?}: the control");
        let honest = sent.frame.header;
        let start = if family == Family::V4 { 54 } else { 34 };
        for (why, header) in [
            ("of no bytes", NetHeader { gso_size: 0, ..honest }),
            ("longer than the payload", NetHeader { gso_size: BYTES as u16 + 1, ..honest }),
            ("more than 128", NetHeader { gso_size: 156, ..honest }),
            ("of TCP", NetHeader { gso_type: GSO_TCPV6, ..honest }),
            ("where the other family has its transport header", NetHeader { csum_start: start, ..honest }),
            ("with TCP's checksum", NetHeader { csum_offset: 16, ..honest }),
            ("whose checksum is complete", NetHeader { flags: 0, ..honest }),
        ] {
            one.send_with(header, &sent.frame.bytes).unwrap();
            let came = two.receive_all(QUIET).unwrap();
            assert_eq!(sent.is_in(&came).unwrap(), None, "{family:?} {why}");
            refused += 1;
            assert_eq!(site.daemons[0].drops("bad-offload").unwrap(), refused, "{family:?} {why}");
        }
    }
    site.daemons_must_run().unwrap();
}

/// Has `task` send [`BYTES`] by one call.
fn send(task: &Task, target: &str) {
    let mut sends = script_in(&task.namespace, "datagrams.py").unwrap();
    sends.args(["send", target, &PORT.to_string(), &BYTES.to_string(), &SIZE.to_string()]);
    output(sends).unwrap();
}

/// A task's receiver.
struct Receiving(Child);

impl Receiving {
    fn start(task: &Task) -> Receiving {
        let mut command = script_in(&task.namespace, "datagrams.py").unwrap();
        command.args(["receive", &PORT.to_string(), &BYTES.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        // A byte at a time: what comes later is read by whoever waits for the end.
        BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Receiving(child)
    }

    fn end(self) {
        let done = self.0.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(said.trim(), format!("lengths:{}", format!(" {SIZE}").repeat(COUNT)));
    }
}

/// A task that is plugged in.
fn task(site: &Site, name: &str, host: usize, address: &str) -> Task {
    let task = Task::new(name, &site.fabric.hosts[host], address, site.config(host)).unwrap();
    task.plug().unwrap();
    task
}

/// How often a feature of `name`, a machine of hv1, was used.
fn used(site: &Site, name: &str, counter: &str) -> u64 {
    let attachments: Value = site.daemons[0].show("attachments").unwrap();
    let found = attachments.as_array().unwrap().iter().find(|attachment| attachment["name"] == name);
    found.unwrap()["device"]["uses"][counter].as_u64().unwrap()
}
