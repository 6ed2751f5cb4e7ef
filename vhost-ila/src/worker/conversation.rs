//! A front-end whose every message comes from a fuzzer, in this process: one harness for tests and for fuzzing.
//!
//! ```text
//!   script ──> messages, written to a socket pair at once ──> connection::serve, with a worker and guest memory behind it
//! ```
//!
//! What must stay true: nothing the script says ends the worker, leaves a descriptor or a mapping behind, or takes long.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nve_core::pipeline::{Nve, PortId};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::{Daemon, DaemonConfig, DaemonHandle};
use crate::config::{DeviceConfig, SocketMode, UplinkConfig};
use crate::device::connection;
use crate::device::features::Offer;
use crate::device::guest::{Buffer, Driver, Ram, Script, UVA};
use crate::device::memory::MAX_BYTES;
use crate::device::server::Stop;
use crate::device::session::Session;
use crate::device::status::Status;

/// Bytes that a conversation comes to at most: less than a socket takes without anybody reading.
const MOST_BYTES: usize = 40_000;
/// Messages, for the same reason: their replies are read by nobody.
const MOST_MESSAGES: u64 = 48;
/// Entries of the good rings, which lie where the script's addresses mostly are.
const SIZE: u16 = 16;
const REGIONS: [(u64, u64); 2] = [(0, 0x8000), (0x1_0000, 0x8000)];
/// Virtio features: VERSION_1, and that of protocol features.
const FEATURES: u64 = 1 << 32 | 1 << 30;

/// What serves one conversation after another.
#[derive(Debug)]
pub struct Listener {
    daemon: DaemonHandle,
    nve: Arc<Nve>,
    port: PortId,
    held: u64,
    before: Option<(usize, usize)>,
}

impl Listener {
    /// A daemon without sockets, for the attachment `name` of `nve`.
    ///
    /// # Errors
    /// The system's, or there is no such attachment.
    pub fn new(nve: Arc<Nve>, name: &str) -> io::Result<Self> {
        let config = DaemonConfig {
            devices: vec![],
            uplink: UplinkConfig::None { mtu: 1500 },
            gateway: None,
            spin: Duration::ZERO,
            workers: 1,
        };
        let port = nve.port(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { daemon: Daemon::start(config, Arc::clone(&nve))?, nve, port, held: 0, before: None })
    }

    /// Serves the conversation that `script` makes; returns how many messages it had.
    ///
    /// # Panics
    /// Where something is left behind, or the worker has ended: that is its purpose.
    pub fn hear(&mut self, script: &[u8]) -> u64 {
        let hand = Hand::new();
        let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
        let mut script = Script::new(script);
        let (mut messages, mut bytes) = (0, 0);
        if script.byte() & 1 != 0 {
            for message in hand.set_up() {
                // A socket that is full or closed takes no more; the same holds below.
                let _ = ours.send_with_fds(&[&message.bytes[..]], &message.files);
                messages += 1;
            }
        }
        while script.left() > 0 && messages < MOST_MESSAGES && bytes < MOST_BYTES {
            let message = script.message(&hand);
            if !message.files.is_empty() && !message.bytes.is_empty() {
                let _ = ours.send_with_fds(&[&message.bytes[..]], &message.files);
            } else {
                let _ = ours.write_all(&message.bytes);
            }
            messages += 1;
            bytes += message.bytes.len();
        }
        ours.shutdown(Shutdown::Write).expect("still ours");
        let config = DeviceConfig {
            name: "heard".into(),
            socket: "heard.sock".into(),
            mode: SocketMode::Server,
            mac: [2, 0, 0, 0, 0, 1],
            user: None,
            memory_max: MAX_BYTES,
            offer: Offer::default(),
        };
        let status = Arc::new(Status::new(config.offer));
        let link = self.daemon.workers.link.clone();
        let session = Session::new(Arc::clone(&self.nve), self.port, &config, link, status);
        let stop = Stop::new().expect("a stop");
        let _ = connection::serve(theirs, session, &stop);
        drop((ours, stop, hand));
        self.must_be_as_before();
        messages
    }

    /// What a process holds is looked at now and then: it costs more than a conversation.
    fn must_be_as_before(&mut self) {
        self.held += 1;
        if !self.held.is_multiple_of(256) {
            return;
        }
        assert!(self.daemon.is_running(), "the worker has ended");
        let files = std::fs::read_dir("/proc/self/fd").expect("our descriptors").count();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("our maps").lines().count();
        let (before, mapped) = *self.before.get_or_insert((files, maps));
        // Room for other threads of a test's process, and for an allocator.
        assert!(files <= before + 100, "{before} descriptors have become {files}");
        assert!(maps <= mapped + 200, "{mapped} maps have become {maps}");
    }
}

/// A message and its descriptors.
struct Message {
    bytes: Vec<u8>,
    files: Vec<RawFd>,
}

fn message(code: u32, flags: u32, body: &[u8], files: &[RawFd]) -> Message {
    let header = [code, flags, body.len() as u32].map(u32::to_ne_bytes).concat();
    Message { bytes: [&header, body].concat(), files: files.to_vec() }
}

/// What a front-end passes.
struct Hand {
    ram: Ram,
    event: EventFd,
    pipe: (io::PipeReader, io::PipeWriter),
}

impl Hand {
    fn new() -> Self {
        let ram = Ram::new(&REGIONS);
        for (ring, base) in [(0, 0), (1, 0x2000)] {
            let mut driver = Driver::new(base, SIZE);
            for buffer in 0..8 {
                let gpa = 0x1_0000 + 0x400 * buffer;
                driver.offer(&ram, &[Buffer { gpa, len: 0x400, writable: ring == 0 }]);
            }
            driver.expose(&ram);
        }
        let event = EventFd::new(libc::EFD_NONBLOCK).expect("an eventfd");
        Self { ram, event, pipe: io::pipe().expect("a pipe") }
    }

    /// What makes both rings run.
    fn set_up(&self) -> Vec<Message> {
        let event = [self.event.as_raw_fd()];
        let mut messages = vec![
            message(2, 1, &FEATURES.to_le_bytes(), &[]),
            // CONFIGURE_MEM_SLOTS, RESET_DEVICE, CONFIG, REPLY_ACK.
            message(16, 1, &(1u64 << 15 | 1 << 13 | 1 << 9 | 1 << 3).to_le_bytes(), &[]),
            message(5, 1, &self.table(2), &[self.ram.fd(); 2]),
        ];
        for ring in 0..2u32 {
            messages.push(message(8, 1, &state(ring, SIZE.into()), &[]));
            messages.push(message(9, 1, &self.addresses(ring), &[]));
            messages.push(message(13, 1, &u64::from(ring).to_le_bytes(), &event));
            messages.push(message(12, 1, &u64::from(ring).to_le_bytes(), &event));
            messages.push(message(18, 1, &state(ring, 1), &[]));
        }
        messages
    }

    fn table(&self, regions: usize) -> Vec<u8> {
        let listed = self.ram.regions.iter().take(regions).flat_map(|r| [r.gpa, r.len, r.uva, r.offset]);
        [regions as u64].into_iter().chain(listed).flat_map(u64::to_le_bytes).collect()
    }

    fn addresses(&self, ring: u32) -> Vec<u8> {
        let at = Driver::new(0x2000 * u64::from(ring), SIZE).front_end_addresses();
        [u64::from(ring), at.descriptors, at.used, at.available, 0].map(u64::to_le_bytes).concat()
    }
}

fn state(ring: u32, number: u32) -> Vec<u8> {
    [ring, number].map(u32::to_le_bytes).concat()
}

/// What a conversation makes of its script.
impl Script<'_> {
    /// Any 64 bits, mostly such as mean something.
    fn number(&mut self) -> u64 {
        match self.byte() {
            b @ 0..64 => u64::from(b),
            b @ 64..128 => 1 << (b - 64),
            b @ 128..192 => UVA + 0x100 * u64::from(b - 128),
            b @ 192..224 => u64::from(b) << 8 | u64::from(self.byte()),
            b @ 224..240 => u64::MAX << (b - 224),
            _ => u64::from(self.word()) << 16 | u64::from(self.word()),
        }
    }

    fn message(&mut self, hand: &Hand) -> Message {
        let shape = self.byte();
        let ring = u32::from(self.byte() % 4);
        let code = u32::from(self.byte());
        let code = if code < 200 { code % 48 } else { code };
        let body: Vec<u8> = match shape % 8 {
            0 => vec![],
            1 => self.number().to_le_bytes().to_vec(),
            2 => state(ring, self.number() as u32),
            3 => hand.addresses(ring % 2),
            4 => [u64::from(ring), self.number(), self.number(), self.number(), self.number()]
                .map(u64::to_le_bytes)
                .concat(),
            5 => hand.table(usize::from(self.byte() % 3)),
            6 => {
                let words = usize::from(self.byte() % 20);
                (0..words).flat_map(|_| self.number().to_le_bytes()).collect()
            }
            _ => vec![self.byte(); usize::from(self.word() % 5001)],
        };
        let kind = self.byte();
        let fd = match kind >> 4 {
            0..4 => hand.pipe.0.as_raw_fd(),
            4..9 => hand.ram.fd(),
            _ => hand.event.as_raw_fd(),
        };
        let count = if kind == 255 { 33 } else { usize::from(kind % 4) };
        let mut made = message(code, if shape & 8 == 0 { 1 } else { 9 }, &body, &vec![fd; count]);
        match shape >> 4 {
            // Flags, size, length: what the header says may be wrong as well.
            0 => made.bytes[4..8].copy_from_slice(&u32::from(self.word()).to_ne_bytes()),
            1 => made.bytes[8..12].copy_from_slice(&u32::from(self.word()).to_ne_bytes()),
            2 => made.bytes.truncate(usize::from(self.word())),
            _ => {}
        }
        made
    }
}
