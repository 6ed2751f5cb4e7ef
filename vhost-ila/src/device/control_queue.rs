//! The control queue, for front-ends that pass it on (virtio 1.2, 5.1.6.5); QEMU, cloud-hypervisor and DPDK serve it themselves and tell
//! us the outcome by SET_VRING_ENABLE.
//!
//! What must stay true: every command is answered, OK only if it was carried out; commands are bounded per turn; the number of pairs
//! is 1 ..= what the device offers.

use std::sync::Arc;

use super::handover::Events;
use super::ring::{Command, ControlRing, RingFault};
use super::status::Status;

/// Commands served in one turn.
const COMMANDS: usize = 16;

// Classes and commands of 5.1.6.5.
const MQ: u8 = 4;
const VQ_PAIRS_SET: u8 = 0;
const ANNOUNCE: u8 = 3;
const ANNOUNCE_ACK: u8 = 0;
// Answers.
const OK: u8 = 0;
const ERR: u8 = 1;

/// A running control queue and what belongs to it.
#[derive(Debug)]
pub struct ControlQueue {
    /// The ring.
    pub ring: ControlRing,
    /// Its descriptors.
    pub events: Events,
    /// What the guest may command.
    pub powers: Powers,
    /// Pairs that frames are steered to: one until the guest asks for more.
    pub pairs: u8,
    /// Set once it is broken; it is then left alone.
    pub fault: Option<RingFault>,
    /// Where that is shown.
    pub status: Arc<Status>,
}

/// What was negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Powers {
    /// Most pairs.
    pub pairs: u8,
    /// VIRTIO_NET_F_MQ.
    pub multiqueue: bool,
    /// VIRTIO_NET_F_GUEST_ANNOUNCE.
    pub announce: bool,
}

impl ControlQueue {
    /// Serves what there is, a few commands at most; how many. They are to be published then, whatever the second says.
    ///
    /// # Errors
    /// The ring's, found behind the commands that were served.
    pub fn serve(&mut self) -> (usize, Result<(), RingFault>) {
        for served in 0..COMMANDS {
            let command = match self.ring.take() {
                Ok(Some(command)) => command,
                Ok(None) => return (served, Ok(())),
                Err(fault) => return (served, Err(fault)),
            };
            let done = self.obey(&command);
            if let Err(fault) = self.ring.answer(if done { OK } else { ERR }) {
                return (served, Err(fault));
            }
            let uses = &self.status.uses;
            uses.control_commands.add(1);
            uses.control_commands_refused.add(u64::from(!done));
        }
        (COMMANDS, Ok(()))
    }

    /// Whether the command was one of ours, and was carried out.
    fn obey(&mut self, command: &Command) -> bool {
        match command.bytes() {
            [MQ, VQ_PAIRS_SET, low, high] => self.set_pairs(u16::from_le_bytes([*low, *high])),
            [ANNOUNCE, ANNOUNCE_ACK] if self.powers.announce => {
                self.status.uses.announcements_acknowledged.add(1);
                true
            }
            _ => false,
        }
    }

    fn set_pairs(&mut self, pairs: u16) -> bool {
        match u8::try_from(pairs) {
            Ok(pairs) if self.powers.multiqueue && (1..=self.powers.pairs).contains(&pairs) => {
                self.pairs = pairs;
                true
            }
            _ => false,
        }
    }
}
