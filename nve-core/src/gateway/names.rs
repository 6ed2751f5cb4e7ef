//! A domain name as DNS writes it (RFC 1035, 3.1): for the DNSSL option of RAs and the search options of DHCP.

/// Calls `put` with the pieces of `domain`'s wire form; `false`, and nothing put, if it has none.
pub(super) fn put_domain(domain: &str, mut put: impl FnMut(&[u8])) -> bool {
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
pub(super) fn wire_len(domain: &str) -> Option<usize> {
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
    fn what_is_no_domain_is_left_out() {
        for bad in ["", ".", "a..b", &"x".repeat(64), &["abcdefgh"; 30].join(".")] {
            assert_eq!(wire_len(bad), None, "{bad}");
            assert!(!put_domain(bad, |_| panic!("wrote something of {bad}")));
        }
    }
}
