//! A whole encoder, its loss and GradCache: against central differences of the f64 reference, and against themselves
//! with the work cut in other ways.

use crate::ops::support::{
    Batch, Random, assert_alike, assert_close, assert_close_on_scale, pack, poisoned, read, receive, rounded, tensor,
};
use crate::ops::threads::assert_same_on_any_number_of_threads;
use crate::reference::difference::assert_along_directions;
use crate::reference::encoder::{LayerMasks, Masks, Model, embed};
use crate::reference::info_nce::batch as reference_loss;
use crate::reference::pooling::l2_normalize;
use crate::tolerance;
use hbt::backend::{Backend, Cpu, Dropout, Element, Pooling, Tensor};
use hbt::loss::InfoNce;
use hbt::model::{
    Activations, Arch, DenseSpec, Encoder, EncoderParams, Gradients, Init, Keep, ModelConfig, ParamSpec, Sequences,
    StepDropout, specs,
};
use hbt::train::GradCache;
use std::ops::Range;

const TEMPERATURE: f32 = 0.1;

/// Every architecture with every pooling, with and without a dense layer, and numbers of layers.
const MODELS: [(Arch, Pooling, bool, usize); 4] = [
    (Arch::Bert, Pooling::Mean, false, 2),
    (Arch::XlmRoberta, Pooling::Cls, true, 2),
    (Arch::XlmRoberta, Pooling::Mean, true, 3),
    (Arch::Bert, Pooling::Cls, false, 1),
];

/// A tiny model with everything that a large one has.
struct Tiny {
    model: Model,
    specs: EncoderParams<ParamSpec>,
    dropout: Option<StepDropout>,
    symmetric: bool,
}

impl Tiny {
    fn new<B: Backend>(arch: Arch, pooling: Pooling, dense: bool, n_layers: usize) -> Self {
        let config = ModelConfig {
            arch,
            vocab_size: 30,
            hidden_size: 24,
            num_hidden_layers: n_layers,
            num_attention_heads: 3,
            intermediate_size: 40,
            max_position_embeddings: 60,
            type_vocab_size: 2,
            layer_norm_eps: 1e-5,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.2,
            pad_token_id: 1,
            initializer_range: 0.02,
        };
        let dense = dense.then_some(DenseSpec { in_features: 24, out_features: 17 });
        let specs = specs(&config, dense.as_ref());
        let mut random = Random::new(91);
        let params = specs
            .try_map(|spec| {
                // Far from a trained or a fresh model's symmetries: every weight and bias matters.
                let (mean, std) = match spec.init {
                    Init::Normal { .. } => (0.0, 0.25),
                    Init::Ones => (1.0, 0.2),
                    Init::Zeros => (0.0, 0.2),
                };
                Ok((0..spec.len()).map(|_| rounded::<B::E>(mean + std * random.normal())).collect())
            })
            .unwrap();
        Tiny { model: Model { config, pooling, params }, specs, dropout: None, symmetric: false }
    }

    fn with_dropout(mut self) -> Self {
        let (hidden, attention) =
            (self.model.config.hidden_dropout_prob, self.model.config.attention_probs_dropout_prob);
        self.dropout = Some(StepDropout { seed: 5, step: 3, hidden, attention });
        self
    }

    fn symmetric(mut self) -> Self {
        self.symmetric = true;
        self
    }

    fn encoder<B: Backend>(&self, backend: &B) -> Encoder<B> {
        let mut values = self.model.params.iter();
        let weights = self.specs.try_map(|spec| Ok(tensor(backend, values.next().unwrap(), &spec.shape))).unwrap();
        Encoder { config: self.model.config.clone(), pooling: self.model.pooling, weights }
    }

    /// The factors of every dropout of the network, by the sites that `Dropout::site` documents.
    fn masks(&self, batch: &Batch) -> Masks {
        let config = &self.model.config;
        let at = |site: u32, p: f32| self.dropout.map(|d| Dropout { p, seed: d.seed, step: d.step, site });
        let hidden = |site: u32| batch.row_mask(at(site, config.hidden_dropout_prob), config.hidden_size);
        let layer = |i: u32| LayerMasks {
            attention: batch.attention_mask(at(4 * i, config.attention_probs_dropout_prob), config.num_attention_heads),
            attention_output: hidden(4 * i + 1),
            output: hidden(4 * i + 2),
        };
        Masks {
            embedding: hidden(Dropout::EMBEDDING_SITE),
            layers: (0..config.num_hidden_layers as u32).map(layer).collect(),
        }
    }

    /// Loss and gradients of a step whose work is cut into chunks of `chunk_tokens` tokens.
    fn step<B: Backend>(&self, backend: &B, batch: &TestBatch, chunk_tokens: usize) -> Step {
        let encoder = self.encoder(backend);
        let mut cache = GradCache::new(backend, &encoder).unwrap();
        let mut loss = InfoNce::new(backend, encoder.embedding_size(), TEMPERATURE, self.symmetric).unwrap();
        let mut grads = Gradients::new(backend, &encoder.weights).unwrap();
        self.step_with(backend, (batch, chunk_tokens), &encoder, &mut cache, &mut loss, &mut grads)
    }

    fn step_with<B: Backend>(
        &self,
        backend: &B,
        (batch, chunk_tokens): (&TestBatch, usize),
        encoder: &Encoder<B>,
        cache: &mut GradCache<B>,
        loss: &mut InfoNce<B>,
        grads: &mut Gradients<B>,
    ) -> Step {
        let packed = pack(backend, &encoder.config, batch.sequences(), chunk_tokens);
        let n_queries = batch.n_queries;
        grads.reset(backend, packed.unique_ids().len()).unwrap();
        let mut results = backend.readback(loss.n_results(n_queries)).unwrap();
        let (dropout, to) = (self.dropout, &mut results);
        cache.forward_backward(backend, encoder, &packed, n_queries, dropout, loss, grads, to).unwrap();
        let report = loss.report(n_queries, &receive(backend, &mut results));
        let mut gradients: Vec<Vec<f64>> = grads.params.iter().map(|g| read(backend, g)).collect();
        // The word table's gradient has the rows of the batch only.
        let h = self.model.config.hidden_size;
        let mut word = vec![0.0; self.specs.word_embeddings.len()];
        for (row, id) in gradients[0].chunks(h).zip(packed.unique_ids().to_vec(backend).unwrap()) {
            word[id as usize * h..][..h].copy_from_slice(row);
        }
        gradients[0] = word;
        Step { loss: report.loss, embeddings: read(backend, cache.embeddings()), gradients }
    }

    /// Steps that differ in how sums are grouped. In f32 that is all; in bf16 a sum's last bit may decide which way a
    /// result is rounded, and all that follows differs as if it had been computed anew.
    fn assert_same_step<E: Element>(&self, what: &str, got: &Step, expected: &Step) {
        if !E::IS_F32 {
            return self.assert_alike(what, got, expected);
        }
        assert_close(&format!("{what}, loss"), &[got.loss], &[expected.loss], tolerance::LOSS);
        assert_close(&format!("{what}, embeddings"), &got.embeddings, &expected.embeddings, tolerance::REGROUPED);
        for ((spec, got), expected) in self.specs.iter().zip(&got.gradients).zip(&expected.gradients) {
            assert_close(&format!("{what}, {}", spec.name), got, expected, tolerance::REGROUPED);
        }
    }

    /// Steps of which at least one is computed in bf16.
    fn assert_alike(&self, what: &str, got: &Step, expected: &Step) {
        let scale = 1.0 / f64::from(TEMPERATURE);
        assert_close_on_scale(&format!("{what}, loss"), &[got.loss], &[expected.loss], tolerance::BF16_COSINE, scale);
        assert_alike(&format!("{what}, embeddings"), &got.embeddings, &expected.embeddings, tolerance::BF16_EMBEDDINGS);
        for ((spec, got), expected) in self.specs.iter().zip(&got.gradients).zip(&expected.gradients) {
            assert_alike(&format!("{what}, {}", spec.name), got, expected, tolerance::BF16_GRADIENT);
        }
    }
}

/// What a step computes.
#[derive(PartialEq)]
struct Step {
    loss: f64,
    embeddings: Vec<f64>,
    /// In the order of the parameters, each as large as its parameter.
    gradients: Vec<Vec<f64>>,
}

/// Queries, their positives, and what follows: hard negatives.
struct TestBatch {
    host: Batch,
    n_queries: usize,
}

impl TestBatch {
    fn new(lens: &[usize], n_queries: usize) -> Self {
        let mut host = Batch::new(lens, &mut Random::new(92));
        host.global_rows = (0..host.ids.len() as i32).collect();
        TestBatch { host, n_queries }
    }

    fn with_negatives() -> Self {
        Self::new(&[3, 5, 1, 4, 7, 2, 6, 5, 4, 9, 1], 4)
    }

    fn without_negatives() -> Self {
        Self::new(&[2, 6, 3, 5, 1, 8], 3)
    }

    fn sequences(&self) -> Sequences<'_> {
        Sequences { ids: &self.host.ids, cu_seqlens: &self.host.cu_seqlens }
    }
}

/// Loss, embeddings and every parameter's gradient against the reference.
fn check_step<B: Backend>(backend: &B, tiny: &Tiny, batch: &TestBatch) {
    let step = tiny.step(backend, batch, usize::MAX);
    let (ids, cu_seqlens) = (&batch.host.ids, &batch.host.cu_seqlens);
    let masks = tiny.masks(&batch.host);
    let embeddings = embed(&tiny.model, ids, cu_seqlens, &masks);
    let d = embeddings.len() / batch.host.n_seqs();
    let temperature = f64::from(TEMPERATURE);
    let loss_of = |embeddings: &[f64]| reference_loss(embeddings, d, batch.n_queries, temperature, tiny.symmetric);
    assert_close("embeddings", &step.embeddings, &embeddings, tolerance::EMBEDDINGS);
    assert_close("loss", &[step.loss], &[loss_of(&embeddings)], tolerance::LOSS);
    for (index, (spec, got)) in tiny.specs.iter().zip(&step.gradients).enumerate() {
        let loss_with = |values: &[f64]| {
            let mut model = tiny.model.clone();
            model.params.iter_mut().nth(index).unwrap().copy_from_slice(values);
            vec![loss_of(&embed(&model, ids, cu_seqlens, &masks))]
        };
        let x = tiny.model.params.iter().nth(index).unwrap();
        assert_along_directions::<f32>(&spec.name, loss_with, x, &[1.0], got, tolerance::ENCODER_GRADIENT);
    }
}

fn bert_with_mean_pooling<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>(Arch::Bert, Pooling::Mean, false, 2);
    check_step(backend, &tiny, &TestBatch::without_negatives());
    check_step(backend, &tiny.with_dropout(), &TestBatch::with_negatives());
}

fn bert_with_cls_pooling_and_a_dense_layer<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>(Arch::Bert, Pooling::Cls, true, 2);
    check_step(backend, &tiny, &TestBatch::with_negatives());
    check_step(backend, &tiny.with_dropout().symmetric(), &TestBatch::without_negatives());
}

fn xlm_roberta_with_mean_pooling_and_a_dense_layer<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>(Arch::XlmRoberta, Pooling::Mean, true, 1);
    check_step(backend, &tiny.with_dropout().symmetric(), &TestBatch::with_negatives());
}

fn xlm_roberta_with_cls_pooling<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>(Arch::XlmRoberta, Pooling::Cls, false, 3).symmetric();
    check_step(backend, &tiny, &TestBatch::with_negatives());
    check_step(backend, &tiny.with_dropout(), &TestBatch::without_negatives());
}

/// Each gradient points where the one in f32 does, which the other checks prove, and is as long.
fn gradients_are_those_of_f32<B: Backend>(backend: &B) {
    for (arch, pooling, dense, n_layers) in MODELS {
        for symmetric in [false, true] {
            for batch in [TestBatch::with_negatives(), TestBatch::without_negatives()] {
                let plain = Tiny { symmetric, ..Tiny::new::<B>(arch, pooling, dense, n_layers) };
                let dropped = Tiny { symmetric, ..Tiny::new::<B>(arch, pooling, dense, n_layers).with_dropout() };
                for tiny in [plain, dropped] {
                    let expected = tiny.step(&Cpu::<f32>::new(), &batch, usize::MAX);
                    let what = format!("{arch:?}, {n_layers} layers, dropout {}", tiny.dropout.is_some());
                    tiny.assert_alike(&what, &tiny.step(backend, &batch, 20), &expected);
                }
            }
        }
    }
}

/// GradCache: the chunk size is a matter of memory, not of the result.
fn chunked_steps_equal_unchunked_ones<B: Backend>(backend: &B) {
    for (arch, pooling, dense, n_layers) in MODELS {
        for symmetric in [false, true] {
            for batch in [TestBatch::with_negatives(), TestBatch::without_negatives()] {
                let tiny = Tiny { symmetric, ..Tiny::new::<B>(arch, pooling, dense, n_layers).with_dropout() };
                let whole = tiny.step(backend, &batch, usize::MAX);
                for chunk_tokens in [1, 8, 13, 30] {
                    let what = format!("{arch:?}, {n_layers} layers, chunks of {chunk_tokens} tokens");
                    tiny.assert_same_step::<B::E>(&what, &tiny.step(backend, &batch, chunk_tokens), &whole);
                }
            }
        }
    }
}

/// The tests with dropout would say little if it did nothing.
fn dropout_changes_the_step<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>(Arch::Bert, Pooling::Mean, false, 2);
    let batch = TestBatch::with_negatives();
    let plain = tiny.step(backend, &batch, usize::MAX).loss;
    let dropped = tiny.with_dropout().step(backend, &batch, usize::MAX).loss;
    assert!((plain - dropped).abs() > 1e-3, "{plain} and {dropped}");
}

/// Buffers that are kept from step to step carry nothing over, whatever the size of the batch between.
fn a_step_leaves_nothing_behind<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>(Arch::XlmRoberta, Pooling::Mean, true, 2).with_dropout().symmetric();
    let encoder = tiny.encoder(backend);
    let mut cache = GradCache::new(backend, &encoder).unwrap();
    let mut loss = InfoNce::new(backend, encoder.embedding_size(), TEMPERATURE, true).unwrap();
    let mut grads = Gradients::new(backend, &encoder.weights).unwrap();
    let mut step =
        |batch: &TestBatch| tiny.step_with(backend, (batch, 16), &encoder, &mut cache, &mut loss, &mut grads);
    let (small, large) = (TestBatch::without_negatives(), TestBatch::with_negatives());
    let first = step(&small);
    step(&large);
    assert!(step(&small) == first, "a larger batch in between changes the result");
    assert!(tiny.step(backend, &small, 16) == first, "new buffers change the result");
}

/// Packing neither mixes sequences nor moves their dropout.
fn a_batch_of_three_equals_three_singles<B: Backend>(backend: &B) {
    for pooling in [Pooling::Cls, Pooling::Mean] {
        let tiny = Tiny::new::<B>(Arch::XlmRoberta, pooling, true, 2).with_dropout();
        let encoder = tiny.encoder(backend);
        let batch = TestBatch::new(&[7, 1, 40], 1);
        let mut acts = Activations::new(backend, &encoder).unwrap();
        for dropout in [None, tiny.dropout] {
            let mut embeddings = |range: Range<usize>| {
                let cu_seqlens = &batch.host.cu_seqlens[range.start..=range.end];
                let packed = pack(backend, &encoder.config, Sequences { cu_seqlens, ..batch.sequences() }, 1000);
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

/// Mean cosine of the queries with their positives, and with all other passages.
fn mean_cosines(unit: &[f64], d: usize, n_queries: usize) -> [f64; 2] {
    let (queries, passages) = unit.split_at(n_queries * d);
    let (mut positive, mut all) = (0.0, 0.0);
    for (i, query) in queries.chunks(d).enumerate() {
        for (j, passage) in passages.chunks(d).enumerate() {
            let cosine = query.iter().zip(passage).map(|(a, b)| a * b).sum::<f64>();
            all += cosine;
            positive += if i == j { cosine } else { 0.0 };
        }
    }
    let n_others = n_queries * (passages.len() / d - 1);
    [positive / n_queries as f64, (all - positive) / n_others.max(1) as f64]
}

/// The loss alone, whole and cut into row chunks, with its gradient, against the reference.
fn row_chunks_of_the_loss_equal_the_whole<B: Backend>(backend: &B) {
    let d = 9;
    for (n_queries, n_seqs, symmetric) in [(1, 2, true), (5, 10, false), (5, 10, true), (7, 30, false), (7, 30, true)] {
        let raw = Random::new(93).normals(n_seqs * d);
        let unit: Vec<f64> = l2_normalize(&raw, d).into_iter().map(rounded::<B::E>).collect();
        let expected = |x: &[f64]| vec![reference_loss(x, d, n_queries, f64::from(TEMPERATURE), symmetric)];
        for rows in [1, 2, 3, 1024] {
            let mut loss = InfoNce::new(backend, d, TEMPERATURE, symmetric).unwrap().with_rows_per_chunk(rows);
            let mut gradient: Tensor<B, f32> = poisoned(backend, &[n_seqs, d]);
            let embeddings = tensor(backend, &unit, &[n_seqs, d]);
            let mut results = backend.readback(loss.n_results(n_queries)).unwrap();
            loss.forward_backward(backend, &embeddings, n_queries, &mut gradient, &mut results).unwrap();
            let report = loss.report(n_queries, &receive(backend, &mut results));
            let what = format!("{n_queries} queries, {n_seqs} sequences, {rows} rows a chunk");
            assert_close_on_scale(&what, &[report.loss], &expected(&unit), tolerance::LOSS, 1.0);
            let cosines = [report.positive_cosine, report.negative_cosine];
            assert_close_on_scale(&what, &cosines, &mean_cosines(&unit, d, n_queries), tolerance::LOSS, 1.0);
            let got = read(backend, &gradient);
            let bound = if B::E::IS_F32 { tolerance::ENCODER_GRADIENT } else { tolerance::BF16_SCORES };
            assert_along_directions::<f32>(&what, expected, &unit, &[1.0], &got, bound);
        }
    }
}

fn a_step_is_the_same_on_any_number_of_threads<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>(Arch::XlmRoberta, Pooling::Mean, true, 2).with_dropout().symmetric();
    let batch = TestBatch::new(&[30, 5, 17, 50, 44, 1, 33, 21, 2, 55], 4);
    for chunk_tokens in [100, usize::MAX] {
        assert_same_on_any_number_of_threads("a step", || tiny.step(backend, &batch, chunk_tokens));
    }
}

/// Runs every check on backends, each as a test of its own.
macro_rules! check_backend {
    ($module:ident: $backends:expr; $($check:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $check() {
                    for backend in $backends {
                        super::$check(&backend);
                    }
                }
            )+
        }
    };
    ($module:ident of f32: $backends:expr) => {
        check_backend! {
            $module: $backends;
            bert_with_mean_pooling
            bert_with_cls_pooling_and_a_dense_layer
            xlm_roberta_with_mean_pooling_and_a_dense_layer
            xlm_roberta_with_cls_pooling
            chunked_steps_equal_unchunked_ones
            dropout_changes_the_step
            a_step_leaves_nothing_behind
            a_batch_of_three_equals_three_singles
            row_chunks_of_the_loss_equal_the_whole
        }
    };
    ($module:ident of bf16: $backends:expr) => {
        check_backend! {
            $module: $backends;
            gradients_are_those_of_f32
            chunked_steps_equal_unchunked_ones
            dropout_changes_the_step
            a_step_leaves_nothing_behind
            a_batch_of_three_equals_three_singles
            row_chunks_of_the_loss_equal_the_whole
        }
    };
}

check_backend!(cpu_f32 of f32: [hbt::backend::Cpu::<f32>::new()]);
check_backend!(cpu_bf16 of bf16: [hbt::backend::Cpu::<half::bf16>::new()]);
check_backend!(cpu_f32_threads: [hbt::backend::Cpu::<f32>::new()]; a_step_is_the_same_on_any_number_of_threads);
check_backend!(cpu_bf16_threads: [hbt::backend::Cpu::<half::bf16>::new()]; a_step_is_the_same_on_any_number_of_threads);
// One order of the stand-in is enough: every operation has been through several.
check_backend!(cuda_f32 of f32: crate::device::cuda::<f32>().take(1));
check_backend!(cuda_bf16 of bf16: crate::device::cuda::<half::bf16>().take(1));
