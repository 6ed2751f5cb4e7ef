//! `[mappings]`: a file that says where addresses live by the thousand, as the daemon takes and refuses it.

use std::fmt::Write as _;
use std::path::Path;

use super::run::Daemon;
use crate::{answer, refusal};

const BLUE: &str = "[network.blue]\nvni = 1001\nipv4 = \"10.0.0.0/8\"\nipv6 = \"2001:db8:b1:e::/96\"\n\
                    [attachment.vm1]\nnetwork = \"blue\"\nmac = \"52:54:00:00:00:01\"\naddresses = [\"10.1.0.1\"]\n";

/// Of `count` addresses, each at one of a hundred hosts.
fn lines(count: u32) -> String {
    let mut lines = String::from("# network address locator\n\n");
    for n in 0..count {
        let [_, a, b, c] = (n + 0x2_0000).to_be_bytes();
        writeln!(lines, "blue\t10.{a}.{b}.{c}  2001:db8:0:{:x}::/64 # host {}", 0x100 + n % 100, n % 100)
            .unwrap();
    }
    lines
}

fn daemon(directory: &Path, room: u32) -> Daemon {
    let file = directory.join("where").display().to_string();
    Daemon::start_with(&format!("[mappings]\nfile = \"{file}\"\nroom = {room}\n"), BLUE)
}

#[test]
fn a_file_of_mappings_is_run_reloaded_and_refused_by_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(directory.path().join("where"), text).unwrap();
    write(&lines(3000));
    let daemon = daemon(directory.path(), 100_000);
    assert_eq!(daemon.show("mappings").as_array().map(Vec::len), Some(1), "the file's are in the file");
    let checked = answer(&daemon.ask(&["check"]));
    assert!(checked.contains("3000 mappings"), "{checked}");
    write(&lines(90_000));
    assert!(answer(&daemon.ask(&["reload"])).contains("90000 mappings"));

    let good = lines(10);
    // A comment whose end would be a mapping, were it read in pieces; and one that fits.
    let comment = |length: usize| format!("#{}", " ".repeat(length - 1));
    let cut = format!("{}blue 10.9.0.9 2001:db8:0:9::/64\n", comment(1024));
    for (more, line, why) in [
        ("blue 10.9.0.9\n", 13, "three words"),
        ("blue 10.9.0.9 2001:db8:0:9::/64 x\n", 13, "three words"),
        ("blue 10.9.0 2001:db8:0:9::/64\n", 13, "\"10.9.0\""),
        ("blue 10.9.0.9 2001:db8:0:9::/65\n", 13, "\"2001:db8:0:9::/65\""),
        ("green 10.9.0.9 2001:db8:0:9::/64\n", 13, "not defined"),
        ("blue 192.0.2.1 2001:db8:0:9::/64\n", 13, "no free address"),
        ("\n#\nblue 10.2.0.1 2001:db8:0:9::/64\n", 15, "there twice"),
        ("blue 10.1.0.1 2001:db8:0:9::/64\n", 13, "already attachment.vm1's"),
        ("blue 10.9.0.9 2001:db8:0:1::/64\n", 13, "no attachment has it"),
        ("blue 10.9.0.9 2001:db8:51::/64\n", 13, "SIR prefix"),
        (cut.as_str(), 13, "1024 bytes or more"),
    ] {
        write(&format!("{good}{more}"));
        let refused = refusal(&daemon.ask(&["reload"]));
        let place = format!("{}:{line}: ", directory.path().join("where").display());
        assert!(refused.contains(&place) && refused.contains(why) && refused.contains("remedy"), "{refused}");
    }
    write(&lines(200_000));
    let refused = refusal(&daemon.ask(&["reload"]));
    assert!(refused.contains("restart with a larger one"), "{refused}");
    write(&format!("{good}{}\n", comment(1023)));
    assert!(answer(&daemon.ask(&["reload"])).contains("10 mappings"), "it runs on");
}

#[test]
fn a_file_of_mappings_and_a_registry_exclude_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[host]\nname = \"hv1\"\nlocator = \"2001:db8:0:1::/64\"\nsir = \"2001:db8:51::/64\"\n[uplink]\nkind = \"none\"\n\
         [authority]\nkind = \"embedded\"\n[mappings]\nfile = \"where\"\n{BLUE}"
    );
    let config = directory.path().join("host.toml");
    std::fs::write(&config, text).unwrap();
    let refused = refusal(&["check", "--config", config.to_str().unwrap()]);
    assert!(refused.contains("host.toml:9: [mappings]"), "{refused}");
}
