//! A host of the fabric is the Linux kernel's own ILA (docs/linux-ila.md).

use std::collections::BTreeSet;

use vhost_ila_tests::capture::Running;
use vhost_ila_tests::fabric::{Fabric, SIR};
use vhost_ila_tests::linux_ila::{CsumMode, Flow, LinuxHost, judge};
use vhost_ila_tests::sandbox;

/// `SIR:T` with this low word.
fn task(low: &str) -> String {
    let stem = SIR.split("::").next().unwrap();
    format!("{stem}:0:2000::{low}")
}

const MODES: [CsumMode; 4] =
    [CsumMode::NeutralMap, CsumMode::NoAction, CsumMode::NeutralMapAuto, CsumMode::AdjTransport];

/// What docs/linux-ila.md says of the kernel, without any daemon of ours: where it sends what, in each of its modes, and that 0x0000 and
/// 0xffff are one identifier to it wherever it adjusts. Of adj-transport, that its checksums are no better on the wire than unmodified ones.
#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn sends_as_the_script_says_in_each_of_its_modes() {
    sandbox::entered().unwrap();
    let evidence = sandbox::evidence("e2e/kernel-ila-sends").unwrap();
    let fabric = Fabric::new(&[]).unwrap();
    let mut linux = LinuxHost::boot(&fabric, 3, CsumMode::NeutralMap, &evidence).unwrap();
    linux.guest.run("ethtool -K eth0 tx off").unwrap();
    linux.task(&task("3")).unwrap();
    for mode in MODES {
        let file = evidence.join(format!("{}.pcapng", mode.word()));
        let running = Running::start(&fabric.router, &["hv3"], &file).unwrap();
        let (mut flows, mut kinds) = (Vec::new(), String::new());
        for low in ["11", "0", "ffff"] {
            let (stem, to) = (fabric.hosts[0].locator_stem(), task(low));
            linux.route_in(mode, &to, &stem, &task("3")).unwrap();
            kinds += &format!("ping -c 1 -W 1 {to} & ping -c 1 -W 1 -s 3000 {to} & nc -w 1 {to} 6000 & ");
            kinds += &format!("nslookup -timeout=1 -retry=1 a.example {to} & ");
            let locator = format!("{stem}/64");
            flows.push(Flow { from: task("3"), to, locator, mode, by_linux: true });
        }
        linux.guest.run(&format!("{kinds} wait")).unwrap();
        let captured = running.finish().unwrap();
        let counts = judge(&flows, &captured).unwrap();
        for (flow, counts) in flows.iter().zip(&counts) {
            println!("{} to {}: {counts:?}", mode.word(), flow.to);
            let of = |kind: &str| counts.get(kind).copied().unwrap_or_default();
            assert!(
                of("tcp") >= 1 && of("udp") >= 1 && of("icmpv6") >= 2 && of("fragments") >= 3,
                "{counts:?}"
            );
        }
        let adjusts = matches!(mode, CsumMode::NeutralMap | CsumMode::NeutralMapAuto);
        let sent = format!("ipv6.src == {}", task("3"));
        let destinations: BTreeSet<_> = captured.fields(&sent, &["ipv6.dst"]).unwrap().into_iter().collect();
        assert_eq!(destinations.len(), if adjusts { 2 } else { 3 }, "{destinations:?}");
        let (good, bad) = captured.checksums(&format!("{sent} && !ipv6.fraghdr")).unwrap();
        assert_eq!((good > 0, bad > 0), (adjusts, !adjusts), "tshark: {good} good, {bad} bad");
    }
}
