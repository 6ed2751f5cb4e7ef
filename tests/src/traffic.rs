//! What guests send each other, with the programs that a guest has.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

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
    let limit = Duration::from_secs(180);
    receiver.run("rm -f /tmp/received /tmp/received.all")?;
    receiver.spawn(&format!("nc -l -p {PORT} >/tmp/received && touch /tmp/received.all"), "/tmp/nc.log")?;
    receiver.run(&format!("until netstat -ltn | grep -q :{PORT}; do sleep 0.1; done"))?;
    let made =
        format!("dd if=/dev/urandom of=/tmp/sent bs=1M count={megabytes} 2>/dev/null; sha256sum </tmp/sent");
    let sent = sum_of(&sender.run_within(&made, limit)?)?;
    let start = Instant::now();
    sender.run_within(&format!("nc -w 20 {address} {PORT} </tmp/sent"), limit)?;
    receiver.run_within(
        &format!("while netstat -tn | grep -q :{PORT}.*ESTABLISHED; do sleep 0.1; done"),
        limit,
    )?;
    let took = start.elapsed();
    let received = sum_of(&receiver.run_within("sha256sum </tmp/received", limit)?)?;
    Ok(Transfer { sent, received, took })
}

fn sum_of(said: &str) -> Result<String> {
    let sum = said.split_whitespace().next().context("sha256sum said nothing")?;
    ensure!(sum.len() == 64, "not a SHA-256: {said}");
    Ok(sum.to_owned())
}
