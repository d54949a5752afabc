//! Training: the loop, GradCache, the optimizer, checkpoints and reports.

mod bounds;
mod card;
pub mod checkpoint;
mod evaluation;
mod feed;
mod first_report;
pub mod grad_cache;
mod kept;
mod leaks;
mod metrics;
mod moments;
mod negatives;
pub mod optimizer;
mod profile;
mod ranks;
pub mod report;
mod results;
pub mod schedule;
mod settings;
mod share;
mod state;
mod stepper;
mod teacher;
mod tensorboard;
mod word_table;

pub use bounds::StepBounds;
pub use feed::{Packing, Slot};
pub use grad_cache::GradCache;
use leaks::Leaks;
pub use negatives::Negatives;
use negatives::{LeftOut, require_negatives};
pub use optimizer::{Optimizer, OptimizerConfig};
pub use ranks::Ranks;
pub use settings::{DropoutRates, RunLength, TrainSettings};
pub use share::{Deal, Share};
pub use stepper::Stepper;

use crate::backend::{Backend, Element};
use crate::data::bounds::BatchBounds;
use crate::data::catalog::TextSource;
use crate::data::datasets::Datasets;
use crate::data::loader::load;
use crate::eval::tasks::EvalSet;
use crate::eval::{EvalReport, FigureKey};
use crate::loss::LearnedTemperature;
use crate::model::{Keep, Packer, specs};
use crate::model_dir::Origin;
use crate::progress::say;
use crate::retriever::Retriever;
use crate::{Result, trace};
use checkpoint::{RunDir, TrainingState};
use feed::{Fed, Feed};
use moments::load_moments;
use profile::Profiler;
use report::{Log, Progress};
use results::Pending;
use schedule::Schedule;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A benchmark that a run evaluates on.
#[derive(Clone, Debug)]
pub struct NamedSet {
    /// Name in reports, where there are several.
    pub name: String,
    /// The benchmark.
    pub set: EvalSet,
}

/// All inputs of a run besides its model.
pub struct Setup<'a> {
    /// Settings of the run.
    pub settings: TrainSettings,
    /// Text of the configuration for the run directory.
    pub config_toml: String,
    /// What the run's result depends on, by name, as the checkpoint is to keep it.
    pub identity: BTreeMap<String, String>,
    /// What the model is made of, for its card.
    pub origin: Origin,
    /// The run directory, which need not exist.
    pub run_dir: RunDir,
    /// The state to resume from, if any. The model must then be the saved one. The first of several ranks has the optimizer's
    /// moments in its run directory, and the others get them from it.
    pub state: Option<TrainingState>,
    /// The processor's instructions, as far as they affect bytes
    /// ([`least_alike`](crate::backend::cpu::Instructions::least_alike)); `None` on a GPU.
    pub instructions: Option<String>,
    /// The report on the model before the first step, by the first evaluation, if it is known already.
    pub before: Option<EvalReport>,
    /// Directory in which reports on the model before the first step are kept for other runs, if they are to be.
    pub report_cache: Option<PathBuf>,
    /// Tokenized training data.
    pub data: Arc<Datasets>,
    /// Evaluation data, if any, by different names. The first decides which model is best.
    pub eval_sets: Vec<NamedSet>,
    /// The base model's name in reports; what comes of it is called `last` there, as its directory is.
    pub model_name: String,
    /// Steps to profile, the first being 1; `None` leaves profilers alone.
    pub profile_steps: Option<Range<u64>>,
    /// Set from outside to end the run after the present step.
    pub interrupt: &'a AtomicBool,
    /// The ranks that train together, all with the same setup. The first writes what is written.
    pub ranks: Ranks,
}

impl Setup<'_> {
    /// A new run, without an evaluation and without interruption; `config_toml` is kept beside its models.
    pub fn new(settings: TrainSettings, config_toml: String, run_dir: RunDir, data: Arc<Datasets>) -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Setup {
            settings,
            config_toml,
            identity: BTreeMap::new(),
            origin: Origin::default(),
            run_dir,
            state: None,
            instructions: None,
            before: None,
            report_cache: None,
            data,
            eval_sets: Vec::new(),
            model_name: "model".to_owned(),
            profile_steps: None,
            interrupt: &NEVER,
            ranks: Ranks::default(),
        }
    }

    /// What an evaluation is called, if there are others that it could be taken for.
    fn name_among_several(&self, number: usize) -> Option<&str> {
        (self.eval_sets.len() > 1).then(|| self.eval_sets[number].name.as_str())
    }
}

/// End of a run.
pub struct Outcome {
    /// The last state, which has been saved.
    pub state: TrainingState,
    /// Whether it was interrupted, and can be resumed.
    pub interrupted: bool,
}

/// Trains `retriever` as `setup` says.
///
/// # Errors
/// Data that cannot serve the configured batches, a loss that is not finite, no memory or disk space left.
pub fn run<B: Backend>(retriever: &mut Retriever<B>, setup: Setup) -> Result<Outcome> {
    // Training needs only token ids: until an evaluation, the optimizer can have the tokenizer's memory.
    retriever.carry()?;
    retriever.release_tokenizer();
    let ranks = setup.ranks.clone();
    ranks.connect(&retriever.backend)?;
    let outcome = train(retriever, setup)?;
    ranks.disconnect(&retriever.backend)?;
    Ok(outcome)
}

fn train<B: Backend>(retriever: &mut Retriever<B>, setup: Setup) -> Result<Outcome> {
    let mut trainer = Trainer::new(retriever, setup)?;
    trainer.setup.ranks.require_same("run", &trainer.state.identity())?;
    let remaining = trainer.state.step + 1..trainer.state.total_steps + 1;
    let mut profiler = Profiler::new(trainer.setup.profile_steps.as_ref(), remaining)?;
    // Only now, so that a run that cannot begin leaves nothing behind.
    let is_resumed = trainer.setup.state.is_some();
    if trainer.leads() {
        trainer.setup.run_dir.create(&trainer.setup.config_toml, is_resumed)?;
    }
    trainer.evaluate_before()?;
    let first = trainer.state.step;
    let is_evaluated = trainer.state.latest.as_ref().is_some_and(|(at, _)| *at == first);
    let metrics = trainer.leads().then(|| trainer.setup.run_dir.open_metrics(first, is_evaluated)).transpose()?;
    let progress = Progress::new(first, trainer.state.total_steps, trainer.setup.settings.log_steps);
    let mut log = Log { progress, metrics };
    trainer.log_before(&mut log)?;
    let mut is_over = trainer.evaluate_if_due(&mut log)?;
    while !is_over && let Some(batch) = trainer.next_batch(&mut log)? {
        trainer.setup.ranks.begin_step(trainer.state.step + 1);
        profiler.before_step(&trainer.retriever.backend, trainer.state.step + 1)?;
        trainer.step(batch, &mut log)?;
        profiler.after_step(&trainer.retriever.backend, trainer.state.step)?;
        // All ranks stop after the same step, whichever was asked to.
        if trainer.setup.ranks.any(trainer.setup.interrupt.load(Ordering::Relaxed))? {
            trainer.await_results(&mut log)?;
            log.progress.finish();
            trainer.save()?;
            return Ok(Outcome { state: trainer.state, interrupted: true });
        }
        is_over = trainer.evaluate_if_due(&mut log)?;
        if trainer.save_is_due() && !is_over {
            trainer.await_results(&mut log)?;
            trainer.save()?;
        }
    }
    trainer.await_results(&mut log)?;
    log.progress.finish();
    trainer.left_out.in_words().iter().for_each(|line| say(line));
    trainer.finish(&mut log)
}

/// A run in progress.
struct Trainer<'a, B: Backend> {
    retriever: &'a mut Retriever<B>,
    setup: Setup<'a>,
    state: TrainingState,
    /// The figure that picks the best model, if there is an evaluation
    best_metric: Option<FigureKey>,
    feed: Feed<B>,
    schedule: Schedule,
    stepper: Stepper<B>,
    /// The last step, until its results have arrived
    pending: Option<Pending<B>>,
    /// Results on the host
    results: Vec<f32>,
    left_out: LeftOut,
    /// For each evaluation what its data has in common with that of training
    leaks: Vec<Leaks>,
    /// Time when results last arrived
    last_results: Instant,
}

impl<'a, B: Backend> Trainer<'a, B> {
    fn new(retriever: &'a mut Retriever<B>, setup: Setup<'a>) -> Result<Self> {
        let settings = &setup.settings;
        let best_metric = setup.eval_sets.first().map(|of| of.set.deciding(settings.best_metric)).transpose()?;
        let sampler = settings.mixture_of(&setup.data.weighted())?;
        sampler.notes().iter().for_each(|note| say(note));
        let state = TrainingState::first(&setup, settings.total_steps(sampler.steps_per_pass()))?;
        let (backend, encoder) = (&retriever.backend, &retriever.encoder);
        let specs = specs(&retriever.dir.config, retriever.dir.dense.as_ref());
        let batch_size = settings.sampler.batch_size;
        let batch_bounds = BatchBounds::new(setup.data.caches(), batch_size, settings.negatives.per_query);
        let deal = setup.ranks.deal();
        let bounds = StepBounds::of_share(deal, &batch_bounds, settings.chunk_tokens, encoder.config.vocab_size);
        let bounds = bounds.for_loss(&settings.loss);
        let peers = setup.ranks.peers();
        let master = || if B::E::IS_F32 { Ok(None) } else { retriever.f32_weights(peers).map(Some) };
        let mut stepper = Stepper::new(backend, encoder, &specs, master, settings, &bounds, setup.ranks.clone())?;
        if state.updates() > 0 {
            let path = setup.run_dir.moments();
            load_moments(&path, peers, backend, &specs, &mut stepper.optimizer, state.updates())?;
        }
        if let Some(bits) = state.temperature {
            stepper.loss.config.temperature = LearnedTemperature::from_bits(bits).temperature() as f32;
        }
        let rules = settings.negative_rules(&*setup.data)?;
        teacher::notes(settings, &setup.data)?.iter().for_each(|note| say(note));
        negatives::warnings(settings, &setup.data).iter().for_each(|warning| say(&format!("warning: {warning}")));
        let added_steps = state.total_steps - state.extended_at;
        let schedule = Schedule::new(settings.lr_schedule, settings.warmup_ratio, added_steps)?;
        if schedule.is_idle() {
            say(
                "warning: the learning rate of the only step is 0, as the schedule warms up from there: nothing is learned; \
                 set warmup_ratio = 0, or more steps",
            );
        }
        let leaks: Vec<Leaks> = setup.eval_sets.iter().map(|of| Leaks::find(&of.set, &*setup.data)).collect();
        for (number, leak) in leaks.iter().enumerate() {
            let which = setup.name_among_several(number).map_or(String::new(), |name| format!("{name}: "));
            leak.in_words().iter().for_each(|leak| say(&format!("warning: {which}{leak}")));
        }
        let steps = state.step..state.total_steps;
        let source: Arc<dyn TextSource> = setup.data.clone();
        let batches = load(move |step| sampler.batch(step), source, steps, rules)?;
        let packer = Packer::new(&encoder.config, settings.chunk_tokens, Keep::Everything);
        let n_results = stepper.n_results(batch_size);
        Ok(Trainer {
            feed: Feed::start(backend, batches, packer, deal, bounds.block_len, n_results)?,
            schedule,
            stepper,
            retriever,
            setup,
            state,
            best_metric,
            pending: None,
            results: Vec::new(),
            left_out: LeftOut::default(),
            leaks,
            last_results: Instant::now(),
        })
    }

    /// The batch of the present step; `None` after the last.
    fn next_batch(&mut self, log: &mut Log) -> Result<Option<Fed<B>>> {
        let batch = self.feed.next(&self.retriever.backend).transpose();
        if batch.is_err() {
            // The steps before it are done and get their lines.
            self.await_results(log)?;
        }
        batch
    }

    /// Launches one update, and reports the one before it.
    fn step(&mut self, mut fed: Fed<B>, log: &mut Log) -> Result<()> {
        if self.state.temperature.is_some() {
            // A learned temperature depends on the previous loss. By now the device has done most of that step.
            self.await_results(log)?;
            self.agree_on_temperature()?;
        }
        let start = Instant::now();
        let _range = trace::step(self.state.step + 1, fed.batch.n_tokens());
        let dropout = self.setup.settings.step_dropout(self.state.step);
        let learning_rate = self.setup.settings.learning_rate * self.schedule.factor(self.state.updates());
        let Retriever { backend, encoder, .. } = &mut *self.retriever;
        let (packed, results) = fed.begin(backend)?;
        self.stepper.step(backend, encoder, packed, dropout, learning_rate as f32, results)?;
        self.state.step += 1;
        // The device has work again: now wait for its previous results.
        let done = self.pending.replace(Pending { fed, step: self.state.step, learning_rate, start });
        done.map_or(Ok(()), |done| self.report_step(done, log))?;
        let pending = self.pending.as_mut().expect("just put there");
        if self.retriever.backend.has_arrived(pending.fed.results())? {
            self.await_results(log)?;
        }
        Ok(())
    }

    /// Applies all updates up to the present step to all weights, for readers of the whole model.
    fn catch_up(&mut self) -> Result<()> {
        assert!(self.pending.is_none(), "a step's results come before what follows from it");
        let Retriever { backend, encoder, .. } = &mut *self.retriever;
        self.stepper.optimizer.catch_up(backend, &mut encoder.weights)
    }

    fn save_is_due(&self) -> bool {
        let every = self.setup.settings.save_steps;
        self.state.step.is_multiple_of(every) && self.state.step < self.state.total_steps
    }

    /// Whether this is the rank that writes.
    fn leads(&self) -> bool {
        self.setup.ranks.leads()
    }

    /// Fails unless all ranks have the same weights.
    fn compare_ranks(&self) -> Result<()> {
        let Retriever { backend, encoder, .. } = &*self.retriever;
        self.setup.ranks.compare_weights(backend, encoder.weights.iter())
    }

    fn save(&mut self) -> Result<()> {
        let _range = trace::phase("save");
        self.catch_up()?;
        self.compare_ranks()?;
        if !self.leads() {
            return Ok(());
        }
        let card = self.card();
        self.setup.run_dir.save_last(
            self.retriever,
            &self.stepper.optimizer,
            &card,
            &self.state,
            self.setup.settings.keep_checkpoints,
        )
    }

    /// Makes the last evaluation and the last save.
    fn finish(mut self, log: &mut Log) -> Result<Outcome> {
        let step = self.state.step;
        if self.state.latest.as_ref().is_none_or(|(at, _)| *at != step) {
            self.evaluate(log)?;
        }
        self.state.complete = true;
        self.save()?;
        if self.leads() {
            self.setup.run_dir.write_reports(&self.state)?;
        }
        Ok(Outcome { state: self.state, interrupted: false })
    }
}
