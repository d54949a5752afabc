//! `hbt prepare`

use super::{data_source, finish, model_dir, tokenized};
use hbt::Result;
use hbt::cli::InputArgs;
use hbt::config::Config;
use hbt::data::prepare::DataReport;
use hbt::data::shard::TokenizeSpec;
use hbt::data::tokenize::TextTokenizer;
use hbt::model::ModelDir;

/// Tokenizes the data as training would, and prints what is in it.
pub fn run(args: InputArgs) -> Result<()> {
    let config = finish(args.draft()?)?;
    let dir = ModelDir::open(model_dir(&config)?)?;
    let tokenizer = TextTokenizer::from_file(&dir.tokenizer)?;
    let query_max_len = config.query_max_len.or(dir.query_max_len).unwrap_or(Config::QUERY_MAX_LEN);
    let passage_max_len = config.passage_max_len.or(dir.passage_max_len).unwrap_or(Config::PASSAGE_MAX_LEN);
    let spec = TokenizeSpec {
        query_prefix: config.query_prefix.clone().or(dir.query_prefix).unwrap_or_default(),
        passage_prefix: config.passage_prefix.clone().or(dir.passage_prefix).unwrap_or_default(),
        query_max_len: query_max_len.min(dir.max_seq_length),
        passage_max_len: passage_max_len.min(dir.max_seq_length),
    };
    let cache = tokenized(&data_source(&config)?, &tokenizer, &spec)?;
    crate::print(&format!("{}\n", DataReport::new(&cache)))
}
