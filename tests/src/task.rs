//! Host tasks: programs in network namespaces whose NIC the daemon serves, and streams between them.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::daemon;
use crate::fabric::Host;
use crate::namespace::Namespace;
use crate::oracle;
use crate::process::{Owned, output, wait_for};
use crate::sandbox;
use crate::tools::Set;
use crate::traffic::Shell;

/// The port of [`stream`].
const PORT: &str = "5001";
/// How long a program may take to begin.
const LIMIT: Duration = Duration::from_secs(20);

/// A task: its attachment's name is its namespace's.
#[derive(Clone, Debug)]
pub struct Task {
    /// Where its programs run.
    pub namespace: Namespace,
    /// Its host.
    pub host: Host,
    /// Its SIR address.
    pub address: String,
    config: PathBuf,
}

impl Task {
    /// A namespace called `name` for a task on `host`, whose config has an attachment of that name with `address`. It has no NIC yet.
    ///
    /// # Errors
    ///
    /// Fails when the namespace cannot be made.
    pub fn new(name: &str, host: &Host, address: &str, config: PathBuf) -> Result<Task> {
        Ok(Task { namespace: Namespace::new(name)?, host: host.clone(), address: address.to_owned(), config })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The line of a host's config that makes it an attachment.
    pub fn toml(name: &str, address: &str) -> String {
        format!("[attachment.{name}]\nkind = \"tun\"\naddresses = [\"{address}\"]\n")
    }

    /// A `vhost-ila` command on its host: `plug` and so on.
    ///
    /// # Errors
    ///
    /// Fails outside a sandbox.
    pub fn command(&self, arguments: &[&str]) -> Result<std::process::Command> {
        let mut command = self.host.namespace.command(daemon::binary()?);
        command.arg("--config").arg(&self.config).args(arguments);
        Ok(command)
    }

    /// Plugs it in.
    ///
    /// # Errors
    ///
    /// Fails as the command does, quoting it.
    pub fn plug(&self) -> Result<String> {
        output(self.command(&["plug", self.name(), "--netns", self.name()])?)
    }

    /// Plugs it in, and stays; its output goes to `NAME.plug.log` beside the config.
    ///
    /// # Errors
    ///
    /// Fails when it does not come that far.
    pub fn plug_and_hold(&self) -> Result<Owned> {
        let log = self.config.with_file_name(format!("{}.plug.log", self.name()));
        let command = self.command(&["plug", self.name(), "--netns", self.name(), "--hold"])?;
        let mut holder = Owned::spawn("vhost-ila plug", command, &log)?;
        wait_for("a task to be plugged in", LIMIT, || {
            let said = std::fs::read_to_string(&log)?;
            holder.must_run().with_context(|| said.clone())?;
            Ok(said.contains("MTU").then_some(()))
        })?;
        Ok(holder)
    }

    /// Runs a shell command in its namespace; what it prints.
    ///
    /// # Errors
    ///
    /// Fails as the command does, quoting it.
    pub fn run(&self, text: &str) -> Result<String> {
        let mut command = self.namespace.command("sh");
        command.args(["-c", text]);
        output(command)
    }

    /// Waits until `target` answers: the fabric's first packets wait for its routers to find each other.
    ///
    /// # Errors
    ///
    /// Fails when it does not in time.
    pub fn reach(&self, target: &str) -> Result<()> {
        wait_for(&format!("{target} to answer {}", self.name()), LIMIT, || {
            let said = pinged(&self.namespace, target, 1)?;
            Ok(said.contains("1 answered").then_some(()))
        })
    }

    /// Pings `target` `count` times, five times a second. All must be answered.
    ///
    /// # Errors
    ///
    /// Fails on the first loss, quoting ping.
    pub fn ping(&self, target: &str, count: u32) -> Result<String> {
        let said = pinged(&self.namespace, target, count)?;
        ensure!(said.contains(&format!("{count} answered")), "{}: {said}", self.name());
        Ok(said)
    }
}

/// A task's programs are busybox's, as a guest's are.
impl Shell for Task {
    fn run_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        let busybox = Set::open("guest")?.file("bin/busybox")?;
        let mut shell = self.namespace.command("timeout");
        shell.arg(limit.as_secs().to_string()).arg(busybox).args(["sh", "-c", command]);
        output(shell)
    }
    fn spawn(&mut self, command: &str, output: &str) -> Result<()> {
        self.run_within(&format!("({command}) >{output} 2>&1 &"), LIMIT).map(drop)
    }
    fn directory(&self) -> String {
        let directory = Path::new(sandbox::RUNTIME).join(self.name());
        // A failure shows in the first file that is not made there.
        drop(std::fs::create_dir_all(&directory));
        directory.display().to_string()
    }
}

/// Sends `count` echo requests to `target`, one after the other; prints how many were answered, and what came instead.
///
/// # Errors
///
/// Fails when the script does.
pub fn pinged(namespace: &Namespace, target: &str, count: u32) -> Result<String> {
    let mut command = oracle::script_in(namespace, "echo.py")?;
    command.args([target, &count.to_string()]);
    output(command)
}

/// Moves `bytes` from `sender` to `address`, which is in `receiver`, and back, by TCP; all must arrive. What the receiver took for
/// the sender's address.
///
/// # Errors
///
/// Fails when the connection cannot be made, or something is missing.
pub fn stream(sender: &Namespace, receiver: &Namespace, address: &str, bytes: u32) -> Result<String> {
    let server = Server::start(receiver, address)?;
    let mut ask = oracle::script_in(sender, "stream.py")?;
    ask.args(["ask", address, PORT, &bytes.to_string()]);
    let said = output(ask)?;
    let (sent, back) = said.trim().split_once(' ').context("two sums")?;
    let (from, read) = server.end()?;
    ensure!(sent == back && sent == read, "{sent} was sent, {read} was read, {back} came back");
    Ok(from)
}

/// Who takes one connection and sends everything back.
pub struct Server(Child);

impl Server {
    /// Listens at `address` of `namespace`.
    ///
    /// # Errors
    ///
    /// Fails when it cannot.
    pub fn start(namespace: &Namespace, address: &str) -> Result<Server> {
        let mut serve = oracle::script_in(namespace, "stream.py")?;
        serve.args(["serve", address, PORT]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = serve.spawn()?;
        let line = line_of(&mut child)?;
        ensure!(line == "ready", "the server said {line:?}");
        Ok(Server(child))
    }

    /// Who the peer was, and the SHA-256 of what it sent, once the connection has ended.
    ///
    /// # Errors
    ///
    /// Fails when it failed.
    pub fn end(mut self) -> Result<(String, String)> {
        let line = line_of(&mut self.0)?;
        let words: Vec<&str> = line.split(' ').collect();
        let ["from", from, read] = words[..] else { anyhow::bail!("the server said {line:?}") };
        Ok((from.to_owned(), read.to_owned()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it is gone already, which is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A connection that is used all the time.
pub struct Held {
    client: Child,
    server: Server,
}

impl Held {
    /// From `sender` to `address`, which is in `receiver`.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be made.
    pub fn start(sender: &Namespace, receiver: &Namespace, address: &str) -> Result<Held> {
        let server = Server::start(receiver, address)?;
        let mut hold = oracle::script_in(sender, "stream.py")?;
        hold.args(["hold", address, PORT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = hold.spawn()?;
        ensure!(line_of(&mut client)? == "ready", "no connection");
        Ok(Held { client, server })
    }

    /// Ends it; how many lines went there and back.
    ///
    /// # Errors
    ///
    /// Fails when it broke.
    pub fn end(mut self) -> Result<u32> {
        drop(self.client.stdin.take());
        let lines = line_of(&mut self.client)?.parse().context("a number of lines")?;
        self.server.end()?;
        ensure!(self.client.wait()?.success(), "the client failed");
        Ok(lines)
    }
}

/// The next line that `child` prints.
fn line_of(child: &mut Child) -> Result<String> {
    use std::io::Read as _;
    let output = child.stdout.as_mut().context("no output")?;
    let mut line = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    Ok(String::from_utf8(line)?)
}

/// Ends a holder as its service manager would.
///
/// # Errors
///
/// Fails when it does not end.
pub fn let_go(mut holder: Owned) -> Result<()> {
    holder.end(Signal::TERM, LIMIT).map(drop)
}
