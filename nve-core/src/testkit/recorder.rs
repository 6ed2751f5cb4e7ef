//! What was seen, where and when; written as pcapng when a test fails.
//!
//! What must stay true: recording never changes what happens; records are kept whole, so a test may judge every byte later.

use core::time::Duration;
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};

use super::dissect::Dissected;
use crate::packet::Offload;

/// Where a record was made: a guest's NIC, or a host's link to the fabric.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place(pub(super) u32);

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Out of the guest, or of the host onto its link.
    Sent,
    /// Into the guest, or from the link into the host.
    Received,
}

/// One packet, once, at one place.
#[derive(Clone, Debug)]
pub struct Record {
    /// Virtual time.
    pub at: Duration,
    /// Which way.
    pub direction: Direction,
    /// The Ethernet frame (guests) or IPv6 packet (links).
    pub bytes: Vec<u8>,
    /// Work left to the receiver, or to the device it was given to.
    pub offload: Offload,
    /// What else is known, such as `lost` or `drop=NAME`.
    pub comment: Option<String>,
    pub(super) place: Place,
    is_frame: bool,
}

impl Record {
    /// Its IP packet, by field.
    pub fn ip(&self) -> Option<Dissected<'_>> {
        if self.is_frame { Dissected::of_frame(&self.bytes) } else { Dissected::of_ip(&self.bytes) }
    }
}

struct Interface {
    name: String,
    link: DataLink,
}

/// All records of a world.
pub(super) struct Recorder {
    title: String,
    interfaces: Vec<Interface>,
    records: Vec<Record>,
}

impl Recorder {
    pub(super) fn new(title: String) -> Self {
        Self { title, interfaces: Vec::new(), records: Vec::new() }
    }
    pub(super) fn guest(&mut self, name: &str) -> Place {
        self.add(name, DataLink::ETHERNET)
    }
    pub(super) fn link(&mut self, name: &str) -> Place {
        self.add(name, DataLink::IPV6)
    }
    fn add(&mut self, name: &str, link: DataLink) -> Place {
        self.interfaces.push(Interface { name: name.to_owned(), link });
        Place(self.interfaces.len() as u32 - 1)
    }

    pub(super) fn record(
        &mut self,
        at: Duration,
        place: Place,
        direction: Direction,
        bytes: &[u8],
        offload: Offload,
    ) -> &mut Record {
        let is_frame = self.interfaces[place.0 as usize].link == DataLink::ETHERNET;
        self.records.push(Record {
            at,
            direction,
            bytes: bytes.to_vec(),
            offload,
            comment: None,
            place,
            is_frame,
        });
        let last = self.records.len() - 1;
        &mut self.records[last]
    }
    /// Says more about the last packet at `place`.
    pub(super) fn comment_last(&mut self, place: Place, comment: &str) {
        if let Some(record) = self.records.iter_mut().rev().find(|record| record.place == place) {
            record.comment = Some(comment.to_owned());
        }
    }
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// `target/testkit/TITLE.pcapng`; `CARGO_TARGET_DIR` is respected.
    pub(super) fn path(&self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
        let file = self.title.replace("::", ".") + ".pcapng";
        target.join("testkit").join(file)
    }

    /// Writes everything in order of time, one pcapng interface per guest and per link.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut writer = PcapNgWriter::new(BufWriter::new(File::create(path)?)).map_err(io::Error::other)?;
        for interface in &self.interfaces {
            let block = InterfaceDescriptionBlock {
                linktype: interface.link,
                snaplen: 0,
                // Nanoseconds, which is also what this crate's blocks hold.
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(&interface.name)),
                    InterfaceDescriptionOption::IfTsResol(9),
                ],
            };
            writer.write_block(&block.into_block()).map_err(io::Error::other)?;
        }
        let mut in_order: Vec<&Record> = self.records.iter().collect();
        in_order.sort_by_key(|record| record.at);
        for record in in_order {
            // The flags count from the interface: 1 inbound, 2 outbound (pcapng draft, section 4.3.1).
            let flags = if record.direction == Direction::Received { 1 } else { 2 };
            let mut options = vec![EnhancedPacketOption::Flags(flags)];
            let mut comment = record.comment.clone().unwrap_or_default();
            if record.offload != Offload::NONE {
                comment = format!("{comment} {:?}", record.offload).trim_start().to_owned();
            }
            if !comment.is_empty() {
                options.push(EnhancedPacketOption::Comment(Cow::Owned(comment)));
            }
            let block = EnhancedPacketBlock {
                interface_id: record.place.0,
                timestamp: record.at,
                original_len: record.bytes.len() as u32,
                data: Cow::Borrowed(&record.bytes),
                options,
            };
            writer.write_block(&block.into_block()).map_err(io::Error::other)?;
        }
        Ok(())
    }
}
