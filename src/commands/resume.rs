//! `--resume`: the run that it goes on with, and whether the configuration is that run's.

use hbt::cli::TrainArgs;
use hbt::config::{Auto, Config, Draft, KEYS, Key, nearest};
use hbt::progress::say;
use hbt::train::checkpoint::{RunDir, TrainingState};
use hbt::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keys that do not affect the results of a run, and may change when it is resumed. `kept_chunks` is one: chunks that
/// are not kept are computed twice, with the same operations in the same order.
const FREE_KEYS: [&str; 7] = ["out", "threads", "log_steps", "save_steps", "keep_checkpoints", "device", "kept_chunks"];

/// Keys that may change when a complete run is extended.
const LENGTH_KEYS: [&str; 2] = ["steps", "epochs"];

/// What messages call the file of the state.
const STATE_NAME: &str = "last/training_state.json";

/// What `--resume` finds in the run directory: a state to go on from, or `None` for a run that has to start. The settings in
/// the state are the draft's where no file says them. Of several ranks the one that `writes` claims the directory.
pub fn find_run(
    args: &TrainArgs,
    draft: &mut Draft,
    run_dir: &mut RunDir,
    writes: bool,
) -> Result<Option<TrainingState>> {
    if writes {
        run_dir.claim()?;
    }
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
