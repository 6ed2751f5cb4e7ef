//! Frames in pcap files, Ethernet from the first byte, for the oracle and for tshark.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

/// The frames of a pcap file.
///
/// # Errors
///
/// Fails when there is no such file, or it is no pcap.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader = PcapReader::new(BufReader::new(file))?;
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet?.data.into_owned());
    }
    Ok(frames)
}

/// Writes `frames` in order; their times are their numbers, in microseconds.
///
/// # Errors
///
/// Fails as the file system does.
pub fn write(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut writer = PcapWriter::new(BufWriter::new(file))?;
    for (number, frame) in (0..).zip(frames) {
        let time = Duration::from_micros(number);
        writer.write_packet(&PcapPacket::new(time, u32::try_from(frame.len())?, frame))?;
    }
    Ok(())
}
