//! What guests send each other, with the programs that a guest has.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::capture::Capture;
use crate::guest::Guest;

/// The port that [`transfer`] uses.
pub const PORT: u16 = 5001;

/// Pings `target` `count` times, five times a second. All must be answered.
///
/// # Errors
///
/// Fails on the first loss, quoting ping.
pub fn ping(guest: &mut Guest, target: &str, count: u32) -> Result<String> {
    let limit = Duration::from_secs(30 + u64::from(count));
    let said = guest.run_within(&format!("ping -i 0.2 -c {count} {target}"), limit)?;
    ensure!(said.contains(" 0% packet loss"), "{}: packets were lost\n{said}", guest.name());
    Ok(said)
}

/// A packet as a guest's tcpdump printed it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Seen {
    /// Source address.
    pub source: String,
    /// Destination address.
    pub destination: String,
    /// Source port.
    pub source_port: u16,
}

/// Starts a tcpdump in `guest` that prints the first packet of `filter` (which must be TCP or UDP) to the guest's `file`.
///
/// # Errors
///
/// Fails when tcpdump does not begin.
pub fn watch(guest: &mut Guest, filter: &str, file: &str) -> Result<()> {
    guest.spawn(&format!("tcpdump -Z root --immediate-mode -n -l -c 1 -i eth0 '{filter}'"), file)?;
    guest.run(&format!("until grep -q 'listening on' {file}; do sleep 0.1; done")).map(drop)
}

/// Reads what [`watch`] has seen, which also puts it into the guest's log.
///
/// # Errors
///
/// Fails when it saw nothing within ten seconds.
pub fn seen(guest: &mut Guest, file: &str) -> Result<Seen> {
    let wait = format!("for i in $(seq 100); do grep ' > ' {file} && exit 0; sleep 0.1; done; exit 1");
    let said = guest.run(&wait)?;
    parse_seen(&said).with_context(|| format!("{}: tcpdump printed {said}", guest.name()))
}

/// Reads `12:00:00.5 IP6 2001:db8::1.43210 > 2001:db8::2.5001: Flags [S], ...`.
fn parse_seen(line: &str) -> Option<Seen> {
    let (from, to) = line.split_once(" > ")?;
    let (source, source_port) = from.rsplit(' ').next()?.rsplit_once('.')?;
    let (destination, _port) = to.split(": ").next()?.rsplit_once('.')?;
    let source_port = source_port.parse().ok()?;
    Some(Seen { source: source.into(), destination: destination.into(), source_port })
}

/// Starts a tcpdump that prints every packet of `filter`; [`heard`] ends it.
///
/// # Errors
///
/// Fails when tcpdump does not begin.
pub fn listen(guest: &mut Guest, filter: &str) -> Result<()> {
    guest.spawn(&format!("tcpdump -Z root --immediate-mode -n -l -v -i eth0 '{filter}'"), "/tmp/heard")?;
    guest.run("until grep -q 'listening on' /tmp/heard; do sleep 0.1; done").map(drop)
}

/// Ends [`listen`], and returns what was printed.
///
/// # Errors
///
/// Fails when nothing was listening.
pub fn heard(guest: &mut Guest) -> Result<String> {
    guest.run(
        "sleep 0.3; killall -INT tcpdump; while pidof tcpdump >/dev/null; do sleep 0.1; done; cat /tmp/heard",
    )
}

/// Starts a tcpdump that keeps every packet of `filter` in the guest; [`recorded`] ends it.
///
/// # Errors
///
/// Fails when tcpdump does not begin.
pub fn record(guest: &mut Guest, filter: &str) -> Result<()> {
    let tcpdump = format!("tcpdump -Z root --immediate-mode -U -i eth0 -w /tmp/record.pcap '{filter}'");
    guest.spawn(&tcpdump, "/tmp/record.log")?;
    guest.run("until grep -q 'listening on' /tmp/record.log; do sleep 0.1; done").map(drop)
}

/// Ends [`record`], and brings what was kept to `file`, a pcap.
///
/// # Errors
///
/// Fails when nothing was being recorded.
pub fn recorded(guest: &mut Guest, file: &Path) -> Result<Capture> {
    let hexadecimal = guest.run(
        "sleep 0.3; killall -INT tcpdump; while pidof tcpdump >/dev/null; do sleep 0.1; done; xxd -p /tmp/record.pcap",
    )?;
    let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    let bytes = digits.chunks(2).map(byte).collect::<Result<Vec<u8>>>()?;
    fs::write(file, bytes)?;
    Ok(Capture { file: file.to_owned() })
}

/// Whoever runs a line of busybox's shell.
pub trait Shell {
    /// Runs `command`, which must succeed within `limit`, and returns its output.
    ///
    /// # Errors
    ///
    /// Fails when it does not answer or exits with an error, quoting its output.
    fn run_within(&mut self, command: &str, limit: Duration) -> Result<String>;
    /// Starts `command` in the background, its output in the file `output`.
    ///
    /// # Errors
    ///
    /// Fails when nobody answers.
    fn spawn(&mut self, command: &str, output: &str) -> Result<()>;
    /// A directory for its files.
    fn directory(&self) -> String;
}

impl Shell for Guest {
    fn run_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        Guest::run_within(self, command, limit)
    }
    fn spawn(&mut self, command: &str, output: &str) -> Result<()> {
        Guest::spawn(self, command, output)
    }
    fn directory(&self) -> String {
        "/tmp".into()
    }
}

/// The two ends of a TCP transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// SHA-256 of what the sender wrote, in hexadecimal.
    pub sent: String,
    /// SHA-256 of what the receiver read.
    pub received: String,
    /// From the connection's start until the receiver had all.
    pub took: Duration,
}

/// Moves `megabytes` of random bytes by TCP to port [`PORT`] of `address`, which is `receiver`'s.
///
/// # Errors
///
/// Fails when the connection cannot be made or does not end within three minutes.
pub fn transfer(sender: &mut Guest, receiver: &mut Guest, address: &str, megabytes: u32) -> Result<Transfer> {
    transfer_bytes(sender, receiver, address, megabytes << 20)
}

/// As [`transfer`], for a number of bytes.
///
/// # Errors
///
/// As there.
pub fn transfer_bytes(
    sender: &mut impl Shell,
    receiver: &mut impl Shell,
    address: &str,
    bytes: u32,
) -> Result<Transfer> {
    let limit = Duration::from_secs(180);
    let (from, to) = (sender.directory(), receiver.directory());
    // The receiver's input never ends (a FIFO opened both ways), or its nc would close first and end the sender's.
    receiver.run_within(&format!("rm -f {to}/received; [ -p {to}/open ] || mkfifo {to}/open"), limit)?;
    let listen = format!("nc -l -p {PORT} 0<>{to}/open >{to}/received");
    receiver.spawn(&listen, &format!("{to}/nc.log"))?;
    receiver.run_within(&format!("until netstat -ltn | grep -q :{PORT}; do sleep 0.1; done"), limit)?;
    let made = format!("head -c {bytes} /dev/urandom >{from}/sent; sha256sum <{from}/sent");
    let sent = sum_of(&sender.run_within(&made, limit)?)?;
    let start = Instant::now();
    sender.run_within(&format!("nc -w 20 {address} {PORT} <{from}/sent"), limit)?;
    receiver.run_within(
        &format!("while netstat -tn | grep -q :{PORT}.*ESTABLISHED; do sleep 0.1; done"),
        limit,
    )?;
    let took = start.elapsed();
    let received = sum_of(&receiver.run_within(&format!("sha256sum <{to}/received"), limit)?)?;
    Ok(Transfer { sent, received, took })
}

fn sum_of(said: &str) -> Result<String> {
    let sum = said.split_whitespace().next().context("sha256sum said nothing")?;
    ensure!(sum.len() == 64, "not a SHA-256: {said}");
    Ok(sum.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcpdumps_line_names_both_ends() {
        let line = "12:00:00.5 IP6 2001:db8::1.43210 > 2001:db8::2.5001: Flags [S], seq 1, win 64\n";
        let seen = parse_seen(line).unwrap();
        assert_eq!((&*seen.source, &*seen.destination), ("2001:db8::1", "2001:db8::2"));
        assert_eq!(seen.source_port, 43210);
    }
}
