//! `tests -> vhost-ila -> nve-core -> ipv4-xlat`, and nothing points back.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build;

/// Which members of the workspace a member may use. `None`: a crate may use whatever it likes from outside.
struct Room {
    name: &'static str,
    members: &'static [&'static str],
    /// The only foreign crates it may use outside of tests.
    foreign: Option<&'static [&'static str]>,
}

const ROOMS: [Room; 5] = [
    Room { name: "ipv4-xlat", members: &[], foreign: Some(&["smoltcp"]) },
    // pcap-file only with the feature `testkit`.
    Room {
        name: "nve-core",
        members: &["ipv4-xlat"],
        foreign: Some(&["smoltcp", "arc-swap", "thiserror", "hmac", "httparse", "sha1", "sha2", "pcap-file"]),
    },
    Room { name: "vhost-ila", members: &["nve-core", "ipv4-xlat"], foreign: None },
    Room { name: "vhost-ila-tests", members: &["vhost-ila", "nve-core", "ipv4-xlat"], foreign: None },
    Room { name: "xtask", members: &[], foreign: None },
];

pub(super) fn check() -> Result<Vec<String>> {
    let output = build::cargo().args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    findings(&metadata)
}

fn findings(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata names packages")?;
    let members: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has a name")?;
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            findings.push(format!("{name}: a room that xtask/src/lint/arrows.rs does not know"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let in_tests = dependency["kind"] == "dev";
            let allowed = if members.contains(used) {
                // A crate's own features may be turned on for its tests.
                room.members.contains(&used) || (in_tests && used == name)
            } else {
                in_tests || room.foreign.is_none_or(|foreign| foreign.contains(&used))
            };
            if !allowed {
                findings.push(format!("{name} uses {used}"));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[(&str, Value)]) -> Value {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
        json!({ "name": name, "dependencies": dependencies })
    }

    #[test]
    fn an_arrow_back_or_a_foreign_crate_in_the_core_is_found() {
        let metadata = json!({ "packages": [
            package("ipv4-xlat", &[("smoltcp", Value::Null), ("proptest", json!("dev"))]),
            package("nve-core", &[("ipv4-xlat", Value::Null), ("vhost-ila", Value::Null), ("tokio", Value::Null)]),
            package("vhost-ila", &[("nve-core", Value::Null), ("tokio", Value::Null)]),
        ] });
        assert_eq!(findings(&metadata).unwrap(), ["nve-core uses vhost-ila", "nve-core uses tokio"]);
    }
}
