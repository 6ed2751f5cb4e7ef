//! The cases, as data.
//!
//! What must stay true: a case's name never changes its meaning, as results of earlier commits are found by it.

use serde::{Deserialize, Serialize};

/// What flows, and how.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As it is named on the command line.
    pub name: &'static str,
    /// For a table.
    pub title: &'static str,
    /// What the tenants speak.
    pub family: Family,
    /// Bytes of each frame's segments, Ethernet header included, check sequence not.
    pub segments: &'static [u16],
    /// Whether the front-end asks for packed rings.
    pub packed: bool,
    /// Where frames go.
    pub to: To,
    /// To how many addresses.
    pub destinations: u32,
    /// Who sends.
    pub load: Load,
    /// Attachments, and queue pairs of each, where [`Load::Fleet`] sends; else two with one.
    pub ports: usize,
    /// See there.
    pub pairs: usize,
    /// What is done to the back-end meanwhile.
    pub beside: Beside,
    /// The same program under this load is measured in turns with it, as [`Peer::Without`].
    pub without: Option<&'static Case>,
    /// What is compared.
    pub rows: &'static [Row],
}

/// What happens while packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// Two pairs more of attachments, of which one sends to the other, and that takes what comes.
    Takers,
    /// The same, but the one receiver takes nothing, the other a frame now and then.
    Stalled,
    /// The destinations are registered by the control socket, and not by a file, before the packets.
    Registered,
    /// So many of them move, leave or come a second, by the same way.
    Updates(u32),
}

/// A tenant's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, translated and back.
    V4,
    /// IPv6.
    V6,
}

/// Where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// From each of two tenants on one host to the other.
    Neighbour,
    /// From a tenant to the fabric, which is the back-end's second port.
    Wire,
}

/// The front-end while throughput is measured. Latency is measured by the generator always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// testpmd, which sends back what it gets ([`super::front::Swap`]).
    Swap,
    /// Ours ([`super::generator`]): it sends IPv6, and to many.
    Generator,
    /// The same with many NICs ([`super::generator`]).
    Fleet,
}

/// Against what the program is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// DPDK's testpmd, forwarding whatever comes from one port to the other.
    Testpmd,
    /// Open vSwitch over DPDK: three headers rewritten between neighbours, VXLAN to the wire.
    Ovs,
    /// This program itself, without what the case is about ([`Case::without`]).
    Without,
}

/// A figure of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Busy cycles of the back-end's core for each packet: fewer are better.
    Cycles,
    /// Million packets delivered a second.
    Mpps,
    /// Gigabytes of frames delivered a second.
    Bytes,
    /// Microseconds of the back-end's longest batch, where it kept its core: fewer are better.
    Longest,
}

impl Figure {
    /// Whether less of it is better.
    pub fn is_cost(self) -> bool {
        matches!(self, Figure::Cycles | Figure::Longest)
    }
}

/// A line of the table: the median ratio of a figure to a peer's, and what it shall be.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Whose figure is the denominator.
    pub against: Peer,
    /// Of what.
    pub figure: Figure,
    /// To be reached: at most this for cycles, at least this for the others.
    pub reach: f64,
    /// What would be better still.
    pub stretch: f64,
}

const fn row(against: Peer, figure: Figure, reach: f64, stretch: f64) -> Row {
    Row { against, figure, reach, stretch }
}

/// The first case, of which the others differ in something.
const NEIGHBOURS: Case = Case {
    name: "v4-64",
    title: "VM to VM, one host, IPv4, 64 B, split rings, one flow",
    family: Family::V4,
    segments: &[64],
    packed: false,
    to: To::Neighbour,
    destinations: 1,
    load: Load::Swap,
    ports: 2,
    pairs: 1,
    beside: Beside::Nothing,
    without: None,
    rows: &[
        row(Peer::Testpmd, Figure::Cycles, 0.70, 0.55),
        // 0.97 counts as 1 where the front-end is what is full.
        row(Peer::Testpmd, Figure::Mpps, 0.97, 1.3),
        row(Peer::Ovs, Figure::Cycles, 0.45, 0.33),
    ],
};

/// From a tenant to the fabric.
const WIRE: Case = Case {
    name: "wire-64",
    title: "VM to wire, IPv4 (translated, ILA or VXLAN), 64 B, the fabric side a vhost-user port",
    to: To::Wire,
    load: Load::Generator,
    rows: &[row(Peer::Ovs, Figure::Cycles, 0.45, 0.33)],
    ..NEIGHBOURS
};

/// Attachments in a ring, each sending to the next.
const TWO_PORTS: Case = Case {
    name: "two-ports",
    title: "two attachments with a queue pair each, rings of 256, 32 frames of each pair under way",
    load: Load::Fleet,
    rows: &[],
    ..NEIGHBOURS
};

/// Two that talk, beside others.
const TAKERS: Case = Case { name: "takers", beside: Beside::Takers, ..TWO_PORTS };

/// To destinations that are registered.
const REGISTERED: Case = Case {
    name: "registered",
    title: "VM to wire, 50 000 registered identifiers, uniform",
    destinations: 50_000,
    beside: Beside::Registered,
    rows: &[],
    ..WIRE
};

/// All cases, in the table's order.
pub const CASES: &[Case] = &[
    NEIGHBOURS,
    Case {
        name: "v4-64-packed",
        title: "the same, packed rings",
        packed: true,
        rows: &[row(Peer::Testpmd, Figure::Mpps, 1.2, 1.5)],
        ..NEIGHBOURS
    },
    Case {
        name: "v4-1500",
        title: "the same, 1500 B",
        segments: &[1500],
        rows: &[row(Peer::Testpmd, Figure::Mpps, 1.3, 1.6)],
        ..NEIGHBOURS
    },
    Case {
        name: "v6-64",
        title: "the same, IPv6, 64 B",
        family: Family::V6,
        load: Load::Generator,
        rows: &[row(Peer::Testpmd, Figure::Cycles, 0.70, 0.55)],
        ..NEIGHBOURS
    },
    WIRE,
    Case {
        name: "wire-million",
        title: "VM to wire, 1 000 000 mapped identifiers, uniform (testpmd looks at none of them)",
        destinations: 1_000_000,
        rows: &[row(Peer::Testpmd, Figure::Cycles, 1.0, 0.8)],
        ..WIRE
    },
    Case {
        name: "v4-6000",
        title: "VM to VM, one host, IPv4, 6000 B in mergeable chains",
        segments: &[1500, 1500, 1500, 1500],
        rows: &[row(Peer::Testpmd, Figure::Bytes, 1.2, 1.5)],
        ..NEIGHBOURS
    },
    Case {
        name: "many-ports",
        title: "64 attachments with 8 queue pairs each on one worker, every pair sending, beside two with one (the same rings of 256)",
        ports: 64,
        pairs: 8,
        without: Some(&TWO_PORTS),
        rows: &[row(Peer::Without, Figure::Cycles, 1.3, 1.1)],
        ..TWO_PORTS
    },
    Case {
        name: "stalled",
        title: "two attachments that talk, beside two more that are sent to and take nothing, or a frame now and then; without: they take",
        beside: Beside::Stalled,
        without: Some(&TAKERS),
        rows: &[row(Peer::Without, Figure::Mpps, 0.98, 1.0)],
        ..TWO_PORTS
    },
    Case {
        name: "updates",
        title: "VM to wire, 50 000 registered identifiers, uniform, while 100 000 a second move, leave or come by the control socket",
        beside: Beside::Updates(100_000),
        without: Some(&REGISTERED),
        rows: &[
            row(Peer::Without, Figure::Cycles, 1.05, 1.02),
            row(Peer::Without, Figure::Longest, 2.0, 1.5),
        ],
        ..REGISTERED
    },
];

impl Case {
    /// The case of that name.
    pub fn named(name: &str) -> Option<&'static Case> {
        CASES.iter().find(|case| case.name == name)
    }

    /// Bytes of a frame.
    pub fn frame_bytes(&self) -> u32 {
        self.segments.iter().map(|bytes| u32::from(*bytes)).sum()
    }

    /// Who is measured beside this program.
    pub fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self.rows.iter().map(|row| row.against).collect();
        peers.dedup();
        peers
    }

    /// Whether latency says something about it: where a row compares cycles.
    pub fn is_timed(&self) -> bool {
        self.rows.iter().any(|row| row.figure == Figure::Cycles && row.against != Peer::Without)
    }

    /// The front-end's attachments at the back-end, the fabric's port left out.
    pub fn tenants(&self) -> usize {
        match (self.to, self.beside) {
            (To::Wire, _) => 1,
            (To::Neighbour, Beside::Takers | Beside::Stalled) => self.ports + 4,
            (To::Neighbour, _) => self.ports,
        }
    }
}
