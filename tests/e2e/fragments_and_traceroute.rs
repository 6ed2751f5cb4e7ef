//! What an ordinary guest's tools find: packets larger than the link come in pieces, and every hop has a name; on one host and on two.

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};

/// On the host of the first.
const VM3: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };
/// Stands for every router of the fabric.
const GATEWAY: [&str; 2] = ["10.1.255.254", "2001:db8:b1:e::ffff:fffe"];

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn of_a_neighbour_on_the_same_host_and_of_one_on_another() {
    let site = Site::start("e2e/traces", Plan::of(&[VM1, VM3, VM2])).unwrap();
    let mut guests = site.boot().unwrap();
    let vm1 = &mut guests[0];
    // Between hosts: the fabric's router, and the other host's kernel, which forwards to its TUN.
    for (there, hops) in [(VM3, 1), (VM2, 3)] {
        for (family, (target, trace)) in
            [(there.ipv4, "traceroute"), (there.ipv6, "traceroute6")].into_iter().enumerate()
        {
            let said = vm1.run(&format!("ping -c 3 -i 0.2 -W 3 -s 4000 {target}")).unwrap();
            assert!(said.contains(" 0% packet loss"), "echo in pieces\n{said}");
            traced(vm1, &format!("{trace} -n -q 1 -w 3 -m 4 {target}"), (family, hops, target));
            // UDP in pieces, far enough to be no error of a router.
            let said = vm1.run(&format!("{trace} -n -q 1 -w 3 -f 9 -m 9 {target} 4000")).unwrap();
            assert!(said.contains(&format!(" 9  {target} ")), "UDP in pieces\n{said}");
        }
    }
}

/// `command` names `hops` hops: the last is the target, those before the gateway.
fn traced(guest: &mut Guest, command: &str, (family, hops, target): (usize, usize, &str)) {
    let said = guest.run(command).unwrap();
    for hop in 1..=hops {
        let name = if hop == hops { target } else { GATEWAY[family] };
        assert!(said.contains(&format!(" {hop}  {name} ")), "{command}\n{said}");
    }
    assert!(!said.contains(&format!(" {}  ", hops + 1)), "{command}\n{said}");
}
