//! A whole encoder, its loss and GradCache: against central differences of the f64 reference, and against themselves
//! with the work cut in other ways.

mod chunks;
#[cfg(unix)]
mod cuda_ranks;
mod mutants;
mod ranks;
mod reference;

use crate::ops::support::{
    Batch, Random, assert_alike, assert_close, assert_close_on_scale, pack_pairs, read, receive, rounded, tensor,
};
use crate::reference::encoder::{LayerMasks, Masks, Model};
use crate::reference::info_nce::{bits, distinct_labels};
use crate::tolerance;
use hbt::backend::{Backend, Distillation, Dropout, Element, HostPairing, PackedBatch, Pooling};
use hbt::loss::{DistillationConfig, InfoNce, LossConfig};
use hbt::model::{
    DenseSpec, Encoder, EncoderParams, Gradients, Init, ModelConfig, Norm, ParamSpec, Sequences, StepDropout, specs,
};
use hbt::train::GradCache;
use serde_json::json;
use std::path::Path;

const TEMPERATURE: f32 = 0.1;

/// Every architecture with every pooling, with and without a dense layer, and numbers of layers.
const MODELS: [(&str, Pooling, bool, usize); 4] = [
    ("bert", Pooling::Mean, false, 2),
    ("xlm-roberta", Pooling::Cls, true, 2),
    ("xlm-roberta", Pooling::Mean, true, 3),
    ("bert", Pooling::Cls, false, 1),
];

/// A tiny model with everything that a large one has.
struct Tiny {
    model: Model,
    specs: EncoderParams<ParamSpec>,
    dropout: Option<StepDropout>,
    loss: LossConfig,
}

impl Tiny {
    fn new<B: Backend>(model_type: &str, pooling: Pooling, dense: bool, n_layers: usize) -> Self {
        let described = json!({
            "model_type": model_type, "vocab_size": 30, "hidden_size": 24, "num_hidden_layers": n_layers,
            "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 60, "layer_norm_eps": 1e-5,
            "attention_probs_dropout_prob": 0.2, "pad_token_id": 1,
        });
        let config = ModelConfig::from_json(Path::new("config.json"), &described.to_string()).unwrap();
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
        Tiny { model: Model { config, pooling, params }, specs, dropout: None, loss: LossConfig::new(TEMPERATURE) }
    }

    fn with_dropout(mut self) -> Self {
        let (hidden, attention) =
            (self.model.config.hidden_dropout_prob, self.model.config.attention_probs_dropout_prob);
        self.dropout = Some(StepDropout { seed: 5, step: 3, hidden, attention });
        self
    }

    /// Layers whose descriptions differ from each other's and from the embeddings'.
    fn with_norms_of_their_own(mut self) -> Self {
        for (layer, eps) in self.model.config.layers.iter_mut().zip([0.03, 0.1, 0.3]) {
            layer.norm = Norm::LayerNorm { eps };
        }
        self
    }

    fn symmetric(self) -> Self {
        let loss = LossConfig { symmetric: true, ..self.loss };
        Tiny { loss, ..self }
    }

    /// Trains the first dimensions by themselves, too.
    fn matryoshka(self) -> Self {
        let all = self.model.params.dense.as_ref().map_or(self.model.config.hidden_size, |dense| dense.bias.len());
        let loss = LossConfig { dimensions: vec![(all, 1.0), (8, 0.5)], ..self.loss };
        Tiny { loss, ..self }
    }

    /// Learns from the scores of [`TestBatch::TEACHER`], too.
    fn taught(self, kind: Distillation) -> Self {
        let distillation =
            Some(DistillationConfig { kind, weight: 0.7, temperature: Some(0.2), teacher_temperature: 1.5 });
        Tiny { loss: LossConfig { weight: 0.6, distillation, ..self.loss }, ..self }
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
            layers: (0..config.layers.len() as u32).map(layer).collect(),
        }
    }

    /// Loss and gradients of a step whose work is cut into chunks of `chunk_tokens` tokens, the last of which are kept.
    fn step<B: Backend>(&self, backend: &B, batch: &TestBatch, chunk_tokens: usize, kept_chunks: usize) -> Step {
        let encoder = self.encoder(backend);
        let mut cache = GradCache::new(backend, &encoder, kept_chunks).unwrap();
        let mut loss = InfoNce::new(backend, encoder.embedding_size(), self.loss.clone()).unwrap();
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
        let n_queries = batch.n_queries;
        let packed = pack_pairs(backend, &encoder.config, batch.sequences(), chunk_tokens, &batch.pairing());
        self.step_on(backend, (&packed, n_queries), encoder, cache, loss, grads)
    }

    fn step_on<B: Backend>(
        &self,
        backend: &B,
        (packed, n_queries): (&PackedBatch<B>, usize),
        encoder: &Encoder<B>,
        cache: &mut GradCache<B>,
        loss: &mut InfoNce<B>,
        grads: &mut Gradients<B>,
    ) -> Step {
        grads.reset(backend, packed.unique_ids().len()).unwrap();
        let mut results = backend.readback(loss.n_results(n_queries)).unwrap();
        let (dropout, to) = (self.dropout, &mut results);
        cache.forward_backward(backend, encoder, packed, dropout, loss, grads, to).unwrap();
        let report = loss.report(n_queries, packed.pairing().places.len(), &receive(backend, &mut results));
        let mut gradients: Vec<Vec<f64>> = grads.params.iter().map(|g| read(backend, g)).collect();
        // The word table's gradient has the rows of the batch only.
        let h = self.model.config.hidden_size;
        let mut word = vec![0.0; self.specs.embeddings.word.len()];
        let table = self.specs.sparse();
        for (row, id) in gradients[table].chunks(h).zip(packed.unique_ids().to_vec(backend).unwrap()) {
            word[id as usize * h..][..h].copy_from_slice(row);
        }
        gradients[table] = word;
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

/// Results of a step.
#[derive(Clone, PartialEq)]
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
    places: Vec<i32>,
    labels: Vec<i32>,
    rejected: Vec<i32>,
    /// Pairs of a query and a passage, and the same as bits.
    pairs: Vec<(usize, usize)>,
    left_out: Vec<i32>,
}

impl TestBatch {
    fn new(lens: &[usize], n_queries: usize) -> Self {
        let mut host = Batch::new(lens, &mut Random::new(92));
        host.global_rows = (0..host.ids.len() as i32).collect();
        let (places, labels) = ((0..lens.len() as i32).collect(), distinct_labels(n_queries, lens.len()));
        let (pairs, left_out) = Default::default();
        TestBatch { host, n_queries, places, labels, rejected: vec![0; 2 * n_queries], pairs, left_out }
    }

    /// A teacher's scores of the passages.
    const TEACHER: [f32; 7] = [2.0, -0.5, 1.25, 3.0, 2.5, -1.0, 0.75];

    /// Three for four queries.
    fn with_negatives() -> Self {
        Self::new(&[3, 5, 1, 4, 7, 2, 6, 5, 4, 9, 1], 4)
    }

    fn without_negatives() -> Self {
        Self::new(&[2, 6, 3, 5, 1, 8], 3)
    }

    /// The second and third row say the same, a negative says what the first does, another is rejected for the fourth; the
    /// first and the fourth row are apart, as are the third and a negative that others have; tokens come in another order than
    /// sequences are numbered in.
    fn planted() -> Self {
        let mut batch = Self::with_negatives();
        batch.places = (0..11).map(|seq| 4 * seq % 11).collect();
        (batch.labels[2], batch.labels[6], batch.labels[8]) = (1, 1, 0);
        batch.rejected = vec![0, 0, 0, 0, 0, 0, 5, 6];
        batch.pairs = vec![(0, 3), (3, 0), (2, 6)];
        batch.left_out = bits(&batch.pairs, 4, 7);
        batch
    }

    fn sequences(&self) -> Sequences<'_> {
        Sequences::new(&self.host.ids, &self.host.cu_seqlens)
    }

    fn pairing(&self) -> HostPairing<'_> {
        let TestBatch { n_queries, places, labels, rejected, left_out, .. } = self;
        // The negatives of the first queries; without any, each query is alone with its positive.
        let (n_passages, own_negatives) = match labels.len() - 2 * n_queries {
            3 => (7, &[4, 6, 6, 7, 7, 7, 7, 7][..]),
            _ => (labels.len() - n_queries, &[0; 8][..2 * n_queries]),
        };
        let teacher_scores = &Self::TEACHER[..n_passages];
        HostPairing { n_queries: *n_queries, places, labels, rejected, left_out, own_negatives, teacher_scores }
    }
}

/// Runs every check on backends, each as a test of its own.
macro_rules! check_backend {
    ($module:ident: $backends:expr; $($family:ident::$check:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $check() {
                    for backend in $backends {
                        super::$family::$check(&backend);
                    }
                }
            )+
        }
    };
    ($module:ident of f32: $backends:expr) => {
        check_backend! {
            $module: $backends;
            reference::bert_with_mean_pooling
            reference::bert_with_cls_pooling_and_a_dense_layer
            reference::xlm_roberta_with_mean_pooling_and_a_dense_layer
            reference::xlm_roberta_with_cls_pooling
            reference::a_step_with_a_teacher
            chunks::chunked_steps_equal_unchunked_ones
            chunks::chunked_steps_with_a_teacher_equal_unchunked_ones
            chunks::dropout_changes_the_step
            chunks::planted_false_negatives_change_the_step
            chunks::a_step_leaves_nothing_behind
            chunks::a_batch_of_three_equals_three_singles
            ranks::a_step_of_several_ranks_equals_that_of_one
            ranks::a_rank_may_have_nothing
        }
    };
    ($module:ident of bf16: $backends:expr) => {
        check_backend! {
            $module: $backends;
            chunks::gradients_are_those_of_f32
            chunks::chunked_steps_equal_unchunked_ones
            chunks::chunked_steps_with_a_teacher_equal_unchunked_ones
            chunks::dropout_changes_the_step
            chunks::planted_false_negatives_change_the_step
            chunks::a_step_leaves_nothing_behind
            chunks::a_batch_of_three_equals_three_singles
            ranks::a_step_of_several_ranks_equals_that_of_one
            ranks::a_rank_may_have_nothing
        }
    };
}

check_backend!(cpu_f32 of f32: [hbt::backend::Cpu::<f32>::new()]);
check_backend!(cpu_bf16 of bf16: [hbt::backend::Cpu::<half::bf16>::new()]);
check_backend!(cpu_f32_faults: [hbt::backend::Cpu::<f32>::new()]; mutants::faults_of_ranks_are_found);
check_backend!(cpu_f32_threads: [hbt::backend::Cpu::<f32>::new()]; chunks::a_step_is_the_same_on_any_number_of_threads);
check_backend!(cpu_bf16_threads: [hbt::backend::Cpu::<half::bf16>::new()];
    chunks::a_step_is_the_same_on_any_number_of_threads);
// One order of the stand-in is enough: every operation has been through several.
check_backend!(cuda_f32 of f32: crate::device::cuda::<f32>().take(1));
check_backend!(cuda_bf16 of bf16: crate::device::cuda::<half::bf16>().take(1));
