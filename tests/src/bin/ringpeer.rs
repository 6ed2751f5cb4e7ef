//! Sends the frames of a pcap file through a vhost-user socket, and keeps what comes back.
//!
//! `ringpeer SOCKET SENT.pcap RECEIVED.pcap [SECONDS]`: receiving ends when nothing came for so long (default 1).

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use vhost_ila_tests::ringpeer::{Options, Peer, file};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [socket, sent, received, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: ringpeer SOCKET SENT.pcap RECEIVED.pcap [SECONDS]");
    };
    let seconds = rest.first().map_or(Ok(1.0), |text| text.parse()).context("SECONDS is a number")?;
    let mut peer = Peer::connect(Path::new(socket), Options::default())?;
    for frame in file::read(Path::new(sent))? {
        peer.send(&frame)?;
    }
    peer.flush()?;
    let frames = peer.receive_all(Duration::from_secs_f64(seconds))?;
    println!("{} frames received", frames.len());
    let frames: Vec<Vec<u8>> = frames.into_iter().map(|frame| frame.bytes).collect();
    file::write(Path::new(received), &frames)
}
