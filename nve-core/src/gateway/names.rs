//! Domain names as DNS writes them (RFC 1035, 3.1): for the DNSSL option of RAs and the search options of DHCP.

/// The longest search list that is told: what one DHCPv4 option holds (RFC 3397).
pub(crate) const LONGEST_LIST: usize = 255;

/// Names one after the other, uncompressed.
pub(super) struct SearchList {
    bytes: [u8; LONGEST_LIST],
    len: usize,
}

impl SearchList {
    /// As many of `domains` as fit, in their order; what is no name is left out.
    pub(super) fn of(domains: &[String]) -> Self {
        let mut list = Self { bytes: [0; LONGEST_LIST], len: 0 };
        for domain in domains {
            let Some(end) = wire_len(domain).map(|len| list.len + len).filter(|end| *end <= LONGEST_LIST)
            else {
                continue;
            };
            put_domain(domain, |piece| {
                if let Some(room) = list.bytes.get_mut(list.len..list.len + piece.len()) {
                    room.copy_from_slice(piece);
                    list.len += piece.len();
                }
            });
            debug_assert_eq!(list.len, end);
        }
        list
    }

    /// Empty where there is none.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Calls `put` with the pieces of `domain`'s wire form; `false`, and nothing put, if it has none.
fn put_domain(domain: &str, mut put: impl FnMut(&[u8])) -> bool {
    if wire_len(domain).is_none() {
        return false;
    }
    for label in labels(domain) {
        put(&[label.len() as u8]);
        put(label.as_bytes());
    }
    put(&[0]);
    true
}

/// Bytes of the wire form: at most 255, each label 1 to 63.
pub(crate) fn wire_len(domain: &str) -> Option<usize> {
    let fits = labels(domain).all(|label| (1..=63).contains(&label.len()));
    let len: usize = 1 + labels(domain).map(|label| label.len() + 1).sum::<usize>();
    (fits && len <= 255).then_some(len)
}

fn labels(domain: &str) -> core::str::Split<'_, char> {
    domain.strip_suffix('.').unwrap_or(domain).split('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_written_as_labels() {
        let mut out = Vec::new();
        assert!(put_domain("blue.example.", |b| out.extend_from_slice(b)));
        assert_eq!(out, b"\x04blue\x07example\x00");
        assert_eq!(wire_len("blue.example"), Some(out.len()));
    }

    #[test]
    fn a_list_holds_whole_names_only() {
        let long = ["x".repeat(63), "y".repeat(63), "z".repeat(63)].join(".");
        let list = ["a.example", "b..example", &long, &long, "c.example"].map(str::to_owned);
        let written = SearchList::of(&list);
        assert!(written.bytes().starts_with(b"\x01a\x07example\0\x3fxxx"));
        assert!(written.bytes().ends_with(b"zzz\0\x01c\x07example\0"));
        assert_eq!(written.bytes().len(), 11 + 193 + 11, "the second long one does not fit");
        assert_eq!(SearchList::of(&[]).bytes(), b"");
    }

    #[test]
    fn what_is_no_domain_is_left_out() {
        for bad in ["", ".", "a..b", &"x".repeat(64), &["abcdefgh"; 30].join(".")] {
            assert_eq!(wire_len(bad), None, "{bad}");
            assert!(!put_domain(bad, |_| panic!("wrote something of {bad}")));
        }
    }
}
