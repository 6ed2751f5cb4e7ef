//! A host of the fabric is the Linux kernel's own ILA (docs/linux-ila.md).

use std::collections::BTreeSet;
use std::time::Duration;

use vhost_ila_tests::capture::Running;
use vhost_ila_tests::fabric::{Fabric, SIR};
use vhost_ila_tests::linux_ila::{CsumMode, Flow, LinuxHost, documented, judge};
use vhost_ila_tests::process::output;
use vhost_ila_tests::sandbox;
use vhost_ila_tests::site::{Plan, Site};
use vhost_ila_tests::task::Task;
use vhost_ila_tests::traffic::{Shell, transfer_bytes};

/// `SIR:T` with these low words.
fn task(low: &str) -> String {
    let stem = SIR.split("::").next().unwrap();
    format!("{stem}:0:2000::{low}")
}

/// The low words of our task's addresses, and of the kernel's: an ordinary one, and the two zeros.
const OURS: [&str; 3] = ["11", "1:0", "2:ffff"];
const LINUX: [&str; 3] = ["33", "3:0", "4:ffff"];

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
    let mut linux = LinuxHost::boot(&fabric, 3, &evidence).unwrap();
    linux.guest.run("ethtool -K eth0 tx off").unwrap();
    linux.task(&task("3")).unwrap();
    for mode in MODES {
        let file = evidence.join(format!("{}.pcapng", mode.word()));
        let running = Running::start(&fabric.router, &["hv3"], &file).unwrap();
        let (mut flows, mut kinds) = (Vec::new(), String::new());
        for low in ["11", "0", "ffff"] {
            let (stem, to) = (fabric.hosts[0].locator_stem(), task(low));
            linux.route(mode, &to, &stem, &task("3")).unwrap();
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

/// hv1 is ours, with the task `web`; hv3 is Linux.
struct Pair {
    site: Site,
    web: Task,
    linux: LinuxHost,
}

impl Pair {
    /// Nothing but what docs/linux-ila.md says is set up, on either.
    fn documented(evidence: &str) -> Pair {
        let ours = documented("toml").unwrap().swap_remove(0);
        let site =
            Site::start(evidence, Plan { host_text: vec![(0, ours)], ..plan(CsumMode::NeutralMap) }).unwrap();
        // As on a wire: every checksum is in its packet.
        site.fabric.offloads("off").unwrap();
        let mut linux = LinuxHost::boot(&site.fabric, 3, &site.evidence).unwrap();
        linux.as_documented().unwrap();
        let web = Task::new("web", &site.fabric.hosts[0], &task(OURS[0]), site.config(0)).unwrap();
        web.plug().unwrap();
        Pair { site, web, linux }
    }

    /// Both tasks have more addresses.
    fn grow(&mut self) {
        LINUX[1..].iter().for_each(|low| self.linux.task(&task(low)).unwrap());
        output(self.web.command(&["unplug", "web"]).unwrap()).unwrap();
        self.site.reconfigure(0, &plan(CsumMode::NeutralMap)).unwrap();
        self.web.plug().unwrap();
    }

    /// Both have this mode; the kernel sends from its first address unless said otherwise.
    fn agree(&mut self, mode: CsumMode) {
        self.site.reconfigure(0, &plan(mode)).unwrap();
        self.linux.take(mode).unwrap();
        let locator = self.site.fabric.hosts[0].locator_stem();
        OURS.iter().for_each(|to| self.linux.route(mode, &task(to), &locator, &task(LINUX[0])).unwrap());
    }

    fn capture(&self, name: &str) -> Running {
        // Behind the router, where what the guest left to its card is finished.
        let file = self.site.evidence.join(format!("{name}.pcapng"));
        Running::start(&self.site.fabric.router, &["hv1"], &file).unwrap()
    }

    /// How many of `count` echo requests of `size` bytes the kernel's task had answered.
    fn kernel_pings(&mut self, to: &str, size: u32, count: u32) -> u32 {
        let ping = format!("ping -i 0.2 -W 2 -c {count} -s {size} {}", task(to));
        let said = self.linux.guest.try_run(&ping, Duration::from_secs(30)).unwrap().output;
        received(&said)
    }

    /// The same of ours.
    fn web_pings(&mut self, to: &str, size: u32, count: u32) -> u32 {
        let from = task(OURS[0]);
        let ping = format!("ping -i 0.2 -W 2 -c {count} -s {size} -I {from} {} || true", task(to));
        received(&self.web.run_within(&ping, Duration::from_secs(30)).unwrap())
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.site.daemons[0].drops(reason).unwrap()
    }
}

/// The first host's config: the task, where the kernel's tasks are, and how its host is spoken to.
fn plan(mode: CsumMode) -> Plan {
    let addresses = OURS.map(task);
    let mut text = format!("[attachment.web]\nkind = \"tun\"\naddresses = {addresses:?}\n");
    for low in LINUX {
        // What cannot be reached is refused (docs/linux-ila.md, "The two zeros").
        if mode != CsumMode::NeutralMapAuto || !low.ends_with(":0") {
            text += &format!("[[mapping]]\naddress = \"{}\"\nlocator = \"2001:db8:0:3::/64\"\n", task(low));
        }
    }
    if mode != CsumMode::NeutralMap {
        text += &format!("[[peer]]\nlocator = \"2001:db8:0:3::/64\"\nchecksum = \"{}\"\n", mode.word());
    }
    Plan { hosts: vec!["hv1"], host_text: vec![(0, text)], ..Plan::of(&[]) }
}

/// `3 packets transmitted, 2 packets received, ...`.
fn received(said: &str) -> u32 {
    let words: Vec<&str> = said.split_whitespace().collect();
    let at = words.windows(2).position(|two| two == ["packets", "received,"]);
    at.and_then(|at| words[at - 1].parse().ok()).unwrap_or_else(|| panic!("no ping: {said}"))
}

/// Every flow between them in `mode`.
fn flows(mode: CsumMode) -> Vec<Flow> {
    let between = |from: &str, to: &str, host: u8, by_linux| Flow {
        from: task(from),
        to: task(to),
        locator: format!("2001:db8:0:{host}::/64"),
        mode,
        by_linux,
    };
    let pairs = OURS.iter().flat_map(|ours| LINUX.map(|linux| (*ours, linux)));
    pairs.flat_map(|(ours, linux)| [between(ours, linux, 3, false), between(linux, ours, 1, true)]).collect()
}

/// Echo and TCP both ways between the ordinary addresses, and what nobody serves; every packet is as the script says.
fn talk(pair: &mut Pair, mode: CsumMode) {
    pair.agree(mode);
    let running = pair.capture(mode.word());
    assert_eq!((pair.kernel_pings(OURS[0], 56, 3), pair.web_pings(LINUX[0], 56, 3)), (3, 3), "{mode:?}");
    let (web, linux) = (&mut pair.web, &mut pair.linux.guest);
    for sums in [
        transfer_bytes(web, linux, &task(LINUX[0]), 2 << 20).unwrap(),
        transfer_bytes(linux, web, &task(OURS[0]), 2 << 20).unwrap(),
    ] {
        println!("{}: {} bytes in {:?}, SHA-256 {}", mode.word(), 2 << 20, sums.took, sums.sent);
        assert_eq!(sums.sent, sums.received, "{mode:?}");
    }
    // A closed port of UDP: an ICMPv6 error about the other's packet, each way.
    let ask = |whom: &str| format!("nslookup -timeout=1 -retry=1 a.example {}; true", task(whom));
    web.run_within(&ask(LINUX[0]), Duration::from_secs(20)).unwrap();
    linux.run(&ask(OURS[0])).unwrap();
    let captured = running.finish().unwrap();
    let counts = judge(&flows(mode), &captured).unwrap();
    println!("{}: ours to the kernel {:?}, back {:?}", mode.word(), counts[0], counts[1]);
    for counts in &counts[..2] {
        assert!(counts["tcp"] > 200 && counts["udp"] >= 1 && counts["icmpv6"] >= 7, "{counts:?}");
    }
    let errors = captured.count("icmpv6.type == 1 && icmpv6.code == 4").unwrap();
    assert!(errors >= 2, "a closed port was told of {errors} times");
    let (good, bad) = captured.checksums("tcp || icmpv6.type == 128").unwrap();
    match mode {
        CsumMode::NeutralMap | CsumMode::NeutralMapAuto => assert!(good > 400 && bad == 0, "{good}, {bad}"),
        CsumMode::NoAction | CsumMode::AdjTransport => assert!(bad > 400 && good == 0, "{good}, {bad}"),
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn talks_with_a_task_of_ours_in_both_modes_of_the_draft() {
    let mut pair = Pair::documented("e2e/kernel-ila-draft");
    assert_eq!((pair.kernel_pings(OURS[0], 56, 2), pair.web_pings(LINUX[0], 56, 2)), (2, 2), "as documented");
    pair.grow();
    for mode in [CsumMode::NeutralMap, CsumMode::NoAction] {
        talk(&mut pair, mode);
        // Fragments, and both zeros of the kernel's: we send them with C = 0.
        assert_eq!((pair.kernel_pings(OURS[0], 3000, 2), pair.web_pings(LINUX[0], 3000, 2)), (2, 2));
        let running = pair.capture(&format!("{}-zeros", mode.word()));
        for zero in &LINUX[1..] {
            assert_eq!(pair.web_pings(zero, 56, 2), 2, "{mode:?}, {zero}");
        }
        // To 0x0000 of ours it reaches us. To 0xffff it does where the kernel does not adjust: in its other mode, or for that route.
        assert_eq!(pair.kernel_pings(OURS[1], 56, 2), 2, "{mode:?}");
        let lost = pair.dropped("no-mapping");
        let expected = if mode == CsumMode::NeutralMap { 0 } else { 2 };
        assert_eq!(pair.kernel_pings(OURS[2], 56, 2), expected, "{mode:?}");
        assert_eq!(pair.dropped("no-mapping") - lost, u64::from(2 - expected), "{mode:?}");
        let captured = running.finish().unwrap();
        judge(&flows(mode), &captured).unwrap();
        let locator = pair.site.fabric.hosts[0].locator_stem();
        let route = (task(OURS[2]), task(LINUX[0]));
        pair.linux.route(CsumMode::NoAction, &route.0, &locator, &route.1).unwrap();
        assert_eq!(pair.kernel_pings(OURS[2], 56, 2), 2, "{mode:?}: a route of its own");
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn talks_with_a_task_of_ours_in_its_own_two_modes_if_they_are_opted_in() {
    let mut pair = Pair::documented("e2e/kernel-ila-own");
    pair.grow();
    for mode in [CsumMode::NeutralMapAuto, CsumMode::AdjTransport] {
        talk(&mut pair, mode);
        let fragments = (pair.kernel_pings(OURS[0], 3000, 1), pair.web_pings(LINUX[0], 3000, 1));
        let refused = pair.dropped("peer-checksum");
        match mode {
            CsumMode::NeutralMapAuto => {
                assert_eq!((fragments, refused), ((1, 1), 0));
                assert_eq!((pair.web_pings(LINUX[2], 56, 2), pair.kernel_pings(OURS[1], 56, 2)), (2, 2));
            }
            _ => {
                // Three fragments each, none of which passes.
                assert_eq!((fragments, refused), ((0, 0), 6));
                assert_eq!(pair.web_pings(LINUX[1], 56, 2) + pair.web_pings(LINUX[2], 56, 2), 4);
                assert_eq!(pair.kernel_pings(OURS[1], 56, 2) + pair.kernel_pings(OURS[2], 56, 2), 4);
            }
        }
        // Not opted in, nothing that it sends is accepted, by us or by the task; back in, it is.
        pair.site.reconfigure(0, &plan(CsumMode::NeutralMap)).unwrap();
        assert_eq!(pair.kernel_pings(OURS[0], 56, 2), 0, "{mode:?}");
        pair.site.reconfigure(0, &plan(mode)).unwrap();
        assert_eq!(pair.kernel_pings(OURS[0], 56, 2), 2, "{mode:?}");
    }
}
