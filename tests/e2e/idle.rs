//! A daemon whose guests say nothing takes no processor time: its threads sleep until something happens, and nothing happens by the clock.

use std::thread::sleep;
use std::time::Duration;

use vhost_ila_tests::daemon::{Daemon, Spent};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};

/// On the host of VM1.
const HERE: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };

/// Until the kernel has said what it says on a fresh TUN, and the gateway what it says to a fresh guest.
const SETTLE: Duration = Duration::from_secs(2);
/// How long is looked.
const LOOK: Duration = Duration::from_secs(3);
/// What a daemon's threads may run in that time: a few wakes' worth.
const LITTLE: Duration = Duration::from_millis(10);

/// What the threads of each daemon spend while `during` takes its time.
fn spent(daemons: &[Daemon], during: impl FnOnce()) -> Vec<Vec<Spent>> {
    let now = || daemons.iter().map(|daemon| daemon.threads().unwrap()).collect::<Vec<_>>();
    let before = now();
    during();
    let since = |(after, before): (&Vec<Spent>, &Vec<Spent>)| {
        after.iter().map(|thread| thread.since(before)).collect()
    };
    now().iter().zip(&before).map(since).collect()
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_daemon_without_traffic_sleeps() {
    let mut site = Site::start("e2e/idle", Plan::of(&[VM1, VM2, HERE])).unwrap();
    let mut peers = [VM1, HERE, VM2].map(|vm| Peer::connect(&site.socket(&vm), Options::offloads()).unwrap());
    let neighbour = "10.1.0.3".parse().unwrap();
    peers[0].must_resolve(&VM1, neighbour).unwrap();
    sleep(SETTLE);
    for (host, idle) in spent(&site.daemons, || sleep(LOOK)).iter().enumerate() {
        let ran: Duration = idle.iter().map(|thread| thread.ran).sum();
        let sleeps: u64 = idle.iter().map(|thread| thread.sleeps).sum();
        println!("host {host}: {sleeps} wakes, {ran:?}");
        // A router advertisement, a query of groups or the kernel's report of one on the TUN may fall into the look: a few, not some each second.
        assert!(sleeps <= 3 && ran <= LITTLE, "{sleeps} wakes, {ran:?}: {idle:#?}");
    }
    // Frames are seen in the same figures.
    let busy = spent(&site.daemons, || {
        for _ in 0..20 {
            peers[0].must_resolve(&VM1, neighbour).unwrap();
            sleep(Duration::from_millis(10));
        }
    });
    let worker = busy[0].iter().find(|thread| thread.name == "worker0").unwrap();
    assert!(worker.sleeps >= 15, "{busy:#?}");
    site.daemons_must_run().unwrap();
}
