//! Every pair of messages in every state of a ring: nobody panics, nobody else notices, and what comes of each is written down in
//! `docs/message-order.txt`. `UPDATE_DOCS=1` writes it anew.

use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::RawFd;
use std::thread::JoinHandle;

use super::*;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/message-order.txt");

const HEAD: &str = "\
What a front-end's messages come to, two after the other, in every state of a ring. Written by the test
`every_pair_of_messages_in_every_state_of_a_ring_has_one_outcome`, which fails when it is no longer so.

Row: the first message. Column: the second, by the row's number. All are well-formed, carry the descriptors they should, and are about
ring 0, the receive ring; `other` is one that also could be meant.

  .  both are carried out; ring 0 does not run afterwards
  r  both are carried out; ring 0 runs afterwards
  x  the second is refused, which closes the connection
  X  the first is refused
";

/// A state of ring 0, and the messages that lead there.
const STATES: [(&str, &[&str]); 6] = [
    ("fresh: nothing was said", &[]),
    ("stopped: features, memory, size and addresses are known", STOPPED),
    ("started: a kick descriptor has come, the ring is disabled", STARTED),
    ("enabled", ENABLED),
    ("enabled and logging", LOGGING),
    (
        "enabled, without VHOST_USER_F_PROTOCOL_FEATURES",
        &["features bare", "memory", "num", "addr", "kick", "call"],
    ),
];
const STOPPED: &[&str] = &["protocol", "features", "owner", "memory", "num", "addr", "base"];
const STARTED: &[&str] = &["protocol", "features", "owner", "memory", "num", "addr", "base", "kick", "call"];
const ENABLED: &[&str] =
    &["protocol", "features", "owner", "memory", "num", "addr", "base", "kick", "call", "enable"];

const LOGGING: &[&str] = &[
    "protocol",
    "features",
    "owner",
    "memory",
    "num",
    "addr",
    "base",
    "kick",
    "call",
    "enable",
    "log base",
    "features log",
];

/// A well-formed message: name, request code, body, descriptors.
type Said = (&'static str, u32, Vec<u8>, Vec<RawFd>);

/// A front-end's things, which messages refer to.
struct Things {
    ram: Ram,
    event: EventFd,
}

impl Things {
    fn messages(&self) -> Vec<Said> {
        let word = |value: u64| value.to_le_bytes().to_vec();
        let state = |number: u32| [0, number].map(u32::to_le_bytes).concat();
        let addresses = |base| {
            let at = Driver::new(base, SIZE).front_end_addresses();
            [0, at.descriptors, at.used, at.available, 0].map(u64::to_le_bytes).concat()
        };
        let table = |count: usize| {
            let regions = self.ram.regions.iter().take(count).flat_map(|r| [r.gpa, r.len, r.uva, r.offset]);
            [count as u64].into_iter().chain(regions).flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
        };
        let region = |gpa: u64| [0, gpa, 0x1000, gpa + (1 << 40), 0].map(u64::to_le_bytes).concat();
        let config = [[0u32, 12, 0].map(u32::to_le_bytes).concat(), vec![0; 12]].concat();
        let (event, memory) = (vec![self.event.as_raw_fd()], self.ram.fd());
        let other = 0x1000_0000;
        vec![
            ("get features", 1, vec![], vec![]),
            ("features", 2, word(accepted()), vec![]),
            ("features log", 2, word(accepted() | LOG_ALL), vec![]),
            ("features bare", 2, word(1 << 32), vec![]),
            ("features none", 2, word(0), vec![]),
            ("owner", 3, vec![], vec![]),
            ("reset owner", 4, vec![], vec![]),
            ("memory", 5, table(2), vec![memory; 2]),
            ("memory other", 5, table(1), vec![memory]),
            ("log base", 6, [0x1000u64, 0].map(u64::to_le_bytes).concat(), vec![memory]),
            ("num", 8, state(SIZE.into()), vec![]),
            ("num other", 8, state(32), vec![]),
            ("addr", 9, addresses(RX_RING), vec![]),
            ("addr other", 9, addresses(TX_RING), vec![]),
            ("addr nowhere", 9, addresses(1 << 50), vec![]),
            ("base", 10, state(0), vec![]),
            ("base other", 10, state(7), vec![]),
            ("get base", 11, state(0), vec![]),
            ("kick", 12, word(0), event.clone()),
            ("kick none", 12, word(1 << 8), vec![]),
            ("call", 13, word(0), event.clone()),
            ("call none", 13, word(1 << 8), vec![]),
            ("err", 14, word(0), event),
            ("get protocol", 15, vec![], vec![]),
            ("protocol", 16, word(Offer::default().protocol().bits()), vec![]),
            ("protocol none", 16, word(0), vec![]),
            ("get queue num", 17, vec![], vec![]),
            ("enable", 18, state(1), vec![]),
            ("disable", 18, state(0), vec![]),
            ("get config", 24, config, vec![]),
            ("reset device", 34, vec![], vec![]),
            ("get mem slots", 36, vec![], vec![]),
            ("add region", 37, region(other), vec![memory]),
            ("remove region", 38, region(other), vec![]),
        ]
    }
}

/// A front-end at the other end of a socket pair, whose session runs in a thread of its own.
struct Talk {
    stream: UnixStream,
    status: Arc<Status>,
    session: JoinHandle<()>,
}

impl Talk {
    fn begin(lab: &Lab) -> Talk {
        let (stream, theirs) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let status = Arc::new(Status::new(Offer::default()));
        let port = lab.nve.port("vm3").unwrap();
        let config = device(lab.dir.path(), 3);
        let session = Session::new(
            Arc::clone(&lab.nve),
            port,
            &config,
            lab.daemon.workers.link.clone(),
            Arc::clone(&status),
        );
        let stop = Stop::new().unwrap();
        let session = std::thread::spawn(move || drop(connection::serve(theirs, session, &stop)));
        Talk { stream, status, session }
    }

    /// Sends one message; whether it was carried out. A question that any device answers follows it, as most messages have no reply.
    fn say(&mut self, (_, request, body, files): &Said) -> bool {
        const QUEUE_FEATURES: u32 = 1;
        let message = |request: u32, body: &[u8]| {
            [&[request, 1, body.len() as u32].map(u32::to_le_bytes).concat(), body].concat()
        };
        let bytes = message(*request, body);
        // A session that has ended takes no more; reading tells.
        if self.stream.send_with_fds(&[&bytes[..]], files).is_err()
            || self.stream.write_all(&message(QUEUE_FEATURES, &[])).is_err()
        {
            return false;
        }
        // Its own reply, if it has one, then the question's; a question that is answered is told by its reply alone.
        let replies = if [1, 6, 11, 15, 17, 24, 36].contains(request) { 2 } else { 1 };
        (0..replies).all(|_| self.reply().is_ok())
    }

    fn reply(&mut self) -> io::Result<()> {
        let mut header = [0; 12];
        self.stream.read_exact(&mut header)?;
        let size = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        self.stream.read_exact(&mut vec![0; size as usize])
    }

    fn end(self) {
        drop(self.stream);
        self.session.join().expect("a session panicked");
    }
}

/// What the pair comes to after `state`.
fn outcome(lab: &Lab, things: &Things, state: &[&str], first: &Said, second: &Said) -> char {
    let messages = things.messages();
    let named = |name: &str| messages.iter().find(|said| said.0 == name).expect("a known message");
    let mut talk = Talk::begin(lab);
    for name in state {
        assert!(talk.say(named(name)), "{name} on the way to {state:?}");
    }
    let outcome = if !talk.say(first) {
        'X'
    } else if !talk.say(second) {
        'x'
    } else if talk.status.report("").rings[0].running {
        'r'
    } else {
        '.'
    };
    talk.end();
    outcome
}

/// Every pair of messages in a state, while vm1 and vm2 still talk.
fn pairs_in(state: (&str, &[&str]), lab: &Lab, (a, b): (&mut Guest, &mut Guest)) -> String {
    let things = Things { ram: Ram::new(&REGIONS), event: EventFd::new(libc::EFD_NONBLOCK).unwrap() };
    let messages = things.messages();
    let (name, state) = state;
    let numbers: String = (0..messages.len()).map(|n| char::from(b'0' + (n % 10) as u8)).collect();
    let mut table = format!("\n{name}\n\n{:20}{numbers}\n", "");
    for (number, first) in messages.iter().enumerate() {
        let row: String = messages.iter().map(|second| outcome(lab, &things, state, first, second)).collect();
        writeln!(table, "{number:3} {:16}{row}", first.0).unwrap();
    }
    a.send(&datagram(1, 2, b"still here"));
    assert_eq!(payload_of(&b.receive()), b"still here", "{name}");
    table
}

#[test]
fn every_pair_of_messages_to_a_ring_that_runs_has_the_same_outcome_with_two_workers() {
    WORKERS.set(2);
    let lab = Lab::new(3);
    let (mut a, mut b) = (Guest::connect(&lab.socket(1)), Guest::connect(&lab.socket(2)));
    let written = std::fs::read_to_string(TABLE).unwrap();
    let table = pairs_in(STATES[3], &lab, (&mut a, &mut b));
    assert!(written.contains(&table), "docs/message-order.txt is of one worker and says otherwise:\n{table}");
}

#[test]
fn every_pair_of_messages_in_every_state_of_a_ring_has_one_outcome() {
    let lab = Lab::new(3);
    let (mut a, mut b) = (Guest::connect(&lab.socket(1)), Guest::connect(&lab.socket(2)));
    let mut table = String::from(HEAD);
    for state in STATES {
        table += &pairs_in(state, &lab, (&mut a, &mut b));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(TABLE, &table).unwrap();
    }
    let written = std::fs::read_to_string(TABLE).unwrap_or_default();
    let differ = table.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert!(
        table == written,
        "docs/message-order.txt is no longer so, e.g. {differ:?}; UPDATE_DOCS=1 writes it"
    );
}
