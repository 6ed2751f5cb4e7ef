//! Who asks whom: section 5 of the draft, without a word of what becomes of the addresses.

use super::INTERNET;

/// Where those who are asked listen: this and the scenario's number.
pub const PORT: u16 = 5000;

/// Where nobody listens: this and the scenario's number.
const CLOSED: u16 = 4000;

/// One of the thirteen. Its reply is the answer to what is asked.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// 1 to 13.
    pub number: u8,
    /// The draft's title.
    pub title: &'static str,
    /// Who asks.
    pub from: &'static str,
    /// Who is asked.
    pub to: &'static str,
    /// The address that is asked.
    pub target: &'static str,
}

impl Scenario {
    /// Where it is listened for.
    pub fn port(&self) -> u16 {
        PORT + u16::from(self.number)
    }

    /// Where it is not.
    pub fn closed_port(&self) -> u16 {
        CLOSED + u16::from(self.number)
    }

    const fn new(number: u8, title: &'static str, ends: [&'static str; 2], target: &'static str) -> Scenario {
        Scenario { number, title, from: ends[0], to: ends[1], target }
    }
}

/// All of them.
pub const SCENARIOS: [Scenario; 13] = [
    Scenario::new(1, "task to task", ["t1", "t2"], "2001:db8:51:0:2000::12"),
    Scenario::new(2, "task to Internet", ["t1", "iaddr"], INTERNET),
    Scenario::new(3, "Internet to task", ["iaddr", "t3"], "2001:db8:51:0:2000::13"),
    Scenario::new(4, "TS to service", ["va1", "t4"], "2001:db8:51:0:2000::14"),
    Scenario::new(5, "task to TS", ["t2", "va4"], "2001:db8:b1:e:0:1:0:2"),
    Scenario::new(6, "TS to Internet", ["va4", "iaddr"], INTERNET),
    Scenario::new(7, "Internet to TS", ["iaddr", "va4"], "2001:db8:b1:e:0:1:0:2"),
    Scenario::new(8, "IPv4 TS to service", ["va2", "t4"], "10.1.200.44"),
    Scenario::new(9, "TS to TS in the same VN, IPv6", ["va1", "va2"], "2001:db8:b1:e::2"),
    Scenario::new(10, "TS to TS in the same VN, IPv4", ["va1", "va2"], "10.1.0.2"),
    Scenario::new(11, "TS to TS in different VNs, IPv6", ["va4", "va1"], "2001:db8:b1:e::1"),
    Scenario::new(12, "TS to TS in different VNs, IPv4", ["va4", "va1"], "10.1.200.1"),
    Scenario::new(13, "IPv4 TS to IPv6 TS in different VNs", ["va4", "va1"], "10.1.200.101"),
];
