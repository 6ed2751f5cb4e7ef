//! The scoreboard of docs/hostile.md, as seen by a test: which check it is part of, from which seed, how large, and how it went.
//!
//! ```text
//!   cargo xtask test [--long] [--seed N] ──environment──> Check::begin ... count ... drop ──lines of output──> xtask: table
//! ```
//!
//! What must stay true: a check that was begun is reported. It says so when it begins and when it ends, so that one that was killed
//! in between is missing its end, which `cargo xtask test` takes for a failure.

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use serde_json::json;

use crate::dice::Dice;

/// What a line of the scoreboard begins with; `xtask/src/scoreboard.rs` looks for it.
const MARK: &str = "SCOREBOARD ";

/// Whether this is a full run (`cargo xtask test --long`), not one that is done in seconds.
pub fn long() -> bool {
    env::var_os("VHOST_ILA_LONG").is_some()
}

/// One test's part in one check, while it runs.
///
/// ```no_run
/// # use vhost_ila_tests::scoreboard::Check;
/// let mut check = Check::begin(13, "messages");
/// let mut dice = check.dice();
/// for _ in 0..check.scale(1_000, 10_000_000) {
///     let message = dice.bytes(20);
///     check.trying(&message);
///     // Send it; assert what must hold.
///     check.count(1);
/// }
/// ```
#[derive(Debug)]
pub struct Check {
    number: u8,
    unit: &'static str,
    seed: u64,
    count: u64,
    start: Instant,
    input: Vec<u8>,
}

impl Check {
    /// Begins a test's part in check `number` of docs/hostile.md, which is counted in `unit`: "messages", "rounds". It ends when this
    /// is dropped, and has failed when that is because the test panics.
    pub fn begin(number: u8, unit: &'static str) -> Check {
        let seed = env::var("VHOST_ILA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let check = Check { number, unit, seed, count: 0, start: Instant::now(), input: Vec::new() };
        check.say(None);
        check
    }

    /// The seed of this run: `--seed`, or 1.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Random numbers from this run's seed.
    pub fn dice(&self) -> Dice {
        Dice::new(self.seed)
    }

    /// `few` in every run, `many` in a full one.
    pub fn scale<T>(&self, few: T, many: T) -> T {
        if long() { many } else { few }
    }

    /// Counts `more` of the unit as done.
    pub fn count(&mut self, more: u64) {
        self.count += more;
    }

    /// Names the input that is about to be tried: if the test fails before the next is named, this one is kept as a regression.
    pub fn trying(&mut self, input: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(input);
    }

    /// The inputs that once made this check fail, with their files' names: to be tried first in every run.
    pub fn regressions(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(self.directory()).into_iter().flatten().flatten();
        let mut inputs: Vec<_> = files
            .filter_map(|file| Some((file.file_name().into_string().ok()?, fs::read(file.path()).ok()?)))
            .collect();
        inputs.sort();
        inputs
    }

    fn directory(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("regressions/check-{:02}", self.number))
    }

    fn say(&self, passed: Option<bool>) {
        let line = json!({
            "check": self.number, "seed": self.seed, "count": self.count, "unit": self.unit,
            "seconds": self.start.elapsed().as_secs_f32(), "passed": passed,
        });
        // A line of its own, whatever was printed before.
        println!("\n{MARK}{line}");
    }

    /// Writes the input that failed where the next run finds it.
    fn keep(&self) {
        let file = self.directory().join(format!("seed-{}-after-{}", self.seed, self.count));
        let kept = fs::create_dir_all(self.directory()).and_then(|()| fs::write(&file, &self.input));
        match kept {
            Ok(()) => println!("the input that failed is kept in {}", file.display()),
            Err(error) => println!("the input that failed ({error}): {:02x?}", self.input),
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        let passed = !std::thread::panicking();
        if !passed && !self.input.is_empty() {
            self.keep();
        }
        self.say(Some(passed));
    }
}
