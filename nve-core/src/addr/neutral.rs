//! Checksum-neutral mapping (draft, section 4.4.1, with the erratum of reading notes, section 2).
//!
//! What must stay true: the one's complement sum of the address on the wire equals that of the address the endpoint sees, so that
//! a transport checksum made over the one verifies over the other. A round trip alone proves nothing: the draft's steps,
//! read literally, round-trip and are off by 0x2000.
//!
//! ```text
//!   wire low word = low word + sum(old words that change) - sum(new words that change, C bit included once)
//!                              └──────────── adjustment: depends on locator and prefix only ───────────┘
//! ```
//!
//! One's complement has two zeros, so 0x0000 and 0xffff would both become the adjustment: 0xffff is never sent with C = 1, and a
//! reversed 0xffff is read as 0x0000.

use super::{Locator, SirPrefix, Vnet, Vnid};

/// How a sender treats the transport checksum (draft, section 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumMode {
    /// 4.4.1: the identifier's low word absorbs the change; checksums on the wire verify.
    #[default]
    Neutral,
    /// 4.4.2: the checksum travels as the endpoints made it.
    Unmodified,
}

/// How one peer, whose ILA is the Linux kernel's, has its checksums: `csum-mode` of iproute2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerChecksum {
    /// 4.4.1, `neutral-map`: it takes C = 1 and C = 0.
    Neutral,
    /// 4.4.2, `no-action`: it takes C = 0 only.
    Unmodified,
    /// `neutral-map-auto`: the low word is adjusted always, and C never tells.
    NeutralAuto,
    /// `adj-transport`: the transport checksum is changed in the packet, the address only in its locator.
    AdjTransport,
}

/// The 16-bit one's complement adjustment of one (locator, prefix) pair; computed once, when a mapping is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neutral(u16);

impl Neutral {
    /// Types 1 and 2: words 0 to 3 and the C bit change.
    pub const fn sir(locator: Locator, sir: SirPrefix) -> Self {
        let new = add(sum(locator.upper() as u128), 0x1000);
        Self(subtract(sum(sir.upper() as u128), new))
    }
    /// Type 1 as [`PeerChecksum::NeutralAuto`] has it: words 0 to 3 change, and C does not.
    pub const fn without_c(locator: Locator, sir: SirPrefix) -> Self {
        Self(subtract(sum(sir.upper() as u128), sum(locator.upper() as u128)))
    }
    /// Type 3, `VNET:VA -> L:(VNI:VAX)`: words 0 to 5 and the C bit change.
    pub const fn vnet(locator: Locator, vnid: Vnid, vnet: Vnet) -> Self {
        let new = add(sum(locator.upper() as u128), sum((0x7000_0000 | vnid.get()) as u128));
        Self(subtract(sum(vnet.upper()), new))
    }
    /// Type 4, `ff0S::G -> L:(VNI:S:G)`: words 0 to 6 and the C bit change; the scope nibble moves into word 6.
    pub const fn multicast(locator: Locator, vnid: Vnid, scope: u8) -> Self {
        let scope = (scope & 0xf) as u16;
        let vnid = sum((0x9000_0000 | vnid.get()) as u128);
        let new = add(add(sum(locator.upper() as u128), vnid), scope << 12);
        Self(subtract(0xff00 | scope, new))
    }
    /// The adjustment as saved beside a mapping.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }
    /// From the value [`Neutral::get`] gave.
    #[inline]
    pub const fn from_saved(adjustment: u16) -> Self {
        Self(adjustment)
    }
    /// The low word to send with C = 1; `None` for 0xffff, which goes with C = 0.
    #[inline]
    pub const fn apply(self, low: u16) -> Option<u16> {
        if low == 0xffff { None } else { Some(add(low, self.0)) }
    }
    /// The low word that was adjusted. Never 0xffff.
    #[inline]
    pub const fn reverse(self, wire: u16) -> u16 {
        let word = add(wire, !self.0);
        if word == 0xffff { 0 } else { word }
    }
}

/// One's complement sum of the eight words of `bits`, folded.
const fn sum(bits: u128) -> u16 {
    // 2^16 = 1 modulo 0xffff, so folding wide halves onto each other is the sum of words.
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let (total, carry) = high.overflowing_add(low);
    let total = (total >> 32) + (total & 0xffff_ffff) + carry as u64;
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    ((total >> 16) + (total & 0xffff)) as u16
}

#[inline]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

const fn subtract(a: u16, b: u16) -> u16 {
    add(a, !b)
}
