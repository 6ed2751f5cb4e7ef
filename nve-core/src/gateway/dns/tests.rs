//! A forwarder between two tenants of one address and the servers of a script; frames are made and read by smoltcp's wire.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::sync::Arc;

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Cidr};

use super::forwarder::{PATIENCE, QUESTIONS, QUESTIONS_EACH};
use super::*;
use crate::addr::{ChecksumMode, Vnet, Vnid};
use crate::gateway::tests::{
    GATEWAY4, GATEWAY6, MAC, OWN_LINK_LOCAL, OWN4, OWN6, assert_well_formed, context, ipv4, udp4,
};
use crate::gateway::{GATEWAY_LINK_LOCAL, GATEWAY_MAC};
use crate::pipeline::{Nve, PortId};
use crate::policy::World;
use crate::setup::{Attachment, Host, Network, Setup};

const SERVERS: [&str; 3] = ["192.0.2.53:53", "[2001:db8:53::53]:5353", "192.0.2.54:53"];
const QUESTION: &[u8] = b"\x03www\x07example\x00\x00\x01\x00\x01";
const SECOND: Duration = Duration::from_secs(1);

fn server(number: usize) -> SocketAddr {
    SERVERS[number].parse().expect("an address")
}

/// `tenants` attachments, each of a network of its own, all with the same addresses but for the /96.
fn setup(tenants: u16, servers: usize) -> Setup {
    let network = |number: u16| Network {
        ipv4: Some(Ipv4Cidr::new(Ipv4Addr::new(10, 1, 0, 0), 16)),
        ipv6: Vnet::new(Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, number, 0, 0)).ok(),
        dns_forward: (0..servers).map(server).collect(),
        ..Network::named(format!("net{number}"), Vnid::new(1001 + u32::from(number)).expect("28 bits"))
    };
    let attachment = |number: u16| Attachment {
        name: format!("vm{number}"),
        network: format!("net{number}"),
        mac: MAC,
        addresses: vec![OWN4.into(), Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, number, 0, 1).into()],
        hostname: None,
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
        instance: Default::default(),
    };
    let host = Host {
        name: "hv1".into(),
        locator: "2001:db8:0:1::/64".parse().expect("a /64"),
        sir: "2001:db8:51::/64".parse().expect("a /64"),
        checksum: ChecksumMode::Neutral,
        uplink_mtu: 1500,
        unknown: Default::default(),
    };
    Setup {
        networks: (0..tenants).map(network).collect(),
        attachments: (0..tenants).map(attachment).collect(),
        ..Setup::of(host)
    }
}

/// A DNS message with one question.
fn message(id: u16, flags: [u8; 2], question: &[u8], rest: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    [&[id[0], id[1], flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0][..], question, rest].concat()
}

fn query(id: u16) -> Vec<u8> {
    message(id, [1, 0], QUESTION, b"")
}

/// The frame of a guest with this question, from this port.
fn asking(port: u16, id: u16) -> Vec<u8> {
    udp4((OWN4, port), (GATEWAY4, PORT), &query(id))
}

/// A question as the shell sent it on.
#[derive(Clone, Debug)]
struct Sent {
    token: Token,
    server: SocketAddr,
    message: Vec<u8>,
}

impl Sent {
    fn answer(&self, rcode: u8, rest: &[u8]) -> Vec<u8> {
        let mut answer = self.message.clone();
        answer[2] |= 0x80;
        answer[3] |= 0x80 | rcode;
        answer.extend_from_slice(rest);
        answer
    }
}

/// The forwarder and what it asked of its shell since it was last looked at.
struct Lab {
    nve: Arc<Nve>,
    world: Arc<World>,
    forwarder: Forwarder,
    now: Duration,
    open: Vec<Token>,
    sent: Vec<Sent>,
    answers: Vec<(PortId, Vec<u8>)>,
    dropped: Vec<(PortId, DropReason)>,
}

impl Lab {
    fn new(tenants: u16, servers: usize) -> Self {
        let nve = Nve::new(setup(tenants, servers).check().expect("a good setup"), 4096);
        let mut last = 0x5000;
        Self {
            world: nve.world(),
            nve,
            forwarder: Forwarder::new(Box::new(move || {
                last += 1;
                last
            })),
            now: 1000 * SECOND,
            open: vec![],
            sent: vec![],
            answers: vec![],
            dropped: vec![],
        }
    }

    fn port(&self, tenant: usize) -> PortId {
        self.nve.port(&format!("vm{tenant}")).expect("configured")
    }

    fn ask(&mut self, tenant: usize, frame: &[u8]) {
        let port = self.port(tenant);
        self.forwarder.ask(&self.world, port, frame, self.now);
        self.perform();
    }

    fn hear(&mut self, token: Token, from: SocketAddr, message: Vec<u8>) {
        self.forwarder.heard(&self.world, token, Heard::Datagram(from, message), self.now);
        self.perform();
    }

    fn fail(&mut self, token: Token) {
        self.forwarder.heard(&self.world, token, Heard::Unreachable, self.now);
        self.perform();
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.forwarder.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.forwarder.tick(&self.world, self.now);
            self.perform();
        }
        self.now = end;
    }

    fn perform(&mut self) {
        while let Some(act) = self.forwarder.poll() {
            match act {
                Act::Errand(Errand::Send { token, server, message }) => {
                    assert!(!self.open.contains(&token), "a socket of its own");
                    self.open.push(token);
                    self.sent.push(Sent { token, server, message });
                }
                Act::Errand(Errand::Close(token)) => {
                    let at = self.open.iter().position(|open| *open == token).expect("closed once");
                    self.open.remove(at);
                }
                Act::Answer(port, frame) => {
                    assert_well_formed(&frame);
                    self.answers.push((port, frame));
                }
                Act::Dropped(port, reason) => self.dropped.push((port, reason)),
            }
        }
    }

    /// The one question that was sent on since this was last asked.
    fn sent(&mut self) -> Sent {
        assert_eq!(self.sent.len(), 1, "{:?}", self.sent);
        self.sent.remove(0)
    }

    /// The DNS message of the one answer that a tenant got since this was last asked, over IPv4.
    fn answered(&mut self, tenant: usize) -> Vec<u8> {
        assert_eq!(self.answers.len(), 1, "{:?}; dropped {:?}", self.answers, self.dropped);
        let (port, frame) = self.answers.remove(0);
        assert_eq!(port, self.port(tenant));
        frame[14 + 28..].to_vec()
    }

    fn dropped(&mut self) -> Vec<DropReason> {
        self.dropped.drain(..).map(|(_, reason)| reason).collect()
    }
}

#[test]
fn an_answer_comes_back_from_the_gateway_under_the_askers_own_identification() {
    let mut lab = Lab::new(1, 1);
    lab.ask(0, &asking(40_000, 7));
    let sent = lab.sent();
    assert_eq!((sent.server, &sent.message), (server(0), &query(0x5001)), "under another identification");
    lab.hear(sent.token, server(0), sent.answer(0, b"record"));
    let (port, frame) = lab.answers[0].clone();
    assert_eq!(port, lab.port(0));
    let eth = EthernetFrame::new_checked(&frame).expect("a frame");
    assert_eq!((eth.src_addr(), eth.dst_addr(), eth.ethertype()), (GATEWAY_MAC, MAC, EthernetProtocol::Ipv4));
    assert_eq!((&frame[26..30], &frame[30..34]), (&GATEWAY4.octets()[..], &OWN4.octets()[..]));
    assert_eq!((&frame[34..36], &frame[36..38]), (&[0, 53][..], &40_000_u16.to_be_bytes()[..]));
    assert_eq!(lab.answered(0), message(7, [0x81, 0x80], QUESTION, b"record"));
    assert_eq!((lab.open.len(), lab.forwarder.outstanding(), lab.forwarder.due()), (0, 0, None));
}

#[test]
fn both_global_addresses_and_the_link_local_one_are_served() {
    for (from, to) in [(OWN6, GATEWAY6), (OWN6, GATEWAY_LINK_LOCAL), (OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL)] {
        let mut lab = Lab::new(1, 1);
        lab.ask(0, &udp6(from, to, &query(7)));
        let sent = lab.sent();
        lab.hear(sent.token, server(0), sent.answer(0, b""));
        let (_, frame) = lab.answers.remove(0);
        assert_eq!((&frame[22..38], &frame[38..54]), (&to.octets()[..], &from.octets()[..]));
        assert_eq!(frame[62..], message(7, [0x81, 0x80], QUESTION, b""));
    }
}

fn udp6(from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 2000];
    let (from, to) = (SocketAddr::new(from.into(), 40_000), SocketAddr::new(to.into(), PORT));
    let len = Emit::datagram(&mut out, MAC, from, to, payload).expect("room");
    out.truncate(len);
    let (source, destination) = out.split_at_mut(6);
    source.copy_from_slice(GATEWAY_MAC.as_bytes());
    destination[..6].copy_from_slice(MAC.as_bytes());
    out
}

#[test]
fn a_silent_server_costs_its_patience_once_and_the_one_that_answered_is_asked_first_from_then_on() {
    let mut lab = Lab::new(2, 2);
    lab.ask(0, &asking(40_000, 7));
    assert_eq!(lab.sent().server, server(0));
    lab.wait(PATIENCE - Duration::from_millis(1));
    assert!(lab.sent.is_empty());
    lab.wait(Duration::from_millis(1));
    let second = lab.sent();
    assert_eq!(second.server, server(1));
    lab.hear(second.token, server(1), second.answer(0, b""));
    assert_eq!(lab.answered(0)[..2], [0, 7]);

    lab.ask(0, &asking(40_001, 8));
    assert_eq!(lab.sent().server, server(1), "the one that answered");
    lab.ask(1, &asking(40_001, 8));
    assert_eq!(lab.sent().server, server(0), "what one tenant saw is not told to another");
}

#[test]
fn a_late_answer_of_the_first_server_is_taken() {
    let mut lab = Lab::new(1, 2);
    lab.ask(0, &asking(40_000, 7));
    let first = lab.sent();
    lab.wait(PATIENCE);
    assert_eq!(lab.sent().server, server(1));
    lab.hear(first.token, server(0), first.answer(0, b"late"));
    assert_eq!(lab.answered(0), message(7, [0x81, 0x80], QUESTION, b"late"));
    assert!(lab.open.is_empty(), "both sockets are closed");
}

#[test]
fn when_all_servers_are_silent_the_asker_hears_server_failure_before_its_own_patience_ends() {
    for servers in 1..=3 {
        let mut lab = Lab::new(1, servers);
        lab.ask(0, &asking(40_000, 7));
        lab.wait(PATIENCE * 4 - Duration::from_millis(1));
        assert!(lab.answers.is_empty());
        let asked: Vec<SocketAddr> = lab.sent.drain(..).map(|sent| sent.server).collect();
        let expected: Vec<SocketAddr> = (0..4).map(|attempt| server(attempt % servers)).collect();
        assert_eq!(asked, expected);
        assert!(lab.open.len() <= 2, "two sockets at most");
        lab.wait(Duration::from_millis(1));
        assert_eq!(lab.answered(0), message(7, [0x81, 0x82], QUESTION, b""));
        assert!(lab.open.is_empty() && lab.forwarder.outstanding() == 0);
    }
    assert!(PATIENCE * 4 < Duration::from_secs(5), "resolv.conf(5)");
}

#[test]
fn every_attempt_has_a_socket_and_an_identification_of_its_own() {
    let mut lab = Lab::new(1, 1);
    lab.ask(0, &asking(40_000, 7));
    lab.wait(PATIENCE * 3);
    let mut seen: Vec<_> = lab.sent.iter().map(|sent| (sent.token, sent.message[..2].to_vec())).collect();
    seen.sort();
    assert_eq!(seen.len(), 4);
    assert!(seen.windows(2).all(|pair| pair[0].0 != pair[1].0 && pair[0].1 != pair[1].1));
}

#[test]
fn a_server_where_nobody_listens_and_one_that_refuses_are_left_for_the_next_at_once() {
    let mut lab = Lab::new(1, 3);
    lab.ask(0, &asking(40_000, 7));
    let first = lab.sent();
    lab.fail(first.token);
    let second = lab.sent();
    assert_eq!(second.server, server(1));
    lab.hear(second.token, server(1), second.answer(5, b""));
    assert!(lab.answers.is_empty(), "another may know better");
    let third = lab.sent();
    assert_eq!(third.server, server(2));
    lab.hear(third.token, server(2), third.answer(2, b""));
    assert_eq!(lab.answered(0), message(7, [0x81, 0x82], QUESTION, b""), "the last one's word");
}

#[test]
fn a_forged_answer_is_counted_and_ignored_and_the_true_one_is_taken() {
    let mut lab = Lab::new(1, 1);
    lab.ask(0, &asking(40_000, 7));
    let sent = lab.sent();
    let mut wrong_id = sent.answer(0, b"forged");
    wrong_id[0] ^= 1;
    let mut other_question = sent.answer(0, b"forged");
    other_question[13] = b'x';
    lab.hear(sent.token, server(0), wrong_id);
    lab.hear(sent.token, server(2), sent.answer(0, b"forged"));
    lab.hear(sent.token, "192.0.2.53:54".parse().unwrap(), sent.answer(0, b"forged"));
    lab.hear(sent.token, server(0), other_question);
    lab.hear(sent.token, server(0), sent.message.clone());
    assert_eq!(lab.dropped(), [DropReason::DnsForged; 5]);
    assert!(lab.answers.is_empty());
    lab.hear(sent.token, server(0), sent.answer(0, b"true"));
    assert_eq!(lab.answered(0), message(7, [0x81, 0x80], QUESTION, b"true"));
    lab.hear(sent.token, server(0), sent.answer(0, b"again"));
    assert!(lab.answers.is_empty(), "one question, one answer");
}

#[test]
fn a_socket_at_which_somebody_guesses_is_given_up_and_the_question_asked_anew() {
    let mut lab = Lab::new(1, 1);
    lab.ask(0, &asking(40_000, 7));
    let sent = lab.sent();
    for guess in 0..16_u8 {
        let mut wrong = sent.answer(0, b"forged");
        wrong[0] ^= 0x80 | guess;
        lab.hear(sent.token, server(0), wrong);
    }
    lab.hear(sent.token, server(0), sent.answer(0, b"guessed"));
    assert!(lab.answers.is_empty() && lab.open.is_empty());
    lab.wait(PATIENCE);
    let anew = lab.sent();
    lab.hear(anew.token, server(0), anew.answer(0, b"true"));
    assert_eq!(lab.answered(0), message(7, [0x81, 0x80], QUESTION, b"true"));
}

#[test]
fn a_question_that_is_repeated_while_it_is_asked_is_asked_once() {
    let mut lab = Lab::new(2, 1);
    lab.ask(0, &asking(40_000, 7));
    lab.ask(0, &asking(40_000, 7));
    assert_eq!(lab.dropped(), [DropReason::DnsRepeated]);
    assert_eq!(lab.sent().server, server(0));
    for (tenant, port, id) in [(0, 40_000, 8), (0, 40_001, 7), (1, 40_000, 7)] {
        lab.ask(tenant, &asking(port, id));
        assert_eq!(lab.sent().server, server(0), "another question");
    }
}

#[test]
fn an_attachment_has_so_many_questions_outstanding_and_its_neighbour_is_served() {
    let mut lab = Lab::new(2, 1);
    for id in 0..=QUESTIONS_EACH as u16 {
        lab.ask(0, &asking(40_000, id));
    }
    assert_eq!((lab.sent.len(), lab.dropped()), (QUESTIONS_EACH, vec![DropReason::DnsBusy]));
    lab.sent.clear();
    lab.ask(1, &asking(40_000, 1));
    let sent = lab.sent();
    lab.hear(sent.token, server(0), sent.answer(0, b""));
    assert_eq!(lab.answered(1)[..2], [0, 1]);
    lab.wait(PATIENCE * 4);
    assert_eq!(lab.forwarder.outstanding(), 0);
    lab.ask(0, &asking(40_000, 1));
    assert_eq!(lab.forwarder.outstanding(), 1, "room again");
}

#[test]
fn when_all_is_taken_whoever_has_most_makes_room() {
    let greedy = QUESTIONS / QUESTIONS_EACH;
    let mut lab = Lab::new(greedy as u16 + 1, 1);
    for tenant in 0..greedy {
        for id in 0..QUESTIONS_EACH as u16 {
            lab.ask(tenant, &asking(40_000, id));
        }
    }
    assert_eq!(lab.forwarder.outstanding(), QUESTIONS);
    assert!(lab.open.len() <= 2 * QUESTIONS);
    lab.sent.clear();
    lab.ask(greedy, &asking(40_000, 1));
    let sent = lab.sent();
    assert_eq!(lab.dropped.len(), 1, "one question of another ended");
    assert!(lab.dropped[0].0 != lab.port(greedy) && lab.dropped[0].1 == DropReason::DnsBusy);
    assert_eq!(lab.forwarder.outstanding(), QUESTIONS);
    lab.hear(sent.token, server(0), sent.answer(0, b""));
    assert_eq!(lab.answered(greedy)[..2], [0, 1]);
}

#[test]
fn an_answer_is_not_for_whoever_has_the_askers_number_by_now() {
    let mut lab = Lab::new(1, 1);
    lab.ask(0, &asking(40_000, 7));
    let sent = lab.sent();
    let mut changed = setup(1, 1);
    changed.attachments[0].addresses[0] = Ipv4Addr::new(10, 1, 0, 9).into();
    lab.nve.apply(changed.check().expect("a good setup")).expect("room");
    lab.world = lab.nve.world();
    lab.hear(sent.token, server(0), sent.answer(0, b""));
    assert_eq!((lab.answers.len(), lab.dropped()), (0, vec![DropReason::NoAttachment]));
}

#[test]
fn what_an_attachment_asked_can_be_forgotten() {
    let mut lab = Lab::new(2, 1);
    (0..3).for_each(|id| lab.ask(0, &asking(40_000, id)));
    lab.ask(1, &asking(40_000, 1));
    lab.forwarder.forget(lab.port(0));
    lab.perform();
    assert_eq!((lab.open.len(), lab.forwarder.outstanding()), (1, 1), "the other's goes on");
}

#[test]
fn an_answer_that_the_link_does_not_carry_is_cut_down() {
    let mut lab = Lab::new(1, 1);
    let opt = [0, 0, 41, 0x20, 0, 0, 0, 0, 0, 0, 0];
    let mut extended = message(7, [1, 0], QUESTION, &opt);
    extended[11] = 1;
    lab.ask(0, &udp4((OWN4, 40_000), (GATEWAY4, PORT), &extended));
    let sent = lab.sent();
    // 8192 was asked for; the guest was told an MTU of 1480.
    assert_eq!(sent.message[12 + QUESTION.len() + 3..][..2], 1452_u16.to_be_bytes());
    lab.hear(sent.token, server(0), sent.answer(0, &[0; 2000]));
    let cut = lab.answered(0);
    assert_eq!((cut[2] & 2, cut.len()), (2, 12 + QUESTION.len() + 11));
}

#[test]
fn what_the_worker_lets_through_is_one_whole_question_of_the_askers_own() {
    let ctx = context();
    let judge = |frame: &[u8]| check(&ctx, &frame[14..]);
    assert_eq!(judge(&asking(40_000, 7)), Ok(()));
    assert_eq!(judge(&udp6(OWN6, GATEWAY6, &query(7))), Ok(()));
    assert_eq!(judge(&udp6(OWN_LINK_LOCAL, GATEWAY_LINK_LOCAL, &query(7))), Ok(()));
    let to_us = |payload: &[u8]| udp4((OWN4, 40_000), (GATEWAY4, PORT), payload);
    assert_eq!(judge(&to_us(&message(7, [0x81, 0], QUESTION, b""))), Err(DropReason::DnsQuery));
    assert_eq!(judge(&to_us(b"hello")), Err(DropReason::DnsQuery));
    let other = Ipv4Addr::new(10, 1, 0, 77);
    let spoofed = udp4((other, 40_000), (GATEWAY4, PORT), &query(7));
    assert_eq!(judge(&spoofed), Err(DropReason::SpoofedAddress));
    let spoofed = udp6(GATEWAY_LINK_LOCAL, GATEWAY6, &query(7));
    assert_eq!(judge(&spoofed), Err(DropReason::SpoofedAddress));
    let mut broken = asking(40_000, 7);
    broken[42] ^= 1;
    assert_eq!(judge(&broken), Err(DropReason::BadChecksum));
    let mut absent = udp6(OWN6, GATEWAY6, &query(7));
    absent[60..62].fill(0);
    assert_eq!(judge(&absent), Err(DropReason::BadChecksum));
    let fragment = ipv4(OWN4, GATEWAY4, IpProtocol::Udp, &asking(40_000, 7)[34..]);
    let mut fragment = fragment;
    fragment[20] = 0x20;
    Ipv4Packet::new_unchecked(&mut fragment[14..]).fill_checksum();
    assert_eq!(judge(&fragment), Err(DropReason::DnsQuery));
    assert_eq!(check(&ctx, &[0x60; 39]), Err(DropReason::Malformed));
}
