//! Network namespaces, each standing for a machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::output;
use crate::tools::{Set, Tool};

/// A network namespace inside the sandbox. It ends with the sandbox.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    tools: Set,
    ip: Tool,
}

impl Namespace {
    /// Makes the namespace `name`, its loopback up.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does, or the name is taken.
    pub fn new(name: &str) -> Result<Namespace> {
        let tools = Set::open("net")?;
        let ip = tools.tool("ip")?;
        let mut add = ip.command();
        add.args(["netns", "add", name]);
        output(add)?;
        let namespace = Namespace { name: name.to_owned(), tools, ip };
        // Nobody else is on these links; waiting for duplicates would cost two seconds before the first packet.
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Deletes it: its interfaces go once nothing runs in it.
    ///
    /// # Errors
    ///
    /// Fails when `ip` does.
    pub fn delete(&self) -> Result<()> {
        let mut delete = self.ip.command();
        delete.args(["netns", "del", &self.name]);
        output(delete).map(drop)
    }

    /// The name that `ip link ... netns NAME` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command inside the namespace that runs the installed or built `program`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// A command inside the namespace that runs an unpacked program.
    pub fn tool(&self, tool: &Tool) -> Command {
        tool.command_in(&self.path())
    }

    /// Runs `ip ARGUMENTS` inside; arguments are split at blanks.
    ///
    /// # Errors
    ///
    /// Fails as `ip` does, quoting it.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = self.tool(&self.ip);
        command.args(arguments.split_whitespace());
        output(command).with_context(|| format!("{}: ip {arguments}", self.name))
    }

    /// Sets a sysctl of the network namespace, `net/ipv6/conf/all/forwarding` for instance.
    ///
    /// # Errors
    ///
    /// Fails for sysctls that the kernel does not have or does not keep per namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        ensure!(key.starts_with("net/"), "{key} belongs to the whole machine");
        let mut command = self.command("sh");
        command.args(["-c", r#"echo "$1" > "/proc/sys/$0""#, key, value]);
        output(command).with_context(|| format!("{}: sysctl {key}={value}", self.name)).map(drop)
    }

    /// Turns features of an interface on or off, as `ethtool -K`.
    ///
    /// # Errors
    ///
    /// Fails as `ethtool` does.
    pub fn offloads(&self, interface: &str, features: &[&str], state: &str) -> Result<()> {
        let mut command = self.tool(&self.tools.tool("ethtool")?);
        command.args(["-K", interface]);
        for feature in features {
            command.args([feature, state]);
        }
        output(command).map(drop)
    }

    /// Whether the namespace has an interface of this name.
    pub fn has_interface(&self, interface: &str) -> bool {
        self.ip(&format!("link show dev {interface}")).is_ok()
    }
}
