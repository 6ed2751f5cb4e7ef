//! Whole configs: what is refused, where, and with what remedy.

use std::path::{Path, PathBuf};

use nve_core::gateway::Lease4;
use nve_core::setup::Stragglers;

use super::*;

mod peers;
mod realms;
mod uplink;

const HOST: &str = r#"[host]
name = "hv1"
locator = "2001:db8:0:1::/64"
sir = "2001:db8:51::/64"
[uplink]
kind = "tun"
"#;

const BLUE: &str = r#"[network.blue]
vni = 1001
ipv4 = "10.1.0.0/16"
ipv6 = "2001:db8:b1:e::/96"
[attachment.vm1]
network = "blue"
mac = "52:54:00:00:00:01"
addresses = ["10.1.0.1", "2001:db8:b1:e::1"]
"#;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    directory
}

fn load(text: &str) -> Result<Config, Refused> {
    Config::load(&directory(&[("one.toml", text)]).path().join("one.toml"))
}

/// Line, text and remedy of each problem of `text` with `from` replaced by `to`.
fn refusals_of(text: &str, from: &str, to: &str) -> Vec<(usize, String, String)> {
    assert!(text.contains(from), "{from} is in the text");
    let refused = load(&text.replacen(from, to, 1)).expect_err("refused");
    refused.problems().iter().map(|p| (p.place.line, p.what.clone(), p.remedy.clone())).collect()
}

/// The same of HOST + BLUE.
fn refusals(from: &str, to: &str) -> Vec<(usize, String, String)> {
    refusals_of(&format!("{HOST}{BLUE}"), from, to)
}

/// `problems` is one, in this line, and says this.
#[track_caller]
fn only(problems: &[(usize, String, String)], line: usize, what: &str, remedy: &str) {
    let [(at, said, told)] = problems else { panic!("one problem, not {problems:?}") };
    assert_eq!(*at, line, "{said}");
    assert!(said.contains(what), "{said:?} should contain {what:?}");
    assert!(told.contains(remedy), "{told:?} should contain {remedy:?}");
}

#[track_caller]
fn refused(from: &str, to: &str, line: usize, what: &str, remedy: &str) {
    only(&refusals(from, to), line, what, remedy);
}

#[test]
fn a_small_config_gets_its_defaults() {
    let config = load(&format!("{HOST}{BLUE}")).expect("accepted");
    assert_eq!(config.uplink, UplinkConfig::Tun { name: "ila0".into(), mtu: 1500 });
    assert_eq!(config.setup.setup().host.uplink_mtu, 1500);
    assert_eq!(config.runtime, PathBuf::from("/run/vhost-ila"));
    assert_eq!((config.worker.count, config.worker.spin), (1, Duration::ZERO));
    let [device] = config.devices.as_slice() else { panic!("one device") };
    assert_eq!(device.socket, PathBuf::from("/run/vhost-ila/vm1.sock"));
    assert_eq!(device.mode, SocketMode::Server);
    assert_eq!(device.mac, [0x52, 0x54, 0, 0, 0, 1]);
}

#[test]
fn every_example_is_accepted() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for name in ["two-hosts/hv1", "two-hosts/hv2", "one-host.toml"] {
        Config::load(&examples.join(name)).unwrap_or_else(|refused| panic!("{name}:\n{refused}"));
    }
}

#[test]
fn every_value_is_refused_at_its_line_with_a_remedy() {
    refused("\"hv1\"", "\"h v\"", 2, "host.name", "letters, digits");
    refused("2001:db8:0:1::/64", "2001:db8:0:1::1/64", 3, "host.locator", "2001:db8:0:1::/64");
    refused("2001:db8:51::/64", "2001:db8:51::/48", 4, "host.sir", "2001:db8:51::/64");
    refused("\"tun\"", "\"tunn\"", 6, "uplink.kind", "did you mean \"tun\"?");
    refused("kind = \"tun\"", "kind = \"tun\"\nmtu = 1279", 7, "1279", "1280 to 65535");
    refused("kind = \"tun\"", "kind = \"tun\"\nname = \"a/b\"", 7, "uplink.name", "1 to 15");
    refused("1001", "268435456", 8, "network.blue.vni", "1 to 268435455");
    refused("1001", "0", 8, "network.blue.vni", "1 to 268435455");
    refused("10.1.0.0/16", "10.1.0.0/8", 9, "network.blue.ipv4", "did you mean 10.0.0.0/8?");
    refused("10.1.0.0/16", "10.1.0.0", 9, "network.blue.ipv4", "ADDRESS/LENGTH");
    refused("b1:e::/96", "b1:e::/64", 10, "network.blue.ipv6", "2001:db8:b1:e::/96");
    refused("\"blue\"", "\"bleu\"", 12, "attachment.vm1.network", "did you mean \"blue\"?");
    refused("52:54:00:00:00:01", "01:00:5e:00:00:01", 13, "attachment.vm1.mac", "unicast");
    refused("52:54:00:00:00:01", "52:54", 13, "attachment.vm1.mac", "six bytes");
    refused("\"10.1.0.1\"", "\"10.1.0.1/16\"", 14, "attachment.vm1.addresses", "without a prefix");
    refused("\"10.1.0.1\", \"2001:db8:b1:e::1\"", "", 14, "attachment.vm1.addresses", "at least one");
}

#[test]
fn servers_to_forward_to_are_written_with_or_without_a_port() {
    let forward = |servers: &str| format!("vni = 1001\ndns_forward = [{servers}]");
    let servers = "\"192.0.2.53\", \"192.0.2.53:5353\", \"2001:db8::53\", \"[2001:db8::53]:5353\"";
    let text = format!("{HOST}{BLUE}").replace("vni = 1001", &forward(servers));
    let config = load(&text).expect("accepted");
    let expected = ["192.0.2.53:53", "192.0.2.53:5353", "[2001:db8::53]:53", "[2001:db8::53]:5353"];
    let expected: Vec<std::net::SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(config.setup.setup().networks[0].dns_forward, expected);
    for bad in ["dns.example", "192.0.2.53:x", "2001:db8::53:5353:1:2:3:4:5", "[2001:db8::53"] {
        refused("vni = 1001", &forward(&format!("\"{bad}\"")), 9, "network.blue.dns_forward", "[IPV6]:PORT");
    }
    refused("vni = 1001", &forward("\"fe80::53\""), 9, "link-local", "this host itself");
}

#[test]
fn optional_values_are_refused_at_their_lines() {
    let host = |line: &str| format!("sir = \"2001:db8:51::/64\"\n{line}");
    let sir = "sir = \"2001:db8:51::/64\"";
    refused(sir, &host("checksum = \"neutrl\""), 5, "host.checksum", "did you mean \"neutral\"?");
    refused(sir, &host("runtime = \"run\""), 5, "host.runtime", "from '/'");
    refused(sir, &host("spin = \"50\""), 5, "host.spin", "us, ms or s");
    refused(sir, &host("spin = \"2s\""), 5, "host.spin", "us, ms or s");
    refused(sir, &host("spin = \"99999999999999999999s\""), 5, "host.spin", "us, ms or s");
    refused(sir, &host("workers = 0"), 5, "host.workers", "from 1 to 16");
    refused(sir, &host("workers = 17"), 5, "host.workers", "from 1 to 16");
    let attachment = |line: &str| format!("network = \"blue\"\n{line}");
    let network = "network = \"blue\"";
    refused(network, &attachment("kind = \"tap\""), 13, "attachment.vm1.kind", "\"vhost-user\"");
    refused(network, &attachment("mode = \"sever\""), 13, "attachment.vm1.mode", "did you mean \"server\"?");
    refused(network, &attachment("hostname = \"-x\""), 13, "attachment.vm1.hostname", "labels");
    refused(network, &attachment("socket = \"a,b.sock\""), 13, "attachment.vm1.socket", "letters, digits");
    refused(network, &attachment("socket = \"control.sock\""), 13, "the control socket", "of its own");
    let long = format!("socket = \"{}\"", "x".repeat(120));
    refused(network, &attachment(&long), 13, "longer than 107 bytes", "shorten");
}

#[test]
fn prefixes_shared_addresses_and_virtual_macs_are_refused_at_their_lines() {
    let attachment = |line: &str| format!("network = \"blue\"\n{line}");
    let network = "network = \"blue\"";
    refused(network, &attachment("prefixes = [\"10.9\"]"), 13, "attachment.vm1.prefixes", "ADDRESS/LENGTH");
    refused(network, &attachment("prefixes = [\"192.168.7.1\"]"), 13, "is no prefix", "192.168.7.0/24");
    refused(network, &attachment("prefixes = [\"192.168.7.1/24\"]"), 13, "bits behind", "192.168.7.0/24");
    refused(network, &attachment("prefixes = [\"10.1.255.0/24\"]"), 13, "the gateway", "without its gateway");
    refused(network, &attachment("prefixes = [\"::/0\"]"), 13, "not inside the /96", "/97 to /127");
    refused(network, &attachment("shared = [\"10.1.0.1\"]"), 13, "vm1's own", "under shared only");
    refused(network, &attachment("shared = [\"10.9.0.1\"]"), 13, "no free address", "inside its ipv4");
    refused(network, &attachment("macs = [\"01:00:5e:00:00:01\"]"), 13, "attachment.vm1.macs", "unicast");
    refused(network, &attachment("macs = [\"02:49:4c:41:00:01\"]"), 13, "the gateway's", "unicast");
}

#[test]
fn a_mapping_of_a_prefix_leads_to_the_host_that_has_it() {
    let mapping = |address: &str| {
        format!(
            "{HOST}{BLUE}[[mapping]]\nnetwork = \"blue\"\naddress = \"{address}\"\nlocator = \"2001:db8:0:2::/64\"\n"
        )
    };
    let config = load(&mapping("192.168.7.0/24")).expect("accepted");
    assert_eq!(config.setup.setup().routes[0].prefix.to_string(), "192.168.7.0/24");
    for (address, what) in
        [("192.168.7.1/24", "bits behind"), ("10.1.0.0/16", "the gateway"), ("10.1.0.9/33", "no prefix")]
    {
        let problems = load(&mapping(address)).expect_err("refused");
        let [problem] = problems.problems() else { panic!("one problem: {problems}") };
        assert_eq!(problem.place.line, 17, "{problems}");
        assert!(problem.what.contains(what), "{problems}");
    }
    // Nobody would tell the other host when it moves.
    let shared = mapping("10.1.0.9").replace("mac = ", "shared = [\"10.1.0.9\"]\nmac = ");
    let problems = load(&shared).expect_err("refused").to_string();
    assert!(
        problems.contains("shared by attachment.vm1") && problems.contains("within one host"),
        "{problems}"
    );
}

#[test]
fn one_run_names_every_problem() {
    let text = format!("{HOST}{BLUE}").replace("1001", "0").replace("52:54:00:00:00:01", "x");
    let refused = load(&text).expect_err("refused");
    let lines: Vec<usize> = refused.problems().iter().map(|problem| problem.place.line).collect();
    assert_eq!(lines, [8, 13]);
}

#[test]
fn what_does_not_fit_together_is_refused_at_the_value_that_says_so() {
    // A second attachment with the address of the first: line 18 is its list of addresses.
    let second =
        "[attachment.vm2]\nnetwork = \"blue\"\nmac = \"52:54:00:00:00:02\"\naddresses = [\"10.1.0.1\"]\n";
    let refused = load(&format!("{HOST}{BLUE}{second}")).expect_err("refused");
    let [problem] = refused.problems() else { panic!("one problem, not {refused}") };
    assert_eq!(problem.place.line, 18, "{problem}");
    assert!(problem.what.contains("attachment.vm1"), "{problem}");
    // Of two addresses on lines of their own, where one is the beginning of the other: line 15, not 14.
    let problems = refusals("\"10.1.0.1\"", "\"10.1.0.1\",\n\"10.1.0.10\", \"10.1.0.10\"");
    assert_eq!(problems[0].0, 15, "{problems:?}");
    // An address outside its network.
    let problems = refusals("10.1.0.1", "10.2.0.1");
    assert_eq!(problems[0].0, 14, "{problems:?}");
    // A mapping of an address that an attachment here holds.
    let mapping =
        "[[mapping]]\nnetwork = \"blue\"\naddress = \"10.1.0.1\"\nlocator = \"2001:db8:0:2::/64\"\n";
    let refused = load(&format!("{HOST}{BLUE}{mapping}")).expect_err("refused");
    assert_eq!(refused.problems()[0].place.line, 17, "{refused}");
}

#[test]
fn two_sockets_of_one_path_are_refused() {
    let second = "[attachment.vm2]\nnetwork = \"blue\"\nsocket = \"vm1.sock\"\nmac = \"52:54:00:00:00:02\"\naddresses = [\"10.1.0.2\"]\n";
    let refused = load(&format!("{HOST}{BLUE}{second}")).expect_err("refused");
    let [problem] = refused.problems() else { panic!("one problem, not {refused}") };
    assert_eq!(problem.place.line, 17);
    assert!(problem.what.contains("taken by attachment.vm1"), "{problem}");
}

#[test]
fn a_directory_is_one_config_and_a_reference_may_cross_files() {
    let (network, attachment) = BLUE.split_at(BLUE.find("[attachment").expect("it is there"));
    let files =
        [("host.toml", HOST), ("z.toml", network), ("a.toml", attachment), (".a.toml", "x"), ("b.txt", "x")];
    let config = Config::load(directory(&files).path()).expect("accepted");
    assert_eq!(config.devices.len(), 1);
}

#[test]
fn only_host_toml_owns_the_host() {
    let directory = directory(&[("host.toml", HOST), ("more.toml", "\n[uplink]\nkind = \"none\"\n")]);
    let refused = Config::load(directory.path()).expect_err("refused");
    let [problem] = refused.problems() else { panic!("one problem, not {refused}") };
    assert_eq!(problem.place, Place { file: directory.path().join("more.toml"), line: 2 });
    assert_eq!(problem.remedy, "move [uplink] to host.toml");
}

#[test]
fn a_directory_without_host_toml_is_refused() {
    let directory = directory(&[("blue.toml", BLUE)]);
    let refused = Config::load(directory.path()).expect_err("refused");
    assert!(refused.to_string().contains("create host.toml"), "{refused}");
}

#[test]
fn a_name_in_two_files_is_refused_with_both_places() {
    let directory =
        directory(&[("host.toml", HOST), ("a.toml", BLUE), ("b.toml", "[network.blue]\nvni = 7\n")]);
    let refused = Config::load(directory.path()).expect_err("refused");
    let [problem] = refused.problems() else { panic!("one problem, not {refused}") };
    assert_eq!(problem.place, Place { file: directory.path().join("b.toml"), line: 1 });
    assert!(problem.what.contains("a.toml:1"), "{problem}");
}

#[test]
fn missing_sections_and_missing_files_are_named() {
    let refused = load(BLUE).expect_err("refused");
    assert_eq!(refused.problems().len(), 2, "{refused}");
    assert!(refused.to_string().contains("[host] is missing"), "{refused}");
    let refused = Config::load(Path::new("/nowhere/at/all")).expect_err("refused");
    assert!(refused.to_string().starts_with("/nowhere/at/all:1: cannot be read"), "{refused}");
}

#[test]
fn dhcp_tells_the_subnet_unless_host_routes_are_asked_for() {
    let lease4 = |line: &str| {
        let blue = BLUE.replacen("vni = 1001", &format!("vni = 1001{line}"), 1);
        load(&format!("{HOST}{blue}")).expect("accepted").setup.setup().networks[0].lease4
    };
    assert_eq!(lease4(""), Lease4::Subnet);
    assert_eq!(lease4("\ndhcp4 = \"host-route\""), Lease4::HostRoute);
    refused("vni = 1001", "vni = 1001\ndhcp4 = \"hostroute\"", 9, "dhcp4", "host-route");
}

#[test]
fn a_gateway_is_refused_where_its_packets_could_not_be_passed_on_by_the_kernel() {
    let gateway = |kind: &str| load(&format!("{HOST}[gateway]\n{BLUE}").replacen("kind = \"tun\"", kind, 1));
    gateway("kind = \"tun\"").expect("control");
    for (kind, what) in [
        ("kind = \"none\"", "nothing could be passed on"),
        ("kind = \"vhost-user\"\nnext_hop = \"fe80::1\"", "this uplink is not its"),
    ] {
        let refused = gateway(kind).expect_err(what);
        let [problem] = refused.problems() else { panic!("{refused}") };
        assert!(problem.what.contains(what) && problem.remedy.contains("kind = \"tun\""), "{refused}");
        let lines: Vec<_> = HOST.lines().collect();
        assert_eq!(problem.place.line, lines.len() + 1 + kind.lines().count() - 1, "{refused}");
    }
}

/// Their order is that of files and lines, and says nothing.
#[test]
fn a_reload_may_write_domains_in_another_order_but_not_other_domains() {
    let domain = |name: &str, n: u8| {
        format!("[domain.{name}]\nsir = \"2001:db8:5{n}::/64\"\nlocator = \"2001:db8:{n}:1::/64\"\n")
    };
    let files = |first: &str, second: &str| {
        let host = format!("{HOST}{BLUE}");
        let all = [("host.toml", host.as_str()), ("a.toml", first), ("b.toml", second)];
        Config::load(directory(&all).path()).expect("accepted")
    };
    let (lab, mill) = (domain("lab", 2), domain("mill", 3));
    let (running, turned) = (files(&lab, &mill), files(&mill, &lab));
    running.can_become(&turned).expect("the same domains");
    let names = |config: &Config| -> Vec<_> {
        config.setup.setup().domains().map(|domain| domain.name.map(str::to_owned)).collect()
    };
    assert_eq!(names(&running), names(&turned), "and numbered alike");
    let other = files(&lab, &domain("mill", 4));
    assert!(running.can_become(&other).expect_err("refused").to_string().contains("[domain]"));
}

#[test]
fn a_misspelt_domain_is_blamed_on_the_network_and_not_on_the_file_of_mappings() {
    let blue = BLUE.replacen("vni = 1001", "vni = 1001\nsir_domain = \"lab\"", 1);
    let text = format!("{HOST}[mappings]\nfile = \"where\"\n{blue}");
    let all = directory(&[("one.toml", text.as_str()), ("where", "blue 10.1.0.9 2001:db8:0:9::/64\n")]);
    let refused = Config::load(&all.path().join("one.toml")).expect_err("refused");
    let [problem] = refused.problems() else { panic!("{refused}") };
    assert!(
        problem.place.file.ends_with("one.toml") && problem.what.contains("\"lab\" is not defined"),
        "{refused}"
    );
}

#[test]
fn a_registry_is_kept_where_it_is_said_and_nowhere_by_default() {
    let authority = |section: &str| load(&format!("{HOST}{section}{BLUE}")).expect("accepted").authority;
    let embedded = |state: &str| AuthorityConfig::Embedded { state: state.into() };
    assert_eq!(authority(""), AuthorityConfig::Static);
    assert_eq!(authority("[authority]\nkind = \"static\"\n"), AuthorityConfig::Static);
    assert_eq!(authority("[authority]\nkind = \"embedded\"\n"), embedded("/var/lib/vhost-ila"));
    let somewhere = "[authority]\nkind = \"embedded\"\nstate = \"/srv/ila\"\n";
    assert_eq!(authority(somewhere), embedded("/srv/ila"));
    for (section, what) in [
        ("[authority]\nkind = \"etcd\"\n", "authority.kind"),
        ("[authority]\nkind = \"static\"\nstate = \"/srv\"\n", "remembers nothing"),
        ("[authority]\nkind = \"embedded\"\nstate = \"srv\"\n", "authority.state"),
    ] {
        let refused = load(&format!("{HOST}{section}{BLUE}")).expect_err(section);
        assert!(refused.to_string().contains(what), "{refused}");
    }
    let with = load(&format!("{HOST}{somewhere}{BLUE}")).expect("accepted");
    let without = load(&format!("{HOST}{BLUE}")).expect("accepted");
    assert!(with.can_become(&without).expect_err("refused").to_string().contains("[authority]"));
}

#[test]
fn an_attachment_does_not_become_a_task_in_one_reload_nor_a_task_an_attachment() {
    let machine = load(&format!("{HOST}{BLUE}")).expect("accepted");
    let task = "[attachment.vm1]\nkind = \"tun\"\naddresses = [\"2001:db8:51:0:2000::11\"]\n";
    let other = task.replace("vm1", "web");
    let task = load(&format!("{HOST}{task}")).expect("accepted");
    for (from, to) in [(&machine, &task), (&task, &machine)] {
        let refused = from.can_become(to).expect_err("refused").to_string();
        assert!(refused.contains("attachment.vm1: its kind differs"), "{refused}");
        from.can_become(from).expect("the same");
    }
    let both = load(&format!("{HOST}{BLUE}{other}")).expect("accepted");
    machine.can_become(&both).expect("another name");
}

#[test]
fn an_address_with_several_locators_is_listed_with_all_of_them() {
    let mapping = |lines: &str| {
        load(&format!("{HOST}{BLUE}[[mapping]]\nnetwork = \"blue\"\naddress = \"10.1.0.7\"\n{lines}"))
    };
    let both = "locators = [\"2001:db8:0:2::/64\", \"2001:db8:0:3::/64\"]\n";
    let config = mapping(both).expect("accepted");
    assert_eq!(config.setup.setup().several[0].locators.len(), 2);
    let task = format!("{HOST}{BLUE}[[mapping]]\naddress = \"2001:db8:51:0:2000::11\"\n{both}");
    assert_eq!(load(&task).expect("accepted").setup.setup().several[0].network, None);
    for (lines, what) in [
        (both.replace("0:3::", "0:2::"), "twice in its locators"),
        (both.replace("0:3::", "0:1::"), "no attachment has it"),
        (both.replace("0:3::/64", "0:3::/48"), "mapping.locators"),
        (format!("locator = \"2001:db8:0:2::/64\"\n{both}"), "locator and locators"),
        ("locators = []\n".into(), "no locator"),
        (String::new(), "no locator"),
    ] {
        let refused = mapping(&lines).expect_err(what);
        assert!(refused.problems()[0].what.contains(what), "{refused}");
    }
    let prefix = format!("{HOST}{BLUE}[[mapping]]\nnetwork = \"blue\"\naddress = \"10.9.0.0/16\"\n{both}");
    assert!(load(&prefix).expect_err("refused").to_string().contains("a prefix leads one way"));
}

proptest::proptest! {
    /// Bytes of the example are overwritten: whatever comes of it is accepted or refused by place, and never a panic.
    #[test]
    fn a_garbled_config_is_refused_by_a_line_of_its_file(
        changes in proptest::collection::vec((0..HOST.len() + BLUE.len(), "[ -~\n]{0,3}"), 1..4)
    ) {
        let mut text = format!("{HOST}{BLUE}");
        for (at, new) in changes {
            let at = at.min(text.len());
            let end = (at + new.len()).min(text.len());
            text.replace_range(at..end, &new);
        }
        if let Err(refused) = load(&text) {
            for problem in refused.problems() {
                proptest::prop_assert!(problem.place.line <= 1 + text.lines().count(), "{problem}\n{text}");
                proptest::prop_assert!(problem.place.file.ends_with("one.toml"), "{problem}");
                proptest::prop_assert!(!problem.what.is_empty() && !problem.remedy.is_empty(), "{problem}");
            }
        }
    }
}

#[test]
fn an_instances_keys_and_user_data_are_read_with_the_configuration() {
    let with = |lines: &str| format!("{HOST}{BLUE}{lines}");
    let good = "instance_id = \"i-1\"\nssh_keys = [\"ssh-ed25519 AAAA me\"]\nuser_data = \"vm1.yaml\"\n";
    let files = [("one.toml", with(good)), ("vm1.yaml", "#cloud-config\n".to_owned())];
    let place = directory(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let config = Config::load(&place.path().join("one.toml")).expect("accepted");
    let instance = &config.setup.setup().attachments[0].instance;
    assert_eq!(
        (instance.id.as_deref(), instance.ssh_keys.as_slice()),
        (Some("i-1"), &["ssh-ed25519 AAAA me".into()][..])
    );
    assert_eq!(instance.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
    let long = "x".repeat(64 * 1024 + 1);
    for (lines, what) in [
        ("user_data = \"no.yaml\"\n", "cannot be read"),
        ("user_data = \"/dev/zero\"\n", "not a regular file"),
        ("user_data = \"long\"\n", "more than 65536 bytes"),
        ("ssh_keys = [\"AAAA\"]\n", "no public key"),
        ("ssh_keys = [\"ssh-rsa AAAA\\nssh-rsa BBBB\"]\n", "no public key"),
        ("instance_id = \"i 1\"\n", "cannot be a name"),
    ] {
        let place = directory(&[("one.toml", &with(lines)), ("long", &long)]);
        let refused = Config::load(&place.path().join("one.toml")).expect_err(lines);
        let [problem] = refused.problems() else { panic!("one problem, not {refused}") };
        assert!(problem.what.contains(what) && problem.place.line == 15, "{refused}");
    }
}

#[test]
fn metadata_that_nobody_is_told_or_that_hides_addresses_is_refused() {
    let silent =
        format!("{HOST}{BLUE}instance_id = \"i-1\"\n").replace("vni = 1001", "vni = 1001\nmetadata = false");
    assert!(load(&silent).expect_err("refused").to_string().contains("serves no metadata"));
    let inside = format!("{HOST}{BLUE}").replace("10.1.0.", "169.254.0.");
    assert!(load(&inside).expect_err("refused").to_string().contains("where metadata is served"));
    load(&inside.replace("vni = 1001", "vni = 1001\nmetadata = false")).expect("accepted");
}

/// HOST with `[redirect]` and this key file; what is wrong with it.
fn with_key(redirect: &str, secret: &str, mode: u32) -> Result<Config, Vec<(String, String)>> {
    use std::os::unix::fs::PermissionsExt as _;
    let files = directory(&[("host.toml", &format!("{HOST}{redirect}")), ("a.key", secret)]);
    let key = files.path().join("a.key");
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(mode)).expect("set");
    let problem = |problem: &Problem| (problem.what.clone(), problem.remedy.clone());
    Config::load(files.path()).map_err(|refused| refused.problems().iter().map(problem).collect())
}

const REDIRECT: &str =
    "[redirect]\nlocators = [\"2001:db8::/48\"]\n[[redirect.key]]\nid = 7\nfile = \"a.key\"\n";

#[test]
fn redirects_are_off_without_a_section_and_heard_but_not_told_with_a_key() {
    assert!(load(&format!("{HOST}{BLUE}")).expect("accepted").redirect.is_none());
    let config = with_key(REDIRECT, &format!("{}\n", "5a".repeat(32)), 0o600).expect("accepted");
    let RedirectConfig { policy, port } = config.redirect.expect("a section");
    assert_eq!((policy.accept, policy.send, policy.lifetime.as_secs(), port), (true, false, 300, 61_451));
    assert_eq!(policy.keys.ids().map(|id| id.0).collect::<Vec<_>>(), [7]);
}

#[test]
fn whoever_hears_redirects_says_where_the_locators_of_the_fabric_lie() {
    let secret = "5a".repeat(32);
    let anywhere = REDIRECT.replace("locators = [\"2001:db8::/48\"]\n", "");
    let problems = with_key(&anywhere, &secret, 0o600).expect_err("refused");
    let [(what, remedy)] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(what.contains("where locators lie") && remedy.contains("accept = false"), "{what} {remedy}");
    let deaf = anywhere.replace("[redirect]\n", "[redirect]\naccept = false\nsend = true\n");
    with_key(&deaf, &secret, 0o600).expect("accepted: it hears none");
}

#[test]
fn a_key_that_others_may_read_is_short_or_no_key_is_refused_without_its_secret() {
    let good = "c0ffee".repeat(11);
    let cases = [
        (REDIRECT, good.as_str(), 0o640, "may be read by others"),
        (REDIRECT, good.as_str(), 0o604, "mode 0604"),
        (REDIRECT, &good[..62], 0o600, "31 bytes"),
        (REDIRECT, "", 0o600, "0 bytes"),
        (REDIRECT, &good[..65], 0o600, "hexadecimal"),
        (
            REDIRECT,
            "not a key, but a sentence of more than sixty-four characters in all.",
            0o600,
            "hexadecimal",
        ),
        ("[redirect]\naccept = false\n", good.as_str(), 0o600, "there is no key"),
        (
            "[redirect]\naccept = false\n[[redirect.key]]\nid = 7\nfile = \"/dev/zero\"\n",
            "",
            0o600,
            "no regular file",
        ),
        (
            "[redirect]\naccept = false\n[[redirect.key]]\nid = 70000\nfile = \"a.key\"\n",
            good.as_str(),
            0o600,
            "out of range",
        ),
        (
            "[redirect]\naccept = false\nlifetime = \"0s\"\n[[redirect.key]]\nid = 7\nfile = \"a.key\"\n",
            good.as_str(),
            0o600,
            "no time",
        ),
        (
            "[redirect]\nlocators = [\"2001:db8:1::/32\"]\n[[redirect.key]]\nid = 7\nfile = \"a.key\"\n",
            good.as_str(),
            0o600,
            "no prefix",
        ),
    ];
    for (redirect, secret, mode, expected) in cases {
        let problems = with_key(redirect, secret, mode).expect_err(expected);
        let [(what, remedy)] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(what.contains(expected), "{what:?} should contain {expected:?}");
        assert!(
            !what.contains("c0ffee") && !remedy.contains("c0ffee") && !remedy.is_empty(),
            "{what} {remedy}"
        );
    }
    let twice = format!("{REDIRECT}[[redirect.key]]\nid = 7\nfile = \"a.key\"\n");
    let problems = with_key(&twice, &"5a".repeat(32), 0o600).expect_err("refused");
    assert!(problems[0].0.contains("two keys of number 7"), "{problems:?}");
}

/// Where its guest still is, a mapping says; nothing else of the configuration may have its addresses.
#[test]
fn an_attachment_on_standby_may_be_mapped_elsewhere_and_has_addresses_only() {
    let elsewhere =
        "[[mapping]]\nnetwork = \"blue\"\naddress = \"10.1.0.1\"\nlocator = \"2001:db8:0:2::/64\"\n";
    let waits = BLUE.to_owned() + "standby = true\n";
    let config = load(&format!("{HOST}{waits}{elsewhere}")).expect("accepted");
    assert!(config.setup.setup().moves.standby.contains("vm1"));
    let here = load(&format!("{HOST}{BLUE}{elsewhere}")).expect_err("refused");
    assert!(here.to_string().contains("the address is already attachment.vm1's"), "{here}");
    let own = elsewhere.replace(":2::", ":1::");
    let own = load(&format!("{HOST}{waits}{own}")).expect_err("refused");
    assert!(own.to_string().contains("take standby from the one"), "{own}");
    for lent in ["prefixes = [\"192.168.7.0/24\"]", "shared = [\"10.1.0.100\"]"] {
        let lent = load(&format!("{HOST}{waits}{lent}\n")).expect_err("refused");
        assert!(lent.to_string().contains("which do not move with a guest"), "{lent}");
    }
    let twice =
        "[attachment.vm2]\nnetwork = \"blue\"\nmac = \"52:54:00:00:00:02\"\naddresses = [\"10.1.0.1\"]\n";
    let twice = load(&format!("{HOST}{waits}{twice}")).expect_err("refused");
    assert!(twice.to_string().contains("already"), "{twice}");
}

#[test]
fn how_packets_follow_what_has_moved_is_refused_at_its_line() {
    let at = "[uplink]";
    refused(at, "moved = \"follow\"\n[uplink]", 5, "host.moved", "\"forward\"");
    refused(at, "grace = \"2h\"\n[uplink]", 5, "host.grace", "\"50us\"");
    refused(at, "grace = \"3601s\"\n[uplink]", 5, "no time from 0us to 3600s", "number");
    let text = format!("{HOST}{BLUE}").replacen(at, "moved = \"drop\"\ngrace = \"3s\"\n[uplink]", 1);
    let moves = load(&text).expect("accepted").setup.setup().moves.clone();
    assert_eq!((moves.stragglers, moves.grace.as_secs()), (Stragglers::Drop, 3));
}
