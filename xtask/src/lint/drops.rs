//! Every drop has a name, a sentence, and a test that makes it happen.

use anyhow::{Context, Result};

use super::{files, test_code};

const LIST: &str = "nve-core/src/drop_reason.rs";

pub(super) fn check() -> Result<Vec<String>> {
    let mut sources = Vec::new();
    for room in ["ipv4-xlat", "nve-core", "vhost-ila", "tests"] {
        sources.extend(files(room, ".rs")?);
    }
    let list = sources.iter().find(|source| source.path == LIST).with_context(|| format!("no {LIST}"))?;
    let reasons = reasons(&list.text);
    if reasons.is_empty() {
        return Ok(vec![format!("{LIST} lists no reasons in the form `Variant = \"name\",`")]);
    }
    let tested: String =
        sources.iter().filter(|source| source.path != LIST).map(test_code).collect::<Vec<_>>().join("\n");
    let untested = reasons.iter().filter(|reason| !reason.is_named_in(&tested));
    let undocumented = reasons.iter().filter(|reason| !reason.documented);
    Ok(untested
        .map(|reason| {
            format!("{}: no test names DropReason::{} or \"{}\"", LIST, reason.variant, reason.name)
        })
        .chain(undocumented.map(|reason| format!("{LIST}: {} has no doc line", reason.variant)))
        .collect())
}

struct Reason {
    variant: String,
    name: String,
    documented: bool,
}

impl Reason {
    fn is_named_in(&self, tests: &str) -> bool {
        let variant = format!("DropReason::{}", self.variant);
        let after = |at: usize| tests[at + variant.len()..].chars().next();
        let whole = |at: usize| after(at).is_none_or(|next| !next.is_alphanumeric());
        tests.match_indices(&variant).any(|(at, _)| whole(at))
            || tests.contains(&format!("\"{}\"", self.name))
    }
}

/// The lines `Variant = "name",` of the list, each with whether the line before is a doc comment.
fn reasons(list: &str) -> Vec<Reason> {
    let lines: Vec<&str> = list.lines().map(str::trim).collect();
    let before = std::iter::once(&"").chain(&lines);
    let reasons = lines.iter().zip(before).filter_map(|(line, before)| {
        let (variant, name) = line.strip_suffix("\",")?.split_once(" = \"")?;
        let is_variant =
            variant.chars().all(char::is_alphanumeric) && variant.starts_with(char::is_uppercase);
        let documented = before.starts_with("/// ");
        is_variant.then(|| Reason { variant: variant.into(), name: name.into(), documented })
    });
    reasons.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_without_a_doc_line_or_a_test_is_found() {
        let found = reasons(
            "    /// Too short.\n    Malformed = \"malformed\",\n    BadOffload = \"bad-offload\",\n",
        );
        assert_eq!(found.len(), 2);
        assert!(found[0].documented && !found[1].documented);
        assert!(found[1].is_named_in("Drop(DropReason::BadOffload)"));
        assert!(!found[1].is_named_in("Drop(DropReason::BadOffloadToo)"));
        assert!(found[0].is_named_in("count(\"malformed\")"));
    }
}
