//! Cycles per packet of the worker, beside DPDK's own plain forwarding, under the same DPDK front-end. `cargo xtask bench` runs it.
//!
//! ```text
//! core 1: testpmd, two virtio-user NICs, 5tswap: what arrives at one goes back to its sender, addresses swapped
//!            │ a.sock          │ b.sock
//! core 0: vhost-ila: 10.1.0.1 <──> 10.1.0.2 on one host        |  in turn with  |  testpmd, io forwarding between two vhost ports
//! ```
//!
//! 256 packets of 64 bytes circulate. Rounds are interleaved and their median counts, since the machine is never quite alone;
//! ratios of one run can be compared, figures of different runs cannot.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use vhost_ila_tests::process::{Owned, output, wait_for};
use vhost_ila_tests::sandbox;
use vhost_ila_tests::testpmd::{self, Pages, Testpmd};

/// Between the start of traffic and of measuring.
const SETTLE: Duration = Duration::from_secs(2);
/// One round's measuring.
const MEASURE: Duration = Duration::from_secs(5);

/// The virtual gateway's address, which every tenant sends to.
const GATEWAY: &str = "02:49:4c:41:00:01";

const CONFIG: &str = r#"
[host]
name = "bench"
locator = "2001:db8:0:1::/64"
sir = "2001:db8:51::/64"
runtime = "/run/vhost-ila/bench"
spin = "1s"
[uplink]
kind = "none"
[network.blue]
vni = 1001
ipv4 = "10.1.0.0/16"
[attachment.a]
network = "blue"
kind = "vhost-user"
socket = "a.sock"
mode = "server"
mac = "02:00:00:00:00:01"
addresses = ["10.1.0.1"]
[attachment.b]
network = "blue"
kind = "vhost-user"
socket = "b.sock"
mode = "server"
mac = "02:00:00:00:00:02"
addresses = ["10.1.0.2"]
"#;

/// One round's result.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    /// Busy cycles of the back-end for each packet.
    cycles: f64,
    /// Million packets a second, both directions.
    mpps: f64,
}

fn main() -> Result<()> {
    sandbox::entered()?;
    let rounds: usize = env::args().nth(1).map_or(Ok(3), |rounds| rounds.parse())?;
    let evidence = sandbox::evidence("bench")?;
    let steal = steal()?;
    let mut results: [Vec<Round>; 2] = Default::default();
    for round in 1..=rounds {
        let ours = vhost_ila(&evidence).with_context(|| format!("round {round}: vhost-ila"))?;
        let plain = testpmd_forwarding(&evidence).with_context(|| format!("round {round}: DPDK"))?;
        println!(
            "round {round}: vhost-ila {:.0} cycles/packet, {:.2} Mpps; DPDK plain forwarding {:.0} cycles/packet, {:.2} Mpps",
            ours.cycles, ours.mpps, plain.cycles, plain.mpps
        );
        results[0].push(ours);
        results[1].push(plain);
    }
    let stolen = self::steal()? - steal;
    let [ours, plain] = results.each_ref().map(|rounds| median(rounds));
    println!(
        "median of {rounds}: vhost-ila {:.0} cycles/packet, {:.2} Mpps; DPDK plain forwarding {:.0} cycles/packet, {:.2} Mpps; \
         ratio {:.2}; {stolen} ticks stolen",
        ours.cycles,
        ours.mpps,
        plain.cycles,
        plain.mpps,
        ours.cycles / plain.cycles
    );
    let file = evidence.join("bench.json");
    let [ours, plain] = &results;
    let summary =
        serde_json::json!({ "vhost_ila": ours, "dpdk_plain_forwarding": plain, "stolen_ticks": stolen });
    fs::write(&file, serde_json::to_vec_pretty(&summary)?)?;
    println!("{}", file.display());
    Ok(())
}

/// The daemon between two tenants of one network, on core 0.
fn vhost_ila(evidence: &Path) -> Result<Round> {
    let runtime = Path::new(sandbox::RUNTIME).join("bench");
    fs::create_dir_all(&runtime)?;
    let config = evidence.join("host.toml");
    fs::write(&config, CONFIG)?;
    let binary = PathBuf::from(env::var_os("VHOST_ILA_BINARY").context("run it by cargo xtask bench")?);
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(&binary).arg("run").arg("--config").arg(&config);
    let mut daemon = Owned::spawn("vhost-ila", command, &evidence.join("vhost-ila.log"))?;
    let sockets = ["a.sock", "b.sock"].map(|name| runtime.join(name));
    wait_for("vhost-ila's sockets", Duration::from_secs(20), || {
        daemon.must_run()?;
        Ok(sockets.iter().all(|socket| socket.exists()).then_some(()))
    })?;
    let worked = || -> Result<(u64, u64)> {
        let mut show = Command::new(&binary);
        show.args(["show", "counters", "--json", "--config"]).arg(&config);
        let counters: Value = serde_json::from_str(&output(show)?)?;
        let workers = counters["workers"].as_array().context("`show counters` has workers")?;
        let sum = |key: &str| workers.iter().filter_map(|worker| worker[key].as_u64()).sum();
        Ok((sum("busy_cycles"), sum("packets")))
    };
    let front_end = FrontEnd::start(&sockets, evidence)?;
    sleep(SETTLE);
    let (cycles, packets) = worked()?;
    let start = Instant::now();
    sleep(MEASURE);
    let (cycles_after, packets_after) = worked()?;
    let took = start.elapsed();
    front_end.finish()?;
    drop(daemon);
    sockets.iter().try_for_each(|socket| remove(socket))?;
    remove(&runtime.join("control.sock"))?;
    let packets = packets_after - packets;
    ensure!(packets > 100_000, "{packets} packets in {took:?}: nothing circulates");
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds are far below 2^52")]
    let (cycles, packets) = ((cycles_after - cycles) as f64, packets as f64);
    Ok(Round { cycles: cycles / packets, mpps: packets / took.as_secs_f64() / 1e6 })
}

/// testpmd between two vhost ports, on core 0: no network virtualization at all.
fn testpmd_forwarding(evidence: &Path) -> Result<Round> {
    let sockets = ["a.sock", "b.sock"].map(|name| Path::new(sandbox::RUNTIME).join(format!("dpdk-{name}")));
    sockets.iter().try_for_each(|socket| remove(socket))?;
    let mut command = testpmd("be", "0@0,1@0")?;
    for (number, socket) in sockets.iter().enumerate() {
        command.args(["--vdev", &format!("net_vhost{number},iface={}", socket.display())]);
    }
    command.args([
        "--",
        "-i",
        "--forward-mode=io",
        "--nb-cores=1",
        "--total-num-mbufs=20000",
        "--record-core-cycles",
    ]);
    let mut back_end = Testpmd::start(command, &evidence.join("testpmd-back-end.log"))?;
    wait_for("DPDK's sockets", Duration::from_secs(30), || {
        back_end.must_run()?;
        Ok(sockets.iter().all(|socket| socket.exists()).then_some(()))
    })?;
    back_end.say("start")?;
    let front_end = FrontEnd::start(&sockets, evidence)?;
    sleep(SETTLE);
    back_end.say("clear port stats all\nclear fwd stats all")?;
    let start = Instant::now();
    sleep(MEASURE);
    back_end.say("stop")?;
    let took = start.elapsed();
    sleep(Duration::from_millis(500));
    front_end.finish()?;
    let said = back_end.finish()?;
    let number = |before: &str| -> Result<f64> {
        let at = said.rfind(before).with_context(|| format!("testpmd did not say {before}"))?;
        let rest = said[at + before.len()..].trim_start_matches([' ', ':']);
        let digits: String = rest.chars().take_while(|char| char.is_ascii_digit() || *char == '.').collect();
        Ok(digits.parse()?)
    };
    let packets = number("total RX packets=").or_else(|_| number("RX-packets"))?;
    Ok(Round { cycles: number("CPU cycles/packet=")?, mpps: packets / took.as_secs_f64() / 1e6 })
}

/// The generator: testpmd with a virtio-user NIC on each socket, on core 1.
struct FrontEnd(Testpmd);

impl FrontEnd {
    fn start(sockets: &[PathBuf; 2], evidence: &Path) -> Result<FrontEnd> {
        let mut command = testpmd("fe", "0@1,1@1")?;
        for (number, socket) in sockets.iter().enumerate() {
            let mac = format!("02:00:00:00:00:0{}", number + 1);
            let device =
                format!("net_virtio_user{number},path={},queue_size=1024,mac={mac}", socket.display());
            command.args(["--vdev", &device]);
        }
        command.args(["--", "-i", "--forward-mode=5tswap", "--port-topology=loop", "--nb-cores=1"]);
        command.args(["--txd=1024", "--rxd=1024", "--total-num-mbufs=20000", "--tx-ip=10.1.0.1,10.1.0.2"]);
        command.args([format!("--eth-peer=0,{GATEWAY}"), format!("--eth-peer=1,{GATEWAY}")]);
        let mut testpmd = Testpmd::start(command, &evidence.join("testpmd-front-end.log"))?;
        sleep(Duration::from_secs(3));
        testpmd.must_run()?;
        testpmd.say("set txpkts 64\nstart tx_first 8")?;
        Ok(FrontEnd(testpmd))
    }

    fn finish(mut self) -> Result<()> {
        self.0.say("stop")?;
        self.0.finish().map(drop)
    }
}

fn testpmd(prefix: &str, lcores: &str) -> Result<Command> {
    testpmd::command(prefix, Pages::Huge(256), lcores)
}

fn median(rounds: &[Round]) -> Round {
    let middle = |value: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Round { cycles: middle(|round| round.cycles), mpps: middle(|round| round.mpps) }
}

/// Ticks that the hypervisor took from this machine so far (`/proc/stat`, the eighth figure of the first line).
fn steal() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("an empty /proc/stat")?;
    Ok(line.split_whitespace().nth(8).context("no steal time")?.parse()?)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
