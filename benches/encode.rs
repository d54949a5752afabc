//! `cargo bench --bench encode [-- FILTER]`: embeddings of token sequences, tokenization not included.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use hbt::bench::Op;

fn encode(c: &mut Criterion) {
    support::run(c, std::iter::once(Op::Encode));
}

criterion_group!(benches, encode);
criterion_main!(benches);
