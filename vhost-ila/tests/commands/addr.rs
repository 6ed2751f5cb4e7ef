//! `addr`. The addresses expected here were computed by this script, which searches for the low word that keeps the one's complement
//! sum of the address the receiver sees, instead of adding an adjustment as the program does:
//!
//! ```python
//! import ipaddress as ip
//! def total(n):
//!     s = sum(n >> 16 * i & 0xffff for i in range(8))
//!     while s > 0xffff: s = (s & 0xffff) + (s >> 16)
//!     return s % 0xffff
//! def wire(locator, identifier, seen):
//!     base = int(ip.IPv6Address(locator)) | (identifier | 1 << 60) & ~0xffff
//!     [low] = [w for w in range(0xffff) if total(base | w) == total(seen)]
//!     return ip.IPv6Address(base | low), (low - (identifier & 0xffff)) % 0xffff
//! SIR, L = int(ip.IPv6Address("2001:db8:51::")), "2001:db8:0:2::"
//! def v4(a): return 2 << 61 | 1001 << 32 | int(ip.IPv4Address(a))
//! def v6(a): return 3 << 61 | 1001 << 32 | int(ip.IPv6Address(a)) & 0xffffffff
//! def group(a):
//!     g = int(ip.IPv6Address(a))
//!     return 4 << 61 | 1001 << 32 | (g >> 112 & 15) << 28 | g & 0xffffffff
//! lui = 1 << 61 | 0x123456789abcde
//! for i, seen in [(lui, SIR | lui)] \
//!     + [(v4(a), SIR | v4(a)) for a in ("10.1.0.2", "10.1.0.0", "239.1.2.3")] \
//!     + [(f(a), int(ip.IPv6Address(a))) for f, a in ((v6, "2001:db8:b1:e::2"), (group, "ff05::1:3"))]:
//!     address, adjustment = wire(L, i, seen)
//!     print(f"{i:016x} {address} {adjustment:04x}")
//! ```

use serde_json::{Value, json};

use crate::{answer, example, refusal, refusal_with};

const DOMAIN: [&str; 4] = ["--sir", "2001:db8:51::/64", "--network", "1001=2001:db8:b1:e::/96"];
const LOCATOR: [&str; 2] = ["--locator", "2001:db8:0:2::/64"];

fn encode_arguments<'a>(who: &[&'a str]) -> Vec<&'a str> {
    [&["addr", "encode"], who, &LOCATOR, &DOMAIN].concat()
}

fn encoded(who: &[&str]) -> Value {
    let arguments = [encode_arguments(who), vec!["--json"]].concat();
    serde_json::from_str(&answer(&arguments)).expect("JSON")
}

fn decoded(address: &str) -> Value {
    let arguments = [&["addr", "decode", address, "--json"][..], &DOMAIN].concat();
    serde_json::from_str(&answer(&arguments)).expect("JSON")
}

/// Type, whom to encode, and what the script says: identifier, address, adjustment.
const GOLDEN: [(u8, &[&str], [&str; 3]); 6] = [
    (1, &["--lui", "123456789abcde"], ["20123456789abcde", "2001:db8:0:2:3012:3456:789a:ad2d", "f04e"]),
    (2, &["--vni", "1001", "10.1.0.2"], ["400003e90a010002", "2001:db8:0:2:5000:3e9:a01:f050", "f04e"]),
    (2, &["--vni", "1001", "10.1.0.0"], ["400003e90a010000", "2001:db8:0:2:5000:3e9:a01:f04e", "f04e"]),
    (2, &["--vni", "1001", "239.1.2.3"], ["400003e9ef010203", "2001:db8:0:2:5000:3e9:ef01:f251", "f04e"]),
    (3, &["--vni", "1001", "2001:db8:b1:e::2"], ["600003e900000002", "2001:db8:0:2:7000:3e9:0:8cd5", "8cd3"]),
    (4, &["--vni", "1001", "ff05::1:3"], ["800003e950010003", "2001:db8:0:2:9000:3e9:5001:ed63", "ed60"]),
];

#[test]
fn every_type_encodes_to_the_address_that_keeps_the_checksum() {
    for (number, who, [identifier, address, adjustment]) in GOLDEN {
        let fields = encoded(who);
        assert_eq!(fields["type"], number, "{who:?}");
        assert_eq!(fields["c"], true, "{who:?}");
        assert_eq!(fields["identifier"], identifier, "{who:?}");
        assert_eq!(fields["address"], address, "{who:?}");
        assert_eq!(fields["adjustment"], adjustment, "{who:?}");
    }
}

#[test]
fn decoding_gives_back_what_was_encoded() {
    for (_, who, [identifier, address, _]) in GOLDEN {
        let fields = decoded(address);
        assert_eq!(fields, encoded(who));
        assert_eq!(fields["identifier"], identifier, "C is reversed");
    }
}

#[test]
fn the_json_has_every_key_and_null_where_there_is_nothing() {
    let expected = json!({
        "type": 3, "c": false, "vnid": 1001, "tenant": "2001:db8:b1:e::2", "identifier": "600003e900000002",
        "locator": null, "sir": null, "address": "2001:db8:b1:e::2", "adjustment": null,
    });
    assert_eq!(decoded("2001:db8:b1:e::2"), expected);
    let expected = json!({
        "type": 2, "c": false, "vnid": 1001, "tenant": "10.1.0.2", "identifier": "400003e90a010002",
        "locator": "2001:db8:0:2::/64", "sir": "2001:db8:51:0:4000:3e9:a01:2",
        "address": "2001:db8:0:2:4000:3e9:a01:2", "adjustment": null,
    });
    assert_eq!(encoded(&["--vni", "1001", "10.1.0.2", "--checksum", "unmodified"]), expected);
    let expected = json!({
        "type": 0, "c": false, "vnid": null, "tenant": null, "identifier": "0000000000000001",
        "locator": "2001:db8:0:2::/64", "sir": null, "address": "2001:db8:0:2::1", "adjustment": null,
    });
    assert_eq!(decoded("2001:db8:0:2::1"), expected);
}

#[test]
fn a_low_word_of_all_ones_goes_with_c_zero() {
    let fields = encoded(&["--vni", "1001", "10.1.255.255"]);
    assert_eq!((&fields["c"], &fields["adjustment"]), (&json!(false), &Value::Null));
    assert_eq!(fields["address"], "2001:db8:0:2:4000:3e9:a01:ffff");
    assert_eq!(decoded("2001:db8:0:2:4000:3e9:a01:ffff"), fields);
}

#[test]
fn towards_a_locally_unique_identifier_a_low_word_of_zero_goes_with_c_zero_too() {
    for lui in ["12340000", "1234ffff"] {
        assert_eq!(encoded(&["--lui", lui])["c"], false, "Linux would read it back as ffff");
    }
}

#[test]
fn without_sir_the_domain_is_the_config_s() {
    let config = example("two-hosts/hv1");
    let config = config.to_str().expect("text");
    let from_config =
        answer(&["addr", "decode", "2001:db8:0:2:7000:3e9:0:8cd5", "--json", "--config", config]);
    assert_eq!(
        serde_json::from_str::<Value>(&from_config).expect("JSON"),
        decoded("2001:db8:0:2:7000:3e9:0:8cd5")
    );
    let refused = refusal(&["addr", "decode", "2001:db8::1", "--config", "/nowhere"]);
    assert!(refused.contains("--sir is not given"), "{refused}");
}

/// Its checksum would be adjusted for the wrong SIR prefix.
#[test]
fn of_several_domains_none_is_guessed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("one.toml");
    let write = |domain: &str| {
        let host = "[host]\nname = \"hv1\"\nlocator = \"2001:db8:0:1::/64\"\nsir = \"2001:db8:51::/64\"\n";
        std::fs::write(&config, format!("{host}[uplink]\nkind = \"none\"\n{domain}")).expect("written");
    };
    let encode = |locator: &str| {
        let who = ["addr", "encode", "--lui", "a1", "--json", "--locator"].map(str::to_owned);
        let rest = [locator, "--config", config.to_str().expect("text")].map(str::to_owned);
        who.into_iter().chain(rest).collect::<Vec<_>>()
    };
    write("");
    let stranger = encode("2001:db8:0:9::/64");
    let stranger: Vec<&str> = stranger.iter().map(String::as_str).collect();
    assert!(answer(&stranger).contains("2001:db8:51:0:2000::a1"), "control: there is one domain");
    write("[domain.lab]\nsir = \"2001:db8:5a::/64\"\nlocator = \"2001:db8:1:1::/64\"\n");
    let refused = refusal(&stranger);
    assert!(refused.contains("several domains: tell --sir"), "{refused}");
    let lab = encode("2001:db8:1:1::/64");
    let lab: Vec<&str> = lab.iter().map(String::as_str).collect();
    assert!(answer(&lab).contains("2001:db8:5a:0:2000::a1"), "the locator is of lab");
}

#[test]
fn the_table_for_people_says_the_same() {
    insta::assert_snapshot!(answer(&encode_arguments(&["--vni", "1001", "10.1.0.2"])), @r"
    [2001:db8:0:2]:(1001:10.1.0.2)
      type        2 IPv4 address of a virtual network
      c           1: the low word is adjusted
      vnid        1001
      tenant      10.1.0.2
      identifier  400003e90a010002
      locator     2001:db8:0:2::/64
      sir         2001:db8:51:0:4000:3e9:a01:2
      address     2001:db8:0:2:5000:3e9:a01:f050
      adjustment  f04e
    ");
}

#[test]
fn what_cannot_be_encoded_is_refused_with_the_reason() {
    for (who, reason) in [
        (&["--vni", "1001", "2001:db8::1"][..], "the address is not in the virtual network's prefix"),
        (
            &["--vni", "1001", "ff02::1:ff00:1"],
            "only multicast groups ff0S::0 to ff0S::fff:ffff can be encoded",
        ),
        (&["--vni", "1001", "ff15::1"], "only multicast groups"),
        (&["--vni", "1002", "2001:db8::1"], "the /96 of network 1002 is not known"),
    ] {
        let refused = refusal(&encode_arguments(who));
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(refused.matches(reason).count(), 1, "said once: {refused}");
    }
}

#[test]
fn what_cannot_be_decoded_is_refused_with_the_reason() {
    for (address, reason) in [
        ("2001:db8:0:2:a000::1", "type 5 is reserved"),
        ("2001:db8:0:2:c000::1", "type 6 is reserved"),
        ("2001:db8:0:2:e000::1", "type 7 is reserved"),
        ("2001:db8:0:2:4000::1", "VNID zero"),
        ("2001:db8:51:0:5000:3e9:a01:2", "never set in a SIR address"),
        ("2001:db8:0:2:7000:3ea:0:1", "the /96 of network 1002 is not known"),
        ("ff02::1", "no unicast prefix"),
    ] {
        let refused = refusal(&[&["addr", "decode", address][..], &DOMAIN].concat());
        assert!(refused.contains(reason), "{address}: {refused}");
    }
}

#[test]
fn a_command_line_that_says_too_little_or_too_much_is_refused() {
    for who in [
        &[][..],
        &["--vni", "1001"],
        &["10.1.0.2"],
        &["--lui", "1", "--vni", "1001", "10.1.0.2"],
        &["--lui", "1000000000000000"],
        &["--lui", "+1"],
        &["--vni", "0", "10.1.0.2"],
        &["--vni", "268435456", "10.1.0.2"],
        &["--vni", "1001", "10.1.0.2", "--network", "7=2001:db8::/64"],
    ] {
        refusal_with(2, &encode_arguments(who));
    }
    let two_prefixes = ["--network", "1001=2001:db8:b1:f::/96", "--vni", "1001", "10.1.0.2"];
    assert!(refusal(&encode_arguments(&two_prefixes)).contains("a network has one /96"));
}
