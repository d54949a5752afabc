//! `cargo bench --bench train_step [-- FILTER]`: whole training steps. `benches/peer_train_step.py` does the first one in PyTorch.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use hbt::bench::Op;

fn train_step(c: &mut Criterion) {
    support::run(c, std::iter::once(Op::TrainStep));
}

criterion_group!(benches, train_step);
criterion_main!(benches);
