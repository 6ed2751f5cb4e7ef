//! `id`: locally unique identifiers for new tasks (draft, appendix A).
//!
//! What must stay true: the bits come from `nve_core::task_id` alone; here are the clock, the host's EUI-64, and what is remembered.

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;
use nve_core::addr::{Identifier, Kind, SirPrefix};
use nve_core::task_id::{Eui64, NtpTime, Registrar, collision_probability, from_time_and_host};

mod ledger;

use ledger::Ledger;

use crate::config::DEFAULT_STATE;

/// Moments that are tried for one identifier; of 32768, one is in vain.
const ATTEMPTS: usize = 64;

/// `id ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    method: Method,
}

#[derive(Debug, Subcommand)]
enum Method {
    /// From the time and the host's EUI-64: unique in all likelihood, and nothing is remembered
    Rfc4193(Rfc4193Args),
    /// From this host's number and a timestamp: never the same one twice, whatever the clock says
    Registrar(RegistrarArgs),
}

#[derive(Debug, clap::Args)]
struct Rfc4193Args {
    #[command(flatten)]
    form: FormArgs,
    /// The host's EUI-64, 16 hexadecimal digits [default: made of the MAC of its first interface that has one]
    #[arg(long, value_name = "EUI64", value_parser = eui64)]
    eui64: Option<Eui64>,
    /// Also tell how likely two of so many identifiers are the same
    #[arg(long, value_name = "N")]
    among: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct RegistrarArgs {
    #[command(flatten)]
    form: FormArgs,
    /// This host's number among all that hand out identifiers in the domain: 24 bits, such as 17 or 0x0000ab
    #[arg(long, value_name = "N")]
    registrar: Registrar,
    /// Directory where the last identifier is remembered; it must survive a reboot
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
}

/// How many, and how they are written.
#[derive(Debug, clap::Args)]
struct FormArgs {
    /// How many
    #[arg(long, value_name = "N", default_value = "1")]
    count: NonZeroU32,
    /// Print SIR addresses under this prefix, a /64, instead of 15 hexadecimal digits
    #[arg(long, value_name = "PREFIX")]
    sir: Option<SirPrefix>,
}

fn eui64(text: &str) -> Result<Eui64, String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-')).collect();
    let bits = u64::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 16);
    let bits = bits.ok_or("write 16 hexadecimal digits, with colons or without")?;
    Ok(Eui64(bits.to_be_bytes()))
}

/// Runs the command; one identifier a line.
///
/// # Errors
/// The host has no MAC, or what was issued cannot be read or remembered.
pub fn run(args: Args) -> Result<String> {
    match args.method {
        Method::Rfc4193(args) => rfc4193(&args),
        Method::Registrar(RegistrarArgs { form, registrar, state }) => {
            let mut ledger = Ledger::open(&state, registrar)?;
            let mut issued = Vec::new();
            for _ in 0..form.count.get() {
                issued.push(ledger.issue(since_1970()?)?);
            }
            // What is printed has been remembered.
            ledger.remember()?;
            Ok(form.write(&issued))
        }
    }
}

fn rfc4193(args: &Rfc4193Args) -> Result<String> {
    let host = match args.eui64 {
        Some(eui64) => eui64,
        None => eui64_of_this_host()?,
    };
    let mut time = NtpTime::from_unix(since_1970()?);
    let mut issued = Vec::new();
    for _ in 0..args.form.count.get() {
        let mut moments = std::iter::successors(Some(time), |time| Some(time.next())).take(ATTEMPTS);
        let found = moments.find_map(|time| Some((time.next(), from_time_and_host(time, host)?)));
        let (next, identifier) = found.context("no moment gives an identifier")?;
        time = next;
        issued.push(identifier);
    }
    let mut text = args.form.write(&issued);
    if let Some(n) = args.among {
        let p = collision_probability(n);
        let _ = writeln!(text, "two of {n} are the same with a probability of {p:.4e}");
    }
    Ok(text)
}

impl FormArgs {
    fn write(&self, identifiers: &[Identifier]) -> String {
        let mut text = String::new();
        for identifier in identifiers {
            let _ = match (self.sir, identifier.kind()) {
                (Some(sir), _) => writeln!(text, "{}", sir.address(*identifier).ipv6()),
                (None, Kind::Local(bits)) => writeln!(text, "{bits:015x}"),
                (None, _) => writeln!(text, "{identifier:016x}"),
            };
        }
        text
    }
}

fn since_1970() -> Result<Duration> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock says a time before 1970")
}

/// Of the interface with the lowest index that has a MAC of its own.
fn eui64_of_this_host() -> Result<Eui64> {
    let mut found: Vec<(u32, [u8; 6])> = Vec::new();
    let interfaces = fs::read_dir("/sys/class/net").context("the host's interfaces cannot be listed")?;
    for interface in interfaces {
        let path = interface?.path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        let (index, mac) = (read("ifindex").trim().parse(), mac(read("address").trim()));
        if let (Ok(index), Some(mac)) = (index, mac) {
            found.push((index, mac));
        }
    }
    let first = found.into_iter().min_by_key(|(index, _)| *index);
    let (_, mac) =
        first.ok_or_else(|| anyhow!("no interface of this host has a MAC address: tell --eui64"))?;
    Ok(Eui64::from_mac(mac))
}

/// A unicast MAC as the kernel writes it; loopback's, all zeros, is none.
fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    let mac: [u8; 6] = bytes.try_into().ok()?;
    (mac != [0; 6] && mac[0] & 1 == 0).then_some(mac)
}
