//! Against PyTorch: embeddings, loss, every gradient, and parameters after ten AdamW steps, from `fixtures/`; on every
//! backend.

use crate::common::fixtures;
use crate::ops::support::{assert_alike, ints, loss_config, pack_pairs, receive};
use crate::reference::info_nce::distinct_labels;
use crate::tolerance;
use hbt::backend::{Backend, Element, HostPairing, Ints, PackedBatch, Pairing, Pooling, TeacherScores, Tensor};
use hbt::loss::{DistillationConfig, InfoNce, LossConfig};
use hbt::model::{DenseSpec, Encoder, EncoderParams, Gradients, ModelConfig, ParamFile, ParamSpec, Sequences, specs};
use hbt::train::{GradCache, Optimizer, OptimizerConfig};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::Path;

type Arrays = HashMap<String, Vec<f32>>;

/// Every tensor of a file as f32, names without a `bert.`-like prefix.
fn read(path: &Path) -> Arrays {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let widen = |view: safetensors::tensor::TensorView| -> Vec<f32> {
        let data = view.data();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            }
            safetensors::Dtype::I32 => {
                data.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            safetensors::Dtype::F16 => {
                data.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            safetensors::Dtype::BF16 => {
                data.chunks_exact(2).map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            _ => Vec::new(),
        }
    };
    file.iter()
        .map(|(name, view)| {
            let name = name.strip_prefix("bert.").or_else(|| name.strip_prefix("roberta.")).unwrap_or(name);
            (name.to_owned(), widen(view))
        })
        .collect()
}

fn integers(arrays: &Arrays, name: &str) -> Vec<i32> {
    arrays[name].iter().map(|&v| v as i32).collect()
}

/// A model of the fixtures and the file of what PyTorch made of it.
struct Fixture<B: Backend> {
    backend: B,
    specs: EncoderParams<ParamSpec>,
    stored: Arrays,
    encoder: Encoder<B>,
    expected: Arrays,
    ids: Vec<i32>,
    cu_seqlens: Vec<i32>,
}

impl<B: Backend> Fixture<B> {
    /// The batch of the fixture, in chunks of at most `chunk_tokens` tokens.
    fn batch(&self, chunk_tokens: usize) -> PackedBatch<B> {
        let sequences = Sequences::new(&self.ids, &self.cu_seqlens);
        let places: Vec<i32> = (0..sequences.n_seqs() as i32).collect();
        let labels = distinct_labels(N_QUERIES, places.len());
        let rejected = &[0; 2 * N_QUERIES];
        let pairing = HostPairing {
            n_queries: N_QUERIES,
            places: &places,
            labels: &labels,
            rejected,
            left_out: &[],
            ..HostPairing::default()
        };
        pack_pairs(&self.backend, &self.encoder.config, sequences, chunk_tokens, &pairing)
    }
}

/// The values of a parameter from arrays under Hugging Face names: query, key and value stacked.
fn stacked(spec: &ParamSpec, arrays: &Arrays, prefix: &str) -> Vec<f32> {
    spec.hf.iter().flat_map(|name| arrays[&format!("{prefix}{name}")].iter().copied()).collect()
}

fn open<B: Backend>(backend: B, name: &str, expected: &str, pooling: Pooling, dense: Option<DenseSpec>) -> Fixture<B> {
    let dir = fixtures().join(name);
    let config_path = dir.join("config.json");
    let config = ModelConfig::from_json(&config_path, &std::fs::read_to_string(&config_path).unwrap()).unwrap();
    let mut stored = Arrays::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            stored.extend(read(&path));
        }
    }
    if dense.is_some() {
        stored.extend(read(&dir.join("2_Dense/model.safetensors")));
    }
    let specs = specs(&config, dense.as_ref());
    let weights = specs
        .try_map(|spec| {
            let values: Vec<B::E> = stacked(spec, &stored, "").into_iter().map(B::E::from_f32).collect();
            Tensor::from_slice(&backend, &values, &spec.shape)
        })
        .unwrap();
    let expected = read(&fixtures().join(expected));
    let (ids, cu_seqlens) = (integers(&expected, "ids"), integers(&expected, "cu_seqlens"));
    Fixture { backend, specs, stored, encoder: Encoder { config, pooling, weights }, expected, ids, cu_seqlens }
}

/// Largest difference, relative to the largest expected value.
fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    assert!(got.iter().all(|v| v.is_finite()));
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(expected).fold(0.0f32, |m, (g, e)| m.max((g - e).abs()));
    f64::from(worst) / f64::from(scale)
}

/// A gradient in full: the word table's rows put where they belong.
fn dense_gradient<B: Backend>(f: &Fixture<B>, batch: &PackedBatch<B>, grads: &Gradients<B>, index: usize) -> Vec<f32> {
    let values = grads.params.iter().nth(index).unwrap().to_vec(&f.backend).unwrap();
    if index > 0 {
        return values;
    }
    let hidden = f.encoder.config.hidden_size;
    let mut full = vec![0.0; f.encoder.config.vocab_size * hidden];
    for (slot, row) in batch.unique_ids().to_vec(&f.backend).unwrap().into_iter().enumerate() {
        full[row as usize * hidden..][..hidden].copy_from_slice(&values[slot * hidden..][..hidden]);
    }
    full
}

const N_QUERIES: usize = 5;
const TEMPERATURE: f32 = 0.05;

fn check_gradients<B: Backend>(f: &Fixture<B>, symmetric: bool, chunk_tokens: usize) {
    let b = &f.backend;
    let mut loss = InfoNce::new(b, f.encoder.embedding_size(), loss_config(TEMPERATURE, symmetric)).unwrap();
    let mut cache = GradCache::new(b, &f.encoder, 1).unwrap();
    let mut grads = Gradients::new(b, &f.encoder.weights).unwrap();
    let batch = f.batch(chunk_tokens);
    grads.reset(b, batch.unique_ids().len()).unwrap();
    let mut results = b.readback(loss.n_results(N_QUERIES)).unwrap();
    cache.forward_backward(b, &f.encoder, &batch, None, &mut loss, &mut grads, &mut results).unwrap();
    let report = loss.report(N_QUERIES, batch.n_seqs(), &receive(b, &mut results));
    let embeddings = cache.embeddings().to_vec(b).unwrap();
    assert!(relative_error(&embeddings, &f.expected["embeddings"]) < tolerance::PYTORCH, "embeddings");
    let (loss_name, prefix) = if symmetric { ("loss_symmetric", "grad_symmetric.") } else { ("loss", "grad.") };
    let expected_loss = f64::from(f.expected[loss_name][0]);
    assert!(
        (report.loss - expected_loss).abs() < tolerance::PYTORCH * expected_loss,
        "{} for {expected_loss}",
        report.loss
    );
    for (index, spec) in f.specs.iter().enumerate() {
        let got = dense_gradient(f, &batch, &grads, index);
        let n = got.len() / spec.hf.len();
        for (part, name) in got.chunks_exact(n).zip(&spec.hf) {
            let expected = &f.expected[&format!("{prefix}{name}")];
            if name.ends_with("key.bias") {
                // Zero in exact arithmetic: a constant added to all of a row's scores changes nothing.
                assert!(part.iter().all(|v| v.abs() < 1e-5), "{name}");
                continue;
            }
            let error = relative_error(part, expected);
            assert!(
                error < tolerance::PYTORCH,
                "{prefix}{name}: {error:.2e} (symmetric {symmetric}, chunks of {chunk_tokens})"
            );
        }
        assert!(spec.file == ParamFile::Encoder || spec.hf[0].starts_with("linear."));
    }
}

/// `tolerance` is about losses and norms. In f32 it is relative, and parameters are compared too. In bf16 it is a share of
/// the first loss and norm, for rounding does not shrink as they do, and parameters are not compared.
fn check_ten_steps<B: Backend>(f: &mut Fixture<B>, tolerance: f64) {
    let b = &f.backend;
    let mut loss = InfoNce::new(b, f.encoder.embedding_size(), loss_config(TEMPERATURE, false)).unwrap();
    let mut cache = GradCache::new(b, &f.encoder, 1).unwrap();
    let mut grads = Gradients::new(b, &f.encoder.weights).unwrap();
    let config = OptimizerConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };
    let master = |spec: &ParamSpec| Tensor::from_slice(b, &stacked(spec, &f.stored, ""), &spec.shape);
    let master = (!B::E::IS_F32).then(|| f.specs.try_map(master).unwrap());
    let mut optimizer = Optimizer::new(b, &f.specs, &f.encoder.weights, master, config).unwrap();
    for step in 0..10 {
        let batch = f.batch(4096);
        optimizer.begin_step(b, &mut f.encoder.weights, &mut grads, batch.unique_ids()).unwrap();
        let mut results = b.readback(loss.n_results(N_QUERIES) + optimizer.n_results()).unwrap();
        let to = &mut results;
        cache.forward_backward(b, &f.encoder, &batch, None, &mut loss, &mut grads, to).unwrap();
        optimizer.step(b, &mut f.encoder.weights, &grads, batch.unique_ids(), 1e-3, to).unwrap();
        let results = receive(b, to);
        let (of_loss, of_update) = results.split_at(loss.n_results(N_QUERIES));
        let (report, norm) = (loss.report(N_QUERIES, batch.n_seqs(), of_loss), optimizer.grad_norm(of_update));
        for (name, got) in [("losses", report.loss), ("grad_norms", norm)] {
            let expected = f64::from(f.expected[name][step]);
            let scale = if B::E::IS_F32 { expected } else { f64::from(f.expected[name][0]) };
            assert!((got - expected).abs() < tolerance * scale, "{name} {step}: {got} for {expected}");
        }
    }
    optimizer.catch_up(b, &mut f.encoder.weights).unwrap();
    for (index, spec) in f.specs.iter().enumerate().filter(|_| B::E::IS_F32) {
        let got = optimizer.parameter(b, &f.encoder.weights, index, 0..spec.len()).unwrap();
        let n = got.len() / spec.hf.len();
        for (part, name) in got.chunks_exact(n).zip(&spec.hf) {
            // Adam turns the rounding noise of this zero gradient into steps.
            if !name.ends_with("key.bias") {
                let error = relative_error(part, &f.expected[&format!("after10.{name}")]);
                assert!(error < tolerance::PYTORCH, "after10.{name}: {error:.2e}");
            }
        }
    }
}

fn bert<B: Backend + Clone>(backend: &B) -> Fixture<B> {
    open(backend.clone(), "bert", "bert_train.safetensors", Pooling::Mean, None)
}

fn xlmr<B: Backend + Clone>(backend: &B) -> Fixture<B> {
    open(backend.clone(), "xlmr", "xlmr_train.safetensors", Pooling::Cls, None)
}

fn labse<B: Backend + Clone>(backend: &B) -> Fixture<B> {
    let dense = DenseSpec { in_features: 32, out_features: 24 };
    open(backend.clone(), "labse", "labse.safetensors", Pooling::Cls, Some(dense))
}

fn gradients_of_bert<B: Backend + Clone>(backend: &B) {
    for (symmetric, chunk_tokens) in [(false, 4096), (true, 4096), (false, 60), (true, 1)] {
        check_gradients(&bert(backend), symmetric, chunk_tokens);
    }
}

fn gradients_of_xlm_r<B: Backend + Clone>(backend: &B) {
    for (symmetric, chunk_tokens) in [(false, 4096), (true, 4096), (false, 60), (true, 1)] {
        check_gradients(&xlmr(backend), symmetric, chunk_tokens);
    }
}

fn gradients_of_labse_with_its_dense_layer<B: Backend + Clone>(backend: &B) {
    for symmetric in [false, true] {
        check_gradients(&labse(backend), symmetric, 4096);
    }
}

fn ten_steps_of_bert<B: Backend + Clone>(backend: &B) {
    check_ten_steps(&mut bert(backend), tolerance::PYTORCH_STEPS);
}

fn ten_steps_of_xlm_r<B: Backend + Clone>(backend: &B) {
    check_ten_steps(&mut xlmr(backend), tolerance::PYTORCH_STEPS);
}

fn check_bf16<B: Backend>(f: &Fixture<B>, model: &str, symmetric: bool) {
    let b = &f.backend;
    let mut loss = InfoNce::new(b, f.encoder.embedding_size(), loss_config(TEMPERATURE, symmetric)).unwrap();
    let mut cache = GradCache::new(b, &f.encoder, 1).unwrap();
    let mut grads = Gradients::new(b, &f.encoder.weights).unwrap();
    let batch = f.batch(60);
    grads.reset(b, batch.unique_ids().len()).unwrap();
    let mut results = b.readback(loss.n_results(N_QUERIES)).unwrap();
    cache.forward_backward(b, &f.encoder, &batch, None, &mut loss, &mut grads, &mut results).unwrap();
    let report = loss.report(N_QUERIES, batch.n_seqs(), &receive(b, &mut results));
    let embeddings = cache.embeddings().to_vec(b).unwrap();
    assert_alike(&format!("{model}: embeddings"), &embeddings, &f.expected["embeddings"], tolerance::BF16_EMBEDDINGS);
    let (loss_name, prefix) = if symmetric { ("loss_symmetric", "grad_symmetric.") } else { ("loss", "grad.") };
    let expected_loss = f64::from(f.expected[loss_name][0]);
    assert!(
        (report.loss - expected_loss).abs() < tolerance::BF16_LOSS * expected_loss,
        "{} for {expected_loss}",
        report.loss
    );
    let (mut all, mut all_expected) = (Vec::new(), Vec::new());
    for (index, spec) in f.specs.iter().enumerate() {
        let got = dense_gradient(f, &batch, &grads, index);
        for (part, name) in got.chunks_exact(got.len() / spec.hf.len()).zip(&spec.hf) {
            let expected = &f.expected[&format!("{prefix}{name}")];
            all.extend_from_slice(part);
            all_expected.extend_from_slice(expected);
            // Zero in exact arithmetic, so it has no direction.
            if !name.ends_with("key.bias") {
                assert_alike(&format!("{model}: {prefix}{name}"), part, expected, tolerance::BF16_GRADIENT);
            }
        }
    }
    assert_alike(&format!("{model}: all gradients"), &all, &all_expected, tolerance::BF16_GRADIENTS);
}

fn gradients_in_bf16<B: Backend + Clone>(backend: &B) {
    for symmetric in [false, true] {
        check_bf16(&bert(backend), "bert", symmetric);
        check_bf16(&xlmr(backend), "xlmr", symmetric);
        check_bf16(&labse(backend), "labse", symmetric);
    }
}

fn ten_steps_in_bf16<B: Backend + Clone>(backend: &B) {
    check_ten_steps(&mut bert(backend), tolerance::BF16_STEPS);
    check_ten_steps(&mut xlmr(backend), tolerance::BF16_STEPS);
}

/// A teacher's scores over a batch of embeddings, alone and beside InfoNCE: both losses, and the gradient at every embedding.
fn a_teachers_scores<B: Backend>(b: &B) {
    let text = std::fs::read_to_string(fixtures().join("distillation.json")).unwrap();
    let fixture: serde_json::Value = serde_json::from_str(&text).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let [n_queries, d] = ["n_queries", "d"].map(|key| fixture[key].as_u64().unwrap() as usize);
    let (embeddings, scores) = (numbers(&fixture["embeddings"]), numbers(&fixture["scores"]));
    let n_seqs = embeddings.len() / d;
    let mut own = Vec::new();
    for n in numbers(&fixture["negatives"]) {
        let from = own.last().copied().unwrap_or(n_queries as i32);
        own.extend([from, from + n as i32]);
    }
    let bits: Vec<i32> = scores.iter().map(|score| score.to_bits() as i32).collect();
    let (places, labels) = ((0..n_seqs as i32).collect::<Vec<_>>(), distinct_labels(n_queries, n_seqs));
    let there = [places, labels, vec![0; 2 * n_queries], own, bits].map(|numbers| ints(b, &numbers));
    let [places, labels, rejected, own, scores] = there.each_ref().map(Ints::all);
    let teacher = Some(TeacherScores { own, scores });
    let embeddings = Tensor::from_slice(b, &embeddings, &[n_seqs, d]).unwrap();
    for case in fixture["cases"].as_array().unwrap() {
        let of = |key: &str| case[key].as_f64().unwrap();
        let distillation = DistillationConfig {
            kind: case["kind"].as_str().unwrap().parse().unwrap(),
            weight: of("distillation_weight") as f32,
            temperature: None,
            teacher_temperature: of("teacher_temperature") as f32,
        };
        let config = LossConfig {
            weight: of("contrastive_weight") as f32,
            distillation: Some(distillation),
            ..LossConfig::new(of("temperature") as f32)
        };
        let mut loss = InfoNce::new(b, d, config).unwrap();
        let mut gradient = Tensor::zeros(b, &[n_seqs, d]).unwrap();
        let mut results = b.readback(loss.n_results(n_queries)).unwrap();
        let pairing = Pairing { n_queries, places, labels, rejected, left_out: None, teacher };
        loss.forward_backward(b, &embeddings, pairing, &mut gradient, &mut results).unwrap();
        let report = loss.report(n_queries, n_seqs, &receive(b, &mut results));
        for (got, key) in [(report.contrastive_loss, "contrastive"), (report.distillation_loss, "distillation")] {
            assert!((got - of(key)).abs() < tolerance::PYTORCH * of(key), "{case}: {got} for {key}");
        }
        let error = relative_error(&gradient.to_vec(b).unwrap(), &numbers(&case["gradient"]));
        assert!(error < tolerance::PYTORCH, "{case}: gradient off by {error:.2e}");
    }
}

/// Runs checks on backends, each check as a test of its own.
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
            gradients_of_bert
            gradients_of_xlm_r
            gradients_of_labse_with_its_dense_layer
            ten_steps_of_bert
            ten_steps_of_xlm_r
            a_teachers_scores
        }
    };
    ($module:ident of bf16: $backends:expr) => {
        check_backend!($module: $backends; gradients_in_bf16 ten_steps_in_bf16);
    };
}

check_backend!(cpu_f32 of f32: [hbt::backend::Cpu::<f32>::new()]);
check_backend!(cpu_bf16 of bf16: [hbt::backend::Cpu::<half::bf16>::new()]);
// One order of the stand-in is enough: every operation has been through several.
check_backend!(cuda_f32 of f32: crate::device::cuda::<f32>().take(1));
check_backend!(cuda_bf16 of bf16: crate::device::cuda::<half::bf16>().take(1));
