//! One value at a time: from what is written to the type that proves it legal, or a problem with a remedy.
//!
//! What must stay true: a method that returns `None` (or `false`) has recorded why.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipv4_xlat::address::rfc6052;
use nve_core::addr::{ChecksumMode, PeerChecksum, Vnid};
use nve_core::gateway::Lease4;
use nve_core::setup::{Multicast, Stragglers, Unknown};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};
use toml::Spanned;

use super::across::Item;
use super::raw::Text;
use super::source::Source;
use super::{Place, Problem, nearest};

/// The words of `host.checksum`.
pub(super) const CHECKSUMS: &[(&str, ChecksumMode)] =
    &[("neutral", ChecksumMode::Neutral), ("unmodified", ChecksumMode::Unmodified)];

/// The words of `host.unknown`.
pub(super) const UNKNOWNS: &[(&str, Unknown)] =
    &[("unreachable", Unknown::Unreachable), ("router", Unknown::Router)];

/// The words of `host.moved`.
pub(super) const STRAGGLERS: &[(&str, Stragglers)] =
    &[("forward", Stragglers::Forward), ("redirect", Stragglers::Redirect), ("drop", Stragglers::Drop)];

/// The words of `peer.checksum`: those of iproute2's `csum-mode`.
pub(super) const PEER_CHECKSUMS: &[(&str, PeerChecksum)] = &[
    ("neutral-map", PeerChecksum::Neutral),
    ("no-action", PeerChecksum::Unmodified),
    ("neutral-map-auto", PeerChecksum::NeutralAuto),
    ("adj-transport", PeerChecksum::AdjTransport),
];

/// The words of `network.NAME.dhcp4`.
pub(super) const LEASES: &[(&str, Lease4)] = &[("subnet", Lease4::Subnet), ("host-route", Lease4::HostRoute)];

/// The words of `network.NAME.multicast`.
pub(super) const MULTICASTS: &[(&str, Multicast)] =
    &[("snoop", Multicast::Snoop), ("flood", Multicast::Flood)];

/// The longest an idle worker may spin.
const MAX_SPIN: Duration = Duration::from_secs(1);

/// The longest time of grace.
const MAX_GRACE: Duration = Duration::from_secs(3600);

/// Judges the values of one file and keeps what is wrong with them.
pub(super) struct Judge<'a> {
    source: &'a Source,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(source: &'a Source, problems: &'a mut Vec<Problem>) -> Self {
        Self { source, problems }
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        self.source.place(span.start)
    }

    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    /// The item of the table called `name`.
    pub(super) fn item(&self, name: &Text) -> Item {
        Item::new(self.place(name.span()))
    }

    pub(super) fn refuse(&mut self, span: Range<usize>, what: String, remedy: String) {
        let place = self.place(span);
        self.problems.push(Problem { place, what, remedy });
    }

    /// Whether this file may hold `section`.
    pub(super) fn owns(&mut self, section: &str, span: Range<usize>) -> bool {
        if !self.source.owns_host {
            let remedy = format!("move {section} to host.toml");
            self.refuse(span, format!("{section} belongs to host.toml, which owns it"), remedy);
        }
        self.source.owns_host
    }

    /// Records a table's name; refused if another file has it, or it is no name.
    pub(super) fn named(
        &mut self,
        table: &str,
        name: &Text,
        written: Item,
        places: &mut BTreeMap<String, Item>,
    ) -> bool {
        let item = format!("{table}.{}", name.get_ref());
        let legal = self.name(&item, name).is_some();
        if let Some(first) = places.get(name.get_ref()) {
            let what = format!("[{item}] is already written at {}", first.place);
            self.refuse(name.span(), what, "keep one of the two, or rename one".into());
            return false;
        }
        places.insert(name.get_ref().clone(), written);
        legal
    }

    /// `None` -> `Some(None)`: absent is legal.
    pub(super) fn optional<T>(
        &mut self,
        text: &Option<Text>,
        judge: impl FnOnce(&mut Self, &Text) -> Option<T>,
    ) -> Option<Option<T>> {
        match text {
            None => Some(None),
            Some(text) => judge(self, text).map(Some),
        }
    }

    /// Anything that parses, with the type's own words for what is wrong.
    pub(super) fn parse<T: FromStr>(&mut self, item: &str, text: &Text, remedy: &str) -> Option<T>
    where
        T::Err: Display,
    {
        match text.get_ref().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let what = format!("{item}: \"{}\": {error}", text.get_ref());
                self.refuse(text.span(), what, remedy.into());
                None
            }
        }
    }

    /// The address of a server, with or without a port.
    pub(super) fn server(&mut self, item: &str, text: &Text, port: u16) -> Option<SocketAddr> {
        let written = text.get_ref();
        let alone = written.parse::<IpAddr>().map(|address| SocketAddr::new(address, port));
        let server = alone.or_else(|_| written.parse());
        if server.is_err() {
            let what = format!("{item}: \"{written}\" is no address of a server");
            let remedy =
                "write ADDRESS, IPV4:PORT or [IPV6]:PORT, such as \"192.0.2.53\" or \"[2001:db8::53]:5353\"";
            self.refuse(text.span(), what, remedy.into());
        }
        server.ok()
    }

    /// A user of this machine, by name or number.
    pub(super) fn user(&mut self, item: &str, text: &Text) -> Option<u32> {
        let user = crate::device::peer::user_id(text.get_ref());
        if user.is_none() {
            let what = format!("{item}: this machine knows no user \"{}\"", text.get_ref());
            self.refuse(text.span(), what, "write a name that `getent passwd` knows, or a number".into());
        }
        user
    }

    /// So many bytes: a number and one of MiB, GiB and TiB.
    pub(super) fn bytes(&mut self, item: &str, text: &Text, range: RangeInclusive<u64>) -> Option<u64> {
        let units = [("MiB", 1u64 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        let bytes = units.iter().find_map(|(unit, size)| {
            text.get_ref().strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(*size)
        });
        let bytes = bytes.filter(|bytes| range.contains(bytes));
        if bytes.is_none() {
            let what = format!("{item}: \"{}\" is no size from 1 MiB to 4 TiB", text.get_ref());
            self.refuse(
                text.span(),
                what,
                "write a whole number of MiB, GiB or TiB, such as \"16 GiB\"".into(),
            );
        }
        bytes
    }

    /// An IPv6 prefix of exactly `length` bits.
    pub(super) fn prefix<T: FromStr>(&mut self, item: &str, text: &Text, length: u8) -> Option<T>
    where
        T::Err: Display,
    {
        let address = text.get_ref().split('/').next().unwrap_or_default().parse::<Ipv6Addr>();
        let remedy = match address {
            Ok(address) => {
                let prefix = Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> length));
                format!("write a unicast /{length}, such as {prefix}/{length}")
            }
            Err(_) => format!("write ADDRESS/{length}"),
        };
        self.parse(item, text, &remedy)
    }

    /// A tenant's IPv4 prefix: /1 to /30, nothing behind it.
    pub(super) fn cidr4(&mut self, item: &str, text: &Text) -> Option<Ipv4Cidr> {
        let parts = text.get_ref().split_once('/');
        let parts = parts.and_then(|(a, n)| Some((a.parse::<Ipv4Addr>().ok()?, n.parse::<u8>().ok()?)));
        let remedy = match parts {
            Some((address, length @ 1..=30)) => {
                let prefix = Ipv4Addr::from_bits(address.to_bits() & !(u32::MAX >> length));
                if prefix == address {
                    return Some(Ipv4Cidr::new(address, length));
                }
                format!("did you mean {prefix}/{length}?")
            }
            Some(_) => "choose a length from /1 to /30: a gateway and a neighbour need room".into(),
            None => "write ADDRESS/LENGTH, such as 10.1.0.0/16".into(),
        };
        let what = format!("{item}: \"{}\" is not the IPv4 prefix of a network", text.get_ref());
        self.refuse(text.span(), what, remedy);
        None
    }

    /// A prefix behind an attachment, of either family; what may be behind one is nve-core's to say.
    pub(super) fn prefix_behind(&mut self, item: &str, text: &Text) -> Option<IpCidr> {
        let prefix = text.get_ref().parse().ok();
        if prefix.is_none() {
            let what = format!("{item}: \"{}\" is no prefix", text.get_ref());
            let remedy =
                "write ADDRESS/LENGTH, such as 192.168.7.0/24, 0.0.0.0/0 or 2001:db8:b1:e::8000:0/113";
            self.refuse(text.span(), what, remedy.into());
        }
        prefix
    }

    /// An IPv6 prefix of any length.
    pub(super) fn prefix6(&mut self, item: &str, text: &Text) -> Option<Ipv6Cidr> {
        let prefix = text.get_ref().parse().ok();
        if prefix.is_none() {
            let what = format!("{item}: \"{}\" is no IPv6 prefix", text.get_ref());
            self.refuse(text.span(), what, "write ADDRESS/LENGTH, such as 2001:db8:f::/48".into());
        }
        prefix
    }

    /// A prefix of RFC 6052, section 2.2.
    pub(super) fn nat64(&mut self, item: &str, text: &Text) -> Option<rfc6052::Prefix> {
        let cidr = self.prefix6(item, text)?;
        match rfc6052::Prefix::new(cidr.address(), cidr.prefix_len()) {
            Ok(prefix) => Some(prefix),
            Err(error) => {
                let what = format!("{item}: \"{}\": {error}", text.get_ref());
                self.refuse(text.span(), what, "write the NAT64's prefix, such as 64:ff9b::/96".into());
                None
            }
        }
    }

    /// A virtual network identifier.
    pub(super) fn vnid(&mut self, item: &str, number: &Spanned<i64>) -> Option<Vnid> {
        let vnid = u32::try_from(*number.get_ref()).ok().and_then(Vnid::new);
        if vnid.is_none() {
            let what = format!("{item}: {} is no virtual network identifier", number.get_ref());
            self.refuse(number.span(), what, "choose a number from 1 to 268435455 (28 bits)".into());
        }
        vnid
    }

    /// A number of bytes within `range`.
    pub(super) fn number(
        &mut self,
        item: &str,
        number: &Spanned<i64>,
        range: RangeInclusive<u16>,
    ) -> Option<u16> {
        let value = u16::try_from(*number.get_ref()).ok().filter(|value| range.contains(value));
        if value.is_none() {
            let remedy = format!("choose a number from {} to {}", range.start(), range.end());
            self.refuse(number.span(), format!("{item}: {} is out of range", number.get_ref()), remedy);
        }
        value
    }

    /// A MAC address one NIC can have.
    pub(super) fn mac(&mut self, item: &str, text: &Text) -> Option<EthernetAddress> {
        match text.get_ref().parse::<EthernetAddress>() {
            Ok(mac) if mac.is_unicast() => Some(mac),
            Ok(_) => {
                let what = format!("{item}: {} is a group or the zero address", text.get_ref());
                let remedy = "choose a unicast address: the second digit is even, such as 52:54:00:00:00:01";
                self.refuse(text.span(), what, remedy.into());
                None
            }
            Err(()) => {
                let what = format!("{item}: \"{}\" is no MAC address", text.get_ref());
                let remedy = "write six bytes in hexadecimal, such as 52:54:00:00:00:01";
                self.refuse(text.span(), what, remedy.into());
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn keyword<T: Copy>(&mut self, item: &str, text: &Text, words: &[(&str, T)]) -> Option<T> {
        let given = text.get_ref();
        if let Some(&(_, value)) = words.iter().find(|(word, _)| word == given) {
            return Some(value);
        }
        let remedy = match nearest::of(given, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("write {}", words.join(" or "))
            }
        };
        self.refuse(text.span(), format!("{item}: \"{given}\" is not known"), remedy);
        None
    }

    /// `host.checksum`: what is right towards one host of another make is not what this host sends to all.
    pub(super) fn host_checksum(&mut self, text: &Text) -> Option<ChecksumMode> {
        let word = text.get_ref();
        if PEER_CHECKSUMS.iter().any(|(known, _)| known == word) {
            let what = format!("host.checksum: \"{word}\" is a mode of the Linux kernel's ILA");
            let remedy =
                "write it in a [[peer]] with that host's locator; here, \"neutral\" or \"unmodified\"";
            self.refuse(text.span(), what, remedy.into());
            return None;
        }
        self.keyword("host.checksum", text, CHECKSUMS)
    }

    /// The name of a host, network or attachment: it goes into file names, URLs and captures.
    pub(super) fn name(&mut self, item: &str, text: &Text) -> Option<String> {
        let name = text.get_ref();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && name.len() <= 63 && name.chars().all(legal) && name != "uplink" {
            return Some(name.clone());
        }
        let what = format!("{item}: \"{name}\" cannot be a name");
        let remedy =
            "use 1 to 63 letters, digits, '-', '_' and '.', a letter or digit first, and not \"uplink\"";
        self.refuse(text.span(), what, remedy.into());
        None
    }

    /// The name of a network interface, as Linux takes it.
    pub(super) fn interface(&mut self, item: &str, text: &Text) -> Option<String> {
        let name = text.get_ref();
        let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
        if (1..=15).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".." {
            return Some(name.clone());
        }
        let what = format!("{item}: \"{name}\" is no interface name");
        self.refuse(text.span(), what, "use 1 to 15 characters without '/', ':', '%' or space".into());
        None
    }

    /// A host name or a domain (RFC 1123).
    pub(super) fn domain(&mut self, item: &str, text: &Text) -> Option<String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let label = |l: &str| {
            (1..=63).contains(&l.len()) && l.chars().all(legal) && !l.starts_with('-') && !l.ends_with('-')
        };
        if text.get_ref().len() <= 253 && text.get_ref().split('.').all(label) {
            return Some(text.get_ref().clone());
        }
        let what = format!("{item}: \"{}\" is no domain name", text.get_ref());
        self.refuse(text.span(), what, "write labels of letters, digits and '-', joined by '.'".into());
        None
    }

    /// A path from the root.
    pub(super) fn absolute(&mut self, item: &str, text: &Text) -> Option<PathBuf> {
        let path = self.path(item, text)?;
        if path.is_absolute() {
            return Some(path);
        }
        let what = format!("{item}: \"{}\" is not an absolute path", text.get_ref());
        self.refuse(text.span(), what, "write the path from '/'".into());
        None
    }

    /// A path that can be pasted into a shell, a QEMU option and XML as it is.
    pub(super) fn path(&mut self, item: &str, text: &Text) -> Option<PathBuf> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
        if !text.get_ref().is_empty() && text.get_ref().chars().all(legal) {
            return Some(text.get_ref().into());
        }
        let what =
            format!("{item}: \"{}\" would need quoting in a virtual machine's configuration", text.get_ref());
        self.refuse(text.span(), what, "use letters, digits and the characters / . _ - + @ :".into());
        None
    }

    /// A time of whole seconds.
    pub(super) fn seconds(
        &mut self,
        item: &str,
        text: &Text,
        range: RangeInclusive<u64>,
    ) -> Option<Duration> {
        let given = text.get_ref();
        let units = [("s", 1), ("m", 60), ("h", 3600)];
        let seconds = units.iter().find_map(|(unit, size)| {
            given.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(*size)
        });
        if let Some(seconds) = seconds.filter(|seconds| range.contains(seconds)) {
            return Some(Duration::from_secs(seconds));
        }
        let what = format!("{item}: \"{given}\" is no time from {}s to {}s", range.start(), range.end());
        self.refuse(text.span(), what, "write a number with s, m or h, such as \"300s\"".into());
        None
    }

    /// How long an idle worker spins: `0us` to `1s`.
    pub(super) fn spin(&mut self, item: &str, text: &Text) -> Option<Duration> {
        self.duration(item, text, (MAX_SPIN, "1s"))
    }

    /// How long packets follow an identifier that has moved: `0s` to `3600s`.
    pub(super) fn grace(&mut self, item: &str, text: &Text) -> Option<Duration> {
        self.duration(item, text, (MAX_GRACE, "3600s"))
    }

    fn duration(
        &mut self,
        item: &str,
        text: &Text,
        (longest, written): (Duration, &str),
    ) -> Option<Duration> {
        let given = text.get_ref();
        let digits = given.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: Option<fn(u64) -> Duration> = match &given[digits.len()..] {
            "us" => Some(Duration::from_micros),
            "ms" => Some(Duration::from_millis),
            "s" => Some(Duration::from_secs),
            _ => None,
        };
        let time = unit.and_then(|unit| Some(unit(digits.trim_end().parse().ok()?)));
        if let Some(time) = time.filter(|time| *time <= longest) {
            return Some(time);
        }
        let what = format!("{item}: \"{given}\" is no time from 0us to {written}");
        self.refuse(text.span(), what, "write a number with us, ms or s, such as \"50us\"".into());
        None
    }
}
