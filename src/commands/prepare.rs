//! `hbt prepare`

use super::{finish, model_dir, tokenized};
use hbt::Result;
use hbt::cli::InputArgs;
use hbt::data::prepare::DataReport;
use hbt::data::tokenize::TextTokenizer;
use hbt::eval::encode::TextKind;
use hbt::model_dir::ModelDir;

/// Tokenizes the data as training would, and prints what is in it.
pub fn run(args: InputArgs) -> Result<()> {
    let config = finish(args.draft()?)?;
    let dir = ModelDir::open(model_dir(&config)?)?;
    let tokenizer = TextTokenizer::from_file(&dir.tokenizer)?;
    let kinds = TextKind::of(&config, &dir);
    let data = tokenized(&config, &tokenizer, &kinds)?;
    for (number, cache) in data.caches().enumerate() {
        if data.caches().len() > 1 {
            crate::print(&format!("{}\n", data.name(number)))?;
        }
        crate::print(&format!("{}\n", DataReport::new(cache)))?;
    }
    Ok(())
}
