//! The world itself: who is in it, what time it is, and what happens next.
//!
//! What must stay true: one thing happens at a time, in the order of virtual time and then of being scheduled, so a seed repeats a
//! world exactly; nothing arrives in the instant it was sent, so time moves on.

use core::time::Duration;
use std::collections::BTreeMap;

use super::audit::{Audit, Verified};
use super::dice::Dice;
use super::fabric::{Crossing, Fabric, HostId, Passage, Trouble};
use super::guest::{Guest, Plug};
use super::host::{Host, Made};
use super::plan::Plan;
use super::recorder::{Direction, Place, Recorder};
use crate::packet::Offload;
use crate::pipeline::{Origin, PortId};

mod access;

/// How long a frame takes between a guest and its NVE.
const RING_DELAY: Duration = Duration::from_micros(5);
/// When a world begins.
const BEGINNING: Duration = Duration::from_secs(1);

/// What is going to happen.
enum Event {
    /// A frame reaches a guest's device.
    Frame(usize, Vec<u8>, Offload),
    /// A packet reaches a host's card.
    Packet(HostId, Crossing),
    /// A packet that no NVE made reaches a host's card: nobody judges it.
    Foreign(HostId, Vec<u8>),
    /// The kernel puts a packet of its own into its TUN.
    OwnPacket(HostId, Crossing),
}

/// Several NVEs, their guests and the fabric between them, in virtual time. Made by [`Plan::start`].
///
/// When a test fails with one alive, everything it saw is written to `target/testkit/NAME.pcapng`, NAME being the test's.
pub struct World {
    now: Duration,
    /// By time, then by order of scheduling.
    events: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    pub(super) dice: Dice,
    hosts: Vec<Host>,
    pub(super) guests: Vec<Guest>,
    fabric: Fabric,
    audit: Audit,
    recorder: Recorder,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let name = std::thread::current().name().unwrap_or("world").to_owned();
        let prefix = |host: &super::plan::HostPlan| host.locator.upper();
        let mut world = Self {
            now: BEGINNING,
            events: BTreeMap::new(),
            scheduled: 0,
            dice: Dice::new(plan.seed),
            hosts: Vec::new(),
            guests: Vec::new(),
            fabric: Fabric::new(plan.routers),
            audit: Audit {
                locators: plan.hosts.iter().map(prefix).collect(),
                sir: plan.sir.upper(),
                networks: plan
                    .networks
                    .iter()
                    .filter_map(|n| Some((n.vnid.get(), n.ipv6?.prefix().to_bits())))
                    .collect(),
                verified: Verified::default(),
                lenient: false,
            },
            recorder: Recorder::new(name),
        };
        world.add_hosts(&plan);
        world.add_guests(&plan);
        world
    }

    fn add_hosts(&mut self, plan: &Plan) {
        for host in &plan.hosts {
            let id = self.fabric.attach(host.link);
            let place = self.recorder.link(&host.name);
            self.fabric.route(host.locator.prefix(), 64, id);
            let card = (host.locator.control_address(), host.link.mtu, !plan.fabric_offloads);
            self.hosts.push(Host::new(host.name.clone(), (id, place), plan.setup(host), card));
        }
        // What is addressed to tenants as they call themselves goes to some NVE (draft, 4.6): the first, unless a test says otherwise.
        if let Some(first) = self.hosts.first().map(|host| host.name.clone()) {
            self.route_tenants_to(&first, plan);
        }
    }

    fn route_tenants_to(&mut self, host: &str, plan: &Plan) {
        let id = self.host(host).id;
        self.fabric.route(plan.sir.prefix(), 64, id);
        plan.networks
            .iter()
            .filter_map(|network| network.ipv6)
            .for_each(|vnet| self.fabric.route(vnet.prefix(), 96, id));
    }

    fn add_guests(&mut self, plan: &Plan) {
        for guest in &plan.guests {
            let host = self.host(&guest.host);
            let port = host.nve.port(&guest.name).expect("every attachment has a port");
            let (id, mtu) = (host.id, host.nve.mtu(port));
            host.nve.set_receiver(port, guest.receives);
            let network = plan.networks.iter().find(|network| network.name == guest.network);
            let place = self.recorder.guest(&guest.name);
            let seed = self.dice.roll();
            let plug = Plug { host: id, port, place, mtu, lent: plan.lent(guest) };
            self.guests.push(Guest::new(guest, network, plug, seed, self.now));
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + delay, self.scheduled), event);
    }

    /// Lets time pass until `done`, which is asked after every instant and may act on the world; false after `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.let_happen();
            if done(self) {
                return true;
            }
            let now = self.now;
            let event = self.events.keys().next().map(|(at, _)| *at);
            let stack = self.guests.iter_mut().filter_map(|guest| guest.due(now)).min();
            let desks = self.hosts.iter().filter_map(|host| host.desks_due(now)).min();
            let next = event.into_iter().chain(stack).chain(desks).min().unwrap_or(end);
            // A stack that wants to be polled at once still waits a moment: time moves on.
            self.now = next.max(now + Duration::from_micros(1));
            if self.now > end {
                self.now = end;
                return false;
            }
        }
    }
    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Everything due in this instant.
    fn let_happen(&mut self) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Event::Frame(guest, frame, offload) => self.frame_arrives(guest, frame, offload),
                Event::Packet(host, crossing) => self.packet_arrives(host, crossing),
                Event::Foreign(host, bytes) => self.foreign_packet_arrives(host, bytes),
                Event::OwnPacket(host, crossing) => self.enter_nve(host, &crossing, false),
            }
        }
        self.serve_desks();
        for index in 0..self.guests.len() {
            self.guests[index].poll(self.now);
            for (frame, offload) in core::mem::take(&mut self.guests[index].device.outbox) {
                self.frame_leaves(index, &frame, offload);
            }
        }
    }

    /// What the hosts' slow paths have to do in this instant.
    fn serve_desks(&mut self) {
        for index in 0..self.hosts.len() {
            for made in self.hosts[index].desks(self.now) {
                self.perform(HostId(index), made);
            }
        }
    }

    fn frame_leaves(&mut self, index: usize, frame: &[u8], offload: Offload) {
        let guest = &self.guests[index];
        let (host, origin, place) = (guest.host, Origin::Port(guest.port), guest.place);
        let made = self.hosts[host.0].walk(self.now, origin, frame, offload);
        let record = self.recorder.record(self.now, place, Direction::Sent, frame, offload);
        record.comment = reason_of(&made).map(|reason| format!("drop={reason}"));
        for made in made {
            match made {
                Made::Reply(bytes, _) => self.schedule(RING_DELAY, Event::Frame(index, bytes, Offload::NONE)),
                other => self.perform(host, other),
            }
        }
    }

    /// Through the TUN into the NVE. What the link's record should say of a drop there, it says.
    fn enter_nve(&mut self, host: HostId, crossing: &Crossing, recorded: bool) {
        let made = self.hosts[host.0].walk(self.now, Origin::Uplink, &crossing.bytes, crossing.offload);
        if let Some(reason) = reason_of(&made).filter(|_| recorded) {
            self.recorder.comment_last(self.hosts[host.0].place, &format!("drop={reason}"));
        }
        for made in made {
            match made {
                Made::Reply(bytes, _) => self.packet_leaves(host, bytes, Offload::NONE),
                other => self.perform(host, other),
            }
        }
    }

    fn perform(&mut self, host: HostId, made: Made) {
        match made {
            Made::Local(port, bytes, offload) => {
                let index = self.guest_of(host, port);
                self.schedule(RING_DELAY, Event::Frame(index, bytes, offload));
            }
            Made::Uplink(bytes, offload) => self.packet_leaves(host, bytes, offload),
            Made::Told(bytes) => self.cross(host, Crossing { bytes, offload: Offload::NONE }),
            Made::Reply(..) | Made::Dropped(_) => {}
        }
    }

    fn guest_of(&self, host: HostId, port: PortId) -> usize {
        let at = self.guests.iter().position(|guest| guest.host == host && guest.port == port);
        at.unwrap_or_else(|| panic!("delivered to {port:?}, which nobody is attached to"))
    }

    fn packet_leaves(&mut self, host: HostId, bytes: Vec<u8>, offload: Offload) {
        match self.hosts[host.0].leave(bytes, offload) {
            Ok(crossings) => crossings.into_iter().for_each(|crossing| self.cross(host, crossing)),
            Err(trouble) => self.complain(host, &trouble),
        }
    }

    fn cross(&mut self, host: HostId, crossing: Crossing) {
        let place = self.hosts[host.0].place;
        self.judge(place, Direction::Sent, &crossing);
        for passage in self.fabric.carry(&mut self.dice, host, crossing) {
            match passage {
                Passage::Arrives(to, delay, crossing) => self.schedule(delay, Event::Packet(to, crossing)),
                Passage::Lost(why) => self.recorder.comment_last(place, why),
            }
        }
    }

    fn packet_arrives(&mut self, host: HostId, crossing: Crossing) {
        self.judge(self.hosts[host.0].place, Direction::Received, &crossing);
        self.enter(host, crossing);
    }

    fn foreign_packet_arrives(&mut self, host: HostId, bytes: Vec<u8>) {
        let place = self.hosts[host.0].place;
        self.recorder.record(self.now, place, Direction::Received, &bytes, Offload::NONE);
        self.enter(host, Crossing { bytes, offload: Offload::NONE });
    }

    fn enter(&mut self, host: HostId, mut crossing: Crossing) {
        if self.hosts[host.0].control.hears(self.now, &crossing.bytes) {
            return;
        }
        match self.hosts[host.0].enter(&mut crossing) {
            Ok(()) => self.enter_nve(host, &crossing, true),
            Err(trouble) => self.complain(host, &trouble),
        }
    }

    /// Records a packet on a link and fails the test if it is not fit for one.
    fn judge(&mut self, place: Place, direction: Direction, crossing: &Crossing) {
        self.recorder.record(self.now, place, direction, &crossing.bytes, crossing.offload);
        if let Err(fault) = self.audit.judge(&crossing.bytes, crossing.offload) {
            self.recorder.comment_last(place, &fault);
            panic!("on the fabric: {fault}");
        }
    }

    /// A host's kernel sends an ICMPv6 error: into its own TUN for tenants, over the fabric for others.
    fn complain(&mut self, host: HostId, trouble: &Trouble) {
        let Some(message) = trouble.message() else { return };
        let destination = super::dissect::Dissected::of_ip(&message).map(|view| view.destination);
        let crossing = Crossing { bytes: message, offload: Offload::NONE };
        if destination.is_some_and(|destination| self.hosts[host.0].routes_to_tun(destination)) {
            self.schedule(RING_DELAY, Event::OwnPacket(host, crossing));
        } else {
            self.cross(host, crossing);
        }
    }

    fn frame_arrives(&mut self, index: usize, frame: Vec<u8>, offload: Offload) {
        let guest = &mut self.guests[index];
        let record = self.recorder.record(self.now, guest.place, Direction::Received, &frame, offload);
        if let Err(complaint) = guest.inspect(&frame, offload, self.audit.lenient) {
            record.comment = Some(complaint.clone());
            panic!("{}: {complaint}", guest.name);
        }
        guest.device.inbox.push_back((frame, offload));
    }
}

fn reason_of(made: &[Made]) -> Option<&'static str> {
    made.iter().find_map(|made| match made {
        Made::Dropped(reason) | Made::Reply(_, Some(reason)) => Some(reason.name()),
        _ => None,
    })
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            match self.save_capture() {
                Ok(path) => eprintln!("captured: {}", path.display()),
                Err(error) => eprintln!("no capture: {error}"),
            }
        }
    }
}
