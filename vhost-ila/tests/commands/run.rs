//! `run`, `show` and `reload`: a daemon as a process, without uplink or guests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{answer, refusal};

/// Longer than any step takes, shorter than a test run's patience.
const LIMIT: Duration = Duration::from_secs(20);

const VM1: &str = r#"[network.blue]
vni = 1001
ipv4 = "10.1.0.0/16"
[attachment.vm1]
network = "blue"
mac = "52:54:00:00:00:01"
addresses = ["10.1.0.1"]
[[mapping]]
network = "blue"
address = "10.1.0.2"
locator = "2001:db8:0:2::/64"
"#;

const VM2: &str = r#"[attachment.vm2]
network = "blue"
mode = "client"
mac = "52:54:00:00:00:02"
addresses = ["10.1.0.3"]
"#;

/// A daemon in a directory of its own; killed if a test leaves it running.
pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    fn start() -> Self {
        Self::start_with("", VM1)
    }

    /// With more in host.toml, where `DIR` stands for its directory, and this in blue.toml.
    pub(crate) fn start_with(more: &str, blue: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let more = more.replace("DIR", directory.path().to_str().expect("text"));
        let host = format!(
            "[host]\nname = \"hv1\"\nlocator = \"2001:db8:0:1::/64\"\nsir = \"2001:db8:51::/64\"\nruntime = \"{}\"\n\
             [uplink]\nkind = \"none\"\n{more}",
            directory.path().join("run").display()
        );
        std::fs::write(directory.path().join("host.toml"), host).expect("written");
        std::fs::write(directory.path().join("blue.toml"), blue).expect("written");
        let child = Self::spawn(directory.path());
        let daemon = Self { directory, child };
        daemon.wait_for("it to listen", || daemon.path("run/control.sock").exists());
        daemon
    }

    fn spawn(directory: &Path) -> Child {
        let log = std::fs::File::create(directory.join("log")).expect("made");
        // With few descriptors to begin with, as a service manager gives.
        Command::new("sh")
            .args(["-c", "ulimit -S -n 256 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_vhost-ila")])
            .args(["run", "--config"])
            .arg(directory)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs")
    }

    /// Kills it, without a word, and starts another in its place.
    pub(crate) fn kill_and_start(&mut self) {
        let _ = self.child.kill();
        self.end();
        self.child = Self::spawn(self.directory.path());
        let answers = || {
            let asked = std::os::unix::net::UnixStream::connect(self.path("run/control.sock"));
            asked.is_ok()
        };
        self.wait_for("it to listen again", answers);
    }

    /// What a start says that is refused.
    pub(crate) fn kill_and_fail(&mut self) -> String {
        let _ = self.child.kill();
        self.end();
        self.child = Self::spawn(self.directory.path());
        assert_eq!(self.end().code(), Some(1));
        self.log()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("read")
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let start = Instant::now();
        while !happened() {
            assert!(start.elapsed() < LIMIT, "waited for {what}; the daemon says:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn configure(&self, blue: &str) {
        std::fs::write(self.path("blue.toml"), blue).expect("written");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it lives");
    }

    pub(crate) fn ask<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        [command, &["--config", self.directory.path().to_str().expect("text")]].concat()
    }

    pub(crate) fn show(&self, subject: &str) -> Value {
        serde_json::from_str(&answer(&self.ask(&["show", subject, "--json"]))).expect("JSON")
    }

    fn attachments(&self) -> usize {
        self.show("attachments").as_array().map_or(0, Vec::len)
    }

    fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[test]
fn as_many_descriptors_as_the_system_allows_are_ours() {
    let daemon = Daemon::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).expect("it lives");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let [soft, hard] = [3, 4].map(|at| line.split_whitespace().nth(at).expect("a number"));
    assert_eq!(soft, hard, "each attachment takes about ten");
}

#[test]
fn a_daemon_serves_its_sockets_answers_and_ends_clean() {
    let mut daemon = Daemon::start();
    daemon.wait_for("the socket of vm1", || is_socket(&daemon.path("run/vm1.sock")));
    assert_eq!(daemon.show("attachments")[0]["device"]["connected"], false);
    assert_eq!(daemon.show("mappings").as_array().map(Vec::len), Some(2));
    assert_eq!(daemon.show("counters")["attachments"]["vm1"]["in_packets"], 0);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success(), "{}", daemon.log());
    assert!(!daemon.path("run/control.sock").exists() && !daemon.path("run/vm1.sock").exists());
}

#[test]
fn tables_for_people_name_what_they_show() {
    let daemon = Daemon::start();
    let mappings = answer(&daemon.ask(&["show", "mappings"]));
    let rows: Vec<Vec<&str>> = mappings.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..4], ["blue", "10.1.0.1", "2001:db8:0:1::/64", "vm1"]);
    assert_eq!(rows[1][4..], ["2001:db8:0:1:5000:3e9:a01:f050", "setup"]);
    assert_eq!(rows[2][..4], ["blue", "10.1.0.2", "2001:db8:0:2::/64", "-"]);
    let attachments = answer(&daemon.ask(&["show", "attachments"]));
    assert!(
        attachments.starts_with("name  network  mac") && attachments.contains("  down  "),
        "{attachments}"
    );
    let counters = answer(&daemon.ask(&["show", "counters"]));
    assert!(
        counters.contains("\nvm1 ") && counters.contains("\nuplink ") && counters.contains("worker 0"),
        "{counters}"
    );
}

#[test]
fn reload_adds_and_removes_attachments() {
    let daemon = Daemon::start();
    daemon.configure(&format!("{VM1}{VM2}"));
    assert_eq!(answer(&daemon.ask(&["reload"])), "reloaded: 1 networks, 2 attachments, 1 mappings\n");
    assert_eq!(daemon.attachments(), 2);
    daemon.configure(&format!("[network.blue]\nvni = 1001\nipv4 = \"10.1.0.0/16\"\n{VM2}"));
    answer(&daemon.ask(&["reload"]));
    assert_eq!(daemon.show("attachments")[0]["name"], "vm2");
    assert!(!daemon.path("run/vm1.sock").exists(), "its socket went with vm1");
}

#[test]
fn sighup_reloads_and_a_refused_config_changes_nothing() {
    let daemon = Daemon::start();
    daemon.configure(&VM1.replace("10.1.0.1", "10.9.9.9"));
    daemon.signal(Signal::HUP);
    daemon.wait_for("the refusal", || daemon.log().contains("blue.toml:7: attachment.vm1"));
    assert!(daemon.log().contains("reload refused"), "{}", daemon.log());
    let refused = refusal(&["reload", "--config", daemon.directory.path().to_str().expect("text")]);
    assert!(refused.contains("the daemon refuses") && refused.contains("blue.toml:7"), "{refused}");
    assert_eq!(daemon.attachments(), 1, "a daemon can be asked while its config is wrong");
    // The daemon's own answer, past the command's check: over the socket.
    let socket = daemon.path("run/control.sock");
    let post = axum::http::Method::POST;
    let (status, body) = vhost_ila::control::client::request(&socket, post, "/v1/reload").expect("answered");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((status.as_u16(), &body["problems"][0]["line"]), (422, &Value::from(7)));

    daemon.configure(&format!("{VM1}{VM2}"));
    daemon.signal(Signal::HUP);
    daemon.wait_for("the reload", || daemon.log().contains("reloaded: 1 networks, 2 attachments"));
    assert_eq!(daemon.attachments(), 2);
}

#[test]
fn a_second_daemon_does_not_take_the_first_one_s_place() {
    let mut daemon = Daemon::start();
    let refused = refusal(&["run", "--config", daemon.directory.path().to_str().expect("text")]);
    assert!(refused.contains("somebody listens on"), "{refused}");
    assert_eq!(daemon.attachments(), 1);
    daemon.signal(Signal::INT);
    assert!(daemon.end().success());
}

#[test]
fn without_a_daemon_show_says_so() {
    let config = crate::example("one-host.toml");
    let refused = refusal(&["show", "counters", "--config", config.to_str().expect("text")]);
    assert!(refused.contains("is `vhost-ila run` running?"), "{refused}");
}

/// What an orchestrator types where neither the guest nor another host has said it.
#[test]
fn a_guest_that_has_come_or_gone_is_said_by_the_attachments_name() {
    let waits = VM1.replace("address = \"10.1.0.2\"", "address = \"10.1.0.1\"");
    let waits = waits.replace("addresses = [\"10.1.0.1\"]", "addresses = [\"10.1.0.1\"]\nstandby = true");
    let daemon = Daemon::start_with("", &waits);
    let ask = |command: &[&str]| answer(&daemon.ask(command));
    let presence = || ask(&["show", "attachments", "--json"]);
    assert!(presence().contains("\"presence\":\"waiting\""), "{}", presence());
    assert!(ask(&["show", "attachments"]).contains("waiting for its guest"));
    let came = ask(&["attachment", "activate", "vm1"]);
    assert_eq!(came, "vm1: here; its guest is at 2001:db8:0:1::/64\n");
    assert!(presence().contains("\"presence\":\"here\""), "{}", presence());
    let went = ask(&["attachment", "moved", "vm1", "--to", "2001:db8:0:2::/64"]);
    assert_eq!(went, "vm1: waiting; its guest is at 2001:db8:0:2::/64\n");
    // A reload of the same config is no other word.
    ask(&["reload"]);
    assert!(presence().contains("\"presence\":\"waiting\""), "{}", presence());
}
