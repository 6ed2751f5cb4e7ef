//! Packets of a pcap or pcapng file, with their times.
//!
//! What must stay true: every packet handed out was captured whole and has the link type of its origin; the clock never goes back.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nve_core::pipeline::Origin;
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

/// The first four bytes of a pcapng file, in either byte order.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// One packet.
pub(super) struct Packet {
    /// Since 1970, as captured.
    pub(super) time: Duration,
    /// The clock: `time`, but never before that of an earlier packet.
    pub(super) now: Duration,
    pub(super) bytes: Vec<u8>,
}

/// A capture being read.
pub(super) struct Input {
    reader: Reader,
    origin: Origin,
    number: u64,
    now: Duration,
}

enum Reader {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(PcapNgReader<BufReader<File>>),
}

/// What a file says of a packet.
struct Found {
    time: Option<Duration>,
    original: u32,
    bytes: Vec<u8>,
}

impl Input {
    pub(super) fn open(path: &Path, origin: Origin) -> Result<Self> {
        let name = || format!("{} cannot be read", path.display());
        let mut file = File::open(path).with_context(name)?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).with_context(name)?;
        file.rewind().with_context(name)?;
        let file = BufReader::new(file);
        let reader = if magic == SECTION_HEADER {
            Reader::PcapNg(PcapNgReader::new(file).with_context(name)?)
        } else {
            let reader = PcapReader::new(file).with_context(name)?;
            ensure_link(reader.header().datalink, origin).with_context(name)?;
            Reader::Pcap(reader)
        };
        Ok(Self { reader, origin, number: 0, now: Duration::ZERO })
    }

    /// The next packet; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Packet>> {
        self.number += 1;
        let number = self.number;
        let found = match &mut self.reader {
            Reader::Pcap(reader) => pcap(reader),
            Reader::PcapNg(reader) => pcapng(reader, self.origin),
        };
        let Some(found) = found.with_context(|| format!("packet {number}"))? else { return Ok(None) };
        let Found { time, original, bytes } = found;
        ensure!(
            bytes.len() >= original as usize || holds_its_packet(&bytes, self.origin),
            "packet {number}: {} of {original} bytes were captured; capture again without a snap length",
            bytes.len()
        );
        let time = time.unwrap_or(self.now);
        self.now = self.now.max(time);
        Ok(Some(Packet { time, now: self.now, bytes }))
    }
}

fn pcap(reader: &mut PcapReader<BufReader<File>>) -> Result<Option<Found>> {
    let Some(packet) = reader.next_packet() else { return Ok(None) };
    let packet = packet?;
    let (time, original) = (Some(packet.timestamp), packet.orig_len);
    Ok(Some(Found { time, original, bytes: packet.data.into_owned() }))
}

fn pcapng(reader: &mut PcapNgReader<BufReader<File>>, origin: Origin) -> Result<Option<Found>> {
    loop {
        let Some(block) = reader.next_block() else { return Ok(None) };
        let (interface, ticks, original, bytes) = match block?.into_owned() {
            Block::EnhancedPacket(packet) => {
                // This crate takes ticks for nanoseconds whatever the interface says.
                let ticks = u64::try_from(packet.timestamp.as_nanos())?;
                (packet.interface_id, Some(ticks), packet.original_len, packet.data.into_owned())
            }
            Block::SimplePacket(packet) => {
                let mut bytes = packet.data.into_owned();
                bytes.truncate(packet.original_len as usize); // the block is padded
                (0, None, packet.original_len, bytes)
            }
            Block::Packet(_) => bail!("it is in an obsolete Packet Block: convert the file with editcap"),
            _ => continue,
        };
        let interface = reader.interfaces().get(interface as usize);
        let interface = interface.with_context(|| format!("there is no interface {interface:?}"))?;
        ensure_link(interface.linktype, origin)?;
        let time = ticks.map(|ticks| time_of(ticks, interface));
        return Ok(Some(Found { time, original, bytes }));
    }
}

/// `ticks` of `interface`'s clock since 1970 (pcapng draft, section 4.2: if_tsresol, if_tsoffset).
fn time_of(ticks: u64, interface: &InterfaceDescriptionBlock<'_>) -> Duration {
    let mut per_second: u128 = 1_000_000;
    let mut offset = 0;
    for option in &interface.options {
        match *option {
            InterfaceDescriptionOption::IfTsResol(power) if power & 0x80 != 0 => {
                per_second = 1 << (power & 0x7f).min(64);
            }
            InterfaceDescriptionOption::IfTsResol(power) => per_second = 10u128.pow(u32::from(power).min(19)),
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = seconds,
            _ => {}
        }
    }
    let nanoseconds = u128::from(ticks) * 1_000_000_000 / per_second;
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
    let rest = (nanoseconds % 1_000_000_000) as u32;
    Duration::new(seconds.saturating_add(offset), rest)
}

/// Whether the IP packet in `bytes` is there to its end. Tools that cut a link header off leave the old length of the frame behind.
fn holds_its_packet(bytes: &[u8], origin: Origin) -> bool {
    let ip = match origin {
        Origin::Port(_) => bytes.get(14..).unwrap_or_default(),
        Origin::Uplink | Origin::Outside => bytes,
    };
    let length = match ip.first().map(|first| first >> 4) {
        Some(4) => Ipv4Packet::new_checked(ip).map(|packet| packet.total_len().into()),
        Some(6) => Ipv6Packet::new_checked(ip).map(|packet| packet.total_len()),
        _ => return false,
    };
    length.is_ok_and(|length: usize| length <= ip.len())
}

fn ensure_link(link: DataLink, origin: Origin) -> Result<()> {
    let (wanted, legal) = match origin {
        Origin::Port(_) => ("Ethernet (link type 1) from an attachment", link == DataLink::ETHERNET),
        Origin::Uplink | Origin::Outside => (
            "raw IPv6 (link type 101 or 229) from the uplink",
            matches!(link, DataLink::RAW | DataLink::IPV6),
        ),
    };
    ensure!(legal, "its link type is {}, not {wanted}", u32::from(link));
    Ok(())
}
