//! Where in a packed ring, and in which lap: offset and wrap counter as one number (virtio 1.2, 2.8.1).
//!
//! What must stay true: a place is below twice its ring's size, whatever a guest or front-end says; differences are taken modulo two laps,
//! as the wrap counter tells no more.

/// A descriptor's place: `0 .. size` in laps with wrap counter 1, `size .. 2 * size` in the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u16);

impl Place {
    /// Where every ring begins: offset 0, wrap counter 1.
    pub(super) const FIRST: Self = Self(0);

    /// From offset (bits 0 to 14) and wrap counter (bit 15), as event suppression and SET_VRING_BASE have them; None where the offset is
    /// beyond the ring.
    #[inline]
    pub(super) fn from_word(word: u16, size: u16) -> Option<Self> {
        let offset = word & 0x7fff;
        let lap = if word & 0x8000 != 0 { 0 } else { size };
        (offset < size).then(|| Self(lap.wrapping_add(offset)))
    }

    /// Offset and wrap counter.
    #[inline]
    pub(super) fn word(self, size: u16) -> u16 {
        self.offset(size) | if self.wrap(size) { 0x8000 } else { 0 }
    }

    /// Which descriptor: below `size`.
    #[inline]
    pub(super) fn offset(self, size: u16) -> u16 {
        if self.0 < size { self.0 } else { self.0 - size }
    }

    /// The wrap counter.
    #[inline]
    pub(super) fn wrap(self, size: u16) -> bool {
        self.0 < size
    }

    /// The place `count` descriptors on; `count` is at most `size`.
    #[inline]
    pub(super) fn after(self, count: u16, size: u16) -> Self {
        let (at, laps) = (u32::from(self.0) + u32::from(count), 2 * u32::from(size));
        Self(if at < laps { at } else { at - laps } as u16)
    }

    /// The place `count` descriptors back; `count` is at most `size`.
    #[inline]
    pub(super) fn before(self, count: u16, size: u16) -> Self {
        self.after(size - count, size).after(size, size)
    }

    /// How many descriptors from `earlier` to here, below two laps.
    #[inline]
    pub(super) fn since(self, earlier: Self, size: u16) -> u16 {
        let (from, to) = (u32::from(earlier.0), u32::from(self.0));
        (if from <= to { to - from } else { 2 * u32::from(size) + to - from }) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_round_in_two_laps_and_come_back_from_their_words() {
        for size in [1u16, 3, 8, 100, 32768] {
            let mut place = Place::FIRST;
            for step in 0..4 * u32::from(size) {
                let (lap, offset) = (step / u32::from(size), step % u32::from(size));
                assert_eq!(u32::from(place.offset(size)), offset);
                assert_eq!(place.wrap(size), lap.is_multiple_of(2));
                assert_eq!(Place::from_word(place.word(size), size), Some(place));
                let half = size / 2 + 1;
                let on = place.after(half.min(size), size);
                assert_eq!((on.since(place, size), on.before(half.min(size), size)), (half.min(size), place));
                place = place.after(1, size);
            }
            assert_eq!(place, Place::FIRST);
            assert_eq!(Place::FIRST.before(0, size), Place::FIRST);
        }
        assert_eq!(Place::from_word(0x8000 | 100, 100), None);
        assert_eq!(Place::from_word(0x7fff, 0x7fff), None);
    }
}
