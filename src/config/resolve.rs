//! The settings that the keys give for a model: plain values, with nothing left to look up.
//!
//! Each key is resolved here and nowhere else: the configuration's value, else the model directory's, else hbt's own.
//! [`Config::open`] lists what `auto` leaves to the plan of a run, and [`Config::planned`] fills in the plan's numbers.

use super::choices::*;
use super::{Config, Dataset, Evaluation};
use crate::backend::Pooling;
use crate::data::batch::NegativeRules;
use crate::data::datasets::DatasetSource;
use crate::data::formats::{Columns, DataSource, Purpose};
use crate::data::sampler::{MixtureConfig, SamplerConfig};
use crate::data::shard::TokenizeSpec;
use crate::loss::{DistillationConfig, LossConfig};
use crate::model_dir::ModelDir;
use crate::model_dir::hub::is_hub_id;
use crate::plan::Open;
use crate::retriever::{RetrieverSettings, TextKind};
use crate::train::{DropoutRates, OptimizerConfig, RunLength, TrainSettings};
use crate::{Error, Result};
use std::cmp::Reverse;
use std::path::{Path, PathBuf};

impl Config {
    /// Tokens embedded at once if neither configuration nor plan says it.
    pub const CHUNK_TOKENS: usize = 8192;

    /// Prefixes and maximum lengths of queries and passages for the model in `dir`: the configuration's, else the
    /// directory's.
    ///
    /// # Errors
    /// A length of the configuration for which the model has no positions.
    pub fn text_kinds(&self, dir: &ModelDir) -> Result<[TextKind; 2]> {
        let positions = dir.config.max_seq_len();
        let kind = |key: &str, prefix: [Option<&String>; 2], given: Option<usize>, of_dir: usize| {
            let max_len = given.unwrap_or(of_dir);
            if max_len > positions {
                let message = format!(
                    "is {max_len}, but the model has positions for {positions} tokens; set at most {positions}"
                );
                return Err(Error::config(key, message));
            }
            Ok(TextKind { prefix: prefix[0].or(prefix[1]).cloned().unwrap_or_default(), max_len })
        };
        let [query, passage] = self.prefixes();
        Ok([
            kind("query_max_len", [query, dir.query_prefix.as_ref()], self.query_max_len, dir.query_max_len)?,
            kind("passage_max_len", [passage, dir.passage_prefix.as_ref()], self.passage_max_len, dir.passage_max_len)?,
        ])
    }

    /// Texts put before queries and passages, if the configuration names them. If a run has only one dataset, its
    /// prefixes are those of the run: used for training, evaluation and the saved model.
    fn prefixes(&self) -> [Option<&String>; 2] {
        let of_dataset = match self.datasets.as_slice() {
            [one] => [&one.query_prefix, &one.passage_prefix].map(Option::as_ref),
            _ => [None; 2],
        };
        let [query, passage] = of_dataset;
        [query.or(self.query_prefix.as_ref()), passage.or(self.passage_prefix.as_ref())]
    }

    /// Settings by which the model in `dir` embeds.
    ///
    /// # Errors
    /// If nothing names a pooling, embeddings have fewer dimensions than they are to be cut to, and those of
    /// [`Config::text_kinds`].
    pub fn retriever(&self, dir: &ModelDir) -> Result<RetrieverSettings> {
        let [query, passage] = self.text_kinds(dir)?;
        let embedding_size = dir.embedding_size();
        if let Some(dim) = self.truncate_dim.filter(|&dim| dim > embedding_size) {
            let message = format!("is {dim}, but the model's embeddings have {embedding_size} dimensions");
            return Err(Error::config("truncate_dim", message));
        }
        Ok(RetrieverSettings {
            pooling: pooling(self.pooling, dir)?,
            query,
            passage,
            chunk_tokens: self.chunk_tokens.or(Self::CHUNK_TOKENS),
            truncate_dim: self.truncate_dim,
            from_scratch: self.from_scratch.then_some(self.seed),
        })
    }

    /// Settings by which the model in `dir` is trained. Settings that are [open](Config::open) get hbt's own numbers.
    ///
    /// # Errors
    /// If `matryoshka_dims` has more dimensions than the model's embeddings.
    pub fn training(&self, dir: &ModelDir) -> Result<TrainSettings> {
        let dropout = |own: f32| self.dropout.map_or(own, |p| p as f32);
        Ok(TrainSettings {
            length: match self.steps {
                Some(steps) => RunLength::Steps(steps as u64),
                None => RunLength::Passes(self.epochs.unwrap_or(1.0)),
            },
            sampler: SamplerConfig {
                mode: self.mode,
                alpha: self.alpha,
                lang_sampling: self.lang_sampling,
                lang_temperature: self.lang_temperature,
                batch_size: self.batch_size,
                seed: self.seed,
            },
            mixture: MixtureConfig {
                sampling: self.dataset_sampling,
                temperature: self.dataset_temperature,
                batches: self.dataset_batches,
            },
            negatives: NegativeRules {
                per_query: self.negatives_per_query,
                teacher_margin: self.teacher_margin,
                with_scores: self.distillation.is_some(),
            },
            chunk_tokens: self.chunk_tokens.or(Self::CHUNK_TOKENS),
            kept_chunks: self.kept_chunks.and_then(Auto::given).unwrap_or(1),
            dropout: DropoutRates {
                hidden: dropout(dir.config.hidden_dropout_prob),
                attention: dropout(dir.config.attention_probs_dropout_prob),
            },
            loss: self.loss(dir.embedding_size())?,
            temperature: self.temperature,
            temperature_learning_rate: self.temperature_learning_rate,
            optimizer: OptimizerConfig {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: self.weight_decay as f32,
                max_grad_norm: self.max_grad_norm.unwrap_or(0.0) as f32,
            },
            learning_rate: self.learning_rate,
            lr_schedule: self.lr_schedule,
            warmup_ratio: self.warmup_ratio,
            eval_on_start: self.eval_on_start,
            eval_steps: self.eval_steps.map(|steps| steps as u64),
            best_metric: self.best_figure(),
            patience: self.patience,
            log_steps: self.log_steps as u64,
            save_steps: self.save_steps as u64,
            keep_checkpoints: self.keep_checkpoints,
        })
    }

    /// The loss of embeddings of size `embedding_size`.
    fn loss(&self, embedding_size: usize) -> Result<LossConfig> {
        let dims = self.matryoshka_dims.as_deref().unwrap_or_default();
        if let Some(d) = dims.iter().find(|&&d| d > embedding_size) {
            let message = format!("has {d}, but the model's embeddings have {embedding_size} dimensions");
            return Err(Error::config("matryoshka_dims", message));
        }
        let weights = self.matryoshka_weights.as_deref().unwrap_or_default().iter().copied();
        let weights = weights.chain(std::iter::repeat(1.0)).map(|weight| weight as f32);
        let mut dimensions: Vec<(usize, f32)> = dims.iter().copied().zip(weights).collect();
        dimensions.sort_unstable_by_key(|&(d, _)| Reverse(d));
        Ok(LossConfig {
            temperature: self.temperature as f32,
            symmetric: self.symmetric,
            margin: self.margin as f32,
            in_batch_negatives: self.in_batch_negatives,
            query_negatives: self.query_negatives,
            passage_negatives: self.passage_negatives,
            false_negative_margin: self.false_negative_margin.map(|margin| margin as f32),
            dimensions,
            weight: self.contrastive_weight as f32,
            distillation: self.distillation.map(|kind| DistillationConfig {
                kind,
                weight: self.distillation_weight as f32,
                temperature: self.distillation_temperature.map(|temperature| temperature as f32),
                teacher_temperature: self.teacher_temperature as f32,
            }),
        })
    }

    /// Settings that are left to the plan of a run on a GPU or on a processor.
    pub fn open(&self, is_gpu: bool) -> Open {
        let lengths = [self.query_max_len, self.passage_max_len].into_iter().flatten();
        Open {
            chunk_tokens: self.chunk_tokens == Auto::Auto,
            kept_chunks: self.kept_chunks.map_or(is_gpu, |kept| kept == Auto::Auto),
            least_chunk_tokens: lengths.max().unwrap_or(0),
        }
    }

    /// The configuration with the numbers that a plan found.
    pub fn planned(self, settings: &TrainSettings) -> Self {
        let TrainSettings { chunk_tokens, kept_chunks, .. } = *settings;
        Config { chunk_tokens: chunk_tokens.into(), kept_chunks: Some(kept_chunks.into()), ..self }
    }

    /// The training data; `built_in` returns the path of hbt's own, used if no other is named.
    ///
    /// # Errors
    /// Those of `built_in`.
    pub fn training_data(&self, built_in: impl FnOnce() -> Result<PathBuf>) -> Result<Vec<Dataset>> {
        if !self.datasets.is_empty() {
            return Ok(self.datasets.clone());
        }
        let path = self.data.clone().map_or_else(built_in, Ok)?;
        Ok(vec![Dataset::new(path)])
    }

    /// Path, format and tokenization of a dataset: its own settings, else the general ones.
    pub fn dataset_source(&self, dataset: &Dataset, [query, passage]: &[TextKind; 2]) -> DatasetSource {
        let prefix = |own: &Option<String>, kind: &TextKind| own.as_ref().unwrap_or(&kind.prefix).clone();
        DatasetSource {
            name: dataset.label(),
            weight: dataset.weight,
            data: self.data_source(dataset),
            spec: TokenizeSpec {
                query_prefix: prefix(&dataset.query_prefix, query),
                passage_prefix: prefix(&dataset.passage_prefix, passage),
                query_max_len: query.max_len,
                passage_max_len: passage.max_len,
            },
        }
    }

    /// Path and format of a dataset.
    pub fn data_source(&self, dataset: &Dataset) -> DataSource {
        DataSource {
            path: dataset.data.clone(),
            format: dataset.data_format.unwrap_or(self.data_format),
            split: dataset.split.unwrap_or(self.split),
            purpose: Purpose::Training,
            passage_unit: dataset.passage_unit.unwrap_or(self.passage_unit),
            columns: Columns {
                query: dataset.query_column.as_ref().or(self.query_column.as_ref()).cloned(),
                positive: dataset.positive_column.as_ref().or(self.positive_column.as_ref()).cloned(),
                negative: dataset.negative_column.as_ref().or(self.negative_column.as_ref()).cloned(),
                join_by_id: dataset.join_by_id.unwrap_or(self.join_by_id),
            },
        }
    }

    /// The evaluation data at `path`. What keys say of the layout of the training data holds for it where it is the same
    /// data, or there is none to train on.
    pub fn eval_source(&self, path: PathBuf, purpose: Purpose) -> DataSource {
        let is_own_data = self.eval_data.is_some()
            && self.eval_data != self.data
            && (self.data.is_some() || !self.datasets.is_empty());
        DataSource { split: self.eval_split, purpose, ..self.layout_of(path, is_own_data) }
    }

    /// The data of one of the `evaluations`, as [`Config::eval_source`]; `None` where it is the hub's.
    pub fn evaluation_source(&self, evaluation: &Evaluation) -> Option<DataSource> {
        let path = evaluation.data.clone()?;
        let is_own_data = self.data.as_ref() != Some(&path);
        Some(DataSource { split: evaluation.split, purpose: Purpose::Validation, ..self.layout_of(path, is_own_data) })
    }

    /// Evaluation data that `is_own_data`, or is laid out as the training data is.
    fn layout_of(&self, path: PathBuf, is_own_data: bool) -> DataSource {
        match is_own_data {
            true => DataSource { passage_unit: self.passage_unit, ..DataSource::new(path) },
            false => self.data_source(&Dataset::new(path)),
        }
    }

    /// The hub id of the model, if it has one: a local path would mean nothing to readers of a model card.
    pub fn base_model(&self) -> Option<String> {
        self.model.as_ref().filter(|model| is_hub_id(model) && !Path::new(model).exists()).cloned()
    }
}

/// The configuration's pooling, else the model directory's. There is no default: a wrong guess would give plausible but
/// poor embeddings.
fn pooling(configured: Option<Pooling>, dir: &ModelDir) -> Result<Pooling> {
    configured.or(dir.pooling).ok_or_else(|| {
        let message = format!(
            "neither {} nor the configuration says how token vectors become one embedding; set pooling = \"mean\" (E5, \
             MiniLM) or \"cls\" (LaBSE, BGE-M3)",
            dir.path.display()
        );
        Error::config("pooling", message)
    })
}
