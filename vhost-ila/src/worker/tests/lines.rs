//! Two workers whose ports are not the same share no cache line that either writes: by valgrind's record of every load and store.
//!
//! ```text
//!   this test ──runs──> valgrind, lackey ──runs──> this program, one test: two workers, one step after the other, each in its thread
//!      ^                      │                         between two marks: a store to MARKS[worker], a turn, a store to MARKS[2]
//!      └── loads and stores <─┘
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::poll::Worker;
use super::super::threads::Seat;
use super::stepped::{Fabric, Port, Rings, frame, guest, seats};
use super::*;
use crate::device::handover::Queue;

/// What a processor may fetch together: two lines of 64 bytes.
const LINE: u64 = 128;
/// Says to the copy of this program that runs under valgrind that it does.
const UNDER: &str = "VHOST_ILA_LINES";
/// Steps of each worker: those before the last two make room.
const TURNS: usize = 4;
/// Turns in a step.
const LOOKS: usize = 4;
/// Of each kind.
const EACH: u16 = 4;

/// Stored to before the turn of each worker, and after it. Far from each other and from all else.
static MARKS: [Mark; 3] = [const { Mark(AtomicU64::new(0)) }; 3];

#[repr(align(128))]
struct Mark(AtomicU64);

/// Who has the gateway's address? (ARP)
fn question(from: u8) -> Vec<u8> {
    let arp = [0, 1, 8, 0, 6, 4, 0, 1];
    let (sender, gateway) = ([10, 1, 0, from], [10, 1, 255, 254]);
    [&[0xff; 6][..], &mac(from), &[8, 6], &arp, &mac(from), &sender, &[0; 6], &gateway].concat()
}

/// What a worker's thread is to do.
enum Step {
    Start(PortId, Vec<Queue>),
    Turn { marked: bool },
}

/// A worker in its thread, and two guests that it serves.
struct Lane {
    steps: Sender<Step>,
    done: Receiver<()>,
    guests: [Port; 2],
    frames: [Vec<Vec<u8>>; 2],
}

impl Lane {
    /// Worker `index`, with vm1 and vm3, or vm2 and vm4.
    fn new(nve: &Arc<Nve>, index: u16, seat: Seat) -> Self {
        let (steps, todo) = channel();
        let (told, done) = channel();
        std::thread::spawn(move || {
            let mut worker = Worker::new(seat).unwrap();
            for step in todo {
                match step {
                    Step::Start(port, queues) => {
                        queues.into_iter().for_each(|queue| worker.start(port, queue).unwrap());
                        worker.let_go();
                    }
                    Step::Turn { marked } => {
                        if marked {
                            MARKS[usize::from(index)].0.store(1, Relaxed);
                        }
                        // Who has had more time than the other sits one out.
                        for _ in 0..LOOKS {
                            worker.turn();
                        }
                        if marked {
                            MARKS[2].0.store(1, Relaxed);
                        }
                    }
                }
                told.send(()).unwrap();
            }
        });
        let [one, other] = [index as u8 + 1, index as u8 + 3];
        let (steps_to, done_of) = (&steps, &done);
        let guests = [one, other].map(|n| {
            let nve = Arc::clone(nve);
            // As a control thread would.
            let (port, guest, queues) =
                std::thread::spawn(move || guest(&nve, n, 1, Rings::Split)).join().unwrap();
            steps_to.send(Step::Start(port, queues)).unwrap();
            done_of.recv().unwrap();
            guest
        });
        // To each other, to somebody whom nobody knows, and to the gateway, which answers.
        let frames = [(one, other), (other, one)].map(|(from, to)| {
            let to = [format!("10.1.0.{to}"), format!("2001:db8:b1:e::{to}"), "10.1.0.77".to_owned()];
            to.map(|to| frame(from, &to, 100)).into_iter().chain([question(from)]).collect()
        });
        Self { steps, done, guests, frames }
    }

    fn turn(&mut self, marked: bool) {
        for (guest, frames) in self.guests.iter_mut().zip(&self.frames) {
            let Port { ram, pairs } = guest;
            frames.iter().for_each(|frame| pairs[0].send(ram, frame, EACH));
        }
        self.steps.send(Step::Turn { marked }).unwrap();
        self.done.recv().unwrap();
        for Port { ram, pairs } in &mut self.guests {
            let came = pairs[0].receive(ram);
            assert!(came == usize::from(4 * EACH), "{came}: the neighbour's frames, and answers");
        }
    }
}

#[test]
#[ignore = "run by two_workers_with_disjoint_ports_share_no_written_cache_line, under valgrind"]
fn two_workers_step_by_step() {
    if std::env::var_os(UNDER).is_none() {
        return;
    }
    println!("\nmarks {}", MARKS.each_ref().map(|mark| format!("{:x}", mark.0.as_ptr() as usize)).join(" "));
    let nve = nve(4);
    let (seats, _beside) = seats(&nve, 2);
    let mut lanes: Vec<_> =
        (0..).zip(seats).map(|(index, (seat, _)): (u16, (_, Fabric))| Lane::new(&nve, index, seat)).collect();
    for turn in 0..TURNS {
        lanes.iter_mut().for_each(|lane| lane.turn(turn + 2 >= TURNS));
    }
}

/// How a worker touched a line, and where in the program it did so last.
#[derive(Clone, Copy, Default, Debug)]
struct Touch {
    loads: u64,
    stores: u64,
    at: u64,
}

#[test]
#[ignore = "run by cargo xtask instructions: valgrind writes a line for every instruction, which takes a minute"]
fn two_workers_with_disjoint_ports_share_no_written_cache_line() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: there is no valgrind here, so loads and stores are not known");
        return;
    }
    let mut child = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--basic-counts=no", "--log-fd=1"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .arg("worker::tests::lines::two_workers_step_by_step")
        .env(UNDER, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut marks, mut current, mut at) = (Vec::new(), None, 0);
    let mut lines: HashMap<u64, [Touch; 2]> = HashMap::new();
    let mut of_interest = [0_u64; 2];
    let mut output = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if output.read_until(b'\n', &mut bytes).unwrap() == 0 {
            break;
        }
        // Outside of turns only stores are of interest, which the marks are, and the line that says where those lie.
        if current.is_none() && !matches!(bytes.get(1), Some(b'S' | b'a')) {
            continue;
        }
        let line = std::str::from_utf8(&bytes).unwrap_or_default().trim_end();
        if let Some(told) = line.find("marks ").and_then(|from| line.get(from + 6..)) {
            marks = told.split(' ').map(|mark| u64::from_str_radix(mark, 16).unwrap()).collect();
            continue;
        }
        let Some((address, size)) = line.get(3..).and_then(|rest| rest.split_once(',')) else { continue };
        let (Ok(address), Ok(size)) = (u64::from_str_radix(address.trim(), 16), size.trim().parse::<u64>())
        else {
            continue;
        };
        let kind = line.get(..2).unwrap_or_default().trim();
        if kind == "S"
            && let Some(mark) = marks.iter().position(|mark| *mark == address)
        {
            current = (mark < 2).then_some(mark);
            continue;
        }
        let Some(worker) = current else { continue };
        if kind == "I" {
            at = address;
            continue;
        }
        of_interest[worker] += 1;
        for line in address / LINE..=(address + size - 1) / LINE {
            let touch = &mut lines.entry(line).or_default()[worker];
            touch.loads += u64::from(kind != "S");
            touch.stores += u64::from(kind != "L");
            touch.at = at;
        }
    }
    assert!(child.wait().unwrap().success(), "the other side failed");
    assert!(of_interest.iter().all(|count| *count > 10_000), "{of_interest:?} loads and stores were seen");
    let both = |[one, other]: &[Touch; 2]| one.stores + one.loads > 0 && other.stores + other.loads > 0;
    let shared: Vec<_> = lines.iter().filter(|(_, touches)| both(touches)).collect();
    assert!(!shared.is_empty(), "a control: both read the same tables");
    let written: Vec<_> =
        shared.iter().filter(|(_, touches)| touches.iter().any(|touch| touch.stores > 0)).collect();
    let told: Vec<_> =
        written.iter().map(|(line, touches)| format!("{:x}: {touches:x?}", **line * LINE)).collect();
    assert!(told.is_empty(), "{} lines: {told:#?}", told.len());
}
