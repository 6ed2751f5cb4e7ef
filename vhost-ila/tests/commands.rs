//! The built binary, from the outside: what it prints and how it ends.

mod commands {
    pub(crate) mod addr;
    pub(crate) mod bulk;
    pub(crate) mod check;
    pub(crate) mod id;
    pub(crate) mod mapping;
    pub(crate) mod qemu_args;
    pub(crate) mod replay;
    pub(crate) mod run;
}

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary with `arguments`, run to its end.
fn vhost_ila(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vhost-ila")).args(arguments).output().expect("the binary runs")
}

/// Standard output of a run that succeeds.
#[track_caller]
fn answer(arguments: &[&str]) -> String {
    let output = vhost_ila(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} failed: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Standard error of a run that fails with status 1, having printed no answer.
#[track_caller]
fn refusal(arguments: &[&str]) -> String {
    refusal_with(1, arguments)
}

#[track_caller]
fn refusal_with(status: i32, arguments: &[&str]) -> String {
    let output = vhost_ila(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty(), "a refusal answers nothing");
    errors
}

/// A file or directory of the repository's examples.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}
