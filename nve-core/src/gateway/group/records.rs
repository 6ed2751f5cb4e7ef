//! Group records of IGMPv3 and MLDv2 (RFC 3376, 4.2; RFC 3810, 5.2), which differ in the length of an address only, and the one group of
//! older reports.
//!
//! What must stay true: [`Records::of`] has walked to the end of the last record before one is handed over; the walk takes as many steps as
//! the message says it has records, each of at least eight bytes of it.

use core::net::IpAddr;

use super::Said;

/// What a report says, group by group. `N`: bytes of an address.
#[derive(Clone, Debug)]
pub(super) struct Records<'a, const N: usize> {
    left: u16,
    bytes: &'a [u8],
    /// Of an older report.
    single: Option<Said>,
}

impl<'a, const N: usize> Records<'a, N> {
    /// The `count` records in `bytes`; `None` if they are not that many, or end behind it.
    pub(super) fn of(count: u16, bytes: &'a [u8]) -> Option<Self>
    where
        IpAddr: From<[u8; N]>,
    {
        let records = Self { left: count, bytes, single: None };
        let mut walk = records.clone();
        while walk.left > 0 {
            let (_, group) = walk.record()?;
            if !IpAddr::from(group).is_multicast() {
                return None;
            }
        }
        Some(records)
    }

    /// What an older report says.
    pub(super) fn single(said: Said) -> Self {
        Self { left: 0, bytes: &[], single: Some(said) }
    }

    /// The next record, and what it says: whether it listens, or nothing new.
    fn record(&mut self) -> Option<(Option<bool>, [u8; N])> {
        let (head, rest) = self.bytes.split_first_chunk::<4>()?;
        let (group, rest) = rest.split_first_chunk::<N>()?;
        let sources = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let behind = sources * N + usize::from(head[1]) * 4;
        self.bytes = rest.get(behind..)?;
        self.left -= 1;
        let listens = match (head[0], sources) {
            // MODE_IS_EXCLUDE and CHANGE_TO_EXCLUDE: all sources but some.
            (2 | 4, _) => Some(true),
            // MODE_IS_INCLUDE, CHANGE_TO_INCLUDE, ALLOW_NEW_SOURCES: these sources, none of which is none.
            (1 | 3 | 5, 1..) => Some(true),
            (3, 0) => Some(false),
            // BLOCK_OLD_SOURCES leaves others; unknown types are ignored (4.2.12; 5.2.12).
            _ => None,
        };
        Some((listens, *group))
    }
}

impl<const N: usize> Iterator for Records<'_, N>
where
    IpAddr: From<[u8; N]>,
{
    type Item = Said;

    fn next(&mut self) -> Option<Said> {
        if let Some(said) = self.single.take() {
            return Some(said);
        }
        while self.left > 0 {
            let (listens, group) = self.record()?;
            match listens {
                Some(true) => return Some(Said::Listens(group.into())),
                Some(false) => return Some(Said::Leaves(group.into())),
                None => {}
            }
        }
        None
    }
}
