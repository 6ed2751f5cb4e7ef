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
    /// What is compared.
    pub rows: &'static [Row],
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
}

/// Against what the program is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// DPDK's testpmd, forwarding whatever comes from one port to the other.
    Testpmd,
    /// Open vSwitch over DPDK: three headers rewritten between neighbours, VXLAN to the wire.
    Ovs,
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
        self.rows.iter().any(|row| row.figure == Figure::Cycles)
    }
}
