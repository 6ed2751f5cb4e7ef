//! `vhost-ila check --host` against real kernels: what it asks for is what a host needs, and its remedies are enough.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vhost_ila_tests::namespace::Namespace;
use vhost_ila_tests::sandbox;

/// What the check prints, and whether it is content.
fn check(namespace: &Namespace) -> (String, bool) {
    let binary = PathBuf::from(std::env::var_os("VHOST_ILA_BINARY").unwrap());
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-hosts/hv1");
    let mut command: Command = namespace.command(binary);
    let output =
        command.args(["check", "--host", "--config"]).arg(config).stdin(Stdio::null()).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

/// Runs the remedies under what the check fails, as an operator would paste them.
fn paste(namespace: &Namespace, report: &str) {
    let mut failed = false;
    for line in report.lines() {
        match line.strip_prefix("      ") {
            None => failed = line.starts_with("FAIL"),
            Some(remedy) if failed => {
                if let Some(arguments) = remedy.strip_prefix("ip ") {
                    namespace.ip(arguments).unwrap();
                } else if let Some((key, value)) =
                    remedy.strip_prefix("sysctl -w ").and_then(|s| s.split_once('='))
                {
                    namespace.sysctl(key, value).unwrap();
                } else {
                    panic!("{remedy}: neither ip nor sysctl");
                }
            }
            Some(_) => {}
        }
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_remedies_of_the_host_check_are_enough() {
    sandbox::entered().unwrap();
    let host = Namespace::new("bare").unwrap();
    host.ip("link add eth0 type veth peer name eth1").unwrap();
    host.ip("link set eth0 up").unwrap();
    host.ip("link set eth1 up").unwrap();
    host.ip("-6 addr add 2001:db8:f:1::2/64 dev eth0 nodad").unwrap();
    host.ip("-6 route add default via 2001:db8:f:1::1").unwrap();
    let (report, content) = check(&host);
    assert!(!content, "{report}");
    paste(&host, &report);
    let (report, content) = check(&host);
    assert!(content && !report.contains("FAIL"), "{report}");

    // Each need by itself: undone, it is seen.
    for (undo, need) in [
        ("-6 route del 2001:db8:51::/64 dev ila0", "the SIR prefix"),
        ("-6 route del 2001:db8:b1:e::/96 dev ila0", "the VNET"),
        ("-6 rule del iif ila0 lookup 100", "back into it"),
        ("-6 addr del 2001:db8:0:1::1/128 dev lo", "is on lo"),
        ("-6 addr add 2001:db8:0:1::7/64 dev eth0 nodad", "on no link"),
        ("link set ila0 mtu 1400", "the TUN"),
    ] {
        host.ip(undo).unwrap();
        let (report, content) = check(&host);
        let failed: Vec<_> = report.lines().filter(|line| line.starts_with("FAIL")).collect();
        assert!(!content && failed.len() == 1 && failed[0].contains(need), "ip {undo}: {report}");
        paste(&host, &report);
        let (report, content) = check(&host);
        assert!(content, "after ip {undo} and its remedy: {report}");
    }
}
