//! Instructions per packet of each shape, counted by callgrind: `cargo bench -p ipv4-xlat --bench instructions`.
//!
//! Runs itself under valgrind, each shape a hundred times and eleven hundred times; the difference is a thousand
//! packets, whatever starting a process costs. Unlike time, the count is the same on a busy machine.

mod shapes;

use std::env;
use std::process::{Command, ExitCode, Stdio};

use ipv4_xlat::SCRATCH_LEN;

const FEW: u64 = 100;
const MANY: u64 = 1100;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let [_, run, shape, times] = &arguments[..]
        && run == "--run"
    {
        translate(shape.parse().expect("an index"), times.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: there is no valgrind here, so instructions are not counted");
        return ExitCode::SUCCESS;
    }
    println!("{:<24} {:>12}", "shape", "instructions");
    for (index, shape) in shapes::all().iter().enumerate() {
        match count(index, MANY).zip(count(index, FEW)) {
            Some((many, few)) => println!("{:<24} {:>12}", shape.name, (many - few) / (MANY - FEW)),
            None => {
                println!("{}: callgrind counted nothing", shape.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn translate(index: usize, times: u64) {
    let (shapes, config, mut out) = (shapes::all(), shapes::config(), [0; SCRATCH_LEN]);
    for _ in 0..times {
        assert!(shapes[index].translate(&config, &mut out));
    }
}

/// Instructions of a process that translates the shape `times` times.
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
