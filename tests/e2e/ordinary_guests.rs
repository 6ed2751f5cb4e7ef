//! Guests with the DHCP clients that people run, configured as their packages come: dhclient, systemd-networkd and dhcpcd, each told
//! all that a guest needs, in both modes of the network.
//!
//! What each got is asked of the guest (`ip` of iproute2, the clients' own files); what was said on the link is read by tshark.

use vhost_ila_tests::capture::Capture;
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::initramfs::Kit;
use vhost_ila_tests::site::{Plan, Site, VM1, VM2, Vm};
use vhost_ila_tests::traffic;

/// On the host of the first.
const VM3: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };
const VMS: [Vm; 3] = [VM1, VM2, VM3];

/// What the guests are to be told of their network.
const TOLD: &str = "dns = [\"10.1.0.53\", \"2001:db8:b1:e::53\"]\ndomain = \"blue.example\"\n\
                    search = [\"blue.example\", \"corp.example\"]\nntp = [\"10.1.0.123\", \"2001:db8:b1:e::123\"]\n";
const GATEWAY: &str = "10.1.255.254";
const GATEWAY_MAC: &str = "02:49:4c:41:00:01";

/// The link's MTU, and what IPv6 makes of it.
const MTU: &str = "cat /sys/class/net/eth0/mtu /proc/sys/net/ipv6/conf/eth0/mtu";

/// How each guest starts its client.
const CLIENTS: [&str; 3] = [
    "/sbin/dhclient -v -1 -4 eth0 && /sbin/dhclient -v -1 -6 eth0",
    // As in a container, /sys is read-only: that is how networkd knows that no udev will tell it when a link is ready.
    "mount -o remount,ro /sys; mkdir -p /run/systemd; chown -R 998:998 /run/systemd; exec /lib/systemd/systemd-networkd",
    "/sbin/dhcpcd -B -d eth0",
];

fn plan(mode: &str) -> Plan {
    let hostname = |vm: Vm| (vm.name, format!("hostname = \"{}\"", vm.name));
    Plan {
        kit: Kit::Clients,
        // Their cards say nothing of an MTU: only the gateway does.
        nic_properties: VMS.map(|vm| (vm.name, ",host_mtu=0".into())).to_vec(),
        network_keys: vec![("blue", format!("{TOLD}dhcp4 = \"{mode}\""))],
        attachment_keys: VMS.map(hostname).to_vec(),
        ..Plan::of(&VMS)
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn get_all_that_they_ask_for_by_dhclient_networkd_and_dhcpcd() {
    let site = Site::start("e2e/ordinary", plan("subnet")).unwrap();
    let mut guests = site.power_on().unwrap();
    // Each kernel is told by router advertisement.
    for guest in &mut guests {
        let told = "for i in $(seq 100); do grep -q 1480 /proc/sys/net/ipv6/conf/eth0/mtu && exit 0; sleep 0.1; done; exit 1";
        guest.run(told).unwrap();
        assert_eq!(guest.run(MTU).unwrap(), "1500\n1480\n");
    }
    start(&mut guests);
    must_be_addressed(&mut guests, 16, "");
    must_be_told(&mut guests);
    for there in [VM2, VM3] {
        traffic::ping(&mut guests[0], there.ipv4, 1).unwrap();
        traffic::ping(&mut guests[0], there.ipv6, 1).unwrap();
    }
    let [vm1, vm2, vm3] = &mut guests[..] else { panic!("three guests") };
    // Renews both leases, then rebinds them.
    vm3.run("/sbin/dhcpcd -N eth0").unwrap();
    must_be_answered(vm3, 2);
    [&mut *vm1, vm2, vm3].into_iter().for_each(get_ready_for_a_goodbye);
    vm1.run("/sbin/dhclient -r -4 eth0; /sbin/dhclient -r -6 eth0").unwrap();
    vm2.run("killall systemd-networkd").unwrap();
    vm3.run("/sbin/dhcpcd -n eth0").unwrap();
    must_be_answered(vm3, 3);
    vm3.run("/sbin/dhcpcd -k eth0").unwrap();
    let [vm1, vm2, vm3] = said(&site, &mut guests, "subnet");
    let leased = ["Discover > all", "Offer > me", "Request > all", "ACK > me"];
    vm1.must_hold(&leased, &["Release > gateway"]);
    vm1.must_hold(&["Solicit", "Advertise", "Request", "Reply"], &["Release", "Reply"]);
    vm2.must_hold(&leased, &["Release > gateway"]);
    vm2.must_hold(&["Solicit", "Reply"], &[]);
    assert!(!vm2.lines.iter().any(|line| line == "Advertise"), "rapid commit: {vm2:?}");
    vm3.must_hold(
        &leased,
        &["Request > gateway", "ACK > me", "Request > all", "ACK > me", "Release > gateway"],
    );
    vm3.must_hold(&["Solicit", "Reply", "Renew", "Reply", "Rebind", "Reply"], &["Release", "Reply"]);

    [0, 1].into_iter().for_each(|host| site.reconfigure(host, &plan("host-route")).unwrap());
    start(&mut guests);
    must_be_addressed(&mut guests, 32, &format!("{GATEWAY} dev eth0"));
    traffic::ping(&mut guests[0], VM2.ipv4, 1).unwrap();
    let [vm1, _, vm3] = &mut guests[..] else { panic!("three guests") };
    get_ready_for_a_goodbye(vm3);
    vm3.run("/sbin/dhcpcd -k eth0").unwrap();
    // An address from elsewhere, and the rest by DHCPINFORM.
    vm3.spawn(&format!("/sbin/dhcpcd -4 -B -d -s {}/16 eth0", VM3.ipv4), "/tmp/inform").unwrap();
    // A script that says of each new address that another has it.
    vm1.run("/sbin/dhclient -x -4 eth0; rm /var/lib/dhcp/*; echo '[ $reason != BOUND ]' >/tmp/no; sed -i '1i #!/bin/sh' /tmp/no; chmod 755 /tmp/no").unwrap();
    vm1.run("timeout 3 /sbin/dhclient -d -4 -sf /tmp/no eth0; true").unwrap();
    vm3.run("for i in $(seq 150); do grep -q 'using Classless Static Routes' /tmp/inform && exit 0; sleep 0.1; done; cat /tmp/inform; exit 1").unwrap();
    // Another's address, found out by probing for it.
    let probed = vm3
        .run(&format!(
            "killall dhcpcd; while pidof dhcpcd >/dev/null; do sleep 0.1; done; timeout 8 /sbin/dhcpcd -4 -B -d -S ip_address={}/16 eth0; true",
            VM2.ipv4
        ))
        .unwrap();
    assert!(probed.contains(&format!("DAD detected {}", VM2.ipv4)), "{probed}");
    let [vm1, _, vm3] = said(&site, &mut guests, "host-route");
    vm1.must_hold(&leased, &["Decline > all"]);
    vm3.must_hold(&leased, &["Release > gateway", "Inform > all", "ACK > me"]);
    assert_eq!(site.daemons[0].drops("dhcp-decline").unwrap(), 1);
}

/// A client says goodbye and drops its address at once: without the gateway's MAC at hand, the kernel would drop the goodbye too.
fn get_ready_for_a_goodbye(guest: &mut Guest) {
    traffic::ping(guest, GATEWAY, 1).unwrap();
}

/// Starts what each runs, and a capture in each.
fn start(guests: &mut [Guest]) {
    for (guest, client) in guests.iter_mut().zip(CLIENTS) {
        traffic::record(guest, "port 67 or port 68 or port 546 or port 547 or arp or icmp6").unwrap();
        guest.spawn(client, "/tmp/client.log").unwrap();
    }
}

/// Each guest has its address of both families and its routes within twenty seconds.
fn must_be_addressed(guests: &mut [Guest], length: u8, route: &str) {
    for (guest, vm) in guests.iter_mut().zip(VMS) {
        let (ipv4, ipv6) = (vm.ipv4, vm.ipv6);
        let said = guest.run(&format!(
            "for i in $(seq 100); do /bin/ip -o addr show dev eth0 >/tmp/has; /bin/ip -4 route >>/tmp/has; /bin/ip -6 route >>/tmp/has; \
             grep -q 'inet {ipv4}/{length} ' /tmp/has && grep -q 'default via {GATEWAY} dev eth0' /tmp/has && \
             grep 'inet6 {ipv6}/128 ' /tmp/has | grep -qv tentative && grep -q 'default via fe80::1 dev eth0' /tmp/has && \
             grep -q '{route}' /tmp/has && exit 0; sleep 0.2; done; cat /tmp/has /tmp/client.log; exit 1"
        ));
        said.unwrap_or_else(|error| panic!("{}: {error}", vm.name));
    }
}

/// What each client made of what it was told besides.
fn must_be_told(guests: &mut [Guest]) {
    let [vm1, vm2, vm3] = guests else { panic!("three guests") };
    // Its script keeps the resolvers of the family that came last; the lease has the other.
    let said =
        vm1.run(&format!("{MTU}; hostname; cat /etc/resolv.conf /var/lib/dhcp/dhclient.leases")).unwrap();
    has_all(
        &said,
        &[
            "1480\n1480\nvm1\n",
            "search blue.example. corp.example.\n",
            "nameserver 2001:db8:b1:e::53\n",
            "interface-mtu 1480;",
            "domain-name-servers 10.1.0.53;",
            "domain-search \"blue.example.\", \"corp.example.\";",
            "ntp-servers 10.1.0.123;",
            "domain-name \"blue.example\";",
            "host-name \"vm1\";",
            "dhcp-lease-time 3600;",
        ],
    );
    let said =
        vm2.run(&format!("{MTU}; cat /run/systemd/netif/leases/2 /run/systemd/netif/links/2")).unwrap();
    has_all(
        &said,
        &[
            // It does not take an MTU from DHCPv4 unless it is told to.
            "1500\n1480\n",
            "MTU=1480\n",
            "T1=1800\nT2=3150\nLIFETIME=3600\n",
            "DOMAINNAME=blue.example\n",
            "HOSTNAME=vm2\n",
            "OPER_STATE=routable\n",
            "DNS=10.1.0.53 2001:db8:b1:e::53 ",
            "NTP=10.1.0.123 2001:db8:b1:e::123\n",
        ],
    );
    let said = vm3.run("hostname; cat /etc/resolv.conf").unwrap();
    has_all(
        &said,
        &[
            "vm3.blue.example\n",
            "domain blue.example\n",
            "search blue.example corp.example\n",
            "nameserver 10.1.0.53\n",
            "nameserver 2001:db8:b1:e::53\n",
        ],
    );
}

/// dhcpcd has had so many answers of each family.
fn must_be_answered(guest: &mut Guest, times: u32) {
    let count = |what: &str| format!("[ $(grep -c {what} /tmp/client.log) -ge {times} ]");
    let (v4, v6) = (count("acknowledged"), count("REPLY6"));
    let wait = format!(
        "for i in $(seq 150); do {v4} && {v6} && exit 0; sleep 0.1; done; cat /tmp/client.log; exit 1"
    );
    guest.run(&wait).unwrap();
}

fn has_all(said: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(said.contains(wanted), "no {wanted:?} in\n{said}");
    }
}

/// What was said by DHCP on a guest's link: `Offer > me`, `Request > gateway`, `Solicit`, in order.
#[derive(Debug)]
struct Dialogue {
    lines: Vec<String>,
}

impl Dialogue {
    fn of(capture: &Capture, vm: &Vm) -> Dialogue {
        let messages = capture.fields("dhcp || dhcpv6", &["_ws.col.Info", "ip.dst"]).unwrap();
        let line = |message: &Vec<String>| {
            let name = message[0].trim_start_matches("DHCP ").split([' ', '-']).next().unwrap_or_default();
            let whom = [("255.255.255.255", "all"), (GATEWAY, "gateway"), (vm.ipv4, "me")];
            match whom.iter().find(|(address, _)| *address == message[1]) {
                Some((_, whom)) => format!("{name} > {whom}"),
                None => name.to_owned(),
            }
        };
        Dialogue { lines: messages.iter().map(line).collect() }
    }

    /// These were said in this order, perhaps with others between them.
    fn must_hold(&self, first: &[&str], then: &[&str]) {
        let mut lines = self.lines.iter();
        for wanted in first.iter().chain(then) {
            assert!(lines.any(|line| line == wanted), "no {wanted:?} in its place: {:#?}", self.lines);
        }
    }
}

/// Ends the guests' captures, and returns what was said in them. What the gateway said must be without fault.
fn said(site: &Site, guests: &mut [Guest], name: &str) -> [Dialogue; 3] {
    std::array::from_fn(|at| {
        let file = site.evidence.join(format!("{}-{name}.pcap", VMS[at].name));
        let capture = traffic::recorded(&mut guests[at], &file).unwrap();
        let gateways = format!("eth.src == {GATEWAY_MAC}");
        let faults = capture.fields(
            &format!("{gateways} && (_ws.malformed || _ws.expert.severity >= 0x600000)"),
            &["frame.number", "_ws.col.Info", "_ws.expert.message"],
        );
        assert_eq!(faults.unwrap(), [[""; 0]; 0], "{}", file.display());
        let (good, bad) = capture.checksums(&format!("{gateways} && !arp")).unwrap();
        assert!(good >= 4 && bad == 0, "{good} good checksums, {bad} bad in {}", file.display());
        Dialogue::of(&capture, &VMS[at])
    })
}
