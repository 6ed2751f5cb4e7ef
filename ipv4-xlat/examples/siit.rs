//! A stateless translator for captures: reads raw IP packets (pcap, link type 101), writes what a SIIT translator sends.
//!
//! ```text
//! siit [--pool6 2001:db8:100::/40] [--eam 2001:db8:3::/120=1.0.0.0/24 ...] [--mtu4 1500] [--mtu6 1500]
//!      [--lowest-ipv6-mtu 1280] [--zero-udp drop|compute|forward] [--icmp4 198.51.100.1] [--icmp6 2001:db8:1c0:2:1::]
//!      [--rfc6791 203.0.113.8 ...] [--rfc6791-v6 ADDR] [--hairpin] in.pcap out.pcap
//! ```
//!
//! Translated packets and the ICMP errors owed to senders are written in order, with the input's timestamps. A dropped
//! packet leaves no record; its reason goes to standard error. Errors are not rate limited. Without `--icmp4` or
//! `--icmp6` there is no address to send an error of that family from, and none is sent.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use ipv4_xlat::address::eam::{Eam, EamTable};
use ipv4_xlat::address::rfc6052::Prefix;
use ipv4_xlat::address::siit::{Hairpin, Siit};
use ipv4_xlat::generated::{icmpv4_error, icmpv6_error};
use ipv4_xlat::{
    Config, HopChange, IcmpError, Packet, Reason, Refusal, SCRATCH_LEN, Settings, Translated,
    ZeroUdpChecksum, v4_to_v6, v6_to_v4,
};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("siit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut translator = Translator {
        map: arguments.map()?,
        config: Config::new(arguments.settings)?,
        icmp4: arguments.icmp4,
        icmp6: arguments.icmp6,
        identification: 0,
    };
    let mut reader = PcapReader::new(BufReader::new(File::open(&arguments.input)?))?;
    let datalink = reader.header().datalink;
    if !matches!(datalink, DataLink::RAW | DataLink::IPV4 | DataLink::IPV6) {
        return Err(format!("{}: link type {datalink:?}; raw IP (101) is wanted", arguments.input).into());
    }
    let header = PcapHeader { snaplen: 262_144, datalink: DataLink::RAW, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(BufWriter::new(File::create(&arguments.output)?), header)?;

    let mut number = 0;
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        number += 1;
        for sent in translator.forward(number, &packet.data) {
            write(&mut writer, packet.timestamp, &sent)?;
        }
    }
    Ok(())
}

fn write(writer: &mut PcapWriter<BufWriter<File>>, timestamp: Duration, packet: &[u8]) -> Result<()> {
    let len = u32::try_from(packet.len())?;
    writer.write_packet(&PcapPacket::new(timestamp, len, packet))?;
    Ok(())
}

/// The translator and its own addresses.
struct Translator<'a> {
    map: Siit<'a>,
    config: Config,
    icmp4: Option<Ipv4Addr>,
    icmp6: Option<Ipv6Addr>,
    /// The last identification that was used.
    identification: u16,
}

impl Translator<'_> {
    /// What is sent because of `packet`, the capture's `number`th: its translation, an error, or nothing.
    fn forward(&mut self, number: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        match self.translate(packet) {
            Ok(sent) => sent,
            Err(Refusal::Icmp(reason, error)) => {
                report(number, reason, packet);
                self.answer(number, &error, packet).into_iter().collect()
            }
            Err(Refusal::Silent(reason)) => {
                report(number, reason, packet);
                Vec::new()
            }
            Err(refusal @ (Refusal::NeedWhole | Refusal::NeedSegments)) => {
                unreachable!("{refusal:?}: the packet is whole and nothing is left to hardware")
            }
        }
    }

    fn translate(&mut self, packet: &[u8]) -> std::result::Result<Vec<Vec<u8>>, Refusal> {
        let mut scratch = [0; SCRATCH_LEN];
        if packet.first().is_some_and(|first| first >> 4 == 4) {
            let translated =
                v4_to_v6::translate(&Packet::whole(packet), &self.map, &self.config, &mut scratch)?;
            return Ok(pieces(&translated, &mut scratch, packet));
        }
        let identification = self.next_identification();
        let whole = Packet::whole(packet);
        let translated = v6_to_v4::translate(&whole, &self.map, &self.config, identification, &mut scratch)?;
        let sent = pieces(&translated, &mut scratch, packet);
        match sent.first() {
            Some(four) if destination(four).is_some_and(|to| self.map.turns_back(to)) => self.turn_back(four),
            _ => Ok(sent),
        }
    }

    /// Hairpinning (RFC 7757 4.2.2): straight back into IPv6, spending no further hop.
    fn turn_back(&self, packet: &[u8]) -> std::result::Result<Vec<Vec<u8>>, Refusal> {
        let mut scratch = [0; SCRATCH_LEN];
        let config = self.config.with_hop_change(HopChange::Keep);
        match v4_to_v6::translate(&Packet::whole(packet), &self.map, &config, &mut scratch) {
            Ok(translated) => Ok(pieces(&translated, &mut scratch, packet)),
            // The error would be for the IPv4 form of a packet that was sent as IPv6.
            Err(Refusal::Icmp(reason, _)) => Err(Refusal::Silent(reason)),
            Err(refusal) => Err(refusal),
        }
    }

    fn answer(&mut self, number: usize, error: &IcmpError, about: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; SCRATCH_LEN];
        let outcome = match (error, self.icmp4, self.icmp6) {
            (IcmpError::V4(error), Some(from), _) => {
                icmpv4_error(error, from, self.next_identification(), about, &mut out)
            }
            (IcmpError::V6(error), _, Some(from)) => icmpv6_error(error, from, about, &mut out),
            _ => {
                eprintln!("packet {number}: not answered: no address to answer from (--icmp4, --icmp6)");
                return None;
            }
        };
        match outcome {
            Ok(len) => out.get(..len).map(<[u8]>::to_vec),
            Err(not_sent) => {
                eprintln!("packet {number}: not answered: {not_sent:?}");
                None
            }
        }
    }

    fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }
}

fn pieces(translated: &Translated, scratch: &mut [u8], original: &[u8]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let mut pieces = translated.pieces();
    while let Some(piece) = pieces.next(scratch) {
        sent.push([&scratch[..piece.head_len], &original[piece.tail]].concat());
    }
    sent
}

/// An IPv4 packet's destination.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    packet.get(16..20)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

/// Says why a packet was dropped; for a UDP checksum of zero with addresses and ports, as RFC 7915 4.5 asks.
fn report(number: usize, reason: Reason, packet: &[u8]) {
    let flow = match reason {
        Reason::ZeroUdpChecksum | Reason::ZeroUdpChecksumFragment => flow(packet),
        _ => None,
    };
    let flow = flow.map(|flow| format!(" ({flow})")).unwrap_or_default();
    eprintln!("packet {number}: dropped: {reason:?}: {}{flow}", reason.text());
}

/// Addresses and ports of a UDP packet whose transport header follows its IP header directly.
fn flow(packet: &[u8]) -> Option<String> {
    let ports = |at: usize| {
        let ports = packet.get(at..)?.first_chunk::<4>()?;
        Some((u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])))
    };
    if packet.first()? >> 4 == 4 {
        let source = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?);
        let (from, to) = ports(usize::from(packet.first()? & 15) * 4)?;
        return Some(format!("{source}:{from} -> {}:{to}", destination(packet)?));
    }
    let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
    let (from, to) = ports(40)?;
    Some(format!("[{}]:{from} -> [{}]:{to}", address(8)?, address(24)?))
}

/// The command line.
struct Arguments {
    pool6: Option<Prefix>,
    eams: Vec<Eam>,
    settings: Settings,
    icmp4: Option<Ipv4Addr>,
    icmp6: Option<Ipv6Addr>,
    /// Sources for ICMPv6 errors without counterpart; our own address when none are given (RFC 6791 4).
    rfc6791: Vec<Ipv4Addr>,
    rfc6791_v6: Option<Ipv6Addr>,
    hairpin: Hairpin,
    input: String,
    output: String,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Arguments {
            pool6: None,
            eams: Vec::new(),
            settings: Settings::default(),
            icmp4: None,
            icmp6: None,
            rfc6791: Vec::new(),
            rfc6791_v6: None,
            hairpin: Hairpin::Off,
            input: String::new(),
            output: String::new(),
        };
        let mut files = Vec::new();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--pool6" => parsed.pool6 = Some(prefix(&value()?)?),
                "--eam" => parsed.eams.push(eam(&value()?)?),
                "--mtu4" => parsed.settings.mtu4 = value()?.parse()?,
                "--mtu6" => parsed.settings.mtu6 = value()?.parse()?,
                "--lowest-ipv6-mtu" => parsed.settings.lowest_ipv6_mtu = value()?.parse()?,
                "--zero-udp" => parsed.settings.zero_udp_checksum = zero_udp(&value()?)?,
                "--icmp4" => parsed.icmp4 = Some(value()?.parse()?),
                "--icmp6" => parsed.icmp6 = Some(value()?.parse()?),
                "--rfc6791" => parsed.rfc6791.push(value()?.parse()?),
                "--rfc6791-v6" => parsed.rfc6791_v6 = Some(value()?.parse()?),
                "--hairpin" => parsed.hairpin = Hairpin::On,
                option if option.starts_with("--") => return Err(format!("unknown option {option}").into()),
                _ => files.push(argument),
            }
        }
        let [input, output] = <[String; 2]>::try_from(files)
            .map_err(|files| format!("two files are wanted, in.pcap and out.pcap, not {}", files.len()))?;
        (parsed.input, parsed.output) = (input, output);
        if parsed.rfc6791.is_empty() {
            parsed.rfc6791.extend(parsed.icmp4);
        }
        parsed.rfc6791_v6 = parsed.rfc6791_v6.or(parsed.icmp6);
        Ok(parsed)
    }

    fn map(&self) -> Result<Siit<'_>> {
        let map = Siit {
            eams: EamTable::new(&self.eams)?,
            pool6: self.pool6,
            local_in_well_known: false,
            error_sources_v4: &self.rfc6791,
            error_source_v6: self.rfc6791_v6,
            hairpin: self.hairpin,
        };
        map.check()?;
        Ok(map)
    }
}

fn prefix(text: &str) -> Result<Prefix> {
    let (address, len) = text.split_once('/').ok_or_else(|| format!("{text}: a prefix is ADDRESS/LENGTH"))?;
    Ok(Prefix::new(address.parse()?, len.parse()?).map_err(|error| format!("{text}: {error}"))?)
}

/// `IPV6[/LENGTH]=IPV4[/LENGTH]`; a prefix without length is one address.
fn eam(text: &str) -> Result<Eam> {
    let (v6, v4) =
        text.split_once('=').ok_or_else(|| format!("{text}: a mapping is IPV6/LENGTH=IPV4/LENGTH"))?;
    let (v6, v6_len) = v6.split_once('/').unwrap_or((v6, "128"));
    let (v4, v4_len) = v4.split_once('/').unwrap_or((v4, "32"));
    let eam = Eam::new(v6.parse()?, v6_len.parse()?, v4.parse()?, v4_len.parse()?);
    Ok(eam.map_err(|error| format!("{text}: {error}"))?)
}

fn zero_udp(text: &str) -> Result<ZeroUdpChecksum> {
    match text {
        "drop" => Ok(ZeroUdpChecksum::Drop),
        "compute" => Ok(ZeroUdpChecksum::Compute),
        "forward" => Ok(ZeroUdpChecksum::Forward),
        other => Err(format!("--zero-udp {other}: drop, compute or forward").into()),
    }
}
