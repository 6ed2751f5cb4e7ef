//! One worker's walk: pins the world for a batch, owns its counter cells, allowances and identification.
//!
//! What must stay true: nothing here is shared with another worker but through [`Nve`]; nothing allocates outside of [`Walker::new`] and the
//! first [`Walker::begin`] after a reload; every frame is counted once, however often it is brought again.

use core::time::Duration;
use std::sync::Arc;

use smoltcp::wire::EthernetAddress;

use super::homeward::{self, Homeward};
use super::outbound::{Asked, Half, Outbound, Roomy};
use super::question::{Form, Question, from_outside, from_tenant, from_wire};
use super::retrace::{Trace, Track};
use super::triangle::{Triangle, Triangles};
use super::walk::{Pending, Stop, Walk};
use super::{
    Again, Fate, Nve, Origin, PortId, Rewritten, Scratch, around, copies, decide, deliver, neighbour, refuse,
    rewrite4,
};
use crate::DropReason;
use crate::counters::{PortCounters, WorkerCells};
use crate::gateway::{self, GatewayContext, Limits};
use crate::packet::{Frame, HEAD_LEN, Offload};
use crate::policy::World;
use crate::tables::Groups;

/// One worker's side of an [`Nve`].
#[derive(Debug)]
pub struct Walker {
    nve: Arc<Nve>,
    world: Arc<World>,
    /// How often the world had changed before this one was pinned.
    changes: u64,
    /// The same of the mapping table.
    updates: u64,
    /// How often either had changed, counted here.
    era: u64,
    /// The last way from each port, by its number.
    traces: Vec<Trace>,
    /// The senders' halves of ways to the fabric, by port number.
    halves: Vec<Half>,
    /// The last ways from the fabric.
    homeward: Box<Homeward>,
    cells: Arc<WorkerCells>,
    /// By port number; numbers without an attachment have cells all the same.
    ports: Vec<Arc<PortCounters>>,
    /// By port number.
    limits: Vec<Limits>,
    uplink_limits: Limits,
    outside_limits: Limits,
    identification: u16,
    /// How many workers there are.
    workers: u16,
    groups: Arc<Groups>,
    turned: Box<[u8]>,
    pending: Option<Pending>,
    triangles: Triangles,
    now: Duration,
}

impl Walker {
    /// A walker for the only worker thread.
    pub fn new(nve: Arc<Nve>) -> Self {
        Self::among(nve, 0, 1)
    }

    /// A walker for worker `index` of so many; what the gateway grants is shared among them.
    pub fn among(nve: Arc<Nve>, index: u16, workers: u16) -> Self {
        let workers = workers.max(1);
        let limits = || Limits::shared_by(workers.into());
        let cells = nve.register_worker();
        let (changes, world) = (nve.world.changes(), nve.world());
        let mut walker = Self {
            nve,
            world,
            changes,
            updates: 0,
            era: 1,
            traces: Vec::new(),
            halves: Vec::new(),
            homeward: Box::default(),
            cells,
            ports: Vec::new(),
            limits: Vec::new(),
            uplink_limits: limits(),
            outside_limits: limits(),
            // As far from the others' as can be.
            identification: (u16::MAX / workers).wrapping_mul(index),
            workers,
            groups: Arc::default(),
            turned: vec![0; around::ROOM].into(),
            pending: None,
            triangles: Triangles::default(),
            now: Duration::ZERO,
        };
        walker.make_room();
        walker
    }

    /// Starts a batch: pins the world as it is now, and sets the time (since an epoch that all walkers of the NVE share).
    #[inline]
    pub fn begin(&mut self, now: Duration) {
        self.now = now;
        if self.nve.world.changes() != self.changes {
            self.pin();
        }
        let updates = self.nve.table.updates();
        if updates != self.updates {
            (self.updates, self.era) = (updates, self.era + 1);
        }
    }

    #[cold]
    fn pin(&mut self) {
        // In this order: a world that comes in between is pinned once more.
        self.changes = self.nve.world.changes();
        self.world = self.nve.world();
        self.era += 1;
        self.make_room();
    }

    /// Cells and allowances for every port of the pinned world. An allowance outlives its attachment: a port that is removed and
    /// made again starts where it was.
    #[cold]
    fn make_room(&mut self) {
        let count = self.world.port_count();
        if self.ports.len() < count {
            self.ports = self.cells.ports(count);
        }
        self.limits.resize_with(self.ports.len(), || Limits::shared_by(self.workers.into()));
        self.traces.resize_with(self.ports.len(), Trace::default);
        self.halves.resize_with(self.ports.len(), Half::default);
    }

    /// Parses a frame (Ethernet from a port, IPv6 from the uplink).
    #[inline(always)]
    pub fn classify(&self, origin: Origin, frame: &Frame<'_>, question: &mut Question) {
        match origin {
            Origin::Port(port) => from_tenant(&self.world, port, frame, question),
            Origin::Uplink => from_wire(&self.world, frame, question),
            Origin::Outside => from_outside(&self.world, frame, question),
        }
        if let Some(identifier) = question.key {
            question.bucket = self.nve.table.bucket_of(identifier);
        }
    }

    /// Address of the table line that [`Walker::decide`] will read first, to be prefetched; `None` where it reads none.
    #[inline]
    pub fn slot(&self, question: &Question) -> Option<usize> {
        question.key.map(|_| self.nve.table.address_of(question.bucket))
    }

    /// Whether so much is mapped that [`Walker::slot_behind`] is worth its asking.
    #[inline]
    pub fn is_far(&self) -> bool {
        self.nve.table.is_far()
    }

    /// Address of the table line that [`Walker::decide`] will read after [`Walker::slot`], which must have come meanwhile; `None`, mostly,
    /// where it reads none.
    #[inline]
    pub fn slot_behind(&self, question: &Question) -> Option<usize> {
        self.nve.table.address_behind(question.bucket, question.key?)
    }

    /// What becomes of the frame that `question` was made of, in the same batch: written to `fate`. Whether it is settled, and to be
    /// counted as taken ([`Walker::took`]); if not, it is brought [`Fate::Again`].
    #[inline(always)]
    pub fn decide(
        &mut self,
        question: &Question,
        frame: &Frame<'_>,
        scratch: &mut Scratch,
        fate: &mut Fate,
    ) -> bool {
        let here = (&*self.world, &mut self.identification);
        if neighbour::decide(&self.nve, here, question, frame, (scratch, fate)) {
            if let Origin::Port(port) = question.origin
                && let Some(trace) = self.traces.get_mut(usize::from(port.0))
            {
                trace.note((self.era, &self.world), question, frame, (scratch, fate));
                if question.form == Form::Peer4
                    && let (Fate::Uplink(_), Some(half)) = (fate, self.halves.get_mut(usize::from(port.0)))
                {
                    half.note((self.changes, &self.world), port, frame.head);
                }
            }
            return true;
        }
        let settled = self.decide_walking(question, frame, scratch, fate);
        if question.origin == Origin::Uplink {
            self.note_arrival(question, frame, fate);
        }
        settled
    }

    /// The second packet in a row between the same two shows the way for those that follow.
    #[inline(never)]
    fn note_arrival(&mut self, question: &Question, frame: &Frame<'_>, fate: &Fate) {
        if let Some(port) = self.homeward.note(question, frame, fate) {
            let kept = homeward::gone(&self.parts(), question, frame, port);
            self.homeward.keep(self.era, frame, kept);
        }
    }

    /// The way of the last frame from `port`, if it led to an attachment of this host and does still; for the batch that
    /// [`Walker::begin`] started.
    #[inline]
    pub fn track(&self, port: PortId) -> Option<Track> {
        let trace = self.traces.get(usize::from(port.0))?;
        trace.track(&self.nve, (self.era, &self.world), &Offload::NONE)
    }

    /// Decides a frame of `len` bytes that begins with `head`, and leaves nothing to finish, if it goes this way: it is rewritten where it is; how
    /// many bytes of it go to [`Track::to`]. If it goes another way, it is as it was.
    #[inline(always)]
    pub fn follow(&mut self, track: &Track, head: &mut [u8; HEAD_LEN], len: usize) -> Option<usize> {
        track.go(&mut self.identification, head, (len, &Offload::NONE))
    }

    /// What is kept of whoever sent frames from `port` to the fabric, if it still holds; for the batch that [`Walker::begin`] started.
    #[inline]
    pub fn outbound(&self, port: PortId) -> Option<Outbound> {
        self.halves.get(usize::from(port.0))?.outbound(self.changes)
    }

    /// What is asked about a frame of `len` bytes that begins with `head`, and leaves nothing to finish, if it may leave so.
    #[inline(always)]
    pub fn ask(&self, outbound: &Outbound, head: &[u8; HEAD_LEN], len: usize) -> Option<Asked> {
        outbound.ask(&self.nve.table, head, len)
    }

    /// Address of the table line that [`Walker::look`] will read, to be prefetched.
    #[inline]
    pub fn line_of(&self, asked: &Asked) -> usize {
        asked.slot(&self.nve.table)
    }

    /// Reads that line, which must have come meanwhile; where it does not tell, address of the one that [`Walker::leave`] will read.
    #[inline(always)]
    pub fn look(&self, asked: &mut Asked) -> Option<usize> {
        asked.look(&self.nve.table)
    }

    /// Decides the frame that `asked` was made of, which begins behind [`super::ROOM`] bytes of `bytes`: it is rewritten where it is, and leaves
    /// for the fabric. How many bytes the IPv6 packet has, which begins behind as many bytes as an Ethernet header. `None`: it goes another
    /// way, and is as it was.
    #[inline(always)]
    pub fn leave(&self, outbound: &Outbound, asked: &Asked, bytes: &mut Roomy) -> Option<usize> {
        outbound.leave((&self.nve.table, &self.world), asked, bytes)
    }

    /// Decides a frame of `len` bytes from `port` that begins with `head` (behind its end, if it is shorter, with anything), if it goes the way
    /// of the last one: then it needs neither [`Walker::classify`] nor [`Walker::decide`]. It may be rewritten where it is; if this says false,
    /// it is not, and neither is `fate`.
    #[inline(always)]
    pub fn retrace(
        &mut self,
        port: PortId,
        head: &mut [u8; HEAD_LEN],
        what: (usize, Offload),
        left: (&mut Scratch, &mut Fate),
    ) -> bool {
        let Some(trace) = self.traces.get(usize::from(port.0)) else { return false };
        let here = (self.era, &*self.world, &mut self.identification);
        trace.retrace(&self.nve, here, head, what, left).is_some()
    }

    /// The same for a packet from the fabric, which stays as it is.
    #[inline(always)]
    pub fn retrace_homeward(&mut self, packet: &Frame<'_>, left: (&mut Scratch, &mut Fate)) -> bool {
        let here = (self.era, &*self.world, &mut self.identification);
        self.homeward.retrace(&self.nve, here, packet, left).is_some()
    }

    /// What becomes of a frame, without the shortcut.
    #[inline(never)]
    pub(super) fn decide_walking(
        &mut self,
        question: &Question,
        frame: &Frame<'_>,
        scratch: &mut Scratch,
        fate: &mut Fate,
    ) -> bool {
        let mut walk = self.parts();
        match decide(&mut walk, question, frame, scratch, fate) {
            Ok(()) => {
                if let Fate::Uplink(packet) = fate
                    && packet.offload != Offload::NONE
                    && let Err(again) = deliver::to_uplink(walk.nve, &packet.offload)
                {
                    *fate = Fate::Again(again);
                    return false;
                }
                if let Fate::Drop(reason) | Fate::Reply(_, Some(reason)) = fate {
                    counters(&self.ports, &self.cells, question.origin).dropped(*reason);
                }
                true
            }
            Err(stop) => self.stopped(stop, question, frame, (scratch, fate)),
        }
    }

    /// The walk has ended early.
    #[cold]
    fn stopped(
        &mut self,
        stop: Stop,
        question: &Question,
        frame: &Frame<'_>,
        (scratch, fate): (&mut Scratch, &mut Fate),
    ) -> bool {
        let mut walk = self.parts();
        *fate = match stop {
            Stop::Again(again) => Fate::Again(again),
            Stop::Drop(reason) => Fate::Drop(reason),
            // An error quotes as much as it may (RFC 4443, section 2.4 (c)), not what happened to be copied.
            Stop::Owed(..) if !frame.is_whole() && refuse::may_answer(&walk, question.origin) => {
                Fate::Again(Again::Whole)
            }
            Stop::Owed(reason, error) => {
                refuse::owed(&mut walk, (question.origin, question.key), reason, &error, frame, scratch)
            }
        };
        if let Fate::Drop(reason) | Fate::Reply(_, Some(reason)) = fate {
            counters(&self.ports, &self.cells, question.origin).dropped(*reason);
        }
        !matches!(fate, Fate::Again(_))
    }

    /// So many frames of `origin`, and bytes, were decided for good.
    #[inline]
    pub fn took(&mut self, origin: Origin, frames: u64, bytes: u64) {
        let cells = counters(&self.ports, &self.cells, origin);
        cells.in_packets.add(frames);
        cells.in_bytes.add(bytes);
    }

    /// What the virtual gateway has to say unasked at the time of [`Walker::begin`], and to whom: an Ethernet frame, whole in the scratch
    /// buffer. To be asked once a batch, until it says `None`; one load while there is nothing.
    #[inline]
    pub fn tick(&mut self, scratch: &mut Scratch) -> Option<(PortId, Rewritten)> {
        // Each attachment is due once at most, so this ends.
        loop {
            let port = self.nve.announcements.take(self.now, self.world.port_count())?;
            if let Some(said) = self.advertisement(port, scratch) {
                return Some((port, said));
            }
        }
    }

    /// How long from the time of [`Walker::begin`] until [`Walker::tick`] may have something; `None`: until something else happens.
    #[inline]
    pub fn until_tick(&self) -> Option<Duration> {
        self.nve.announcements.wait(self.now)
    }

    /// Of a packet that this host passed on as a router, for a redirect: to be asked once a batch, until it says `None`. There is none
    /// unless [`Nve::want_triangles`] was told.
    #[inline]
    pub fn next_triangle(&mut self) -> Option<Triangle> {
        self.triangles.take()
    }

    #[cold]
    fn advertisement(&self, port: PortId, scratch: &mut Scratch) -> Option<Rewritten> {
        let attachment = self.world.attachment(port).filter(|_| self.nve.receiver(port).up)?;
        let network = self.world.network(attachment.network)?;
        gateway::advertise(&GatewayContext::new(attachment, network, &|_| false), &mut scratch.head)
    }

    /// Whether an answer of the slow path, an Ethernet frame, is for the attachment that `port` is now: a reload may have come between. A query
    /// to a group's MAC says nothing of anybody, and is for whoever is there.
    pub fn bears_its_mac(&self, port: PortId, frame: &[u8]) -> bool {
        let to = frame.first_chunk().map(|to| EthernetAddress(*to));
        self.world.attachment(port).zip(to).is_some_and(|(attachment, to)| {
            to.is_multicast() || to == attachment.mac || attachment.macs.contains(&to)
        })
    }

    /// The state of this worker, borrowed for one packet.
    #[inline]
    pub(super) fn parts(&mut self) -> Walk<'_> {
        Walk {
            nve: &self.nve,
            world: &self.world,
            now: self.now,
            limits: &mut self.limits,
            uplink_limits: &mut self.uplink_limits,
            outside_limits: &mut self.outside_limits,
            identification: &mut self.identification,
            groups: &mut self.groups,
            turned: &mut self.turned,
            pending: &mut self.pending,
            triangles: &mut self.triangles,
        }
    }

    /// [`Walker::classify`], [`Walker::decide`] and [`Walker::took`] in one.
    #[inline]
    pub fn walk(&mut self, origin: Origin, frame: &Frame<'_>, scratch: &mut Scratch) -> Fate {
        let mut question = Question::default();
        self.classify(origin, frame, &mut question);
        let mut fate = Fate::Again(Again::Whole);
        if self.decide(&question, frame, scratch, &mut fate) {
            self.took(origin, 1, frame.len as u64);
        }
        fate
    }

    /// The next piece or copy of the packet whose last one said `more`, and where it goes: [`Fate::Local`] or [`Fate::Uplink`]. The frame and
    /// the scratch buffer are those of that packet, and no other has been decided since. `None`: that one was the last, or the rest is
    /// dropped and counted.
    pub fn next_copy(&mut self, frame: &Frame<'_>, scratch: &mut Scratch) -> Option<Fate> {
        let sender = self.pending.as_ref()?.sender;
        self.count_lost(sender);
        // Each step is another piece or another receiver, so this ends.
        while self.pending.is_some() {
            let mut walk = self.parts();
            match rewrite4::next_piece(&mut walk, frame, scratch) {
                Ok(Some(piece)) => return Some(piece),
                Ok(None) => {}
                Err(reason) => self.dropped(sender, reason),
            }
            let mut walk = self.parts();
            match copies::step(&mut walk, frame, scratch) {
                Ok(Some(copy)) => return Some(copy),
                Ok(None) => self.pending = None,
                Err(Stop::Drop(reason) | Stop::Owed(reason, _)) => self.dropped(sender, reason),
                // What the first copy did not need, no other needs, unless its receiver has just changed.
                Err(Stop::Again(_)) => self.dropped(sender, DropReason::ReceiverDown),
            }
        }
        None
    }

    /// Counts what could not be made before the first copy that could.
    fn count_lost(&mut self, sender: Origin) {
        let Some(pending) = &mut self.pending else { return };
        let (reason, count) = pending.lost;
        pending.lost.1 = 0;
        (0..count).for_each(|_| self.dropped(sender, reason));
    }

    /// The shell delivered so many frames or packets to `to`, of so many bytes in all.
    #[inline]
    pub fn delivered(&mut self, to: Origin, frames: u64, bytes: u64) {
        let cells = counters(&self.ports, &self.cells, to);
        cells.out_packets.add(frames);
        cells.out_bytes.add(bytes);
    }

    /// The shell could not deliver a packet that came from `origin`.
    pub fn dropped(&mut self, origin: Origin, reason: DropReason) {
        counters(&self.ports, &self.cells, origin).dropped(reason);
    }
}

/// The cells of an origin; a port that never existed is counted with the uplink, which cannot be told from a shell's mistake.
#[inline]
fn counters<'c>(ports: &'c [Arc<PortCounters>], cells: &'c WorkerCells, origin: Origin) -> &'c PortCounters {
    match origin {
        Origin::Port(port) => ports.get(usize::from(port.0)).unwrap_or(&cells.uplink),
        Origin::Uplink => &cells.uplink,
        Origin::Outside => &cells.outside,
    }
}
