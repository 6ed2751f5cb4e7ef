//! Whether guests run under KVM or emulated: `ACCEL=auto|kvm|tcg`.
//!
//! A `/dev/kvm` that opens is no proof: under some hypervisors a stock kernel hangs in it. So `auto` boots the test
//! kernel under KVM with a time limit, and remembers the verdict for this boot of the machine.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Guest, Spec};
use crate::guest::Qemu;
use crate::initramfs::Image;
use crate::sandbox;

/// How long the test kernel may take to say that it is up.
const LIMIT: Duration = Duration::from_secs(20);

/// How QEMU runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// On the processor, by KVM.
    Kvm,
    /// Emulated.
    Tcg,
}

/// What a trial found, valid while the machine is not rebooted.
#[derive(Serialize, Deserialize)]
struct Verdict {
    boot_id: String,
    accel: Accel,
    because: String,
}

impl Accel {
    /// What `ACCEL` says; `auto`, or nothing, tries KVM unless that was done since the machine booted. The verdict is
    /// printed and kept in `target/accel.json`.
    ///
    /// # Errors
    ///
    /// Fails on an unknown word.
    pub fn choose(image: &Image) -> Result<Accel> {
        match env::var("ACCEL").as_deref() {
            Ok("kvm") => Ok(Accel::Kvm),
            Ok("tcg") => Ok(Accel::Tcg),
            Ok("auto" | "") | Err(env::VarError::NotPresent) => remembered_or_tried(image),
            other => bail!("ACCEL is one of auto, kvm, tcg; it is {other:?}"),
        }
    }
}

fn remembered_or_tried(image: &Image) -> Result<Accel> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading boot_id")?;
    let file = sandbox::target()?.join("accel.json");
    // Tests run side by side, and the trial is made once. The lock goes with its file.
    let trial = fs::File::create(file.with_extension("lock"))?;
    rustix::fs::flock(&trial, rustix::fs::FlockOperation::LockExclusive)?;
    let remembered = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Verdict>(&bytes).ok());
    if let Some(verdict) = remembered.filter(|verdict| verdict.boot_id == boot_id) {
        eprintln!("accel: {:?}: {} (remembered from {})", verdict.accel, verdict.because, file.display());
        return Ok(verdict.accel);
    }
    let (accel, because) = try_kvm(image)?;
    eprintln!("accel: {accel:?}: {because}");
    fs::write(&file, serde_json::to_vec_pretty(&Verdict { boot_id, accel, because })?)?;
    Ok(accel)
}

fn try_kvm(image: &Image) -> Result<(Accel, String)> {
    let device = Path::new("/dev/kvm");
    if let Err(error) = fs::File::options().read(true).write(true).open(device) {
        return Ok((Accel::Tcg, format!("/dev/kvm cannot be opened: {error}")));
    }
    let spec = Spec {
        name: "kvm-trial".into(),
        image: image.clone(),
        qemu: Qemu::V10,
        accel: Accel::Kvm,
        nic: None,
        second: None,
    };
    let start = Instant::now();
    let evidence = sandbox::evidence("kvm-trial")?;
    let booted = Guest::start(&spec, &evidence).and_then(|mut guest| guest.wait_until_ready(LIMIT));
    Ok(match booted {
        Ok(()) => (Accel::Kvm, format!("the test kernel booted in {:.1} s", start.elapsed().as_secs_f32())),
        Err(error) => {
            (Accel::Tcg, format!("/dev/kvm opens, but the test kernel did not boot in it: {error:#}"))
        }
    })
}
