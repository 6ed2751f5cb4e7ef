//! Programs unpacked under `target/tools` by `cargo xtask fetch`, run where they lie.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sandbox;

/// One unpacked set of packages, a Debian tree that nobody installed.
#[derive(Clone, Debug)]
pub struct Set {
    root: PathBuf,
}

impl Set {
    /// The set `name` (`net`, `qemu`, `dpdk`, ...).
    ///
    /// # Errors
    ///
    /// Fails when it was not fetched.
    pub fn open(name: &str) -> Result<Set> {
        let root = sandbox::target()?.join("tools").join(name);
        ensure!(root.is_dir(), "{} is missing: cargo xtask fetch {name}", root.display());
        Ok(Set { root })
    }

    /// The directory that stands for `/` in this set.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of this set that a package would install as `/PATH`, with or without `/usr`.
    ///
    /// # Errors
    ///
    /// Fails when the set has no such file.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        [self.root.join("usr").join(path), self.root.join(path)]
            .into_iter()
            .find(|file| file.exists())
            .with_context(|| format!("no {path} in {}", self.root.display()))
    }

    /// A program of this set, as a path and the environment that lets it find its libraries.
    ///
    /// # Errors
    ///
    /// Fails when the set has no such program.
    pub fn tool(&self, program: &str) -> Result<Tool> {
        let path = ["bin", "sbin", "lib/openvswitch-switch-dpdk"]
            .iter()
            .find_map(|directory| self.file(&format!("{directory}/{program}")).ok())
            .with_context(|| format!("no program {program} in {}", self.root.display()))?;
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|directory| self.root.join(directory).display().to_string()).join(":");
        let usr = self.root.join("usr");
        let environment = vec![
            ("LD_LIBRARY_PATH", libraries),
            ("PYTHONHOME", usr.display().to_string()),
            ("PYTHONPATH", usr.join("lib/python3/dist-packages").display().to_string()),
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            // Nobody's own preferences have a say in what a test sees.
            ("WIRESHARK_CONFIG_DIR", format!("{}/wireshark", sandbox::RUNTIME)),
            ("WIRESHARK_DATA_DIR", usr.join("share/wireshark").display().to_string()),
        ];
        Ok(Tool { path, environment })
    }
}

/// A program that needs an environment to run from where it was unpacked.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Tool {
    /// A command that runs this program.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command that runs this program by another, which is given `before` and then the program.
    ///
    /// # Panics
    ///
    /// Does when `before` is empty.
    pub fn command_by(&self, before: &[&str]) -> Command {
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).arg(&self.path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command that runs this program in the network namespace bound at `namespace`.
    pub(crate) fn command_in(&self, namespace: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.display())).arg("env");
        command.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(&self.path);
        command
    }
}
