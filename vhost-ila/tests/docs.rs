//! What `docs/` says is what the program does. `UPDATE_DOCS=1 cargo test -p vhost-ila --test docs` writes the generated files anew.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use nve_core::DropReason;
use nve_core::redirect::Outcome;
use utoipa::OpenApi as _;
use vhost_ila::cli::Cli;
use vhost_ila::config::Config;
use vhost_ila::control::Description;
use vhost_ila::device::features::{Bit, FEATURES, Feature};
use vhost_ila::device::status::Uses;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Compares; or writes, where `UPDATE_DOCS` is set.
#[track_caller]
fn is_current(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    assert!(read(path) == text, "{} is out of date: run this test with UPDATE_DOCS=1", path.display());
}

/// Every command with its full name, `vhost-ila addr decode` for instance.
fn commands() -> BTreeMap<String, Command> {
    fn add(name: &str, command: &Command, all: &mut BTreeMap<String, Command>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            add(&format!("{name} {}", below.get_name()), below, all);
        }
        all.insert(name.to_owned(), command.clone());
    }
    let mut root = Cli::command();
    root.build();
    let mut all = BTreeMap::new();
    add("vhost-ila", &root, &mut all);
    all
}

#[test]
fn the_openapi_description_is_current() {
    is_current(&docs("openapi.yaml"), &Description::openapi().to_yaml().expect("YAML"));
}

#[test]
fn the_list_of_drops_is_current() {
    let mut text = "# Drops\n\nWhat `drop=NAME` in a capture, `show counters` and the control API mean. Written by a test from \
        `nve-core/src/drop_reason.rs`.\n\n| name | meaning |\n|---|---|\n"
        .to_owned();
    for reason in DropReason::ALL {
        text += &format!("| `{}` | {} |\n", reason.name(), reason.doc().trim());
    }
    is_current(&docs("drops.md"), &text);
}

#[test]
fn the_list_of_outcomes_of_redirects_is_current() {
    let path = docs("redirect.md");
    let text = read(&path);
    let (before, rest) = text.split_once("<!-- outcomes -->").expect("a mark");
    let (_, after) = rest.split_once("<!-- end -->").expect("its end");
    let mut table = "\n| name | meaning |\n|---|---|\n".to_owned();
    for outcome in Outcome::ALL {
        table += &format!("| `{}` | {} |\n", outcome.name(), outcome.doc().trim());
    }
    is_current(&path, &format!("{before}<!-- outcomes -->\n{table}\n<!-- end -->{after}"));
}

#[test]
fn the_table_of_features_is_current() {
    let mut text = format!(
        "{FEATURES_HEAD}| feature | bit | here | off switch | test | counter |\n|---|---|---|---|---|---|\n"
    );
    for Feature { name, bit, switch, asked, does, test, counter, .. } in FEATURES {
        let bit = match bit {
            Bit::Virtio(bit) => format!("virtio {bit}"),
            Bit::Protocol(bit) => format!("protocol {bit}"),
        };
        let switch = match asked {
            _ if *switch => format!("`without = [\"{name}\"]`"),
            Some(line) => format!("on with `{line}`"),
            None => "none".into(),
        };
        text += &format!("| `{name}` | {bit} | {does} | {switch} | `{test}` | `{counter}` |\n");
    }
    text += "\n## Counters\n\nOf each attachment since it was made, in `uses` of `vhost-ila show attachments --json`; those that are \
        not zero also without `--json`.\n\n| counter | counts |\n|---|---|\n";
    for (name, counts) in Uses::ALL {
        text += &format!("| `{name}` | {counts} |\n");
    }
    is_current(&docs("virtio.md"), &text);
}

const FEATURES_HEAD: &str = "\
# Features

What the device of an attachment offers, bit by bit. Written by a test from `vhost-ila/src/device/features/table.rs`; the offer, the off
switches and the names in `vhost-ila show attachments` come from the same table. What needs a feature that is switched off is
withdrawn with it (virtio 1.2, 5.1.3.1): without `csum`, for instance, there is no `host_tso4`.

Queue pairs. QEMU and DPDK read GET_QUEUE_NUM as pairs and may use fewer than offered: a ring without a kick descriptor never starts, and a
disabled pair receives nothing. cloud-hypervisor compares the number with its rings, so it gets half as many pairs. crosvm wants
`queues = 1`: it makes three rings. Frames to a guest go to the enabled pairs by their flow (addresses, protocol and ports, the same for
both directions), not to the pair that the guest last sent the flow on, as nothing is kept per flow; when pairs come or go, flows move.

Control queue. QEMU, cloud-hypervisor and DPDK serve it themselves and tell the outcome by SET_VRING_ENABLE. For front-ends that pass it on
it is the ring behind the last pair offered, or ring 2 without `mq`: it sets the number of pairs and takes acknowledgements of announcements;
every other command is answered with an error.

Packed rings are offered where the attachment says `packed = true`; the guest may still choose split ones. A ring goes on behind the last
buffer that was given back when a front-end reconnects, even after the daemon was killed: a split ring at its used index, which `in_order`
makes exact, and a packed one at the place that the daemon writes into its device area (decision 0002).

Super-packets are whole where sender and receiver have them. UDP's (USO) may come to 128 datagrams, none longer than the payload: what says otherwise is
dropped (`bad-offload`). Where the receiving guest, or the kernel behind a TUN (before Linux 6.2: it is asked), does not take them, the sender's host or
the receiver's cuts them. `hdr_len` counts all headers, TCP's options included. QEMU up to 10.0 lets its guest have USO behind
a tap only, whatever a vhost-user device offers (`peer_has_uso`); other front-ends, and tasks, have it.

Never offered, as they are not carried: SEND_RARP, NET_SET_MTU, STATUS and INFLIGHT_SHMFD of vhost-user.

";

/// The text of every source file.
fn sources() -> String {
    fn add(directory: &Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).expect("read") {
            let path = entry.expect("read").path();
            if path.is_dir() {
                add(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *text += &read(&path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    add(&root.join("src"), &mut text);
    add(&root.join("../tests/e2e"), &mut text);
    text
}

#[test]
fn every_feature_has_a_test_and_a_counter_that_exist() {
    let sources = sources();
    let shown = Description::openapi().to_yaml().expect("YAML");
    for Feature { name, test, counter, .. } in FEATURES {
        assert!(sources.contains(&format!("fn {test}()")), "{name}: there is no test {test}");
        let key = counter.strip_prefix("rings[].").unwrap_or(counter);
        let known =
            Uses::ALL.iter().any(|(known, _)| known == counter) || shown.contains(&format!(" {key}:\n"));
        assert!(known, "{name}: nothing counts {counter}");
    }
}

#[test]
fn the_man_pages_are_current() {
    let mut pages = Vec::new();
    for (name, command) in commands() {
        let name = name.replace(' ', "-");
        let source = concat!("vhost-ila ", env!("CARGO_PKG_VERSION"));
        let man = clap_mangen::Man::new(command).title(name.to_uppercase()).section("1").source(source);
        let mut page = Vec::new();
        man.render(&mut page).expect("rendered");
        is_current(&docs("man").join(format!("{name}.1")), &String::from_utf8(page).expect("text"));
        pages.push(format!("{name}.1"));
    }
    for file in std::fs::read_dir(docs("man")).expect("read") {
        let name = file.expect("read").file_name().into_string().expect("text");
        assert!(pages.contains(&name), "docs/man/{name} belongs to no command");
    }
}

#[test]
fn every_command_and_option_is_documented() {
    let text = read(&docs("commands.md"));
    for (name, command) in commands() {
        assert!(text.contains(&format!("`{name}")), "docs/commands.md has `{name}`");
        for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(
                matches!(option, "help" | "version") || text.contains(&format!("--{option}")),
                "docs/commands.md has --{option} of {name}"
            );
        }
    }
}

/// The fenced blocks of a language in a Markdown text, each with the number of its first line.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<(usize, String)> {
    let fence = format!("```{language}");
    let mut blocks: Vec<(usize, Vec<&'a str>)> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if inside && line == "```" {
            inside = false;
        } else if inside {
            blocks.last_mut().expect("begun").1.push(line);
        } else if line == fence {
            inside = true;
            blocks.push((number + 2, Vec::new()));
        }
    }
    blocks.into_iter().map(|(line, lines)| (line, lines.join("\n") + "\n")).collect()
}

#[test]
fn the_configuration_s_example_is_accepted_and_names_every_key() {
    let text = read(&docs("configuration.md"));
    // The blocks are one config, told in pieces.
    let config: String = blocks(&text, "toml").into_iter().map(|(_, block)| block).collect();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("all.toml");
    std::fs::write(&path, &config).expect("written");
    let mut key = std::fs::OpenOptions::new();
    let key = key.write(true).create_new(true).mode(0o600).open(directory.path().join("redirect-1.key"));
    key.expect("made").write_all("5a".repeat(32).as_bytes()).expect("written");
    Config::load(&path).unwrap_or_else(|refused| panic!("{refused}\nin:\n{config}"));
    for (table, key) in keys() {
        let shows = |line: &str| {
            line.starts_with(&format!("{key} ="))
                || line == format!("[[{}.{key}]]", table.trim_matches(['[', ']']))
        };
        let written = config.lines().any(|line| shows(line.trim_start_matches("# ")));
        assert!(written, "docs/configuration.md shows {key} of [{table}]");
        assert!(text.contains(&format!("| `{key}` |")), "docs/configuration.md explains {key} of [{table}]");
    }
}

/// Every key of every table, as the program lists them when it meets one it does not know.
fn keys() -> Vec<(String, String)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("unknown.toml");
    let mut keys = Vec::new();
    for table in [
        "[host]",
        "[mappings]",
        "[uplink]",
        "[gateway]",
        "[authority]",
        "[network.x]",
        "[attachment.x]",
        "[[mapping]]",
        "[[listener]]",
        "[redirect]",
        "[[redirect.key]]",
    ] {
        std::fs::write(&path, format!("{table}\nqqqqqqqqqqqqqqqq = 1\n")).expect("written");
        let refused = Config::load(&path).expect_err("refused");
        let remedy = &refused.problems()[0].remedy;
        let known = remedy.strip_prefix("remove it; known here: ").expect("the list");
        keys.extend(known.split(", ").map(|key| (table.to_owned(), key.to_owned())));
    }
    assert!(keys.len() > 20, "{keys:?}");
    keys
}
