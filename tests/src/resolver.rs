//! Resolvers of the hosts' side: dnsmasq (set `resolver`), and one that is spoofed while it answers (`oracle/spoofed_resolver.py`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::oracle;
use crate::process::{Owned, wait_for};
use crate::tools::Set;

/// How long one may take to be ready.
const LIMIT: Duration = Duration::from_secs(30);

/// A running resolver.
pub struct Resolver {
    process: Owned,
    log: PathBuf,
}

impl Resolver {
    /// Starts dnsmasq at port 53 of these addresses of `namespace`; `records` are options of its own, such as `host-record=www.example,192.0.2.1`.
    ///
    /// # Errors
    ///
    /// Fails when it does not come up.
    pub fn start(
        namespace: &Namespace,
        addresses: &[&str],
        records: &[String],
        evidence: &Path,
    ) -> Result<Resolver> {
        let log = evidence.join("dnsmasq.log");
        let mut command = namespace.tool(&Set::open("resolver")?.tool("dnsmasq")?);
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--group=root",
        ]);
        command.args([
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--log-facility=-",
            "--log-queries=extra",
        ]);
        command.args(addresses.iter().map(|address| format!("--listen-address={address}")));
        command.args(records.iter().map(|record| format!("--{record}")));
        Resolver::ready(Owned::spawn("dnsmasq", command, &log)?, log, "started, version")
    }

    /// Starts one at `address`, of `namespace`, for whose every answer there are forged ones that come before it: with another
    /// identification, from another server, to another question.
    ///
    /// # Errors
    ///
    /// Fails when it does not come up.
    pub fn start_spoofed(namespace: &Namespace, address: &str, evidence: &Path) -> Result<Resolver> {
        let log = evidence.join("spoofed-resolver.log");
        let mut command = oracle::script_in(namespace, "spoofed_resolver.py")?;
        command.arg(address);
        Resolver::ready(Owned::spawn("the spoofed resolver", command, &log)?, log, "ready")
    }

    fn ready(mut process: Owned, log: PathBuf, word: &str) -> Result<Resolver> {
        wait_for("a resolver", LIMIT, || {
            process.must_run()?;
            Ok(fs::read_to_string(&log)?.contains(word).then_some(()))
        })?;
        Ok(Resolver { process, log })
    }

    /// What it has logged; every question among it.
    ///
    /// # Errors
    ///
    /// Fails when it is gone.
    pub fn said(&mut self) -> Result<String> {
        self.process.must_run()?;
        Ok(fs::read_to_string(&self.log)?)
    }
}
