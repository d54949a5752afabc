//! A whole step against itself, with the work cut in other ways.

use super::{MODELS, TestBatch, Tiny};
use crate::ops::support::{assert_alike, assert_close, pack, read};
use crate::ops::threads::assert_same_on_any_number_of_threads;
use crate::reference::info_nce::distinct_labels;
use crate::tolerance;
use hbt::backend::{Backend, Cpu, Distillation, Element, Pooling};
use hbt::loss::InfoNce;
use hbt::model::{Activations, Gradients, Keep, Sequences};
use hbt::train::GradCache;
use std::ops::Range;

/// Each gradient points where the one in f32 does, which the other checks prove, and is as long.
pub fn gradients_are_those_of_f32<B: Backend>(backend: &B) {
    for (arch, pooling, dense, n_layers) in MODELS {
        for symmetric in [false, true] {
            for batch in [TestBatch::with_negatives(), TestBatch::without_negatives()] {
                let plain = || {
                    let tiny = Tiny::new::<B>(arch, pooling, dense, n_layers);
                    if symmetric { tiny.symmetric() } else { tiny }
                };
                for tiny in [plain(), plain().with_dropout()] {
                    let expected = tiny.step(&Cpu::<f32>::new(), &batch, usize::MAX, 1);
                    let what = format!(
                        "{arch:?}, {n_layers} layers, symmetric {symmetric}, dropout {}",
                        tiny.dropout.is_some()
                    );
                    tiny.assert_alike(&what, &tiny.step(backend, &batch, 20, 2), &expected);
                }
            }
        }
    }
}

/// GradCache: the chunk size, and how many chunks are kept, are matters of memory and time, not of the result.
pub fn chunked_steps_equal_unchunked_ones<B: Backend>(backend: &B) {
    for (index, (arch, pooling, dense, n_layers)) in MODELS.into_iter().enumerate() {
        for (symmetric, matryoshka) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut tiny = Tiny::new::<B>(arch, pooling, dense, n_layers).with_dropout();
            tiny = if symmetric { tiny.symmetric() } else { tiny };
            tiny = if matryoshka { tiny.matryoshka() } else { tiny };
            let batch = if symmetric == matryoshka { TestBatch::planted() } else { TestBatch::without_negatives() };
            let whole = tiny.step(backend, &batch, usize::MAX, 1);
            // A third of the cuts each, in turn over models and kinds of loss.
            let cuts = [(1, 1), (8, 2), (13, 1), (13, usize::MAX), (30, 1), (9, 3)].into_iter().enumerate();
            let turn = index + usize::from(symmetric) + 2 * usize::from(matryoshka);
            for (_, (chunk_tokens, kept)) in cuts.filter(|(i, _)| i % 3 == turn % 3) {
                let what = format!("{arch:?}, {n_layers} layers, {kept} kept chunks of {chunk_tokens} tokens");
                tiny.assert_same_step::<B::E>(&what, &tiny.step(backend, &batch, chunk_tokens, kept), &whole);
            }
        }
    }
}

/// The same with what is learned from a teacher's scores, which chunks do not divide either.
pub fn chunked_steps_with_a_teacher_equal_unchunked_ones<B: Backend>(backend: &B) {
    for (kind, (arch, pooling, dense, n_layers)) in Distillation::ALL.iter().zip([MODELS[1], MODELS[3]]) {
        let plain = || Tiny::new::<B>(arch, pooling, dense, n_layers).with_dropout();
        for tiny in [plain().taught(*kind), plain().symmetric().matryoshka().taught(*kind)] {
            let batch = TestBatch::planted();
            let whole = tiny.step(backend, &batch, usize::MAX, 1);
            for (chunk_tokens, kept) in [(1, 1), (13, 2), (20, usize::MAX)] {
                let what = format!("{kind}, {kept} kept chunks of {chunk_tokens} tokens");
                tiny.assert_same_step::<B::E>(&what, &tiny.step(backend, &batch, chunk_tokens, kept), &whole);
            }
        }
    }
}

/// Else the tests with planted false negatives would say little.
pub fn planted_false_negatives_change_the_step<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("bert", Pooling::Mean, false, 2);
    let plain = TestBatch {
        labels: distinct_labels(4, 11),
        rejected: vec![0; 8],
        pairs: Vec::new(),
        left_out: Vec::new(),
        ..TestBatch::planted()
    };
    let [planted, plain] = [&TestBatch::planted(), &plain].map(|batch| tiny.step(backend, batch, usize::MAX, 1).loss);
    assert!(planted < plain - 1e-3, "{planted} and {plain}");
}

/// The tests with dropout would say little if it did nothing.
pub fn dropout_changes_the_step<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("bert", Pooling::Mean, false, 2);
    let batch = TestBatch::with_negatives();
    let plain = tiny.step(backend, &batch, usize::MAX, 1).loss;
    let dropped = tiny.with_dropout().step(backend, &batch, usize::MAX, 1).loss;
    assert!((plain - dropped).abs() > 1e-3, "{plain} and {dropped}");
}

/// Buffers that are kept from step to step carry nothing over, whatever the size of the batch between.
pub fn a_step_leaves_nothing_behind<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("xlm-roberta", Pooling::Mean, true, 2).with_dropout().symmetric();
    let encoder = tiny.encoder(backend);
    let mut cache = GradCache::new(backend, &encoder, 1).unwrap();
    let mut loss = InfoNce::new(backend, encoder.embedding_size(), tiny.loss.clone()).unwrap();
    let mut grads = Gradients::new(backend, &encoder.weights).unwrap();
    let mut step =
        |batch: &TestBatch| tiny.step_with(backend, (batch, 16), &encoder, &mut cache, &mut loss, &mut grads);
    let (small, large) = (TestBatch::without_negatives(), TestBatch::with_negatives());
    let first = step(&small);
    step(&large);
    assert!(step(&small) == first, "a larger batch in between changes the result");
    assert!(tiny.step(backend, &small, 16, 1) == first, "new buffers change the result");
}

/// Packing neither mixes sequences nor moves their dropout.
pub fn a_batch_of_three_equals_three_singles<B: Backend>(backend: &B) {
    for pooling in [Pooling::Cls, Pooling::Mean] {
        let tiny = Tiny::new::<B>("xlm-roberta", pooling, true, 2).with_dropout();
        let encoder = tiny.encoder(backend);
        let batch = TestBatch::new(&[7, 1, 40], 1);
        let mut acts = Activations::new(backend, &encoder).unwrap();
        for dropout in [None, tiny.dropout] {
            let mut embeddings = |range: Range<usize>| {
                let cu_seqlens = &batch.host.cu_seqlens[range.start..=range.end];
                let packed = pack(backend, &encoder.config, Sequences::new(batch.sequences().ids, cu_seqlens), 1000);
                encoder.forward(backend, packed.chunk(0), dropout, Keep::Embeddings, &mut acts).unwrap();
                read(backend, acts.embeddings())
            };
            let together = embeddings(0..3);
            let singles = [embeddings(0..1), embeddings(1..2), embeddings(2..3)].concat();
            if B::E::IS_F32 {
                assert_close("three singles", &singles, &together, tolerance::REGROUPED);
            } else {
                assert_alike("three singles", &singles, &together, tolerance::BF16_EMBEDDINGS);
            }
        }
    }
}

pub fn a_step_is_the_same_on_any_number_of_threads<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("xlm-roberta", Pooling::Mean, true, 2).with_dropout().symmetric();
    let batch = TestBatch::new(&[30, 5, 17, 50, 44, 1, 33, 21, 2, 55], 4);
    for chunk_tokens in [100, usize::MAX] {
        assert_same_on_any_number_of_threads("a step", || tiny.step(backend, &batch, chunk_tokens, 1));
    }
}
