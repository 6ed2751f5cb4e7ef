//! Front-ends that come and go, stall, do not belong here, or meet a mistake of ours: the next one is served.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::device::server::Server;

/// Does `what` with the effective user `uid`, in a thread of its own; None where we may not become it.
fn as_user<T: Send>(uid: u32, what: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The system call itself, unlike the library's wrapper, changes this thread alone, which ends with it.
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).is_ok().then(what)
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_panic_in_a_connection_is_contained_counted_and_named_and_the_next_front_end_is_served() {
    static FIRST: AtomicBool = AtomicBool::new(true);
    let lab = Lab::new(2);
    lab.daemon.apply(&[device(lab.dir.path(), 2)]).unwrap();
    let port = lab.nve.port("vm1").unwrap();
    let link = lab.daemon.workers.link.clone();
    let server = Server::start_with(
        &device(lab.dir.path(), 1),
        port,
        Arc::clone(&lab.nve),
        link,
        |stream, session, stop| {
            assert!(!FIRST.swap(false, Ordering::Relaxed), "on purpose");
            connection::serve(stream, session, stop)
        },
    )
    .unwrap();
    let report = || server.status.report("vm1");
    let first = UnixStream::connect(lab.socket(1)).unwrap();
    until("counted", || report().panics == 1);
    until("named", || {
        let fault = report().last_fault.unwrap_or_default();
        fault.contains("connections.rs:") && fault.ends_with("on purpose")
    });
    drop(first);
    let mut a = Guest::connect(&lab.socket(1));
    let mut b = Guest::connect(&lab.socket(2));
    a.send(&datagram(1, 2, b"after it"));
    assert_eq!(payload_of(&b.receive()), b"after it");
    assert_eq!(report().connections, 2);
}

#[test]
fn a_front_end_of_another_user_is_refused_by_name_unless_the_attachment_is_its() {
    const THEIRS: u32 = 54321;
    let lab = Lab::new(1);
    let connect = |uid| as_user(uid, || UnixStream::connect(lab.socket(1)).map_err(|e| e.kind()));
    if as_user(THEIRS, || ()).is_none() {
        println!("skipped: only root can become somebody else");
        return;
    }
    std::fs::set_permissions(lab.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(connect(THEIRS).unwrap().unwrap_err(), io::ErrorKind::PermissionDenied, "mode 0600");
    // Somebody opened the socket to all.
    std::fs::set_permissions(lab.socket(1), std::fs::Permissions::from_mode(0o666)).unwrap();
    let stranger = connect(THEIRS).unwrap().unwrap();
    until("refused", || lab.report(1).refused == 1);
    assert!(lab.report(1).last_fault.unwrap().contains("user 54321 refused"));
    assert_eq!(lab.report(1).connections, 0);
    drop(stranger);

    let theirs = DeviceConfig { user: Some(THEIRS), ..device(lab.dir.path(), 1) };
    lab.daemon.apply(&[theirs]).unwrap();
    let metadata = std::fs::metadata(lab.socket(1)).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (THEIRS, 0o600));
    let _theirs = connect(THEIRS).unwrap().unwrap();
    until("let in", || lab.report(1).connected);
    assert_eq!(connect(THEIRS + 1).unwrap().unwrap_err(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_front_end_that_stops_within_a_message_loses_its_connection() {
    let lab = Lab::new(1);
    let mut half = UnixStream::connect(lab.socket(1)).unwrap();
    half.write_all(&[3, 0, 0, 0, 1, 0]).unwrap();
    until("given up", || lab.report(1).last_fault.is_some());
    assert!(lab.report(1).last_fault.unwrap().contains("half a message"));
    let mut a = Guest::connect(&lab.socket(1));
    a.send(&datagram(1, 1, b"served again"));
}

#[test]
fn a_flood_of_connections_to_one_socket_leaves_the_others_prompt() {
    let lab = Lab::new(2);
    let over = AtomicBool::new(false);
    let tried = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut tried = 0;
            while !over.load(Ordering::Relaxed) {
                // A full queue refuses, or holds up the flood.
                drop(crate::device::server::connect(&lab.socket(1)));
                tried += 1;
            }
            tried
        });
        for _ in 0..20 {
            let begin = Instant::now();
            let frontend = Frontend::connect(lab.socket(2), 2).unwrap();
            assert_eq!(frontend.get_features().unwrap(), Offer::default().virtio());
            let took = begin.elapsed();
            // A tenth of a second, and as much again for a machine that is busy with other tests.
            assert!(took < Duration::from_millis(200), "{took:?}");
            drop(frontend);
            std::thread::sleep(Duration::from_millis(25));
        }
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    assert!(tried > 1000, "{tried} connections are no flood");
    let served = lab.report(1).connections;
    assert!(served < 100, "{served} sessions were made for it in half a second");
    drop(Guest::connect(&lab.socket(2)));
}
