//! Runs of the harness: bytes of proptest's, and scripts from a seed, as many as a check asks for.

use std::env;
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;

use super::{control, descriptor_reads, generated, input, packed, receive, transmit};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_transmit_ring_does_what_the_reference_does(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        transmit(&bytes);
    }

    #[test]
    fn a_receive_ring_does_what_the_reference_does(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        receive(&bytes);
    }

    #[test]
    fn a_control_queue_does_what_the_reference_does(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        control(&bytes);
    }

    #[test]
    fn a_packed_ring_does_what_the_text_says(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        packed(&bytes);
    }
}

/// Longer lives than proptest's.
#[test]
fn packed_rings_of_any_script_do_what_the_text_says() {
    let before = descriptor_reads();
    for number in 0.. {
        packed(&input(1, number)[1..]);
        if descriptor_reads() - before > FEW / 100 {
            break;
        }
    }
}

/// Descriptors that are read where nobody asks for more.
const FEW: u64 = 300_000;

/// Check 10 of docs/hostile.md; `cargo xtask test --long` asks for as many as it is held to.
#[test]
fn rings_of_any_script_do_what_the_reference_does() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let (seed, wanted) = (number("VHOST_ILA_SEED").unwrap_or(1), number("VHOST_ILA_READS").unwrap_or(FEW));
    let mut run = Run { seed, script: 0, before: descriptor_reads(), start: Instant::now() };
    run.say("null");
    generated(seed, wanted, |script| run.script = script);
    run.say("true");
}

/// A run of scripts; one that panics leaves the script it was at where `cargo xtask fuzz rings` finds it.
struct Run {
    seed: u64,
    script: u64,
    before: u64,
    start: Instant,
}

impl Run {
    /// A line for the scoreboard (`tests/src/scoreboard.rs`).
    fn say(&self, passed: &str) {
        let (seed, count) = (self.seed, descriptor_reads() - self.before);
        let seconds = self.start.elapsed().as_secs_f32();
        println!(
            "\nSCOREBOARD {{\"check\":10,\"seed\":{seed},\"count\":{count},\"unit\":\"descriptor reads\",\
             \"seconds\":{seconds:.1},\"passed\":{passed}}}"
        );
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.say("false");
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/artifacts/rings");
        let file = directory.join(format!("seed-{}-script-{}", self.seed, self.script));
        let kept = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(&file, input(self.seed, self.script)));
        println!("script {}: {kept:?}, {}", self.script, file.display());
    }
}
