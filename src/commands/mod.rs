//! The subcommands: what each puts together from the library.

pub mod bench;
pub mod compare;
pub mod config;
mod data;
mod device;
pub mod encode;
pub mod eval;
pub mod info;
pub mod mine;
mod model;
mod output;
pub mod plan;
pub mod prepare;
mod setup;
pub mod trace;
pub mod train;

use hbt::cache::cache_dir;
use hbt::config::{Config, EvalTask};
use hbt::data::formats::{DataFormat, DataSource, Split};
use hbt::eval::tasks::{EvalSet, parallel, xquad_r};
use hbt::progress::say;
use hbt::{Error, Result, embedded};

/// The benchmark to evaluate on while training, if there is one: `eval_data`, or the held-out part of the data.
pub fn training_eval_set(config: &Config) -> Result<Option<EvalSet>> {
    if config.eval_task == EvalTask::None {
        return Ok(None);
    }
    let is_one = config.datasets.is_empty();
    let held_out = is_one && config.split == Split::Train && config.eval_split == Split::Test;
    if config.eval_task == EvalTask::Auto && config.eval_data.is_none() && !held_out {
        if !is_one {
            say("no evaluation: set eval_data");
            return Ok(None);
        }
        say("no evaluation: set eval_data, or split = \"train\" and eval_split = \"test\" for data that is divided");
        return Ok(None);
    }
    eval_set(config).map(Some)
}

/// The configured benchmark.
pub fn eval_set(config: &Config) -> Result<EvalSet> {
    if config.eval_data.is_none() && !config.datasets.is_empty() {
        return Err(Error::config("eval_data", "is missing: with several datasets, name what to evaluate on"));
    }
    let path = match config.eval_data.as_ref().or(config.data.as_ref()) {
        Some(path) => path.clone(),
        None => embedded::data(&cache_dir()?)?,
    };
    let is_squad = match config.eval_task {
        EvalTask::XquadR => true,
        EvalTask::Parallel => false,
        EvalTask::Auto => {
            let source = DataSource { split: config.eval_split, ..DataSource::new(&path) };
            source.resolve()?.format() == DataFormat::Squad
        }
        EvalTask::None => {
            return Err(Error::config(
                "eval_task",
                "is none, so there is nothing to evaluate; set xquad-r or parallel",
            ));
        }
    };
    if is_squad { xquad_r::load(&path, config.eval_split) } else { parallel::load(&path, config.eval_split) }
}
