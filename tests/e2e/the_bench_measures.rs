//! The bench's own parts on ordinary pages and shared cores: what it says of speed there is nothing, that it works is all.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use vhost_ila_tests::bench::backend::Who;
use vhost_ila_tests::bench::case::{Beside, Case, Peer};
use vhost_ila_tests::bench::generator::Generator;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::sandbox;
use vhost_ila_tests::testpmd::Pages;

/// How long each part is measured.
const SHORT: Duration = Duration::from_millis(300);

/// Frames of the case arrive by way of `who`, as long as they should be, and are timed.
fn measures(name: &str, who: &Who) {
    let case = Case::named(name).unwrap();
    let evidence = sandbox::evidence(format!("e2e/bench-{name}-{}", who.name())).unwrap();
    let mut back_end = who.start(case, Pages::Ordinary(256), &evidence).unwrap();
    let mut generator = Generator::start(case, back_end.sockets(), false).unwrap();
    wait_for("frames to arrive", Duration::from_secs(10), || {
        generator.begin()?;
        std::thread::sleep(SHORT);
        Ok(generator.end().ok())
    })
    .unwrap();
    generator.begin().unwrap();
    back_end.begin().unwrap();
    std::thread::sleep(SHORT);
    let (pps, length) = generator.end().unwrap();
    assert!(
        (length - f64::from(who.arrives_as(case))).abs() < 0.5,
        "{name}: frames of {length} bytes arrive"
    );
    generator.send_at(20_000);
    std::thread::sleep(SHORT);
    let ([median, p99], arrived) = generator.latency_in(SHORT).unwrap();
    println!(
        "{name}, {}: {pps:.0} packets a second, {median:.1} us, {p99:.1} us at {arrived:.0}",
        who.name()
    );
    assert!(median > 0.0 && median <= p99, "{name}: {median} us, {p99} us");
    // testpmd says what it did when it stops.
    let worked = back_end.end().unwrap();
    assert!(worked.cycles > 10.0, "{name}: {worked:?}");
    generator.finish().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_benchs_generator_drives_the_daemon_and_testpmd_alike() {
    sandbox::entered().unwrap();
    let ours = Who::Ours("vhost-ila".into(), PathBuf::from(env::var_os("VHOST_ILA_BINARY").unwrap()));
    for case in ["v4-64", "v6-64", "wire-64"] {
        measures(case, &ours);
    }
    measures("v4-64", &Who::Peer(Peer::Testpmd));
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_benchs_generator_says_when_a_daemon_hangs_up() {
    sandbox::entered().unwrap();
    let case = Case::named("v4-64").unwrap();
    let evidence = sandbox::evidence("e2e/bench-hangs-up").unwrap();
    let ours = Who::Ours("vhost-ila".into(), PathBuf::from(env::var_os("VHOST_ILA_BINARY").unwrap()));
    let back_end = ours.start(case, Pages::Ordinary(256), &evidence).unwrap();
    let mut generator = Generator::start(case, back_end.sockets(), false).unwrap();
    std::thread::sleep(SHORT);
    drop(back_end);
    std::thread::sleep(SHORT);
    generator.begin().unwrap();
    std::thread::sleep(SHORT);
    let error = generator.end().unwrap_err().to_string();
    assert!(error.contains("packets a second arrive"), "{error}");
}

/// Some thousand mappings a second move, leave and come by `mapping apply` while packets go to them: every change is taken, packets go on
/// arriving, and none is lost for it; afterwards each address is where it was said to be last (`Places::verify`).
#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn packets_go_on_while_mappings_change_and_go_where_was_said_last() {
    sandbox::entered().unwrap();
    let evidence = sandbox::evidence("e2e/bench-updates").unwrap();
    let ours = Who::Ours("vhost-ila".into(), PathBuf::from(env::var_os("VHOST_ILA_BINARY").unwrap()));
    let case =
        Case { destinations: 1_000, beside: Beside::Updates(10_000), ..*Case::named("updates").unwrap() };
    let mut back_end = ours.start(&case, Pages::Ordinary(256), &evidence).unwrap();
    let mut generator = Generator::start(&case, back_end.sockets(), false).unwrap();
    generator.wait_until_it_flows().unwrap();
    generator.send_at(20_000);
    std::thread::sleep(SHORT);
    generator.begin().unwrap();
    back_end.begin().unwrap();
    let lost = generator.lost();
    std::thread::sleep(4 * SHORT);
    let (pps, _) = generator.end().unwrap();
    let worked = back_end.end().unwrap();
    let updates = worked.updates.unwrap();
    println!("{pps:.0} packets and {updates:.0} changes a second");
    assert!(updates > 1_000.0, "{updates} changes a second");
    assert!(pps > 5_000.0, "{pps} packets a second");
    assert_eq!(generator.lost(), lost);
    generator.finish().unwrap();
}

/// The fleet's parts: several pairs, and receivers that do not take.
#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_fleet_of_many_rings_flows_and_stalled_receivers_do_not_stop_the_others() {
    for (name, ports, pairs) in [("many-ports", 5, 3), ("stalled", 2, 1)] {
        sandbox::entered().unwrap();
        let evidence = sandbox::evidence(format!("e2e/bench-{name}")).unwrap();
        let ours = Who::Ours("vhost-ila".into(), PathBuf::from(env::var_os("VHOST_ILA_BINARY").unwrap()));
        let case = Case { ports, pairs, ..*Case::named(name).unwrap() };
        let mut back_end = ours.start(&case, Pages::Ordinary(256), &evidence).unwrap();
        let mut generator = Generator::start(&case, back_end.sockets(), false).unwrap();
        generator.wait_until_it_flows().unwrap();
        generator.begin().unwrap();
        back_end.begin().unwrap();
        std::thread::sleep(SHORT);
        let (pps, length) = generator.end().unwrap();
        assert!((length - 64.0).abs() < 0.5, "{name}: frames of {length} bytes arrive");
        println!("{name}: {pps:.0} packets a second, {:?}", back_end.end().unwrap());
        generator.finish().unwrap();
    }
}
