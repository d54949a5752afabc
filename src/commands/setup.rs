//! The finished configuration of a command.

use super::ranks::threads_of;
use hbt::config::{Config, Draft};
use hbt::dist::Place;
use hbt::progress::say;
use hbt::{Error, Result, embedded};

/// The finished configuration. With the built-in questions, any model is trained on their train part and measured on
/// their test part; the built-in model with these questions also has settings that suit the two.
pub fn finish(draft: Draft) -> Result<Config> {
    let names_both = draft.so_far().data.is_some() && !draft.so_far().datasets.is_empty();
    let config = with_presets(draft)?.finish()?;
    if names_both {
        let [used, idle] = if config.data.is_some() { ["data", "[[datasets]]"] } else { ["[[datasets]]", "data"] };
        say(&format!(
            "warning: {idle} of the configuration file is not used, since {used} was given on the command line"
        ));
    }
    // Who is one of several is said, or refused, elsewhere.
    let place = Place::current().unwrap_or(Place::ALONE);
    start_threads(config.threads.or(threads_of(&place)))?;
    Ok(config)
}

/// Starts the threads that all work is shared among: `None` is one a core.
///
/// # Errors
/// If the system refuses one.
pub fn start_threads(threads: Option<usize>) -> Result<()> {
    // 0 leaves the number to rayon.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    pool.build_global().map_err(|e| {
        let which = threads.map_or("one a core".to_owned(), |threads| threads.to_string());
        Error::config("threads", format!("{which} cannot be started: {e}; lower it, or raise the limit (ulimit -u)"))
    })
}

/// `draft` with the settings that suit the built-in model and data, as far as it names no others.
pub fn with_presets(mut draft: Draft) -> Result<Draft> {
    let so_far = draft.so_far();
    let own_model = so_far.model.is_some();
    let own_data = so_far.data.is_some() || !so_far.datasets.is_empty();
    let is_evaluated = so_far.eval_data.is_some() || so_far.eval_fraction.is_some() || !so_far.evaluations.is_empty();
    let own_eval_data = own_data || is_evaluated;
    if !own_data {
        draft.preset("built-in data", "split = 'train'")?;
    }
    if !own_eval_data {
        draft.preset("built-in data", "eval_split = 'test'")?;
    }
    if !own_model && !own_data {
        draft.preset("built-in model and data", embedded::PRESET)?;
    }
    Ok(draft)
}

/// `config`, after warnings about settings that are allowed but seldom meant.
pub fn warned(config: Config) -> Config {
    config.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    config
}
