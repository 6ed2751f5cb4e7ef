//! The daemon and its client.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use vhost_ila::cli::{self, Answer, Cli, Command};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match answer(Cli::parse()) {
        Ok(Answer { text, well }) => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Each command reads the config itself: all of them say the same of a bad one.
fn answer(cli: Cli) -> Result<Answer> {
    let (config, command) = cli.into_parts();
    match command {
        Command::Run => cli::run::run(config).map(Answer::from),
        Command::Show(args) => cli::show::run(args, &config).map(Answer::from),
        Command::Reload => cli::reload::run(&config).map(Answer::from),
        Command::Plug(args) => cli::plug::plug(&args, &config).map(Answer::from),
        Command::Unplug(args) => cli::plug::unplug(&args, &config).map(Answer::from),
        Command::Attachment(args) => cli::attachment::run(&args, &config).map(Answer::from),
        Command::Check(args) => cli::check::run(args, &config),
        Command::Addr(args) => cli::addr::run(args, &config).map(Answer::from),
        Command::Id(args) => cli::id::run(args).map(Answer::from),
        Command::Mapping(args) => cli::mapping::run(args, &config).map(Answer::from),
        Command::QemuArgs(args) => cli::qemu_args::run(args, &config).map(Answer::from),
        Command::Replay(args) => cli::replay::run(args, &config).map(Answer::from),
    }
}
