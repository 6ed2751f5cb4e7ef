//! The cases in which a neighbour on the own host must be like one on another, as real guests see it; `docs/local-equals-wire.md` lists them.
//!
//! What is compared of a packet, and what is not, is said and done by `tests/oracle/alike.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::oracle::script;
use crate::process::output;
use crate::site::Vm;

/// Something that a guest does with a neighbour.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What the oracle calls the packets of it, without the family: answers and errors about them too.
    pub name: &'static str,
    /// What the guest runs; `TARGET` is the neighbour's address. Empty where the harness does it.
    pub command: &'static str,
    /// What comes of it, for the document.
    pub brings: &'static str,
}

/// Port 5001 is open, 5002 and traceroute's ports are not.
pub const CASES: [Case; 7] = [
    Case { name: "echo", command: "ping -c 2 -i 0.2 TARGET", brings: "echo replies" },
    Case { name: "echo in pieces", command: "ping -c 1 -s 4000 TARGET", brings: "echo replies in pieces" },
    Case { name: "TCP", command: "", brings: "a connection that moves 30000 bytes" },
    Case {
        name: "TCP to a closed port",
        command: "nc -w 2 TARGET 5002 </dev/null || true",
        brings: "a reset",
    },
    Case {
        name: "UDP",
        command: "/bin/traceroute -n -q 1 -f 9 -m 9 -w 3 TARGET",
        brings: "port unreachable, by the peer",
    },
    Case {
        name: "UDP, marked",
        command: "/bin/traceroute -n -q 1 -f 9 -m 9 -w 3 -t 186 TARGET",
        brings: "DSCP and ECN at the peer; port unreachable",
    },
    Case {
        name: "UDP in pieces",
        command: "/bin/traceroute -n -q 1 -f 9 -m 9 -w 3 TARGET 4000",
        brings: "port unreachable about the first piece",
    },
];

/// What a guest asks its gateway and hears without asking.
pub const HEARD: [(&str, &str); 7] = [
    ("ARP", "the gateway's MAC"),
    ("neighbour advertisement", "the gateway's MAC"),
    ("DHCPv4", "offer and acknowledgement, all options"),
    (
        "IPv4 echo",
        "the gateway's echo replies; a neighbour's echo requests to 255.255.255.255, the subnet's broadcast, 224.0.0.1",
    ),
    ("IPv6 echo", "the gateway's echo replies"),
    ("IPv4 UDP", "a neighbour's datagrams to 224.0.0.251"),
    ("IPv6 UDP", "a neighbour's datagrams to ff02::1"),
];

/// For each case, how many packets both conversations have in common, and what only one of them has.
pub type Comparison = BTreeMap<String, (usize, Vec<String>)>;

/// A neighbour, and what was captured of it.
#[derive(Clone, Debug)]
pub struct Side<'a> {
    /// Who.
    pub vm: &'a Vm,
    /// The captures; the same number on both sides.
    pub files: Vec<PathBuf>,
}

/// Compares what `me` said with a neighbour on its own host and with one on another; or, without `me`, what both heard. `spoil` has one field of one
/// packet changed first.
///
/// # Errors
///
/// Fails as the script does.
pub fn compare(me: Option<&Vm>, local: &Side<'_>, wire: &Side<'_>, spoil: bool) -> Result<Comparison> {
    let who = |vm: &Vm| format!("{},{},{}", vm.mac, vm.ipv4, vm.ipv6);
    let side = |side: &Side<'_>| {
        let files = side.files.iter().map(|file| format!(",{}", file.display()));
        files.fold(who(side.vm), |text, file| text + &file)
    };
    let mut command: Command = script("alike.py")?;
    match me {
        Some(me) => command.arg("between").arg(who(me)),
        None => command.arg("heard"),
    };
    command.arg(side(local)).arg(side(wire)).args(spoil.then_some("--spoil"));
    serde_json::from_str(&output(command)?).context("what alike.py says")
}

/// The text of `docs/local-equals-wire.md`.
pub fn document() -> String {
    let mut text = include_str!("alike.md").to_owned();
    text += "\n## Between two guests\n\n| case | what the guest runs | what it brings |\n|---|---|---|\n";
    for Case { name, command, brings } in CASES {
        let command = if command.is_empty() { "`nc TARGET 5001`" } else { &format!("`{command}`") };
        text += &format!("| {name} | {} | {brings} |\n", command.replace("||", "or"));
    }
    text += "\n## From the gateway, and from groups\n\n| case | what is heard |\n|---|---|\n";
    for (case, what) in HEARD {
        text += &format!("| {case} | {what} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_lists_every_case() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/local-equals-wire.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept == document(), "out of date: UPDATE_DOCS=1 cargo test -p vhost-ila-tests --lib");
    }
}
