//! Generation of locally unique identifiers (draft, appendix A): 60 bits that no other task of the domain has.
//!
//! ```text
//!   rfc4193.rs     A.1   SHA-1(NTP time | EUI-64), its low 60 bits        unique in all likelihood; needs no memory
//!   registrar.rs   A.2   24 bits of the host | 36 bits that only grow     unique; needs to remember the last one
//! ```
//!
//! What must stay true: the clock and what was issued before are arguments; an identifier that is made here has a neutral form towards
//! any peer, so its low word is neither 0x0000 nor 0xffff ([`crate::addr::Identifier::has_neutral_form`]).

use crate::addr::Identifier;

mod registrar;
mod rfc4193;

pub use registrar::{Counter, Exhausted, Registrar};
pub use rfc4193::{Eui64, NtpTime, collision_probability, from_time_and_host};

/// The type 1 identifier of these 60 bits, unless its low word is one of the two that a neutral form confuses.
fn usable(bits: u64) -> Option<Identifier> {
    Identifier::local(bits).ok().filter(|identifier| identifier.has_neutral_form())
}
