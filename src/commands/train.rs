//! `hbt train`

use super::data::data_names;
use super::device::{self, Job, on_device, precision, require_device, settle_precision};
use super::evaluations::training_eval_sets;
use super::gpus;
use super::inputs::Inputs;
use super::model::{kernels_of, model_dir, model_name, of_first};
use super::plan::{Planned, planned};
use super::ranks;
use super::report::leave_page;
use super::resume::{Beginning, beginning, check_same_run, identity_of};
use super::setup::{finish, warned};
use super::trace::INTERRUPTED;
use hbt::backend::Backend;
use hbt::backend::cpu::Instructions;
use hbt::backend::cuda::Kernels;
use hbt::cache::cache_dir;
use hbt::cli::TrainArgs;
use hbt::config::{Config, Draft};
use hbt::data::datasets::Datasets;
use hbt::error::counted;
use hbt::eval::{EvalReport, SideBySide};
use hbt::model_dir::{ModelDir, Origin};
use hbt::progress::{be_quiet, say};
use hbt::retriever::{Retriever, RetrieverSettings};
use hbt::train::checkpoint::{OtherEvaluation, RunDir, TrainingState};
use hbt::train::{NamedSet, Outcome, Ranks, Setup, TrainSettings};
use hbt::{Error, Result, signals};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by Ctrl-C.
static INTERRUPT: AtomicBool = AtomicBool::new(false);

/// Trains, and prints the figures before and after.
pub fn run(args: TrainArgs) -> Result<ExitCode> {
    if let Some(ended) = ranks::start(&args)? {
        return Ok(ended);
    }
    let draft = args.draft();
    ranks::run(gpus::asked_for(&draft), |ranks| train(args, draft, ranks))
}

/// Trains as one of `ranks`.
fn train(args: TrainArgs, draft: Result<Draft>, ranks: &Ranks) -> Result<ExitCode> {
    if args.quiet {
        be_quiet();
    }
    if args.profile_steps.is_some() {
        // No ranges before the first of these steps.
        hbt::trace::set_active(false);
    }
    let Beginning { draft, mut run_dir, state } = beginning(&args, draft, ranks)?;
    let typed = draft.clone();
    let mut config = finish(draft)?;
    // Before anything takes long.
    ranks.require_same("configuration", &config.to_toml())?;
    ranks::expect_progress(ranks, &config);
    let inputs = Inputs::of(&config, args.run.input.config.config.as_deref());
    inputs.refuse_trace(&args.trace)?;
    match &state {
        Some(state) => {
            let is_extended = check_same_run(&mut config, state, &run_dir).map_err(|error| typed.place(error))?;
            if state.complete && !is_extended {
                return if !ranks.leads() { Ok(ExitCode::SUCCESS) } else { show_complete(&config, state, &run_dir) };
            }
        }
        None => {
            let out = if args.resume { None } else { ranks::of_first(ranks, || other_out(&typed, &config.out))? };
            if let Some(out) = out {
                config.out = out;
                run_dir = RunDir::new(&config.out);
            }
            if ranks.leads() {
                inputs.refuse_run(&run_dir)?;
            }
        }
    }
    require_device(&config)?;
    gpus::require_exchange(ranks, &config)?;
    let config = settle_precision(warned(config), ranks)?;
    handle_interrupts()?;
    let eval_sets = ranks::first_of_machine(ranks, || training_eval_sets(&config))?;
    let job = TrainJob::new(config, run_dir, state, eval_sets, None, ranks)?;
    let config = job.config.clone();
    ranks.require_same("configuration", &job.for_all_ranks())?;
    let outcome = on_device(&config, TrainJob { profile_steps: args.profile_steps, ..job })?;
    if !ranks.leads() {
        return Ok(if outcome.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS });
    }
    leave_page(std::slice::from_ref(&config.out), &config.out);
    print_outcome(&config, &outcome)?;
    Ok(if outcome.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Runs one training from its base model, as all ranks do.
pub fn train_one(
    config: &Config,
    run_dir: RunDir,
    eval_sets: Vec<NamedSet>,
    before: Option<EvalReport>,
    ranks: &Ranks,
) -> Result<Outcome> {
    let job = TrainJob::new(config.clone(), run_dir, None, eval_sets, before, ranks)?;
    ranks.require_same("configuration", &job.for_all_ranks())?;
    on_device(config, job)
}

struct TrainJob {
    config: Config,
    /// The configuration for the run directory: `config`, but with `auto` where the device decides, so that a resuming
    /// machine decides anew.
    saved_config: Config,
    settings: TrainSettings,
    data: Arc<Datasets>,
    run_dir: RunDir,
    dir: ModelDir,
    /// How `dir` embeds; a resumed run has its weights in the checkpoint.
    retriever: RetrieverSettings,
    state: Option<TrainingState>,
    instructions: Option<String>,
    eval_sets: Vec<NamedSet>,
    before: Option<EvalReport>,
    profile_steps: Option<Range<u64>>,
    ranks: Ranks,
}

impl TrainJob {
    /// The job, with its settings as the plan chooses them, by all ranks at once.
    fn new(
        config: Config,
        run_dir: RunDir,
        state: Option<TrainingState>,
        eval_sets: Vec<NamedSet>,
        before: Option<EvalReport>,
        ranks: &Ranks,
    ) -> Result<Self> {
        if ranks.leads() {
            run_dir.refuse_foreign(state.is_some())?;
        }
        let dir = match &state {
            Some(_) => of_first(ranks, || ModelDir::open_checkpoint(run_dir.last()), ModelDir::open_checkpoint)?,
            None => of_first(ranks, || model_dir(&config), ModelDir::open)?,
        };
        let kept_by_default = config.kept_chunks.is_none();
        let precision = precision(&config);
        let Planned { config, settings, data, eval_sets } = planned(config, &dir, eval_sets, ranks)?;
        let mut retriever = config.retriever(&dir)?;
        let mut saved_config = config.clone();
        if kept_by_default {
            saved_config.kept_chunks = None;
        }
        let instructions = device::instructions_of(&config, precision);
        if let Some(state) = &state {
            retriever.from_scratch = None;
            let path = run_dir.path().display();
            say(&match state.complete {
                true => format!("extending {path} at step {}: learning rate and moments begin anew", state.step),
                false => format!("resuming {path} at step {} of {}", state.step, state.total_steps),
            });
            let chosen = Instructions::chosen().to_string();
            let warning = instructions_warning(state.instructions.as_deref(), instructions.as_deref(), &chosen);
            warning.iter().for_each(|warning| say(warning));
        }
        let data = Arc::new(data);
        let (profile_steps, ranks) = (None, ranks.clone());
        Ok(TrainJob {
            config,
            saved_config,
            settings,
            data,
            run_dir,
            dir,
            retriever,
            state,
            instructions,
            eval_sets,
            before,
            profile_steps,
            ranks,
        })
    }

    /// What has to be the same in all ranks, a line each: the program, the instructions, the configuration as it was chosen.
    fn for_all_ranks(&self) -> String {
        let instructions = self.instructions.as_deref().unwrap_or("a GPU");
        format!("hbt {}\ncomputes with {instructions}\n{}", env!("CARGO_PKG_VERSION"), self.config.to_toml())
    }
}

impl Job for TrainJob {
    type Output = Outcome;

    fn kernels(&self) -> Result<Kernels> {
        Ok(kernels_of(&self.dir, true))
    }

    fn ranks(&self) -> Ranks {
        self.ranks.clone()
    }

    fn run<B: Backend>(self, backend: B) -> Result<Outcome> {
        let config = &self.config;
        let mut retriever = Retriever::load_among(self.ranks.peers(), backend, self.dir, self.retriever)?;
        say(&describe(config, &retriever, self.run_dir.path()));
        length_note(&retriever.settings).iter().for_each(|note| say(note));
        prefix_warnings(config, &retriever).iter().for_each(|warning| say(&format!("warning: {warning}")));
        let setup = Setup {
            settings: self.settings,
            config_toml: self.saved_config.to_toml(),
            identity: identity_of(&self.saved_config),
            origin: Origin {
                base_model: config.base_model(),
                from_scratch: config.from_scratch,
                data: data_names(config),
            },
            run_dir: self.run_dir,
            state: self.state,
            instructions: self.instructions,
            before: self.before,
            report_cache: cache_dir().ok(),
            data: self.data,
            eval_sets: self.eval_sets,
            model_name: model_name(config),
            profile_steps: self.profile_steps,
            interrupt: &INTERRUPT,
            ranks: self.ranks,
        };
        hbt::train::run(&mut retriever, setup)
    }
}

/// Describes the run that is about to start, in two lines.
fn describe<B: Backend>(config: &Config, retriever: &Retriever<B>, out: &Path) -> String {
    let model = &retriever.encoder.config;
    let alpha = match config.mode {
        hbt::data::sampler::BatchMode::Hybrid => format!(" (alpha {})", config.alpha),
        _ => String::new(),
    };
    format!(
        "model {}: {}, hidden size {}, vocabulary {}, on {}\n{}{alpha} batches of {}, into {}",
        model_name(config),
        counted(model.layers.len() as u64, "layer"),
        model.hidden_size,
        model.vocab_size,
        retriever.backend.name(),
        config.mode,
        config.batch_size,
        out.display()
    )
}

/// One line if the saved model will not cut texts where its training does.
fn length_note(settings: &RetrieverSettings) -> Option<String> {
    let (query, passage) = (settings.query.max_len, settings.passage.max_len);
    (query != passage).then(|| {
        format!(
            "trained on queries of {query} tokens and passages of {passage}; evaluated and saved with {} for both, since \
             sentence-transformers knows one length",
            query.max(passage)
        )
    })
}

/// Warnings about prefixes of datasets that users of the saved model will not put before a text.
fn prefix_warnings<B: Backend>(config: &Config, retriever: &Retriever<B>) -> Vec<String> {
    let mut warnings = Vec::new();
    for dataset in &config.datasets {
        for (key, own, saved) in [
            ("query_prefix", &dataset.query_prefix, &retriever.settings.query.prefix),
            ("passage_prefix", &dataset.passage_prefix, &retriever.settings.passage.prefix),
        ] {
            if let Some(own) = own.as_ref().filter(|own| *own != saved) {
                let name = dataset.label();
                warnings.push(format!(
                    "dataset {name:?} has {key} {own:?}, but the model is evaluated and saved with {saved:?}; set \
                     {key} outside of the tables to change that"
                ));
            }
        }
    }
    warnings
}

/// Whether `out` holds a run that could be lost or resumed: a run that ended before its first save has left nothing.
pub fn holds_run(out: &Path) -> bool {
    RunDir::new(out).has_state()
}

/// Where a run goes that finds another in `out`, unless `out` was asked for.
fn other_out(typed: &Draft, out: &Path) -> Result<Option<PathBuf>> {
    if holds_run(out) && typed.is_given("out") {
        let message = "holds a run already; add --resume to go on with it, or choose another directory with --out";
        return Err(Error::file(out, message));
    }
    Ok(holds_run(out).then(|| next_free(out, holds_run)))
}

/// Shows the result of a run that has come to its end.
fn show_complete(config: &Config, state: &TrainingState, run_dir: &RunDir) -> Result<ExitCode> {
    run_dir.refuse_foreign(true)?;
    run_dir.write_reports(state)?;
    say(&format!("the run in {} is complete: nothing to resume", run_dir.path().display()));
    say(&format!("more steps than its {} extend it: --set steps=N", state.step));
    leave_page(&[run_dir.path().to_owned()], run_dir.path());
    print_outcome(config, &Outcome { state: state.clone(), interrupted: false })?;
    Ok(ExitCode::SUCCESS)
}

/// The warning if other instructions than the `chosen` ones, which may have given other bytes, have computed the run so far.
fn instructions_warning(before: Option<&str>, now: Option<&str>, chosen: &str) -> Option<String> {
    let (before, now) = (before?, now?);
    (before != now).then(|| {
        format!(
            "warning: computed as with {before} up to here and with {chosen} from here on: the bytes may differ from those of a \
             run that was never stopped; HBT_CPU={before} keeps them"
        )
    })
}

/// `runs/train-2`, `runs/train-3`, ...: the first for which `is_taken` is false.
pub fn next_free(out: &Path, is_taken: impl Fn(&Path) -> bool) -> PathBuf {
    let numbered = |n: u32| {
        let mut name = out.as_os_str().to_owned();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    (2..).map(numbered).find(|path| !is_taken(path)).expect("there is always a next number")
}

/// Ctrl-C (or SIGTERM) ends the run after the step in hand; a second one ends the process.
fn handle_interrupts() -> Result<()> {
    signals::on_interrupt(|| {
        if INTERRUPT.swap(true, Ordering::Relaxed) {
            super::trace::interrupted();
        }
        say("stopping after this step; press Ctrl-C again to stop at once");
    })
}

fn print_outcome(config: &Config, outcome: &Outcome) -> Result<()> {
    let out = config.out.display();
    let state = &outcome.state;
    if outcome.interrupted {
        say(&format!("saved step {} of {} in {out}; go on with:", state.step, state.total_steps));
        return crate::print(&format!("hbt train --out {out} --resume\n"));
    }
    if let Some((_, after)) = &state.latest {
        print_figures(state.evaluation.as_deref(), state.before.as_ref(), after)?;
    }
    for OtherEvaluation { name, before, latest, .. } in &state.others {
        if let Some(after) = latest {
            print_figures(Some(name), before.as_ref(), after)?;
        }
    }
    if let (Some((step, value)), Some((_, report))) = (state.best, &state.latest) {
        let of = state.evaluation.as_ref().map_or(String::new(), |name| format!("{name} "));
        let figure = config.best_figure().unwrap_or(report.main);
        say(&format!("{out}/best: step {step}, {of}{figure} {value:.4}"));
    }
    say(&format!("{out}/last: step {}", state.step));
    Ok(())
}

/// Prints what an evaluation has found, under its name where there are several.
fn print_figures(name: Option<&str>, before: Option<&EvalReport>, after: &EvalReport) -> Result<()> {
    let name = name.map_or(String::new(), |name| format!("{name}\n"));
    match before {
        Some(before) => crate::print(&format!("\n{name}{}\n", SideBySide { before, after })),
        None => crate::print(&format!("\n{name}{after}\n")),
    }
}
