//! Rules about the text of the sources.

use anyhow::Result;

use super::{Source, files};
use crate::workspace;

const ROOMS: [&str; 5] = ["ipv4-xlat", "nve-core", "vhost-ila", "tests", "xtask"];

/// Where bytes are shared with guests and the kernel; and a trait of a driver that we did not write, which is unsafe to implement.
const UNSAFE_ROOMS: [&str; 3] =
    ["vhost-ila/src/device", "vhost-ila/src/uplink", "tests/e2e/virtio_drivers_crate/hal.rs"];

fn rust() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for room in ROOMS {
        sources.extend(files(room, ".rs")?);
    }
    Ok(sources)
}

/// The lines of `source` without comments and string literals' contents being told apart: enough to find a keyword.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(source.text.lines());
    lines.map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}

/// Whether `word` stands alone in `line`, not as a part of a name and not in quotes.
fn has_word(line: &str, word: &str) -> bool {
    let part = |char: char| char.is_alphanumeric() || char == '_' || char == '"' || char == '`';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

pub(super) fn unsafe_code() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for source in rust()? {
        let allowed = UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room))
            || source.path == "xtask/src/lint/sources.rs";
        if allowed {
            continue;
        }
        let lines = code(&source).filter(|(_, line)| has_word(line, "unsafe"));
        findings.extend(lines.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())));
    }
    for room in ["ipv4-xlat", "nve-core"] {
        let lib = std::fs::read_to_string(workspace::root().join(room).join("src/lib.rs"))?;
        if !lib.contains("#![forbid(unsafe_code)]") {
            findings.push(format!("{room}/src/lib.rs does not forbid unsafe_code"));
        }
    }
    Ok(findings)
}

/// Clippy enforces the ban; this sees to it that the ban is there.
pub(super) fn clocks() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for room in ["ipv4-xlat", "nve-core"] {
        let path = format!("{room}/clippy.toml");
        let text = std::fs::read_to_string(workspace::root().join(&path)).unwrap_or_default();
        for clock in ["std::time::Instant::now", "std::time::SystemTime::now"] {
            if !text.contains(clock) {
                findings.push(format!("{path} does not ban {clock}"));
            }
        }
    }
    Ok(findings)
}

pub(super) fn names() -> Result<Vec<String>> {
    const FILES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "manager"];
    // Put together, so that this line is no finding.
    let handler = ["fn", "handle_"].join(" ");
    let mut findings = Vec::new();
    for source in rust()? {
        for part in source.path.split('/').map(|part| part.trim_end_matches(".rs")) {
            if FILES.contains(&part) {
                findings.push(format!("{}: a room called `{part}` says nothing", source.path));
            }
        }
        let handlers = code(&source).filter(|(_, line)| line.contains(&handler));
        findings.extend(handlers.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())));
    }
    Ok(findings)
}

/// A name in backquotes with four underscores or more is taken for a test's; so is the last part of a path.
pub(super) fn documented_tests() -> Result<Vec<String>> {
    let sources = rust()?;
    let exists = |name: &str| sources.iter().any(|source| source.text.contains(&format!("fn {name}(")));
    let mut findings = Vec::new();
    for document in files("docs", ".md")? {
        for (number, line) in (1..).zip(document.text.lines()) {
            let quoted = line.split('`').skip(1).step_by(2);
            let names = quoted.filter_map(|text| text.rsplit("::").next()).filter(|name| is_test_name(name));
            let missing = names.filter(|name| !exists(name));
            findings.extend(missing.map(|name| format!("{}:{number}: no test {name}", document.path)));
        }
    }
    Ok(findings)
}

fn is_test_name(text: &str) -> bool {
    let word = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    text.matches('_').count() >= 4 && text.chars().all(word)
}

pub(super) fn ci_command() -> Result<Vec<String>> {
    const COMMAND: &str = "cargo xtask test";
    let mut findings = Vec::new();
    for (path, what) in [("README.md", "name"), (".ci/run", "run"), (".github/workflows/ci.yml", "run")] {
        let text = std::fs::read_to_string(workspace::root().join(path)).unwrap_or_default();
        // The workflow may call .ci/run, which is checked itself.
        if !text.contains(COMMAND) && !text.contains(".ci/run") {
            findings.push(format!("{path} does not {what} `{COMMAND}`"));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_is_found_but_not_in_names_comments_or_quotes() {
        assert!(has_word("    unsafe { read() }", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
        assert!(!has_word("say(\"unsafe\")", "unsafe"));
        let source = Source { path: String::new(), text: "// unsafe\nlet a = 1; // unsafe { }\n".into() };
        assert!(!code(&source).any(|(_, line)| has_word(line, "unsafe")));
    }

    #[test]
    fn only_sentences_are_taken_for_tests() {
        assert!(is_test_name("a_guest_cannot_send_from_its_neighbours_address"));
        assert!(!is_test_name("host_mtu"));
        assert!(!is_test_name("VIRTIO_NET_F_GUEST_TSO4"));
    }
}
