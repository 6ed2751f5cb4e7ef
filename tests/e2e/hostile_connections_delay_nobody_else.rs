//! Front-ends that stall, flood, or should not be here: another tenant's socket accepts as before, and the daemon grows by nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::Value;
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{GATEWAY, HONEST, HOSTILE};
use vhost_ila_tests::ringpeer::hostile::{Connection, message, request};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::{Check, long};
use vhost_ila_tests::site::{Plan, Site, VM1};

/// How long an honest front-end may wait for its first answer.
const PROMPT: Duration = Duration::from_millis(100);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn stalled_front_ends_and_floods_of_connections() {
    let mut check = Check::begin(18, "honest connections");
    let mut site = Site::start("e2e/hostile-connections", Plan::of(&[VM1, HOSTILE])).unwrap();
    let (honest, hostile) = (site.socket(&VM1), site.socket(&HOSTILE));
    accepted(&honest);
    // Who answers this stays, and is counted before.
    shown(&site);
    let before = site.daemons[0].footprint().unwrap();
    let each = check.scale(20, 1000);
    let header = message(request::SET_FEATURES, 1, 8, &[0; 3]);

    // One that stops within a message, one that stops within a header, one that says nothing; behind them a second connection.
    let half = Connection::to(&hostile).unwrap();
    half.say_bytes(&header, &[]).unwrap();
    let second = Connection::to(&hostile).unwrap();
    second.say_bytes(&header[..7], &[]).unwrap();
    let silent = Connection::to(&hostile).unwrap();
    must_be_prompt(&honest, each, "beside halves of messages");
    check.count(each);
    wait_for("the halves to be given up", Duration::from_secs(15), || {
        let fault = shown(&site)["device"]["last_fault"].as_str().unwrap_or_default().to_owned();
        Ok(fault.contains("half a message").then_some(()))
    })
    .unwrap();
    drop((half, second, silent));

    // One that asks for ever and reads no answer.
    let asking = UnixStream::connect(&hostile).unwrap();
    asking.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let questions = message(request::GET_FEATURES, 1, 0, &[]).repeat(1000);
    while std::io::Write::write(&mut &asking, &questions).is_ok() {}
    must_be_prompt(&honest, each, "beside answers that nobody reads");
    check.count(each);
    wait_for("it to be given up", Duration::from_secs(15), || {
        let fault = shown(&site)["device"]["last_fault"].as_str().unwrap_or_default().to_owned();
        Ok(fault.contains("not read").then_some(()))
    })
    .unwrap();
    drop(asking);

    // A thousand a second and more.
    let (over, tried) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(UnixStream::connect(&hostile));
                tried.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(500));
            }
        });
        must_be_prompt(&honest, each, "beside a flood of connections");
        over.store(true, Ordering::Relaxed);
    });
    check.count(each);
    println!("{} connections of the flood", tried.load(Ordering::Relaxed));

    let mut peer = Peer::connect(&hostile, Options::default()).unwrap();
    peer.must_resolve(&HOSTILE, GATEWAY).unwrap();
    drop(peer);
    thread::sleep(Duration::from_millis(300));
    before.must_hold(&site.daemons[0].footprint().unwrap()).unwrap();
    site.daemons_must_run().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn processes_of_another_user() {
    const STRANGER: u32 = 54_321;
    let mut check = Check::begin(19, "connections");
    let mut site = Site::start("e2e/hostile-strangers", Plan::of(&[VM1, HONEST, HOSTILE])).unwrap();
    let socket = site.socket(&HOSTILE);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600, "ours only");
    // Somebody opened it to all.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    for directory in socket.ancestors().skip(1) {
        let mode = fs::metadata(directory).unwrap().permissions().mode();
        fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o111)).unwrap();
    }
    for round in 1..=check.scale(5, 1000) {
        let connected = thread::scope(|scope| {
            let become_a_stranger = || {
                let uid = rustix::process::Uid::from_raw(STRANGER);
                rustix::thread::set_thread_res_uid(uid, uid, uid).ok()?;
                Some(UnixStream::connect(&socket))
            };
            scope.spawn(become_a_stranger).join().unwrap()
        });
        let Some(connected) = connected else {
            println!("SKIPPED: this run is without root as a whole");
            return;
        };
        let _stranger = connected.unwrap();
        wait_for("it to be refused", Duration::from_secs(5), || {
            Ok((shown(&site)["device"]["refused"] == round).then_some(()))
        })
        .unwrap();
        check.count(1);
    }
    let device = &shown(&site)["device"];
    assert!(device["last_fault"].as_str().unwrap().contains("user 54321 refused"), "{device}");
    assert_eq!(device["connections"], 0);
    Peer::connect(&socket, Options::default()).unwrap().must_resolve(&HOSTILE, GATEWAY).unwrap();
    site.daemons_must_run().unwrap();
}

/// `count` connections to the honest tenant's socket, each of which must be answered in time.
fn must_be_prompt(socket: &Path, count: u64, act: &str) {
    let mut took: Vec<Duration> = (0..count)
        .map(|_| {
            // Before the daemon's pause after a short connection, which is for a front-end that comes again at once.
            thread::sleep(Duration::from_millis(30));
            accepted(socket)
        })
        .collect();
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{act}: {count} answered, the median in {median:?}, the slowest in {slowest:?}");
    assert!(median < PROMPT, "{act}: {median:?}");
    // What else this machine does must not fail the small run.
    let limit = if long() { 2 * PROMPT } else { 10 * PROMPT };
    assert!(slowest < limit, "{act}: {slowest:?}");
}

/// How long the first answer on `socket` takes.
fn accepted(socket: &Path) -> Duration {
    let start = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::io::Write::write_all(&mut stream, &message(request::GET_FEATURES, 1, 0, &[])).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 20]).unwrap();
    start.elapsed()
}

/// The hostile tenant's attachment, as `show attachments` has it.
fn shown(site: &Site) -> Value {
    let shown = site.daemons[0].show("attachments").unwrap();
    let attachments = shown.as_array().unwrap();
    attachments.iter().find(|attachment| attachment["name"] == HOSTILE.name).unwrap().clone()
}
