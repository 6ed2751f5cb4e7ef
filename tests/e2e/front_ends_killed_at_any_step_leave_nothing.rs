//! A front-end is killed behind, before and within each of its messages, its rings full: nothing of it is left, its successor is
//! served at once, and other tenants do not notice.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_ila_tests::ringpeer::beside::Beside;
use vhost_ila_tests::ringpeer::steps::steps;
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::Check;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn behind_before_and_within_each_message() {
    let mut host = Beside::start("e2e/killed-front-ends").unwrap();
    let mut check = Check::begin(21, "killed front-ends");
    let count = steps(&mut Peer::new(Options::default()).unwrap(), Options::default()).unwrap().len();
    let before = host.footprint().unwrap();
    for round in 0..check.scale(1, 4) {
        for step in 0..=count {
            for (at, end) in ["answered", "unread", "half"].into_iter().enumerate() {
                // What is cut off within a message is taken for an attack, and costs its sender a quarter of a second.
                if end == "half" && check.scale((step + round) % 4 != 0, step % 2 != at % 2) {
                    continue;
                }
                // By turns; a full run comes to each step with both.
                let rings = if (step + at + round) % 2 == 0 { "split" } else { "packed" };
                let reached = killed(&host.socket, step, end, rings).unwrap();
                let act = format!("a front-end killed at message {step}, {reached} ({end}, {rings})");
                host.recovered(&act).unwrap();
                check.count(1);
            }
        }
    }
    // The last of them has just left.
    sleep(Duration::from_millis(200));
    let after = host.footprint().unwrap();
    println!("held before: {before:?}\nheld after:  {after:?}");
    after.must_be_no_more_than(&before).unwrap();
    host.end().unwrap();
}

/// Kills a front-end when it has come to `step`, and says what that is.
fn killed(socket: &Path, step: usize, end: &str, rings: &str) -> Result<String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_frontend"))
        .arg(socket)
        .args([&step.to_string(), end, rings])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut reached = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut reached)?;
    child.kill()?;
    child.wait()?;
    ensure!(!reached.is_empty(), "it ended by itself at message {step} ({end})");
    Ok(reached.trim().to_owned())
}
