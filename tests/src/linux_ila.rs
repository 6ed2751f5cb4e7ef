//! A host of the fabric whose ILA is the Linux kernel's own: a guest with the module `ila`, set up by `ip` of iproute2.
//!
//! ```text
//!   fabric [hv3] ::1 ──tap── ::2 [eth0] guest       out: route of SIR:T, encap ila ──> L1:T     (lwtunnel)
//!   2001:db8:f:3::/64        locator 2001:db8:0:3::/64   in:  ip ila: L3:T ──> SIR:T ──> lo     (netfilter, before routing)
//! ```
//!
//! It has no daemon of ours; the commands are those of docs/linux-ila.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::capture::Capture;
use crate::fabric::{Fabric, SIR};
use crate::guest::{Accel, Guest, Nic, Qemu, Spec};
use crate::initramfs::{self, Kit};
use crate::oracle;
use crate::sandbox;

/// What the kernel does to checksums: its `csum-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsumMode {
    /// It rewrites the transport's checksum.
    AdjTransport,
    /// As the draft's 4.4.1: C and an adjusted low word.
    NeutralMap,
    /// The adjusted low word without C.
    NeutralMapAuto,
    /// As the draft's 4.4.2.
    NoAction,
}

impl CsumMode {
    /// The word of iproute2.
    pub const fn word(self) -> &'static str {
        match self {
            CsumMode::AdjTransport => "adj-transport",
            CsumMode::NeutralMap => "neutral-map",
            CsumMode::NeutralMapAuto => "neutral-map-auto",
            CsumMode::NoAction => "no-action",
        }
    }
}

/// The Linux host.
pub struct LinuxHost {
    /// The machine.
    pub guest: Guest,
    /// 3 for hv3: part of all its addresses.
    number: u8,
    /// Of what comes to its locator, once that is translated.
    mode: Option<CsumMode>,
}

impl LinuxHost {
    /// Boots it on a new link of `fabric`, its module loaded and its link up.
    ///
    /// # Errors
    ///
    /// Fails when the guest does not come up, or its kernel has no ILA.
    pub fn boot(fabric: &Fabric, number: u8, evidence: &Path) -> Result<LinuxHost> {
        let interface = fabric.tap(number)?;
        let image = initramfs::make_with(Path::new(sandbox::RUNTIME), Kit::Ila)?;
        let accel = Accel::choose(&image)?;
        let mac = format!("52:54:00:00:00:f{number}");
        let nic = Nic::Tap {
            namespace: fabric.router.clone(),
            interface: interface.clone(),
            mac,
            vhost_net: false,
        };
        let spec = Spec { name: interface, image, qemu: Qemu::V10, accel, nic: Some(nic), second: None };
        let mut guest = Guest::start(&spec, evidence)?;
        guest.wait_until_ready(Duration::from_secs(90))?;
        let mut host = LinuxHost { guest, number, mode: None };
        host.guest.run("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")?;
        host.ip(&format!("-6 addr add 2001:db8:f:{number}::2/64 dev eth0 nodad"))?;
        host.ip(&format!("-6 route add default via {}", host.gateway()))?;
        // Its next hop must be found before packets are counted.
        let gateway = host.gateway();
        host.guest
            .run(&format!("for i in $(seq 20); do ping -c 1 -W 1 {gateway} && exit 0; done; exit 1"))?;
        Ok(host)
    }

    /// Has what comes to the locator translated in `mode`.
    ///
    /// # Errors
    ///
    /// Fails as `ip` does.
    pub fn take(&mut self, mode: CsumMode) -> Result<()> {
        if let Some(before) = self.mode {
            self.translate(before, "del")?;
        }
        self.translate(mode, "add")?;
        self.mode = Some(mode);
        Ok(())
    }

    /// Types what docs/linux-ila.md says is to be typed on such a host: hv3, in neutral-map.
    ///
    /// # Errors
    ///
    /// Fails as the first of its commands that does.
    pub fn as_documented(&mut self) -> Result<()> {
        let [commands] = &documented("sh")?[..] else { bail!("not one block of commands") };
        for command in commands.replace("\\\n", " ").lines() {
            match command.split_once(' ') {
                Some(("ip", arguments)) => drop(self.ip(arguments)?),
                // The guest has it loaded.
                Some(("modprobe" | "#", _)) => {}
                _ => bail!("{command}: what is this?"),
            }
        }
        self.mode = Some(CsumMode::NeutralMap);
        Ok(())
    }

    fn translate(&mut self, mode: CsumMode, verb: &str) -> Result<()> {
        let (locator, sir) = (quads(&self.locator_stem()), quads(SIR));
        let how = format!("csum-mode {} ident-type luid", mode.word());
        self.ip(&format!("ila {verb} loc_match {locator} loc {sir} {how}")).map(drop)
    }

    /// Gives it a task: an address of the SIR prefix.
    ///
    /// # Errors
    ///
    /// Fails as `ip` does.
    pub fn task(&mut self, address: &str) -> Result<()> {
        self.ip(&format!("-6 addr add {address}/128 dev lo")).map(drop)
    }

    /// Tells it that the task `address` lives at `locator` (as [`crate::fabric::Host::locator_stem`]) and is spoken to in `mode`; it
    /// sends from `source`.
    ///
    /// # Errors
    ///
    /// Fails as `ip` does.
    pub fn route(&mut self, mode: CsumMode, address: &str, locator: &str, source: &str) -> Result<()> {
        let (locator, gateway) = (quads(locator), self.gateway());
        let how = format!("csum-mode {} ident-type luid hook-type output", mode.word());
        let route = format!("{address}/128 encap ila {locator} {how} via {gateway} src {source}");
        self.ip(&format!("-6 route replace {route}")).map(drop)
    }

    /// Runs Debian's `ip`; the shell has one of its own by that name.
    ///
    /// # Errors
    ///
    /// Fails as it does, quoting it.
    pub fn ip(&mut self, arguments: &str) -> Result<String> {
        self.guest.run(&format!("/bin/ip {arguments}"))
    }

    /// As [`crate::fabric::Host::locator_stem`].
    pub fn locator_stem(&self) -> String {
        format!("2001:db8:0:{}::", self.number)
    }

    /// Its next hop.
    fn gateway(&self) -> String {
        format!("2001:db8:f:{}::1", self.number)
    }
}

/// The blocks of docs/linux-ila.md in this language.
///
/// # Errors
///
/// Fails when it cannot be read.
pub fn documented(language: &str) -> Result<Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/linux-ila.md");
    let text = fs::read_to_string(page).context("docs/linux-ila.md")?;
    let blocks = text.split("```").skip(1).step_by(2);
    let of_language =
        blocks.filter_map(|block| block.split_once('\n').filter(|(first, _)| *first == language));
    Ok(of_language.map(|(_, block)| block.to_owned()).collect())
}

/// What one task sends another, as `tests/oracle/linux_ila.py` is told.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The sender, `SIR:T`.
    pub from: String,
    /// The receiver, `SIR:T`.
    pub to: String,
    /// The receiver's locator.
    pub locator: String,
    /// How its destination and checksum are on the wire.
    pub mode: CsumMode,
    /// Whether the kernel makes them so, or a daemon of ours.
    pub by_linux: bool,
}

/// How many whole packets of each protocol, and how many `fragments`, were of one flow.
pub type Counts = BTreeMap<String, u64>;

/// Has the script judge every packet from a task in `capture`, which must be of one of `flows`; what each flow had.
///
/// # Errors
///
/// Fails where a packet is of none of them, or has not the checksum that it must have there.
pub fn judge(flows: &[Flow], capture: &Capture) -> Result<Vec<Counts>> {
    let flow = |flow: &Flow| {
        let by = if flow.by_linux { "linux" } else { "nve" };
        json!({ "from": flow.from, "to": flow.to, "locator": flow.locator, "mode": flow.mode.word(), "by": by })
    };
    let plan = json!({ "sir": SIR, "flows": flows.iter().map(flow).collect::<Vec<_>>() });
    let file = capture.file.with_extension("plan.json");
    fs::write(&file, serde_json::to_vec_pretty(&plan)?)?;
    let mut command = oracle::script("linux_ila.py")?;
    let done = command.arg(&file).arg(&capture.file).output().context("starting python3")?;
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}: the script complains\n{said}{errors}", capture.file.display());
    Ok(serde_json::from_str(said.lines().last().context("the script said nothing")?)?)
}

/// The upper 64 bits of a prefix as iproute2 writes a locator: `2001:db8:0:3` of `2001:db8:0:3::`, with all four words.
fn quads(prefix: &str) -> String {
    let words = prefix.split("::").next().unwrap_or_default();
    let missing = 4usize.saturating_sub(words.split(':').count());
    format!("{words}{}", ":0".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_is_written_as_four_words() {
        assert_eq!(quads("2001:db8:0:3::"), "2001:db8:0:3");
        assert_eq!(quads("2001:db8:51::/64"), "2001:db8:51:0");
    }
}
