//! Options of `hbt mine`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::{ComputeArgs, ConfigArgs, TraceArgs, at_least_one};
use crate::Result;
use crate::config::Draft;
use crate::mine::{Languages, Sampling};

/// Options of `hbt mine`.
#[derive(Debug, Args)]
#[command(after_help = "\
A passage's score is its cosine with the query, or the mean over the row's queries. Ranks count passages that do not \
hold the answer; those that do are never mined: the positives of the row's group in every language, passages with the \
same text, and the positives of all groups that share a query or positive with it. A passage is held against the row's \
own positive in the language of the passage, or against all of them where there is none; of several against the one of \
the lowest score.

Every row comes out as it was, its negatives added under the name that its layout has for them (negatives, neg, \
negative, negative_passages, or columns negative_1, negative_2, ...), in parallel rows by language. A SQuAD directory \
becomes parallel rows. Training takes negatives in the language of the row's positive.")]
pub struct MineArgs {
    /// Configuration file and `--set`.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Model directory or Hugging Face hub id [default: a small built-in encoder]
    #[arg(long, value_name = "DIR|ID")]
    pub model: Option<String>,

    /// Data to mine: JSON lines, CSV, TSV, Parquet, SQuAD or BEIR layout [default: built-in parallel questions]
    #[arg(long, value_name = "FILE|DIR")]
    pub data: Option<String>,

    /// Where the data goes with its negatives, as JSON Lines; - is standard output
    #[arg(long, value_name = "FILE.jsonl")]
    pub output: PathBuf,

    /// Replace the output even if it is a file that does not look like one of this command
    #[arg(long)]
    pub overwrite: bool,

    /// Negatives to find for each row, with --languages same in each language; fewer where fewer qualify
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = at_least_one)]
    pub num_negatives: u32,

    /// Best rank to mine, 1 being the best passage that does not hold the answer
    #[arg(long, value_name = "RANK", default_value_t = 10, value_parser = at_least_one)]
    pub range_min: u32,

    /// Worst rank to mine
    #[arg(long, value_name = "RANK", default_value_t = 100, value_parser = at_least_one)]
    pub range_max: u32,

    /// Mine only what scores at most positive - X |positive|: for X = 0.05, at most 95 % of a positive
    /// score
    #[arg(long, value_name = "X|none", default_value = "0.05", allow_negative_numbers = true)]
    pub relative_margin: Limit,

    /// Mine only what scores at most positive - X
    #[arg(long, value_name = "X|none", default_value = "none", allow_negative_numbers = true)]
    pub absolute_margin: Limit,

    /// Mine only what scores at most X
    #[arg(long, value_name = "X|none", default_value = "none", allow_negative_numbers = true)]
    pub max_score: Limit,

    /// Mine only what scores at least X
    #[arg(long, value_name = "X|none", default_value = "none", allow_negative_numbers = true)]
    pub min_score: Limit,

    /// Where to look: in each language that the row has a positive in (same), in all languages ranked
    /// together (all), or in some ranked together, such as en,de
    #[arg(long, value_name = "same|all|LANG,...", default_value = "same")]
    pub languages: Languages,

    /// Of the passages that qualify, take those with the highest scores (top) or any, drawn by the seed
    /// (random)
    #[arg(long, value_name = "top|random", default_value = "top")]
    pub sampling_strategy: Sampling,

    /// Put the mined negatives in the place of those that the rows have, instead of adding to them
    #[arg(long)]
    pub replace_negatives: bool,

    /// The trace.
    #[command(flatten)]
    pub trace: TraceArgs,

    /// Device and precision.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

impl MineArgs {
    /// The configuration typed.
    pub fn draft(&self) -> Result<Draft> {
        self.compute.apply(self.config.draft(&[("--model", "model", &self.model), ("--data", "data", &self.data)])?)
    }
}

/// A margin or bound of scores, which can be switched off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit(pub Option<f32>);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.parse::<f32>() {
            _ if text == "none" => Ok(Limit(None)),
            Ok(number) if number.is_finite() => Ok(Limit(Some(number))),
            _ => Err("write a number, such as 0.05, or none".to_owned()),
        }
    }
}
