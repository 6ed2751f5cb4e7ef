//! The walk alone: nanoseconds per packet from classification to the new head, nothing delivered.
//!
//! `cargo bench -p nve-core --bench walk`. One packet again and again, so caches are warm: this is the work, not the waiting.

mod cases;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

fn walks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("walk");
    for mut case in cases::all() {
        group.bench_function(case.name.clone(), |bencher| bencher.iter(|| black_box(&mut case).walk()));
        if case.retrace() {
            let name = format!("{}, again", case.name);
            group.bench_function(name, |bencher| bencher.iter(|| black_box(&mut case).retrace()));
        }
    }
}

criterion_group!(benches, walks);
criterion_main!(benches);
