//! `addr`: ILA addresses read and written, with the reason where that cannot be.
//!
//! What must stay true: the answer comes from `nve_core::addr` alone, so that it is what the data path would do.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{ArgGroup, Subcommand, ValueEnum};
use nve_core::addr::{ChecksumMode, Decoded, Directory, Identifier, Locator, SirPrefix, Vnet, Vnid};
use serde::Serialize;

use crate::authority::StaticFile;

/// `addr ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what an address means: locator and identifier, SIR address, or a tenant's own
    Decode(DecodeArgs),
    /// Write the address that an endpoint has on the wire
    Encode(EncodeArgs),
}

#[derive(Debug, clap::Args)]
struct DecodeArgs {
    /// An IPv6 address, as a capture shows it
    address: Ipv6Addr,
    #[command(flatten)]
    domain: DomainArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("who").required(true).args(["vni", "lui"]))]
struct EncodeArgs {
    /// The locator of the host that has the endpoint, a /64
    #[arg(long, value_name = "PREFIX")]
    locator: Locator,
    #[command(flatten)]
    domain: DomainArgs,
    /// The endpoint is a tenant of this virtual network
    #[arg(long, value_name = "N", requires = "tenant_address", value_parser = vnid)]
    vni: Option<Vnid>,
    /// The tenant's IPv4 or IPv6 address, unicast or multicast
    #[arg(value_name = "TENANT-ADDRESS", requires = "vni")]
    tenant_address: Option<IpAddr>,
    /// The endpoint has a locally unique identifier: up to 15 hexadecimal digits
    #[arg(long, value_name = "ID", value_parser = local_identifier)]
    lui: Option<u64>,
    /// How the sender treats the transport checksum
    #[arg(long, value_enum, default_value_t)]
    checksum: Checksum,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The domain the address belongs to. Without --sir it is that of --config, with its networks; of several the one whose SIR prefix,
/// locator or network the address is in, and no answer where that is none.
#[derive(Debug, clap::Args)]
struct DomainArgs {
    /// The SIR prefix, a /64 [default: that of --config]
    #[arg(long, value_name = "PREFIX")]
    sir: Option<SirPrefix>,
    /// The /96 of a virtual network; may be given several times
    #[arg(long, value_name = "VNI=PREFIX96", value_parser = network, requires = "sir")]
    network: Vec<(Vnid, Vnet)>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Checksum {
    /// The low word absorbs the change: checksums verify on the wire (C = 1)
    #[default]
    Neutral,
    /// The checksum travels as the endpoints made it (C = 0)
    Unmodified,
}

fn vnid(text: &str) -> Result<Vnid, String> {
    let number = text.parse().ok().and_then(Vnid::new);
    number.ok_or_else(|| "a VNI is a number from 1 to 268435455 (28 bits)".into())
}

fn network(text: &str) -> Result<(Vnid, Vnet), String> {
    let (number, prefix) =
        text.split_once('=').ok_or("write VNI=PREFIX96, such as 1001=2001:db8:b1:e::/96")?;
    Ok((vnid(number)?, prefix.parse().map_err(|error| format!("{prefix}: {error}"))?))
}

fn local_identifier(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err("write up to 15 hexadecimal digits".into());
    }
    let bits = u64::from_str_radix(digits, 16).ok().filter(|bits| bits >> 60 == 0);
    bits.ok_or_else(|| "a locally unique identifier has 60 bits: up to 15 hexadecimal digits".into())
}

impl DomainArgs {
    fn directory(self, config: &StaticFile, address: Ipv6Addr) -> Result<Directory> {
        if let Some(sir) = self.sir {
            for (index, (vnid, vnet)) in self.network.iter().enumerate() {
                let others = self.network.iter().take(index);
                if let Some((other, _)) = others.into_iter().find(|(n, p)| (n == vnid) != (p == vnet)) {
                    bail!(
                        "--network {vnid}={vnet} and {other}: a network has one /96, and a /96 one network"
                    );
                }
            }
            return Ok(Directory { sir, networks: self.network });
        }
        let config = config.read().context("--sir is not given, so the domain is read from --config")?;
        let setup = config.setup.setup();
        let Some(domain) = setup.domain_of_address(address) else {
            bail!(
                "{address} is in no SIR prefix, locator or network that the config names, and it has several domains: tell --sir"
            );
        };
        let networks = setup.networks.iter().filter(|network| network.sir_domain.as_deref() == domain.name);
        let networks = networks.filter_map(|network| Some((network.vnid, network.ipv6?)));
        Ok(Directory { sir: domain.sir, networks: networks.collect() })
    }
}

/// The JSON object: fixed-width hexadecimal for what has no notation of its own, null where an address has no such part.
#[derive(Serialize)]
struct Fields {
    r#type: u8,
    c: bool,
    vnid: Option<u32>,
    tenant: Option<IpAddr>,
    identifier: String,
    locator: Option<String>,
    sir: Option<Ipv6Addr>,
    address: Ipv6Addr,
    adjustment: Option<String>,
}

impl From<&Decoded> for Fields {
    fn from(decoded: &Decoded) -> Self {
        Self {
            r#type: decoded.type_number,
            c: decoded.c,
            vnid: decoded.vnid.map(Vnid::get),
            tenant: decoded.tenant,
            identifier: format!("{:016x}", decoded.identifier.bits()),
            locator: decoded.locator.map(|locator| locator.to_string()),
            sir: decoded.sir,
            address: decoded.address,
            adjustment: decoded.adjustment.map(|word| format!("{word:04x}")),
        }
    }
}

/// Runs the command; its answer, one line or more.
///
/// # Errors
/// The address cannot be decoded or encoded, or the domain is not known.
pub fn run(args: Args, config: &StaticFile) -> Result<String> {
    let (decoded, json) = match args.action {
        Action::Decode(args) => {
            let directory = args.domain.directory(config, args.address)?;
            let decoded = nve_core::addr::decode(args.address, &directory)
                .with_context(|| format!("{} cannot be decoded", args.address))?;
            (decoded, args.json)
        }
        Action::Encode(args) => encode(args, config)?,
    };
    let fields = Fields::from(&decoded);
    if json { Ok(serde_json::to_string(&fields)? + "\n") } else { Ok(table(&decoded, &fields)) }
}

fn encode(args: EncodeArgs, config: &StaticFile) -> Result<(Decoded, bool)> {
    let directory = args.domain.directory(config, args.locator.prefix())?;
    let identifier = match (args.vni, args.tenant_address, args.lui) {
        (Some(vni), Some(address), _) => directory
            .identifier(vni, address)
            .with_context(|| format!("{address} in network {vni} cannot be encoded"))?,
        (_, _, Some(bits)) => Identifier::local(bits)?,
        _ => return Err(anyhow!("tell either --vni N TENANT-ADDRESS or --lui ID")),
    };
    let mode = match args.checksum {
        Checksum::Neutral => ChecksumMode::Neutral,
        Checksum::Unmodified => ChecksumMode::Unmodified,
    };
    let decoded = nve_core::addr::encode(identifier, args.locator, mode, &directory)
        .with_context(|| format!("{identifier:016x} at {} cannot be encoded", args.locator))?;
    Ok((decoded, args.json))
}

/// The same fields for people, under the draft's notation.
fn table(decoded: &Decoded, fields: &Fields) -> String {
    let kind = match decoded.type_number {
        0 => "interface identifier: an ordinary address",
        1 => "locally unique identifier",
        2 => "IPv4 address of a virtual network",
        3 => "IPv6 unicast address of a virtual network",
        _ => "IPv6 multicast group of a virtual network",
    };
    let c = if decoded.c { "1: the low word is adjusted" } else { "0: the low word is the identifier's" };
    let rows = [
        ("type", Some(format!("{} {kind}", fields.r#type))),
        ("c", Some(c.to_owned())),
        ("vnid", fields.vnid.map(|n| n.to_string())),
        ("tenant", fields.tenant.map(|address| address.to_string())),
        ("identifier", Some(fields.identifier.clone())),
        ("locator", fields.locator.clone()),
        ("sir", fields.sir.map(|address| address.to_string())),
        ("address", Some(fields.address.to_string())),
        ("adjustment", fields.adjustment.clone()),
    ];
    let mut text = format!("{decoded}\n");
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:<11} {}", value.as_deref().unwrap_or("-"));
    }
    text
}
