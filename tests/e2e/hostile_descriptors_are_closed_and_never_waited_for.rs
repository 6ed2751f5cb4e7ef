//! What a front-end passes beside its messages: too much of it, the wrong kind, and eventfds made to block whoever uses them.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{Beside, GATEWAY, HOSTILE};
use vhost_ila_tests::ringpeer::hostile::{Connection, request};
use vhost_ila_tests::ringpeer::memory::Memory;
use vhost_ila_tests::ringpeer::neighbours::arp_request;
use vhost_ila_tests::ringpeer::{Options, Peer, connect};
use vhost_ila_tests::scoreboard::Check;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

/// Request codes that the specification knows, and one beyond.
const REQUESTS: u64 = 46;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn surplus_files_and_files_of_the_wrong_kind_are_closed() {
    let mut check = Check::begin(14, "messages");
    let mut dice = check.dice();
    let mut host = Beside::start("e2e/hostile-descriptors").unwrap();
    // What the daemon itself was started with.
    let inherited = host.inheritable().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let (directory, zero) = (File::open("/").unwrap(), File::open("/dev/zero").unwrap());
    let (socket, _other) = UnixStream::pair().unwrap();
    let (epoll, event) = (Epoll::new().unwrap(), EventFd::new(0).unwrap());
    let memory = Memory::new().unwrap();
    let kinds: [&dyn AsRawFd; 8] =
        [&directory, &zero, &reader, &writer, &socket, &epoll, &event, &*memory.file];
    let begun = Instant::now();
    for round in 0..check.scale(300, 10_000) {
        let connection = Connection::to(&host.socket).unwrap();
        if dice.once_in(2) {
            // It may be refused already.
            drop(connection.negotiate());
        }
        let count = dice.of(&[0, 1, 1, 2, 8, 31, 32, 33, 64, 252, 253]);
        let files: Vec<RawFd> = (0..count)
            // One kind in nine is the connection itself.
            .map(|_| {
                kinds.get(dice.below(9) as usize).map_or(connection.as_raw_fd(), |kind| kind.as_raw_fd())
            })
            .collect();
        let length = dice.of(&[0, 4, 8, 8, 12, 40, 40, 4096]);
        let body = dice.bytes(length);
        let request = 1 + dice.below(REQUESTS) as u32;
        drop(connection.say(request, &body, &files));
        check.count(1);
        if round % 100 == 0 {
            host.unharmed(&format!("round {round}: {count} files beside request {request}")).unwrap();
        }
    }
    // Hundreds of refusals are a few lines: five at once, then one every ten seconds.
    let lines = host.log().unwrap().lines().filter(|line| line.contains("evil: ")).count() as u64;
    let allowed = 6 + begun.elapsed().as_secs() / 10;
    assert!((1..=allowed).contains(&lines), "{lines} lines in {:?}", begun.elapsed());
    // What an honest session has is closed when the daemon runs another program, which it does not.
    let mut peer = Peer::connect(&host.socket, Options::default()).unwrap();
    peer.must_resolve(&HOSTILE, GATEWAY).unwrap();
    assert_eq!(host.inheritable().unwrap(), inherited, "not close-on-exec");
    drop(peer);
    host.end().unwrap();
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn events_that_would_block_or_never_come() {
    let mut check = Check::begin(16, "frames");
    let mut host = Beside::start("e2e/hostile-events").unwrap();
    let rounds = check.scale(200, 20_000);
    // Calls that are always full, and whose writers would wait.
    for (name, flags) in [("blocking", 0), ("not blocking", EFD_NONBLOCK), ("a semaphore", EFD_SEMAPHORE)] {
        let mut peer = Peer::new(Options::default()).unwrap();
        peer.rx().call = EventFd::new(flags).unwrap();
        peer.tx().call = EventFd::new(flags).unwrap();
        peer.attach(connect(&host.socket).unwrap()).unwrap();
        for round in 0..rounds {
            fill(&peer.rx().call, flags);
            fill(&peer.tx().call, flags);
            peer.send_unheard(&arp_request(&HOSTILE, GATEWAY).unwrap()).unwrap();
            if round % 64 == 63 {
                // The answers' buffers go back; their calls are taken, and filled again.
                for _ in 0..64 {
                    peer.receive(Duration::from_millis(1)).unwrap();
                }
            }
            check.count(1);
        }
        host.unharmed(&format!("full calls, {name}")).unwrap();
        // A kick that can tell nothing more.
        let kick = EventFd::new(flags).unwrap();
        fill(&kick, flags);
        peer.exchange_kick(kick).unwrap();
        host.unharmed(&format!("full kicks, {name}")).unwrap();
    }
    // A full pipe where an event should be is no event.
    let (_reader, writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    for request in [request::SET_VRING_CALL, request::SET_VRING_KICK] {
        let mut connection = Connection::to(&host.socket).unwrap();
        connection.negotiate().unwrap();
        connection.say(request, &0u64.to_le_bytes(), &[writer.as_raw_fd()]).unwrap();
        assert!(connection.is_closed());
        wait_for("it to be named", Duration::from_secs(5), || {
            let fault = host.shown()?["last_fault"].to_string();
            Ok(fault.contains("not an eventfd").then_some(()))
        })
        .unwrap();
    }
    // Kicks that are exchanged while frames flow; the old ones go on being written.
    let mut peer = Peer::connect(&host.socket, Options::default()).unwrap();
    let mut old = Vec::new();
    for round in 0..check.scale(50, 2_000) {
        old.push(peer.exchange_kick(EventFd::new(EFD_NONBLOCK).unwrap()).unwrap());
        old.iter().for_each(|kick: &EventFd| drop(kick.write(1)));
        old.truncate(16);
        peer.send(&arp_request(&HOSTILE, GATEWAY).unwrap()).unwrap();
        peer.flush().unwrap_or_else(|e| panic!("round {round}: {e}"));
        check.count(1);
    }
    drop(peer);
    host.end().unwrap();
}

/// Sets the counter of `event` to its largest value and its flags to `flags`, as whoever made it can at any time.
fn fill(event: &EventFd, flags: i32) {
    // The same open file, as a type whose flags can be changed.
    let (near, far) = UnixStream::pair().unwrap();
    near.send_with_fd(&[0u8][..], event.as_raw_fd()).unwrap();
    let file = far.recv_with_fd(&mut [0]).unwrap().1.unwrap();
    // Nobody must wait here, whoever else writes at this moment.
    fcntl_setfl(&file, OFlags::NONBLOCK).unwrap();
    drop(event.read());
    drop(event.write(u64::MAX - 1));
    if flags & EFD_NONBLOCK == 0 {
        fcntl_setfl(&file, OFlags::empty()).unwrap();
    }
}
