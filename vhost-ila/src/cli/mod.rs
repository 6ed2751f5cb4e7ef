//! The command line: what may be typed, and one short file per command.
//!
//! What must stay true: standard output carries the answer and nothing else, so that it can be piped; what went wrong goes to
//! standard error, with exit status 1 (2 for a command line that is not understood).

pub mod addr;
pub mod attachment;
pub mod check;
pub mod id;
pub mod mapping;
pub mod plug;
pub mod qemu_args;
pub mod reload;
pub mod replay;
pub mod run;
pub mod show;
mod table;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::authority::StaticFile;

/// Where the config is if `--config` does not say.
pub const DEFAULT_CONFIG: &str = "/etc/vhost-ila";

/// A network virtualization edge for hypervisors: vhost-user NICs for virtual machines, plain IPv6 between the hosts.
#[derive(Debug, Parser)]
#[command(name = "vhost-ila", version, max_term_width = 100)]
pub struct Cli {
    /// Config: a TOML file, or a directory with a host.toml and any other *.toml
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Directory of the sockets, in place of the config's
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute)]
    runtime: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Where the config comes from, and the command.
    pub fn into_parts(self) -> (StaticFile, Command) {
        (StaticFile::new(self.config, self.runtime), self.command)
    }
}

fn absolute(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

/// What a command says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// Whether the exit status is 0: a check that finds something answers, and is not well.
    pub well: bool,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, well: true }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Run,
    /// Ask the running daemon
    Show(show::Args),
    /// Have the running daemon read its config again, all or nothing
    Reload,
    /// Give a host task its NIC: a TUN device in its network namespace
    Plug(plug::Args),
    /// Take it out again
    Unplug(plug::UnplugArgs),
    /// Say that an attachment's guest has come from another host, or gone to one
    Attachment(attachment::Args),
    /// Check the config, or what the host needs
    Check(check::Args),
    /// Read and write ILA addresses
    Addr(addr::Args),
    /// See, register, move and unregister who holds which identifier
    Mapping(mapping::Args),
    /// Make locally unique identifiers for new tasks
    Id(id::Args),
    /// Print QEMU, cloud-hypervisor and libvirt configuration for an attachment
    QemuArgs(qemu_args::Args),
    /// Send a capture through the pipeline, offline, and write what becomes of each packet
    Replay(replay::Args),
}
