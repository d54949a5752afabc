//! Options of `hbt bench`.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{ConfigArgs, TraceArgs, at_least_one};
use crate::Result;
use crate::bench::Op;
use crate::config::Draft;

/// Options of `hbt bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure, such as attention,train_step; an unknown one lists them all [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub op: Vec<Op>,

    /// Only sizes whose names contain one of these, such as xlm-r-base; an unknown one lists those of --op
    /// [default: those that do not take minutes]
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',', value_parser = part_of_a_name)]
    pub shape: Vec<String>,

    /// Where to measure [default: auto, a GPU if there is one]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "cpu", "cuda"]))]
    pub device: Option<String>,

    /// f32 or bf16 [default: both, one after the other]
    #[arg(long, value_parser = PossibleValuesParser::new(["f32", "bf16"]), hide_possible_values = true)]
    pub precision: Option<String>,

    /// Measure everything N times and keep the best, for machines with other work
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub repeat: u32,

    /// Do not measure what this machine can do, and print no shares of it
    #[arg(long)]
    pub no_ceilings: bool,

    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,

    /// The trace.
    #[command(flatten)]
    pub trace: TraceArgs,

    /// Configuration file and `--set`: device, precision and threads count here.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl BenchArgs {
    /// The configuration that the options give.
    pub fn draft(&self) -> Result<Draft> {
        self.config.draft(&[("--device", "device", &self.device), ("--precision", "precision", &self.precision)])
    }
}

/// Parses a part of a size's name, which must not be empty: an empty one is in all names.
fn part_of_a_name(text: &str) -> std::result::Result<String, String> {
    if text.trim().is_empty() { Err("name a size, or a part of its name".to_owned()) } else { Ok(text.to_owned()) }
}
