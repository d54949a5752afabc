//! The table of configuration keys: the only place that knows a key's name, type, range, default and meaning.
//!
//! The macro makes [`Config`], its defaults and [`KEYS`] of it, which reading, writing, help and error messages use.

use std::path::PathBuf;

use super::best_metric::BestMetric;
use super::choices::*;
use super::datasets::Dataset;
use super::evaluations::Evaluation;
use super::value::{ANY, Bounds, KeyType, above, at_least, below, between, within};

/// One configuration key.
pub struct Key {
    /// Name, as written in a file and after `--set`.
    pub name: &'static str,
    /// Heading under which the key is listed.
    pub section: &'static str,
    /// Meaning, in one line.
    pub help: &'static str,
    /// Whether any text is a value.
    pub(super) is_text: bool,
    pub(super) choices: fn() -> Vec<String>,
    /// Sets the key; returns false and leaves the configuration unchanged if the value is invalid.
    pub(super) set: fn(&mut Config, &toml::Value) -> bool,
    /// The value as TOML.
    pub(super) get: fn(&Config) -> String,
    pub(super) complaint: fn(&toml::Value) -> Option<String>,
    expects: fn() -> String,
}

impl Key {
    /// Description of valid values, such as "a number from 0 to 1".
    pub fn expects(&self) -> String {
        (self.expects)()
    }

    /// The key's value in `config`, as TOML.
    pub fn value_of(&self, config: &Config) -> String {
        (self.get)(config)
    }
}

/// See the module documentation. A key's first doc line is its help; further lines give the reason for its default.
macro_rules! keys {
    ($( $section:literal { $(
        #[doc = $help:literal] $(#[doc = $why:literal])*
        $name:ident: $type:ty = $default:expr, $bounds:expr;
    )+ } )+) => {
        /// All settings of a command, checked and complete.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config { $($(
            #[doc = $help] $(#[doc = $why])*
            pub $name: $type,
        )+)+ }

        impl Default for Config {
            fn default() -> Self {
                Config { $($( $name: $default, )+)+ }
            }
        }

        /// Every key, in the order in which they are listed and saved.
        pub const KEYS: &[Key] = &[ $($( {
            const BOUNDS: Bounds = $bounds;
            Key {
                name: stringify!($name),
                section: $section,
                help: $help.trim_ascii(),
                is_text: <$type as KeyType>::IS_TEXT,
                choices: <$type as KeyType>::choices,
                set: |config, value| {
                    let read = <$type as KeyType>::read(value, &BOUNDS);
                    read.map(|value| config.$name = value).is_some()
                },
                get: |config| config.$name.write(),
                complaint: <$type as KeyType>::complaint,
                expects: || <$type as KeyType>::expects(&BOUNDS),
            }
        }, )+)+ ];
    };
}

keys! {
    "Model" {
        /// Model directory or Hugging Face hub id; none: the small encoder built into hbt
        model: Option<String> = None, ANY;
        /// Start from random weights; only the model's configuration and tokenizer are read
        from_scratch: bool = false, ANY;
        /// How token vectors become one embedding; none: as the model directory says
        pooling: Option<Pooling> = None, ANY;
        /// Dropout rate in training; none: as the model's configuration says
        dropout: Option<f64> = None, below(0.0, 1.0);
    }
    "Data" {
        /// Training data, a file or a directory; none: the parallel questions built into hbt
        data: Option<PathBuf> = None, ANY;
        /// Layout of the data; auto: by the files' content
        data_format: Auto<DataFormat> = Auto::Auto, ANY;
        /// Part of the data to train on; auto: the training part, where files or folders are called train, test and so on
        split: Auto<Split> = Auto::Auto, ANY;
        /// Passage of SQuAD-layout data: the sentence that holds the answer, or its paragraph
        ///
        /// The paper does not say which it trained on; its evaluation ranks sentences.
        passage_unit: PassageUnit = PassageUnit::Sentence, ANY;
        /// Column of the queries in flat rows, if hbt does not know its name
        query_column: Option<String> = None, ANY;
        /// Column of the positives in flat rows, if hbt does not know its name
        positive_column: Option<String> = None, ANY;
        /// Column of the negatives in flat rows, if hbt does not know its name
        negative_column: Option<String> = None, ANY;
        /// Whether flat rows with one id are versions of one question, in all files and languages
        ///
        /// Ours: many data sets number their questions from 0 in every language.
        join_by_id: bool = false, ANY;
        /// Several sets of training data, where data names one
        datasets: Vec<Dataset> = Vec::new(), ANY;
        /// Share of each dataset: by weights, by weights times sizes (temperature: evened out), or in turn (round_robin)
        dataset_sampling: DatasetSampling = DatasetSampling::Proportional, ANY;
        /// For dataset_sampling = temperature: 1 is proportional to the sizes, larger is more even
        dataset_temperature: f64 = 3.0, at_least(1.0);
        /// Whether a batch is of one dataset (homogeneous) or of all of them (mixed)
        dataset_batches: DatasetBatches = DatasetBatches::Homogeneous, ANY;
        /// Languages that training leaves out, such as ["sw", "th"]; none: it takes all
        exclude_languages: Option<Vec<String>> = None, ANY;
        /// Text put before every query, such as "query: "; none: as the model directory says
        query_prefix: Option<String> = None, ANY;
        /// Text put before every passage, such as "passage: "; none: as the model directory says
        passage_prefix: Option<String> = None, ANY;
        /// Tokens at which queries are cut, prefix and special tokens included; none: as the model directory says
        query_max_len: Option<usize> = None, at_least(8.0);
        /// Tokens at which passages are cut, prefix and special tokens included; none: as the model directory says
        passage_max_len: Option<usize> = None, at_least(8.0);
    }
    "Batches" {
        /// Languages that meet in a batch; hybrid: monolingual with probability alpha, else cross-lingual
        mode: BatchMode = BatchMode::Hybrid, ANY;
        /// Probability that a hybrid batch is monolingual
        ///
        /// The paper's best; it found 0.4 to 0.6 to do about as well.
        alpha: f64 = 0.5, between(0.0, 1.0);
        /// How often each language is drawn
        ///
        /// The paper's.
        lang_sampling: LangSampling = LangSampling::Uniform, ANY;
        /// For lang_sampling = temperature: 1 is proportional to the data, larger is more uniform
        ///
        /// Ours.
        lang_temperature: f64 = 3.0, above(0.0);
        /// Queries in a batch; each also has the other queries' passages as negatives
        ///
        /// The paper's.
        batch_size: usize = 100, at_least(2.0);
        /// Hard negatives used for each query; none: as many as the data gives
        negatives_per_query: Option<usize> = None, at_least(0.0);
        /// Leave out negatives that a teacher scored above their positive's score less this; none: its scores are not used
        teacher_margin: Option<f64> = None, ANY;
        /// Tokens embedded at once: sets the memory a step needs, not its result; auto: as many as fit and gain speed
        ///
        /// Ours.
        chunk_tokens: Auto<usize> = Auto::Of(Config::CHUNK_TOKENS), at_least(8.0);
        /// Chunks of a batch that are kept, not computed twice: memory for time; auto: all that fit; none: auto on a GPU, else 1
        ///
        /// Ours: a GPU's memory has no other use during a run, a processor's may have.
        kept_chunks: Option<Auto<usize>> = None, at_least(1.0);
    }
    "Optimization" {
        /// Training steps (batches); none: as epochs says
        steps: Option<usize> = None, at_least(1.0);
        /// Passes over the data, fractions allowed; none: as steps says
        ///
        /// Ours: the paper states neither.
        epochs: Option<f64> = Some(1.0), above(0.0);
        /// Highest learning rate, reached at the end of the warm-up
        ///
        /// The paper's.
        learning_rate: f64 = 3e-5, above(0.0);
        /// Course of the learning rate after the warm-up
        ///
        /// Ours: the paper states none.
        lr_schedule: LrSchedule = LrSchedule::Linear, ANY;
        /// Share of the steps in which the learning rate rises from zero
        ///
        /// Ours: the paper states none.
        warmup_ratio: f64 = 0.1, between(0.0, 1.0);
        /// AdamW's decoupled weight decay; biases and LayerNorm are exempt
        ///
        /// The paper's.
        weight_decay: f64 = 0.01, at_least(0.0);
        /// Gradients with a larger L2 norm are scaled down to it; none: never
        ///
        /// Ours: the paper states none.
        max_grad_norm: Option<f64> = Some(1.0), above(0.0);
        /// Divides the cosines before the softmax; 0.01 to 0.05 are usual
        ///
        /// Ours: the paper states none; 0.02 is the commonest among trainers of retrievers.
        temperature: f64 = 0.02, at_least(0.0001);
        /// Learning rate of the temperature's logarithm; none: the temperature stays as it is
        temperature_learning_rate: Option<f64> = None, above(0.0);
        /// Also let each passage find its query among the batch's queries
        symmetric: bool = false, ANY;
        /// Taken from the cosines of queries with their positives, which so have to win by more
        margin: f64 = 0.0, between(0.0, 1.0);
        /// Whether other queries' positives are negatives; false: only the batch's hard negatives, as the paper's equation
        in_batch_negatives: bool = true, ANY;
        /// Whether the other queries are negatives of a query, too
        query_negatives: bool = false, ANY;
        /// Whether, where passages find their queries (symmetric), the other passages are negatives of a passage, too
        passage_negatives: bool = false, ANY;
        /// Leave out passages whose cosine is above the positive's by more than this; none: only those known to be the same
        false_negative_margin: Option<f64> = None, between(0.0, 2.0);
        /// Numbers of leading dimensions that shall serve as embeddings by themselves, such as [384, 128, 64]
        matryoshka_dims: Option<Vec<usize>> = None, at_least(1.0);
        /// Weights of their losses, one each; none: 1
        matryoshka_weights: Option<Vec<f64>> = None, above(0.0);
        /// Follow a teacher's scores of a query's candidates: their softmax (kl) or margins (margin_mse); none: do not
        distillation: Option<Distillation> = None, ANY;
        /// Weight of what is learned from a teacher's scores
        distillation_weight: f64 = 1.0, above(0.0);
        /// Divides the cosines that are compared with a teacher's scores; none: temperature does
        distillation_temperature: Option<f64> = None, at_least(0.0001);
        /// Divides a teacher's scores before they are compared
        ///
        /// Ours: a cross-encoder's logits are used as they are; cosines want a temperature like the student's.
        teacher_temperature: f64 = 1.0, at_least(0.0001);
        /// Weight of the contrastive loss beside distillation; 0: the teacher's scores alone
        contrastive_weight: f64 = 1.0, at_least(0.0);
        /// Seed of all randomness; the same seed gives the same bytes
        seed: u64 = 42, at_least(0.0);
    }
    "Evaluation" {
        /// Benchmark; auto: the one that the data is laid out for; none: no evaluation
        eval_task: Option<Auto<&'static Task>> = Some(Auto::Auto), ANY;
        /// Evaluation data, a file or a directory; none: the same as data
        eval_data: Option<PathBuf> = None, ANY;
        /// Part of the evaluation data; auto: of divided data the one for tests, while training the one for validation
        eval_split: Auto<Split> = Auto::Auto, ANY;
        /// Share of the training questions that is held out to evaluate on, where no eval_data is given; none: none is
        eval_fraction: Option<f64> = None, within(0.0, 1.0);
        /// More evaluations while training, each a table; the first of all decides which model is best
        evaluations: Vec<Evaluation> = Vec::new(), ANY;
        /// Whether to evaluate before the first step
        eval_on_start: bool = true, ANY;
        /// Leading dimensions to evaluate and encode with, of a model that was trained with matryoshka_dims; none: all
        truncate_dim: Option<usize> = None, at_least(1.0);
        /// Steps between evaluations; none: only before the first step and after the last
        eval_steps: Option<usize> = None, at_least(1.0);
        /// Figure that picks the best model and stops early; auto: the benchmark's main one
        ///
        /// Ours: the paper stops on a loss over English data, which cannot see what it aims at.
        best_metric: Auto<BestMetric> = Auto::Auto, ANY;
        /// Evaluations without improvement after which training stops; none: it never stops early
        patience: Option<usize> = None, at_least(1.0);
    }
    "Run" {
        /// Run directory: configuration, metrics, checkpoint and models go there
        out: PathBuf = PathBuf::from("runs/train"), ANY;
        /// Where the encoder runs; auto: the first GPU if hbt can compute on it, else the CPU
        device: Auto<Device> = Auto::Auto, ANY;
        /// Number type of activations and working weights; auto: bf16 where the processor is faster with it, else f32
        precision: Auto<Precision> = Auto::Auto, ANY;
        /// CPU threads; none: one per core
        threads: Option<usize> = None, between(1.0, 1024.0);
        /// Minutes in which each of several processes has to get further: one that hangs ends all; see docs/ranks.md
        ///
        /// Ours.
        stall_minutes: f64 = 10.0, between(0.1, 10_080.0);
        /// Steps between progress lines; metrics.jsonl has every step
        log_steps: usize = 10, at_least(1.0);
        /// Steps between checkpoints to resume from
        save_steps: usize = 500, at_least(1.0);
        /// Latest checkpoints to keep in checkpoints/, besides last/
        keep_checkpoints: usize = 0, at_least(0.0);
    }
}
