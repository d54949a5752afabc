//! The command line: what was typed, and the configuration that it stands for.

mod bench;
mod encode;
mod eval;
mod mine;
mod report;
mod train;

pub use bench::BenchArgs;
pub use encode::{EncodeArgs, EncodeAs, EncodeFormat, InputFormat};
pub use eval::EvalArgs;
pub use mine::{Limit, MineArgs};
pub use report::{CompareArgs, ReportArgs};
pub use train::TrainArgs;

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::config::{Assignment, Device, Draft};
use crate::plan::{Cluster, Target};
use crate::{Error, Result};

/// Fine-tune text encoders into retrievers that work within and across languages
#[derive(Debug, Parser)]
#[command(name = "hbt", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "\
Quick start (works offline):
  hbt train                          fine-tune the built-in encoder on the built-in questions
  hbt compare                        see what hybrid batches gain over the two other kinds
  hbt train --model DIR --data FILE  fine-tune your model on your data")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a model; evaluate it before, on the way and after
    Train(TrainArgs),
    /// Measure a model's retrieval in one language, across languages, and in a pool of all languages
    Eval(EvalArgs),
    /// Train with monolingual, cross-lingual and hybrid batches on the same budget, and compare; or compare runs
    Compare(CompareArgs),
    /// Show runs and results as a page for a browser: curves, figures before and after, languages
    Report(ReportArgs),
    /// Turn texts into embeddings
    Encode(EncodeArgs),
    /// Write the data with hard negatives: passages of its own that a model takes for the answer
    Mine(MineArgs),
    /// Say what a run will take before it begins: memory, time, and what to change if it does not fit
    Plan(PlanArgs),
    /// Tokenize the data once and say what is in it
    Prepare(InputArgs),
    /// Print every configuration key with its meaning and value, as a TOML file to start from: what was not given is
    /// commented out
    Config(ConfigCommandArgs),
    /// Measure how much of this machine's speed hbt uses, operation by operation
    Bench(BenchArgs),
    /// Print what belongs in a bug report: version, processor, memory, devices
    Info,
    /// Print the completions for a shell, or write the manual pages
    Completions(CompletionsArgs),
}

impl Command {
    /// File of the trace, if one is to be written.
    pub fn trace_file(&self) -> Option<&Path> {
        let trace = match self {
            Command::Train(args) => &args.trace,
            Command::Eval(args) => &args.trace,
            Command::Encode(args) => &args.trace,
            Command::Mine(args) => &args.trace,
            Command::Bench(args) => &args.trace,
            Command::Compare(_)
            | Command::Report(_)
            | Command::Plan(_)
            | Command::Prepare(_)
            | Command::Config(_)
            | Command::Completions(_)
            | Command::Info => return None,
        };
        trace.trace.as_deref()
    }
}

/// Where a command writes what it spent its time on.
#[derive(Debug, Default, Args)]
pub struct TraceArgs {
    /// Write a trace for ui.perfetto.dev: what took how long, by step, phase, layer and operation
    #[arg(long, value_name = "FILE.json")]
    pub trace: Option<PathBuf>,
}

/// The sources that every command's configuration has in common.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file (`hbt config` prints one); options override it, --set overrides both
    #[arg(value_name = "CONFIG.toml")]
    pub config: Option<PathBuf>,

    /// Set any configuration key (`hbt config` lists them), as in --set batch_size=64; may be repeated
    #[arg(long, value_name = "KEY=VALUE", display_order = 100)]
    pub set: Vec<Assignment>,
}

impl ConfigArgs {
    /// The file and `--set` as a draft, with `options` (option, key, value) ranking between them.
    fn draft(&self, options: &[(&str, &str, &Option<String>)]) -> Result<Draft> {
        let mut draft = Draft::new();
        if let Some(path) = &self.config {
            draft.file(path)?;
        }
        for (option, key, value) in options {
            if let Some(value) = value {
                draft.option(option, key, value.as_str())?;
            }
        }
        for assignment in &self.set {
            draft.set(assignment)?;
        }
        Ok(draft)
    }
}

/// Where and in which numbers a command computes.
#[derive(Debug, Default, Args)]
pub struct ComputeArgs {
    /// Where the encoder runs [default: auto, a GPU if there is one]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "cpu", "cuda"]))]
    pub device: Option<String>,

    /// Number type of activations and working weights [default: auto, the fastest here]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "f32", "bf16"]))]
    pub precision: Option<String>,
}

impl ComputeArgs {
    /// Adds the options to `draft`.
    fn apply(&self, mut draft: Draft) -> Result<Draft> {
        if let Some(device) = &self.device {
            draft.option("--device", "device", device.as_str())?;
        }
        if let Some(precision) = &self.precision {
            draft.option("--precision", "precision", precision.as_str())?;
        }
        Ok(draft)
    }
}

/// Options of `hbt prepare`: a model for its tokenizer, and data.
#[derive(Debug, Default, Args)]
pub struct InputArgs {
    /// Configuration file and `--set`.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Model directory or Hugging Face hub id [default: a small built-in encoder]
    #[arg(long, value_name = "DIR|ID")]
    pub model: Option<String>,

    /// Training data: JSON lines, CSV, TSV, Parquet, SQuAD or BEIR layout; may be repeated [default: built-in parallel questions]
    #[arg(long, value_name = "FILE|DIR")]
    pub data: Vec<String>,
}

impl InputArgs {
    /// The configuration that the options give.
    pub fn draft(&self) -> Result<Draft> {
        let mut draft = self.config.draft(&[("--model", "model", &self.model)])?;
        match self.data.as_slice() {
            [] => {}
            [one] => _ = draft.option("--data", "data", one.as_str())?,
            several => {
                let table = |data: &String| toml::Table::from_iter([("data".to_owned(), data.as_str().into())]);
                let tables: Vec<_> = several.iter().map(|data| toml::Value::Table(table(data))).collect();
                draft.option("--data", "datasets", tables)?;
            }
        }
        Ok(draft)
    }
}

/// Options of `hbt config`.
#[derive(Debug, Default, Args)]
pub struct ConfigCommandArgs {
    /// What a run takes.
    #[command(flatten)]
    pub run: RunArgs,

    /// Print only what differs from the configuration of this run, or from this file
    #[arg(long, value_name = "RUN")]
    pub diff: Option<PathBuf>,
}

/// Options of `hbt completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
To install:
  hbt completions bash > ~/.local/share/bash-completion/completions/hbt
  hbt completions zsh > ~/.zfunc/_hbt        (a directory of $fpath)
  hbt completions fish > ~/.config/fish/completions/hbt.fish
  hbt completions --man ~/.local/share/man/man1")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(required_unless_present = "man")]
    pub shell: Option<clap_complete::Shell>,

    /// Write hbt.1, hbt-train.1 and so on into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "shell")]
    pub man: Option<PathBuf>,
}

/// The first options of `hbt train`, `hbt compare` and `hbt config`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Model, data and configuration.
    #[command(flatten)]
    pub input: InputArgs,

    /// Run directory for models, metrics and checkpoints [default: runs/train; of compare: runs/compare]
    #[arg(long, value_name = "DIR")]
    pub out: Option<String>,

    /// Device and precision.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

impl RunArgs {
    /// The configuration that the options give.
    pub fn draft(&self) -> Result<Draft> {
        let mut draft = self.compute.apply(self.input.draft()?)?;
        if let Some(out) = &self.out {
            draft.option("--out", "out", out.as_str())?;
        }
        Ok(draft)
    }
}

/// `draft`, and what `--from-scratch` adds to it.
fn from_scratch(is_given: bool, mut draft: Draft) -> Result<Draft> {
    if is_given {
        draft.option("--from-scratch", "from_scratch", true)?;
    }
    Ok(draft)
}

/// Options of `hbt plan`: those of `hbt train` that change what a run takes.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Model, data and configuration.
    #[command(flatten)]
    pub input: InputArgs,

    /// Start from random weights, as the run would
    #[arg(long)]
    pub from_scratch: bool,

    /// The machine that the run is planned for.
    #[arg(long = "for", value_name = "MACHINE", default_value_t = Target::This, help = targets())]
    pub target: Target,

    /// Plan for N ranks on each machine, with a GPU each, as `hbt train --devices` starts them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub devices: u32,

    /// Plan for so many machines
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,

    /// Speed of the network from a machine to another, for all its GPUs, in Gbit/s
    #[arg(long, value_name = "GBIT/S", value_parser = above_zero)]
    pub link: Option<f64>,

    /// Speed from a GPU to another beside it, in GB/s [default: NVLink's or PCIe's by the maker, in one direction]
    #[arg(long, value_name = "GB/S", value_parser = above_zero)]
    pub gpu_link: Option<f64>,

    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,

    /// Device and precision.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

fn targets() -> String {
    format!("Machine to plan for: {}", Target::names())
}

impl PlanArgs {
    /// The configuration that the options give. A file may have its device for this machine; given as an option beside
    /// `--for`, it has to be a GPU.
    pub fn draft(&self) -> Result<Draft> {
        let draft = from_scratch(self.from_scratch, self.compute.apply(self.input.draft()?)?)?;
        let target = self.target;
        if target != Target::This && draft.is_typed("device") && draft.so_far().device == Device::Cpu.into() {
            let message = format!("--for {target} plans for a GPU, and the device is cpu; take one of the two away");
            return Err(Error::usage(message));
        }
        Ok(draft)
    }

    /// The ranks that the options give.
    ///
    /// # Errors
    /// Several machines, and nothing that says how fast their network is.
    pub fn cluster(&self) -> Result<Cluster> {
        let PlanArgs { devices, nodes, link, gpu_link, .. } = *self;
        if nodes > 1 && link.is_none() {
            let message =
                format!("--nodes {nodes} exchange over a network; say how fast it is, as in --link 400 (Gbit/s)");
            return Err(Error::usage(message));
        }
        Ok(Cluster {
            devices: devices as usize,
            nodes: nodes as usize,
            link: gpu_link.map(|gigabytes| 1e9 * gigabytes),
            network: link.map(|gigabits| 1e9 / 8.0 * gigabits),
        })
    }
}

/// Parses a speed: a number above 0.
fn above_zero(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write a number above 0".to_owned())
}

/// Parses a count or a rank: a whole number from 1 on.
fn at_least_one(text: &str) -> std::result::Result<u32, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "write a whole number from 1 on, in digits only".to_owned())
}
