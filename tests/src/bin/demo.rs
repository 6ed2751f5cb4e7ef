//! The demo: two guests on two hosts talk IPv4 and IPv6 through ILA, and the captures say how. `cargo xtask demo` runs it.
//!
//! Each step is a line; the first that fails ends the run with a non-zero exit status. Nothing printed is a constant: addresses
//! come from the guests' tcpdump and from the capture of the fabric, sums from the guests' sha256sum.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use vhost_ila_tests::capture::Capture;
use vhost_ila_tests::fabric::SIR;
use vhost_ila_tests::guest::Guest;
use vhost_ila_tests::notation::Reader;
use vhost_ila_tests::sandbox;
use vhost_ila_tests::site::{BLUE, Plan, Site, VM1, VM2};
use vhost_ila_tests::traffic::{self, PORT, Seen};

const MEGABYTES: u32 = 20;
const PINGS: u32 = 20;

/// What a family's traffic looks like: one TCP connection, seen in three places.
#[derive(Serialize)]
struct Family {
    family: &'static str,
    pings: u32,
    bytes: u32,
    seconds: f32,
    sha256_sent: String,
    sha256_received: String,
    /// At the sender, on the wire, at the receiver.
    addresses: [Pair; 3],
}

/// A packet's addresses, and how the draft writes them.
#[derive(Serialize)]
struct Pair {
    at: &'static str,
    source: String,
    destination: String,
    notation: [String; 2],
}

#[derive(Serialize)]
struct Summary<'a> {
    passed: bool,
    /// The step that failed, and why.
    failure: Option<String>,
    seconds: f32,
    families: &'a [Family],
}

fn main() -> ExitCode {
    let name = env::args().nth(1).unwrap_or_else(|| "demo".into());
    let start = Instant::now();
    let outcome = run(&name);
    let summary = Summary {
        passed: outcome.is_ok(),
        failure: outcome.as_ref().err().map(|error| format!("{error:#}")),
        seconds: start.elapsed().as_secs_f32(),
        families: outcome.as_deref().unwrap_or_default(),
    };
    match outcome.as_ref().map_err(|error| format!("{error:#}")).and(summarise(&name, &summary)) {
        Ok(evidence) => {
            println!("\ndemo: passed; see {evidence}/{{fabric.pcapng,guest-*.log,summary.json}}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("demo: FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Writes `summary.json`, and returns the directory that it is in.
fn summarise(name: &str, summary: &Summary) -> Result<String, String> {
    let write = || -> Result<String> {
        let evidence = sandbox::target()?.join(name);
        fs::write(evidence.join("summary.json"), serde_json::to_vec_pretty(summary)?)?;
        Ok(evidence.display().to_string())
    };
    write().map_err(|error| format!("{error:#}"))
}

fn run(name: &str) -> Result<Vec<Family>> {
    let start = Instant::now();
    let step = |what: &str| println!("[{:6.1} s] {what}", start.elapsed().as_secs_f32());

    let mut site = Site::start(name, Plan::of(&[VM1, VM2])).context("starting the hosts")?;
    step("hv1, hv2 and the fabric are up, a daemon runs on each host");
    let mut guests = site.boot().context("booting the guests")?;
    step("vm1 on hv1 and vm2 on hv2 have booted and have their addresses: DHCPv4, router advertisement");
    let capture = site.capture()?;

    let [vm1, vm2] = &mut guests[..] else { anyhow::bail!("the plan has two guests") };
    let mut talks = Vec::new();
    for (family, target) in [("IPv4", VM2.ipv4), ("IPv6", VM2.ipv6)] {
        traffic::ping(vm1, target, PINGS).with_context(|| format!("{family} ping"))?;
        step(&format!("{family}: {PINGS} of {PINGS} pings answered"));
        let talk = talk(vm1, vm2, target).with_context(|| format!("{family} transfer"))?;
        step(&format!("{family}: {MEGABYTES} MB over TCP, SHA-256 {} at both ends", &talk.2.sent[..16]));
        talks.push((family, talk));
    }
    site.daemons_must_run()?;
    let capture = capture.finish()?;

    let locators: Vec<String> = site.fabric.hosts.iter().map(|host| host.locator()).collect();
    let reader = Reader::new(SIR, &locators, &[BLUE])?;
    let mut families = Vec::new();
    for (family, (sent, received, transfer)) in talks {
        let wire = on_the_wire(&capture, &sent).with_context(|| format!("{family} in the capture"))?;
        let addresses = [("sender", &sent), ("wire", &wire), ("receiver", &received)];
        let addresses = addresses.map(|(at, seen)| pair(&reader, at, seen));
        let [sender, wire, receiver] = addresses;
        let addresses = [sender?, wire?, receiver?];
        print(family, &addresses);
        ensure!(
            addresses[0].source == addresses[2].source
                && addresses[0].destination == addresses[2].destination,
            "{family}: the receiver does not see the sender's addresses"
        );
        families.push(Family {
            family,
            pings: PINGS,
            bytes: MEGABYTES << 20,
            seconds: transfer.took.as_secs_f32(),
            sha256_sent: transfer.sent,
            sha256_received: transfer.received,
            addresses,
        });
    }
    Ok(families)
}

/// A transfer from `vm1` to `vm2`, with its first packet as both saw it.
fn talk(vm1: &mut Guest, vm2: &mut Guest, target: &str) -> Result<(Seen, Seen, traffic::Transfer)> {
    let first = format!("dst port {PORT}");
    for guest in [&mut *vm1, &mut *vm2] {
        traffic::watch(guest, &first, "/tmp/seen")?;
    }
    let transfer = traffic::transfer(vm1, vm2, target, MEGABYTES)?;
    ensure!(transfer.sent == transfer.received, "SHA-256 {} became {}", transfer.sent, transfer.received);
    Ok((traffic::seen(vm1, "/tmp/seen")?, traffic::seen(vm2, "/tmp/seen")?, transfer))
}

/// The addresses of the SYN of `sent` where it enters the fabric.
fn on_the_wire(capture: &Capture, sent: &Seen) -> Result<Seen> {
    let filter = format!(
        "tcp.srcport == {} && tcp.dstport == {PORT} && tcp.flags.syn == 1 && frame.interface_name == \"hv1\"",
        sent.source_port
    );
    let packets = capture.fields(&filter, &["ipv6.src", "ipv6.dst"])?;
    let packet = packets.into_iter().next().context("no such SYN")?;
    let [source, destination] = packet.try_into().ok().context("tshark names two addresses")?;
    Ok(Seen { source, destination, source_port: sent.source_port })
}

fn pair(reader: &Reader, at: &'static str, seen: &Seen) -> Result<Pair> {
    let notation = [reader.read(&seen.source)?, reader.read(&seen.destination)?];
    Ok(Pair { at, source: seen.source.clone(), destination: seen.destination.clone(), notation })
}

fn print(family: &str, addresses: &[Pair; 3]) {
    println!("\n{family}");
    for Pair { at, source, destination, notation: [from, to] } in addresses {
        println!("  {at:8}  {source:>36} -> {destination:<36}  {from} -> {to}");
    }
}
