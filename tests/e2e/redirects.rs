//! The triangle through an ILA router, and the straight line after its redirect (draft, section 4.6; docs/redirect.md), from captures.
//!
//! ```text
//!   hv1: the router, knows all      hv2: vm1, knows nothing, asks the router      hv3: vm2
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vhost_ila_tests::capture::{Capture, Running};
use vhost_ila_tests::fabric::SIR;
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::oracle::script_in;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::sandbox;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

const NEAR: Vm = Vm { host: 1, ..VM1 };
const FAR: Vm = Vm { host: 2, ..VM2 };

/// How long a redirect counts, in seconds: long enough for all that is looked at meanwhile; and where only its end is.
const LONG: u64 = 20;
const SHORT: u64 = 3;
const PORT: u16 = 61_451;

const OLD: (u16, &str) = (1, "11");
const NEW: (u16, &str) = (2, "22");

/// `[redirect]` with these keys, the first of which signs.
fn section(send: bool, lifetime: u64, keys: &[(u16, &str)]) -> String {
    // The second: of no host, for the script.
    let locators = "locators = [\"2001:db8::/48\", \"2001:db8:66::/64\"]";
    let text = format!("[redirect]\nsend = {send}\nlifetime = \"{lifetime}s\"\n{locators}\n");
    keys.iter().fold(text, |text, (id, byte)| {
        let file = Path::new(sandbox::RUNTIME).join(format!("redirect-{id}.key"));
        let mut options = fs::OpenOptions::new();
        let key = options.write(true).create(true).truncate(true).mode(0o600).open(&file);
        key.unwrap().write_all(byte.repeat(32).as_bytes()).unwrap();
        text + &format!("[[redirect.key]]\nid = {id}\nfile = \"{}\"\n", file.display())
    })
}

/// The router signs with the first of `signs`; the others believe `believed`.
fn plan(lifetime: u64, signs: &[(u16, &str)], believed: &[(u16, &str)]) -> Plan {
    let others = section(false, lifetime, believed);
    Plan {
        hosts: vec!["hv1", "hv2", "hv3"],
        asking_the_router: vec![1],
        host_text: vec![(0, section(true, LONG, signs)), (1, others.clone()), (2, others)],
        ..Plan::of(&[NEAR, FAR])
    }
}

/// Through which links each echo request from vm1 went, and under which prefix its destination was there.
fn ways(capture: &Capture) -> BTreeMap<u16, Vec<(String, &'static str)>> {
    let fields = ["icmpv6.echo.sequence_number", "frame.interface_name", "ipv6.dst"];
    let mut ways: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for packet in capture.fields("icmpv6.type == 128", &fields).unwrap() {
        let [sequence, link, destination] = &packet[..] else { panic!("{packet:?}") };
        let stems =
            [("L3", "2001:db8:0:3:"), ("SIR", SIR.trim_end_matches(":/64")), ("VNET", "2001:db8:b1:e:")];
        let stem = stems.iter().find(|(_, stem)| destination.starts_with(stem));
        let (name, _) = stem.unwrap_or_else(|| panic!("to {destination}"));
        ways.entry(sequence.parse().unwrap()).or_default().push((link.clone(), *name));
    }
    ways
}

fn triangle(receiver: &'static str) -> Vec<(String, &'static str)> {
    [("hv2", receiver), ("hv1", receiver), ("hv1", "L3"), ("hv3", "L3")]
        .map(|(link, to)| (link.to_owned(), to))
        .into()
}

fn straight() -> Vec<(String, &'static str)> {
    [("hv2", "L3"), ("hv3", "L3")].map(|(link, to)| (link.to_owned(), to)).into()
}

/// Pings vm2 and says which way the first request went, and which way the last; captured into a file of this name.
fn first_and_last(
    site: &Site,
    vm1: &mut Guest,
    address: &str,
    name: &str,
) -> [Vec<(String, &'static str)>; 2] {
    let capture = Running::start(&site.fabric.router, &["hv1", "hv2", "hv3"], &file(site, name)).unwrap();
    traffic::ping(vm1, address, 5).unwrap();
    let capture = capture.finish().unwrap();
    let mut ways = ways(&capture);
    assert_eq!(ways.len(), 5, "{ways:?}");
    // Both of the router's interfaces see a packet that passes it, in the order of their clocks, which may be the same.
    ways.values_mut().for_each(|way| {
        way.sort_by_key(|(link, to)| {
            let order = ["hv2", "hv1", "hv3"].iter().position(|name| name == link);
            (order, *to == "L3")
        })
    });
    [ways.first_entry().unwrap().get().clone(), ways.last_entry().unwrap().get().clone()]
}

fn file(site: &Site, name: &str) -> PathBuf {
    site.evidence.join(format!("{name}.pcapng"))
}

fn outcomes(site: &Site, host: usize) -> BTreeMap<String, u64> {
    let shown = site.daemons[host].show("redirects").unwrap();
    serde_json::from_value(shown["outcomes"].clone()).unwrap()
}

fn outcome(site: &Site, host: usize, name: &str) -> u64 {
    outcomes(site, host).get(name).copied().unwrap_or_default()
}

/// What hv2 knows of vm2: locator and who says so, by address.
fn known(site: &Site) -> BTreeMap<String, (String, String)> {
    let mappings = site.daemons[1].show("mappings").unwrap();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = mappings.as_array().unwrap().iter().filter(|line| line["attachment"].is_null());
    lines.map(|line| (text(line, "address"), (text(line, "locator"), text(line, "source")))).collect()
}

fn wait_until_forgotten(site: &Site) {
    wait_for("redirects to end", Duration::from_secs(LONG + 5), || Ok(known(site).is_empty().then_some(())))
        .unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_first_packet_takes_the_triangle_and_the_others_the_straight_line_until_the_redirect_ends() {
    sandbox::entered().unwrap();
    let mut site = Site::start("e2e/redirects", plan(LONG, &[OLD], &[OLD])).unwrap();
    let mut guests = site.boot().unwrap();
    let [vm1, _] = &mut guests[..] else { panic!("two guests") };
    assert_eq!(known(&site), BTreeMap::new());

    for (address, receiver) in [(FAR.ipv4, "SIR"), (FAR.ipv6, "VNET")] {
        let [first, last] = first_and_last(&site, vm1, address, receiver);
        assert_eq!((first, last), (triangle(receiver), straight()), "{address}");
    }
    let begun = Instant::now();
    assert_eq!((outcome(&site, 0, "sent"), outcome(&site, 1, "learned")), (2, 2));
    let by_redirect = ("2001:db8:0:3::/64".to_owned(), "redirect".to_owned());
    let expected = [FAR.ipv4, FAR.ipv6].map(|address| (address.to_owned(), by_redirect.clone()));
    assert_eq!(known(&site), expected.into());

    hostile(&site);
    assert_eq!(known(&site).into_values().collect::<Vec<_>>(), [by_redirect.clone(), by_redirect]);
    let [first, last] = first_and_last(&site, vm1, FAR.ipv4, "known");
    assert_eq!((first, last), (straight(), straight()));

    wait_until_forgotten(&site);
    let lasted = begun.elapsed();
    assert!(lasted > Duration::from_secs(LONG - 2), "it ended after {lasted:?}");
    let [first, last] = first_and_last(&site, vm1, FAR.ipv4, "again");
    assert_eq!((first, last), (triangle("SIR"), straight()), "the triangle is back, and another redirect");

    rotate(&site, vm1);
    site.daemons_must_run().unwrap();
}

/// Another key takes the old one's place, and no redirect is lost but where a host was forgotten.
fn rotate(site: &Site, vm1: &mut Guest) {
    let straight_at_last = |vm1: &mut Guest, name: &str| {
        wait_until_forgotten(site);
        first_and_last(site, vm1, FAR.ipv4, name)[1] == straight()
    };
    site.reconfigure(1, &plan(SHORT, &[OLD], &[OLD, NEW])).unwrap();
    assert!(straight_at_last(vm1, "old-key"), "the old key still signs");
    site.reconfigure(0, &plan(SHORT, &[NEW, OLD], &[NEW])).unwrap();
    assert!(straight_at_last(vm1, "new-key"), "the new one signs, and is believed");
    assert_eq!(outcome(site, 1, "unknown-key"), 1, "the script's");
    site.reconfigure(1, &plan(SHORT, &[NEW], &[OLD])).unwrap();
    assert!(!straight_at_last(vm1, "forgotten-key"), "hv2 has the old one alone");
    assert!(outcome(site, 1, "unknown-key") > 1, "{:?}", outcomes(site, 1));
}

/// Takes a redirect off the wire, and sends it again, and others that are wrong in each way there is, from the router's own address.
fn hostile(site: &Site) {
    let capture = Capture { file: file(site, "VNET") };
    let told =
        capture.fields(&format!("udp.port == {PORT}"), &["ipv6.src", "ipv6.dst", "udp.payload"]).unwrap();
    let [source, destination, payload] = &told.last().unwrap()[..] else { panic!("{told:?}") };
    assert_eq!((source.as_str(), destination.as_str()), ("2001:db8:0:1::1", "2001:db8:0:2::1"));
    let plan = json!({
        "captured": payload, "key": OLD.1.repeat(32), "to": destination, "from": source, "port": PORT,
        "locator": "2001:db8:0:3::",
    });
    let before = outcomes(site, 1);
    let mut command = script_in(&site.fabric.hosts[0].namespace, "redirects.py").unwrap();
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    script.stdin.take().unwrap().write_all(plan.to_string().as_bytes()).unwrap();
    let said = script.wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let sent: BTreeMap<String, u64> = serde_json::from_slice(&said.stdout).unwrap();
    assert!(sent.len() >= 14, "{sent:?}");
    let grown = || {
        let after = outcomes(site, 1);
        let grown = |name: &String| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
        sent.keys().map(|name| (name.clone(), grown(name))).collect::<BTreeMap<_, _>>()
    };
    let counted = wait_for("the outcomes", Duration::from_secs(5), || Ok((grown() == sent).then_some(())));
    assert!(counted.is_ok(), "sent {sent:?}, counted {:?}", grown());
}
