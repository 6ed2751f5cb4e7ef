//! Which of a sender's messages were heard: its highest sequence, and the 63 before it (as RFC 4303, section 3.4.3).

/// Nothing was heard with the default.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Window {
    highest: u64,
    /// Bit n: `highest - n` was heard.
    heard: u64,
}

impl Window {
    /// Notes `sequence`; false if it was heard, or is too old to tell.
    pub(super) fn take(&mut self, sequence: u64) -> bool {
        match sequence.checked_sub(self.highest) {
            Some(ahead @ 1..) => {
                self.heard =
                    u32::try_from(ahead).ok().and_then(|ahead| self.heard.checked_shl(ahead)).unwrap_or(0);
                self.heard |= 1;
                self.highest = sequence;
                true
            }
            _ => {
                let bit =
                    u32::try_from(self.highest - sequence).ok().and_then(|behind| 1_u64.checked_shl(behind));
                let is_new = bit.is_some_and(|bit| self.heard & bit == 0);
                self.heard |= bit.unwrap_or(0);
                is_new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_is_taken_once_in_any_order_within_the_window() {
        let mut window = Window::default();
        assert!(window.take(1000));
        assert!(!window.take(1000));
        assert!(window.take(1003));
        assert!(window.take(1001) && window.take(1002));
        assert!(!window.take(1001) && !window.take(1002) && !window.take(1000));
        assert!(window.take(940), "63 behind");
        assert!(!window.take(939), "64 behind");
        assert!(window.take(u64::MAX));
        assert!(!window.take(1004) && !window.take(u64::MAX));
        assert!(window.take(u64::MAX - 1));
        assert!(!window.take(0));
    }
}
