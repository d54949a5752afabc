//! The memory of a run, item by item.

use super::{Batches, Exchanged, Question, Rehearsal};
use crate::Result;
use crate::backend::{Element, Precision, Purpose};
use crate::model::specs;
use crate::model_dir::ModelDir;
use crate::train::TrainSettings;
use half::bf16;

/// Bytes of the program, its threads, and small things.
const PROGRAM_BYTES: u64 = 36 << 20;
/// Bytes of a tokenizer in memory for each byte of its file, and while it is read: XLM-R's 9 MB become 300, and 460
/// while they are read.
const TOKENIZER_FACTOR: u64 = 33;
const READING_TOKENIZER_FACTOR: u64 = 50;
/// Size of the pages in which the system hands out memory by default.
const PAGE_BYTES: usize = 4096;
/// Batches that wait between the loader and the present step.
const WAITING_BATCHES: u64 = 8;

/// Bytes that NCCL takes for its channels to other GPUs. An estimate.
const NCCL_BYTES: u64 = 400 << 20;
/// Bytes that processes take for a round of what they exchange and for small tensors, beside a copy of the largest one. An
/// estimate.
const ROUND_BYTES: u64 = 64 << 20;

/// One kind of memory of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name.
    pub name: &'static str,
    /// Size.
    pub bytes: u64,
    /// The settings that the size depends on.
    pub note: String,
}

/// All memory of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Items, in the order of reports.
    pub items: Vec<Item>,
}

impl Needs {
    /// Sum of all items.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// The largest item.
    pub fn largest(&self) -> &Item {
        self.items.iter().max_by_key(|item| item.bytes).expect("a run holds something")
    }

    fn add(&mut self, name: &'static str, bytes: u64, note: impl Into<String>) {
        self.items.push(Item { name, bytes, note: note.into() });
    }

    /// The memory of a run with these settings.
    ///
    /// # Errors
    /// Those of a [`Rehearsal`].
    pub fn new(question: &Question, batches: &Batches, settings: &TrainSettings) -> Result<Self> {
        match question.precision {
            Precision::F32 => Self::of::<f32>(question, batches, settings),
            Precision::Bf16 => Self::of::<bf16>(question, batches, settings),
        }
    }

    fn of<E: Element>(question: &Question, batches: &Batches, settings: &TrainSettings) -> Result<Self> {
        let Question { model, machine, .. } = question;
        let chunk_tokens = settings.chunk_tokens;
        // A GPU takes memory when it is allocated, a processor when it is written to.
        let bounds = batches.step_bounds(chunk_tokens, model.config.vocab_size, machine.is_gpu);
        let bounds = bounds.for_loss(&settings.loss);
        let mut held = Rehearsal::<E>::new(question.tally(), settings, model, &bounds)?;
        let memory = held.memory();
        let only_last = TrainSettings { kept_chunks: 1, ..settings.clone() };
        let of_chunk =
            Rehearsal::<E>::new(question.tally(), &only_last, model, &bounds)?.memory().of(Purpose::Activations);

        let mut needs = Needs::default();
        needs.add("weights", memory.of(Purpose::Weights), format!("the model in {}", E::NAME));
        let (optimizer, note) = optimizer::<E>(question, batches, memory.of(Purpose::Optimizer));
        needs.add("optimizer", optimizer, note);
        needs.add("gradients", memory.of(Purpose::Gradients), "of all parameters, and of a batch's words");
        needs.add("activations", of_chunk, format!("of a chunk of {} tokens", bounds.chunk_tokens));
        let kept = memory.of(Purpose::Activations) - of_chunk;
        if kept > 0 {
            let n = settings.kept_chunks.min(bounds.n_chunks) - 1;
            needs.add("kept chunks", kept, format!("{n} more, which are not computed twice"));
        }
        let note = format!("embeddings of {} texts, and their gradients", bounds.n_seqs);
        needs.add("cache", memory.of(Purpose::Cache), note);
        needs.add("loss", memory.of(Purpose::Loss) + memory.of(Purpose::Other), "rows of scores, and what serves them");
        needs.batches(memory.of(Purpose::Batches), memory.host, machine.is_gpu, &bounds);
        if let Some([n_queries, n_passages]) = question.eval_texts {
            let on_device = held.evaluation(n_passages, chunk_tokens, machine.is_gpu)?;
            let dim = model.embedding_size();
            let embeddings = ((n_queries + n_passages) * dim * size_of::<f32>()) as u64;
            let tokenizer = READING_TOKENIZER_FACTOR * tokenizer_len(model);
            let on_host = if machine.is_gpu { 0 } else { tokenizer + embeddings };
            needs.add("evaluation", on_device + on_host, format!("{n_queries} queries, {n_passages} passages"));
        }
        if question.cluster.size() > 1 {
            let Exchanged { embeddings, words, .. } = held.exchange(bounds.n_seqs, bounds.n_ids)?;
            let on_host = ROUND_BYTES + embeddings.bytes.max(words.bytes) as u64;
            let bytes = if machine.is_gpu { NCCL_BYTES } else { on_host };
            needs.add("exchange", bytes, "with other ranks (an estimate)");
        }
        if machine.is_gpu {
            needs.add("CUDA", machine.overhead, "context, kernels and workspaces (an estimate)");
        } else {
            needs.add("program", PROGRAM_BYTES, "and its threads (an estimate)");
            let reading = reading_bytes::<E>(question.from_scratch, model) + PROGRAM_BYTES;
            let more = reading.saturating_sub(needs.total());
            if more > 0 {
                needs.add("reading the model", more, "more than all of the above, before the first step");
            }
        }
        Ok(needs)
    }

    fn batches(&mut self, on_device: u64, on_host: u64, is_gpu: bool, bounds: &crate::train::StepBounds) {
        let note = "token ids and what is sorted by them, of three batches";
        // One batch that is laid out, and token ids of those that wait.
        let at_hand =
            size_of::<i32>() as u64 * (bounds.block_len as u64 + WAITING_BATCHES * bounds.block_len as u64 / 9);
        let host = if is_gpu { 0 } else { on_host + at_hand };
        self.add("batches", on_device + host, note);
    }
}

/// The optimizer's memory, given the size of its buffers. On a processor, the moments of word embeddings that no batch
/// reads are never written to, and memory that is never written to is not taken.
fn optimizer<E: Element>(question: &Question, batches: &Batches, asked_for: u64) -> (u64, &'static str) {
    let note = if E::IS_F32 { "AdamW's two moments" } else { "AdamW's two moments, and the weights in f32" };
    if question.machine.is_gpu {
        return (asked_for, note);
    }
    let model = &question.model.config;
    let row_bytes = model.hidden_size * size_of::<f32>();
    let (table, used) = ((model.vocab_size * row_bytes) as u64, batches.table_bytes(row_bytes, PAGE_BYTES));
    let note = match E::IS_F32 {
        true => "AdamW's two moments, of the words that the run reads",
        false => "the weights in f32, and AdamW's two moments, of the words that the run reads",
    };
    (asked_for - 2 * (table - used.min(table)), note)
}

/// Most memory that a processor needs to read the model: parameter by parameter, first the working weights, while the
/// tokenizer is read, too, then the masters. Pages read of mapped files are included, as the system includes them.
fn reading_bytes<E: Element>(from_scratch: bool, model: &ModelDir) -> u64 {
    let lens: Vec<u64> = specs(&model.config, model.dense.as_ref()).iter().map(|spec| spec.len() as u64).collect();
    let n_all: u64 = lens.iter().sum();
    let file = if from_scratch { 0 } else { model.weights_bytes() };
    let mapped = |n_read: u64| (file as f64 * n_read as f64 / n_all as f64) as u64;
    let (element, wide) = (size_of::<E>() as u64, size_of::<f32>() as u64);
    let (mut working, mut masters, mut n_read) = (0, 0, 0);
    for len in lens {
        // The values read, and their rounded copy; in f32 the former become the latter.
        let rounded = if E::IS_F32 { 0 } else { len * element };
        working = working.max(n_read * element + mapped(n_read + len) + len * wide + rounded);
        n_read += len;
        masters = masters.max(n_read * wide + mapped(n_read) + len * wide);
    }
    let masters = if E::IS_F32 { 0 } else { n_all * element + masters };
    masters.max(working + TOKENIZER_FACTOR * tokenizer_len(model))
}

fn tokenizer_len(model: &ModelDir) -> u64 {
    std::fs::metadata(&model.tokenizer).map_or(0, |file| file.len())
}
