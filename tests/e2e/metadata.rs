//! What guests are told of themselves at 169.254.169.254 and fd00:ec2::254: by busybox from two tenants with the same IPv4 address, and
//! by cloud-init's own code.
//!
//! cloud-init itself would be most of a guest's initramfs. Its EC2 data source runs outside, and each of its connections is carried by a real
//! guest, byte by byte:
//!
//! ```text
//!   python3, cloudinit.sources.DataSourceEc2 ──TCP──> relay of this test ──serial port──> guest: nc ──TCP──> gateway
//! ```

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::oracle;
use vhost_ila_tests::process::output;
use vhost_ila_tests::sandbox::RUNTIME;
use vhost_ila_tests::site::{Plan, RED, Site, VM1, VM2, Vm};
use vhost_ila_tests::tools::Set;

/// As vm1, but of another tenant.
const RED1: Vm =
    Vm { name: "red1", network: RED, mac: "52:54:00:00:01:01", ipv6: "2001:db8:b1:e:0:1:0:1", ..VM1 };

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1r2m0Jb0w3Xf8t7mZ0bqg1wW8oWk6bqf2m0k5v2x1y";

fn user_data(vm: &Vm) -> String {
    // Longer than any window of the service's.
    format!("#cloud-config\nruncmd: [echo, {}]\n", vm.name).repeat(500)
}

fn plan() -> Plan {
    // Below the runtime directory, which is there before the site is.
    fs::create_dir_all(RUNTIME).unwrap();
    let keys = [VM1, RED1].map(|vm| {
        let file = format!("{RUNTIME}/{}.user-data", vm.name);
        fs::write(&file, user_data(&vm)).unwrap();
        let name = vm.name;
        let keys = format!(
            "hostname = \"{name}\"\ninstance_id = \"i-{name}\"\nssh_keys = [\"{KEY} {name}\"]\nuser_data = \"{file}\""
        );
        (name, keys)
    });
    Plan {
        attachment_keys: keys.to_vec(),
        network_keys: vec![("blue", "domain = \"blue.example\"".into())],
        ..Plan::of(&[VM1, RED1, VM2])
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn each_tenants_guest_reads_its_own_and_cloud_init_understands_it() {
    let site = Site::start("e2e/metadata", plan()).unwrap();
    let mut guests = site.power_on_only(&[VM1, RED1]).unwrap();
    for (guest, vm) in guests.iter_mut().zip([VM1, RED1]) {
        vhost_ila_tests::site::address(&vm, guest).unwrap();
    }
    for (guest, (vm, hostname)) in guests.iter_mut().zip([(VM1, "vm1.blue.example"), (RED1, "red1")]) {
        for service in ["169.254.169.254", "fd00:ec2::254"] {
            let mut get = |path: &str| get(guest, service, &format!("/latest/{path}"));
            assert_eq!(get("meta-data/instance-id"), (200, format!("i-{}", vm.name)));
            assert_eq!(get("meta-data/local-hostname"), (200, hostname.to_owned()));
            assert_eq!(get("meta-data/ipv6"), (200, vm.ipv6.to_owned()));
            assert_eq!(get("meta-data/public-keys/0/openssh-key"), (200, format!("{KEY} {}", vm.name)));
            assert_eq!(get("user-data"), (200, user_data(&vm)));
            assert_eq!(get("meta-data/ami-id").0, 404);
        }
    }
    crawled_by_cloud_init(&mut guests[0]);
}

/// Status and body. By hand: wget of a busybox that is linked statically cannot look up the port of "http", and crashes.
fn get(guest: &mut Guest, service: &str, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\\r\\nHost: {service}\\r\\n\\r\\n");
    let said = guest.run(&format!("printf '{request}' | nc -w 10 {service} 80 | tr -d '\\r'; echo")).unwrap();
    let (head, body) = said.split_once("\n\n").unwrap_or_else(|| panic!("no HTTP: {said}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = body.strip_suffix('\n').unwrap_or(body);
    (status.unwrap_or_else(|| panic!("no status: {head}")), body.to_owned())
}

fn crawled_by_cloud_init(guest: &mut Guest) {
    let mut up = Set::open("net").unwrap().tool("ip").unwrap().command();
    up.args(["link", "set", "lo", "up"]);
    output(up).unwrap();
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", relay.local_addr().unwrap());
    let mut crawl = Set::open("cloud-init").unwrap().tool("python3").unwrap().command();
    crawl.arg(oracle::path("first_boot.py")).args([&url, VM1.mac]);
    let said = crawl_through(guest, &relay, crawl);
    let found: serde_json::Value =
        serde_json::from_str(said.lines().last().unwrap_or_default()).expect(&said);
    assert_eq!(found["token"], true, "asked by IMDSv2");
    assert_eq!(found["version"], "2021-03-23");
    assert_eq!(found["instance-id"], "i-vm1");
    assert_eq!(found["hostname"], "vm1.blue.example");
    assert_eq!(found["keys"], serde_json::json!([format!("{KEY} vm1")]));
    assert_eq!(found["user-data"], user_data(&VM1));
    assert_eq!(found["zone"], "nve-1a");
    assert_eq!(found["identity"]["privateIp"], VM1.ipv4);
    let network = &found["network"];
    assert_eq!((&network["dhcp4"], &network["dhcp6"]), (&true.into(), &true.into()), "{network}");
    assert_eq!(network["match"]["macaddress"], VM1.mac);
}

/// Runs `crawl`, its connections carried by the guest; what it said.
fn crawl_through(guest: &mut Guest, relay: &TcpListener, crawl: Command) -> String {
    let over = AtomicBool::new(false);
    relay.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        let over = &over;
        let crawling = scope.spawn(move || {
            let said = output(crawl);
            over.store(true, Ordering::Relaxed);
            said
        });
        while !over.load(Ordering::Relaxed) {
            match relay.accept() {
                Ok((client, _)) => carry(guest, client),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        crawling.join().expect("no panic").unwrap()
    })
}

/// One request to the service and its answer back, untouched.
fn carry(guest: &mut Guest, mut client: TcpStream) {
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut request = Vec::<u8>::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut buffer) {
            Ok(len) if len > 0 => request.extend(&buffer[..len]),
            _ => return,
        }
    }
    let octets: String = request.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let said =
        guest.run(&format!("printf '{octets}' | nc -w 10 169.254.169.254 80 | od -An -v -tx1")).unwrap();
    let answer: Vec<u8> =
        said.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect();
    client.write_all(&answer).unwrap();
}
