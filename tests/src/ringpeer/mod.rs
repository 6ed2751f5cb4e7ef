//! A guest without a guest: a vhost-user front-end in this process, that sends the frames it is given, byte for byte, and keeps
//! what it receives.
//!
//! ```text
//!   frames ──> tx ring ──┐  guest memory (memfd)  ┌──> vhost-ila
//!   frames <── rx ring <─┘  kick, call            └─── SET_MEM_TABLE, SET_VRING_*: rust-vmm's front-end
//! ```
//!
//! It shares nothing with the daemon but the `vhost` crate's messages; rings and memory are its own. [`hostile`] says what no
//! honest front-end would.
//!
//! What must stay true: every wait has a limit, and a chain that the device gives back without a call is an error, as a guest
//! would sleep on it.

pub mod beside;
pub mod card;
pub mod checksum;
pub mod data;
pub mod dirty_log;
pub mod file;
pub mod header;
pub mod hostile;
pub mod judge;
pub mod memory;
pub mod messages;
pub mod neighbours;
pub mod partner;
pub mod ring;
pub mod steps;

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vhost_frontend::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost_frontend::vhost_user::{Frontend, VhostUserFrontend};
use vhost_frontend::{VhostBackend, VhostUserMemoryRegionInfo};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::process::wait_for;
use crate::site::Vm;
use dirty_log::DirtyLog;
use header::{LENGTH, NetHeader};
use memory::Memory;
use neighbours::arp_request;
use ring::{Part, Ring};

/// How long the daemon may take to answer a message or to take a frame.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a buffer of the transmit ring: a table of 64 descriptors, a header and the longest frame.
const TX_BUFFER: u64 = TABLE + LENGTH as u64 + 65_550;

/// Transmit buffers of a peer at most: guest memory has no room for one per entry of the largest rings.
const TX_BUFFERS: u16 = 1024;

/// Bytes kept before each transmit buffer for an indirect table.
const TABLE: u64 = 1024;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// VHOST_F_LOG_ALL.
const LOG_ALL: u64 = 1 << 26;

/// Rings of a NIC with one pair.
const RX: usize = 0;
const TX: usize = 1;

/// What a driver accepts that can do all that Linux's can with one ring pair, but for [`MARKS`] and [`DATAGRAMS`]: partial checksums, super-packets both ways,
/// mergeable buffers, indirect tables, event indices.
pub const OFFLOADS: [u32; 10] = [
    VIRTIO_F_VERSION_1,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_RING_F_INDIRECT_DESC,
    net::VIRTIO_NET_F_MRG_RXBUF,
    net::VIRTIO_NET_F_CSUM,
    net::VIRTIO_NET_F_GUEST_CSUM,
    net::VIRTIO_NET_F_HOST_TSO4,
    net::VIRTIO_NET_F_HOST_TSO6,
    net::VIRTIO_NET_F_GUEST_TSO4,
    net::VIRTIO_NET_F_GUEST_TSO6,
];

/// Super-packets of UDP.
pub const DATAGRAMS: [u32; 3] =
    [net::VIRTIO_NET_F_HOST_USO, net::VIRTIO_NET_F_GUEST_USO4, net::VIRTIO_NET_F_GUEST_USO6];

/// Super-packets that carry marks of congestion.
pub const MARKS: [u32; 2] = [net::VIRTIO_NET_F_HOST_ECN, net::VIRTIO_NET_F_GUEST_ECN];

/// How a frame lies in the transmit ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chain {
    /// Header and frame in one descriptor.
    #[default]
    Whole,
    /// The header in a descriptor of its own.
    HeaderApart,
    /// As there, by an indirect table.
    Indirect,
    /// Header and frame cut into pieces of so many bytes, at most 64 of them.
    Pieces(u32),
}

/// What a peer is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The virtio features to accept, all of which the daemon must offer.
    pub features: u64,
    /// Descriptors of each ring.
    pub ring: u16,
    /// Bytes of each receive buffer, header included.
    pub rx_buffer: u32,
    /// How frames are put into the transmit ring.
    pub chain: Chain,
}

impl Default for Options {
    /// A modern driver without offloads.
    fn default() -> Options {
        Options { features: bits(&[VIRTIO_F_VERSION_1]), ring: 256, rx_buffer: 2048, chain: Chain::Whole }
    }
}

impl Options {
    /// A driver that accepts [`OFFLOADS`], and uses indirect tables.
    pub fn offloads() -> Options {
        let features = bits(&OFFLOADS);
        Options { features, chain: Chain::Indirect, ..Options::default() }
    }

    /// The same over packed rings, which the daemon offers only where it is told to.
    #[must_use]
    pub fn packed(self) -> Options {
        Options { features: self.features | bits(&[VIRTIO_F_RING_PACKED]), ..self }
    }

    /// Whether it is over packed rings.
    pub fn is_packed(self) -> bool {
        self.features & bits(&[VIRTIO_F_RING_PACKED]) != 0
    }

    /// The same, and the driver relies on the order in which buffers come back.
    #[must_use]
    pub fn in_order(self) -> Options {
        Options { features: self.features | bits(&[VIRTIO_F_IN_ORDER]), ..self }
    }
}

/// The bit mask of feature numbers.
pub fn bits(features: &[u32]) -> u64 {
    features.iter().fold(0, |mask, feature| mask | 1 << feature)
}

/// A frame and what its driver says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The virtio-net header.
    pub header: NetHeader,
    /// Ethernet from the first byte.
    pub bytes: Vec<u8>,
}

/// The front-end.
pub struct Peer {
    options: Options,
    memory: Memory,
    rx: Ring,
    tx: Ring,
    rx_buffers: GuestAddress,
    tx_buffers: GuestAddress,
    /// Per head: which buffer it carries.
    carried: [Vec<u16>; 2],
    free_tx: Vec<u16>,
    frontend: Option<Frontend>,
    /// Where the daemon marks what it writes, if it shall.
    log: Option<DirtyLog>,
}

impl Peer {
    /// A peer that is attached to nothing yet; all its receive buffers are in the ring.
    ///
    /// # Errors
    ///
    /// Fails when guest memory cannot be made.
    pub fn new(options: Options) -> Result<Peer> {
        Peer::in_memory(Memory::new()?, options)
    }

    /// As [`Peer::new`], in a memory of the caller's.
    ///
    /// # Errors
    ///
    /// Fails when it is too small.
    pub fn in_memory(mut memory: Memory, options: Options) -> Result<Peer> {
        let entries = usize::from(options.ring);
        let mut peer = Peer {
            rx: Ring::new(&mut memory, options.ring, options.features)?,
            tx: Ring::new(&mut memory, options.ring, options.features)?,
            rx_buffers: memory.for_buffers(u64::from(options.ring) * u64::from(options.rx_buffer))?,
            tx_buffers: memory.for_buffers(u64::from(options.ring.min(TX_BUFFERS)) * TX_BUFFER)?,
            carried: [vec![0; entries], vec![0; entries]],
            free_tx: (0..options.ring.min(TX_BUFFERS)).collect(),
            frontend: None,
            log: None,
            options,
            memory,
        };
        for buffer in 0..options.ring {
            peer.post(buffer)?;
        }
        Ok(peer)
    }

    /// A peer attached to the daemon that listens on `socket`.
    ///
    /// # Errors
    ///
    /// As [`Peer::new`] and [`Peer::attach`]; also when nobody listens within ten seconds.
    pub fn connect(socket: &Path, options: Options) -> Result<Peer> {
        let mut peer = Peer::new(options)?;
        peer.attach(connect(socket)?)?;
        Ok(peer)
    }

    /// Whether the daemon answers a request for the gateway's address `target`: the attachment of `vm` works.
    ///
    /// # Errors
    ///
    /// Fails when it does not within ten seconds.
    pub fn must_resolve(&mut self, vm: &Vm, target: Ipv4Addr) -> Result<()> {
        self.send(&arp_request(vm, target)?)?;
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let frame = self.receive(LIMIT)?.context("no answer to ARP")?;
            if frame.bytes.get(12..14) == Some(&[8, 6]) && frame.bytes.get(28..32) == Some(&target.octets()) {
                return Ok(());
            }
        }
        bail!("no answer to ARP")
    }

    /// Attaches to the daemon at the other end of `stream`: features, memory, rings, as QEMU does it. A peer that was attached
    /// before goes on where its used rings say, as QEMU does after a crash of the daemon; packed rings, where [`Ring::base`] says.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses, or lacks a wanted feature.
    pub fn attach(&mut self, stream: UnixStream) -> Result<()> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut frontend = Frontend::from_stream(stream, 2);
        let log_all = if self.log.is_some() { LOG_ALL } else { 0 };
        let wanted = self.options.features | PROTOCOL_FEATURES | log_all;
        let offered = frontend.get_features()?;
        ensure!(wanted & !offered == 0, "features {:#x} are not offered", wanted & !offered);
        // Of these the daemon may have been told to leave out some; who needs one then gets an error for it.
        let useful = VhostUserProtocolFeatures::LOG_SHMFD | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        let protocol = VhostUserProtocolFeatures::REPLY_ACK;
        let offered = frontend.get_protocol_features()?;
        ensure!(offered.contains(protocol), "{protocol:?} is not offered");
        let protocol = protocol | (useful & offered);
        // Acknowledged before they are set, in the front-end's own book-keeping.
        frontend.set_features(wanted)?;
        frontend.set_protocol_features(protocol)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_owner()?;
        frontend.set_features(wanted)?;
        frontend.set_mem_table(&self.memory.regions()?)?;
        // Before they start: what a started ring sends while it is disabled is discarded (vhost-user, "Ring states").
        for index in [RX, TX] {
            frontend.set_vring_enable(index, true)?;
        }
        for (index, ring) in [(RX, &self.rx), (TX, &self.tx)] {
            frontend.set_vring_num(index, self.options.ring)?;
            frontend.set_vring_base(index, ring.base()?)?;
            let config = if self.log.is_some() { ring.logged_config() } else { ring.config() };
            frontend.set_vring_addr(index, &config)?;
            frontend.set_vring_kick(index, &ring.kick)?;
            frontend.set_vring_call(index, &ring.call)?;
        }
        self.frontend = Some(frontend);
        self.tell_log()?;
        // What was published before is new to this daemon.
        self.rx.kick.write(1)?;
        Ok(self.tx.kick.write(1)?)
    }

    /// The connection, for messages that a set-up does not need.
    ///
    /// # Errors
    ///
    /// Fails when nothing is attached.
    pub fn frontend(&mut self) -> Result<&mut Frontend> {
        self.frontend.as_mut().context("not attached")
    }

    /// Whether the daemon has hung up, or nothing is attached.
    pub fn is_left(&self) -> bool {
        let Some(frontend) = &self.frontend else { return true };
        hung_up(frontend.as_raw_fd()).unwrap_or(true)
    }

    /// Stops the rings in order, and leaves. Returns where the daemon says it stopped: rx, tx.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses, or nothing is attached.
    pub fn detach(&mut self) -> Result<(u32, u32)> {
        let frontend = self.frontend.take().context("not attached")?;
        let stopped = (frontend.get_vring_base(RX)?, frontend.get_vring_base(TX)?);
        self.rx.stopped_at(stopped.0);
        self.tx.stopped_at(stopped.1);
        Ok(stopped)
    }

    /// The transmit ring, for those who put into it what no driver would.
    pub fn tx(&mut self) -> &mut Ring {
        &mut self.tx
    }

    /// The receive ring, for the same.
    pub fn rx(&mut self) -> &mut Ring {
        &mut self.rx
    }

    /// Both, by the index of vhost-user.
    pub fn rings(&mut self) -> [&mut Ring; 2] {
        [&mut self.rx, &mut self.tx]
    }

    /// Gives the guest more memory while it runs (ADD_MEM_REG): `bytes` at guest-physical address `start`, outside what it has.
    /// The file is all there is of it; nothing is posted there.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses, or nothing is attached.
    pub fn add_memory(&mut self, start: GuestAddress, bytes: u64) -> Result<File> {
        let file = memory::file(bytes)?;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: start.0,
            memory_size: bytes,
            userspace_addr: memory::user(start),
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        let frontend = self.frontend.as_mut().context("not attached")?;
        frontend.add_mem_region(&region)?;
        Ok(file)
    }

    /// Where the daemon may write: its parts of the rings, and receive buffers, as addresses and bytes. The peer itself writes nothing there;
    /// in packed rings, where the daemon writes as well.
    pub fn written_by_the_device(&self) -> Vec<(GuestAddress, u64)> {
        let buffers = u64::from(self.options.ring) * u64::from(self.options.rx_buffer);
        let buffers = vec![(self.rx_buffers, buffers)];
        [self.rx.written_by_the_device(), self.tx.written_by_the_device(), buffers].concat()
    }

    /// The memory that the daemon sees.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Sends `frame` without offloads.
    ///
    /// # Errors
    ///
    /// As [`Peer::send_with`].
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.send_with(NetHeader::default(), frame)
    }

    /// Sends `frame` behind `header`; returns when it is in the ring.
    ///
    /// # Errors
    ///
    /// Fails when the ring stays full for ten seconds.
    pub fn send_with(&mut self, header: NetHeader, frame: &[u8]) -> Result<()> {
        let length = u32::try_from(LENGTH + frame.len())?;
        let chain = self.options.chain;
        self.send_parts(header, frame, |data| parts(chain, data, length))
    }

    /// As [`Peer::send_with`], in a chain of descriptors that end after `cuts` bytes of header and frame, ascending; of at most 64.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_cut(&mut self, header: NetHeader, frame: &[u8], cuts: &[u32]) -> Result<()> {
        let length = u32::try_from(LENGTH + frame.len())?;
        self.send_parts(header, frame, |data| {
            let ends = cuts.iter().copied().chain([length]);
            let starts = [0].into_iter().chain(cuts.iter().copied());
            starts.zip(ends).map(|(start, end)| cut(data, start, end)).collect()
        })
    }

    /// Sends what lies in a buffer, in the parts that `cut_up` makes of it.
    fn send_parts(
        &mut self,
        header: NetHeader,
        frame: &[u8],
        cut_up: impl FnOnce(GuestAddress) -> Vec<Part>,
    ) -> Result<()> {
        let start = Instant::now();
        while self.free_tx.is_empty() || self.tx.free() < 64 {
            if !self.reap()? {
                wait(&self.tx.call, start, LIMIT).context("the transmit ring stays full")?;
            }
        }
        let buffer = self.free_tx.pop().context("no buffer")?;
        let table = self.tx_buffers.unchecked_add(u64::from(buffer) * TX_BUFFER);
        let data = table.unchecked_add(TABLE);
        let bytes = [header.to_bytes().as_slice(), frame].concat();
        self.memory.map.write_slice(&bytes, data)?;
        let parts = cut_up(data);
        let head = match self.options.chain {
            Chain::Indirect => self.tx.add_indirect(&parts, table)?,
            _ => self.tx.add(&parts)?,
        };
        self.carried[TX][usize::from(head)] = buffer;
        self.tx.publish()
    }

    /// As [`Peer::send`], without waiting; whether there was room in the ring.
    ///
    /// # Errors
    ///
    /// Fails when the daemon misuses the ring.
    pub fn try_send(&mut self, frame: &[u8]) -> Result<bool> {
        self.reap()?;
        let room = !self.free_tx.is_empty() && self.tx.free() >= 64;
        if room {
            self.send(frame)?;
        }
        Ok(room)
    }

    /// As [`Peer::send`], without listening for a call: what the daemon has taken is looked up in the ring.
    ///
    /// # Errors
    ///
    /// As [`Peer::send`].
    pub fn send_unheard(&mut self, frame: &[u8]) -> Result<()> {
        wait_for("room in the transmit ring", LIMIT, || {
            self.reap()?;
            Ok((!self.free_tx.is_empty() && self.tx.free() >= 64).then_some(()))
        })?;
        self.send(frame)
    }

    /// Gives the transmit ring another kick, while it runs; the old one.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses, or nothing is attached.
    pub fn exchange_kick(&mut self, fresh: EventFd) -> Result<EventFd> {
        let frontend = self.frontend.as_ref().context("not attached")?;
        frontend.set_vring_kick(TX, &fresh)?;
        Ok(std::mem::replace(&mut self.tx.kick, fresh))
    }

    /// Fills all buffers of both rings with `secret`, which is then around, and behind, all that is sent.
    ///
    /// # Errors
    ///
    /// Fails when the buffers are not in guest memory; they are.
    pub fn hide(&mut self, secret: u64) -> Result<()> {
        let ring = u64::from(self.options.ring);
        let transmit = (self.tx_buffers, ring.min(TX_BUFFERS.into()) * TX_BUFFER);
        for (start, bytes) in [(self.rx_buffers, ring * u64::from(self.options.rx_buffer)), transmit] {
            let words = secret.to_ne_bytes().repeat(usize::try_from(bytes / 8)?);
            self.memory.map.write_slice(&words, start)?;
        }
        Ok(())
    }

    /// The address of `secret` in what the daemon may write: rings and receive buffers.
    ///
    /// # Errors
    ///
    /// Fails when they are not in guest memory; they are.
    pub fn finds(&self, secret: u64) -> Result<Option<GuestAddress>> {
        let received = u64::from(self.options.ring) * u64::from(self.options.rx_buffer);
        for (start, bytes) in [(GuestAddress(0), memory::LOW), (self.rx_buffers, received)] {
            let there = self.memory.bytes(start, bytes)?;
            if let Some(at) = there.chunks_exact(8).position(|word| word == secret.to_ne_bytes()) {
                return Ok(Some(start.unchecked_add(8 * at as u64)));
            }
        }
        Ok(None)
    }

    /// Waits until the daemon has taken all that was sent.
    ///
    /// # Errors
    ///
    /// Fails after ten seconds.
    pub fn flush(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.free_tx.len() < usize::from(self.options.ring.min(TX_BUFFERS)) {
            if !self.reap()? {
                wait(&self.tx.call, start, LIMIT).context("not all frames are taken")?;
            }
        }
        Ok(())
    }

    /// The next frame, or nothing when none comes within `limit`. The gateway's questions who listens to what, which come at any time, are
    /// not among them, as an ordinary host's programs do not see them either.
    ///
    /// # Errors
    ///
    /// Fails when the daemon misuses the ring.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<Frame>> {
        let start = Instant::now();
        let mut called = true;
        loop {
            if let Some((head, length)) = self.rx.take_used()? {
                if !called {
                    // It may be on its way.
                    wait(&self.rx.call, Instant::now(), Duration::from_secs(1))
                        .context("a frame was delivered without a call: a guest would sleep on it")?;
                }
                let frame = self.collect(head, length, start)?;
                if !asks_for_listeners(&frame.bytes) {
                    return Ok(Some(frame));
                }
                called = true;
                continue;
            }
            if !called {
                return Ok(None);
            }
            called = wait(&self.rx.call, start, limit).is_ok();
        }
    }

    /// All frames until none comes for `quiet`.
    ///
    /// # Errors
    ///
    /// As [`Peer::receive`].
    pub fn receive_all(&mut self, quiet: Duration) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive(quiet)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// As [`Peer::receive_all`], where frames are expected: the first may take `first`, as neighbours may have to be found.
    ///
    /// # Errors
    ///
    /// As [`Peer::receive`].
    pub fn receive_burst(&mut self, first: Duration, quiet: Duration) -> Result<Vec<Frame>> {
        let mut frames: Vec<Frame> = self.receive(first)?.into_iter().collect();
        if !frames.is_empty() {
            frames.extend(self.receive_all(quiet)?);
        }
        Ok(frames)
    }

    /// A frame of one or more buffers, of which the first is given back with `length` bytes.
    fn collect(&mut self, head: u16, length: u32, start: Instant) -> Result<Frame> {
        let mut bytes = self.take_buffer(head, length)?;
        let header = bytes.first_chunk::<LENGTH>().context("less than a header was delivered")?;
        let header = NetHeader::from_bytes(*header);
        ensure!(header.num_buffers >= 1, "a frame of no buffers was delivered");
        for _ in 1..header.num_buffers {
            let (head, length) = loop {
                match self.rx.take_used()? {
                    Some(used) => break used,
                    None => ensure!(start.elapsed() < LIMIT, "a frame's later buffers do not come"),
                }
            };
            bytes.extend(self.take_buffer(head, length)?);
        }
        self.rx.publish()?;
        bytes.drain(..LENGTH);
        Ok(Frame { header, bytes })
    }

    /// What was written to the buffer of `head`, which goes back to the device.
    fn take_buffer(&mut self, head: u16, length: u32) -> Result<Vec<u8>> {
        ensure!(
            length <= self.options.rx_buffer,
            "{length} bytes written into a buffer of {}",
            self.options.rx_buffer
        );
        let buffer = self.carried[RX][usize::from(head)];
        let mut bytes = vec![0; usize::try_from(length)?];
        self.memory.map.read_slice(&mut bytes, self.rx_buffer(buffer))?;
        let part = self.rx_part(buffer);
        let head = self.rx.add(&[part])?;
        self.carried[RX][usize::from(head)] = buffer;
        Ok(bytes)
    }

    fn post(&mut self, buffer: u16) -> Result<()> {
        let part = self.rx_part(buffer);
        let head = self.rx.add(&[part])?;
        self.carried[RX][usize::from(head)] = buffer;
        self.rx.publish()
    }

    fn rx_part(&self, buffer: u16) -> Part {
        Part { address: self.rx_buffer(buffer), length: self.options.rx_buffer, writable: true }
    }

    fn rx_buffer(&self, buffer: u16) -> GuestAddress {
        self.rx_buffers.unchecked_add(u64::from(buffer) * u64::from(self.options.rx_buffer))
    }

    /// Takes back what the daemon has sent; whether there was anything.
    fn reap(&mut self) -> Result<bool> {
        let before = self.free_tx.len();
        while let Some((head, _)) = self.tx.take_used()? {
            self.free_tx.push(self.carried[TX][usize::from(head)]);
        }
        Ok(self.free_tx.len() > before)
    }
}

/// Connects to `socket`, which may not be there yet.
///
/// # Errors
///
/// Fails when nobody listens within ten seconds.
pub fn connect(socket: &Path) -> Result<UnixStream> {
    wait_for(&format!("{} to listen", socket.display()), LIMIT, || Ok(UnixStream::connect(socket).ok()))
}

/// Cuts `length` bytes at `data` as `chain` says.
fn parts(chain: Chain, data: GuestAddress, length: u32) -> Vec<Part> {
    let header = LENGTH as u32;
    let cut = |start, end| cut(data, start, end);
    match chain {
        Chain::Whole => vec![cut(0, length)],
        Chain::HeaderApart | Chain::Indirect if length > header => vec![cut(0, header), cut(header, length)],
        Chain::HeaderApart | Chain::Indirect => vec![cut(0, length)],
        Chain::Pieces(step) => {
            let step = step.max(length.div_ceil(64));
            (0..length).step_by(step as usize).map(|start| cut(start, length.min(start + step))).collect()
        }
    }
}

/// Whether `frame` is an IGMP or MLD message to a group: from the gateway, which lets no other's through, that is a query.
fn asks_for_listeners(frame: &[u8]) -> bool {
    let at = |offset: usize| frame.get(offset).copied();
    match frame.get(12..14) {
        Some([0x08, 0x00]) => at(0) == Some(0x01) && at(23) == Some(2),
        // Behind a hop-by-hop header with Router Alert.
        Some([0x86, 0xdd]) => at(0) == Some(0x33) && at(20) == Some(0) && at(62) == Some(130),
        _ => false,
    }
}

/// Whether the other end of the socket `stream` is closed.
fn hung_up(stream: RawFd) -> Result<bool> {
    let epoll = Epoll::new()?;
    epoll.ctl(ControlOperation::Add, stream, EpollEvent::new(EventSet::READ_HANG_UP, 0))?;
    Ok(epoll.wait(0, &mut [EpollEvent::default()])? > 0)
}

/// The readable bytes from `start` to `end` of what lies at `data`.
fn cut(data: GuestAddress, start: u32, end: u32) -> Part {
    Part { address: data.unchecked_add(u64::from(start)), length: end - start, writable: false }
}

/// Waits until `call` is written, `limit` after `start` at the latest, and empties it.
fn wait(call: &EventFd, start: Instant, limit: Duration) -> Result<()> {
    let left = limit.checked_sub(start.elapsed()).unwrap_or_default();
    let epoll = Epoll::new()?;
    epoll.ctl(ControlOperation::Add, call.as_raw_fd(), EpollEvent::new(EventSet::IN, 0))?;
    if epoll.wait(i32::try_from(left.as_millis())?, &mut [EpollEvent::default()])? == 0 {
        bail!("no call within {} ms", limit.as_millis());
    }
    call.read()?;
    Ok(())
}

#[cfg(test)]
mod tests;
