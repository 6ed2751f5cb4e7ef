//! What may pass from one virtual network to another: nothing, unless a crossing admits it.
//!
//! What must stay true: the default is to deny; a decision is stateless and made at both edges.

use super::NetworkId;

/// A rule that admits packets from one network to another (`from A to B tcp 443`). It has its place in the walk; rules cannot be
/// configured yet, so no value of it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crossing {
    from: NetworkId,
    to: NetworkId,
}

/// Proof that source and destination may talk; only [`Admission::judge`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admission(());

impl Admission {
    /// Admits traffic inside one network, and what a crossing admits between two.
    #[inline]
    pub fn judge(source: NetworkId, destination: NetworkId, crossings: &[Crossing]) -> Option<Self> {
        let crosses = |crossing: &Crossing| crossing.from == source && crossing.to == destination;
        (source == destination || crossings.iter().any(crosses)).then_some(Self(()))
    }
}
