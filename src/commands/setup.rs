//! The finished configuration of a command.

use hbt::config::{Config, Draft};
use hbt::progress::say;
use hbt::{Error, Result, embedded};

/// The finished configuration. With the built-in questions, any model is trained on their train part and measured on
/// their test part; the built-in model with these questions also has settings that suit the two.
pub fn finish(draft: Draft) -> Result<Config> {
    let config = with_presets(draft)?.finish()?;
    if let Some(threads) = config.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|e| Error::config("threads", format!("{threads} cannot be started: {e}; lower it")))?;
    }
    Ok(config)
}

/// `draft` with the settings that suit the built-in model and data, as far as it names no others.
pub fn with_presets(mut draft: Draft) -> Result<Draft> {
    let so_far = draft.so_far();
    let own_model = so_far.model.is_some();
    let own_data = so_far.data.is_some() || !so_far.datasets.is_empty();
    let own_eval_data = own_data || so_far.eval_data.is_some();
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
