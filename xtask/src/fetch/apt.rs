//! An apt of our own: the host's mirrors and proxies, but own lists, own cache, and an empty package status.
//!
//! An empty status makes apt resolve the whole closure down to libc, so the result does not depend on what the host
//! happens to have installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The suites asked for, each with the mirror used when the host's configuration names none.
const SUITES: [(&str, &str); 4] = [
    ("bookworm", "http://deb.debian.org/debian"),
    ("bookworm-updates", "http://deb.debian.org/debian"),
    ("bookworm-backports", "http://deb.debian.org/debian"),
    ("bookworm-security", "http://deb.debian.org/debian-security"),
];

/// Checked by apt against every release file; part of every Debian (apt depends on it).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private apt under one directory, its lists up to date.
pub(super) struct Apt {
    config: PathBuf,
    archives: PathBuf,
}

/// A downloaded package.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) file: PathBuf,
}

impl Apt {
    /// Writes the configuration into `directory` and updates the lists there.
    ///
    /// # Errors
    ///
    /// Fails when apt is missing or no mirror answers.
    pub(super) fn prepare(directory: &Path) -> Result<Apt> {
        let apt = Apt { config: directory.join("apt.conf"), archives: directory.join("cache/archives") };
        fs::create_dir_all(directory.join("lists/partial"))?;
        fs::create_dir_all(apt.archives.join("partial"))?;
        fs::write(directory.join("status"), "")?;
        fs::write(directory.join("sources.list"), sources(&host_repositories()?))?;
        fs::write(&apt.config, configuration(directory))?;
        apt.run(&["update"]).context("updating the package lists")?;
        Ok(apt)
    }

    /// Downloads `packages` of `release` with all they depend on, or finds them in the cache.
    ///
    /// # Errors
    ///
    /// Fails when a package does not exist, cannot be downloaded, or does not match its checksum.
    pub(super) fn download(&self, release: &str, packages: &[&str]) -> Result<Vec<Package>> {
        let install = [&["install", "--yes", "--no-install-recommends", "-t", release], packages].concat();
        self.run(&[&install[..], &["--download-only"]].concat()).context("downloading packages")?;
        // Named from the whole closure, not from what was missing: a second set may share packages with a first.
        let simulated = self.run(&[&install[..], &["--simulate"]].concat())?;
        let closure: Vec<Package> =
            simulated.lines().filter_map(|line| self.package(line)).collect::<Result<_>>()?;
        ensure!(!closure.is_empty(), "apt named no package for {packages:?}; it said:\n{simulated}");
        Ok(closure)
    }

    /// Reads a line of `--simulate`, such as `Inst libfoo (1:2.3-4 Debian:12.11/stable [amd64])`.
    fn package(&self, line: &str) -> Option<Result<Package>> {
        let mut words = line.strip_prefix("Inst ")?.split(' ');
        let name = words.next()?.to_owned();
        let version = words.find_map(|word| word.strip_prefix('('))?.to_owned();
        let architecture = line.split_once('(')?.1.split_once('[')?.1.split(']').next()?;
        let file = format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"));
        let file = self.archives.join(file);
        Some(if file.is_file() {
            Ok(Package { name, version, file })
        } else {
            Err(anyhow::anyhow!("apt did not bring {}", file.display()))
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("apt-get");
        command.arg("-c").arg(&self.config).arg("-qq").args(arguments).env("LC_ALL", "C.UTF-8");
        let output = command.output().context("starting apt-get")?;
        if !output.status.success() {
            bail!("{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Unpacks `package` into `directory` without running any of its scripts.
///
/// # Errors
///
/// Fails when the package is damaged or the disk is full.
pub(super) fn unpack(package: &Path, directory: &Path) -> Result<()> {
    let status = Command::new("dpkg-deb").arg("-x").arg(package).arg(directory).status();
    ensure!(status.context("starting dpkg-deb")?.success(), "cannot unpack {}", package.display());
    Ok(())
}

/// The host's configured repositories as (URI, release).
fn host_repositories() -> Result<Vec<(String, String)>> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
        .output()
        .context("starting apt-get: `cargo xtask` needs a Debian 12")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(uri, release)| (uri.into(), release.into()))
        .collect())
}

/// The host's mirror of bookworm, or the public one.
///
/// # Errors
///
/// Fails when there is no apt.
pub(super) fn mirror() -> Result<String> {
    let host = host_repositories()?;
    let configured = host.into_iter().find(|(_, release)| release == SUITES[0].0);
    Ok(configured.map_or_else(|| SUITES[0].1.to_owned(), |(uri, _)| uri))
}

/// The text of `sources.list`: the host's mirror for each suite. A suite that the host does not have comes from the
/// mirror of its `bookworm`, as backports live beside it.
fn sources(host: &[(String, String)]) -> String {
    let mirror = |suite: &str| host.iter().find(|(_, release)| release == suite).map(|(uri, _)| uri.as_str());
    let beside = |suite: &str| if suite.ends_with("-security") { None } else { mirror("bookworm") };
    SUITES
        .iter()
        .map(|(suite, default)| {
            let uri = mirror(suite).or_else(|| beside(suite)).unwrap_or(default);
            format!("deb [signed-by={KEYRING}] {uri} {suite} main\n")
        })
        .collect()
}

/// The text of `apt.conf`, read after the host's own, so that proxies stay and everything else is ours.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"Dir::State "{directory}";
Dir::State::status "{directory}/status";
Dir::State::lists "lists";
Dir::Cache "{directory}/cache";
Dir::Cache::archives "archives";
Dir::Etc::sourcelist "{directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
APT::Architecture "amd64";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(uri, release)| ((*uri).into(), (*release).into())).collect()
    }

    #[test]
    fn a_bare_host_gets_the_public_mirror() {
        assert!(sources(&[]).contains("] http://deb.debian.org/debian bookworm-backports main\n"));
        assert!(sources(&[]).contains("] http://deb.debian.org/debian-security bookworm-security main\n"));
    }

    #[test]
    fn backports_come_from_the_mirror_that_the_host_uses() {
        let sources = sources(&host(&[("http://mirror.example/debian/", "bookworm")]));
        assert!(sources.contains("] http://mirror.example/debian/ bookworm-backports main\n"));
        assert!(sources.contains("] http://deb.debian.org/debian-security bookworm-security main\n"));
    }

    #[test]
    fn a_simulated_installation_names_the_file_in_the_cache() {
        let apt = Apt { config: PathBuf::new(), archives: PathBuf::from("/nowhere") };
        let line =
            "Inst qemu-system-x86 (1:10.0.2+ds-2~bpo12+1 Debian Backports:stable-backports [amd64]) []";
        let missing = apt.package(line).expect("a package line").err().expect("the file is not there");
        assert!(missing.to_string().ends_with("/qemu-system-x86_1%3a10.0.2+ds-2~bpo12+1_amd64.deb"));
        assert!(apt.package("Conf qemu-system-x86 (1:10.0.2)").is_none());
    }
}
