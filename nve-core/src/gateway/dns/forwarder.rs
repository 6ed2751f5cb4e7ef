//! The questions that are outstanding, and what comes of them.
//!
//! What must stay true: a question ends once: with an answer, with SERVFAIL 4.8 s after it came, or without a word for another attachment's
//! sake ([`QUESTIONS`]). Until then it is asked of one server after the other, each time from a socket of its own; the last two are listened to.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use smoltcp::wire::{DnsRcode, EthernetAddress, EthernetFrame};

use super::{Asked, MAX_SERVERS, frame, read};
use crate::DropReason;
use crate::addr::{DomainId, Vnid};
use crate::gateway::GatewayContext;
use crate::pipeline::PortId;
use crate::policy::{Attachment, Network, World};

/// Questions outstanding in all. Each has two sockets at most.
pub(super) const QUESTIONS: usize = 256;
/// Questions outstanding of one attachment.
pub(super) const QUESTIONS_EACH: usize = 32;
/// How long one server has before the next is asked as well.
pub(super) const PATIENCE: Duration = Duration::from_millis(1200);
/// How often a question is asked: all is over before the five seconds are that a guest's resolver waits by default (resolv.conf(5)).
const ATTEMPTS: usize = MAX_SERVERS;
/// Sockets of one question that are listened to.
const LISTENING: usize = 2;
/// Wrong answers to one socket after which it is given up: somebody guesses (RFC 5452, 9.2).
const GUESSES: u8 = 16;

/// One question at one server: names the socket that it was sent from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

/// What the shell does on the host's side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Errand {
    /// Open a socket at a port that nobody can predict, connect it to `server`, send `message`.
    Send {
        /// What the socket is called from now on.
        token: Token,
        /// Address and port.
        server: SocketAddr,
        /// One datagram.
        message: Vec<u8>,
    },
    /// Close this socket, if it is open.
    Close(Token),
}

/// What came to a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A datagram, from there.
    Datagram(SocketAddr, Vec<u8>),
    /// The socket could not be made or used, or the network says that nobody listens there.
    Unreachable,
}

/// What comes of a question, an answer or the time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Something to be done on the host's side.
    Errand(Errand),
    /// Give the attachment behind this port the Ethernet frame.
    Answer(PortId, Vec<u8>),
    /// Count a packet of, or for, the attachment behind this port.
    Dropped(PortId, DropReason),
}

/// Who waits for an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Asker {
    port: PortId,
    /// Its domain, and its number there.
    network: (DomainId, Vnid),
    mac: EthernetAddress,
    from: SocketAddr,
    /// Which address of the gateway it asked.
    to: IpAddr,
}

impl Asker {
    /// Whether the attachment of that number is, in `world`, the one that asked: the number may be another's by now.
    fn is_still_there(&self, world: &World) -> bool {
        attachment(world, self.port).is_some_and(|(attachment, network)| {
            let address = self.from.ip();
            let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let behind = || attachment.prefixes.iter().any(|prefix| prefix.contains_addr(&address.into()));
            let own = attachment.addresses.contains(&address) || attachment.shared.contains(&address);
            network.number() == self.network
                && (attachment.mac == self.mac || attachment.macs.contains(&self.mac))
                && (link_local || own || behind())
        })
    }
}

fn attachment(world: &World, port: PortId) -> Option<(&Attachment, &Network)> {
    let attachment = world.attachment(port)?;
    Some((attachment, world.network(attachment.network)?))
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Outstanding {
    asker: Asker,
    query: super::Query,
    /// In the order in which they are asked, and then again from the first.
    servers: Vec<SocketAddr>,
    /// Of all attempts; the last two are listened to.
    attempts: Vec<Attempt>,
    /// When the next server is asked, or the question ends.
    due: Duration,
}

#[derive(Debug)]
struct Attempt {
    token: Token,
    server: SocketAddr,
    id: u16,
    wrong: u8,
    listening: bool,
}

/// Two bytes that neither a tenant nor the network can predict, others each time.
pub type Random = Box<dyn FnMut() -> u16 + Send>;

/// All questions of all attachments of a host.
pub struct Forwarder {
    /// In the order in which they came.
    outstanding: Vec<Outstanding>,
    /// The server that answered an attachment last, where that is not the first.
    preferred: HashMap<PortId, SocketAddr>,
    acts: VecDeque<Act>,
    tokens: u64,
    random: Random,
}

impl core::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Forwarder").field("outstanding", &self.outstanding).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Nothing is asked yet; `random` makes the identifications.
    pub fn new(random: Random) -> Self {
        let (outstanding, preferred) = (Vec::new(), HashMap::new());
        Self { outstanding, preferred, acts: VecDeque::new(), tokens: 0, random }
    }

    /// Takes a question that the walk let through: the Ethernet `frame` came from the attachment behind `port`.
    pub fn ask(&mut self, world: &World, port: PortId, frame: &[u8], now: Duration) {
        if let Err(reason) = self.try_ask(world, port, frame, now) {
            self.acts.push_back(Act::Dropped(port, reason));
        }
    }

    fn try_ask(
        &mut self,
        world: &World,
        port: PortId,
        frame: &[u8],
        now: Duration,
    ) -> Result<(), DropReason> {
        let (attachment, network) = attachment(world, port).ok_or(DropReason::NoAttachment)?;
        let ctx = GatewayContext::new(attachment, network, &|_| false);
        let ethernet = EthernetFrame::new_checked(frame).map_err(|_| DropReason::Malformed)?;
        let Asked { from, to, query } = read(&ctx, ethernet.payload())?;
        let asker = Asker { port, network: network.number(), mac: ethernet.src_addr(), from, to };
        if self.outstanding.iter().any(|other| other.asker == asker && other.query.is_same(&query)) {
            return Err(DropReason::DnsRepeated);
        }
        self.make_room(port)?;
        let mut servers = network.dns_forward.clone();
        if let Some(preferred) = self.preferred.get(&port)
            && let Some(at) = servers.iter().position(|server| server == preferred)
        {
            servers.rotate_left(at);
        }
        if servers.is_empty() {
            return Err(DropReason::GatewayNoService);
        }
        self.outstanding.push(Outstanding { asker, query, servers, attempts: Vec::new(), due: now });
        self.attempt(self.outstanding.len() - 1, now);
        Ok(())
    }

    /// Lets an attachment have one question more. When there is no room in all, the oldest question of whoever has most ends.
    fn make_room(&mut self, port: PortId) -> Result<(), DropReason> {
        let mut counts: HashMap<PortId, usize> = HashMap::new();
        for question in &self.outstanding {
            *counts.entry(question.asker.port).or_default() += 1;
        }
        let own = counts.get(&port).copied().unwrap_or_default();
        if own >= QUESTIONS_EACH {
            return Err(DropReason::DnsBusy);
        }
        if self.outstanding.len() < QUESTIONS {
            return Ok(());
        }
        let most = counts.into_iter().max_by_key(|(port, count)| (*count, *port));
        let Some((greedy, count)) = most.filter(|(_, count)| *count > own + 1) else {
            return Err(DropReason::DnsBusy);
        };
        debug_assert!(count <= QUESTIONS_EACH);
        if let Some(oldest) = self.outstanding.iter().position(|question| question.asker.port == greedy) {
            self.end(oldest);
            self.acts.push_back(Act::Dropped(greedy, DropReason::DnsBusy));
        }
        Ok(())
    }

    /// Asks the next server, under a new identification and from a new socket.
    fn attempt(&mut self, index: usize, now: Duration) {
        let Some(question) = self.outstanding.get_mut(index) else { return };
        let Some(server) = question.servers.get(question.attempts.len() % question.servers.len()) else {
            return;
        };
        self.tokens += 1;
        let attempt = Attempt {
            token: Token(self.tokens),
            server: *server,
            id: (self.random)(),
            wrong: 0,
            listening: true,
        };
        let message = question.query.for_server(attempt.id);
        self.acts.push_back(Act::Errand(Errand::Send { token: attempt.token, server: *server, message }));
        question.attempts.push(attempt);
        question.due = now + PATIENCE;
        let listening = question.attempts.iter_mut().filter(|attempt| attempt.listening);
        for old in listening.rev().skip(LISTENING) {
            old.listening = false;
            self.acts.push_back(Act::Errand(Errand::Close(old.token)));
        }
    }

    /// Which question was sent from this socket, and in which attempt.
    fn find(&self, token: Token) -> Option<(usize, usize)> {
        self.outstanding.iter().enumerate().find_map(|(index, question)| {
            let attempt = question.attempts.iter().position(|a| a.token == token && a.listening)?;
            Some((index, attempt))
        })
    }

    /// Something came to the socket `token`. Where it cannot be used, the next server is asked now.
    pub fn heard(&mut self, world: &World, token: Token, heard: Heard, now: Duration) {
        let Heard::Datagram(from, message) = heard else { return self.give_up(token, now) };
        let Some((index, number)) = self.find(token) else { return };
        let Some(question) = self.outstanding.get_mut(index) else { return };
        let Some(attempt) = question.attempts.get_mut(number) else { return };
        let rcode = question.query.answer(attempt.id, &message).filter(|_| from == attempt.server);
        let Some(rcode) = rcode else {
            attempt.wrong += 1;
            let given_up = attempt.wrong >= GUESSES;
            self.acts.push_back(Act::Dropped(question.asker.port, DropReason::DnsForged));
            if given_up {
                self.give_up(token, now);
            }
            return;
        };
        let unhappy = matches!(rcode, DnsRcode::ServFail | DnsRcode::Refused | DnsRcode::NotImp);
        if unhappy && question.attempts.len() < question.servers.len() {
            self.give_up(token, now);
            return;
        }
        if let Some(question) = self.end(index) {
            if !unhappy {
                self.prefer(question.asker.port, from, world);
            }
            let answer = question.query.for_asker(message);
            self.tell(&question.asker, &answer, world);
        }
    }

    /// Remembers which server answered, where it is not the first anyway.
    fn prefer(&mut self, port: PortId, server: SocketAddr, world: &World) {
        let first = attachment(world, port).and_then(|(_, network)| network.dns_forward.first());
        if first == Some(&server) {
            self.preferred.remove(&port);
        } else {
            self.preferred.insert(port, server);
        }
    }

    /// Listens to this socket no more, and asks the next server, unless all have been.
    fn give_up(&mut self, token: Token, now: Duration) {
        let Some((index, number)) = self.find(token) else { return };
        let Some(question) = self.outstanding.get_mut(index) else { return };
        if let Some(attempt) = question.attempts.get_mut(number) {
            attempt.listening = false;
            self.acts.push_back(Act::Errand(Errand::Close(token)));
        }
        let is_last = number + 1 == question.attempts.len();
        if is_last && question.attempts.len() < question.servers.len() {
            self.attempt(index, now);
        }
    }

    /// Asks further servers and ends what nobody answered. To be called when [`Forwarder::due`] has come.
    pub fn tick(&mut self, world: &World, now: Duration) {
        let mut index = 0;
        while let Some(question) = self.outstanding.get(index) {
            if question.due > now {
                index += 1;
            } else if question.attempts.len() < ATTEMPTS {
                self.attempt(index, now);
                index += 1;
            } else if let Some(question) = self.end(index) {
                // Whoever is still asked is not the one to begin with next time.
                self.preferred.remove(&question.asker.port);
                self.tell(&question.asker, &question.query.server_failure(), world);
            }
        }
    }

    /// When [`Forwarder::tick`] has something to do; `None`: not before the next question.
    pub fn due(&self) -> Option<Duration> {
        self.outstanding.iter().map(|question| question.due).min()
    }

    /// Lets go of all that the attachment behind this port has asked.
    pub fn forget(&mut self, port: PortId) {
        while let Some(index) = self.outstanding.iter().position(|question| question.asker.port == port) {
            self.end(index);
        }
        self.preferred.remove(&port);
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// Questions that wait for their answers.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    fn end(&mut self, index: usize) -> Option<Outstanding> {
        if index >= self.outstanding.len() {
            return None;
        }
        let question = self.outstanding.remove(index);
        let listening = question.attempts.iter().filter(|attempt| attempt.listening);
        self.acts.extend(listening.map(|attempt| Act::Errand(Errand::Close(attempt.token))));
        Some(question)
    }

    fn tell(&mut self, asker: &Asker, message: &[u8], world: &World) {
        let act = match frame(asker.mac, asker.to, asker.from, message) {
            _ if !asker.is_still_there(world) => Act::Dropped(asker.port, DropReason::NoAttachment),
            Some(frame) => Act::Answer(asker.port, frame),
            None => Act::Dropped(asker.port, DropReason::GatewayNoRoom),
        };
        self.acts.push_back(act);
    }
}
