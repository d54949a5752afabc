//! `hbt compare`

use super::compare_runs::compare_runs;
use super::device::{require_device, settle_precision};
use super::eval::evaluate;
use super::evaluations::training_eval_sets;
use super::gpus;
use super::inputs::Inputs;
use super::model::model_dir;
use super::plan::{Planned, planned};
use super::ranks;
use super::report::leave_page;
use super::setup::{finish, warned};
use super::train::{holds_run, next_free, train_one};
use hbt::cli::CompareArgs;
use hbt::config::{Config, Draft};
use hbt::data::sampler::BatchMode;
use hbt::eval::compare::Comparison;
use hbt::progress::say;
use hbt::train::Ranks;
use hbt::train::checkpoint::RunDir;
use hbt::{Error, Result};
use std::path::{Path, PathBuf};

/// The paper's three kinds of batches; the one that the others are held against comes last.
const MODES: [BatchMode; 3] = [BatchMode::Monolingual, BatchMode::CrossLingual, BatchMode::Hybrid];

/// Compares runs that are there, or trains them.
pub fn run(mut args: CompareArgs) -> Result<()> {
    match args.runs()? {
        Some(runs) => ranks::once(|| compare_runs(&runs)),
        None => {
            let draft = args.draft();
            ranks::run(gpus::asked_for(&draft), |ranks| train_and_compare(&args, draft?, ranks))
        }
    }
}

/// Trains once with each kind of batch, everything else being equal, and prints the paper's comparison. All ranks train each.
fn train_and_compare(args: &CompareArgs, draft: Draft, ranks: &Ranks) -> Result<()> {
    if draft.is_given("mode") {
        return Err(Error::config("mode", "has no effect here: all three are compared; take it away"));
    }
    let out_is_given = draft.is_given("out");
    let config = finish(draft)?;
    ranks::expect_progress(ranks, &config);
    require_device(&config)?;
    gpus::require_exchange(ranks, &config)?;
    let config = warned(config);
    let sets = ranks::first_of_machine(ranks, || training_eval_sets(&config))?;
    if sets.is_empty() && config.held_out_share().is_none() {
        return Err(Error::config(
            "eval_data",
            "is missing: a comparison needs an evaluation; name data to evaluate on, or set eval_fraction",
        ));
    }
    let other_out = ranks::of_first(ranks, || other_out(&config, args, out_is_given))?;
    let out = other_out.unwrap_or_else(|| config.out.clone());
    let config = settle_precision(Config { out, ..config }, ranks)?;
    // What the plan decides is the same for all three.
    let dir = ranks::first_of_machine(ranks, || model_dir(&config))?;
    let Planned { config, eval_sets, .. } = planned(config, &dir, sets.clone(), ranks)?;
    let deciding = &eval_sets.first().expect("there is one, or it is held out").set;
    // As training evaluates: with the length that the saved models have.
    let longest = config.text_kinds(&dir)?.map(|kind| kind.max_len).into_iter().max();
    let as_saved = Config { query_max_len: longest, passage_max_len: longest, ..config.clone() };
    let before = evaluate(&as_saved, deciding, config.best_figure(), ranks)?;
    let mut rows = vec![("before".to_owned(), before.clone())];
    for mode in MODES {
        say(&format!("\n{mode}"));
        let config = Config { mode, out: config.out.join(mode.to_string()), ..config.clone() };
        let outcome = train_one(&config, RunDir::new(&config.out), sets.clone(), Some(before.clone()), ranks)?;
        let (_, report) = outcome.state.latest.expect("a run with an evaluation set ends with a report");
        rows.push((mode.to_string(), report));
    }
    if !ranks.leads() {
        return Ok(());
    }
    leave_page(&MODES.map(|mode| config.out.join(mode.to_string())), &config.out);
    crate::print(&format!("\n{}", Comparison::new(rows, config.seed)?))
}

/// Where the three runs go if runs are there already where `config` says, unless that was asked for.
fn other_out(config: &Config, args: &CompareArgs, is_given: bool) -> Result<Option<PathBuf>> {
    let is_taken = |out: &Path| MODES.iter().any(|mode| holds_run(&out.join(mode.to_string())));
    let next = match is_taken(&config.out) {
        true if is_given => {
            let message = "holds runs already; remove them, or choose another directory with --out";
            return Err(Error::file(&config.out, message));
        }
        taken => taken.then(|| next_free(&config.out, is_taken)),
    };
    let inputs = Inputs::of(config, args.run.input.config.config.as_deref());
    for mode in MODES {
        // Found out now, not when the first two have been trained.
        let run_dir = RunDir::new(&next.as_ref().unwrap_or(&config.out).join(mode.to_string()));
        run_dir.refuse_foreign(false)?;
        inputs.refuse_run(&run_dir)?;
    }
    Ok(next)
}
