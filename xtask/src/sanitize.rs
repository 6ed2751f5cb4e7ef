//! `cargo xtask sanitize`: the device's tests and the `rings` and `messages` fuzz targets under AddressSanitizer, on stable Rust.
//!
//! The sanitizer's runtime comes with the toolchain; that its flag is said to be unstable is why `RUSTC_BOOTSTRAP` is set, for these
//! builds only. What it sees and does not is in docs/hostile.md.

use anyhow::{Result, ensure};

use crate::{build, fuzz};

const SANITIZER: &str = "-Zsanitizer=address";
/// Guest memory is mapped and unmapped behind the allocator's back, and libFuzzer's state lives as long as the process.
const OPTIONS: &str = "detect_leaks=0:detect_stack_use_after_return=1";

/// The targets that run `device/`.
const TARGETS: [&str; 2] = ["rings", "messages"];

/// Runs the tests of `vhost-ila/src/device/`, then each target for `seconds` from `seed`.
///
/// # Errors
///
/// Fails when something does not build, a test fails, or the sanitizer finds something.
pub(crate) fn run(seconds: u32, seed: u32) -> Result<()> {
    let status = build::cargo()
        .args(["test", "--quiet", "--target", fuzz::PLATFORM, "--package", "vhost-ila", "--lib", "device::"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", SANITIZER)
        .env("ASAN_OPTIONS", OPTIONS)
        .status()?;
    ensure!(status.success(), "the device's tests fail under the sanitizer");
    println!("ok      sanitize: the device's tests");
    let targets = TARGETS.map(str::to_owned);
    let instrumented = fuzz::Instrumented { name: "fuzz-asan", flags: SANITIZER, options: OPTIONS };
    let findings = fuzz::run_instrumented(&targets, fuzz::Length::Seconds(seconds), seed, instrumented)?;
    ensure!(findings.iter().all(|ran| ran.survived), "the sanitizer found something");
    Ok(())
}
