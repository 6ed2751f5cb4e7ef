//! What became of the packets, as pcapng: one interface per attachment, and the uplink.
//!
//! What must stay true: interfaces are in the order of ports, the uplink last; times are nanoseconds, as the interfaces say.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nve_core::DropReason;
use nve_core::pipeline::{Origin, Outcome, PortId};
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter};

/// The fabric's interface.
const UPLINK: &str = "uplink";

/// A capture being written.
pub(super) struct Output {
    writer: PcapNgWriter<BufWriter<File>>,
    interfaces: BTreeMap<PortId, u32>,
    uplink: u32,
}

/// Which way a packet passes an interface (pcapng draft, section 4.3.1), as its owner sees it.
#[derive(Clone, Copy)]
enum Direction {
    /// To the attachment; from the fabric.
    In = 1,
    /// From the attachment; to the fabric.
    Out = 2,
}

impl Output {
    pub(super) fn create(path: &Path, ports: &BTreeMap<PortId, &str>) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        let mut writer = PcapNgWriter::new(BufWriter::new(file))?;
        let mut interfaces = BTreeMap::new();
        for ((port, name), number) in ports.iter().zip(0..) {
            describe(&mut writer, name, DataLink::ETHERNET)?;
            interfaces.insert(*port, number);
        }
        describe(&mut writer, UPLINK, DataLink::RAW)?;
        let uplink = u32::try_from(interfaces.len())?;
        Ok(Self { writer, interfaces, uplink })
    }

    /// One outcome of the packet `input` from `origin`.
    pub(super) fn write(
        &mut self,
        time: Duration,
        origin: Origin,
        input: &[u8],
        outcome: &Outcome<'_>,
    ) -> Result<()> {
        match outcome {
            Outcome::Local(port, bytes, _) => self.delivered(time, Origin::Port(*port), bytes),
            Outcome::Uplink(bytes, _) => self.delivered(time, Origin::Uplink, bytes),
            Outcome::Reply(bytes, reason) => {
                if let Some(reason) = reason {
                    self.dropped(time, origin, input, *reason)?;
                }
                self.delivered(time, origin, bytes)
            }
            Outcome::Punted(desk, frame) => {
                self.commented(time, origin, frame, format!("punt={}", desk.name()))
            }
            Outcome::Dropped(reason) => self.dropped(time, origin, input, *reason),
        }
    }

    /// An answer of the slow path's to an attachment.
    pub(super) fn answered(&mut self, time: Duration, port: PortId, frame: &[u8]) -> Result<()> {
        self.delivered(time, Origin::Port(port), frame)
    }

    fn delivered(&mut self, time: Duration, to: Origin, bytes: &[u8]) -> Result<()> {
        let direction = match to {
            Origin::Port(_) => Direction::In,
            Origin::Uplink | Origin::Outside => Direction::Out,
        };
        self.packet(time, to, bytes, direction, None)
    }

    fn dropped(&mut self, time: Duration, from: Origin, bytes: &[u8], reason: DropReason) -> Result<()> {
        self.commented(time, from, bytes, format!("drop={}", reason.name()))
    }

    /// What came from `from` and goes no further.
    fn commented(&mut self, time: Duration, from: Origin, bytes: &[u8], comment: String) -> Result<()> {
        let direction = match from {
            Origin::Port(_) => Direction::Out,
            Origin::Uplink | Origin::Outside => Direction::In,
        };
        self.packet(time, from, bytes, direction, Some(comment))
    }

    fn packet(
        &mut self,
        time: Duration,
        interface: Origin,
        bytes: &[u8],
        direction: Direction,
        comment: Option<String>,
    ) -> Result<()> {
        let interface = match interface {
            Origin::Port(port) => self.interfaces.get(&port).copied().context("a port without a name")?,
            Origin::Uplink | Origin::Outside => self.uplink,
        };
        let comment = comment.map(|text| EnhancedPacketOption::Comment(Cow::Owned(text)));
        let flags = EnhancedPacketOption::Flags(direction as u32);
        let block = EnhancedPacketBlock {
            interface_id: interface,
            timestamp: time,
            original_len: u32::try_from(bytes.len())?,
            data: Cow::Borrowed(bytes),
            options: comment.into_iter().chain([flags]).collect(),
        };
        self.writer.write_block(&block.into_block())?;
        Ok(())
    }

    /// The last bytes reach the file.
    pub(super) fn finish(self) -> Result<()> {
        self.writer.into_inner().flush()?;
        Ok(())
    }
}

fn describe(writer: &mut PcapNgWriter<BufWriter<File>>, name: &str, linktype: DataLink) -> Result<()> {
    // Nanoseconds, which is also what this crate writes into the blocks.
    let options = vec![
        InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
        InterfaceDescriptionOption::IfTsResol(9),
    ];
    writer.write_block(&InterfaceDescriptionBlock { linktype, snaplen: 0, options }.into_block())?;
    Ok(())
}
