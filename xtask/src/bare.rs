//! Proof of the README: its two commands in a Debian 12 that has nothing but Rust and `build-essential`.
//!
//! ```text
//! target/bare/base      debootstrap, minbase + build-essential + ca-certificates; made once
//!    └─ overlay, its upper layer in memory ─ chroot: cargo xtask demo && cargo xtask test ROUTES
//!         /src           this repository, read-only
//!         /rust          the toolchain that runs this
//!         /target        empty, but for apt's downloaded packages
//!         /cargo         empty, but for cargo's downloaded crates
//! ```
//!
//! Reused from this machine: downloads only (crates, .deb files), and the toolchain, which the README asks for. Everything is
//! resolved, unpacked and built anew. It needs root, for chroot and mounts; those are private and end with the command.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::fetch::{self, Set};
use crate::workspace;

/// What the README asks for besides Rust. ca-certificates comes with it wherever a toolchain could be downloaded.
const PREREQUISITES: &str = "build-essential,ca-certificates";

/// The end-to-end test that stands for `cargo xtask test`, whose whole would take as long again as the run that this is part of.
const SAMPLE: &str = "the_fabric_routes";

/// Run inside the private mount namespace: `$1` is the base, `$2` the repository, `$3` the toolchain, `$4` the downloaded crates,
/// `$5` apt's downloads, `$6` an empty target directory.
const INSIDE: &str = r#"
set -e
work=$(mktemp -d) && mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$1,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
cd "$work/root"
mkdir -p src rust target cargo/registry proc sys dev
mount --bind "$2" src && mount -o remount,bind,ro src
mount --bind "$3" rust
mount --bind "$6" target
mkdir -p target/tools/apt/cache/archives && mount --bind "$5" target/tools/apt/cache/archives
if [ -d "$4" ]; then mount --bind "$4" cargo/registry; fi
mount -t proc proc proc && mount --rbind /dev dev && mount --rbind /sys sys
cp /etc/resolv.conf /etc/hosts etc/ 2>/dev/null || true
apt-config dump | grep -E '^Acquire::[a-z]+::Proxy' > etc/apt/apt.conf.d/99proxy || true
exec env -i PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root CARGO_HOME=/cargo CARGO_TARGET_DIR=/target \
    ACCEL="$ACCEL" chroot . sh -c 'cd /src && cargo xtask demo && cargo xtask test "$0"' "$7"
"#;

/// Runs the README's commands in a bare Debian; what they say goes to `log`, or is printed. `Ok(None)` when they succeed, the reason when
/// this cannot be tried here.
///
/// # Errors
///
/// Fails when one of the commands does, or the bare system cannot be made.
pub(crate) fn run(log: Option<&Path>) -> Result<Option<String>> {
    if fs::metadata("/proc/self").context("reading /proc")?.uid() != 0 {
        return Ok(Some("a bare Debian needs root, for chroot".into()));
    }
    let base = base()?;
    let target = workspace::target().join("bare/target");
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir_all(&target)?;
    let archives = workspace::target().join("tools/apt/cache/archives");
    fs::create_dir_all(&archives)?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registry = cargo_home.context("no HOME")?.join("registry");
    println!("bare: reusing downloads: {} and {}", registry.display(), archives.display());

    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["sh", "-c", INSIDE, "sh"]).arg(base).arg(workspace::root()).arg(toolchain()?);
    command.arg(registry).arg(archives).arg(target).arg(SAMPLE).stdin(Stdio::null());
    command.env("ACCEL", std::env::var("ACCEL").unwrap_or_default());
    if let Some(log) = log {
        let file = fs::File::create(log)?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    let status = command.status()?;
    let said = log.and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default();
    ensure!(status.success(), "the README's commands fail in a bare Debian\n{}", end(&said));
    Ok(None)
}

/// The last lines of what was said.
fn end(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// The directory of the Rust toolchain, with `bin/cargo`.
fn toolchain() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("starting rustc")?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    ensure!(path.join("bin/cargo").exists(), "no cargo in {}", path.display());
    Ok(path)
}

/// The bare system, made by debootstrap when it is not there.
fn base() -> Result<PathBuf> {
    let base = workspace::target().join("bare/base");
    let stamp = workspace::target().join("bare/stamp");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == PREREQUISITES) {
        return Ok(base);
    }
    if base.exists() {
        fs::remove_dir_all(&base)?;
    }
    fs::create_dir_all(&base)?;
    let tools = fetch::ensure(Set::Bare)?;
    let path = std::env::var("PATH").unwrap_or_default();
    let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|part| tools.join(part));
    let log = workspace::target().join("bare/debootstrap.log");
    println!("bare: debootstrap into {}", base.display());
    let status = Command::new("sh")
        .arg(tools.join("usr/sbin/debootstrap"))
        .args(["--variant=minbase", &format!("--include={PREREQUISITES}"), "bookworm"])
        .arg(&base)
        .arg(fetch::mirror()?)
        .env("DEBOOTSTRAP_DIR", tools.join("usr/share/debootstrap"))
        // For wget, which debootstrap downloads with.
        .env("PATH", format!("{path}:{}", tools.join("usr/bin").display()))
        .env("LD_LIBRARY_PATH", libraries.map(|path| path.display().to_string()).join(":"))
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log)?)
        .status()?;
    ensure!(status.success(), "debootstrap failed, see {}", log.display());
    fs::write(stamp, PREREQUISITES)?;
    Ok(base)
}

/// Says how it went, for `cargo xtask bare`.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn command() -> Result<()> {
    let skipped = run(None)?;
    println!("{}", skipped.map_or("bare: passed".into(), |reason| format!("bare: skipped: {reason}")));
    Ok(())
}
