//! The oracle of `tests/oracle`, run by the unpacked Python: it makes the frames that tenants send, and judges captures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::capture::Capture;
use crate::fabric::SIR;
use crate::namespace::Namespace;
use crate::process::output;
use crate::ringpeer::file;
use crate::site::{Domain, Site, UPLINK_MTU, Vm};
use crate::tools::Set;

/// Which frames are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Their checksums must be good on the wire.
    Clean,
    /// They have no checksums, wrong ones, or such as no stateless translator gets right.
    Odd,
}

/// What a judgement counted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Verdict {
    /// Frames sent by tenants.
    pub sent: u64,
    /// Packets of tenants on both links.
    pub wire: u64,
    /// Frames delivered to tenants.
    pub received: u64,
    /// Frames that the gateway sent by itself.
    pub aside: u64,
}

/// The oracle of one site.
pub struct Oracle {
    plan: PathBuf,
}

impl Oracle {
    /// Tells the oracle of `site`.
    ///
    /// # Errors
    ///
    /// Fails when the plan cannot be written.
    pub fn of(site: &Site) -> Result<Oracle> {
        let plan = site.evidence.join("oracle-plan.json");
        fs::write(&plan, serde_json::to_vec_pretty(&describe(site, None))?)?;
        Ok(Oracle { plan })
    }

    /// Tells an oracle of one domain of `site`, as if there were no other.
    ///
    /// # Errors
    ///
    /// As [`Oracle::of`].
    pub fn of_domain(site: &Site, domain: Option<Domain>) -> Result<Oracle> {
        let name = domain.map_or("own", |domain| domain.name);
        let plan = site.evidence.join(format!("oracle-plan-{name}.json"));
        fs::write(&plan, serde_json::to_vec_pretty(&describe(site, domain))?)?;
        Ok(Oracle { plan })
    }

    /// The file that says what the site is.
    pub fn plan(&self) -> &Path {
        &self.plan
    }

    /// Adds frames of `kind` to what is sent in `directory`: for each (sender, its address, destination), a sender's in order.
    ///
    /// # Errors
    ///
    /// Fails as the script does.
    pub fn make(&self, directory: &Path, pairs: &[(&Vm, &str, &str)], kind: Kind) -> Result<()> {
        fs::create_dir_all(directory)?;
        let mut command = script("ilawire.py")?;
        command.arg("make").arg(&self.plan).arg(directory);
        command.arg(if kind == Kind::Clean { "clean" } else { "odd" });
        command.args(pairs.iter().map(|(sender, from, to)| format!("{},{from},{to}", sender.name)));
        output(command).map(drop)
    }

    /// The frame called `name` of those that [`Oracle::make`] makes; files are left in `directory`.
    ///
    /// # Errors
    ///
    /// Fails when there is no such frame.
    pub fn frame(
        &self,
        directory: &Path,
        sender: &Vm,
        source: &str,
        destination: &str,
        kind: Kind,
        name: &str,
    ) -> Result<Vec<u8>> {
        let directory = directory.join(format!("frames to {destination}"));
        if !directory.exists() {
            self.make(&directory, &[(sender, source, destination)], kind)?;
        }
        let names = fs::read_to_string(directory.join(format!("{}-sent.names", sender.name)))?;
        let wanted = format!("{destination}: {name}");
        let number =
            names.lines().position(|line| line == wanted).with_context(|| format!("no frame {name}"))?;
        let frames = file::read(&directory.join(format!("{}-sent.pcap", sender.name)))?;
        frames.into_iter().nth(number).context("fewer frames than names")
    }

    /// Compares what was captured in `directory` with what the frames sent must have become.
    ///
    /// # Errors
    ///
    /// Fails on any difference, quoting all of them.
    pub fn judge(&self, directory: &Path) -> Result<Verdict> {
        let mut command = script("ilawire.py")?;
        command.arg("judge").arg(&self.plan).arg(directory);
        let done = command.output().context("starting python3")?;
        let said = String::from_utf8_lossy(&done.stdout);
        let complaints = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{}: the oracle complains\n{said}{complaints}", directory.display());
        Ok(serde_json::from_str(said.lines().last().context("the oracle said nothing")?)?)
    }

    /// A copy of `captured`, a capture of the fabric, in which the destinations are those that the endpoints used.
    ///
    /// # Errors
    ///
    /// Fails as the script does.
    pub fn restore(&self, captured: &Capture) -> Result<Capture> {
        let file = captured.file.with_extension("restored.pcap");
        let mut command = script("ilawire.py")?;
        command.arg("restore").arg(&self.plan).args([&captured.file, &file]);
        output(command)?;
        Ok(Capture { file })
    }
}

/// A command that runs a script of `tests/oracle`.
///
/// # Errors
///
/// Fails when the set `net` is not unpacked.
pub fn script(name: &str) -> Result<Command> {
    let mut command = Set::open("net")?.tool("python3")?.command();
    command.arg(path(name));
    Ok(command)
}

/// As [`script`], in a namespace.
///
/// # Errors
///
/// As there.
pub fn script_in(namespace: &Namespace, name: &str) -> Result<Command> {
    let mut command = namespace.tool(&Set::open("net")?.tool("python3")?);
    command.arg(path(name));
    Ok(command)
}

/// Where a script of `tests/oracle` is.
pub fn path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle").join(script)
}

/// `domain` of `site`; `None`: the hosts' own.
fn describe(site: &Site, domain: Option<Domain>) -> Value {
    let plan = site.plan();
    let object = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect());
    let number = if domain.is_some() { Domain::NUMBER } else { 0 };
    let hosts = site.fabric.hosts.iter().map(|host| (host.name.clone(), json!(host.locator_in(number))));
    let is_of_it = |vm: &&Vm| plan.domain_of(vm.network.name).is_some() == domain.is_some();
    let networks = plan.vms.iter().filter(is_of_it).map(|vm| {
        let network = vm.network;
        (network.name.to_owned(), json!({ "vni": network.vni, "ipv4": network.ipv4, "ipv6": network.ipv6 }))
    });
    let attachments = plan.vms.iter().filter(is_of_it).map(|vm| {
        let (host, addresses) = (&site.fabric.hosts[vm.host].name, vm.addresses());
        let said = json!({ "host": host, "network": vm.network.name, "mac": vm.mac, "addresses": addresses });
        (vm.name.to_owned(), said)
    });
    json!({
        "sir": domain.map_or(SIR, |domain| domain.sir),
        "checksum": plan.checksum.word(),
        "uplink_mtu": UPLINK_MTU,
        "hosts": object(hosts.collect()),
        "networks": object(networks.collect()),
        "attachments": object(attachments.collect()),
    })
}
