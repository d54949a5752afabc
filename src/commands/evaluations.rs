//! What a run evaluates on: what the single keys name, and the `[[evaluations]]`.

use super::data::{datasets, say_notes};
use super::eval::eval_set;
use super::tasks;
use hbt::config::{Auto, BestMetric, Config, Evaluation, EvaluationTask};
use hbt::data::formats::{DataFormat, Purpose, Split};
use hbt::eval::tasks::EvalSet;
use hbt::progress::say;
use hbt::train::NamedSet;
use hbt::{Error, Result};

/// The benchmarks to evaluate on while training, the deciding one first. What `eval_fraction` holds out is known when the data
/// is tokenized, and [added](with_held_out) then.
pub fn training_eval_sets(config: &Config) -> Result<Vec<NamedSet>> {
    let single = single_eval_set(config)?.map(of_single_keys);
    let of_tables = config.evaluations.iter().map(|evaluation| load(config, evaluation));
    let sets = single.into_iter().map(Ok).chain(of_tables).collect::<Result<Vec<_>>>()?;
    // A name may be that of what is held out.
    if config.held_out_share().is_some() { Ok(sets) } else { deciding_first(config, sets) }
}

/// The same with what is held out of the training data, which comes before the tables.
pub fn with_held_out(config: &Config, held_out: EvalSet, mut sets: Vec<NamedSet>) -> Result<Vec<NamedSet>> {
    sets.insert(0, of_single_keys(held_out));
    deciding_first(config, sets)
}

fn of_single_keys(set: EvalSet) -> NamedSet {
    NamedSet { name: set.task.name.to_owned(), set }
}

/// `sets` with the one in front that `best_metric` is of; without a name that is the first.
fn deciding_first(config: &Config, mut sets: Vec<NamedSet>) -> Result<Vec<NamedSet>> {
    let names: Vec<&str> = sets.iter().map(|of| of.name.as_str()).collect();
    // Those of tables are checked with the configuration.
    if let Some(first) = names.first().filter(|first| names[1..].contains(first)) {
        let message = format!("what eval_data or eval_fraction gives is called {first:?}; give the table another name");
        return Err(Error::config("evaluations", message));
    }
    let Auto::Of(BestMetric { evaluation: Some(wanted), .. }) = &config.best_metric else { return Ok(sets) };
    if sets.is_empty() {
        return Ok(sets);
    }
    let Some(at) = names.iter().position(|name| name == wanted) else {
        let message = format!("there is no evaluation {wanted:?}; there are {}", names.join(", "));
        return Err(Error::config("best_metric", message));
    };
    sets[..=at].rotate_right(1);
    Ok(sets)
}

/// The benchmark of one of the tables.
fn load(config: &Config, evaluation: &Evaluation) -> Result<NamedSet> {
    let name = evaluation.label();
    let of_table = |message: String| Error::config("evaluations", message);
    let (set, languages) = match (evaluation.task, config.evaluation_source(evaluation)) {
        (Auto::Of(EvaluationTask::Mteb(row)), _) => {
            // The subsets in these languages are all that is read.
            let languages = evaluation.languages.as_ref().map(|languages| languages.join(","));
            (tasks::eval_set(row, evaluation.data.as_deref(), evaluation.split, languages.as_deref())?, None)
        }
        (task, Some(source)) => {
            let task = match task {
                Auto::Of(EvaluationTask::Own(task)) => task,
                _ => hbt::eval::tasks::recognised(&source)?,
            };
            ((task.load)(&source)?, evaluation.languages.as_ref())
        }
        (_, None) => return Err(of_table(format!("{name:?} names no data"))),
    };
    say_notes(&set.notes);
    let set = match languages {
        Some(languages) => {
            set.only(languages).map_err(|message| of_table(format!("languages of {name:?}: {message}")))?
        }
        None => set,
    };
    Ok(NamedSet { name, set })
}

/// The benchmark that the single keys give, if there is one: `eval_data`, or the part of divided data for it.
fn single_eval_set(config: &Config) -> Result<Option<EvalSet>> {
    config.check_eval_fraction()?;
    if config.eval_task.is_none() || config.eval_fraction.is_some() {
        return Ok(None);
    }
    if !config.evaluations.is_empty() && !config.names_single_evaluation() {
        return Ok(None);
    }
    let is_one = config.datasets.is_empty();
    let is_wanted = matches!(config.eval_task, Some(Auto::Of(_))) || config.eval_data.is_some();
    if is_wanted || has_held_out(config)? {
        return eval_set(config, Purpose::Validation).map(Some);
    }
    if !config.evaluations.is_empty() {
        return Ok(None);
    }
    let divided = ", or split = \"train\" and eval_split = \"test\" for data that is divided";
    let remedy = format!("set eval_data or eval_fraction{}", if is_one { divided } else { "" });
    if config.patience.is_some() {
        let message = format!("stopping early needs an evaluation, and there is none: {remedy}");
        return Err(Error::config("patience", message));
    }
    say(&format!("no evaluation: {remedy}"));
    let idle = config.given_for_evaluation();
    idle.for_each(|key| say(&format!("warning: {key} has no effect, since there is no evaluation")));
    Ok(None)
}

/// Whether training takes a part of the data, and leaves another one for evaluation.
fn has_held_out(config: &Config) -> Result<bool> {
    let [dataset] = &datasets(config)?[..] else { return Ok(false) };
    if config.split == Auto::Of(Split::All) || config.eval_split == Auto::Of(Split::All) {
        return Ok(false);
    }
    let evaluated = config.eval_source(dataset.data.clone(), Purpose::Validation);
    let trained = config.data_source(dataset).resolve()?;
    // A whole corpus is searched only where someone asked for it.
    if trained.split() != Split::Train || trained.format() == DataFormat::Beir {
        return Ok(false);
    }
    Ok(matches!(evaluated.resolve()?.split(), Split::Validation | Split::Test))
}
