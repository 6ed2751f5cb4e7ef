//! What identifiers cost a daemon: seconds to start with them, and memory for each.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use vhost_ila_tests::process::{Owned, wait_for};
use vhost_ila_tests::{sandbox, scoreboard};

/// What ten million may take, in bytes and seconds.
const MANY: u64 = 10_000_000;
const RESIDENT: u64 = 480 << 20;
const LIMIT: Duration = Duration::from_secs(20);
/// What two hundred thousand may take: their 45 bytes, and the daemon itself.
const SOME: u64 = 200_000;
const RESIDENT_OF_SOME: u64 = 50 << 20;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn identifiers_by_the_million_fit_a_small_daemon() {
    sandbox::entered().unwrap();
    let (count, resident) = if scoreboard::long() { (MANY, RESIDENT) } else { (SOME, RESIDENT_OF_SOME) };
    let binary = PathBuf::from(std::env::var_os("VHOST_ILA_BINARY").expect("run by cargo xtask"));
    // Beside the program, where there is room; the sandbox has nothing else there.
    let directory = binary.with_file_name("identifiers");
    fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name);
    let mut lines = BufWriter::new(File::create(path("where")).unwrap());
    for n in 0..count {
        // In no order, of two networks and a thousand hosts.
        let mixed = n.wrapping_mul(0x9e37_79b1) % (1 << 24);
        let network = if n < 1 << 23 { "blue" } else { "red" };
        let [_, a, b, c] = (mixed as u32).to_be_bytes();
        let address = std::net::Ipv4Addr::new(10, a, b, c);
        if [0, (1 << 24) - 1, (1 << 24) - 2].contains(&mixed) {
            continue;
        }
        writeln!(lines, "{network} {address} 2001:db8:0:{:x}::/64", 0x100 + n % 1000).unwrap();
    }
    lines.flush().unwrap();
    let runtime = directory.display();
    let config = format!(
        "[host]\nname = \"hv1\"\nlocator = \"2001:db8:0:1::/64\"\nsir = \"2001:db8:51::/64\"\nruntime = \"{runtime}\"\n\
         [uplink]\nkind = \"none\"\n[mappings]\nfile = \"where\"\n\
         [network.blue]\nvni = 1\nipv4 = \"10.0.0.0/8\"\n[network.red]\nvni = 2\nipv4 = \"10.0.0.0/8\"\n"
    );
    fs::write(path("host.toml"), config).unwrap();
    let mut command = Command::new(&binary);
    command.arg("run").arg("--config").arg(path("host.toml"));
    // The socket is there before the table is: the log says when it runs.
    let _ = fs::remove_file(path("log"));
    let begin = Instant::now();
    let daemon = Owned::spawn("vhost-ila", command, &path("log")).unwrap();
    let runs = || Ok(fs::read_to_string(path("log"))?.contains("running; control socket").then_some(()));
    wait_for("the daemon to run", 4 * LIMIT, runs).unwrap();
    let took = begin.elapsed();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let kilobytes = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (now, most) = (kilobytes("VmRSS:") << 10, kilobytes("VmHWM:") << 10);
    println!(
        "{count} identifiers: {} ms, {} MiB now, {} MiB at most",
        took.as_millis(),
        now >> 20,
        most >> 20
    );
    assert!(took < LIMIT, "{took:?}");
    assert!(now < resident, "{now} bytes");
    fs::remove_dir_all(&directory).unwrap();
}
