//! Instructions of the walk alone, per packet, counted by callgrind: `cargo bench -p nve-core --bench instructions`.
//!
//! Runs itself under valgrind, each case a hundred times and eleven hundred times; the difference is a thousand packets, whatever
//! starting a process costs. Unlike time, the count is the same on a busy machine.

mod cases;

use std::env;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

const FEW: u64 = 100;
const MANY: u64 = 1100;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let mut cases = cases::all();
    if let [_, run, case, times] = &arguments[..]
        && run == "--run"
    {
        let case = &mut cases[case.parse::<usize>().expect("an index")];
        (0..times.parse().expect("a number")).for_each(|_| {
            black_box(black_box(&mut *case).walk());
        });
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: there is no valgrind here, so instructions are not counted");
        return ExitCode::SUCCESS;
    }
    println!("{:<24} {:>12}", "walk", "instructions");
    for (index, case) in cases.iter().enumerate() {
        match count(index, MANY).zip(count(index, FEW)) {
            Some((many, few)) => println!("{:<24} {:>12}", case.name, (many - few) / (MANY - FEW)),
            None => {
                println!("{}: callgrind counted nothing", case.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Instructions of a process that walks the case `times` times.
fn count(index: usize, times: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().ok()?)
        .args(["--run".to_owned(), index.to_string(), times.to_string()])
        .output()
        .ok()?;
    let said = String::from_utf8(output.stderr).ok()?;
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}
