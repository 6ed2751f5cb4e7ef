//! Conversations with the daemon that no front-end has: mostly well-formed, so that they get deep, then spoilt.
//!
//! ```text
//!   set-up, or a part of it ──> messages that fit ──> ... ──> one that is spoilt: code, flags, size, body, descriptors, cut
//! ```

use std::fs::File;
use std::io::{Read, pipe};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::hostile::{memory_table, message, request, vring_state};
use super::memory::{HIGH_START, Memory, user};
use crate::dice::Dice;

/// The most descriptors that one message carries: what the kernel passes at once.
const MOST_FILES: u64 = 253;

/// How long the daemon may take to read what was sent and hang up.
const LIMIT: Duration = Duration::from_secs(20);

/// What a front-end has at hand.
pub struct Hand {
    memory: Memory,
    event: EventFd,
    null: File,
    directory: File,
    pipe: OwnedFd,
    socket: UnixStream,
    dice: Dice,
}

/// A message: its bytes, its descriptors, and where it is cut in two, if it is.
struct Said {
    bytes: Vec<u8>,
    files: Vec<RawFd>,
    cut: Option<usize>,
}

impl Hand {
    /// A front-end whose messages follow `dice`.
    ///
    /// # Errors
    ///
    /// Fails when the kernel has no descriptors left.
    pub fn new(dice: Dice) -> Result<Hand> {
        Ok(Hand {
            memory: Memory::new()?,
            event: EventFd::new(EFD_NONBLOCK)?,
            null: File::open("/dev/null")?,
            directory: File::open("/")?,
            pipe: pipe()?.0.into(),
            socket: UnixStream::pair()?.0,
            dice,
        })
    }

    /// A conversation on a new connection to `socket`, until the daemon hangs up or `length` messages were said and we do. Returns how
    /// many were; `trying` is told each one's bytes before it is sent.
    ///
    /// # Errors
    ///
    /// Fails when nobody listens, or the daemon does not hang up after us.
    pub fn converse(&mut self, socket: &Path, length: u64, mut trying: impl FnMut(&[u8])) -> Result<u64> {
        let mut stream = super::connect(socket)?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nonblocking(false)?;
        let set_up = self.set_up()?;
        let part = self.dice.below(set_up.len() as u64 + 4) as usize;
        let mut said = 0;
        for message in set_up.into_iter().take(part) {
            said += 1;
            if !say(&stream, &message) {
                return Ok(said);
            }
        }
        // Spoilt messages mostly end it, so there is one in every few conversations' length.
        while said < length {
            let fits = self.fits();
            let message = if self.dice.once_in(length / 2) { self.spoilt(fits) } else { fits };
            trying(&message.bytes);
            said += 1;
            if !say(&stream, &message) {
                return Ok(said);
            }
            if said % 64 == 0 {
                skip_replies(&mut stream)?;
            }
        }
        hang_up(stream)?;
        Ok(said)
    }

    /// As many spoilt messages as a connection takes, on one after the other; returns how many.
    ///
    /// # Errors
    ///
    /// As [`Hand::converse`].
    pub fn quarrel(&mut self, socket: &Path, mut trying: impl FnMut(&[u8])) -> Result<u64> {
        let stream = super::connect(socket)?;
        stream.set_write_timeout(Some(LIMIT))?;
        for message in self.set_up()? {
            if !say(&stream, &message) {
                return Ok(1);
            }
        }
        let fits = self.fits();
        let message = self.spoilt(fits);
        trying(&message.bytes);
        say(&stream, &message);
        hang_up(stream)?;
        Ok(1)
    }

    /// What makes both rings run.
    fn set_up(&mut self) -> Result<Vec<Said>> {
        let plain = |code, body: &[u8], files: &[RawFd]| Said {
            bytes: message(code, 1, body.len() as u32, body),
            files: files.to_vec(),
            cut: None,
        };
        let regions = self.memory.regions()?;
        let table: Vec<[u64; 4]> = regions
            .iter()
            .map(|region| {
                [region.guest_phys_addr, region.memory_size, region.userspace_addr, region.mmap_offset]
            })
            .collect();
        let files: Vec<RawFd> = regions.iter().map(|region| region.mmap_handle).collect();
        let event = [self.event.as_raw_fd()];
        let mut messages = vec![
            plain(request::SET_OWNER, &[], &[]),
            plain(request::SET_FEATURES, &(1u64 << 32 | 1 << 30).to_le_bytes(), &[]),
            // CONFIGURE_MEM_SLOTS, CONFIG and REPLY_ACK.
            plain(request::SET_PROTOCOL_FEATURES, &(1u64 << 15 | 1 << 9 | 1 << 3).to_le_bytes(), &[]),
            plain(request::SET_MEM_TABLE, &memory_table(&table), &files),
        ];
        for ring in 0..2 {
            messages.push(plain(request::SET_VRING_NUM, &vring_state(ring, 256), &[]));
            messages.push(plain(request::SET_VRING_BASE, &vring_state(ring, 0), &[]));
            messages.push(plain(request::SET_VRING_ADDR, &addresses(ring, 0x1000), &[]));
            messages.push(plain(request::SET_VRING_CALL, &u64::from(ring).to_le_bytes(), &event));
            messages.push(plain(request::SET_VRING_KICK, &u64::from(ring).to_le_bytes(), &event));
            messages.push(plain(request::SET_VRING_ENABLE, &vring_state(ring, 1), &[]));
        }
        Ok(messages)
    }

    /// A message that is carried out in most states, and changes something.
    fn fits(&mut self) -> Said {
        let dice = &mut self.dice;
        let ring = dice.below(2) as u32;
        let word = |value: u64| value.to_le_bytes().to_vec();
        let (code, body, files): (u32, Vec<u8>, Vec<RawFd>) = match dice.below(12) {
            0 => (request::GET_FEATURES, vec![], vec![]),
            // A ring's features, without those that only a state forbids.
            1 => (
                request::SET_FEATURES,
                word(1 << 32 | 1 << 30 | dice.of(&[0, 1 << 29, 1 << 28, 3 << 28])),
                vec![],
            ),
            2 => (request::SET_VRING_NUM, vring_state(ring, 1 << dice.below(16)), vec![]),
            3 => (request::SET_VRING_BASE, vring_state(ring, dice.below(0x1_0000) as u32), vec![]),
            4 => {
                let place =
                    dice.of(&[0x1000, 0x10_0000, 0x1001, 0x3f_fff0, HIGH_START, HIGH_START - 16, u64::MAX]);
                (request::SET_VRING_ADDR, addresses(ring, place), vec![])
            }
            5 => (request::GET_VRING_BASE, vring_state(ring, 0), vec![]),
            6 => (request::SET_VRING_KICK, word(ring.into()), vec![self.event.as_raw_fd()]),
            7 => (request::SET_VRING_CALL, word(ring.into()), vec![self.event.as_raw_fd()]),
            8 => (request::SET_VRING_CALL, word(u64::from(ring) | 1 << 8), vec![]),
            9 | 10 => (request::SET_VRING_ENABLE, vring_state(ring, dice.below(2) as u32), vec![]),
            _ => {
                let bytes = dice.of(&[1u64, 8, 12, 24]);
                let head = [0, bytes as u32, 0].into_iter().flat_map(u32::to_le_bytes);
                (request::GET_CONFIG, head.chain(vec![0; bytes as usize]).collect(), vec![])
            }
        };
        let flags = dice.of(&[1, 1, 1, 9]);
        let bytes = message(code, flags, body.len() as u32, &body);
        let cut = dice.once_in(200).then(|| dice.below(bytes.len() as u64) as usize);
        Said { bytes, files, cut }
    }

    /// The same with one thing wrong, or not at all the same.
    fn spoilt(&mut self, fits: Said) -> Said {
        let Said { mut bytes, mut files, mut cut } = fits;
        let dice = &mut self.dice;
        let put = |bytes: &mut Vec<u8>, at: usize, word: u32| {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes())
        };
        match dice.below(11) {
            0 => put(&mut bytes, 0, dice.below(256) as u32),
            1 => put(&mut bytes, 0, dice.roll() as u32),
            2 => put(&mut bytes, 4, dice.of(&[0, 2, 3, 5, 8, 13, 0xffff_fff1, u32::MAX])),
            3 => put(&mut bytes, 8, dice.below(5001) as u32),
            4 => put(&mut bytes, 8, dice.roll() as u32),
            5 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
            6 => {
                // Any request, with so many bytes of anything.
                let length = dice.below(5001) as usize;
                let body =
                    if dice.once_in(2) { dice.bytes(length) } else { vec![dice.of(&[0, 0xff]); length] };
                bytes = message(dice.below(256) as u32, dice.of(&[1, 9]), length as u32, &body);
            }
            7 => {
                for _ in 0..=dice.below(4) {
                    let at = dice.below(bytes.len() as u64) as usize;
                    let turned = bytes[at] ^ 1 << dice.below(8);
                    bytes[at] = dice.of(&[0, 1, 2, 0x7f, 0x80, 0xff, turned]);
                }
            }
            8 => {
                bytes = {
                    let length = 1 + dice.below(5000) as usize;
                    dice.bytes(length)
                }
            }
            9 => cut = Some(dice.below(bytes.len() as u64) as usize),
            _ => {}
        }
        // Descriptors where none belong, too many, or of the wrong kind.
        if dice.once_in(2) {
            let kinds = [
                self.event.as_raw_fd(),
                self.memory.file.as_raw_fd(),
                self.null.as_raw_fd(),
                self.directory.as_raw_fd(),
                self.pipe.as_raw_fd(),
                self.socket.as_raw_fd(),
            ];
            let count = dice.of(&[0, 1, 2, 3, 8, 9, 31, 32, 33, MOST_FILES]);
            files = (0..count).map(|_| dice.of(&kinds)).collect();
        }
        if bytes.is_empty() {
            // A descriptor travels with a byte.
            files.clear();
        }
        Said { bytes, files, cut }
    }
}

/// The body of SET_VRING_ADDR for a ring of 256 entries at `place`; each ring has its own half of what follows.
fn addresses(ring: u32, place: u64) -> Vec<u8> {
    let at = |offset: u64| {
        user(GuestAddress(place.wrapping_add(u64::from(ring) * 0x8000 + offset) & 0xff_ffff_ffff))
    };
    let words = [u64::from(ring), at(0), at(0x3000), at(0x2000), 0];
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Sends one message, in two parts if it is cut; whether somebody still takes it.
fn say(stream: &UnixStream, message: &Said) -> bool {
    let len = message.bytes.len();
    // What was shortened after the cut was chosen may end before it.
    let (first, second) = message.bytes.split_at(message.cut.map_or(len, |cut| cut.min(len)));
    let sent =
        |bytes: &[u8], files: &[RawFd]| bytes.is_empty() || stream.send_with_fds(&[bytes], files).is_ok();
    if message.cut.is_some() {
        let taken = sent(first, &message.files);
        // So that it is read in two parts.
        std::thread::sleep(Duration::from_millis(1));
        return taken && sent(second, &[]);
    }
    sent(first, &message.files)
}

/// Empties the replies that have come, or the daemon would wait for room for the next.
fn skip_replies(stream: &mut UnixStream) -> Result<()> {
    stream.set_nonblocking(true)?;
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
    Ok(stream.set_nonblocking(false)?)
}

/// Says that nothing follows, and waits until the daemon has read all and hangs up.
fn hang_up(mut stream: UnixStream) -> Result<()> {
    // It may have hung up already.
    drop(stream.shutdown(std::net::Shutdown::Write));
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (start, mut bytes) = (Instant::now(), [0; 4096]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("waiting for the end"),
        }
        ensure!(start.elapsed() < LIMIT, "the daemon does not hang up");
    }
}
