//! What the rest of the daemon sees: start, apply, report.
//!
//! What must stay true: one owner, [`Service`], ends the thread; a policy that was refused changes nothing.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use nve_core::pipeline::Nve;
use nve_core::redirect::{Outcome, Policy, Tally};
use rustix::net::sockopt::set_ipv6_freebind;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::RedirectConfig;
use super::thread::{Notes, QUEUE, Thread};
use crate::punt::Bell;

/// What the thread serves with.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// One in each domain.
    pub(super) sockets: Vec<Bound>,
    pub(super) policy: Policy,
}

/// A socket at this host's control address in one domain; others are at the same port.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) at: (Ipv6Addr, u16),
}

/// What a config takes, and is not served with yet: its sockets are bound.
#[derive(Debug)]
pub struct Prepared(Current);

/// What both threads have.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) current: ArcSwap<Current>,
    pub(super) quit: AtomicBool,
    pub(super) bell: Arc<Bell>,
    pub(super) tally: Tally,
}

/// Redirects at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedirectReport {
    /// Where the sockets are, one in each domain; none: there is no `[redirect]`.
    pub at: Vec<(Ipv6Addr, u16)>,
    /// Whether redirects are listened to.
    pub accept: bool,
    /// Whether they are told.
    pub send: bool,
    /// Numbers of the keys: the first signs.
    pub keys: Vec<u16>,
    /// Every outcome and how often it came about.
    pub outcomes: Vec<(Outcome, u64)>,
}

/// The running service; ends when dropped.
#[derive(Debug)]
pub struct Service {
    nve: Arc<Nve>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Service {
    /// Starts the thread, without a socket; and the worker's end.
    ///
    /// # Errors
    /// The system's.
    pub fn start(nve: Arc<Nve>) -> io::Result<(Self, Notes)> {
        let bell = Arc::new(Bell::new()?);
        let (triangles, inbox) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            current: ArcSwap::default(),
            quit: AtomicBool::new(false),
            bell: Arc::clone(&bell),
            tally: Tally::default(),
        });
        let arrived = Arc::clone(&bell);
        nve.on_arrival(move || arrived.ring());
        let thread = Thread::new(Arc::clone(&nve), Arc::clone(&shared), inbox);
        let handle = std::thread::Builder::new().name("redirect".to_owned()).spawn(move || thread.run())?;
        let notes = Notes::new(triangles, bell);
        Ok((Self { nve, shared, thread: Mutex::new(Some(handle)) }, notes))
    }

    /// Serves by `config` from now on; not at all without one.
    ///
    /// # Errors
    /// The socket cannot be bound; nothing has changed.
    pub fn apply(&self, config: Option<&RedirectConfig>) -> io::Result<()> {
        self.install(self.prepare(config)?);
        Ok(())
    }

    /// All that `config` takes, for [`Service::install`]. What it serves with now goes on.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn prepare(&self, config: Option<&RedirectConfig>) -> io::Result<Prepared> {
        let before = self.shared.current.load_full();
        let next = match config {
            None => Current::default(),
            Some(RedirectConfig { policy, port }) => {
                let world = self.nve.world();
                let wanted = world.domains().iter().map(|domain| (domain.locator().control_address(), *port));
                let bound = wanted.map(|at| match before.sockets.iter().find(|bound| bound.at == at) {
                    Some(kept) => Ok(kept.clone()),
                    None => Ok(Bound { socket: Arc::new(open(at).map_err(|e| unbound(at, &e))?), at }),
                });
                Current { sockets: bound.collect::<io::Result<_>>()?, policy: policy.clone() }
            }
        };
        Ok(Prepared(next))
    }

    /// Serves with this from now on.
    pub fn install(&self, Prepared(next): Prepared) {
        self.nve.want_triangles(next.policy.send);
        self.shared.current.store(Arc::new(next));
        self.shared.bell.ring();
    }

    /// What it serves with, and what came of it.
    #[must_use]
    pub fn report(&self) -> RedirectReport {
        let current = self.shared.current.load();
        RedirectReport {
            at: current.sockets.iter().map(|bound| bound.at).collect(),
            accept: current.policy.accept,
            send: current.policy.send,
            keys: current.policy.keys.ids().map(|id| id.0).collect(),
            outcomes: Outcome::ALL.iter().map(|outcome| (*outcome, self.shared.tally.of(*outcome))).collect(),
        }
    }

    /// Ends the thread; returns when it has.
    pub fn stop(&self) {
        self.shared.quit.store(true, Ordering::Release);
        self.shared.bell.ring();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread of redirects panicked");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn unbound((address, port): (Ipv6Addr, u16), why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("redirects: [{address}]:{port} cannot be bound: {why}"))
}

/// A socket at a control address, also before the address is on `lo`.
fn open((address, port): (Ipv6Addr, u16)) -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, flags, None)?;
    set_ipv6_freebind(&socket, true)?;
    bind(&socket, &SocketAddrV6::new(address, port, 0, 0))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use nve_core::redirect::{Key, KeyId, Keys};

    use super::*;
    use crate::config::Config;

    const HOST: &str = "[host]\nname = \"hv1\"\nlocator = \"2001:db8:0:1::/64\"\nsir = \"2001:db8:51::/64\"\n[uplink]\nkind = \"none\"\n";

    fn service() -> Service {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("host.toml");
        std::fs::write(&path, HOST).expect("written");
        let setup = Config::load(&path).expect("accepted").setup;
        Service::start(Nve::new(setup, 16)).expect("started").0
    }

    fn config(port: u16) -> RedirectConfig {
        let key = Key::new(KeyId(3), &[1; 32]).expect("long enough");
        let policy = Policy { keys: Keys::new(vec![key]), accept: true, send: true, ..Policy::default() };
        RedirectConfig { policy, port }
    }

    /// A port that nobody has at this moment.
    fn free_port() -> u16 {
        UdpSocket::bind("[::1]:0").and_then(|socket| socket.local_addr()).expect("bound").port()
    }

    #[test]
    fn a_socket_is_there_while_there_is_a_section_and_one_that_cannot_be_bound_changes_nothing() {
        let (ours, others) = (service(), service());
        assert_eq!(ours.report().at, []);
        let port = free_port();
        ours.apply(Some(&config(port))).expect("bound");
        let report = ours.report();
        let at = vec![("2001:db8:0:1::1".parse().expect("an address"), port)];
        assert_eq!((report.at, report.accept, report.send, report.keys), (at, true, true, vec![3]));
        let refused = others.apply(Some(&config(port))).expect_err("taken").to_string();
        assert!(refused.contains("[2001:db8:0:1::1]:") && refused.contains("cannot be bound"), "{refused}");
        assert_eq!(others.report().at, []);
        // The same again keeps the socket; without a section it is closed once the thread has let go of it.
        ours.apply(Some(&config(port))).expect("kept");
        ours.apply(None).expect("closed");
        ours.stop();
        assert_eq!(ours.report().at, []);
        others.apply(Some(&config(port))).expect("free again");
    }
}
