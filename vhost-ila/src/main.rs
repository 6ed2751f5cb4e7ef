//! The daemon and its client.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use vhost_ila::cli::{self, Cli, Command};

fn main() -> ExitCode {
    let (config, command) = Cli::parse().into_parts();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let answer = match command {
        Command::Run => cli::run::run(config),
        Command::Show(args) => cli::show::run(args, &config),
        Command::Reload => cli::reload::run(&config),
        Command::Check(args) => cli::check::run(args, &config),
        Command::Addr(args) => cli::addr::run(args, &config),
        Command::QemuArgs(args) => cli::qemu_args::run(args, &config),
        Command::Replay(args) => cli::replay::run(args, &config),
    };
    match answer {
        // A reader that has seen enough (`| head`) is no failure.
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
