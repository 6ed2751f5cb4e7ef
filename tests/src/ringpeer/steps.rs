//! A front-end's life in single messages, so that it can be cut off behind, before and within each.
//!
//! ```text
//!   negotiate ─> call, enable ─> features ─> memory ─> rings ─> (talks) ─> memory comes and goes ─> rings stop ─> and start again
//! ```
//!
//! The order is QEMU's (`vhost_user_backend_init`, `vhost_net_start`, `vhost_dev_stop`). Every message asks for an answer, so that
//! it is known how far the daemon has come.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use vhost_frontend::{VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::hostile::{message, request, vring_state};
use super::{Options, Peer};

/// Flags of a message: version 1, an answer is wanted; and of an answer.
const ASKS: u32 = 0x9;
const VERSION: u32 = 0x1;
const REPLY: u32 = 0x4;

/// Protocol features: MQ, REPLY_ACK and CONFIGURE_MEM_SLOTS.
const PROTOCOL: u64 = 1 | 1 << 3 | 1 << 15;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// One message.
pub struct Step {
    /// What it says.
    pub name: String,
    bytes: Vec<u8>,
    files: Vec<RawFd>,
}

/// How a front-end ends at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has read the answer.
    Answered,
    /// It has not.
    Unread,
    /// It has sent half of the message.
    Half,
}

/// A ring as messages tell it: its configuration, where it begins, kick and call.
type Told = (VringConfigData, u16, RawFd, RawFd);

/// All messages of `peer`'s life.
///
/// # Errors
///
/// Fails when its memory has no file; it has.
pub fn steps(peer: &mut Peer, options: Options) -> Result<Vec<Step>> {
    let [rx, tx] = peer.rings().map(|ring| -> Result<Told> {
        Ok((ring.config(), ring.base()?, ring.kick.as_raw_fd(), ring.call.as_raw_fd()))
    });
    let rings = [rx?, tx?];
    let regions = peer.memory().regions()?;
    let mut script = Script(Vec::new());
    script.asks("GET_FEATURES", request::GET_FEATURES, &[]);
    script.asks("GET_PROTOCOL_FEATURES", request::GET_PROTOCOL_FEATURES, &[]);
    script.says("SET_PROTOCOL_FEATURES", request::SET_PROTOCOL_FEATURES, &PROTOCOL.to_le_bytes(), &[]);
    script.asks("GET_QUEUE_NUM", request::GET_QUEUE_NUM, &[]);
    script.asks("GET_MAX_MEM_SLOTS", request::GET_MAX_MEM_SLOTS, &[]);
    script.says("SET_OWNER", request::SET_OWNER, &[], &[]);
    for (index, (.., call)) in (0u64..).zip(rings) {
        script.says("SET_VRING_CALL", request::SET_VRING_CALL, &index.to_le_bytes(), &[call]);
    }
    script.enable(true);
    let features = options.features | PROTOCOL_FEATURES;
    script.says("SET_FEATURES", request::SET_FEATURES, &features.to_le_bytes(), &[]);
    for region in &regions {
        let VhostUserMemoryRegionInfo { guest_phys_addr, memory_size, userspace_addr, mmap_offset, .. } =
            *region;
        let body = words_of([0, guest_phys_addr, memory_size, userspace_addr, mmap_offset]);
        script.says("ADD_MEM_REG", request::ADD_MEM_REG, &body, &[region.mmap_handle]);
    }
    script.start(&rings);
    if let Some(region) = regions.first() {
        // The file that is there anyway, at addresses that are not.
        let body = words_of([0, 1 << 40, region.memory_size, 0x6000_0000_0000, region.mmap_offset]);
        script.says("ADD_MEM_REG, more", request::ADD_MEM_REG, &body, &[region.mmap_handle]);
        script.says("REM_MEM_REG", request::REM_MEM_REG, &body, &[]);
    }
    script.enable(false);
    for index in 0..2 {
        script.asks("GET_VRING_BASE", request::GET_VRING_BASE, &vring_state(index, 0));
    }
    script.enable(true);
    script.start(&rings);
    Ok(script.0)
}

/// Messages that are being put together.
struct Script(Vec<Step>);

impl Script {
    /// A message that is answered by what it asks for.
    fn asks(&mut self, name: &str, number: u32, body: &[u8]) {
        self.add(name, number, VERSION, body, &[]);
    }

    /// A message that is answered because it wants to be.
    fn says(&mut self, name: &str, number: u32, body: &[u8], files: &[RawFd]) {
        self.add(name, number, ASKS, body, files);
    }

    fn add(&mut self, name: &str, number: u32, flags: u32, body: &[u8], files: &[RawFd]) {
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let bytes = message(number, flags, size, body);
        self.0.push(Step { name: name.to_owned(), bytes, files: files.to_vec() });
    }

    fn enable(&mut self, on: bool) {
        for index in 0..2 {
            let body = vring_state(index, u32::from(on));
            self.says("SET_VRING_ENABLE", request::SET_VRING_ENABLE, &body, &[]);
        }
    }

    fn start(&mut self, rings: &[Told; 2]) {
        for (index, (config, base, kick, call)) in (0u32..).zip(rings) {
            let size = vring_state(index, config.queue_size.into());
            self.says("SET_VRING_NUM", request::SET_VRING_NUM, &size, &[]);
            self.says("SET_VRING_BASE", request::SET_VRING_BASE, &vring_state(index, (*base).into()), &[]);
            let VringConfigData { desc_table_addr, used_ring_addr, avail_ring_addr, .. } = *config;
            let addresses = words_of([index.into(), desc_table_addr, used_ring_addr, avail_ring_addr, 0]);
            self.says("SET_VRING_ADDR", request::SET_VRING_ADDR, &addresses, &[]);
            let number = u64::from(index).to_le_bytes();
            self.says("SET_VRING_KICK", request::SET_VRING_KICK, &number, &[*kick]);
            self.says("SET_VRING_CALL", request::SET_VRING_CALL, &number, &[*call]);
        }
    }
}

/// Says `steps` up to and with number `last`, which ends as `end` says.
///
/// # Errors
///
/// Fails when the daemon refuses one, or hangs up.
pub fn go(mut stream: &UnixStream, steps: &[Step], last: usize, end: End) -> Result<()> {
    for (at, step) in steps.iter().enumerate().take(last + 1) {
        let whole = at < last || end != End::Half;
        let bytes = if whole { &step.bytes[..] } else { &step.bytes[..step.bytes.len() / 2] };
        let sent = stream.send_with_fds(&[bytes], &step.files).with_context(|| step.name.clone())?;
        stream.write_all(&bytes[sent..])?;
        if at < last || end == End::Answered {
            answer(stream, step).with_context(|| format!("{}, message {at}", step.name))?;
        }
    }
    Ok(())
}

fn answer(mut stream: &UnixStream, step: &Step) -> Result<()> {
    let mut header = [0; 12];
    stream.read_exact(&mut header)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    ensure!(header[..4] == step.bytes[..4] && word(4) & REPLY != 0, "answers something else: {header:02x?}");
    let mut body = vec![0; usize::try_from(word(8))?];
    stream.read_exact(&mut body)?;
    let asked = step.bytes[4] & 0x8 != 0;
    ensure!(!asked || body.iter().all(|byte| *byte == 0), "refused");
    Ok(())
}

fn words_of(words: [u64; 5]) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}
