//! The reference network of the draft (`tests/src/reference`): every scenario and every reply, judged by a script of its own.

use std::fs;
use std::net::Ipv6Addr;
use std::process::Command;

use vhost_ila_tests::oracle::script;
use vhost_ila_tests::process::output;
use vhost_ila_tests::reference::table::Judgement;
use vhost_ila_tests::reference::{Reference, TENANTS};
use vhost_ila_tests::sandbox;
use vhost_ila_tests::site::{Checksum, Plan};

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_script_names_the_scenario_of_whatever_is_spoilt() {
    output(script("selftest_scenarios.py").unwrap()).unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn and_their_replies_are_the_drafts_in_both_checksum_modes_and_what_is_not_is_named() {
    const NAME: &str = "e2e/scenarios";
    let mut network = Reference::start(NAME, Checksum::Neutral).unwrap();
    for mode in [Checksum::Neutral, Checksum::Unmodified] {
        network.switch(mode).unwrap();
        let judgement = network.go_through(mode).unwrap();
        println!("{}", judgement.table());
        assert_eq!(judgement.differing(), [""; 0], "checksums {}", mode.word());
        assert_eq!(judgement.rows.len(), 2 * network.scenarios.len());
    }
    assert!(again(NAME).0, "what was kept is judged as it was");

    // One byte on the wire, long after the run: the program that `cargo xtask scenarios` runs says where, and does not succeed.
    let directory = sandbox::target().unwrap().join(NAME).join("neutral");
    let summary = fs::read(directory.join("summary.json")).unwrap();
    let judgement: Judgement = serde_json::from_slice(&summary).unwrap();
    let tenth = judgement.rows.iter().find(|row| row.scenario == "10").unwrap();
    let [source, destination] = &tenth.places["wire"];
    let octets = |address: &str| address.parse::<Ipv6Addr>().unwrap().octets();
    let wire = [octets(&source[0]), octets(&destination[0])].concat();
    let fabric = directory.join("fabric.pcapng");
    let mut bytes = fs::read(&fabric).unwrap();
    let at = bytes.windows(32).position(|window| window == wire).unwrap();
    bytes[at + 31] ^= 1;
    fs::write(&fabric, bytes).unwrap();
    let (succeeded, said) = again(NAME);
    assert!(!succeeded && said.contains("not as the script says: 10 (neutral)"), "{said}");

    // A host that does not know where VA2 is: scenarios 9 and 10 are named.
    let without_va2 = Plan { vms: vec![TENANTS[0], TENANTS[2], TENANTS[3]], ..network.site.plan().clone() };
    network.site.reconfigure(0, &without_va2).unwrap();
    network.scenarios.retain(|scenario| [9, 10].contains(&scenario.number));
    let differing = network.go_through(Checksum::Unmodified).unwrap().differing();
    assert_eq!(differing[..4], ["9", "9r", "10", "10r"], "{differing:?}");
}

/// Whether the captures of a run in neutral mode still pass, and what is said of them.
fn again(name: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scenarios"));
    let done = command.args([name, "neutral", "again"]).output().unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
}
