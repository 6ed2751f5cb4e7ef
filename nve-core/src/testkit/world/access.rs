//! What a test sees of a world, and what it changes in one.
//!
//! What must stay true: looking changes nothing; names that are not in the plan fail the test.

use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use super::{Event, RING_DELAY, World};
use crate::counters::PortTotals;
use crate::gateway::GATEWAY_MAC;
use crate::packet::Offload;
use crate::pipeline::{Nve, Receiver};
use crate::redirect::{Outcome, Policy};
use crate::setup::{Setup, SetupError};
use crate::testkit::audit::Verified;
use crate::testkit::control::Control;
use crate::testkit::fabric::{Filter, Link};
use crate::testkit::frames;
use crate::testkit::guest::Guest;
use crate::testkit::host::Host;
use crate::testkit::recorder::{Direction, Place, Record};

impl World {
    /// Virtual time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// # Panics
    /// If there is none of this name.
    pub(in crate::testkit) fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("no host {name:?}"))
    }
    pub(in crate::testkit) fn guest_index(&self, name: &str) -> usize {
        let at = self.guests.iter().position(|guest| guest.name == name);
        at.unwrap_or_else(|| panic!("no guest {name:?}"))
    }
    /// A guest.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn guest(&self, name: &str) -> &Guest {
        &self.guests[self.guest_index(name)]
    }
    /// A host's NVE.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn nve(&self, host: &str) -> &Arc<Nve> {
        &self.host(host).nve
    }
    /// A guest's counters at its NVE.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn counters(&self, guest: &str) -> PortTotals {
        let host = &self.hosts[self.guest(guest).host.0];
        let found = host.nve.counters().ports.into_iter().find(|(name, _)| name == guest);
        found.map(|(_, totals)| totals).unwrap_or_default()
    }
    /// A host's link: MTU, delay, loss. The host itself does not notice a change.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn link(&mut self, host: &str) -> &mut Link {
        let id = self.host(host).id;
        &mut self.fabric.links[id.0]
    }
    /// The fabric's routers, in a row.
    pub fn routers(&self) -> &[Ipv6Addr] {
        &self.fabric.routers
    }
    /// Routes `prefix/len` to this host.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn route(&mut self, prefix: Ipv6Addr, len: u8, host: &str) {
        let id = self.host(host).id;
        self.fabric.route(prefix, len, id);
    }
    /// Makes the routers forget `prefix/len`.
    pub fn unroute(&mut self, prefix: Ipv6Addr, len: u8) {
        self.fabric.unroute(prefix, len);
    }
    /// Lets `filter` see every packet at the first router, and lose those it wants to.
    pub fn filter(&mut self, filter: Filter) {
        self.fabric.filter = Some(filter);
    }
    /// What verified on the fabric so far. What does not verify fails the test on the spot.
    pub fn verified(&self) -> Verified {
        self.audit.verified
    }
    /// Judges a packet as if it were on a link: one that a test put together from fragments there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge_on_link(&mut self, packet: &[u8]) -> Result<(), String> {
        self.audit.judge(packet, Offload::NONE)
    }
    /// Lets bad transport checksums cross the fabric: this test sends them on purpose.
    pub fn expect_bad_checksums(&mut self) {
        self.audit.lenient = true;
    }

    /// Changes what a host's operator wrote and applies it, as a reload does.
    ///
    /// # Errors
    /// The setup was refused; nothing has changed.
    ///
    /// # Panics
    /// If there is none of this name, or the NVE has no room for it.
    pub fn reload(&mut self, host: &str, change: impl FnOnce(&mut Setup)) -> Result<(), SetupError> {
        let id = self.host(host).id;
        let host = &mut self.hosts[id.0];
        let mut setup = host.setup.clone();
        change(&mut setup);
        host.nve.apply(setup.clone().check()?).expect("room for a scenario's mappings");
        host.setup = setup;
        Ok(())
    }
    /// What a host tells and hears of redirects from now on.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn redirects(&mut self, host: &str, policy: Policy) {
        let id = self.host(host).id;
        self.hosts[id.0].nve.want_triangles(policy.send);
        self.hosts[id.0].control.policy = policy;
    }
    /// How often a redirect came to this at a host.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn redirected(&self, host: &str, outcome: Outcome) -> u64 {
        self.host(host).control.tally.of(outcome)
    }
    /// What every host's clock says, since 1970.
    pub fn unix(&self) -> Duration {
        Control::at(self.now).unix
    }
    /// What resolvers on the host's side answer from now on: of a server's address and a question, the answer, at once or never.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn resolver(&mut self, host: &str, resolver: fn(SocketAddr, &[u8]) -> Option<Vec<u8>>) {
        let id = self.host(host).id;
        self.hosts[id.0].resolver = resolver;
    }
    /// Lets a host's gateway say what it has to say unasked at this moment.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn tick(&mut self, host: &str) {
        let id = self.host(host).id;
        for made in self.hosts[id.0].tick(self.now) {
            self.perform(id, made);
        }
    }
    /// Moves a guest, its stack and its connections, to the attachment of its name on `host`, as a live migration does: it stops there and
    /// goes on here. What the NVE there is told of its rings is the caller's (`Nve::started`).
    ///
    /// # Panics
    /// If there is none of this name, or no such attachment there.
    pub fn migrate(&mut self, guest: &str, host: &str) {
        let (index, id) = (self.guest_index(guest), self.host(host).id);
        self.set_up(guest, false);
        let port =
            self.hosts[id.0].nve.port(guest).unwrap_or_else(|| panic!("{host} has no attachment {guest}"));
        (self.guests[index].host, self.guests[index].port) = (id, port);
        self.set_up(guest, true);
    }
    /// Tells a guest's NVE whether its receive ring runs.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn set_up(&mut self, guest: &str, up: bool) {
        let guest = self.guest(guest);
        let receiver = Receiver { up, ..guest.receives };
        self.hosts[guest.host.0].nve.set_receiver(guest.port, receiver);
    }

    /// Sends a frame from a guest, as it is.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn send_frame(&mut self, guest: &str, frame: Vec<u8>, offload: Offload) {
        let index = self.guest_index(guest);
        self.guests[index].device.outbox.push((frame, offload));
    }
    /// Sends an IP packet from a guest to the gateway's MAC.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn send(&mut self, guest: &str, packet: &[u8], offload: Offload) {
        let frame = frames::ethernet(self.guest(guest).mac, GATEWAY_MAC, packet);
        self.send_frame(guest, frame, offload);
    }
    /// Puts a packet on the fabric as if a host of the Internet had sent it to `host`'s card, behind the routers.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn send_to_host(&mut self, host: &str, packet: Vec<u8>) {
        let id = self.host(host).id;
        self.schedule(RING_DELAY, Event::Foreign(id, packet));
    }

    /// A point in the record, to look at what came after it.
    pub fn mark(&self) -> usize {
        self.recorder.records().len()
    }
    /// Frames a guest received since `mark`.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn received(&self, guest: &str, mark: usize) -> Vec<&Record> {
        self.records(self.guest(guest).place, Direction::Received, mark)
    }
    /// Packets a host put on its link since `mark`.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn sent_on_link(&self, host: &str, mark: usize) -> Vec<&Record> {
        self.records(self.host(host).place, Direction::Sent, mark)
    }
    /// Packets that reached a host's link since `mark`.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn received_on_link(&self, host: &str, mark: usize) -> Vec<&Record> {
        self.records(self.host(host).place, Direction::Received, mark)
    }
    fn records(&self, place: Place, direction: Direction, mark: usize) -> Vec<&Record> {
        let wanted = |record: &&Record| record.place == place && record.direction == direction;
        self.recorder.records().iter().skip(mark).filter(wanted).collect()
    }

    /// Writes what was seen so far, as a failing test would; tells where.
    ///
    /// # Errors
    /// Of the file system.
    pub fn save_capture(&self) -> std::io::Result<std::path::PathBuf> {
        let path = self.recorder.path();
        self.recorder.save(&path).map(|()| path)
    }

    /// A host's locator, its low 64 bits zero.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn locator_of(&self, host: &str) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.host(host).control.address.to_bits() >> 64 << 64)
    }
}
