//! Prefixes behind attachments and hosts: longest match over 32 bits, which are an IPv4 address, or what a /96 leaves of an IPv6 address.
//!
//! ```text
//!   prefixes      0/0 ───────────────────────────────── router
//!                        10.1/16 ───── nobody
//!                           10.1.8/24 ── other
//!   ranges        │ router │ nobody │ other │ nobody │ router │      sorted by first address; one binary search
//! ```
//!
//! What must stay true: made whole with a `World` and never changed; every address is in one range, the first of which starts at zero.

use crate::tables::Target;

/// A prefix and where it leads; `None`: to nobody, whatever shorter prefix covers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    /// Its first address, host byte order.
    pub(crate) first: u32,
    /// Bits that count, 0 to 32.
    pub(crate) length: u8,
    /// Where it leads.
    pub(crate) target: Option<Target>,
}

impl Prefix {
    /// One more than its last address.
    fn end(&self) -> u64 {
        u64::from(self.first) + (1 << (32 - u32::from(self.length.min(32))))
    }
}

/// Where every address leads.
#[derive(Clone, Debug)]
pub(crate) struct Prefixes(Box<[(u32, Option<Target>)]>);

impl Prefixes {
    /// Of two prefixes that are the same, the later counts.
    pub(crate) fn new(mut prefixes: Vec<Prefix>) -> Self {
        const ALL: u64 = 1 << 32;
        // Whatever covers a prefix comes before it.
        prefixes.sort_by_key(|prefix| (prefix.first, prefix.length));
        let mut ranges: Vec<(u32, Option<Target>)> = vec![(0, None)];
        let mut start = |at: u64, target| match (ranges.last_mut(), u32::try_from(at)) {
            (Some(last), Ok(at)) if last.0 == at => last.1 = target,
            (Some(last), Ok(at)) if last.1 != target => ranges.push((at, target)),
            _ => {}
        };
        // Those that go on at this point, the longest last.
        let mut open: Vec<(u64, Option<Target>)> = vec![(ALL, None)];
        for at in prefixes.iter().map(Some).chain([None]) {
            let first = at.map_or(ALL, |prefix| u64::from(prefix.first));
            while let Some((end, _)) = open.pop_if(|(end, _)| *end <= first) {
                start(end, open.last().and_then(|(_, target)| *target));
            }
            if let Some(prefix) = at {
                start(first, prefix.target);
                open.push((prefix.end(), prefix.target));
            }
        }
        Self(ranges.into())
    }

    /// Where the longest prefix of `address` leads.
    #[inline]
    pub(crate) fn find(&self, address: u32) -> Option<Target> {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        self.0.get(after.checked_sub(1)?)?.1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::PortId;

    fn naive(prefixes: &[Prefix], address: u32) -> Option<Target> {
        let covers = |p: &&Prefix| p.first <= address && u64::from(address) < p.end();
        prefixes.iter().filter(covers).max_by_key(|prefix| prefix.length)?.target
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        // Few bits, so that prefixes nest, touch and repeat.
        (0..=8_u8, any::<u8>(), proptest::option::of(0..4_u16)).prop_map(|(length, bits, port)| Prefix {
            first: u32::from(bits) << 24 & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0),
            length,
            target: port.map(PortId).map(Target::Local),
        })
    }

    proptest! {
        #[test]
        fn ranges_say_what_the_longest_prefix_says(prefixes in proptest::collection::vec(prefix(), 0..20)) {
            let table = Prefixes::new(prefixes.clone());
            for address in (0..=255_u32).flat_map(|byte| [byte << 24, byte << 24 | 0xff_ffff]) {
                prop_assert_eq!(table.find(address), naive(&prefixes, address), "{:#x}", address);
            }
        }
    }

    #[test]
    fn the_whole_space_and_its_last_address_have_a_range() {
        let all = Prefix { first: 0, length: 0, target: Some(Target::Local(PortId(1))) };
        let last = Prefix { first: u32::MAX, length: 32, target: None };
        let table = Prefixes::new(vec![last, all]);
        assert_eq!(table.find(0), all.target);
        assert_eq!(table.find(u32::MAX - 1), all.target);
        assert_eq!(table.find(u32::MAX), None);
        assert_eq!(Prefixes::new(Vec::new()).find(7), None);
    }
}
