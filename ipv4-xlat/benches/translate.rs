//! Nanoseconds per packet of each shape: `cargo bench -p ipv4-xlat --bench translate`.

mod shapes;

use criterion::{Criterion, criterion_group, criterion_main};
use ipv4_xlat::SCRATCH_LEN;

fn translate(criterion: &mut Criterion) {
    let config = shapes::config();
    let mut out = [0; SCRATCH_LEN];
    for shape in shapes::all() {
        assert!(shape.translate(&config, &mut out), "{} translates", shape.name);
        criterion.bench_function(shape.name, |bencher| bencher.iter(|| shape.translate(&config, &mut out)));
    }
}

criterion_group!(benches, translate);
criterion_main!(benches);
