//! What an nft ruleset (as `nft list ruleset` prints it) says about connection tracking and reverse paths.
//!
//! What must stay true: it is read generously. Where a rule might track or filter our packets, it says so.

/// Statements that make the kernel track connections.
const TRACKING: [&str; 7] =
    ["ct state", "ct status", "ct mark", "ct direction", "masquerade", "dnat ", "snat "];

/// Where a rule stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chain<'a> {
    /// Family and name, such as `inet filter`.
    pub(super) table: &'a str,
    pub(super) chain: &'a str,
}

/// Whether any rule makes the kernel track connections of IPv6 packets.
pub(super) fn tracks(ruleset: &str) -> bool {
    let tracking = |rule: &str| TRACKING.iter().any(|word| rule.contains(word)) || rule.contains("conntrack");
    rules(ruleset).any(|(chain, rule)| !chain.table.starts_with("ip ") && tracking(rule))
}

/// Whether a rule exempts what matches all of `words` from tracking.
pub(super) fn exempts(ruleset: &str, words: &[&str]) -> bool {
    rules(ruleset).any(|(_, rule)| rule.contains("notrack") && words.iter().all(|word| rule.contains(word)))
}

/// The first chain that drops packets whose reverse path is another interface, and has no rule for `source` before that.
pub(super) fn filters_reverse_path<'a>(ruleset: &'a str, source: &str) -> Option<Chain<'a>> {
    let mut accepted: Option<Chain<'_>> = None;
    for (chain, rule) in rules(ruleset) {
        if rule.contains("saddr") && rule.contains(source) && rule.contains("accept") {
            accepted = Some(chain.clone());
        }
        let reverse = rule.contains("fib saddr") && rule.contains("oif") || rule.contains("rpfilter");
        if reverse && !chain.table.starts_with("ip ") && accepted.as_ref() != Some(&chain) {
            return Some(chain);
        }
    }
    None
}

/// Every rule with its chain.
fn rules(ruleset: &str) -> impl Iterator<Item = (Chain<'_>, &str)> {
    let mut at = Chain { table: "", chain: "" };
    ruleset.lines().map(str::trim).filter_map(move |line| {
        if let Some(table) = line.strip_prefix("table ") {
            at = Chain { table: table.trim_end_matches(['{', ' ']), chain: "" };
        } else if let Some(chain) = line.strip_prefix("chain ") {
            at.chain = chain.trim_end_matches(['{', ' ']);
        } else if !at.chain.is_empty() && !line.is_empty() && line != "}" && !line.starts_with("type ") {
            return Some((at.clone(), line));
        }
        None
    })
}
