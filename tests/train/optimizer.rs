//! The optimizer as the trainer uses it, without a model's forward and backward: word embeddings that are caught up
//! early, late or not at all before a save.

use crate::ops::support::{Random, ints, receive};
use half::bf16;
use hbt::backend::{Backend, Cpu, Element, Ints, Tensor};
use hbt::model::{EncoderParams, Gradients, ModelConfig, ParamSpec, random_init, specs};
use hbt::train::{Optimizer, OptimizerConfig};
use std::path::Path;

const VOCAB: usize = 40;

struct Run<B: Backend> {
    backend: B,
    specs: EncoderParams<ParamSpec>,
    weights: EncoderParams<Tensor<B, B::E>>,
    optimizer: Optimizer<B>,
    grads: Gradients<B>,
}

impl<B: Backend> Run<B> {
    fn new(backend: B) -> Self {
        let json = format!(
            r#"{{"model_type": "bert", "vocab_size": {VOCAB}, "hidden_size": 2, "num_hidden_layers": 1,
                "num_attention_heads": 1, "intermediate_size": 2, "max_position_embeddings": 4}}"#
        );
        let specs = specs(&ModelConfig::from_json(Path::new("config.json"), &json).unwrap(), None);
        let masters = random_init(&specs, 7, |_, values| Ok(values)).unwrap();
        Self::with_masters(backend, specs, &masters)
    }

    fn with_masters(backend: B, specs: EncoderParams<ParamSpec>, masters: &EncoderParams<Vec<f32>>) -> Self {
        let mut values = masters.iter();
        let weights = specs
            .try_map(|spec| {
                let rounded: Vec<B::E> = values.next().unwrap().iter().map(|&x| B::E::from_f32(x)).collect();
                Tensor::from_slice(&backend, &rounded, &spec.shape)
            })
            .unwrap();
        let mut values = masters.iter();
        let upload = |spec: &ParamSpec| Tensor::from_slice(&backend, values.next().unwrap(), &spec.shape);
        let master = (!B::E::IS_F32).then(|| specs.try_map(upload).unwrap());
        let config = OptimizerConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };
        let optimizer = Optimizer::new(&backend, &specs, &weights, master, config).unwrap();
        let grads = Gradients::new(&backend, &weights).unwrap();
        Run { backend, specs, weights, optimizer, grads }
    }

    /// The update with this number, on random gradients of a few of the lower half of the ids.
    fn step(&mut self, update: u64) {
        let mut random = Random::new(1000 + update);
        let mut ids: Vec<i32> = (0..5).map(|_| random.below(VOCAB / 2) as i32).collect();
        ids.sort();
        ids.dedup();
        let Run { backend, weights, optimizer, grads, .. } = self;
        let ids = ints(backend, &ids);
        optimizer.begin_step(backend, weights, grads, Ints::all(&ids)).unwrap();
        for gradient in grads.params.iter_mut() {
            let values: Vec<f32> = random.normals(gradient.len()).into_iter().map(|x| x as f32).collect();
            gradient.upload(backend, &values).unwrap();
        }
        let results = &mut backend.readback(optimizer.n_results()).unwrap();
        optimizer.step(backend, weights, grads, Ints::all(&ids), 1e-2 / (update as f32).sqrt(), results).unwrap();
        receive(backend, results);
    }

    fn catch_up(&mut self) {
        self.optimizer.catch_up(&self.backend, &mut self.weights).unwrap();
    }

    /// All f32 weights, and the working copies, which must be their roundings.
    fn parameters(&mut self) -> EncoderParams<Vec<f32>> {
        self.catch_up();
        let (mut index, mut working) = (0, self.weights.iter());
        self.specs
            .try_map(|spec| {
                let values = self.optimizer.parameter(&self.backend, &self.weights, index, 0..spec.len())?;
                let copy = working.next().unwrap().to_vec(&self.backend)?;
                assert!(values.iter().zip(copy).all(|(&x, w)| B::E::from_f32(x).to_f32() == w.to_f32()));
                index += 1;
                Ok(values)
            })
            .unwrap()
    }

    /// The same run, by way of what a checkpoint holds.
    fn resumed(&mut self, backend: B, updates: u64) -> Self {
        let parameters = self.parameters();
        let mut other = Self::with_masters(backend, self.specs.clone(), &parameters);
        let touched = self.optimizer.touched(&self.backend).unwrap();
        assert!(touched.rows.len() <= VOCAB / 2 && touched.rows.len() > VOCAB / 4, "{touched:?}");
        assert!(touched.updates.iter().any(|&update| (update as u64) < updates), "momentum is pending: {touched:?}");
        let moment = |which, index| self.optimizer.moment(&self.backend, which, index, &touched);
        other.optimizer.restore(&other.backend, updates, &touched, moment).unwrap();
        other
    }
}

/// More updates than any row is left without.
const LONG: u64 = 1100;

fn caught_up_at_any_time<B: Backend + Copy>(backend: B) {
    let [mut late, mut early] = [(); 2].map(|()| Run::new(backend));
    for update in 1..=LONG {
        late.step(update);
        early.step(update);
        if update % 7 == 0 {
            early.catch_up();
        }
    }
    assert!(late.parameters() == early.parameters());
    let start = Run::new(backend).parameters();
    let (start, end) = (&start.embeddings.word, &late.parameters().embeddings.word);
    assert!(start.iter().zip(end).all(|(a, b)| a != b || *a == 0.0), "every row has decayed at least");
}

#[test]
fn the_moment_of_catching_up_leaves_no_trace() {
    caught_up_at_any_time(Cpu::<f32>::new());
    caught_up_at_any_time(Cpu::<bf16>::new());
}

fn resumed_at<B: Backend + Copy>(backend: B, at: u64) {
    let mut undisturbed = Run::new(backend);
    let mut run = Run::new(backend);
    for update in 1..=60 {
        undisturbed.step(update);
        run.step(update);
        if update == at {
            run = run.resumed(backend, update);
        }
    }
    assert!(undisturbed.parameters() == run.parameters(), "resumed after update {at}");
}

#[test]
fn a_restored_optimizer_goes_on_exactly() {
    for at in [15, 40] {
        resumed_at(Cpu::<f32>::new(), at);
        resumed_at(Cpu::<bf16>::new(), at);
    }
}

#[test]
#[should_panic(expected = "the word embeddings have not been caught up")]
fn stale_word_embeddings_are_not_handed_out() {
    let mut run = Run::new(Cpu::<f32>::new());
    run.step(1);
    let _ = run.optimizer.parameter(&run.backend, &run.weights, 0, 0..1);
}
