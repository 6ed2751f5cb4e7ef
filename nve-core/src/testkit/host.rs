//! A host: its NVE, and the kernel around the TUN device, which is a router of its own.
//!
//! What must stay true: the kernel spends one hop on the way out and one on the way in, as a real one forwarding between TUN and NIC
//! does; it knows SIR and VN prefixes as routes to the TUN, and nothing else about ILA.
//!
//! ```text
//!   guests ── walk ── TUN ── kernel: hop limit, MTU, card ── link      and the same backwards
//! ```

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use super::control::Control;
use super::dissect::Dissected;
use super::fabric::{Crossing, HostId, Trouble};
use super::nic;
use super::recorder::Place;
use crate::DropReason;
use crate::gateway::dns::{Errand, Heard};
use crate::packet::Offload;
use crate::pipeline::{CarryOut, Nve, Origin, Outcome, PortId, Receiver, Scratch, Walker};
use crate::punt::{Desks, Outbox, Punted};
use crate::setup::Setup;

/// Identifiers a host has room for.
const MAPPING_CAPACITY: usize = 1024;

/// An [`Outcome`] that stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Made {
    Local(PortId, Vec<u8>, Offload),
    Uplink(Vec<u8>, Offload),
    Reply(Vec<u8>, Option<DropReason>),
    Dropped(DropReason),
    /// From the control address, by the host's own kernel.
    Told(Vec<u8>),
}

pub(super) struct Host {
    pub(super) name: String,
    pub(super) id: HostId,
    pub(super) nve: Arc<Nve>,
    pub(super) place: Place,
    /// As last applied.
    pub(super) setup: Setup,
    /// `locator::1`, what its kernel calls itself, and who listens there.
    pub(super) control: Control,
    pub(super) mtu: usize,
    /// The card finishes what was left to it; otherwise the receiver's does.
    pub(super) card_finishes: bool,
    walker: Walker,
    carry_out: CarryOut,
    desks: Desks,
    /// What resolvers on the host's side answer, by their address.
    pub(super) resolver: fn(SocketAddr, &[u8]) -> Option<Vec<u8>>,
}

impl Host {
    pub(super) fn new(
        name: String,
        (id, place): (HostId, Place),
        setup: Setup,
        (control, mtu, card_finishes): (Ipv6Addr, usize, bool),
    ) -> Self {
        let checked = setup.clone().check().unwrap_or_else(|error| panic!("{name}: {error}"));
        let nve = Nve::new(checked, MAPPING_CAPACITY);
        if !card_finishes {
            let all = Receiver { uso: true, ..Receiver::KERNEL };
            nve.set_receiver(PortId::FABRIC, all);
        }
        let walker = Walker::new(Arc::clone(&nve));
        let control = Control::new(control, &nve);
        let mut identification = id.0 as u16;
        let random = move || {
            identification = identification.wrapping_mul(25_173).wrapping_add(13_849);
            identification
        };
        let desks = Desks::new(Arc::clone(&nve), id.0 as u64, Box::new(random));
        Self {
            name,
            id,
            nve,
            place,
            setup,
            control,
            mtu,
            card_finishes,
            walker,
            carry_out: CarryOut::default(),
            desks,
            resolver: |_, _| None,
        }
    }

    /// Takes one frame or packet through the walk.
    pub(super) fn walk(
        &mut self,
        now: Duration,
        origin: Origin,
        bytes: &[u8],
        offload: Offload,
    ) -> Vec<Made> {
        let mut made = Vec::new();
        let mut said = Outbox::default();
        let desks = &mut self.desks;
        self.walker.begin(now);
        self.carry_out.carry_out(&mut self.walker, origin, bytes, offload, &mut |outcome| {
            made.push(match outcome {
                Outcome::Local(port, bytes, offload) => Made::Local(port, bytes.to_vec(), offload),
                Outcome::Uplink(bytes, offload) => Made::Uplink(bytes.to_vec(), offload),
                Outcome::Reply(bytes, reason) => Made::Reply(bytes.to_vec(), reason),
                Outcome::Dropped(reason) => Made::Dropped(reason),
                Outcome::Punted(desk, frame) => {
                    let Origin::Port(port) = origin else { panic!("{desk:?} is asked by the fabric") };
                    return desks.take(now, &Punted { port, desk, frame }, &mut said);
                }
            });
        });
        while let Some(triangle) = self.walker.next_triangle() {
            made.extend(self.control.tell(now, triangle).map(Made::Told));
        }
        made.extend(self.said(now, said));
        made
    }

    /// What the slow path has to do now.
    pub(super) fn desks(&mut self, now: Duration) -> Vec<Made> {
        let mut said = Outbox::default();
        self.desks.tick(now, &mut said);
        let mut made = self.said(now, said);
        made.extend(self.control.herald(now).into_iter().map(Made::Told));
        made
    }

    /// When that is again.
    pub(super) fn desks_due(&self, now: Duration) -> Option<Duration> {
        let desks = self.desks.until_tick(now).map(|wait| now + wait);
        desks.into_iter().chain(self.control.herald_due()).min()
    }

    fn said(&mut self, now: Duration, mut said: Outbox) -> Vec<Made> {
        // Resolvers answer at once or never; an answer may bring another errand, to another server.
        let mut done = 0;
        while let Some(errand) = said.errands.get(done).cloned() {
            done += 1;
            if let Errand::Send { token, server, message } = errand
                && let Some(answer) = (self.resolver)(server, &message)
            {
                self.desks.heard(now, token, Heard::Datagram(server, answer), &mut said);
            }
        }
        let walker = &mut self.walker;
        let delivered = said.frames.into_iter().map(|(port, frame)| {
            walker.delivered(Origin::Port(port), 1, frame.len() as u64);
            Made::Local(port, frame, Offload::NONE)
        });
        delivered.collect()
    }

    /// What the gateway says unasked.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Made> {
        let mut scratch = Scratch::default();
        self.walker.begin(now);
        let said = core::iter::from_fn(|| {
            let (port, said) = self.walker.tick(&mut scratch)?;
            Some(Made::Local(port, scratch.head[said.head].to_vec(), Offload::NONE))
        });
        said.collect()
    }

    /// Out of the TUN, through the kernel and the card: what reaches the link.
    ///
    /// # Panics
    /// If the card would have corrupted it.
    pub(super) fn leave(&self, mut bytes: Vec<u8>, offload: Offload) -> Result<Vec<Crossing>, Trouble> {
        let view = Dissected::of_ip(&bytes).filter(|ip| ip.version == 6 && ip.total_len == bytes.len());
        let view = view.unwrap_or_else(|| panic!("{}: no IPv6 packet into the TUN: {bytes:02x?}", self.name));
        if let Err(complaint) = nic::check_seed(&view, offload) {
            panic!("{}: into the TUN: {complaint}", self.name);
        }
        if nic::largest_packet(&bytes, offload) > self.mtu {
            return Err(Trouble::new(
                self.control.address,
                bytes,
                2,
                0,
                self.mtu as u32,
                "too big for the link",
            ));
        }
        spend_a_hop(self.control.address, &mut bytes)?;
        if !self.card_finishes {
            return Ok(vec![Crossing { bytes, offload }]);
        }
        match nic::finish(&bytes, offload) {
            Ok(packets) => {
                Ok(packets.into_iter().map(|bytes| Crossing { bytes, offload: Offload::NONE }).collect())
            }
            Err(complaint) => panic!("{}: the card: {complaint}", self.name),
        }
    }

    /// From the link through the kernel into the TUN.
    pub(super) fn enter(&self, crossing: &mut Crossing) -> Result<(), Trouble> {
        spend_a_hop(self.control.address, &mut crossing.bytes)
    }

    /// Whether its kernel's main table routes `destination` to the TUN: SIR and VN prefixes.
    pub(super) fn routes_to_tun(&self, destination: IpAddr) -> bool {
        let IpAddr::V6(destination) = destination else { return false };
        let world = self.nve.world();
        let upper = (destination.to_bits() >> 64) as u64;
        world.domain_called(upper).is_some() || world.network_of_address(destination).is_some()
    }
}

/// What forwarding costs (RFC 8200, 3): a packet that cannot pay is answered.
fn spend_a_hop(router: Ipv6Addr, bytes: &mut Vec<u8>) -> Result<(), Trouble> {
    match bytes.get_mut(7) {
        Some(hop_limit) if *hop_limit > 1 => {
            *hop_limit -= 1;
            Ok(())
        }
        _ => Err(Trouble::new(router, core::mem::take(bytes), 3, 0, 0, "hop limit used up in a host")),
    }
}
