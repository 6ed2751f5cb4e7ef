//! `check`, the config part. Whole configs and their refusals are tested beside `config/`.

use crate::{answer, example, refusal};

#[test]
fn a_good_config_is_summed_up_in_a_line() {
    for name in ["two-hosts/hv1", "two-hosts/hv2", "one-host.toml"] {
        let path = example(name);
        let said = answer(&["check", "--config", path.to_str().expect("text")]);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let path = example("two-hosts/hv1");
    let said = answer(&["--config", path.to_str().expect("text"), "check"]);
    assert!(
        said.ends_with(
            "two-hosts/hv1: host hv1, uplink ila0 of 1500 bytes, 1 network, 1 attachment, 2 mappings\n"
        ),
        "{said}"
    );
}

#[test]
fn a_bad_config_is_refused_with_file_line_and_remedy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, "[host]\nnmae = \"hv1\"\n").expect("written");
    let path = path.to_str().expect("text");
    let refused = refusal(&["check", "--config", path]);
    assert!(refused.contains(&format!("{path}:2: unknown field `nmae`")), "{refused}");
    assert!(refused.contains("remedy: did you mean `name`?"), "{refused}");
}

#[test]
fn an_outside_without_a_fabric_is_warned_of() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("hv1.toml");
    let said = |fabric: &str, outside: bool, gateway: &str| {
        let text = format!(
            "[host]\nname = \"hv1\"\nlocator = \"2001:db8:0:1::/64\"\nsir = \"2001:db8:51::/64\"\n{fabric}\n\
             [uplink]\nkind = \"tun\"\n{gateway}\n[network.blue]\nvni = 1001\nipv4 = \"10.1.0.0/16\"\n\
             outside = {outside}\n"
        );
        std::fs::write(&path, text).expect("written");
        answer(&["check", "--config", path.to_str().expect("text")])
    };
    let fabric = "fabric = [\"2001:db8::/56\"]";
    let warning = "warning: network.blue is about the outside, and [host] has no fabric";
    assert!(said("", true, "").contains(warning), "{}", said("", true, ""));
    assert!(said("", false, "[gateway]").contains("warning: [gateway] is about the outside"));
    for quiet in [said(fabric, true, "[gateway]"), said("", false, "")] {
        assert!(!quiet.contains("warning"), "{quiet}");
    }
}
