//! Instructions of the walk alone, per packet, counted by callgrind: `cargo bench -p nve-core --bench instructions`.
//!
//! Runs itself under valgrind, each case a hundred times and eleven hundred times; the difference is a thousand packets, whatever
//! starting a process costs. Unlike time, the count is the same on a busy machine.

mod cases;

use std::env;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

/// What the process is told to do.
const WALK: &str = "--walk";
const RETRACE: &str = "--retrace";

const FEW: u64 = 100;
const MANY: u64 = 1100;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let mut cases = cases::all();
    if let [_, run, case, times] = &arguments[..]
        && run == RETRACE
    {
        let case = &mut cases[case.parse::<usize>().expect("an index")];
        (0..times.parse().expect("a number")).for_each(|_| {
            assert!(black_box(&mut *case).retrace());
        });
        return ExitCode::SUCCESS;
    }
    if let [_, run, case, times] = &arguments[..]
        && run == WALK
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
    for (index, case) in cases.iter_mut().enumerate() {
        let again = case.retrace();
        for (how, again) in [(WALK, ""), (RETRACE, ", again")].into_iter().take(1 + usize::from(again)) {
            let name = format!("{}{again}", case.name);
            match count(how, index, MANY).zip(count(how, index, FEW)) {
                Some((many, few)) => println!("{name:<24} {:>12}", (many - few) / (MANY - FEW)),
                None => {
                    println!("{name}: callgrind counted nothing");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// Instructions of a process that walks the case `times` times.
fn count(how: &str, index: usize, times: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().ok()?)
        .args([how.to_owned(), index.to_string(), times.to_string()])
        .output()
        .ok()?;
    let said = String::from_utf8(output.stderr).ok()?;
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}
