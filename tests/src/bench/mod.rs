//! What a packet costs: this program and its peers on one core, in turns, under the same load.
//!
//! ```text
//!  core 1: a front-end with two NICs ([`front`]: testpmd or [`generator`])     one case ([`case`]) says frame, rings, load and what is compared
//!             │ a.sock        │ b.sock
//!  core 0: one back-end at a time ([`backend`]): vhost-ila | another build of it | DPDK's testpmd | OVS-DPDK
//!             │
//!             v
//!          [`figures`]: rounds of measurements ──> medians, ratios round by round
//! ```
//!
//! What must stay true:
//! * One back-end runs at a time: two that poll on one core halve each other.
//! * Every back-end meets the same front-end with the same arguments; what it delivered is counted by the front-end, what it cost by
//!   the back-end itself.
//! * Rounds are interleaved, and a ratio is the median of the rounds' own ratios: the machine is never quite alone, and figures of
//!   different minutes cannot be compared.

pub mod backend;
pub mod case;
pub mod figures;
pub mod front;
pub mod generator;
pub mod guests;
pub mod machine;
pub mod plot;
pub mod report;
pub mod results;
