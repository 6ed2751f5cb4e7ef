//! A front-end that gets as far as it is told, says how far that is, and goes on talking until it is killed.
//!
//! `frontend SOCKET STEP answered|unread|half split|packed`

use std::env;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vhost_ila_tests::ringpeer::beside::HOSTILE;
use vhost_ila_tests::ringpeer::neighbours::datagram;
use vhost_ila_tests::ringpeer::steps::{End, go, steps};
use vhost_ila_tests::ringpeer::{Options, Peer, connect};
use vhost_ila_tests::site::VM1;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [socket, step, end, rings] = arguments.as_slice() else {
        bail!("usage: frontend SOCKET STEP answered|unread|half split|packed");
    };
    let step: usize = step.parse().context("STEP is a number")?;
    let end = match end.as_str() {
        "answered" => End::Answered,
        "unread" => End::Unread,
        "half" => End::Half,
        other => bail!("{other} is no end"),
    };
    let options = match rings.as_str() {
        "split" => Options::offloads(),
        "packed" => Options::offloads().packed(),
        other => bail!("{other} is no kind of ring"),
    };
    let mut peer = Peer::new(options)?;
    let steps = steps(&mut peer, options)?;
    // In the ring before it is set up, so that there is work from its first moment.
    let frame = datagram(&HOSTILE, &VM1, b"to be killed")?;
    while peer.try_send(&frame)? {}
    let stream = connect(Path::new(socket))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    go(&stream, &steps, step, end)?;
    println!("{}", steps.get(step).map_or("all of it", |step| &step.name));
    std::io::stdout().flush()?;
    loop {
        peer.try_send(&frame)?;
        drop(peer.receive(Duration::ZERO));
        thread::sleep(Duration::from_micros(100));
    }
}
