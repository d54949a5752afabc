//! `cargo bench --bench kernels [-- FILTER]`: every operation, one criterion group each.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use hbt::bench::Op;

fn kernels(c: &mut Criterion) {
    support::run(c, Op::ALL.iter().copied().filter(|op| !op.is_end_to_end()));
}

criterion_group!(benches, kernels);
criterion_main!(benches);
