//! Options of `hbt train`.

use std::ops::Range;
use std::path::Path;

use clap::Args;

use super::{RunArgs, TraceArgs, from_scratch};
use crate::Result;
use crate::config::{Config, Draft, KEYS};

/// Keys that most runs set.
const USUAL: [&str; 10] = [
    "batch_size",
    "learning_rate",
    "epochs",
    "steps",
    "eval_data",
    "query_prefix",
    "passage_prefix",
    "alpha",
    "temperature",
    "negatives_per_query",
];

/// The end of the help: the keys that most runs set, with their meaning and default.
fn usual_keys() -> String {
    let defaults = Config::default();
    let mut help = "Keys that most runs set, as in --set batch_size=64 (`hbt config` has all of them):".to_owned();
    for key in KEYS.iter().filter(|key| USUAL.contains(&key.name)) {
        help += &format!("\n  {:<20} {} [default: {}]", key.name, key.help, key.value_of(&defaults));
    }
    help
}

/// Options of `hbt train`.
#[derive(Debug, Default, Args)]
#[command(after_help = usual_keys())]
pub struct TrainArgs {
    /// What every run takes.
    #[command(flatten)]
    pub run: RunArgs,

    /// Start from random weights; of the model, only configuration and tokenizer are read
    #[arg(long)]
    pub from_scratch: bool,

    /// Go on where the run in the run directory was stopped
    #[arg(long)]
    pub resume: bool,

    /// Train in N processes on this machine, one a GPU, or on its processors by the mpirun that is there; see docs/ranks.md
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub devices: Option<u32>,

    /// Print only the result
    #[arg(long, short)]
    pub quiet: bool,

    /// The trace.
    #[command(flatten)]
    pub trace: TraceArgs,

    /// Trace, or show to nsys and ncu, only steps A to B - 1, the first step being 1
    #[arg(long, value_name = "A..B", value_parser = steps)]
    pub profile_steps: Option<Range<u64>>,
}

impl TrainArgs {
    /// The configuration that the options give. With `--resume` and no file, the run directory's saved configuration is
    /// the file.
    pub fn draft(&self) -> Result<Draft> {
        let mut draft = from_scratch(self.from_scratch, self.run.draft()?)?;
        let saved = draft.so_far().out.join(Config::FILE_NAME);
        if self.resume && self.run.input.config.config.is_none() && saved.exists() {
            // The directory may have been moved since; the run goes on where it was found.
            let found = draft.so_far().out.to_string_lossy().into_owned();
            draft.file(&saved)?.option("--resume", "out", found)?;
        }
        Ok(draft)
    }

    /// The same in a process that looks at no run directory, as another has `found` in it the settings of a run: the file, and
    /// its text.
    ///
    /// # Errors
    /// Those of [`TrainArgs::draft`].
    pub fn draft_with(&self, found: Option<(&Path, &str)>) -> Result<Draft> {
        let mut draft = from_scratch(self.from_scratch, self.run.draft()?)?;
        if let Some((file, text)) = found {
            let out = draft.so_far().out.to_string_lossy().into_owned();
            draft.saved(file, text)?.option("--resume", "out", out)?;
        }
        Ok(draft)
    }
}

/// Parses steps `A..B`: from A to B - 1, counted from 1.
fn steps(text: &str) -> std::result::Result<Range<u64>, String> {
    let parse = || {
        let (first, end) = text.split_once("..")?;
        Some(first.parse().ok()?..end.parse().ok()?)
    };
    match parse().ok_or("write it as A..B, two numbers of steps: 10..13 for steps 10, 11 and 12")? {
        Range { start: 0, .. } => Err("the first step is 1".to_owned()),
        steps if steps.is_empty() => Err(format!("holds no step: B has to be above {}", steps.start)),
        steps => Ok(steps),
    }
}
