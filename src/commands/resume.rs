//! `--resume`: the run that it goes on with, and whether the configuration is that run's.

use super::ranks;
use hbt::cli::TrainArgs;
use hbt::config::{Auto, Config, Draft, KEYS, Key, nearest};
use hbt::progress::say;
use hbt::train::Ranks;
use hbt::train::checkpoint::{RunDir, TrainingState};
use hbt::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keys that do not affect the results of a run, and may change when it is resumed. `kept_chunks` is one: chunks that
/// are not kept are computed twice, with the same operations in the same order.
const FREE_KEYS: [&str; 8] =
    ["out", "threads", "log_steps", "save_steps", "keep_checkpoints", "device", "kept_chunks", "stall_minutes"];

/// Keys that may change when a complete run is extended.
const LENGTH_KEYS: [&str; 2] = ["steps", "epochs"];

/// What messages call the file of the state.
const STATE_NAME: &str = "last/training_state.json";

/// What a run begins with.
pub struct Beginning {
    /// The configuration, with what the run directory says where the command resumes.
    pub draft: Draft,
    /// The run directory.
    pub run_dir: RunDir,
    /// The state to go on from.
    pub state: Option<TrainingState>,
}

/// What the first process has found in the run directory, for those that need not have one.
#[derive(Serialize, Deserialize)]
struct Found {
    /// The file that has the run's settings, and its text, where no argument names one.
    settings: Option<(PathBuf, String)>,
    state: Option<TrainingState>,
}

/// What all processes of a run begin with: only the first looks at the run directory, and has its `draft` from there.
///
/// # Errors
/// A configuration that cannot be, and what keeps the run from going on.
pub fn beginning(args: &TrainArgs, draft: Result<Draft>, ranks: &Ranks) -> Result<Beginning> {
    if ranks.leads() {
        let mut draft = draft?;
        let mut run_dir = RunDir::new(&draft.so_far().out);
        let state = if args.resume { find_run(args, &mut draft, &mut run_dir)? } else { None };
        if !ranks.is_alone() {
            let settings = settings_of(args, &run_dir, state.as_ref());
            ranks::of_first(ranks, || Ok(Found { settings, state: state.clone() }))?;
        }
        return Ok(Beginning { draft, run_dir, state });
    }
    let Found { settings, state } = ranks::of_first(ranks, || unreachable!("asked of the first"))?;
    let draft = args.draft_with(settings.as_ref().map(|(file, text)| (file.as_path(), text.as_str())))?;
    let run_dir = RunDir::new(&draft.so_far().out);
    Ok(Beginning { draft, run_dir, state })
}

/// The file that the settings of a run to resume have been read from, and its text: none where an argument names one.
fn settings_of(args: &TrainArgs, run_dir: &RunDir, state: Option<&TrainingState>) -> Option<(PathBuf, String)> {
    if !args.resume || args.run.input.config.config.is_some() {
        return None;
    }
    let of_file = std::fs::read_to_string(run_dir.config()).ok().map(|text| (run_dir.config(), text));
    of_file.or_else(|| state.map(|state| (run_dir.state_file(), as_toml(state))))
}

/// What `--resume` finds in the run directory: a state to go on from, or `None` for a run that has to start. The settings in
/// the state are the draft's where no file says them.
fn find_run(args: &TrainArgs, draft: &mut Draft, run_dir: &mut RunDir) -> Result<Option<TrainingState>> {
    run_dir.claim()?;
    let (state, path) = (run_dir.state()?, run_dir.config());
    let names_file = args.run.input.config.config.is_some();
    let text = std::fs::read_to_string(&path).ok();
    let is_empty = text.as_ref().is_some_and(|text| text.trim().is_empty());
    match (&state, text) {
        _ if is_empty && !names_file => {
            let remedy = match state {
                Some(_) => format!("--resume takes the run's settings from {STATE_NAME}"),
                None => "name the run's model and data: nothing was saved of it".to_owned(),
            };
            let message = format!("is empty; remove it, and {remedy}");
            return Err(Error::file(path, message));
        }
        (Some(state), None) if !names_file => {
            let from = run_dir.state_file();
            say(&format!("{} is missing: going on with the settings in {}", path.display(), from.display()));
            draft.saved(&from, &as_toml(state))?;
        }
        (None, Some(_)) => start_again(run_dir)?,
        (None, None) => {
            let is_of_any = |key: &str| key == "out" || FREE_KEYS.contains(&key) || LENGTH_KEYS.contains(&key);
            let says_what = |key: &Key| !is_of_any(key.name) && draft.is_given(key.name);
            // Somebody who names a directory and nothing else has a run there in mind.
            if draft.is_typed("out") && !names_file && !KEYS.iter().any(says_what) {
                let near = near_run(run_dir.path());
                let near = near.map_or("check --out".to_owned(), |near| format!("did you mean {}?", near.display()));
                let message =
                    format!("holds no run to resume; {near}, or name a model, data or a setting to start one there");
                return Err(Error::file(run_dir.path(), message));
            }
            let near = near_run(run_dir.path());
            let near = near.map_or(String::new(), |near| format!(" (there is a run in {})", near.display()));
            say(&format!("nothing to resume in {}{near}: starting", run_dir.path().display()));
        }
        (Some(_), _) => {}
    }
    Ok(state)
}

/// Says that a run without a state starts again, or refuses to where it had one.
fn start_again(run_dir: &RunDir) -> Result<()> {
    let (last, reported) = (run_dir.last(), run_dir.last_reported_step()?);
    let save_steps = Config::load(&run_dir.config())?.save_steps as u64;
    // The step after a save is reported only if the save was made, and so is the end. That the last step was reported proves
    // nothing: its save may have failed.
    if reported > save_steps || !run_dir.kept()?.is_empty() || run_dir.reports_end() {
        let message = format!(
            "is missing, and the run had saved there: it got to step {reported}; put it back, or start again in another \
             directory with --out"
        );
        return Err(Error::file(last, message));
    }
    let message = match reported {
        0 => "the run had not saved yet, and starts again".to_owned(),
        _ => format!("nothing is left of the run, which got to step {reported}, to go on from: it starts again"),
    };
    say(&format!("{} is not there: {message}", last.display()));
    Ok(())
}

/// The run whose directory is called most like `path`, beside it, if any is called nearly so.
fn near_run(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(parent).ok()?.flatten().map(|entry| path.with_file_name(entry.file_name()));
    let runs: Vec<PathBuf> = beside.filter(|path| RunDir::new(path).has_state()).collect();
    let names: Vec<&str> = runs.iter().filter_map(|run| run.file_name()?.to_str()).collect();
    nearest(name, names).map(|name| path.with_file_name(name))
}

/// The settings of a run that its result depends on, as its state keeps them.
pub fn identity_of(config: &Config) -> BTreeMap<String, String> {
    let keys = KEYS.iter().filter(|key| !FREE_KEYS.contains(&key.name));
    keys.map(|key| (key.name.to_owned(), key.value_of(config))).collect()
}

/// The settings in a state as a configuration file.
fn as_toml(state: &TrainingState) -> String {
    state.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// Fails if the configuration would turn the resumed run into a different run. `auto` means the run's own value. Whether a
/// complete run is to be extended is returned.
pub fn check_same_run(config: &mut Config, state: &TrainingState, run_dir: &RunDir) -> Result<bool> {
    let mut saved = Draft::new();
    saved.saved(&run_dir.state_file(), &as_toml(state))?;
    let saved = saved.finish()?;
    if config.precision == Auto::Auto {
        config.precision = saved.precision;
    }
    if config.best_metric == Auto::Auto {
        config.best_metric = saved.best_metric.clone();
    }
    if config.chunk_tokens == Auto::Auto {
        config.chunk_tokens = saved.chunk_tokens;
    }
    let mut is_extended = false;
    for key in KEYS.iter().filter(|key| state.settings.contains_key(key.name)) {
        let (was, is) = (key.value_of(&saved), key.value_of(config));
        let is_length = LENGTH_KEYS.contains(&key.name);
        if was != is && is_length && state.complete {
            is_extended = true;
        } else if was != is {
            let first = if is_length { "; let the run come to its end, and extend it then" } else { "" };
            let message = format!(
                "was {was} when the run in {} began, and is {is} now{first}; take that back, or train on from what it saved, \
                 in another directory: --model {} --out ANOTHER",
                run_dir.path().display(),
                run_dir.last().display()
            );
            return Err(Error::config(key.name, message));
        }
    }
    Ok(is_extended)
}
