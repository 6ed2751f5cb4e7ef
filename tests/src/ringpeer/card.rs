//! A card of several queue pairs, each a [`Peer`] of its own over one memory, and of a control queue that it may pass on.
//!
//! ```text
//!   pairs[0]: ring 0, 1   pairs[1]: ring 2, 3   ...   control: the ring behind the last pair that the daemon offers
//! ```

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vhost_frontend::VhostBackend;
use vhost_frontend::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost_frontend::vhost_user::{Frontend, VhostUserFrontend};
use virtio_bindings::virtio_net as net;
use vm_memory::{Bytes, GuestAddress};

use super::memory::Memory;
use super::ring::{Part, Ring};
use super::{Frame, LIMIT, Options, PROTOCOL_FEATURES, Peer, bits, connect, wait};

/// Who serves the card's control queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// We do, and tell the daemon which pairs are enabled: as QEMU, cloud-hypervisor and DPDK.
    Ours,
    /// The daemon: as crosvm.
    PassedOn,
}

/// The card, attached.
pub struct Card {
    pairs: Vec<Peer>,
    /// The control queue, and where commands and answers lie.
    control: Option<(Ring, GuestAddress)>,
    features: u64,
    frontend: Frontend,
    /// Pairs that the daemon offers.
    pub offered: u64,
}

/// A front-end that has agreed with the daemon on the features `wanted`, and on all of the protocol that a card uses.
fn negotiate(stream: UnixStream, wanted: u64) -> Result<Frontend> {
    let mut frontend = Frontend::from_stream(stream, MAX_RINGS);
    let offered = frontend.get_features()?;
    ensure!(wanted & !offered == 0, "features {:#x} are not offered", wanted & !offered);
    frontend.get_protocol_features()?;
    frontend.set_features(wanted)?;
    frontend.set_protocol_features(
        VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS,
    )?;
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    Ok(frontend)
}

/// More rings than any device has here.
const MAX_RINGS: u64 = 256;

impl Card {
    /// Attaches a card of `pairs` pairs to the daemon that listens on `socket`; the first pair is in use.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses, or lacks a wanted feature or pair.
    pub fn connect(socket: &Path, mut options: Options, pairs: u16, control: Control) -> Result<Card> {
        let stream = connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let commands = match control {
            Control::Ours => 0,
            Control::PassedOn => bits(&[net::VIRTIO_NET_F_CTRL_VQ, net::VIRTIO_NET_F_GUEST_ANNOUNCE]),
        };
        options.features |= commands | bits(&[net::VIRTIO_NET_F_MQ]);
        let wanted = options.features | PROTOCOL_FEATURES;
        // It takes the answer for a number of rings, and would let us have no more of them.
        let offered = negotiate(stream.try_clone()?, wanted)?.get_queue_num()?;
        ensure!(u64::from(pairs) <= offered, "{offered} pairs are offered");
        let frontend = negotiate(stream, wanted)?;
        frontend.set_owner()?;
        let mut memory = Memory::new()?;
        let mut card = Card { pairs: Vec::new(), control: None, features: wanted, frontend, offered };
        for _ in 0..pairs {
            let mut pair = Peer::in_memory(memory, options)?;
            // It has taken its part of it.
            memory = pair.memory().clone();
            card.pairs.push(pair);
        }
        if control == Control::PassedOn {
            let ring = Ring::new(&mut memory, 64, wanted)?;
            card.control = Some((ring, memory.for_buffers(0x1000)?));
        }
        card.frontend.set_mem_table(&memory.regions()?)?;
        card.start()?;
        Ok(card)
    }

    /// The driver starts: features, and every ring where [`Ring::base`] says; the first pair is in use.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses.
    pub fn start(&mut self) -> Result<()> {
        self.frontend.set_features(self.features)?;
        let enabled = if self.control.is_some() { self.pairs.len() } else { 1 };
        for index in 0..2 * enabled {
            self.frontend.set_vring_enable(index, true)?;
        }
        let rings = self.pairs.iter_mut().flat_map(Peer::rings).enumerate();
        let control = usize::try_from(2 * self.offered)?;
        if self.control.is_some() {
            self.frontend.set_vring_enable(control, true)?;
        }
        for (index, ring) in rings.chain(self.control.as_mut().map(|(ring, _)| (control, ring))) {
            let config = ring.config();
            self.frontend.set_vring_num(index, config.queue_size)?;
            self.frontend.set_vring_base(index, ring.base()?)?;
            self.frontend.set_vring_addr(index, &config)?;
            self.frontend.set_vring_kick(index, &ring.kick)?;
            self.frontend.set_vring_call(index, &ring.call)?;
            ring.kick.write(1)?;
        }
        Ok(())
    }

    /// The driver uses the first `pairs` from now on.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses.
    pub fn use_pairs(&mut self, pairs: u16) -> Result<()> {
        if self.control.is_some() {
            let answer = self.command(&[&[4, 0], &pairs.to_le_bytes()[..]].concat())?;
            ensure!(answer == 0, "{pairs} pairs are refused");
            return Ok(());
        }
        (0..2 * self.pairs.len())
            .try_for_each(|ring| Ok(self.frontend.set_vring_enable(ring, ring < 2 * usize::from(pairs))?))
    }

    /// Sends a command (class, code, data) and waits for its answer: 0 if it was carried out.
    ///
    /// # Errors
    ///
    /// Fails when none comes, or the control queue is ours.
    pub fn command(&mut self, bytes: &[u8]) -> Result<u8> {
        let (ring, at) = self.control.as_mut().context("the control queue is ours")?;
        let memory = self.pairs[0].memory().map.clone();
        let answer = GuestAddress(at.0 + 0x800);
        memory.write_slice(bytes, *at)?;
        memory.write_obj(0xffu8, answer)?;
        let command = Part { address: *at, length: u32::try_from(bytes.len())?, writable: false };
        ring.add(&[command, Part { address: answer, length: 1, writable: true }])?;
        ring.publish()?;
        let start = Instant::now();
        while ring.take_used()?.is_none() {
            wait(&ring.call, start, LIMIT).context("the command is not answered")?;
        }
        Ok(memory.read_obj(answer)?)
    }

    /// The control queue, to be written to as no driver does.
    ///
    /// # Errors
    ///
    /// Fails when it is not passed on.
    pub fn control(&mut self) -> Result<&mut Ring> {
        self.control.as_mut().map(|(ring, _)| ring).context("the control queue is ours")
    }

    /// For messages of other kinds.
    pub fn frontend(&mut self) -> &mut Frontend {
        &mut self.frontend
    }

    /// Pair `pair`, to send by it and to receive from it.
    pub fn pair(&mut self, pair: usize) -> &mut Peer {
        &mut self.pairs[pair]
    }

    /// The next `count` frames on any of its rings, each with its pair; fewer where no more come for `quiet`.
    ///
    /// # Errors
    ///
    /// As [`Peer::receive`].
    pub fn receive(&mut self, count: usize, quiet: Duration) -> Result<Vec<(usize, Frame)>> {
        let mut frames = Vec::new();
        let mut last = Instant::now();
        while frames.len() < count && last.elapsed() < quiet {
            for (pair, peer) in self.pairs.iter_mut().enumerate() {
                while let Some(frame) = peer.receive(Duration::from_millis(1))? {
                    frames.push((pair, frame));
                    last = Instant::now();
                }
            }
        }
        Ok(frames)
    }
}
