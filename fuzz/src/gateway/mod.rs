//! One tenant does its worst to the virtual gateway; another, of another network and under the same IPv4 address, asks it the same as ever.
//!
//! What must stay true, whatever the script: what the gateway says goes to the asker and is what `judge.rs` allows; one frame brings one reply at
//! most, one question of DNS one answer; a forged answer brings none; nothing else of what it is sent comes out anywhere; the other tenant hears nothing, and
//! at the end is told what it would be told in a world without the first.
//!
//! ```text
//!   bytes ── script.rs ──> frames, waits, datagrams of resolvers ──> Walker, Desks ──> judge.rs
//!                                                                              └────> the other tenant's questions, compared
//! ```

mod judge;
mod script;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use nve_core::addr::ChecksumMode;
use nve_core::gateway::GATEWAY_MAC;
use nve_core::gateway::dns::{Errand, Heard, Token};
use nve_core::packet::Offload;
use nve_core::pipeline::{CarryOut, Desk, Nve, Origin, Outcome, PortId, Receiver, Scratch, Walker};
use nve_core::punt::{Desks, Outbox, Punted};
use nve_core::testkit::dissect::Dissected;
use nve_core::testkit::frames::{self, Header};
use smoltcp::wire::EthernetAddress;

use crate::{GUESTS, Guest};
use judge::{Buckets, Class};
use script::{Bytes, Datagram, Event, Step, Tcp};

const ASKER: &Guest = &GUESTS[0];
const WITNESS: &Guest = &GUESTS[2];
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 254);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0xffff, 0xfffe);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 1);
const SERVERS: [&str; 2] = ["192.0.2.53:53", "[2001:db8:53::53]:5353"];

/// Frames of one script at most.
const FRAMES: usize = 1500;

/// What the other tenant is told where nobody does anything.
static UNDISTURBED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| Link::new().witness());

/// Runs the script that `bytes` are, and judges it.
pub fn run(bytes: &[u8]) {
    let mut link = Link::new();
    let mut input = Bytes(bytes);
    let mut frames = 0;
    while frames < FRAMES
        && let Some(Step { delay, repeat, event }) = script::step(&mut input, &link.tcp)
    {
        link.wait(delay);
        frames += repeat;
        for _ in 0..repeat {
            match &event {
                Event::Frame(frame, offload) => link.send(frame, *offload),
                Event::Datagram(datagram) => link.resolve(datagram),
            }
        }
    }
    assert_eq!(link.witness(), *UNDISTURBED, "the other tenant is told something else");
}

/// The gateway between the two.
struct Link {
    walker: Walker,
    carry_out: CarryOut,
    desks: Desks,
    asker: PortId,
    witness: PortId,
    now: Duration,
    buckets: Buckets,
    tcp: Tcp,
    /// Questions at the resolvers: socket, server, message.
    questions: Vec<(Token, SocketAddr, Vec<u8>)>,
    /// Questions that were taken, less the answers given.
    unanswered: usize,
}

/// What came of one frame, all of it for the asker.
#[derive(Default)]
struct Came {
    replies: Vec<Vec<u8>>,
    punted: Vec<(Desk, Vec<u8>)>,
}

impl Link {
    fn new() -> Self {
        let mut setup = crate::setup(ChecksumMode::Neutral);
        setup.attachments.retain(|attachment| [ASKER.name, WITNESS.name].contains(&attachment.name.as_str()));
        for network in &mut setup.networks {
            network.dns_forward = SERVERS.map(|server| server.parse().expect("an address")).into();
        }
        let nve = Nve::new(setup.check().expect("a good setup"), 64);
        let [asker, witness] = [ASKER, WITNESS].map(|guest| nve.port(guest.name).expect("configured"));
        let up = Receiver { up: true, ..Receiver::default() };
        [asker, witness].iter().for_each(|port| nve.set_receiver(*port, up));
        let mut identification = 0_u16;
        let random = Box::new(move || {
            identification = identification.wrapping_mul(25_173).wrapping_add(13_849);
            identification
        });
        let now = Duration::from_secs(1000);
        Self {
            walker: Walker::new(Arc::clone(&nve)),
            carry_out: CarryOut::default(),
            desks: Desks::new(nve, 1, random),
            asker,
            witness,
            now,
            buckets: Buckets::full(now),
            tcp: Tcp::default(),
            questions: Vec::new(),
            unanswered: 0,
        }
    }

    /// Lets time go by; what is due comes when it is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100 {
            let next = self.desks.until_tick(self.now).map(|wait| self.now + wait);
            let Some(next) = next.filter(|next| *next <= end && *next > self.now) else { break };
            self.advance(next);
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Duration) {
        self.buckets.wait(to - self.now);
        self.now = to;
        self.walker.begin(self.now);
        let mut scratch = Scratch::default();
        let mut unasked = 0;
        while let Some((port, said)) = self.walker.tick(&mut scratch) {
            // Router advertisements to both, each once in half an hour.
            unasked += 1;
            assert!(unasked <= 2 && said.tail.is_empty(), "said unasked");
            if port == self.asker {
                assert_eq!(judge::frame(&scratch.head[said.head], None), Class::Router);
            }
        }
        let mut out = Outbox::default();
        self.desks.tick(self.now, &mut out);
        self.said(out, None);
    }

    /// A frame of the asker.
    fn send(&mut self, frame: &[u8], offload: Offload) {
        let came = self.walk(self.asker, frame, offload);
        assert!(came.replies.len() + came.punted.len() <= 1, "one frame brings several answers");
        for reply in &came.replies {
            self.hear(reply, Some(frame));
        }
        for (desk, punted) in &came.punted {
            let mut out = Outbox::default();
            let punted = Punted { port: self.asker, desk: *desk, frame: punted };
            self.desks.take(self.now, &punted, &mut out);
            self.unanswered +=
                out.errands.iter().filter(|errand| matches!(errand, Errand::Send { .. })).count();
            self.said(out, Some(punted.frame));
        }
    }

    /// What becomes of a frame of this attachment; nobody but it gets any of it.
    fn walk(&mut self, from: PortId, frame: &[u8], offload: Offload) -> Came {
        let mut came = Came::default();
        self.walker.begin(self.now);
        self.carry_out.carry_out(&mut self.walker, Origin::Port(from), frame, offload, &mut |outcome| {
            match outcome {
                Outcome::Reply(reply, _) => came.replies.push(reply.to_vec()),
                Outcome::Punted(desk, frame) => came.punted.push((desk, frame.to_vec())),
                // What it sends to an address of its own comes back.
                Outcome::Local(port, ..) => assert_eq!(port, from, "delivered to somebody else"),
                Outcome::Uplink(packet, _) => {
                    let sent =
                        Dissected::of_ip(packet).unwrap_or_else(|| panic!("no IPv6 packet: {packet:x?}"));
                    assert_eq!(sent.version, 6, "IPv4 on the fabric");
                }
                Outcome::Dropped(_) => {}
            }
        });
        came
    }

    /// A frame for the asker.
    fn hear(&mut self, said: &[u8], asked: Option<&[u8]>) {
        let class = judge::frame(said, asked);
        self.buckets.spend(class);
        match class {
            Class::Dns => {
                assert!(self.unanswered > 0, "an answer to no question");
                self.unanswered -= 1;
            }
            Class::Service => self.follow(said),
            _ => {}
        }
    }

    /// Takes note of where the gateway's TCP is.
    fn follow(&mut self, said: &[u8]) {
        let fields = Dissected::of_frame(said).expect("judged");
        let number = |at: usize| {
            let bytes = fields.transport.get(at..at + 4).expect("a TCP header");
            u32::from_be_bytes(bytes.try_into().expect("four bytes"))
        };
        let flags = u32::from(fields.transport.get(13).copied().unwrap_or_default());
        let length = fields.payload().len() as u32 + (flags & 1) + (flags >> 1 & 1);
        self.tcp = Tcp { next: number(4).wrapping_add(length), acknowledged: number(8) };
    }

    /// What the desks want done.
    fn said(&mut self, out: Outbox, asked: Option<&[u8]>) {
        for (port, frame) in &out.frames {
            if *port == self.witness {
                // Everybody is asked what it listens to, by time alone.
                assert!(
                    asked.is_none() && judge::frame(frame, None) == Class::Query,
                    "an answer to somebody else"
                );
                continue;
            }
            self.hear(frame, asked);
        }
        for errand in out.errands {
            match errand {
                Errand::Send { token, server, message } => {
                    assert!(SERVERS.iter().any(|known| known.parse() == Ok(server)), "asks {server}");
                    let longest = asked.map_or(1500, <[u8]>::len);
                    assert!(message.len() < longest, "{} bytes on, of a frame of {longest}", message.len());
                    self.questions.push((token, server, message));
                }
                Errand::Close(token) => self.questions.retain(|(open, ..)| *open != token),
            }
        }
        assert!(self.questions.len() <= 64, "{} sockets for one attachment", self.questions.len());
    }

    /// Something comes to one of the questions' sockets.
    fn resolve(&mut self, datagram: &Datagram) {
        if self.questions.is_empty() {
            return;
        }
        let which = usize::from(datagram.which) % self.questions.len();
        let (token, server, asked) = self.questions[which].clone();
        let heard = if datagram.unreachable { Heard::Unreachable } else { answer(datagram, server, &asked) };
        let mut out = Outbox::default();
        self.desks.heard(self.now, token, heard, &mut out);
        let wrong = datagram.forged != 0 || datagram.unreachable;
        assert!(out.frames.len() <= usize::from(!wrong), "a forged answer is passed on, or one twice");
        self.said(out, None);
    }

    /// What the other tenant hears when it asks for its address, for its neighbours and for a name.
    fn witness(&mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        for frame in questions() {
            let came = self.walk(self.witness, &frame, Offload::NONE);
            heard.extend(came.replies);
            for (desk, frame) in came.punted {
                let mut out = Outbox::default();
                self.desks.take(self.now, &Punted { port: self.witness, desk, frame: &frame }, &mut out);
                let Some((token, server, message)) = out.errands.iter().find_map(sent) else {
                    panic!("its question is not asked: {out:?}")
                };
                let honest = Datagram { which: 0, forged: 0, rcode: 0, unreachable: false, tens: 3 };
                let mut out = Outbox::default();
                self.desks.heard(self.now, token, answer(&honest, server, message), &mut out);
                assert!(out.frames.iter().all(|(port, _)| *port == self.witness));
                heard.extend(out.frames.into_iter().map(|(_, frame)| frame));
            }
        }
        assert_eq!(heard.len(), questions().len(), "each is answered");
        heard
    }
}

fn sent(errand: &Errand) -> Option<(Token, SocketAddr, &[u8])> {
    match errand {
        Errand::Send { token, server, message } => Some((*token, *server, message)),
        Errand::Close(_) => None,
    }
}

/// The answer of `server` to what it was `asked`, or one that only looks like it.
fn answer(datagram: &Datagram, server: SocketAddr, asked: &[u8]) -> Heard {
    let mut message = asked.to_vec();
    message[2] |= 0x80;
    message[3] |= datagram.rcode;
    message.extend(vec![0x55; usize::from(datagram.tens) * 10]);
    let mut from = server;
    match datagram.forged {
        1 => message[0] ^= 0x10,
        2 => from.set_port(server.port() ^ 1),
        3 => message[12] ^= 1,
        4 => message[2] &= 0x7f,
        _ => {}
    }
    Heard::Datagram(from, message)
}

/// What the other tenant asks.
fn questions() -> Vec<Vec<u8>> {
    let me = EthernetAddress(WITNESS.mac);
    let udp = |from: SocketAddr, to: SocketAddr, payload: &[u8]| {
        frames::ethernet(me, GATEWAY_MAC, &frames::udp(Header::default(), from, to, payload))
    };
    let mut discover = vec![0; 240];
    discover[..3].copy_from_slice(&[1, 1, 6]);
    discover[28..34].copy_from_slice(&WITNESS.mac);
    discover[236..].copy_from_slice(&[99, 130, 83, 99]);
    discover.extend([53, 1, 1, 255]);
    let client = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68));
    let server = SocketAddr::from((Ipv4Addr::BROADCAST, 67));
    let arp = [&[0xff; 6], &WITNESS.mac[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &WITNESS.mac];
    let arp = [&arp.concat()[..], &WITNESS.ipv4.octets(), &[0; 6], &GATEWAY4.octets()].concat();
    let name = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
    let echo = frames::echo_request(Header::default(), WITNESS.ipv4.into(), GATEWAY4.into(), 1, b"echo");
    vec![
        udp(client, server, &discover),
        arp,
        udp((WITNESS.ipv4, 40_000).into(), (GATEWAY4, 53).into(), name),
        frames::ethernet(me, GATEWAY_MAC, &echo),
    ]
}
