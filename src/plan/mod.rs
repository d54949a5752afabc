//! Plans a run before it begins: its memory, the largest chunks that fit, the work and the time of a step, and what to
//! change if it does not fit.
//!
//! This module knows neither sizes of buffers nor the arithmetic of operations. A [`Rehearsal`] makes the run's buffers
//! and takes some of its steps on a backend that only counts, [`Tally`](crate::backend::Tally).

mod batches;
mod exchange;
mod looks;
mod machine;
mod memory;
mod numbers;
mod rehearsal;
pub mod report;
mod sample;
mod time;
mod token_ids;

pub use batches::Batches;
use batches::FEWEST_ROWS;
pub use exchange::{Cluster, Exchanged, Traffic};
pub use machine::{LINK_OF_PROCESSES, Machine, Measured, Speed, Target, WORKSPACE_BYTES};
pub use memory::{Item, Needs};
pub use rehearsal::{Held, MeanStep, Rehearsal};
pub use sample::{Part, Sample};
pub use time::{Efficiency, StepTime};

use crate::backend::{Element, Precision, Tally};
use crate::data::datasets::Datasets;
use crate::data::sampler::SamplerConfig;
use crate::memory::gib;
use crate::model_dir::ModelDir;
use crate::train::TrainSettings;
use crate::{Error, Result};

/// Share of a machine's memory that a plan fills.
const FILLED: f64 = 0.9;
/// A run is refused if it needs more than this times the available memory: a plan may be wrong by 10 %, and a run that
/// would have worked must not be refused.
const TOO_MUCH: f64 = 1.1;
/// Numbers of tokens that are tried are multiples of this.
const TOKENS_STEP: usize = 256;
/// Tokens from which on larger chunks are no faster: on a GPU each operation then takes several times as long as its
/// launch, and a processor's caches are long exceeded.
const ENOUGH_TOKENS_GPU: usize = 16_384;
const ENOUGH_TOKENS_CPU: usize = 8192;

/// Training data of a run.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    /// Tokenized data.
    Tokens(&'a Datasets),
    /// Data that is not tokenized yet.
    Sample(&'a Sample),
}

/// Settings that a configuration leaves to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whether the plan chooses [`TrainSettings::chunk_tokens`].
    pub chunk_tokens: bool,
    /// Whether the plan chooses [`TrainSettings::kept_chunks`]: as many as fit.
    pub kept_chunks: bool,
    /// Fewest tokens of a chunk that the configuration allows, beside the longest text that occurs.
    pub least_chunk_tokens: usize,
}

/// A run to plan.
#[derive(Clone)]
pub struct Question<'a> {
    /// Settings of the run.
    pub settings: TrainSettings,
    /// The settings that the plan chooses.
    pub open: Open,
    /// Number type of the run.
    pub precision: Precision,
    /// Whether the run begins with random weights.
    pub from_scratch: bool,
    /// Base model.
    pub model: &'a ModelDir,
    /// Training data.
    pub data: Data<'a>,
    /// Numbers of queries and passages of the evaluation, if there is one.
    pub eval_texts: Option<[usize; 2]>,
    /// Machine that runs it: where there are several ranks, what each of them has.
    pub machine: &'a Machine,
    /// The ranks that share it.
    pub cluster: Cluster,
}

/// Whether a run fits into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fits, with room to spare.
    Fits,
    /// It may fit.
    Barely,
    /// It does not fit.
    DoesNot,
    /// The size of the memory is unknown.
    Unknown,
}

/// The memory and time that a run takes.
pub struct Plan {
    /// Settings, with the plan's numbers for those that were left to it.
    pub settings: TrainSettings,
    /// Batches of the run.
    pub batches: Batches,
    /// Memory.
    pub needs: Needs,
    /// Whether the memory is enough.
    pub verdict: Verdict,
    /// Most tokens of a chunk that fit, and whether a batch can have no more; `None` if not even the fewest fit.
    pub most_chunk_tokens: Option<(usize, bool)>,
    /// Number of kept chunks that fit, if it is more than the settings keep.
    pub more_kept_chunks: Option<usize>,
    /// Change of settings that makes the run fit: "lower chunk_tokens to 4096".
    pub change: Option<String>,
    /// Number of chunks of the largest sampled batch, and how many of them are computed twice.
    pub chunks: [usize; 2],
    /// Time of a step, if the machine's speed is known, without what ranks exchange.
    pub time: Option<StepTime>,
    /// What a rank exchanges in a step.
    pub exchanged: Exchanged,
    /// Seconds that this takes, if the speed of what connects the ranks is known.
    pub exchange_seconds: Option<f64>,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// If the data cannot serve the batches.
    pub fn new(question: &Question) -> Result<Self> {
        let batches = question.batches()?;
        let most_chunk_tokens = question.most_chunk_tokens(&batches, &question.settings)?;
        let settings = question.settled(&batches, most_chunk_tokens)?;
        let needs = Needs::new(question, &batches, &settings)?;
        let verdict = question.verdict(&needs);
        let change = match verdict {
            Verdict::DoesNot | Verdict::Barely => Some(question.change(&batches, &settings)?),
            Verdict::Fits | Verdict::Unknown => None,
        };
        let TrainSettings { chunk_tokens, kept_chunks, .. } = settings;
        let n_chunks = batches.n_chunks(chunk_tokens);
        let more_kept_chunks = match (verdict, n_chunks > kept_chunks) {
            (Verdict::Fits, true) => Some(question.most_kept_chunks(&batches, chunk_tokens)?),
            _ => None,
        };
        let all_tokens = batches.own_bounds().n_tokens;
        let MeanStep { work, exchanged } = question.mean_step(&batches, &settings)?;
        let efficiency = Efficiency::of(question.machine);
        let bandwidth = question.cluster.bandwidth(question.machine);
        Ok(Plan {
            chunks: [n_chunks, n_chunks.saturating_sub(kept_chunks)],
            more_kept_chunks: more_kept_chunks.filter(|&more| more > kept_chunks),
            time: question.machine.speed.map(|speed| StepTime::new(&work, speed, efficiency)),
            exchange_seconds: bandwidth.map(|bandwidth| exchanged.received() / bandwidth),
            exchanged,
            most_chunk_tokens: most_chunk_tokens.map(|most| (most, most >= all_tokens)),
            settings,
            batches,
            needs,
            verdict,
            change,
        })
    }

    /// Seconds of a step, if they are known.
    pub fn seconds(&self) -> Option<f64> {
        let of_exchange = if self.exchanged == Exchanged::default() { Some(0.0) } else { self.exchange_seconds };
        Some(self.time?.seconds + of_exchange?)
    }

    /// The warning about a run that may not fit.
    pub fn warning(&self, machine: &Machine) -> Option<String> {
        let (Verdict::Barely, Some(change), Some(memory)) = (self.verdict, &self.change, machine.memory) else {
            return None;
        };
        let (needs, left) = (gib(self.needs.total()), gib(memory));
        Some(format!("the run needs about {needs}, and {} has {left} left: it may not fit; {change}", machine.name))
    }

    /// Refuses a run that cannot fit.
    ///
    /// # Errors
    /// If it cannot fit; the message names the largest item, and what to change.
    pub fn require(&self, machine: &Machine) -> Result<()> {
        let (Verdict::DoesNot, Some(change), Some(memory)) = (self.verdict, &self.change, machine.memory) else {
            return Ok(());
        };
        let (total, largest) = (self.needs.total(), self.needs.largest());
        Err(Error::other(format!(
            "the run needs {}, and {} has {} left; most of it is {}, {} ({}): {change}",
            gib(total),
            machine.name,
            gib(memory),
            largest.name,
            gib(largest.bytes),
            largest.note,
        )))
    }
}

impl Question<'_> {
    fn batches(&self) -> Result<Batches> {
        let vocab_size = self.model.config.vocab_size;
        let batches = match self.data {
            Data::Tokens(data) => Batches::of_tokens(&self.settings, vocab_size, data),
            Data::Sample(sample) => Batches::of_sample(&self.settings, vocab_size, sample),
        };
        Ok(batches?.dealt(self.cluster.deal()))
    }

    /// The counting backend in place of a rank's device.
    fn tally<E: Element>(&self) -> Tally<E> {
        self.machine.tally().among(self.cluster.size())
    }

    fn verdict(&self, needs: &Needs) -> Verdict {
        let Some(memory) = self.machine.memory else { return Verdict::Unknown };
        let (total, memory) = (needs.total() as f64, memory as f64);
        match total {
            _ if total <= FILLED * memory => Verdict::Fits,
            _ if total <= TOO_MUCH * memory => Verdict::Barely,
            _ => Verdict::DoesNot,
        }
    }

    /// Bytes that may be filled; no limit if the memory is unknown.
    fn limit(&self) -> u64 {
        self.machine.memory.map_or(u64::MAX, |memory| (FILLED * memory as f64) as u64)
    }

    fn needs(
        &self,
        batches: &Batches,
        settings: &TrainSettings,
        chunk_tokens: usize,
        kept_chunks: usize,
    ) -> Result<u64> {
        let settings = TrainSettings { chunk_tokens, kept_chunks, ..settings.clone() };
        Needs::new(self, batches, &settings).map(|needs| needs.total())
    }

    /// Tokens of the largest chunks that fit if only the last is kept; at most those of any batch.
    fn most_chunk_tokens(&self, batches: &Batches, settings: &TrainSettings) -> Result<Option<usize>> {
        let fits = |steps: usize| -> Result<bool> {
            Ok(self.needs(batches, settings, steps * TOKENS_STEP, 1)? <= self.limit())
        };
        let least = batches.bounds.longest.div_ceil(TOKENS_STEP);
        let (mut low, mut high) = (least, batches.own_bounds().n_tokens.div_ceil(TOKENS_STEP).max(least));
        if !fits(low)? {
            return Ok(None);
        }
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle)? { low = middle } else { high = middle - 1 }
        }
        Ok(Some(low * TOKENS_STEP))
    }

    /// The settings with numbers for the open ones.
    fn settled(&self, batches: &Batches, most: Option<usize>) -> Result<TrainSettings> {
        let enough = if self.machine.is_gpu { ENOUGH_TOKENS_GPU } else { ENOUGH_TOKENS_CPU };
        let least = self.longest_text(batches).next_multiple_of(TOKENS_STEP);
        let of_batch = batches.own_bounds().n_tokens.next_multiple_of(TOKENS_STEP);
        let best = most.unwrap_or(least).min(enough).min(of_batch).max(least);
        let chunk_tokens = if self.open.chunk_tokens { best } else { self.settings.chunk_tokens };
        let kept_chunks = match self.open.kept_chunks {
            false => self.settings.kept_chunks.min(batches.n_chunks(chunk_tokens)),
            // If the memory is unknown, only one chunk is kept.
            true if self.machine.memory.is_none() => 1,
            true => self.most_kept_chunks(batches, chunk_tokens)?,
        };
        Ok(TrainSettings { chunk_tokens, kept_chunks, ..self.settings.clone() })
    }

    /// Tokens that a chunk has to have room for.
    fn longest_text(&self, batches: &Batches) -> usize {
        self.open.least_chunk_tokens.max(batches.bounds.longest)
    }

    /// Number of kept chunks: as many as fit, at most those of a batch.
    fn most_kept_chunks(&self, batches: &Batches, chunk_tokens: usize) -> Result<usize> {
        let n_chunks = batches.n_chunks(chunk_tokens);
        if n_chunks == 1 {
            return Ok(1);
        }
        let [one, two] = [1, 2].map(|kept| self.needs(batches, &self.settings, chunk_tokens, kept));
        let (one, two) = (one?, two?);
        let more = self.limit().saturating_sub(one) / (two - one).max(1);
        Ok(n_chunks.min(1 + usize::try_from(more).unwrap_or(usize::MAX - 1)))
    }

    /// The least change that makes the run fit.
    fn change(&self, batches: &Batches, settings: &TrainSettings) -> Result<String> {
        let smaller = self.smaller(batches, settings)?;
        let Some([n_queries, n_passages]) = self.eval_texts else {
            return smaller.map_or_else(|| self.last_resort(batches, settings), Ok);
        };
        let evaluate_less = format!(
            "evaluate on fewer than {n_queries} queries and {n_passages} passages (another eval_data, or eval_task = \"none\")"
        );
        let without = Question { eval_texts: None, ..self.clone() };
        let suffices = Needs::new(self, batches, settings)?.largest().name == "evaluation"
            && Needs::new(&without, batches, settings)?.total() <= self.limit();
        match smaller {
            Some(change) if suffices && change.contains("batch_size") => Ok(format!("{change}, or {evaluate_less}")),
            Some(change) => Ok(change),
            None if suffices => Ok(evaluate_less),
            None => match without.smaller(batches, settings)? {
                Some(change) => Ok(format!("{change}, and {evaluate_less}")),
                None => without.last_resort(batches, settings),
            },
        }
    }

    /// The smallest reduction of one setting that memory depends on.
    fn smaller(&self, batches: &Batches, settings: &TrainSettings) -> Result<Option<String>> {
        let TrainSettings { chunk_tokens, kept_chunks: kept, .. } = *settings;
        if kept > 1 && self.needs(batches, settings, chunk_tokens, 1)? <= self.limit() {
            return Ok(Some(format!("lower kept_chunks to {}", self.most_kept_chunks(batches, chunk_tokens)?)));
        }
        let least = self.longest_text(batches);
        let below = |most: usize| (least..chunk_tokens).contains(&most);
        if let Some(most) = self.most_chunk_tokens(batches, settings)?.filter(|&most| below(most)) {
            let kept = if kept > 1 { " and kept_chunks to 1" } else { "" };
            return Ok(Some(format!("lower chunk_tokens to {most}{kept}")));
        }
        let mut batch_size = settings.sampler.batch_size / 2;
        while batch_size >= FEWEST_ROWS {
            let batches = batches.of_size(batch_size);
            if let Some(most) = self.most_chunk_tokens(&batches, settings)?.filter(|&most| most >= least) {
                let chunk = if below(most) { format!(" and chunk_tokens to {most}") } else { String::new() };
                let kept = if kept > 1 { " and kept_chunks to 1" } else { "" };
                return Ok(Some(format!("lower batch_size to {batch_size}{chunk}{kept}")));
            }
            batch_size /= 2;
        }
        Ok(None)
    }

    /// The change if no batch is small enough.
    fn last_resort(&self, batches: &Batches, settings: &TrainSettings) -> Result<String> {
        let (batches, chunk_tokens) = (batches.of_size(FEWEST_ROWS), self.longest_text(batches));
        let sampler = SamplerConfig { batch_size: FEWEST_ROWS, ..settings.sampler.clone() };
        let smallest = TrainSettings { sampler, chunk_tokens, kept_chunks: 1, ..settings.clone() };
        let needs = Needs::new(self, &batches, &smallest)?;
        let largest = needs.largest();
        // Then the activations alone are too large.
        let are_activations = largest.name == "activations" && needs.total() - largest.bytes <= self.limit();
        let f32_helps = self.precision == Precision::F32 && self.machine.is_gpu;
        Ok(format!(
            "take {}{}, or a machine with more memory",
            if are_activations { "shorter texts (query_max_len, passage_max_len)" } else { "a smaller model" },
            if f32_helps { ", precision = \"bf16\"" } else { "" }
        ))
    }

    /// The mean step. Nothing, where nobody asks: it takes a while.
    fn mean_step(&self, batches: &Batches, settings: &TrainSettings) -> Result<MeanStep> {
        if self.machine.speed.is_none() {
            return Ok(MeanStep::default());
        }
        let bounds = batches.step_bounds(settings.chunk_tokens, self.model.config.vocab_size, true);
        let bounds = bounds.for_loss(&settings.loss);
        match self.precision {
            Precision::F32 => Rehearsal::<f32>::new(self.tally(), settings, self.model, &bounds)?.mean_step(batches),
            Precision::Bf16 => {
                Rehearsal::<half::bf16>::new(self.tally(), settings, self.model, &bounds)?.mean_step(batches)
            }
        }
    }
}
