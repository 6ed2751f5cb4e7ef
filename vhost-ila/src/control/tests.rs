//! The API over a real socket and a real core, with devices that only remember what they were told.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode};
use nve_core::pipeline::{Learned, Nve, Presence, Source};
use serde_json::Value;

use super::answer::{self, Device, Task, Worker};
use super::registry::Registry;
use super::{Devices, Running, Socket, client, router};
use crate::authority::StaticFile;
use crate::config::{Config, DeviceConfig};
use crate::redirect::Service;
use crate::task::PlugError;

const ONE: &str = r#"[host]
name = "hv1"
locator = "2001:db8:0:1::/64"
sir = "2001:db8:51::/64"
[uplink]
kind = "none"
[network.blue]
vni = 1001
ipv4 = "10.1.0.0/16"
[attachment.vm1]
network = "blue"
mac = "52:54:00:00:00:01"
addresses = ["10.1.0.1"]
[[mapping]]
network = "blue"
address = "10.1.0.9"
locator = "2001:db8:0:9::/64"
"#;

const TWO: &str = r#"[attachment.vm2]
network = "blue"
mac = "52:54:00:00:00:02"
addresses = ["10.1.0.2"]
"#;

/// Devices without sockets. Refuses to make the one called `broken`.
#[derive(Clone, Default)]
struct Remembered(Arc<Mutex<Vec<String>>>, Option<Arc<Service>>);

impl Devices for Remembered {
    fn apply(&self, devices: &[DeviceConfig], _: &[String]) -> io::Result<()> {
        let names: Vec<_> = devices.iter().map(|device| device.name.clone()).collect();
        let broken = names.iter().any(|name| name == "broken");
        *self.0.lock().expect("not poisoned") = names;
        if broken { Err(io::Error::other("attachment broken: no such socket")) } else { Ok(()) }
    }
    fn status(&self) -> BTreeMap<String, Device> {
        let device = Device { connected: true, connections: 1, ..Device::default() };
        BTreeMap::from([("vm1".to_owned(), device)])
    }
    fn tasks(&self) -> BTreeMap<String, Task> {
        let task = Task { interface: Some("eth0".into()), plugs: 1, last_fault: None };
        BTreeMap::from([("web".to_owned(), task)])
    }
    fn unplug(&self, name: &str) -> Result<(), PlugError> {
        if name == "web" { Ok(()) } else { Err(PlugError::Unknown(name.to_owned())) }
    }
    fn redirects(&self) -> Option<&Service> {
        self.1.as_deref()
    }
    fn workers(&self) -> Vec<Worker> {
        vec![Worker { packets: 7, ..Worker::default() }]
    }
}

/// A served API, its config file, and what its devices were told.
struct Served {
    directory: tempfile::TempDir,
    nve: Arc<Nve>,
    devices: Remembered,
    /// Ends the server.
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Served {
    fn start() -> Self {
        Self::running(ONE)
    }

    fn running(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("one.toml");
        std::fs::write(&path, config).expect("written");
        let config = Config::load(&path).expect("accepted");
        let nve = Nve::new(config.setup.clone(), 100);
        let devices = Remembered::default();
        let running =
            Running::new(nve.clone(), Box::new(devices.clone()), StaticFile::new(path, None), config);
        let (socket, listener) = Socket::listen(&directory.path().join("control.sock")).expect("listens");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _socket = socket;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).expect("listens");
                let server = axum::serve(listener, router(Arc::new(running)));
                server.with_graceful_shutdown(async { drop(ended.await) }).await.expect("served");
            });
        });
        Self { directory, nve, devices, _end: end }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn ask(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let (status, body) = client::request(&self.socket(), method, path).expect("answered");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    fn reload(&self, config: &str) -> (StatusCode, Value) {
        std::fs::write(self.directory.path().join("one.toml"), config).expect("written");
        self.ask(Method::POST, "/v1/reload")
    }

    fn told(&self) -> Vec<String> {
        self.devices.0.lock().expect("not poisoned").clone()
    }
}

#[test]
fn mappings_tell_locators_and_wire_addresses() {
    let (status, mappings) = Served::start().ask(Method::GET, "/v1/mappings");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(mappings[0]["address"], "10.1.0.1");
    assert_eq!(mappings[0]["attachment"], "vm1");
    assert_eq!(mappings[1]["address"], "10.1.0.9");
    assert_eq!(mappings[1]["attachment"], Value::Null);
    assert_eq!(mappings[1]["identifier"], "400003e90a010009");
    assert_eq!(mappings[1]["locator"], "2001:db8:0:9::/64");
}

#[test]
fn groups_tell_who_listens_here_and_elsewhere() {
    let served = Served::start();
    let listener =
        "[[listener]]\nnetwork = \"blue\"\ngroup = \"239.1.2.3\"\nlocator = \"2001:db8:0:9::/64\"\n";
    let (status, _) = served.reload(&(ONE.to_owned() + listener));
    assert_eq!(status, StatusCode::OK);
    let (status, groups) = served.ask(Method::GET, "/v1/groups");
    assert_eq!((status, groups.as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    assert_eq!((&groups[0]["network"], &groups[0]["group"]), (&"blue".into(), &"239.1.2.3".into()));
    assert_eq!(groups[0]["identifier"], "400003e9ef010203");
    assert_eq!(groups[0]["attachments"], Value::Array(vec![]));
    assert_eq!(groups[0]["locators"][0], "2001:db8:0:9::/64");
}

#[test]
fn paths_tell_what_is_sent_to_each_host() {
    let (status, paths) = Served::start().ask(Method::GET, "/v1/paths");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(paths.as_array().map(Vec::len), Some(1));
    assert_eq!(paths[0]["locator"], "2001:db8:0:9::/64");
    assert_eq!(paths[0]["mtu"], 1500);
    assert_eq!(paths[0]["learned_seconds_ago"], Value::Null);
}

#[test]
fn the_uplink_tells_what_it_is_and_where_a_router_sends_to() {
    let (status, uplink) = Served::start().ask(Method::GET, "/v1/uplink");
    assert_eq!((status, &uplink["kind"], &uplink["device"]), (StatusCode::OK, &"none".into(), &Value::Null));
    let rings = "kind = \"vhost-user\"\nnext_hop = \"fe80::1\"";
    let (_, uplink) = Served::running(&ONE.replace("kind = \"none\"", rings)).ask(Method::GET, "/v1/uplink");
    assert_eq!((&uplink["kind"], &uplink["mtu"]), (&"vhost-user".into(), &1500.into()));
    assert_eq!(uplink["mac"], "02:b8:00:00:00:01");
    assert_eq!(uplink["link_local"], "fe80::b8:ff:fe00:1");
    assert!(uplink["socket"].as_str().is_some_and(|socket| socket.ends_with("/fabric.sock")));
}

#[test]
fn attachments_tell_config_and_device() {
    let (_, attachments) = Served::start().ask(Method::GET, "/v1/attachments");
    assert_eq!(attachments[0]["name"], "vm1");
    assert_eq!(attachments[0]["mac"], "52:54:00:00:00:01");
    assert_eq!(attachments[0]["mtu"], 1480);
    assert_eq!(attachments[0]["mode"], "server");
    assert_eq!(attachments[0]["device"]["connected"], true);
}

#[test]
fn counters_have_every_attachment_the_uplink_and_the_workers() {
    let (_, counters) = Served::start().ask(Method::GET, "/v1/counters");
    assert_eq!(counters["attachments"]["vm1"]["in_packets"], 0);
    assert_eq!(counters["uplink"]["drops"], Value::Object(Default::default()));
    assert_eq!(counters["workers"][0]["packets"], 7);
}

#[test]
fn a_reload_changes_core_and_devices_together() {
    let served = Served::start();
    let (status, now) = served.reload(&format!("{ONE}{TWO}"));
    assert_eq!((status, &now["attachments"]), (StatusCode::OK, &Value::from(2)));
    assert!(served.nve.port("vm2").is_some());
    assert_eq!(served.told(), ["vm1", "vm2"]);
}

#[test]
fn a_refused_config_leaves_what_runs_as_it_was() {
    let served = Served::start();
    let (status, refusal) = served.reload(&ONE.replace("1001", "0"));
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refusal["problems"][0]["line"], 8);
    assert!(refusal["error"].as_str().is_some_and(|error| error.contains("remedy")), "{refusal}");
    assert!(served.nve.port("vm1").is_some());
    assert!(served.told().is_empty(), "no device was touched");
    assert_eq!(served.ask(Method::GET, "/v1/mappings").1.as_array().map(Vec::len), Some(2));
}

#[test]
fn a_device_that_cannot_be_made_takes_the_whole_reload_back() {
    let served = Served::start();
    let broken = TWO.replace("vm2", "broken");
    let (status, refusal) = served.reload(&format!("{ONE}{broken}"));
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refusal["error"], "attachment broken: no such socket");
    assert_eq!(served.nve.port("broken"), None);
    assert_eq!(served.told(), ["vm1"]);
}

#[test]
fn an_attachment_keeps_its_port_when_the_reload_that_drops_it_is_taken_back() {
    let served = Served::start();
    assert_eq!(served.reload(&format!("{ONE}{TWO}")).0, StatusCode::OK);
    let ports = |served: &Served| ["vm1", "vm2"].map(|name| served.nve.port(name));
    let before = ports(&served);
    // vm1 goes, and what comes for it cannot be made.
    let broken = ONE.replace("attachment.vm1", "attachment.broken");
    assert_eq!(served.reload(&format!("{broken}{TWO}")).0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(ports(&served), before);
    let three = TWO.replace("vm2", "vm3").replace("00:02", "00:03").replace("1.0.2", "1.0.3");
    assert_eq!(served.reload(&format!("{ONE}{TWO}{three}")).0, StatusCode::OK);
    assert_eq!(ports(&served), before);
    assert!(!before.contains(&served.nve.port("vm3")), "a port of its own");
}

#[test]
fn a_reload_that_is_taken_back_loses_neither_who_is_waited_for_nor_what_was_learned() {
    let served = Served::start();
    assert_eq!(served.reload(&format!("{ONE}{TWO}")).0, StatusCode::OK);
    let moved =
        client::request(&served.socket(), Method::POST, "/v1/attachments/vm1/moved?to=2001:db8:0:9::/64");
    assert_eq!(moved.expect("answered").0, StatusCode::OK);
    let elsewhere = "10.1.0.8".parse().expect("an address");
    let config = Config::load(&served.directory.path().join("one.toml")).expect("accepted");
    let identifier = config.setup.identifier("10.1.0.8", Some("blue"), elsewhere).expect("one of blue");
    let since = crate::epoch::now();
    let heard = Learned { source: Source::Redirect, epoch: 5, since, until: None };
    let key = served.nve.key(identifier).expect("of its domain");
    served.nve.learn(key, "2001:db8:0:7::/64".parse().expect("a /64"), heard).expect("learned");
    let presence = |name: &str| served.nve.port(name).map(|port| served.nve.presence(port));
    let seen = || (served.nve.mappings(), ["vm1", "vm2", "broken"].map(presence));
    let before = seen();
    assert_eq!(before.1, [Some(Presence::Waiting), Some(Presence::Here), None]);

    // vm1 goes, vm2 is put on standby, the configuration knows better where 10.1.0.8 is, and a device cannot be made.
    let broken = ONE.replace("attachment.vm1", "attachment.broken");
    let mapping =
        "[[mapping]]\nnetwork = \"blue\"\naddress = \"10.1.0.8\"\nlocator = \"2001:db8:0:9::/64\"\n";
    let (status, _) = served.reload(&format!("{broken}{mapping}{TWO}standby = true\n"));
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(seen(), before);
    assert_eq!(served.nve.arrivals(1), []);
}

#[test]
fn a_reload_that_is_taken_back_takes_no_registration_and_no_epoch() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("one.toml");
    let authority = format!("[authority]\nkind = \"embedded\"\nstate = {:?}\n", directory.path());
    let one = format!("{ONE}{authority}");
    std::fs::write(&path, &one).expect("written");
    let config = Config::load(&path).expect("accepted");
    let nve = Nve::new(config.setup.clone(), 100);
    let registry = Registry::open(&config).expect("opened");
    let devices = Remembered::default();
    let source = StaticFile::new(path.clone(), None);
    let running = Running::new(nve, Box::new(devices), source, config).with_registry(registry);
    // It waits for its attachment, which the operator is going to write down.
    let asked = answer::Held {
        network: Some("blue".into()),
        address: "10.1.0.2".parse().expect("an address"),
        locator: "2001:db8:0:1::/64".into(),
    };
    running.register(&asked).expect("nobody has it");
    let before = running.registrations().expect("listed");

    // vm1 goes, vm2 comes, and a third cannot be made.
    let broken = ONE.replace("attachment.vm1", "attachment.broken").replace("10.1.0.1\"", "10.1.0.3\"");
    std::fs::write(&path, format!("{broken}{TWO}{authority}")).expect("written");
    assert_eq!(running.reload().expect_err("refused").error, "attachment broken: no such socket");
    assert_eq!(running.registrations().expect("listed"), before);

    std::fs::write(&path, format!("{one}{TWO}")).expect("written");
    running.reload().expect("accepted");
    let after = running.registrations().expect("listed");
    let by = |lines: &[answer::Registration], address: &str| {
        let line = lines.iter().find(|line| line.address.to_string() == address).cloned();
        line.map(|line| (line.by, line.epoch)).expect("listed")
    };
    assert_eq!(
        (by(&before, "10.1.0.2").0.as_str(), by(&after, "10.1.0.2").0.as_str()),
        ("request", "config")
    );
    assert_eq!(by(&after, "10.1.0.2").1, by(&before, "10.1.0.2").1);
}

#[test]
fn a_reload_that_redirects_refuse_touches_neither_core_nor_devices() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("one.toml");
    let secret = directory.path().join("key");
    std::fs::write(&secret, "ab".repeat(32)).expect("written");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("ours");
    std::fs::write(&path, format!("{ONE}{TWO}")).expect("written");
    let config = Config::load(&path).expect("accepted");
    let nve = Nve::new(config.setup.clone(), 100);
    let service = |nve: &Arc<Nve>| Service::start(Arc::clone(nve)).expect("started").0;
    let devices = Remembered(Arc::default(), Some(Arc::new(service(&nve))));
    let source = StaticFile::new(path.clone(), None);
    let running = Running::new(Arc::clone(&nve), Box::new(devices.clone()), source, config);
    // Another has the port that is wanted.
    let other = service(&nve);
    let port = std::net::UdpSocket::bind("[::1]:0").and_then(|socket| socket.local_addr()).expect("bound");
    let key = "[[redirect.key]]\nid = 1\nfile = \"key\"\n";
    std::fs::write(&path, format!("{ONE}[redirect]\nport = {}\naccept = false\n{key}", port.port()))
        .expect("written");
    let wanted = Config::load(&path).expect("accepted");
    other.apply(wanted.redirect.as_ref()).expect("bound");
    let ports = ["vm1", "vm2"].map(|name| nve.port(name));
    let refused = running.reload().expect_err("refused").error;
    assert!(refused.contains("cannot be bound"), "{refused}");
    assert_eq!(["vm1", "vm2"].map(|name| nve.port(name)), ports);
    assert!(devices.0.lock().expect("not poisoned").is_empty(), "no device was touched");
    // Once it is free, the same is accepted.
    other.apply(None).expect("closed");
    other.stop();
    running.reload().expect("accepted");
    assert_eq!(nve.port("vm2"), None);
    assert_eq!(devices.redirects().expect("it is there").report().at[0].1, port.port());
}

#[test]
fn what_only_a_restart_can_change_is_refused_by_name() {
    for (from, to, item) in [
        ("2001:db8:0:1::", "2001:db8:0:7::", "host.locator"),
        ("db8:51:", "db8:52:", "host.sir"),
        ("[uplink]", "spin = \"5us\"\n[uplink]", "host.spin"),
        ("[uplink]", "workers = 2\n[uplink]", "host.workers"),
        ("[uplink]", "runtime = \"/tmp\"\n[uplink]", "host.runtime"),
        ("kind = \"none\"", "kind = \"none\"\nmtu = 9000", "[uplink]"),
    ] {
        let (status, refusal) = Served::start().reload(&ONE.replacen(from, to, 1));
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{item}");
        let what = refusal["problems"][0]["what"].as_str().expect("text");
        assert!(what.starts_with(item), "{what}");
    }
}

#[test]
fn an_unknown_path_and_a_wrong_method_are_refused() {
    let served = Served::start();
    assert_eq!(served.ask(Method::GET, "/v1/nothing").0, StatusCode::NOT_FOUND);
    let (status, _) = client::request(&served.socket(), Method::GET, "/v1/reload").expect("answered");
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn the_socket_is_our_own_and_not_taken_from_a_live_daemon() {
    let served = Served::start();
    let mode = std::fs::metadata(served.socket()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = Socket::listen(&served.socket()).expect_err("refused");
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn a_dead_daemon_s_socket_is_taken_over() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "left behind");
    let (socket, _listener) = Socket::listen(&path).expect("listens");
    drop(socket);
    assert!(!path.exists(), "it goes with its daemon");
}

#[test]
fn a_guest_that_has_gone_or_come_back_is_said_by_name_and_may_be_said_again() {
    let served = Served::start();
    let post = |path: &str| {
        let (status, body) = client::request(&served.socket(), Method::POST, path).expect("answers");
        (status, serde_json::from_slice::<Value>(&body).expect("JSON"))
    };
    let moved = "/v1/attachments/vm1/moved?to=2001:db8:0:9::/64";
    for changed in [true, false] {
        let (status, said) = post(moved);
        assert_eq!(
            (status, &said["presence"], &said["changed"]),
            (StatusCode::OK, &"waiting".into(), &changed.into())
        );
    }
    let lines = served.nve.mappings();
    let line = lines.iter().find(|line| line.address.to_string() == "10.1.0.1").expect("it is known");
    assert_eq!((line.locator.to_string().as_str(), &line.attachment), ("2001:db8:0:9::/64", &None));
    for changed in [true, false] {
        let (status, said) = post("/v1/attachments/vm1/activate");
        assert_eq!(
            (status, &said["presence"], &said["changed"]),
            (StatusCode::OK, &"here".into(), &changed.into())
        );
    }
    // All its addresses, or none: one of these is behind it, too.
    let router = ONE.replace("[\"10.1.0.1\"]", "[\"10.1.0.1\", \"10.1.5.1\"]\nprefixes = [\"10.1.5.0/24\"]");
    assert_eq!(served.reload(&router).0, StatusCode::OK);
    let before = served.nve.mappings();
    assert_eq!(post(moved).0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(served.nve.mappings(), before);
    assert_eq!(served.reload(ONE).0, StatusCode::OK);

    for (path, expected) in [
        ("/v1/attachments/vm9/activate", StatusCode::NOT_FOUND),
        ("/v1/attachments/vm9/moved?to=2001:db8:0:9::/64", StatusCode::NOT_FOUND),
        ("/v1/attachments/vm1/moved?to=2001:db8:0:1::/64", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/attachments/vm1/moved?to=2001:db8::/32", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(post(path).0, expected, "{path}");
    }
    assert_eq!(
        served.nve.mappings().iter().filter(|line| line.attachment.as_deref() == Some("vm1")).count(),
        1
    );
}
