//! Everybody against everybody, across networks, by every means the testkit knows; the control in the same run.

use nve_core::testkit::strangers::InMemory;

/// In a debug build; the same matrix with 10^7 tries is a soak (`cargo xtask test --long strangers`).
const TRIES: u64 = 200_000;
const SEED: u64 = 28;

#[test]
fn nothing_of_two_hundred_thousand_tries_is_delivered_in_another_network() {
    let tally = InMemory::new(SEED).run(TRIES);
    assert_eq!(tally.crossed, Vec::<String>::new());
    assert!(tally.honest > TRIES / 5 && tally.arrived == tally.honest, "the control: {tally:?}");
    // Each kind was tried; those that also reach somebody of the speaker's own network show that the door is open at all.
    assert!(
        tally.kinds.len() >= 14 && tally.kinds.values().all(|(tried, _)| *tried > 100),
        "{:?}",
        tally.kinds
    );
    // And each way to be refused was met.
    for reason in [
        "foreign-network",
        "sir-destination",
        "locator-destination",
        "spoofed-mac",
        "spoofed-address",
        "broadcast",
        "multicast",
        "ether-type",
        "extension-header",
        "bad-fragment",
        "rogue-router",
        "rogue-server",
        "nd-unanswered",
        "arp-unanswered",
        "illegal-source",
        "reserved-type",
        "host-address",
        "unknown-network",
        "not-local",
        "not-ours",
        "quoted-packet",
        "no-mapping",
    ] {
        assert!(tally.drops.get(reason).is_some_and(|n| *n > 10), "{reason}: {:?}", tally.drops);
    }
    assert!(tally.kinds["by the IPv4 address that many have"].1 > 1000, "{:?}", tally.kinds);
}
