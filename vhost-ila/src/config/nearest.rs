//! "Did you mean": the known name an operator most likely meant.

/// The name nearest to `given`, if one is near enough to be a slip of the hand.
pub(crate) fn of<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|&(distance, name)| distance <= 1 + name.len().min(given.len()) / 4)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_does_not() {
        let known = ["addresses", "network", "mac", "mode"];
        assert_eq!(of("adresses", known), Some("addresses"));
        assert_eq!(of("netwrok", known), Some("network"));
        assert_eq!(of("colour", known), None);
        assert_eq!(of("kind", known), None);
    }
}
