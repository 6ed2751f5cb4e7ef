//! A replay of cloud-hypervisor's vhost-user-net front-end: its masks, its messages in its order, its way to reconnect. It is not
//! cloud-hypervisor: there is no VMM and no guest's kernel behind it. [`real`] runs the program itself where it is installed.
//!
//! ```text
//! Net::new        connect ─> SET_OWNER ─> GET_FEATURES ─> GET/SET_PROTOCOL_FEATURES ─> GET_QUEUE_NUM (MQ) ─> GET_CONFIG (CONFIG)
//! activate        SET_FEATURES ─> SET_MEM_TABLE ─> NUM of every ring ─> each ring: ADDR, BASE, CALL, KICK ─> ENABLE of every ring
//! EPOLLHUP        connect again, for 60 s ─> SET_OWNER ─> GET_FEATURES ─> SET_PROTOCOL_FEATURES ─> as activate
//! guest resets    each ring: ENABLE(0), GET_VRING_BASE
//! ```
//!
//! Read in github.com/cloud-hypervisor/cloud-hypervisor, `virtio-devices/src/vhost_user/`: mod.rs at 01f937628bea
//! (`DEFAULT_VIRTIO_FEATURES`, `VhostUserEpollHandler::reconnect`, `VhostUserCommon`), vu_common_ctrl.rs at a423bf13ad41
//! (`negotiate_features_vhost_user`, `setup_vhost_user`, `reinitialize_vhost_user`, `reset_vhost_user`, `connect_vhost_user`), net.rs at
//! 00a8c87b0b06 (`Net::new`, `activate`); and in the descriptions of its pull requests 7617 and 8684 (configuration read from offset 0,
//! MAC and MTU taken from it), 8592 (IN_ORDER: rings restart at the used index), 8613 and 8759 (connecting to a back-end that is about
//! to end is tried again; every queue is kicked after a reconnect). The messages are made by the `vhost` crate, as they are there.
//!
//! What must stay true:
//! * The control queue is the VMM's own: its ring is never shown to the back-end, whatever was negotiated.
//! * Without IN_ORDER a ring restarts where the driver published last (SET_VRING_BASE with the *available* index): a back-end that
//!   believes it skips all buffers that its predecessor held.
//! * When [`LATCH`] passes without a connection, the NIC stays dead, as there.

pub mod load;
pub mod real;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_frontend::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures,
};
use vhost_frontend::vhost_user::{Frontend, VhostUserFrontend};
use vhost_frontend::{VhostBackend, VhostUserMemoryRegionInfo};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_ORDER_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::ringpeer::memory::{Memory, user};
use crate::ringpeer::{Chain, Options, Peer, bits};

/// How long cloud-hypervisor tries to connect before it gives the NIC up (`connect_vhost_user`).
pub const LATCH: Duration = Duration::from_secs(60);

/// Between two of its tries.
const RETRY: Duration = Duration::from_millis(100);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// VIRTIO_F_NOTIFICATION_DATA.
const NOTIFICATION_DATA: u32 = 38;

/// `struct virtio_net_config` as `net_util` has it: up to `duplex`.
const CONFIG: usize = 17;

/// Rings of a back-end that has no MQ (`DEFAULT_QUEUE_NUMBER`).
const DEFAULT_RINGS: usize = 2;

/// What Linux 6.1's driver knows of what cloud-hypervisor can show it.
pub const LINUX: &[u32] = &[
    VIRTIO_F_VERSION_1,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_RING_F_INDIRECT_DESC,
    net::VIRTIO_NET_F_CSUM,
    net::VIRTIO_NET_F_GUEST_CSUM,
    net::VIRTIO_NET_F_MTU,
    net::VIRTIO_NET_F_MAC,
    net::VIRTIO_NET_F_GUEST_TSO4,
    net::VIRTIO_NET_F_GUEST_TSO6,
    net::VIRTIO_NET_F_GUEST_ECN,
    net::VIRTIO_NET_F_HOST_TSO4,
    net::VIRTIO_NET_F_HOST_TSO6,
    net::VIRTIO_NET_F_HOST_ECN,
    net::VIRTIO_NET_F_MRG_RXBUF,
    net::VIRTIO_NET_F_STATUS,
    net::VIRTIO_NET_F_CTRL_VQ,
    net::VIRTIO_NET_F_GUEST_ANNOUNCE,
    net::VIRTIO_NET_F_MQ,
];

/// What a NIC is plugged in with.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// `vhost_mode=server`: it listens and the daemon connects.
    pub listens: bool,
    /// `num_queues` / 2.
    pub pairs: usize,
    /// Whether the guest's driver accepts IN_ORDER (Linux's does from 6.18).
    pub in_order: bool,
    /// Whether it kicks after a reconnect and reads the configuration, as it does since the summer of 2026.
    pub newest: bool,
}

/// The front-end and its guest's memory and rings.
pub struct CloudHypervisor {
    socket: PathBuf,
    spec: Spec,
    frontend: Option<Frontend>,
    /// What both VMM and back-end know, MAC aside.
    features: u64,
    /// The same of vhost-user.
    protocol: Protocol,
    config: Option<Vec<u8>>,
    memory: Memory,
    /// What was plugged in later: told again after a reconnect.
    plugged: Vec<(VhostUserMemoryRegionInfo, File)>,
    pairs: Vec<Peer>,
}

impl CloudHypervisor {
    /// `Net::new`: connects to the back-end at `socket`, or listens for it there, and negotiates.
    ///
    /// # Errors
    ///
    /// Fails as cloud-hypervisor does: nobody connects, or there are fewer rings than asked for.
    pub fn plug(socket: &Path, spec: Spec) -> Result<CloudHypervisor> {
        let mut nic = CloudHypervisor {
            socket: socket.to_owned(),
            spec,
            frontend: None,
            features: 0,
            protocol: Protocol::empty(),
            config: None,
            // Its memfd is not sealed, other than QEMU's.
            memory: Memory::unsealed()?,
            plugged: Vec::new(),
            pairs: Vec::new(),
        };
        nic.frontend = Some(nic.negotiate()?);
        Ok(nic)
    }

    fn negotiate(&mut self) -> Result<Frontend> {
        let rings = 2 * self.spec.pairs;
        let mut frontend = self.connect(false)?;
        frontend.set_owner()?;
        self.features = available(self.spec) & frontend.get_features()?;
        self.protocol = protocol(self.spec) & frontend.get_protocol_features()?;
        frontend.set_protocol_features(self.protocol)?;
        self.ask_for_answers(&frontend);
        let offered = match self.protocol.contains(Protocol::MQ) {
            true => usize::try_from(frontend.get_queue_num()?)?,
            false => DEFAULT_RINGS,
        };
        // It compares its number of rings, where QEMU compares pairs.
        ensure!(rings <= offered, "too many queues ({rings}) since the backend only supports {offered}");
        if self.protocol.contains(Protocol::CONFIG) {
            let size = u32::try_from(CONFIG)?;
            let (_, space) = frontend.get_config(0, size, VhostUserConfigFlags::WRITABLE, &[0; CONFIG])?;
            self.config = Some(space);
        }
        Ok(frontend)
    }

    /// The guest's driver starts: accepts what it knows of what is shown to it, makes its rings and sets DRIVER_OK.
    ///
    /// # Errors
    ///
    /// Fails when the back-end refuses.
    pub fn activate(&mut self, driver: &[u32]) -> Result<()> {
        let in_order = if self.spec.in_order { bits(&[VIRTIO_F_IN_ORDER]) } else { 0 };
        self.features &= bits(driver) | in_order | PROTOCOL_FEATURES;
        let chain = match self.features & bits(&[VIRTIO_RING_F_INDIRECT_DESC]) {
            0 => Chain::HeaderApart,
            _ => Chain::Indirect,
        };
        let options = Options { features: self.features, ring: 256, rx_buffer: 2048, chain };
        self.pairs.clear();
        for _ in 0..self.spec.pairs {
            let mut pair = Peer::in_memory(self.memory.clone(), options)?;
            // It has taken its part of it.
            self.memory = pair.memory().clone();
            self.pairs.push(pair);
        }
        let frontend = self.frontend.take().context("not connected")?;
        self.frontend = Some(self.set_up(frontend, false)?);
        Ok(())
    }

    /// The guest's driver resets the device, as at a reboot; [`CloudHypervisor::activate`] may follow, on the same connection.
    ///
    /// # Errors
    ///
    /// Fails when the back-end refuses.
    pub fn reset(&mut self) -> Result<()> {
        let frontend = self.frontend.as_mut().context("not connected")?;
        for ring in 0..2 * self.spec.pairs {
            frontend.set_vring_enable(ring, false)?;
            frontend.get_vring_base(ring)?;
        }
        Ok(())
    }

    /// Pauses or resumes the virtual machine: disables or enables every ring.
    ///
    /// # Errors
    ///
    /// Fails when the back-end refuses.
    pub fn run(&mut self, runs: bool) -> Result<()> {
        let frontend = self.frontend.as_mut().context("not connected")?;
        (0..2 * self.spec.pairs).try_for_each(|ring| Ok(frontend.set_vring_enable(ring, runs)?))
    }

    /// Memory is plugged in at the guest-physical address `start`: ADD_MEM_REG where the back-end has slots.
    ///
    /// # Errors
    ///
    /// Fails when the back-end refuses, or has no CONFIGURE_MEM_SLOTS.
    pub fn plug_memory(&mut self, start: GuestAddress, bytes: u64) -> Result<GuestMemoryMmap> {
        ensure!(self.protocol.contains(Protocol::CONFIGURE_MEM_SLOTS), "CONFIGURE_MEM_SLOTS is not offered");
        let file = File::from(memfd_create("plugged", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, bytes)?;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: start.0,
            memory_size: bytes,
            userspace_addr: user(start),
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        self.frontend.as_mut().context("not connected")?.add_mem_region(&region)?;
        let map = (start, usize::try_from(bytes)?, Some(FileOffset::new(file.try_clone()?, 0)));
        self.plugged.push((region, file));
        Ok(GuestMemoryMmap::from_ranges_with_files([map])?)
    }

    /// Whether the back-end has hung up (EPOLLHUP).
    ///
    /// # Errors
    ///
    /// Fails when the NIC was given up.
    pub fn hung_up(&self) -> Result<bool> {
        let frontend = self.frontend.as_ref().context("the NIC was given up")?;
        let epoll = Epoll::new()?;
        epoll.ctl(ControlOperation::Add, frontend.as_raw_fd(), EpollEvent::new(EventSet::HANG_UP, 0))?;
        Ok(epoll.wait(0, &mut [EpollEvent::default()])? > 0)
    }

    /// What it does when the back-end has hung up; returns when everything is set up again.
    ///
    /// # Errors
    ///
    /// Fails when [`LATCH`] has passed; nothing brings the NIC back then.
    pub fn reconnect(&mut self) -> Result<()> {
        self.frontend = None;
        let start = Instant::now();
        loop {
            let done = self.connect(true).and_then(|frontend| self.reinitialize(frontend));
            match done {
                Ok(frontend) => self.frontend = Some(frontend),
                // The back-end that is about to end may accept once more.
                Err(_) if start.elapsed() < LATCH => continue,
                Err(error) => return Err(error.context("the NIC is given up")),
            }
            return Ok(());
        }
    }

    fn reinitialize(&mut self, mut frontend: Frontend) -> Result<Frontend> {
        frontend.set_owner()?;
        frontend.get_features()?;
        frontend.set_protocol_features(self.protocol)?;
        self.ask_for_answers(&frontend);
        let frontend = self.set_up(frontend, true)?;
        if self.spec.newest {
            self.pairs.iter_mut().try_for_each(|pair| {
                [pair.rx().kick.write(1), pair.tx().kick.write(1)].into_iter().collect::<io::Result<()>>()
            })?;
        }
        Ok(frontend)
    }

    /// `setup_vhost_user`.
    fn set_up(&mut self, mut frontend: Frontend, again: bool) -> Result<Frontend> {
        // It answers for the MAC address itself.
        frontend.set_features(self.features & !bits(&[net::VIRTIO_NET_F_MAC]))?;
        let mut regions = self.memory.regions()?;
        regions.extend(self.plugged.iter().map(|(region, _)| *region));
        frontend.set_mem_table(&regions)?;
        let replay = again && self.spec.newest && self.features & bits(&[VIRTIO_F_IN_ORDER]) != 0;
        let rings = self.pairs.iter_mut().flat_map(Peer::rings);
        let rings: Vec<_> = rings.collect();
        for (index, ring) in rings.iter().enumerate() {
            frontend.set_vring_num(index, ring.config().queue_size)?;
        }
        for (index, ring) in rings.iter().enumerate() {
            frontend.set_vring_addr(index, &ring.config())?;
            frontend
                .set_vring_base(index, if replay { ring.used_index()? } else { ring.available_index()? })?;
            frontend.set_vring_call(index, &ring.call)?;
            frontend.set_vring_kick(index, &ring.kick)?;
        }
        for index in 0..rings.len() {
            frontend.set_vring_enable(index, true)?;
        }
        Ok(frontend)
    }

    fn ask_for_answers(&self, frontend: &Frontend) {
        if self.protocol.contains(Protocol::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
    }

    /// `connect_vhost_user`; `again`: its own socket of last time is in the way.
    fn connect(&self, again: bool) -> Result<Frontend> {
        let stream = if self.spec.listens { self.accept(again)? } else { self.reach()? };
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Frontend::from_stream(stream, u64::try_from(2 * self.spec.pairs)?))
    }

    fn accept(&self, again: bool) -> Result<UnixStream> {
        if again {
            fs::remove_file(&self.socket)?;
        }
        let listener = UnixListener::bind(&self.socket)?;
        listener.set_nonblocking(true)?;
        // It would wait for ever; a test does not.
        let start = Instant::now();
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < LATCH => {
                    sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn reach(&self) -> Result<UnixStream> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(_) if start.elapsed() < LATCH => sleep(RETRY),
                Err(error) => bail!("Failed connecting the backend after trying for 1 minute: {error}"),
            }
        }
    }

    /// The queue pairs, of which each is a driver's.
    pub fn pairs(&mut self) -> &mut [Peer] {
        &mut self.pairs
    }

    /// virtio features that both sides agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// MAC, queue pairs and MTU, as the back-end's configuration space has them, if it was read.
    pub fn config(&self) -> Option<([u8; 6], u16, u16)> {
        let space = self.config.as_ref()?;
        let word = |at: usize| Some(u16::from_le_bytes([*space.get(at)?, *space.get(at + 1)?]));
        Some((*space.first_chunk()?, word(8)?, word(10)?))
    }
}

const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Its mask of virtio features (`Net::new`, `DEFAULT_VIRTIO_FEATURES`).
fn available(spec: Spec) -> u64 {
    let mut features = bits(&[
        VIRTIO_F_VERSION_1,
        VIRTIO_F_IN_ORDER,
        VIRTIO_F_ORDER_PLATFORM,
        NOTIFICATION_DATA,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_RING_F_INDIRECT_DESC,
        net::VIRTIO_NET_F_CSUM,
        net::VIRTIO_NET_F_GUEST_CSUM,
        net::VIRTIO_NET_F_GUEST_TSO4,
        net::VIRTIO_NET_F_GUEST_TSO6,
        net::VIRTIO_NET_F_GUEST_ECN,
        net::VIRTIO_NET_F_GUEST_UFO,
        net::VIRTIO_NET_F_HOST_TSO4,
        net::VIRTIO_NET_F_HOST_TSO6,
        net::VIRTIO_NET_F_HOST_ECN,
        net::VIRTIO_NET_F_HOST_UFO,
        net::VIRTIO_NET_F_MRG_RXBUF,
        net::VIRTIO_NET_F_CTRL_VQ,
        net::VIRTIO_NET_F_MAC,
        net::VIRTIO_NET_F_MTU,
    ]) | PROTOCOL_FEATURES;
    if spec.pairs > 1 {
        features |= bits(&[net::VIRTIO_NET_F_MQ]);
    }
    features
}

/// Its mask of vhost-user protocol features.
fn protocol(spec: Spec) -> Protocol {
    let first = Protocol::MQ
        | Protocol::CONFIGURE_MEM_SLOTS
        | Protocol::REPLY_ACK
        | Protocol::INFLIGHT_SHMFD
        | Protocol::LOG_SHMFD;
    if spec.newest { first | Protocol::CONFIG | Protocol::DEVICE_STATE } else { first }
}
