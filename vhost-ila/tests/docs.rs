//! What `docs/` says is what the program does. `UPDATE_DOCS=1 cargo test -p vhost-ila --test docs` writes the generated files anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use nve_core::DropReason;
use utoipa::OpenApi as _;
use vhost_ila::cli::Cli;
use vhost_ila::config::Config;
use vhost_ila::control::Description;

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
    Config::load(&path).unwrap_or_else(|refused| panic!("{refused}\nin:\n{config}"));
    for (table, key) in keys() {
        let written =
            config.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")));
        assert!(written, "docs/configuration.md shows {key} of [{table}]");
        assert!(text.contains(&format!("| `{key}` |")), "docs/configuration.md explains {key} of [{table}]");
    }
}

/// Every key of every table, as the program lists them when it meets one it does not know.
fn keys() -> Vec<(String, String)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("unknown.toml");
    let mut keys = Vec::new();
    for table in ["[host]", "[uplink]", "[network.x]", "[attachment.x]", "[[mapping]]"] {
        std::fs::write(&path, format!("{table}\nqqqqqqqqqqqqqqqq = 1\n")).expect("written");
        let refused = Config::load(&path).expect_err("refused");
        let remedy = &refused.problems()[0].remedy;
        let known = remedy.strip_prefix("remove it; known here: ").expect("the list");
        keys.extend(known.split(", ").map(|key| (table.to_owned(), key.to_owned())));
    }
    assert!(keys.len() > 20, "{keys:?}");
    keys
}
