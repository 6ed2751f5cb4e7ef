//! Whom a guest talks with all the time, while something befalls the guest, its machine or its daemon.
//!
//! ```text
//!   partner ──question (ICMP echo), every 10 ms──> guest's kernel ──answer──> partner      the guest hears
//!   partner <──question── ping in the guest        <──answer── partner                     the guest is heard
//! ```
//!
//! What must stay true:
//! * Every packet that comes is right: its checksums, and what it carries. One wrong byte ends the conversation.
//! * When a direction flows again is told by packets that came, not by what anybody says of itself.
//! * A daemon that goes away is come back to within 10 ms of its being there again.

use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use super::checksum::sum;
use super::neighbours::packet;
use super::{Options, Peer};
use crate::process::wait_for;
use crate::site::{Site, Vm};

/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// ICMP as IPv4 numbers it; its echo and the answer to it (RFC 792).
const ICMP: u8 = 1;
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// Bytes of Ethernet and of an IPv4 header without options.
const HEADERS: usize = 34;

/// When packets came.
#[derive(Default)]
struct Heard {
    /// The guest's questions: the way from it is open.
    questions: Vec<SystemTime>,
    /// The guest's answers, each with the time of its question: the way to it is open, and the way back.
    answers: Vec<(SystemTime, SystemTime)>,
}

/// How long after an event each way was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// From the guest: its first question came.
    pub from_guest: Duration,
    /// To the guest: its first answer to a question that was asked after the event came.
    pub to_guest: Duration,
}

impl Recovery {
    /// The later of the two.
    pub fn both(self) -> Duration {
        self.from_guest.max(self.to_guest)
    }
}

/// The partner, in a thread of its own until it is ended.
pub struct Partner {
    name: &'static str,
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Partner {
    /// `own` begins to ask `guest`, which need not be there yet, and to answer it. The guest asks by [`Partner::pings`].
    ///
    /// # Errors
    ///
    /// Fails when it cannot be attached.
    pub fn begin(site: &Site, own: &Vm, guest: &Vm) -> Result<Partner> {
        let socket = site.socket(own);
        let door = match site.plan().daemons_connect {
            true => Door::Ours(UnixListener::bind(socket)?),
            false => Door::Theirs(socket),
        };
        if let Door::Ours(listener) = &door {
            listener.set_nonblocking(true)?;
        }
        let mut peer = Peer::new(Options::offloads())?;
        peer.attach(wait_for("the daemon of a partner", Duration::from_secs(10), || Ok(door.enter()))?)?;
        let (heard, stop) = (Arc::<Mutex<Heard>>::default(), Arc::new(AtomicBool::new(false)));
        let talk = Talk {
            peer,
            door,
            own: *own,
            guest: *guest,
            heard: heard.clone(),
            asked: [SystemTime::UNIX_EPOCH; ASKED],
        };
        let stopped = stop.clone();
        let thread = thread::spawn(move || talk.run(&stopped));
        Ok(Partner { name: own.name, heard, stop, thread: Some(thread) })
    }

    /// The guest's side, as a command for its shell: it asks each of `partners` fifty times a second, whatever happens to the link.
    pub fn pings(partners: &[Vm]) -> String {
        let to: Vec<&str> = partners.iter().map(|partner| partner.ipv4).collect();
        format!(
            "for to in {}; do (while true; do ping -i 0.02 $to; sleep 0.02; done) >/dev/null 2>&1 & done",
            to.join(" ")
        )
    }

    /// Waits until both ways are open after `event`.
    ///
    /// # Errors
    ///
    /// Fails when one is not within `limit` from now, and when a packet was wrong.
    pub fn recovery(&self, event: SystemTime, limit: Duration) -> Result<Recovery> {
        let what = format!("packets between the guest and {} after the event", self.name);
        wait_for(&what, limit, || {
            self.must_talk()?;
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let question = heard.questions.get(heard.questions.partition_point(|came| *came <= event));
            // An answer to what was asked before says nothing about now.
            let answer = heard.answers.get(heard.answers.partition_point(|(asked, _)| *asked <= event));
            let Some((question, (_, answer))) = question.zip(answer) else { return Ok(None) };
            let after = |came: &SystemTime| came.duration_since(event);
            Ok(Some(Recovery { from_guest: after(question)?, to_guest: after(answer)? }))
        })
    }

    /// How many questions of the guest came after `event`, and how many answers to what was asked after it.
    pub fn heard_since(&self, event: SystemTime) -> (usize, usize) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let questions = heard.questions.partition_point(|came| *came <= event);
        let answers = heard.answers.partition_point(|(asked, _)| *asked <= event);
        (heard.questions.len() - questions, heard.answers.len() - answers)
    }

    /// Ends the conversation.
    ///
    /// # Errors
    ///
    /// Fails when a packet was wrong, ever.
    pub fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("ended already")?;
        thread.join().map_err(|_| anyhow!("{}'s thread panicked", self.name))?
    }

    fn must_talk(&self) -> Result<()> {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        ensure!(!ended, "{} has ended the conversation: ask `end` why", self.name);
        Ok(())
    }
}

/// Questions whose time is remembered; an answer to an older one says nothing about now.
const ASKED: usize = 256;

/// How a front-end comes to its daemon.
enum Door {
    /// The daemon listens.
    Theirs(PathBuf),
    /// The daemon connects.
    Ours(UnixListener),
}

impl Door {
    fn enter(&self) -> Option<UnixStream> {
        match self {
            Door::Theirs(socket) => UnixStream::connect(socket).ok(),
            Door::Ours(listener) => {
                let (stream, _) = listener.accept().ok()?;
                stream.set_nonblocking(false).ok()?;
                Some(stream)
            }
        }
    }
}

/// What the thread owns.
struct Talk {
    peer: Peer,
    door: Door,
    own: Vm,
    guest: Vm,
    heard: Arc<Mutex<Heard>>,
    /// When each of the last questions was asked, by the low bits of its number.
    asked: [SystemTime; ASKED],
}

impl Talk {
    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let mut last = Instant::now();
        let mut number: u16 = 0;
        while !stop.load(Ordering::Relaxed) {
            if self.peer.is_left() {
                self.come_back();
                continue;
            }
            let said = if last.elapsed() >= PAUSE {
                last = Instant::now();
                number = number.wrapping_add(1);
                self.ask(number)
            } else {
                Ok(())
            };
            match said.and_then(|()| self.listen()) {
                // Killed while it gave a buffer back: no word of a device.
                Err(_) if self.peer.is_left() => {}
                other => other.with_context(|| format!("{} and {}", self.own.name, self.guest.name))?,
            }
        }
        Ok(())
    }

    fn come_back(&mut self) {
        // A daemon that is killed again meanwhile is come back to again.
        let attached = self.door.enter().is_some_and(|stream| self.peer.attach(stream).is_ok());
        if !attached {
            thread::sleep(PAUSE);
        }
    }

    fn ask(&mut self, number: u16) -> Result<()> {
        let frame = echo(&self.own, &self.guest, ECHO, &rest(number))?;
        self.asked[usize::from(number) % ASKED] = SystemTime::now();
        self.peer.send(&frame)
    }

    fn listen(&mut self) -> Result<()> {
        let Some(frame) = self.peer.receive(PAUSE / 2)? else { return Ok(()) };
        let frame = frame.bytes;
        let from_guest = frame.get(26..30) == Some(&self.guest.ipv4.parse::<Ipv4Addr>()?.octets());
        if frame.get(12..14) != Some(&[8, 0]) || frame.get(23) != Some(&ICMP) || !from_guest {
            return Ok(());
        }
        let (Some(ip), Some(icmp)) = (frame.get(14..HEADERS), frame.get(HEADERS..)) else {
            return Err(anyhow!("cut off: {frame:02x?}"));
        };
        ensure!(sum(ip, 0) == 0xffff && sum(icmp, 0) == 0xffff, "a wrong checksum: {frame:02x?}");
        let now = SystemTime::now();
        match icmp.first() {
            Some(&ECHO) => {
                let rest = icmp.get(4..).context("an echo of less than eight bytes")?.to_vec();
                self.heard.lock().unwrap_or_else(PoisonError::into_inner).questions.push(now);
                self.peer.send(&echo(&self.own, &self.guest, ECHO_REPLY, &rest)?)
            }
            Some(&ECHO_REPLY) => {
                let number = icmp.get(6..8).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
                let number = number.context("an answer without a number")?;
                ensure!(icmp.get(4..) == Some(&rest(number)), "answers what was not asked: {frame:02x?}");
                let asked = self.asked[usize::from(number) % ASKED];
                self.heard.lock().unwrap_or_else(PoisonError::into_inner).answers.push((asked, now));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What follows the checksum of question `number`: identifier, number, and a pattern that tells it from others.
fn rest(number: u16) -> [u8; 60] {
    let mut bytes = [0; 60];
    bytes[0..2].copy_from_slice(&0x696cu16.to_be_bytes());
    bytes[2..4].copy_from_slice(&number.to_be_bytes());
    for (at, byte) in bytes.iter_mut().enumerate().skip(4) {
        *byte = (usize::from(number) * 31 + at) as u8;
    }
    bytes
}

/// An ICMP message in IPv4; `rest` is all of it behind the checksum.
fn echo(from: &Vm, to: &Vm, kind: u8, rest: &[u8]) -> Result<Vec<u8>> {
    let mut icmp = vec![kind, 0, 0, 0];
    icmp.extend(rest);
    let checksum = !sum(&icmp, 0);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet(from, to, ICMP, &icmp)
}
