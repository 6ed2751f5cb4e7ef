//! The endpoints of the reference network: guests, and namespaces with the same programs (busybox, socat).
//!
//! A question is asked in four ways at once, and each must be answered: two echoes, a TCP connection that carries [`LENGTH`] bytes there and
//! back, a UDP datagram there and back, and one to a port where nobody listens, of which an ICMP error must tell.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::scenario::Scenario;
use crate::capture::Running;
use crate::guest::Guest;
use crate::namespace::Namespace;
use crate::process::{Owned, output};
use crate::sandbox;
use crate::tools::Set;
use crate::traffic;

/// Bytes that TCP carries each way: several segments.
const LENGTH: u32 = 4000;

/// Bytes of the datagram.
const DATAGRAM: u32 = 300;

/// What one question may take.
const LIMIT: Duration = Duration::from_secs(40);

/// An endpoint.
pub enum End {
    /// A tenant system.
    Guest(Guest),
    /// A task, or the Internet host.
    Space(Space),
}

impl End {
    /// As in [`super::TENANTS`] and [`super::TASKS`]; `iaddr` is the Internet host.
    pub fn name(&self) -> &str {
        match self {
            End::Guest(guest) => guest.name(),
            End::Space(space) => &space.name,
        }
    }

    /// Answers by TCP and UDP on `ports`, with what it was sent.
    ///
    /// # Errors
    ///
    /// Fails when it does not begin to listen.
    pub fn answer(&mut self, ports: &[u16]) -> Result<()> {
        for port in ports {
            for kind in ["TCP6", "UDP6"] {
                self.spawn(&format!("socat {kind}-LISTEN:{port},ipv6only=0,fork,reuseaddr PIPE"))?;
            }
        }
        let listens = |port| {
            ["-ltn", "-lun"]
                .map(|kind| format!("until netstat {kind} | grep -q :{port}; do sleep 0.05; done"))
        };
        let waits: Vec<String> = ports.iter().flat_map(listens).collect();
        self.run(if waits.is_empty() { "true".into() } else { waits.join("; ") }.as_str()).map(drop)
    }

    /// Asks what `scenario` asks.
    ///
    /// # Errors
    ///
    /// Fails when something is not answered, quoting the programs.
    pub fn ask(&mut self, scenario: &Scenario) -> Result<()> {
        let Scenario { number, target, .. } = scenario;
        let (port, closed) = (scenario.port(), scenario.closed_port());
        let host = if target.contains(':') { format!("[{target}]") } else { (*target).to_owned() };
        // A datagram has no end: it is waited for until it has come back.
        let said = self.run(&format!(
            "rm -f T{number} U{number}; yes 'scenario {number}' | head -c {LENGTH} >t{number}; head -c {DATAGRAM} t{number} >u{number}; \
             (ping -c 2 -i 0.2 -W 3 {target} || echo NO ECHO) 2>&1 & \
             (socat -t 3 - TCP:{host}:{port},connect-timeout=4 <t{number} >T{number}; cmp t{number} T{number} || echo NO TCP) 2>&1 & \
             (socat -t 6 - UDP:{host}:{port} <u{number} >U{number} & \
              for i in $(seq 80); do cmp -s u{number} U{number} && break; sleep 0.05; done; \
              kill $!; cmp u{number} U{number} || echo NO UDP) 2>&1 & \
             (socat -t 3 - UDP:{host}:{closed} <u{number} 2>&1 | grep refused || echo NO ERROR) & wait"
        ))?;
        ensure!(!said.contains("NO "), "{} asked {target}, and was not answered\n{said}", self.name());
        Ok(())
    }

    /// Whom `traceroute` names on the way to whom `scenario` asks, in order; `*` for one that says nothing.
    ///
    /// # Errors
    ///
    /// Fails when the way does not end there.
    pub fn trace(&mut self, scenario: &Scenario) -> Result<Vec<String>> {
        let said = self.run(&format!("traceroute -n -q 1 -w 2 -m 9 {} 2>/dev/null", scenario.target))?;
        // `traceroute to ...`, then a line for each hop: its number, who it is, and how long it took.
        let hops = said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
        let hops: Vec<String> = hops.map(str::to_owned).collect();
        let ends_there = hops.last().is_some_and(|last| last == scenario.target);
        ensure!(ends_there, "{} traced the way to {}: {said}", self.name(), scenario.target);
        Ok(hops)
    }

    /// Keeps what its link carries from now on, until [`End::recorded`].
    ///
    /// # Errors
    ///
    /// Fails when the capture does not begin.
    pub fn record(&mut self, directory: &Path) -> Result<()> {
        match self {
            End::Guest(guest) => traffic::record(guest, "ip or ip6"),
            End::Space(space) => {
                let file = directory.join(format!("{}.pcapng", space.name));
                space.capture = Some(Running::start(&space.namespace, &[&space.interface], &file)?);
                Ok(())
            }
        }
    }

    /// Ends [`End::record`]; a guest's capture is `NAME.pcap` in `directory`, another's `NAME.pcapng`.
    ///
    /// # Errors
    ///
    /// Fails when nothing was being recorded.
    pub fn recorded(&mut self, directory: &Path) -> Result<()> {
        match self {
            End::Guest(guest) => {
                traffic::recorded(guest, &directory.join(format!("{}.pcap", guest.name()))).map(drop)
            }
            End::Space(space) => {
                let capture =
                    space.capture.take().with_context(|| format!("{} records nothing", space.name))?;
                capture.finish().map(drop)
            }
        }
    }

    fn run(&mut self, command: &str) -> Result<String> {
        match self {
            End::Guest(guest) => guest.run_within(&format!("cd /tmp; {command}"), LIMIT),
            End::Space(space) => output(space.command(command)),
        }
    }

    fn spawn(&mut self, command: &str) -> Result<()> {
        match self {
            End::Guest(guest) => guest.spawn(command, "/tmp/answers.log"),
            End::Space(space) => {
                let log = space.directory.join("answers.log");
                // For as long as there is the endpoint.
                let mut program = space.program("sh");
                program.arg("-c").arg(format!("exec {command}"));
                space.answers.push(Owned::spawn(&space.name, program, &log)?);
                Ok(())
            }
        }
    }
}

/// A namespace that has addresses of its own.
pub struct Space {
    name: String,
    /// Where its interfaces are.
    pub namespace: Namespace,
    interface: String,
    programs: PathBuf,
    directory: PathBuf,
    capture: Option<Running>,
    answers: Vec<Owned>,
}

impl Space {
    /// An endpoint called `name` in `namespace`, on its link `interface`, which need not exist yet.
    ///
    /// # Errors
    ///
    /// Fails when there is no room for its files.
    pub fn new(name: &str, namespace: Namespace, interface: &str, programs: &Programs) -> Result<Space> {
        let directory = Path::new(sandbox::RUNTIME).join(format!("end-{name}"));
        fs::create_dir_all(&directory)?;
        Ok(Space {
            name: name.to_owned(),
            namespace,
            interface: interface.to_owned(),
            programs: programs.0.clone(),
            directory,
            capture: None,
            answers: Vec::new(),
        })
    }

    /// A shell's text, which must have ended in time.
    fn command(&self, text: &str) -> Command {
        let mut command = self.program("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(self.programs.join("sh")).arg("-c").arg(text);
        command
    }

    fn program(&self, name: &str) -> Command {
        let mut command = self.namespace.command(self.programs.join(name));
        command.env("PATH", &self.programs).current_dir(&self.directory);
        command
    }
}

/// A directory with the programs that guests have, for namespaces.
pub struct Programs(PathBuf);

impl Programs {
    /// Makes it, from the sets `guest` and `socat`.
    ///
    /// # Errors
    ///
    /// Fails when a set is missing.
    pub fn make() -> Result<Programs> {
        let directory = Path::new(sandbox::RUNTIME).join("programs");
        fs::create_dir_all(&directory)?;
        let busybox = Set::open("guest")?.file("bin/busybox")?;
        let mut list = Command::new(&busybox);
        list.arg("--list");
        for applet in output(list)?.lines() {
            symlink(&busybox, directory.join(applet))?;
        }
        // The set's own libraries, libc included, want its own loader.
        let set = Set::open("socat")?;
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|path| set.root().join(path).display().to_string()).join(":");
        let (loader, socat) = (set.file("lib64/ld-linux-x86-64.so.2")?, set.file("usr/bin/socat")?);
        let script = format!(
            "#!/bin/sh\nexec {} --library-path {libraries} {} \"$@\"\n",
            loader.display(),
            socat.display()
        );
        let path = directory.join("socat");
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Programs(directory))
    }
}
