//! `hbt prepare`

use super::data::{dataset_sources, tokenized};
use super::model::model_dir;
use super::setup::finish;
use hbt::Result;
use hbt::cli::InputArgs;
use hbt::data::prepare::DataReport;
use hbt::data::tokenize::TextTokenizer;

/// Tokenizes the data as training would, and prints a report about it.
pub fn run(args: InputArgs) -> Result<()> {
    super::ranks::require_alone("prepare")?;
    let config = finish(args.draft()?)?;
    let dir = model_dir(&config)?;
    let tokenizer = TextTokenizer::from_file(&dir.tokenizer)?;
    let data = tokenized(dataset_sources(&config, &dir)?, &tokenizer)?;
    for (number, cache) in data.caches().enumerate() {
        if data.caches().len() > 1 {
            crate::print(&format!("{}\n", data.name(number)))?;
        }
        crate::print(&format!("{}\n", DataReport::new(cache)))?;
    }
    Ok(())
}
