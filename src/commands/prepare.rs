//! `hbt prepare`

use super::data::{dataset_sources, tokenized};
use super::model::model_dir;
use super::ranks;
use super::setup::finish;
use hbt::Result;
use hbt::cli::InputArgs;
use hbt::config::{Auto, Device};
use hbt::data::prepare::DataReport;
use hbt::data::tokenize::TextTokenizer;
use hbt::train::Ranks;

/// Tokenizes the data as training would, on each machine once, and prints a report about it.
pub fn run(args: InputArgs) -> Result<()> {
    ranks::run(Auto::Of(Device::Cpu), |ranks| prepare(&args, ranks))
}

fn prepare(args: &InputArgs, ranks: &Ranks) -> Result<()> {
    let config = finish(args.draft()?)?;
    if ranks.peers().place().local_rank > 0 {
        return Ok(());
    }
    let dir = model_dir(&config)?;
    let tokenizer = TextTokenizer::from_file(&dir.tokenizer)?;
    let data = tokenized(dataset_sources(&config, &dir)?, &tokenizer)?;
    if !ranks.leads() {
        return Ok(());
    }
    for (number, cache) in data.caches().enumerate() {
        if data.caches().len() > 1 {
            crate::print(&format!("{}\n", data.name(number)))?;
        }
        crate::print(&format!("{}\n", DataReport::new(cache)))?;
    }
    Ok(())
}
