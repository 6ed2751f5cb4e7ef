//! Hosts whose ILA is the Linux kernel's: what is understood, and what is refused at which line.

use nve_core::addr::PeerChecksum;

use super::{BLUE, HOST, load, only, refusals_of};

/// Begins at line 15.
const PEERS: &str = r#"[[mapping]]
address = "2001:db8:51:0:2000::12"
locator = "2001:db8:0:3::/64"
[[peer]]
locator = "2001:db8:0:3::/64"
checksum = "adj-transport"
[[peer]]
locator = "2001:db8:0:4::/64"
checksum = "no-action"
"#;

#[track_caller]
fn refused(from: &str, to: &str, line: usize, what: &str, remedy: &str) {
    only(&refusals_of(&format!("{HOST}{BLUE}{PEERS}"), from, to), line, what, remedy);
}

#[test]
fn peers_are_understood() {
    let config = load(&format!("{HOST}{BLUE}{PEERS}")).unwrap_or_else(|refused| panic!("{refused}"));
    let peers = &config.setup.setup().peers;
    assert_eq!(peers[0].checksum, PeerChecksum::AdjTransport);
    assert_eq!(
        (peers[1].locator.to_string().as_str(), peers[1].checksum),
        ("2001:db8:0:4::/64", PeerChecksum::Unmodified)
    );
}

#[test]
fn a_mode_that_is_not_the_drafts_is_one_peers_and_no_hosts() {
    let sir = "sir = \"2001:db8:51::/64\"\n";
    for mode in ["adj-transport", "neutral-map-auto", "neutral-map", "no-action"] {
        refused(sir, &format!("{sir}checksum = \"{mode}\"\n"), 5, "of the Linux kernel's", "[[peer]]");
    }
    refused("\"no-action\"", "\"none\"", 23, "peer.checksum", "neutral-map-auto");
    refused("\"no-action\"", "\"adj-transprot\"", 23, "peer.checksum", "did you mean \"adj-transport\"?");
}

#[test]
fn a_peer_is_another_host_once_and_has_tasks_that_its_mode_reaches() {
    refused("2001:db8:0:4::/64", "2001:db8:0:3::/64", 22, "two of this locator", "keep one");
    refused("2001:db8:0:4::/64", "2001:db8:0:1::/64", 22, "it is this host", "[host] checksum");
    refused("2001:db8:0:4::/64", "2001:db8:51::/64", 22, "the SIR prefix", "locator of the host");
    refused("2001:db8:0:4::/64", "2001:db8:0:4::1/64", 22, "peer.locator", "2001:db8:0:4::/64");
    let tenant = "[[mapping]]\nnetwork = \"blue\"\naddress = \"10.1.0.2\"\nlocator = \"2001:db8:0:4::/64\"\n";
    let peer = "[[peer]]\nlocator = \"2001:db8:0:3::/64\"";
    refused(peer, &format!("{tenant}{peer}"), 26, "network.blue has something there", "tasks only");
    refused(
        "locator = \"2001:db8:0:3::/64\"\n[[peer]]",
        "locators = [\"2001:db8:0:3::/64\", \"2001:db8:0:5::/64\"]\n[[peer]]",
        19,
        "one of several locators of 2001:db8:51:0:2000::12",
        "give it one locator",
    );
    let text = format!("{HOST}{BLUE}{PEERS}").replacen("2000::12", "2000::1:0", 1);
    assert!(load(&text).is_ok(), "adj-transport has no trouble with zero");
    let refusal = load(&text.replacen("adj-transport", "neutral-map-auto", 1)).expect_err("refused");
    let said = refusal.to_string();
    assert!(said.contains("2001:db8:51:0:2000:0:1:0 ends in 0x0000"), "{said}");
}
